"""Titans' linear memory: surprise with momentum, and forgetting."""

from __future__ import annotations

from torch import Tensor

from nlkernels import dispatch
from nlkernels.errors import need, need_device, need_tensor
from nlkernels.titans_memory.chunked import chunked
from nlkernels.titans_memory.reference import reference

__all__ = ["chunked", "reference", "titans_memory"]


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
        impl, explain: see `linear_memory`. The fused kernels take d and chunk up to 128.

    Returns:
        y (batch, head, length, d_v) in q's dtype; last memory and last momentum in float32 (float64 for float64).

    Raises:
        KernelError: a shape, dtype, device or option does not fit.

    >>> import torch
    >>> k, rate = torch.eye(3)[None, None], torch.ones(1, 1, 3)
    >>> y, M, S = titans_memory(k, k, k, rate, 1e-6 * rate, rate, chunk=1)
    >>> torch.allclose(M[0, 0], torch.eye(3), atol=1e-5)
    True
    """
    op = "titans_memory"
    need(
        op,
        isinstance(k, Tensor) and k.ndim == 4,
        "k",
        getattr(k, "shape", type(k).__name__),
        "a tensor (batch, head, length, d_k)",
    )
    need(
        op,
        isinstance(v, Tensor) and v.ndim == 4,
        "v",
        getattr(v, "shape", type(v).__name__),
        "a tensor (batch, head, length, d_v)",
    )
    B, H, L, dk = k.shape
    dv = v.shape[-1]
    need_tensor(op, "k", k, (B, H, L, dk), "(batch, head, length, d_k)")
    need_tensor(op, "q", q, (B, H, L, dk), "(batch, head, length, d_k) as k")
    need_tensor(op, "v", v, (B, H, L, dv), "(batch, head, length, d_v)")
    for name, x in (("alpha", alpha), ("mu", mu), ("eta", eta)):
        need_tensor(op, name, x, (B, H, L), "(batch, head, length) like k")
    for name, state in (("M0", M0), ("S0", S0)):
        if state is not None:
            need_tensor(op, name, state, (B, H, dv, dk), "(batch, head, d_v, d_k)")
    need_device(op, q=q, k=k, v=v, alpha=alpha, mu=mu, eta=eta, M0=M0, S0=S0)
    need(op, q.dtype == k.dtype == v.dtype, "dtype of q, k, v", f"{q.dtype}, {k.dtype}, {v.dtype}", "one dtype")
    need(
        op, isinstance(chunk, int) and not isinstance(chunk, bool) and chunk > 0, "chunk", repr(chunk), "a positive int"
    )
    need(op, read in ("start", "before", "after"), "read", repr(read), "'start', 'before' or 'after'")
    choice = dispatch.choose(op, impl, q, size=max(dk, dv, chunk), sized="head dimension and chunk")
    if choice.impl != "reference":
        dispatch.positive(op, "alpha", alpha)
        dispatch.positive(op, "mu", mu)
    if explain:
        dispatch.explain_choice(op, choice)
    q, k, v = dispatch.autocast_inputs(q, k, v)
    with dispatch.no_autocast(q):
        work, out = dispatch.compute_dtype(q.dtype), q.dtype
        alpha, mu, eta = alpha.to(work), mu.to(work), eta.to(work)
        M0, S0 = (k.new_zeros(B, H, dv, dk, dtype=work) if x is None else x.to(work) for x in (M0, S0))
        if L == 0:
            return q.new_zeros(B, H, 0, dv), M0.clone(), S0.clone()
        if choice.impl == "triton":
            from nlkernels.titans_memory.triton import fused

            return fused(q, k, v, alpha, mu, eta, M0, S0, chunk=chunk, read=read)
        form = chunked if choice.impl == "chunked" else reference
        y, M, S = form(q.to(work), k.to(work), v.to(work), alpha, mu, eta, M0, S0, chunk=chunk, read=read)
        return y.to(out), M, S
