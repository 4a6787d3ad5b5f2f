"""Chapter 01: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

from itertools import pairwise

import torch


def hebb_loop(M, k, v, eta):
    new = M.clone()
    for i in range(len(v)):
        for j in range(len(k)):
            new[i, j] = new[i, j] + eta * v[i] * k[j]
    return new


def delta_loop(M, k, v, eta):
    read = [sum(M[i, j] * k[j] for j in range(len(k))) for i in range(len(v))]
    return torch.stack([M[i] + eta * (v[i] - read[i]) * k for i in range(len(v))])


def delta_by_autograd(M, k, v, eta):
    W = M.detach().requires_grad_()
    half = 0.5 * (W @ k - v).square().sum()
    return M - eta * torch.autograd.grad(half, W)[0]


def by_matrices(v1, v2, c, eta):
    k1, k2 = torch.tensor([1.0, 0.0]).double(), torch.tensor([c, (1 - c * c) ** 0.5]).double()
    M = torch.outer(v1, k1)
    return (M + eta * torch.outer(v2 - M @ k2, k2)) @ k1


def both_in_place(slow, fast, k, v, rates):
    error = v - slow @ k - fast @ k
    return slow.add(torch.outer(error, k), alpha=rates[0]), fast.add(torch.outer(error, k), alpha=rates[1])


def both_by_autograd(slow, fast, k, v, rates):
    S, F = slow.detach().requires_grad_(), fast.detach().requires_grad_()
    g = torch.autograd.grad(0.5 * (S @ k + F @ k - v).square().sum(), (S, F))
    return slow - rates[0] * g[0], fast - rates[1] * g[1]


def stacked_matrices(K, V, begins, rates):
    rate = torch.tensor(rates, dtype=K.dtype)[:, None, None]
    M, said = torch.zeros(2, V.shape[1], K.shape[1], dtype=K.dtype), torch.zeros_like(V)
    for t in range(len(K)):
        M = M * torch.tensor([1.0, 0.0 if begins[t] else 1.0]).double()[:, None, None]
        said[t] = M.sum(0) @ K[t]
        M = M + rate * torch.outer(V[t] - said[t], K[t])
    return said


def document_by_document(K, V, begins, rates):
    slow, said = torch.zeros(V.shape[1], K.shape[1], dtype=K.dtype), []
    starts = [t for t, b in enumerate(begins) if b] + [len(K)]
    for first, end in pairwise(starts):
        fast = torch.zeros_like(slow)
        for t in range(first, end):
            said.append(slow @ K[t] + fast @ K[t])
            slow, fast = both_in_place(slow, fast, K[t], V[t], rates)
    return torch.stack(said)


def one_total(K, V, begins, rates):
    slow = total = torch.zeros(V.shape[1], K.shape[1], dtype=K.dtype)
    said = []
    for k, v, begin in zip(K, V, begins, strict=True):
        total = slow if begin else total
        said.append(total @ k)
        change = torch.outer(v - said[-1], k)
        slow, total = slow + rates[0] * change, total + sum(rates) * change
    return torch.stack(said)


MUTANTS = {
    "01-second": {
        "the first alone": lambda v1, v2, c, eta: (1 - eta * c**2) * v1,
        "adds what it should erase": lambda v1, v2, c, eta: (1 + eta * c**2) * v1 + eta * c * v2,
        "rate squared": lambda v1, v2, c, eta: (1 - (eta * c) ** 2) * v1 + eta * c * v2,
        "whole second value": lambda v1, v2, c, eta: (1 - eta * c**2) * v1 + c * v2,
        "a mean": lambda v1, v2, c, eta: (1 - eta * c**2) * v1 + eta * c**2 * v2,
    },
    "01-both": {
        "wrong sign": lambda s, f, k, v, r: both_in_place(s, f, k, v, (-r[0], -r[1])),
        "one rate": lambda s, f, k, v, r: both_in_place(s, f, k, v, (r[0], r[0])),
        "rates exchanged": lambda s, f, k, v, r: both_in_place(s, f, k, v, r[::-1]),
        "error of the fast alone": lambda s, f, k, v, r: both_in_place(s, f, k, v + s @ k, r),
        "the fast alone is written": lambda s, f, k, v, r: (s, both_in_place(s, f, k, v, r)[1]),
    },
    "01-reader": {
        "wrong sign": lambda K, V, b, r: document_by_document(K, V, b, (-r[0], -r[1])),
        "the fast alone": lambda K, V, b, r: document_by_document(K, V, b, (0.0, r[1])),
        "the slow alone": lambda K, V, b, r: document_by_document(K, V, b, (r[0], 0.0)),
        "one document more": lambda K, V, b, r: document_by_document(K, V, [*b[:-1], True], r),
        "one step late": lambda K, V, b, r: document_by_document(K, V, b, r).roll(1, 0),
    },
    "01-shared": {
        "erases only": lambda M, k, v, eta: M - eta * torch.outer(M @ k, k),
        "erases after writing": lambda M, k, v, eta: (W := M + eta * torch.outer(v, k)) - eta * torch.outer(W @ k, k),
        "full erase": lambda M, k, v, eta: M - torch.outer(M @ k, k) + eta * torch.outer(v, k),
        "adds instead of erasing": lambda M, k, v, eta: M + eta * torch.outer(M @ k, k) + eta * torch.outer(v, k),
        "one error for all values": lambda M, k, v, eta: M + eta * (v - M @ k).sum() * torch.ones(len(v), 1) * k,
    },
    "01-half-life": {
        "keep 0.99": 69,
        "one": 1,
    },
    "01-overlaps": {
        "values only": lambda K, V: V.clone(),
        "normalised": lambda K, V: (K @ K.T) / len(K) @ V,
        "squared overlaps": lambda K, V: (K @ K.T) ** 2 @ V,
    },
    "01-hebb": {
        "wrong sign": lambda M, k, v, eta: M - eta * torch.outer(v, k),
        "twice": lambda M, k, v, eta: M + 2 * eta * torch.outer(v, k),
        "rate squared": lambda M, k, v, eta: M + eta**2 * torch.outer(v, k),
        "in place": lambda M, k, v, eta: M.add_(torch.outer(v, k), alpha=eta),
        "never writes": lambda M, k, v, eta: M,
        "float32": lambda M, k, v, eta: (M + eta * torch.outer(v, k)).float(),
    },
    "01-delta": {
        "wrong sign": lambda M, k, v, eta: M + eta * torch.outer(M @ k - v, k),
        "gradient of the whole square": lambda M, k, v, eta: M + 2 * eta * torch.outer(v - M @ k, k),
        "oja": lambda M, k, v, eta: M + eta * (torch.outer(v, k) - torch.outer(v, v) @ M),
        "mean square": lambda M, k, v, eta: M + eta * torch.outer(v - M @ k, k) / len(v),
    },
}

ACCEPTED = {
    "01-second": {
        "with matrices": by_matrices,
        "step by step": lambda v1, v2, c, eta: v1 + eta * c * (v2 - c * v1),
        "a loop": lambda v1, v2, c, eta: torch.stack([a - eta * c * (c * a - b) for a, b in zip(v1, v2, strict=True)]),
    },
    "01-both": {
        "add": both_in_place,
        "a gradient step": both_by_autograd,
        "column times row": lambda s, f, k, v, r: tuple(
            m + rate * (v - (s + f) @ k)[:, None] * k for m, rate in ((s, r[0]), (f, r[1]))
        ),
    },
    "01-reader": {
        "stacked": stacked_matrices,
        "document by document": document_by_document,
        "the sum and the slow one": one_total,
    },
    "01-shared": {
        "the error form": lambda M, k, v, eta: M + eta * torch.outer(v - M @ k, k),
        "a loop": delta_loop,
        "a gradient step": delta_by_autograd,
    },
    "01-half-life": {"exact": 44.01, "rounded": 44, "0.69 d": 0.693 * 64},
    "01-overlaps": {
        "through the memory": lambda K, V: K @ (V.T @ K).T,
        "einsum": lambda K, V: torch.einsum("id,jd,jv->iv", K, K, V),
        "a loop": lambda K, V: torch.stack(
            [sum(((k @ kj) * v for kj, v in zip(K, V)), torch.zeros_like(V[0])) for k in K]
        ),
    },
    "01-hebb": {
        "a loop": hebb_loop,
        "einsum": lambda M, k, v, eta: M + torch.einsum("i,j->ij", eta * v, k),
        "column times row": lambda M, k, v, eta: M + (eta * v)[:, None] * k[None, :],
    },
    "01-delta": {
        "a loop": delta_loop,
        "a gradient step": delta_by_autograd,
        "erase, then write": lambda M, k, v, eta: (
            M @ (torch.eye(len(k), dtype=M.dtype) - eta * torch.outer(k, k)) + eta * torch.outer(v, k)
        ),
        "column times row": lambda M, k, v, eta: M + eta * (v - (M * k).sum(1))[:, None] * k,
    },
}
