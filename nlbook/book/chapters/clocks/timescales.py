"""Two toys about time scales: where a period makes a step unstable, and who remembers task A after task B.

Both are linear with a squared loss (d = 16, keys of length one). They show mechanisms, not language models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nlbook.errors import generator, need


def unit_keys(seeds: int, n: int, d: int, seed: int = 0) -> Tensor:
    """(seeds, n, d): random directions of length one, float64."""
    k = torch.randn(seeds, n, d, generator=generator(seed), dtype=torch.float64)
    return k / k.norm(dim=-1, keepdim=True)


# ---------------------------------------------------------------------- the stability map
def stability_border(period: int, d: int = 16, seeds: int = 200, seed: int = 0) -> float:
    """The largest stable step of a level that sums the gradients of `period` tokens: mean of 2 / lambda_max(sum k k^T).

    A single token gives 2 (|k| = 1). The more tokens a chunk has, the more of them point the same way, the smaller the
    border.
    """
    need(isinstance(period, int) and period >= 1, "period", period, "an int >= 1")
    k = unit_keys(seeds, period, d, seed)
    return float((2 / torch.linalg.eigvalsh(k.mT @ k)[:, -1]).mean())


def period_run(period: int, step: float, d: int = 16, updates: int = 30, seeds: int = 8, seed: int = 0) -> Tensor:
    """Error after 0 ... `updates` updates, each the summed gradient of the same `period` keys: (updates + 1,).

    Relative to the start: sum |(M - M*) k|^2 over the chunk's keys, mean over seeds. Unbounded beyond the border.
    """
    need(isinstance(period, int) and period >= 1, "period", period, "an int >= 1")
    need(step >= 0, "step", step, ">= 0")
    k = unit_keys(seeds, period, d, seed)
    gap = torch.randn(seeds, d, d, generator=generator(seed + 1), dtype=torch.float64)  # M - M*
    out = []
    for _ in range(updates + 1):
        out.append((gap @ k.mT).square().sum((1, 2)))
        gap = gap - step * (gap @ k.mT) @ k
    errors = torch.stack(out)
    return (errors / errors[0]).mean(1)


def stability_map(periods: Sequence[int], steps: Sequence[float], **kw: int) -> Tensor:
    """(periods, steps): error after the run, relative to the start. Below 1 it learns; far above it diverges."""
    return torch.stack([torch.stack([period_run(c, s, **kw)[-1] for s in steps]) for c in periods])


# ---------------------------------------------------------------------- two tasks and a clock
class TwoTasks(NamedTuple):
    """Relative squared errors, mean over seeds; 1 = knows nothing. `*_reset`: after the fast level's reset."""

    a_learned: float  # error on A when A ends
    a: float  # error on A when B ends
    b: float  # error on B when B ends
    a_reset: float
    b_reset: float
    share: tuple[float, ...]  # how much of A each level holds when A ends: <W_l, A> / <A, A>
    curve_a: Tensor  # error on A at every `every` steps
    curve_b: Tensor
    times: Tensor


def two_tasks(
    periods: Sequence[int] = (1, 16, 256),
    steps: Sequence[float] | None = None,
    *,
    keep: float = 1.0,
    long: int = 4096,
    short: int = 256,
    reset: bool = True,
    d: int = 16,
    seeds: int = 20,
    seed: int = 0,
    every: int = 16,
) -> TwoTasks:
    """Learn A for `long` steps, then B for `short`; levels add up: y = sum_l W_l x, loss 1/2 |y - A x|^2.

    Args:
        periods: steps between two updates of each level, the first is the fast one. Gradients are summed
            (eq. 71).
        steps: step size per level; default 0.5 / period, the same total step in a given time for every level.
        keep: retention of the fast level per step; 1 forgets nothing.
        reset: set the fast level to zero at the end of B (the end of its context) for the `*_reset` errors.
    """
    steps = [0.5 / c for c in periods] if steps is None else list(steps)
    need(len(steps) == len(periods) > 0, "steps", f"{len(steps)} values", f"{len(periods)}, one per level")
    need(0 < keep <= 1, "keep", keep, "a retention in (0, 1]")
    need(long >= 1 and short >= 0, "long, short", (long, short), "long >= 1, short >= 0")
    g = generator(seed)
    goal = torch.randn(2, seeds, d, d, generator=g, dtype=torch.float64)
    goal = goal / goal.flatten(2).norm(dim=-1)[..., None, None]
    w = torch.zeros(len(periods), seeds, d, d, dtype=torch.float64)
    waiting = torch.zeros_like(w)

    def error(task: int, levels: Tensor) -> float:
        return float((levels.sum(0) - goal[task]).square().sum((1, 2)).mean())

    times, a, b = [], [], []
    learned = 0.0
    share: tuple[float, ...] = ()
    total = torch.zeros_like(w[0])
    for t in range(1, long + short + 1):
        x = torch.randn(seeds, d, 1, generator=g, dtype=torch.float64)
        x = x / x.norm(dim=1, keepdim=True)
        target = goal[0] if t <= long else goal[1]
        gradient = ((total - target) @ x) @ x.mT
        if keep < 1:
            w[0] *= keep
        for i, c in enumerate(periods):
            if c == 1:
                w[i] -= steps[i] * gradient
                continue
            waiting[i] += gradient
            if t % c == 0:  # eq. 71: the sum over the level's own chunk
                w[i] -= steps[i] * waiting[i]
                waiting[i].zero_()
        total = w.sum(0)
        if t % every == 0 or t in (long, long + short):
            times.append(t)
            a.append(error(0, w))
            b.append(error(1, w))
        if t == long:
            learned = error(0, w)
            share = tuple(float((lvl * goal[0]).sum((1, 2)).mean()) for lvl in w)
    after = w.clone()
    if reset:
        after[0] = 0
    return TwoTasks(
        learned,
        error(0, w),
        error(1, w),
        error(0, after),
        error(1, after),
        share,
        torch.tensor(a),
        torch.tensor(b),
        torch.tensor(times),
    )
