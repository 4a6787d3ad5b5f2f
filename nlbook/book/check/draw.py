"""Seeded random inputs for the cases of an exercise."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor


class Draw:
    """Seeded random inputs, in float64, that grow from the first case to the last.

    `draw.int(1, 6)` is small in early cases, so the smallest failing case is small enough to check by hand.
    """

    def __init__(self, seed: int, growth: float = 1.0) -> None:
        self.seed, self.growth = seed, growth
        self._random = random.Random(seed)
        self._torch = torch.Generator().manual_seed(seed)

    def int(self, low: int, high: int) -> int:
        """A whole number in [low, high]; the top of the range opens as the cases grow."""
        return self._random.randint(low, low + max(1, round((high - low) * self.growth)) if high > low else low)

    def float(self, low: float, high: float) -> float:
        """A number in [low, high]."""
        return self._random.uniform(low, high)

    def pick(self, *choices: Any) -> Any:
        """One of the choices."""
        return self._random.choice(choices)

    def tensor(self, *shape: Any) -> Tensor:
        """Standard normal numbers of the given shape, float64."""
        return torch.randn(*shape, generator=self._torch, dtype=torch.float64)

    def unit(self, *shape: Any) -> Tensor:
        """Random directions: the last dimension has length one."""
        return torch.nn.functional.normalize(self.tensor(*shape), dim=-1)
