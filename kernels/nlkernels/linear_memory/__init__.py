"""The linear memory: linear attention, (gated) delta rule, Hope's linear memory and TTT-linear are settings of it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nlkernels.errors import need, need_float
from nlkernels.linear_memory.chunked import chunked
from nlkernels.linear_memory.reference import reference
from nlkernels.operator import OBJECTIVES, READS, Operator

__all__ = ["chunked", "delta_rule", "gated_delta_rule", "hope_memory", "linear_attention", "linear_memory", "reference"]


def fused(*tensors: Tensor, **options: Any) -> tuple[Tensor, ...]:
    """The fused form; triton is imported here."""
    from nlkernels.linear_memory.triton import fused

    return fused(*tensors, **options)


OPERATOR = Operator(
    "linear_memory",
    shapes={
        "k": "batch head length d_k",
        "q": "batch head length d_k",
        "v": "batch head length d_v",
        **dict.fromkeys(("alpha", "erase", "write"), "batch head length"),
        "M0": "batch head d_v d_k",
        "y": "batch head length d_v",
    },
    tokens=("q", "k", "v"),
    states=("M0",),
    reference=reference,
    chunked=chunked,
    fused=fused,
    rates="erase, write",
    limits={"d_k": 128, "d_v": 128},
    gates=("alpha",),
    fills={"alpha": None, "erase": None, "write": 1.0, "M0": 0.0},
    options={"objective": OBJECTIVES, "read": READS, "self_values": (False, True)},
)


def linear_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor | None = None,
    erase: Tensor | None = None,
    write: Tensor | None = None,
    M0: Tensor | None = None,
    *,
    chunk: int = 64,
    objective: str = "dot",
    read: str = "before",
    self_values: bool = False,
    impl: str = "auto",
    explain: bool = False,
) -> tuple[Tensor, Tensor]:
    """M_t = alpha_t M_{t-1} - erase_t (M_{t-1} k_t) k_t^T + write_t w_t k_t^T, read with queries.

    eq. 15-16, eq. 64, eq. 65, eq. 92-93 are settings of it.

    Args:
        q, k: (batch, head, length, d_k), one dtype. Keys and queries are used as they come: normalise them outside.
        v: (batch, head, length, d_v); with `self_values` (batch, head, length, d_k), and the memory learns M_c v_t.
        alpha: (batch, head, length), retention in (0, 1]; None = 1, nothing is forgotten.
        erase: (batch, head, length), how much of what k_t recalls is taken away; None = 0.
        write: (batch, head, length), write rate; None = 1.
        M0: (batch, head, d_v, d_k), initial memory; None = 0.
        chunk: tokens a chunk. It changes results where the chunk-start state M_c is part of the rule (objective "l2",
            read "start", `self_values`), and only the speed elsewhere.
        objective: "dot": w_t = v_t. "l2": w_t = v_t - M_c k_t, the gradient at the chunk's start.
        read: "before": y_t = M_{t-1} q_t. "after": y_t = M_t q_t. "start": y_t = M_c q_t.
        impl: "auto" | "reference" | "chunked" | "triton"; see nlkernels.dispatch. "triton" on CPU tensors is
            interpreted.
        explain: print which implementation was chosen, and why.

    Returns:
        y (batch, head, length, d_v) in q's dtype, and the last memory (batch, head, d_v, d_k) in float32 (float64 for
        float64 input). Feed it to the next call as M0 to go on; where `chunk` changes results, cut at a multiple of
        it. Everything has gradients (once; there is no double backward through "triton").

    Raises:
        KernelError: a shape, dtype, device or option does not fit; the message says what is needed.

    >>> import torch
    >>> k = torch.eye(4)[None, None]                      # four orthogonal keys
    >>> v = torch.arange(4.)[None, None, :, None]
    >>> y, M = linear_memory(k, k, v, read="after")
    >>> (k @ M.mT).flatten().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    given = {"q": q, "k": k, "v": v, "alpha": alpha, "erase": erase, "write": write, "M0": M0}
    options = {"chunk": chunk, "objective": objective, "read": read, "self_values": self_values}
    shapes = {"v": "batch head length d_k"} if self_values is True else {}
    if self_values is True and M0 is None:
        shapes |= {"M0": "batch head d_k d_k", "y": "batch head length d_k"}
    return OPERATOR(given, options, impl, explain, shapes)


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor | None = None, M0: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Linear attention without a normaliser, M_t = alpha_t M_{t-1} + v_t k_t^T: eq. 15-16, with decay eq. 64.

    options: read ("after"), chunk, impl, explain of `linear_memory`.
    """
    return linear_memory(q, k, v, alpha, None, None, M0, **{"read": "after", **options})


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, M0: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """The delta rule, M_t = M_{t-1} + beta_t (v_t - M_{t-1} k_t) k_t^T.  eq. 65. Options as in `linear_attention`."""
    return linear_memory(q, k, v, None, beta, beta, M0, **{"read": "after", **options})


def gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, beta: Tensor, M0: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """M_t = alpha_t M_{t-1} (I - beta_t k_t k_t^T) + beta_t v_t k_t^T (Yang et al. 2024).

    Options as in `linear_attention`.
    """
    need_float("alpha of gated_delta_rule", alpha, "(batch, head, length)")
    need_float("beta of gated_delta_rule", beta, "(batch, head, length)")
    need(alpha.shape == beta.shape, "alpha of gated_delta_rule", tuple(alpha.shape), f"{tuple(beta.shape)} as beta has")
    return linear_memory(q, k, v, alpha, alpha * beta, beta, M0, **{"read": "after", **options})


def hope_memory(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, eta: Tensor, M0: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Hope's linear memory, M_t = M_{t-1} (alpha_t I - eta_t k_t k_t^T) - eta_t (M_c k_t - v_t) k_t^T.

    eq. 93 with objective "l2" (the default here), eq. 92 with "dot" (its printed sign stores -v; this one stores v),
    read at the chunk's start as in eq. 90. With "l2" a pair is erased twice, by the factor and by the gradient, so that
    alpha = 1 recalls v/2. Shapes and options: `linear_memory`.
    """
    return linear_memory(q, k, v, alpha, eta, eta, M0, **{"objective": "l2", "read": "start", **options})
