"""Appendix C: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import torch

from nlbook.book.chapters.errata.exercises import m3_with


def m3_loop(grads, b1, b3, period):
    fast = slow = waiting = torch.zeros_like(grads[0])
    for t, g in enumerate(grads, 1):
        fast, waiting = fast + b1 * (g - fast), waiting + g
        if t % period == 0:
            slow, waiting = slow + b3 * (waiting - slow), torch.zeros_like(g)
    return fast, slow


def m3_weights(grads, b1, b3, period):
    n, whole = len(grads), len(grads) // period
    fast = sum(b1 * (1 - b1) ** (n - 1 - i) * g for i, g in enumerate(grads))
    parts = [grads[i * period : (i + 1) * period].sum(0) for i in range(whole)]
    return fast, sum(b3 * (1 - b3) ** (whole - 1 - i) * p for i, p in enumerate(parts))


def m3_lerp(grads, b1, b3, period):
    fast = slow = torch.zeros_like(grads[0])
    for g in grads:
        fast = torch.lerp(fast, g, b1)
    for part in grads.split(period):
        if len(part) == period:
            slow = torch.lerp(slow, part.sum(0), b3)
    return fast, slow


MUTANTS = {
    "C-slip": {
        "one factor": lambda M, k, v: torch.outer(v, 2 * (M.T @ v) - k),
        "transposed": lambda M, k, v: 2 * torch.outer(M.T @ v - k, v),
    },
    "C-m3": {
        "heavy ball": lambda g, b1, b3, p: m3_with(g, 1 - b1, 1 - b3, p),
    },
}

ACCEPTED = {
    "C-slip": {
        "two terms": lambda M, k, v: 2 * torch.outer(v, v) @ M - 2 * torch.outer(v, k),
        "einsum": lambda M, k, v: torch.einsum("i,j->ij", 2 * v, M.T @ v - k),
        "columns": lambda M, k, v: -2 * v[:, None] * (k - v @ M)[None],
    },
    "C-m3": {"a waiting sum": m3_loop, "weights": m3_weights, "lerp": m3_lerp},
}
