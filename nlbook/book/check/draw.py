"""Seeded random inputs for the cases of an exercise."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor


class Draw:
    """Seeded random inputs, in float64, that grow from the first case to the last.

    `draw.int(1, 6)` is small in early cases, so the smallest failing case is small enough to check by hand; with
    `halves` it holds whole numbers and halves, none of them zero, and directions along the axes.
    """

    def __init__(self, seed: int, growth: float = 1.0, halves: bool = False) -> None:
        self.seed, self.growth, self.halves = seed, growth, halves
        self._random = random.Random(seed)
        self._torch = torch.Generator().manual_seed(seed)

    def int(self, low: int, high: int) -> int:
        """A whole number in [low, high]; the top of the range opens as the cases grow."""
        return self._random.randint(low, low + max(1, round((high - low) * self.growth)) if high > low else low)

    def float(self, low: float, high: float) -> float:
        """A number in [low, high]."""
        halves = [n / 2 for n in range(math.ceil(2 * low), math.floor(2 * high) + 1)] if self.halves else []
        return self._random.choice(halves) if halves else self._random.uniform(low, high)

    def pick(self, *choices: Any) -> Any:
        """One of the choices."""
        return self._random.choice(choices)

    def tensor(self, *shape: Any) -> Tensor:
        """Standard normal numbers of the given shape, float64."""
        if self.halves:
            return torch.randint(1, 5, shape, generator=self._torch) * self._signs(*shape) / 2
        return torch.randn(*shape, generator=self._torch, dtype=torch.float64)

    def unit(self, *shape: Any) -> Tensor:
        """Random directions: the last dimension has length one."""
        if self.halves:
            rows, wide = math.prod(shape[:-1]), shape[-1]
            order = torch.cat([torch.randperm(wide, generator=self._torch) for _ in range(rows // wide + 1)])[:rows]
            return (torch.eye(wide)[order] * self._signs(rows, 1)).reshape(shape)
        return torch.nn.functional.normalize(self.tensor(*shape), dim=-1)

    def _signs(self, *shape: Any) -> Tensor:
        return 2 * torch.randint(0, 2, shape, generator=self._torch).double() - 1
