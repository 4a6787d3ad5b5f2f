"""The self-referential memory: linear self-modifying Titans, five memories in one operator."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nlkernels import dispatch
from nlkernels.errors import KernelError, need, need_device, need_tensor
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
        impl, explain: see `linear_memory`. The fused kernel takes d and chunk up to 128.

    Returns:
        y (batch, head, length, d) in q's dtype and the last state in float32 (float64 for float64), all with
        gradients, the biases' too.

    Raises:
        KernelError: a shape, dtype, device or option does not fit.

    >>> import torch
    >>> full = torch.eye(4).expand(1, 1, 4, 4)
    >>> first = SelfRefState(full, full.flip(-1), full, torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))
    >>> y, last = selfref_memory(torch.ones(1, 1, 6, 4), torch.ones(1, 1, 6, 4), first, chunk=2)
    >>> y.shape, bool((last.key == first.key).all())
    (torch.Size([1, 1, 6, 4]), False)
    """
    op = "selfref_memory"
    need(
        op,
        isinstance(x, Tensor) and x.ndim == 4,
        "x",
        getattr(x, "shape", type(x).__name__),
        "a tensor (batch, head, length, d)",
    )
    B, H, L, d = x.shape
    need_tensor(op, "x", x, (B, H, L, d), "(batch, head, length, d)")
    need_tensor(op, "q", q, (B, H, L, d), "(batch, head, length, d) like x")
    if not isinstance(state, tuple) or len(state) != 5:
        raise KernelError(f"{op}: state is {type(state).__name__}, needed: a SelfRefState of five tensors")
    for name, M in zip(SelfRefState._fields, state, strict=True):
        need_tensor(
            op,
            f"state.{name}",
            M,
            (B, H, d) if name in ("eta", "alpha") else (B, H, d, d),
            "(batch, head, d" + (")" if name in ("eta", "alpha") else ", d)"),
        )
    need(op, x.dtype == q.dtype, "dtype of x, q", f"{x.dtype}, {q.dtype}", "one dtype")
    need(
        op, isinstance(chunk, int) and not isinstance(chunk, bool) and chunk > 0, "chunk", repr(chunk), "a positive int"
    )
    need(op, objective in ("dot", "l2"), "objective", repr(objective), "'dot' or 'l2'")
    need(op, eta_max > 0, "eta_max", eta_max, "a positive number")
    choice = dispatch.choose(op, impl, x, size=max(d, chunk), sized="head dimension and chunk")
    if explain:
        dispatch.explain_choice(op, choice)

    x, q = dispatch.autocast_inputs(x, q)
    with dispatch.no_autocast(x):
        work, out = dispatch.compute_dtype(x.dtype), x.dtype
        memories = tuple(M.to(work) for M in state)
        biases = []
        for name, b in (("b_eta", b_eta), ("b_alpha", b_alpha)):
            if isinstance(b, Tensor):
                need_tensor(op, name, b, (B, H), "(batch, head)")
            biases.append(b.to(work) if isinstance(b, Tensor) else x.new_full((B, H), b, dtype=work))
        need_device(
            op, x=x, q=q, b_eta=biases[0], b_alpha=biases[1], **dict(zip(SelfRefState._fields, state, strict=True))
        )
        if L == 0:
            return torch.zeros_like(q), SelfRefState(*(M.clone() for M in memories))
        options: dict[str, Any] = {
            "chunk": chunk,
            "objective": objective,
            "eta_max": float(eta_max),
            "unit_values": unit_values,
        }
        if choice.impl == "triton":
            from nlkernels.selfref_memory.triton import fused

            y, last = fused(x, q, memories, *biases, **options)
        else:
            form = chunked if choice.impl == "chunked" else reference
            y, last = form(x.to(work), q.to(work), memories, *biases, **options)
        return y.to(out), SelfRefState(*last)
