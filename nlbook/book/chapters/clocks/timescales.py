"""A toy about time scales: where a period makes a step unstable.

It is linear with a squared loss (d = 16, keys of length one). It shows a mechanism, not a language model.
"""

from __future__ import annotations

from collections.abc import Sequence

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
