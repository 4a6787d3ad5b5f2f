"""Chapter 04: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import torch

from nlbook.book.chapters.levels.exercises import (
    adapt,
    asked,
    broken_outer,
    is_faster,
    learn_by,
    learn_start,
    outer_gradient,
    outer_loss,
)
from nlbook.levels import Component, NestedSystem


def count_one_by_one(sequence, segment, chunk, batch):
    level = sum(1 for t in range(1, sequence + 1) if t % chunk == 0)
    return 1, level, sum(segment for _ in range(sequence // segment)), batch


def by_library(a, b, f, needs):
    return NestedSystem([Component(n, f[n], needs=frozenset(needs[n])) for n in f], "step").faster(a, b)


def adapt_recursive(start, K, V, eta):
    if not len(K):
        return start
    return adapt_recursive(start + eta * torch.outer(V[0] - start @ K[0], K[0]), K[1:], V[1:], eta)


def adapt_erase_then_write(start, K, V, eta):
    M = start
    for k, v in zip(K, V):
        M = M @ (torch.eye(len(k), dtype=M.dtype) - eta * torch.outer(k, k)) + eta * v[:, None] * k
    return M


def adapt_in_place(start, K, V, eta):
    M = start.clone()
    for k, v in zip(K, V):
        M += eta * torch.outer(v - M @ k, k)
    return M


def loss_by_parts(start, k, v, q, target, eta):
    y = start @ q + eta * (v - start @ k) * (k @ q)
    return 0.5 * ((y - target) ** 2).sum()


def loss_by_adapt(start, k, v, q, target, eta):
    return 0.5 * (adapt(start, k[None], v[None], eta) @ q - target).square().sum()


def loss_in_place(start, k, v, q, target, eta):
    M = start.clone()
    M += eta * torch.outer(v - M @ k, k)
    e = M @ q - target
    return e @ e / 2


def by_autograd(start, K, V, Q, T, eta):
    leaf = start.detach().clone().requires_grad_()
    return torch.autograd.grad(asked(leaf, K, V, Q, T, eta), leaf)[0]


def by_product(start, K, V, Q, T, eta):
    P = torch.eye(K.shape[1], dtype=K.dtype)
    for k in K:
        P = P @ (torch.eye(len(k), dtype=K.dtype) - eta * torch.outer(k, k))
    return (Q @ adapt(start, K, V, eta).T - T).T @ Q @ P.T


def gradient_in_place(start, K, V, Q, T, eta):
    G = (Q @ adapt_in_place(start, K, V, eta).T - T).T @ Q
    for i in range(len(K) - 1, -1, -1):
        G -= eta * (G @ K[i])[:, None] * K[i]
    return G


def learn_in_place(K, V, told, eta, lr):
    start = torch.zeros(V.shape[2], K.shape[2], dtype=K.dtype)
    for i in range(len(K)):
        start -= lr * by_product(start, K[i, :told], V[i, :told], K[i, told:], V[i, told:], eta)
    return start


def learn_by_sgd(K, V, told, eta, lr):
    start = torch.zeros(V.shape[2], K.shape[2], dtype=K.dtype, requires_grad=True)
    sgd = torch.optim.SGD([start], lr=lr)
    for k, v in zip(K, V):
        sgd.zero_grad()
        asked(start, k[:told], v[:told], k[told:], v[told:], eta).backward()
        sgd.step()
    return start.detach()


MUTANTS = {
    "04-count": {
        "segments for chunks": lambda sequence, segment, chunk, batch: (1, sequence // segment, sequence, batch),
        "all once": lambda sequence, segment, chunk, batch: (1, 1, 1, 1),
        "tokens per chunk": lambda sequence, segment, chunk, batch: (1, chunk, sequence, batch),
    },
    "04-faster": {
        "turned round": lambda a, b, f, needs: is_faster(b, a, f, needs) and f[a] != f[b],
        "never": lambda a, b, f, needs: False,
        "always": lambda a, b, f, needs: True,
    },
    "04-layers": {"four": 4, "with MLPs": 48},
    "04-adapt": {
        "gradient cut": lambda start, K, V, eta: adapt(start.detach(), K, V, eta),
        "first order": lambda start, K, V, eta: adapt(start.detach(), K, V, eta) + start - start.detach(),
        "full steps": lambda start, K, V, eta: adapt(start, K, V, 1.0),
        "backwards": lambda start, K, V, eta: adapt(start, K.flip(0), V.flip(0), eta),
    },
    "04-cut": {
        "unchanged": broken_outer,
        "without the half": lambda start, k, v, q, target, eta: 2 * outer_loss(start, k, v, q, target, eta),
    },
    "04-outer": {
        "wrong sign": lambda *a: -outer_gradient(*a),
        "through the last write only": lambda start, K, V, Q, T, eta: by_product(
            adapt(start, K[:-1], V[:-1], eta), K[-1:], V[-1:], Q, T, eta
        ),
        "transposed": lambda *a: outer_gradient(*a).T,
    },
    "04-learn": {
        "last document only": lambda K, V, told, eta, lr: learn_start(K[-1:], V[-1:], told, eta, lr),
        "all told": lambda K, V, told, eta, lr: learn_start(K, V, K.shape[1], eta, lr),
        "without a rate": lambda K, V, told, eta, lr: learn_start(K, V, told, eta, 1.0),
    },
    "04-worth": {"too few": 54, "too many": 500, "a share": 0.3},
}

ACCEPTED = {
    "04-count": {
        "one by one": count_one_by_one,
        "floor": lambda sequence, segment, chunk, batch: (1, int(sequence / chunk), sequence, batch),
        "a list": lambda sequence, segment, chunk, batch: tuple(
            [1, (sequence - sequence % chunk) // chunk, sequence, batch]
        ),
    },
    "04-faster": {
        "the library": by_library,
        "two rules": lambda a, b, f, needs: (a in needs[b]) if f[a] == f[b] else f[a] > f[b],
        "pairs": lambda a, b, f, needs: (f[a], a in needs[b]) > (f[b], False),
    },
    "04-layers": {"number": 3, "text": "3 levels", "float": 3.0},
    "04-adapt": {
        "recursion": adapt_recursive,
        "erase, then write": adapt_erase_then_write,
        "in place on a copy": adapt_in_place,
    },
    "04-cut": {"without forming M": loss_by_parts, "through adapt": loss_by_adapt, "in place on a copy": loss_in_place},
    "04-outer": {"autograd": by_autograd, "product": by_product, "in place": gradient_in_place},
    "04-learn": {"in place": learn_in_place, "torch's SGD": learn_by_sgd, "by autograd": learn_by(by_autograd)},
    "04-worth": {"exact": 178.16, "rounded": 178, "text": "179 pairs"},
}
