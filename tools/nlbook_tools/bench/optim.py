"""Step time of the optimizers on a model of ten million parameters, against a plain Muon and torch's own, as ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nlbook.errors import generator
from nlbook.optim import M3, AdamMemory, DeepMomentum, DeltaMomentum, Momentum, Muon
from nlbook_tools.bench.core import Report, compare


class PlainMuon(torch.optim.Optimizer):
    """The baseline: Muon as a careful person writes it in thirty lines, one matrix after another, sums fused into the
    products, no checks. Vectors take SGD with momentum, so that nothing beside the matrices costs much."""

    def __init__(self, params: Iterable[Tensor], lr: float = 3e-3, keep: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "keep": keep})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            lr, keep = group["lr"], group["keep"]
            for p in group["params"]:
                g, state = p.grad, self.state[p]
                if "m" not in state:
                    state["m"] = torch.zeros_like(p)
                m = state["m"].mul_(keep).add_(g)
                if p.ndim < 2:
                    p.sub_(m, alpha=lr)
                    continue
                X = g.add(m, alpha=keep)
                tall = X.shape[0] > X.shape[1]
                X = X.T if tall else X
                X = X / (X.norm() + 1e-7)
                for _ in range(5):
                    A = X @ X.T
                    X = torch.addmm(X, torch.addmm(A, A, A, beta=-4.7750, alpha=2.0315), X, beta=3.4445)
                p.sub_(X.T if tall else X, alpha=lr * 0.2 * max(p.shape) ** 0.5)


def transformer_shapes(width: int, depth: int) -> list[tuple[int, ...]]:
    """Matrices and vectors of `depth` Transformer blocks: 12 width^2 + 13 width numbers each."""
    block: list[tuple[int, ...]] = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
    vectors: list[tuple[int, ...]] = [(3 * width,), (4 * width,), *[(width,)] * 6]
    return (block + vectors) * depth


def race(width: int, depth: int, rounds: int, title: str, period: int = 10) -> Report:
    """One step of every optimizer on its own copy of the parameters, with fixed gradients.

    M3 updates its slow memory once in `period` steps, for all matrices at once. Here the matrices' clocks are
    staggered, so that each step pays a `period`-th of it: a median over single steps is then honest (and loses some
    batching).
    """
    g = generator(0)
    shapes = transformer_shapes(width, depth)
    start = [torch.randn(s, generator=g) * 0.02 for s in shapes]
    grads = [torch.randn(s, generator=g) for s in shapes]

    def contestant(build: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> Callable[[], object]:
        params = [nn.Parameter(p.clone()) for p in start]
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad
        optimizer = build(params)
        optimizer.step()
        if isinstance(optimizer, M3):
            for i, p in enumerate(p for p in params if p.ndim == 2):
                optimizer.state[p]["step"] = 1 + i % period
        return optimizer.step

    count = sum(p.numel() for p in start)
    contestants = {
        "plain Muon": contestant(PlainMuon),
        "Muon": contestant(Muon),
        "M3 update": contestant(lambda p: M3(p, period=period)),
        "M3 grad": contestant(lambda p: M3(p, lr=1e-4, period=period, second="grad")),
        "M3 none": contestant(lambda p: M3(p, period=period, second="none")),
        "torch AdamW": contestant(lambda p: torch.optim.AdamW(p, lr=1e-3)),
        "torch SGD momentum": contestant(lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9)),
        "AdamMemory": contestant(AdamMemory),
        "Momentum": contestant(lambda p: Momentum(p, 1e-3)),
        "DeltaMomentum bounded": contestant(lambda p: DeltaMomentum(p, 1e-3)),
        "DeepMomentum": contestant(lambda p: DeepMomentum(p, 1e-3)),
    }
    return compare(
        contestants,
        "plain Muon",
        title=f"{title}: {count / 1e6:.1f} million parameters",
        rounds=rounds,
        warmup=1,
        aims={"Muon": 1.3, "M3 update": 1.3, "M3 grad": 1.3, "M3 none": 1.3},
        note="CPU time. Gradients are given: a model's forward and backward pass come on top of every row.",
    )


def suite(quick: bool = True) -> list[Report]:
    """Many small matrices (launches count) and a ten-million-parameter Transformer (products count)."""
    small = race(64, 4, 20 if quick else 200, "Transformer, width 64, depth 4")
    large = (192, 24, 3) if quick else (384, 6, 9)
    return [small, race(*large, f"Transformer, width {large[0]}, depth {large[1]}")]
