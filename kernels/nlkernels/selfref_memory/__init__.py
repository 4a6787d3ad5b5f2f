"""The self-referential memory: linear self-modifying Titans, five memories in one operator."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from nlkernels.errors import need, need_number
from nlkernels.operator import OBJECTIVES, Operator
from nlkernels.selfref_memory.chunked import chunked
from nlkernels.selfref_memory.reference import reference

__all__ = ["SelfRefState", "chunked", "reference", "selfref_memory"]


class SelfRefState(NamedTuple):
    """The five memories of every sequence and head: matrices (batch, head, d, d), gate vectors (batch, head, d)."""

    key: Tensor
    value: Tensor
    memory: Tensor
    eta: Tensor
    alpha: Tensor


def fused(*tensors: Tensor, **options: Any) -> tuple[Tensor, ...]:
    """The fused form; triton is imported here."""
    from nlkernels.selfref_memory.triton import fused

    return fused(*tensors, **options)


MEMORIES = tuple(f"state.{name}" for name in SelfRefState._fields)
OPERATOR = Operator(
    "selfref_memory",
    shapes={
        **dict.fromkeys(("x", "q"), "batch head length d"),
        **dict.fromkeys(MEMORIES[:3], "batch head d d"),
        **dict.fromkeys(MEMORIES[3:], "batch head d"),
        **dict.fromkeys(("b_eta", "b_alpha"), "batch head"),
        "y": "batch head length d",
    },
    tokens=("x", "q"),
    states=MEMORIES,
    reference=reference,
    chunked=chunked,
    fused=fused,
    rates="eta_max",
    limits={"d": 128, "chunk": 128},
    fills={"b_eta": 0.0, "b_alpha": 4.0},
    options={"objective": OBJECTIVES, "unit_values": (False, True)},
)


def selfref_memory(
    x: Tensor,
    q: Tensor,
    state: SelfRefState,
    *,
    b_eta: Tensor | float = 0.0,
    b_alpha: Tensor | float = 4.0,
    eta_max: float = 0.5,
    chunk: int = 64,
    objective: str = "l2",
    unit_values: bool = True,
    impl: str = "auto",
    explain: bool = False,
) -> tuple[Tensor, SelfRefState]:
    """Linear self-modifying Titans: memories that generate their own keys, values and rates.

    eq. 86-88 for chunk = 1, eq. 90 with eq. 92 ("dot") or eq. 93 ("l2") otherwise; see reference.py for the rule.

    Args:
        x: (batch, head, length, d), what the memories read to make k, v, eta and alpha.
        q: (batch, head, length, d), queries, used as they come.
        state: the memories at the start. Zero memories stay zero, and ranks never grow: begin with full ones.
        b_eta, b_alpha: gate biases, a number or a tensor (batch, head). alpha = sigmoid(4) = 0.982 by default.
        eta_max: the largest write rate. With "l2" and unit keys the transition along k is alpha - 2 eta, and so 0.5
            keeps it stable.
        chunk: tokens a chunk; part of the rule. Cut calls at multiples of it.
        unit_values: divide v_t by its norm, as is needed for stability (self-made targets feed back on themselves).
        impl, explain, and what is raised: see `linear_memory`. The fused kernel takes d and chunk up to 128.

    Returns:
        y (batch, head, length, d) in q's dtype and the last state in float32 (float64 for float64), all with
        gradients, the biases' too.

    >>> import torch
    >>> full = torch.eye(4).expand(1, 1, 4, 4)
    >>> first = SelfRefState(full, full.flip(-1), full, torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))
    >>> y, last = selfref_memory(torch.ones(1, 1, 6, 4), torch.ones(1, 1, 6, 4), first, chunk=2)
    >>> y.shape, bool((last.key == first.key).all())
    (torch.Size([1, 1, 6, 4]), False)
    """
    right = isinstance(state, tuple) and len(state) == 5
    need(right, "state of selfref_memory", type(state).__name__, "a SelfRefState of five tensors")
    need_number("eta_max of selfref_memory", eta_max, 0)
    given = {"x": x, "q": q, **dict(zip(MEMORIES, state, strict=True)), "b_eta": b_eta, "b_alpha": b_alpha}
    options = {"chunk": chunk, "objective": objective, "eta_max": float(eta_max), "unit_values": unit_values}
    y, *last = OPERATOR(given, options, impl, explain)
    return y, SelfRefState(*last)
