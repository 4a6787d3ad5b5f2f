"""What a memory answers, and what it still knows: by the age of a pair, and by the number of pairs (chapter 01).

Every curve is measured in many independent worlds (other keys, other values), so that a spread
can be shown beside a mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nlbook.book.data import recall as task
from nlbook.memory.presets import make

GRID = (4, 8, 16, 32, 48, 64, 96, 128, 192, 256)
GENTLE = 0.3
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "Hebb": ("hebbian", {"lr": 1.0}),
    "delta, rate 1": ("delta", {"lr": 1.0}),
    f"delta, rate {GENTLE}": ("delta", {"lr": GENTLE}),
    "best linear": ("rls", {}),
}
"""What a curve is called -> the memory it shows. The best linear one is the least-squares solution for all pairs."""
ONE_PASS = tuple(RULES)[:3]


def nearest(y: Tensor, candidates: Tensor) -> Tensor:
    """Which candidate each answer means: y (..., n, d), candidates (..., m, d) -> index (..., n) of the largest cosine."""
    return (y @ task.unit(candidates).mT).argmax(-1)


def answers(rule: str, data: task.Recall, **options: Any) -> Tensor:
    """Write the whole stream into `memory.make(rule, **options)`, then ask every question: (batch, n, d_v)."""
    memory = make(rule, **options)
    return memory.read(memory.write_all(data.k, data.v), data.q)


def identified(y: Tensor, target: Tensor) -> Tensor:
    """Which answers y (batch, n, d) are nearest to their own target: 0 or 1, (batch, n)."""
    return (nearest(y, target) == torch.arange(target.shape[-2])).double()


def score(y: Tensor, target: Tensor) -> tuple[float, float]:
    """The share of answers y (batch, n, d) nearest to their own target, and the mean of |y - v|^2 / |v|^2."""
    error = (y - target).square().sum(-1) / target.square().sum(-1)
    return float(identified(y, target).mean()), float(error.mean())


def by_rate(
    rule: str, rates: Sequence[float], rho: float = 0.0, *, worlds: int = 50, seed: int = 0
) -> dict[float, float]:
    """Rate of a rule -> share of 32 pairs identified in width 32 after one pass; `rho` is the keys' overlap."""
    data = task.pairs(32, 32, rho, batch=worlds, seed=seed)
    return {rate: score(answers(rule, data, lr=rate), data.target)[0] for rate in rates}


def followed(rates: Sequence[float]) -> dict[float, float]:
    """Rate of the delta rule -> how much of the way from an old value to a new one a single write under its key goes."""
    k, old, new = torch.eye(3, dtype=torch.float64)
    full = make("delta", lr=1.0)
    told = full.write(full.init(3, 3, dtype=torch.float64), k, old)
    return {rate: float(full.read(make("delta", lr=rate).write(told, k, new), k) @ new) for rate in rates}


def by_passes(passes: Sequence[int], rho: float = 0.5, *, worlds: int = 50, seed: int = 0) -> dict[int, float]:
    """How often the whole list is read -> share of 32 pairs that full delta steps identify in width 32."""
    data = task.pairs(32, 32, rho, batch=worlds, seed=seed)
    again = {p: data._replace(k=data.k.repeat(1, p, 1), v=data.v.repeat(1, p, 1)) for p in passes}
    return {p: score(answers("delta", stream, lr=1.0), data.target)[0] for p, stream in again.items()}


def identified_by_age(n: int = 32, d: int = 32, *, worlds: int = 60, seed: int = 0) -> dict[str, Tensor]:
    """Which of n random pairs, written one after the other, are identified: rule -> (worlds, n) of 0 and 1.

    Column 0 is the newest pair, column n - 1 the oldest.
    """
    data = task.pairs(n, d, batch=worlds, seed=seed)
    rules = ((name, *RULES[name]) for name in ONE_PASS)
    return {name: identified(answers(rule, data, **o), data.target).flip(-1) for name, rule, o in rules}


def capacity(
    rho: float = 0.0,
    *,
    rules: Sequence[str] = tuple(RULES),
    d: int = 32,
    grid: Sequence[int] = GRID,
    worlds: int = 3,
    seed: int = 0,
    fresh_values: bool = False,
) -> dict[str, dict[int, Tensor]]:
    """Share of n pairs identified, after one pass: rule -> n -> (worlds,).

    fresh_values=True is the negative control: the answers are looked up among n values that were never written.
    """
    found: dict[str, dict[int, Tensor]] = {name: {} for name in rules}
    for n in grid:
        data = task.pairs(n, d, rho, batch=worlds, seed=seed)
        wanted = task.values(n, d, batch=worlds, seed=seed + 31) if fresh_values else data.target
        for name in rules:
            rule, options = RULES[name]
            found[name][n] = identified(answers(rule, data, **options), wanted).mean(-1)
    return found
