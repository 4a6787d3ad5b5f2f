"""The operators with small inputs, and how their forms are compared: an interpreted chunk costs some 0.1 s."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from nlkernels import SelfRefState, linear_memory, mlp_memory, newton_schulz, selfref_memory, titans_memory
from torch import Tensor
from torch.nn.functional import normalize

F64 = torch.float64


class Draw:
    """Seeded float64 inputs: unit keys and queries, gates through sigmoids, first states that are not zero."""

    def __init__(
        self, length: int, d: int, dv: int | None = None, batch: int = 1, head: int = 1, seed: int = 0
    ) -> None:
        self.g = torch.Generator().manual_seed(seed)
        self.rows, self.length, self.d, self.dv = (batch, head), length, d, dv or d

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*self.rows, *shape, generator=self.g, dtype=F64)

    def unit(self) -> Tensor:
        return normalize(self(self.length, self.d), dim=-1)

    def gate(self, shift: float) -> Tensor:
        return torch.sigmoid(self(self.length) + shift)

    def matrix(self, rows: int, columns: int) -> Tensor:
        return 0.5 * torch.eye(rows, columns, dtype=F64) + self(rows, columns) / (2 * columns**0.5)

    def linear(self, self_values: bool = False) -> list[Tensor]:
        """q, k, v, alpha, erase, write, M0."""
        v = self(self.length, self.d if self_values else self.dv)
        return [self.unit(), self.unit(), v, *(self.gate(s) for s in (3, 0, 0)), self(self.dv, self.d) / self.d**0.5]

    def titans(self) -> list[Tensor]:
        """q, k, v, alpha, mu, eta, M0, S0."""
        gates = [self.gate(s) for s in (3, 1, -1)]
        return [self.unit(), self.unit(), self(self.length, self.dv), *gates, *(self(self.dv, self.d) for _ in "MS")]

    def mlp(self) -> list[Tensor]:
        """q, k, v, alpha, eta, W1, W2."""
        weights = self.matrix(self.d, self.dv), self.matrix(self.dv, self.d)
        return [*(self.unit() for _ in "qkv"), self.gate(3), 0.5 * self.gate(-1), *weights]

    def selfref(self) -> list[Tensor]:
        """x, q, three matrices, two gate vectors, two biases."""
        memories = [*(self.matrix(self.d, self.d) for _ in range(3)), *(self(self.d) / self.d for _ in range(2))]
        return [self(self.length, self.d), self(self.length, self.d), *memories, 0.3 * self(), 0.3 * self() + 2]

    def newton(self) -> list[Tensor]:
        return [self(self.length, self.d).flatten(0, 1)]


class Operator(NamedTuple):
    name: str
    call: Callable[..., Any]  # call(*inputs, impl=..., **options) -> tensors
    draw: Callable[[Draw], list[Tensor]]
    tokens: int  # how many of the first inputs are tokens, which are cast
    options: dict[str, Any]  # what the tests of all operators run with
    sizes: tuple[int, ...] = (16, 24, 64, 100, 128)


def _selfref(x: Tensor, q: Tensor, *rest: Tensor, **options: Any) -> list[Tensor]:
    y, last = selfref_memory(x, q, SelfRefState(*rest[:5]), b_eta=rest[5], b_alpha=rest[6], **options)
    return [y, *last]


OPERATORS = [
    Operator("linear_memory", linear_memory, Draw.linear, 3, {"chunk": 4, "objective": "l2", "read": "after"}),
    Operator("selfref_memory", _selfref, Draw.selfref, 2, {"chunk": 4}),
    Operator("titans_memory", titans_memory, Draw.titans, 3, {"chunk": 4}),
    Operator("mlp_memory", mlp_memory, Draw.mlp, 3, {"chunk": 4, "read": "before"}, (16, 24, 64)),
    Operator("newton_schulz", lambda G, **o: [newton_schulz(G, 3, **o)], Draw.newton, 1, {}),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument `op` runs for every operator, one with `memory` for all but Newton-Schulz."""
    for argument, many in (("op", OPERATORS), ("memory", OPERATORS[:-1])):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, many, ids=[o.name for o in many])


def relative(got: Tensor, want: Tensor) -> float:
    """|got - want| / |want| in float64; NaN anywhere is an infinite error."""
    got, want = got.detach().double(), want.detach().double()
    assert got.shape == want.shape, (got.shape, want.shape)
    if not torch.isfinite(got).all():
        return float("inf")
    return ((got - want).norm() / want.norm().clamp_min(1e-18)).item()


def results(call: Callable[..., Any], inputs: list[Tensor | None], **options: Any) -> list[Tensor]:
    """Outputs, and the gradients of a fixed weighted sum of them."""
    leaves = [x if x is None else x.detach().clone().requires_grad_() for x in inputs]
    out = [*call(*leaves, **options)]
    weights = [torch.linspace(-1, 1, o.numel(), dtype=F64, device=o.device).reshape(o.shape) for o in out]
    loss = sum((o.double() * w).sum() for o, w in zip(out, weights, strict=True))
    there = [x for x in leaves if x is not None]
    return [*out, *torch.autograd.grad(loss, there, allow_unused=True, materialize_grads=True)]


@pytest.fixture(scope="session")
def draw() -> type[Draw]:
    return Draw


@pytest.fixture(scope="session")
def rel() -> Callable[[Tensor, Tensor], float]:
    return relative


@pytest.fixture(scope="session")
def both() -> Callable[..., list[Tensor]]:
    return results


@pytest.fixture(scope="session")
def apart() -> Callable[..., float]:
    """The largest relative error of any output or gradient of a form against the token loop."""

    def worst(call: Callable[..., Any], inputs: list[Tensor | None], impl: str = "triton", **options: Any) -> float:
        want = results(call, inputs, impl="reference", **options)
        return max(map(relative, results(call, inputs, impl=impl, **options), want))

    return worst
