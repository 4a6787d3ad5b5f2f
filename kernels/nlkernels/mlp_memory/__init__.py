"""The residual two-layer memory of Hope: M(x) = x + W1 silu(W2 x), learning while it is read."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nlkernels import dispatch
from nlkernels.errors import need, need_device, need_tensor
from nlkernels.mlp_memory.chunked import chunked
from nlkernels.mlp_memory.reference import reference

__all__ = ["chunked", "mlp_memory", "reference"]


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
    """A two-layer residual memory for every sequence and head; reference.py has the rule.

    eq. 89-91, with the DGD factor of eq. 57 in each layer.

    Args:
        q, k, v: (batch, head, length, d), one dtype.
        alpha, eta: (batch, head, length): retention in (0, 1], write rate. DGD is stable for eta |a|^2 < 1 + alpha.
        W1: (batch, head, d, h); W2: (batch, head, h, d): the first weights.
        chunk: tokens a chunk; part of the rule, since errors are taken at the chunk's start.
        objective: "l2": 1/2 |M(k) - v|^2. "dot": -<M(k), v>.
        read: "start": y = M_c(q). "before", "after": the memory as it stands at the token.
        erase: False drops the factor (plain gradient descent with decay).
        impl, explain: see `linear_memory`. The fused kernel takes d and chunk up to 64 and h up to 2 d; its backward
            recomputes through the chunked form.

    Returns:
        y (batch, head, length, d) in q's dtype; last W1 and W2 in float32 (float64 for float64), with gradients.

    Raises:
        KernelError: a shape, dtype, device or option does not fit.
    """
    op = "mlp_memory"
    need(
        op,
        isinstance(k, Tensor) and k.ndim == 4,
        "k",
        getattr(k, "shape", type(k).__name__),
        "a tensor (batch, head, length, d)",
    )
    need(
        op,
        isinstance(W2, Tensor) and W2.ndim == 4,
        "W2",
        getattr(W2, "shape", type(W2).__name__),
        "a tensor (batch, head, h, d)",
    )
    B, H, L, d = k.shape
    hidden = W2.shape[2]
    for name, x in (("q", q), ("k", k), ("v", v)):
        need_tensor(op, name, x, (B, H, L, d), "(batch, head, length, d) as k")
    for name, x in (("alpha", alpha), ("eta", eta)):
        need_tensor(op, name, x, (B, H, L), "(batch, head, length) like k")
    need_tensor(op, "W2", W2, (B, H, hidden, d), "(batch, head, h, d)")
    need_tensor(op, "W1", W1, (B, H, d, hidden), "(batch, head, d, h)")
    need_device(op, q=q, k=k, v=v, alpha=alpha, eta=eta, W1=W1, W2=W2)
    need(op, q.dtype == k.dtype == v.dtype, "dtype of q, k, v", f"{q.dtype}, {k.dtype}, {v.dtype}", "one dtype")
    need(
        op, isinstance(chunk, int) and not isinstance(chunk, bool) and chunk > 0, "chunk", repr(chunk), "a positive int"
    )
    need(op, objective in ("dot", "l2"), "objective", repr(objective), "'dot' or 'l2'")
    need(op, read in ("start", "before", "after"), "read", repr(read), "'start', 'before' or 'after'")
    choice = dispatch.choose(op, impl, q, size=max(d, chunk, -(-hidden // 2)), largest=64, sized="d, chunk and h / 2")
    if choice.impl != "reference":
        dispatch.positive(op, "alpha", alpha)
    if explain:
        dispatch.explain_choice(op, choice)
    q, k, v = dispatch.autocast_inputs(q, k, v)
    with dispatch.no_autocast(q):
        work, out = dispatch.compute_dtype(q.dtype), q.dtype
        alpha, eta, W1, W2 = (x.to(work) for x in (alpha, eta, W1, W2))
        if L == 0:
            return q.new_zeros(q.shape), W1.clone(), W2.clone()
        options: dict[str, Any] = {"chunk": chunk, "objective": objective, "read": read, "erase": erase}
        if choice.impl == "triton":
            from nlkernels.mlp_memory.triton import fused

            return fused(q, k, v, alpha, eta, W1, W2, **options)
        form = chunked if choice.impl == "chunked" else reference
        y, W1, W2 = form(q.to(work), k.to(work), v.to(work), alpha, eta, W1, W2, **options)
        return y.to(out), W1, W2
