"""Chapter C: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import math
import statistics

import torch

from nlbook.book.chapters.referee import exercises as ch12


def verdict_statistics(ours, rival):
    gap = statistics.fmean(ours) - statistics.fmean(rival)
    error = (statistics.variance(ours) / len(ours) + statistics.variance(rival) / len(rival)) ** 0.5
    if gap < -2 * error:
        return "better"
    return "worse" if gap > 2 * error else "level"


def verdict_ledger(ours, rival):
    from nlbook.book.ledger.tables import gap

    by, error = gap({"a": {"y": ours}, "b": {"y": rival}}, "a", "b", "y")
    return "level" if abs(by) <= 2 * error else ("worse", "better")[by < 0]


def verdict_referee(ours, rival):
    from nlbook.book.chapters.referee.referee import outcome

    return outcome(torch.tensor(ours, dtype=torch.float64), torch.tensor(rival, dtype=torch.float64))


def reported_loop(valid, test):
    best = min(range(len(valid)), key=lambda i: float(valid[i].sum()))
    return test[best]


def reported_sort(valid, test):
    return test[torch.argsort(valid.sum(1), stable=True)[0]].clone()


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


def order(*places):
    return [ch12.STEPS[i] for i in places]


MUTANTS = {
    "C-verdict": {
        "always level": lambda a, b: "level",
        "one spread": lambda a, b: (
            "level"
            if abs(statistics.fmean(a) - statistics.fmean(b)) <= 2 * statistics.stdev(a) / len(a) ** 0.5
            else "better"
        ),
    },
    "C-search": {
        "first": lambda v, t: t[0],
        "mean": lambda v, t: t.mean(0),
    },
    "C-slip": {
        "one factor": lambda M, k, v: torch.outer(v, 2 * (M.T @ v) - k),
        "transposed": lambda M, k, v: 2 * torch.outer(M.T @ v - k, v),
    },
    "C-m3": {
        "heavy ball": lambda g, b1, b3, p: ch12.m3_with(g, 1 - b1, 1 - b3, p),
    },
    "C-order": {
        "nearly as listed": order(1, 0, 2, 3, 4, 5),
        "rule last": order(5, 4, 2, 1, 3, 0),
        "rule after tuning": order(5, 4, 2, 3, 1, 0),
        "test before tuning": order(5, 4, 3, 1, 2, 0),
        "no prediction first": order(4, 5, 3, 2, 1, 0),
    },
    "C-seeds": {
        "huge": 200.0,
    },
}

ACCEPTED = {
    "C-verdict": {"statistics": verdict_statistics, "the ledger's": verdict_ledger, "the referee's": verdict_referee},
    "C-search": {
        "a loop": reported_loop,
        "sorted": reported_sort,
        "indexed": lambda v, t: t[int(v.mean(dim=1).argmin())],
    },
    "C-slip": {
        "two terms": lambda M, k, v: 2 * torch.outer(v, v) @ M - 2 * torch.outer(v, k),
        "einsum": lambda M, k, v: torch.einsum("i,j->ij", 2 * v, M.T @ v - k),
        "columns": lambda M, k, v: -2 * v[:, None] * (k - v @ M)[None],
    },
    "C-m3": {"a waiting sum": m3_loop, "weights": m3_weights, "lerp": m3_lerp},
    "C-order": {"the order": order(5, 4, 3, 2, 1, 0)},
    "C-seeds": {"number": 18, "text": "18 seeds", "rounded up": math.ceil(18.0)},
}
