"""Titans' linear memory: surprise with momentum, and forgetting."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nlkernels.operator import READS, Operator
from nlkernels.titans_memory.chunked import chunked
from nlkernels.titans_memory.reference import reference

__all__ = ["chunked", "reference", "titans_memory"]


def fused(*tensors: Tensor, **options: Any) -> tuple[Tensor, ...]:
    """The fused form; triton is imported here."""
    from nlkernels.titans_memory.triton import fused

    return fused(*tensors, **options)


OPERATOR = Operator(
    "titans_memory",
    shapes={
        "k": "batch head length d_k",
        "q": "batch head length d_k",
        "v": "batch head length d_v",
        **dict.fromkeys(("alpha", "mu", "eta"), "batch head length"),
        **dict.fromkeys(("M0", "S0"), "batch head d_v d_k"),
        "y": "batch head length d_v",
    },
    tokens=("q", "k", "v"),
    states=("M0", "S0"),
    reference=reference,
    chunked=chunked,
    fused=fused,
    rates="eta",
    limits={"d_k": 128, "d_v": 128, "chunk": 128},
    gates=("alpha", "mu"),
    fills={"M0": 0.0, "S0": 0.0},
    options={"read": READS},
)


def titans_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    mu: Tensor,
    eta: Tensor,
    M0: Tensor | None = None,
    S0: Tensor | None = None,
    *,
    chunk: int = 64,
    read: str = "after",
    impl: str = "auto",
    explain: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """S_t = mu_t S_{t-1} - eta_t (M_c k_t - v_t) k_t^T,  M_t = alpha_t M_{t-1} + S_t, read with queries.

    Args:
        q, k: (batch, head, length, d_k); v: (batch, head, length, d_v); one dtype.
        alpha, mu, eta: (batch, head, length): retention in (0, 1], momentum in (0, 1), write rate.
        M0, S0: (batch, head, d_v, d_k), first memory and momentum; None = 0.
        chunk: tokens a chunk; part of the rule, since errors are taken at the chunk's start.
        read: "after": y_t = M_t q_t. "before": M_{t-1} q_t. "start": M_c q_t.
        impl, explain, and what is raised: see `linear_memory`. The fused kernels take d and chunk up to 128.

    Returns:
        y (batch, head, length, d_v) in q's dtype; last memory and last momentum in float32 (float64 for float64).

    >>> import torch
    >>> k, rate = torch.eye(3)[None, None], torch.ones(1, 1, 3)
    >>> y, M, S = titans_memory(k, k, k, rate, 1e-6 * rate, rate, chunk=1)
    >>> torch.allclose(M[0, 0], torch.eye(3), atol=1e-5)
    True
    """
    given = {"q": q, "k": k, "v": v, "alpha": alpha, "mu": mu, "eta": eta, "M0": M0, "S0": S0}
    return OPERATOR(given, {"chunk": chunk, "read": read}, impl, explain)
