"""What a memory answers, and what it still knows: by the age of a pair, and by the number of pairs (chapter 01).

Every curve is measured in many independent worlds (other keys, other values), so that a spread
can be shown beside a mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nlbook.book.data import recall as task
from nlbook.errors import need
from nlbook.memory.core import Memory
from nlbook.memory.presets import make

GRID = (4, 8, 16, 32, 48, 64, 96, 128, 192, 256)
LABELS = {"hebbian": "Hebbian", "delta": "delta", "omega": "Omega", "rls": "best linear"}


def nearest(y: Tensor, candidates: Tensor) -> Tensor:
    """Which candidate each answer means: y (..., n, d), candidates (..., m, d) -> index (..., n) of the largest cosine."""
    return (y @ task.unit(candidates).mT).argmax(-1)


def answers(rule: str, data: task.Recall, **options: Any) -> Tensor:
    """Write the whole stream into `memory.make(rule, **options)`, then ask every question: (batch, n, d_v)."""
    memory = make(rule, **options)
    return memory.read(memory.write_all(data.k, data.v), data.q)


def score(y: Tensor, target: Tensor) -> tuple[float, float]:
    """The share of answers y (batch, n, d) nearest to their own target, and the mean of |y - v|^2 / |v|^2."""
    right = (nearest(y, target) == torch.arange(target.shape[-2])).double()
    error = (y - target).square().sum(-1) / target.square().sum(-1)
    return float(right.mean()), float(error.mean())


def rule_for(name: str, window: int = 16) -> Memory:
    """The memory that a curve shows under `name`: full steps for hebbian and delta, a window of 16 pairs for omega.

    omega takes the step 1/window that its curvature allows; rls is the least-squares solution, the best linear memory.
    """
    options: dict[str, Any] = {"window": window} if name == "omega" else {} if name == "rls" else {"lr": 1.0}
    return make(name, **options)


def identified_by_age(
    rules: Sequence[str], n: int = 32, d: int = 32, *, worlds: int = 60, seed: int = 0
) -> dict[str, Tensor]:
    """Which of n random pairs, written one after the other, are identified: rule -> (worlds, n) of 0 and 1.

    Column 0 is the newest pair, column n - 1 the oldest.
    """
    data = task.pairs(n, d, batch=worlds, seed=seed)
    found = {}
    for name in rules:
        memory = rule_for(name)
        y = memory.read(memory.write_all(data.k, data.v), data.q)
        found[name] = (nearest(y, data.target) == torch.arange(n)).double().flip(-1)
    return found


def capacity(
    rules: Sequence[str],
    d: int = 32,
    rho: float = 0.0,
    *,
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
            memory = rule_for(name, window=min(16, n))
            y = memory.read(memory.write_all(data.k, data.v), data.q)
            found[name][n] = (nearest(y, wanted) == torch.arange(n)).double().mean(-1)
    return found


def half_capacity(by_n: Mapping[int, Tensor]) -> int:
    """The first n of the grid at which fewer than half of the pairs are identified, on the mean of the worlds."""
    below = [n for n, share in sorted(by_n.items()) if float(share.mean()) < 0.5]
    need(bool(below), "by_n", f"shares that stay above one half up to {max(by_n)} pairs", "a grid that reaches further")
    return below[0]


def kept(age: int, d: int) -> float:
    """How much of a pair survives `age` later full delta writes with random unit keys of width d: (1 - 1/d)^age."""
    need(age >= 0 and d >= 1, "age, d", (age, d), "age >= 0 and d >= 1")
    return (1 - 1 / d) ** age
