"""The residual two-layer memory of Hope: M(x) = x + W1 silu(W2 x), learning while it is read."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nlkernels.mlp_memory.chunked import chunked
from nlkernels.mlp_memory.reference import reference
from nlkernels.operator import OBJECTIVES, READS, Operator

__all__ = ["chunked", "mlp_memory", "reference"]


def fused(*tensors: Tensor, **options: Any) -> tuple[Tensor, ...]:
    """The fused form; triton is imported here."""
    from nlkernels.mlp_memory.triton import fused

    return fused(*tensors, **options)


OPERATOR = Operator(
    "mlp_memory",
    shapes={
        **dict.fromkeys(("k", "q", "v"), "batch head length d"),
        **dict.fromkeys(("alpha", "eta"), "batch head length"),
        "W2": "batch head h d",
        "W1": "batch head d h",
        "y": "batch head length d",
    },
    tokens=("q", "k", "v"),
    states=("W1", "W2"),
    reference=reference,
    chunked=chunked,
    fused=fused,
    rates="eta",
    limits={"d": 64, "chunk": 64, "h": 128},
    gates=("alpha",),
    options={"objective": OBJECTIVES, "read": READS, "erase": (False, True)},
)


def mlp_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    eta: Tensor,
    W1: Tensor,
    W2: Tensor,
    *,
    chunk: int = 64,
    objective: str = "l2",
    read: str = "start",
    erase: bool = True,
    impl: str = "auto",
    explain: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """A two-layer residual memory for every sequence and head (eq. 89-91, DGD's factor of eq. 57 in each layer).

    Args:
        q, k, v: (batch, head, length, d), one dtype.
        alpha, eta: (batch, head, length): retention in (0, 1], write rate. DGD is stable for eta |a|^2 < 1 + alpha.
        W1: (batch, head, d, h); W2: (batch, head, h, d): the first weights.
        chunk: tokens a chunk; part of the rule, since errors are taken at the chunk's start.
        objective: "l2": 1/2 |M(k) - v|^2. "dot": -<M(k), v>.
        read: "start": y = M_c(q). "before", "after": the memory as it stands at the token.
        erase: False drops the factor (plain gradient descent with decay).
        impl, explain, and what is raised: see `linear_memory`. The fused kernel takes d and chunk up to 64 and h up
            to 2 d; its backward recomputes through the chunked form.

    Returns:
        y (batch, head, length, d) in q's dtype; last W1 and W2 in float32 (float64 for float64), with gradients.
    """
    given = {"q": q, "k": k, "v": v, "alpha": alpha, "eta": eta, "W1": W1, "W2": W2}
    options = {"chunk": chunk, "objective": objective, "read": read, "erase": erase}
    return OPERATOR(given, options, impl, explain)
