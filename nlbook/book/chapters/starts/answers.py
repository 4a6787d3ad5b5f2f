"""Chapter E: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import torch

from nlbook.book.chapters.starts.exercises import (
    adapt,
    after_one_write,
    broken_outer,
    outer_gradient,
    outer_loss,
    straight_through,
)


def adapt_recursive(start, K, V, eta):
    if not len(K):
        return start
    return adapt_recursive(start + eta * torch.outer(V[0] - start @ K[0], K[0]), K[1:], V[1:], eta)


def adapt_erase_then_write(start, K, V, eta):
    M = start
    for k, v in zip(K, V):
        M = M @ (torch.eye(len(k), dtype=M.dtype) - eta * torch.outer(k, k)) + eta * v[:, None] * k
    return M


def adapt_by_task(start, K, V, eta):
    from nlbook.book.chapters.starts import meta

    return meta.adapted(start, meta.Contexts(K[None], V[None], start[None]), len(K), eta)[0]


def by_autograd(phi, c, a, eta):
    x = phi.detach().clone().requires_grad_()
    return torch.autograd.grad(after_one_write(x, c, a, eta), x)[0]


def by_loop(phi, c, a, eta):
    total = torch.zeros_like(phi)
    for ci, ai in zip(c, a):
        M = phi - eta * ci * (phi - ai)
        total = total + ci * (M - ai) * (1 - eta * ci)
    return total


def loss_by_parts(start, k, v, q, target, eta):
    y = start @ q + eta * (v - start @ k) * (k @ q)
    return 0.5 * ((y - target) ** 2).sum()


def loss_by_adapt(start, k, v, q, target, eta):
    return 0.5 * (adapt(start, k[None], v[None], eta) @ q - target).square().sum()


def loss_by_clone(start, k, v, q, target, eta):
    M = start.clone()
    M = M - eta * (M @ k - v)[:, None] * k
    e = M @ q - target
    return e @ e / 2


ONE = [
    "set the inner state to the start",
    "write the context's pairs",
    "ask for pairs that were not written",
    "differentiate back through the writes",
    "move the start by the optimizer",
    "throw the inner state away",
]


def adapt_in_place(start, K, V, eta):
    M = start.clone()
    for k, v in zip(K, V):
        M += eta * torch.outer(v - M @ k, k)
    return M


MUTANTS = {
    "E-adapt": {
        "gradient cut": lambda start, K, V, eta: adapt(start.detach(), K, V, eta),
        "first order": lambda start, K, V, eta: adapt(start.detach(), K, V, eta) + start - start.detach(),
        "full steps": lambda start, K, V, eta: adapt(start, K, V, 1.0),
        "backwards": lambda start, K, V, eta: adapt(start, K.flip(0), V.flip(0), eta),
    },
    "E-outer": {
        "wrong sign": lambda phi, c, a, eta: -outer_gradient(phi, c, a, eta),
        "without loudness": lambda phi, c, a, eta: ((1 - eta * c) ** 2 * (phi - a)).sum(),
        "rate outside": lambda phi, c, a, eta: (c * (1 - eta) ** 2 * (phi - a)).sum(),
    },
    "E-cut": {
        "unchanged": broken_outer,
        "straight through": straight_through,
        "without the half": lambda start, k, v, q, target, eta: 2 * outer_loss(start, k, v, q, target, eta),
        "first order": lambda start, k, v, q, target, eta: (
            0.5
            * ((start.detach() + eta * torch.outer(v - start.detach() @ k, k) + start - start.detach()) @ q - target)
            .square()
            .sum()
        ),
    },
    "E-worth": {
        "s instead of s squared, width 8": 5.2,
        "too many": 44,
    },
    "E-order": {
        "asks first": [ONE[0], ONE[2], ONE[1], *ONE[3:]],
        "throws away too early": [*ONE[:3], ONE[5], ONE[3], ONE[4]],
        "moves first": [ONE[4], *ONE[:4], ONE[5]],
        "backwards": ONE[::-1],
        "writes before there is a state": [ONE[1], ONE[0], *ONE[2:]],
    },
}

ACCEPTED = {
    "E-adapt": {
        "recursion": adapt_recursive,
        "erase, then write": adapt_erase_then_write,
        "the library": adapt_by_task,
        "in place on a copy": adapt_in_place,
    },
    "E-outer": {
        "autograd": by_autograd,
        "a loop": by_loop,
        "one expression": lambda phi, c, a, eta: ((phi - a) * c * (eta * c - 1) ** 2).sum(),
    },
    "E-cut": {
        "without forming M": loss_by_parts,
        "through adapt": loss_by_adapt,
        "a clone keeps its history": loss_by_clone,
    },
    "E-worth": {"exact": 21.48, "rounded": 21, "1.39 d": 22.2},
    "E-order": {"listed": ONE, "thrown away before the move": [*ONE[:4], ONE[5], ONE[4]]},
}
