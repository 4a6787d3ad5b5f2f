"""Inputs and error measures for the operators' tests. Small sizes: an interpreted chunk costs some 0.1 s."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize


class Inputs:
    """Random inputs of a linear memory: unit keys and queries, gates through sigmoids, a non-zero first memory."""

    names = ("q", "k", "v", "alpha", "erase", "write", "M0")

    @staticmethod
    def linear(
        batch: int = 1,
        head: int = 2,
        length: int = 32,
        dk: int = 16,
        dv: int = 16,
        *,
        dtype: torch.dtype = torch.float64,
        self_values: bool = False,
        seed: int = 0,
    ) -> list[Tensor]:
        g = torch.Generator().manual_seed(seed)
        draw = partial(torch.randn, generator=g, dtype=torch.float64)
        q, k = (normalize(draw(batch, head, length, dk), dim=-1) for _ in range(2))
        v = draw(batch, head, length, dk if self_values else dv)
        alpha = torch.sigmoid(draw(batch, head, length) + 3)
        erase, write = (torch.sigmoid(draw(batch, head, length)) for _ in range(2))
        return [x.to(dtype) for x in (q, k, v, alpha, erase, write, draw(batch, head, dv, dk) / dk**0.5)]


@pytest.fixture(scope="session")
def inputs() -> type[Inputs]:
    return Inputs


def relative(got: Tensor, want: Tensor) -> float:
    """|got - want| / |want| in float64; NaN anywhere is an infinite error."""
    got, want = got.detach().double(), want.detach().double()
    assert got.shape == want.shape, (got.shape, want.shape)
    if not torch.isfinite(got).all():
        return float("inf")
    return ((got - want).norm() / want.norm().clamp_min(1e-30)).item()


@pytest.fixture(scope="session")
def rel():
    return relative
