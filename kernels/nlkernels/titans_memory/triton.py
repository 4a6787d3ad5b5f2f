"""Titans' linear memory as an operator of torch: one forward kernel, four backward (forward.py, backward.py)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nlkernels.blocks import block, settings
from nlkernels.dispatch import capability
from nlkernels.interpret import launch
from nlkernels.titans_memory.backward import (
    titans_memory_backward_chain,
    titans_memory_backward_gates,
    titans_memory_backward_prepare,
    titans_memory_backward_rest,
)
from nlkernels.titans_memory.forward import titans_memory_forward


def plan(dtype: torch.dtype, cc: tuple[int, int], dk: int, dv: int, chunk: int) -> tuple[dict[str, Any], dict]:
    """Tile sizes and launch options; value blocks as wide as registers allow (a spill check chose)."""
    C, BK = block(chunk), block(dk)
    wide = 64 if cc == (0, 0) else 32 if dtype != torch.float32 else 16
    tiles = {"DK": dk, "DV": dv, "BK": BK, "BV": min(block(dv), wide), "C": C}
    return tiles, {"num_warps": 8 if max(C, BK) > 32 else 4}


def slices(dtype: torch.dtype, dk: int, dv: int, cc: tuple[int, int]) -> dict[str, int]:
    """R: dimensions that `blocks.product` sums at a time. BC: columns of dQ and dK in registers. BW: holds all DV."""
    columns = 32 if dtype == torch.float32 and cc > (0, 0) else 64
    return {"R": max(block(dk), block(dv)) if cc == (0, 0) else 32, "BC": min(block(dk), columns), "BW": block(dv)}


def mask_precision(prec: str) -> str:
    """Decay masks are multiplied in float32: TF32 on a GPU, exactly in the interpreter."""
    return "ieee" if prec in ("ieee", "bf16_emu") else "tf32"


def _meta(q: Tensor, dv: int, chunk: int, read: str) -> tuple[int, int, dict[str, Any], dict[str, int]]:
    on = capability(q.device)
    tiles, options = plan(q.dtype, on, q.shape[-1], dv, chunk)
    chosen = settings(q)
    exact = mask_precision(chosen["PREC"]) if q.device.type == "cuda" else "ieee"
    return (
        -(-q.shape[2] // chunk),
        -(-dv // tiles["BV"]),
        {**tiles, "READ": read, "MASK_PREC": exact, **chosen},
        options,
    )


GATES = "Tensor la, Tensor lu, Tensor eta"


@torch.library.custom_op(
    "nlkernels::titans_memory",
    mutates_args=(),
    schema=f"(Tensor q, Tensor k, Tensor v, {GATES}, Tensor M0, Tensor S0, int chunk, str read) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def titans_memory_op(q, k, v, la, lu, eta, M0, S0, chunk, read):
    """(y, last memory, last momentum, chunk-start states, written rows): the last two are for the backward."""
    B, H, L, DK = k.shape
    DV = v.shape[-1]
    q, k, v, la, lu, eta, M0, S0 = (x.contiguous() for x in (q, k, v, la, lu, eta, M0, S0))
    N, NV, meta, options = _meta(q, DV, chunk, read)
    meta["R"] = slices(q.dtype, DK, DV, capability(q.device))["R"]
    y, us, M, S = (torch.empty_like(x) for x in (v, v, M0, S0))
    states = M0.new_empty(B, H, N, 2, DK, DV)
    launch(
        titans_memory_forward,
        (NV, B * H),
        q,
        k,
        v,
        la,
        lu,
        eta,
        M0,
        S0,
        y,
        us,
        states,
        M,
        S,
        L,
        N,
        chunk,
        **meta,
        **options,
    )
    return y, M, S, states, us


@titans_memory_op.register_fake
def _(q, k, v, la, lu, eta, M0, S0, chunk, read):
    B, H, L, DK = k.shape
    return (
        v.new_empty(v.shape),
        M0.new_empty(M0.shape),
        S0.new_empty(S0.shape),
        M0.new_empty(B, H, -(-L // chunk), 2, DK, v.shape[-1]),
        v.new_empty(v.shape),
    )


@torch.library.custom_op(
    "nlkernels::titans_memory_backward",
    mutates_args=(),
    schema=f"(Tensor dy, Tensor dM, Tensor dS, Tensor q, Tensor k, Tensor v, {GATES}, "
    "Tensor states, Tensor us, int chunk, str read) -> (Tensor, Tensor, Tensor, Tensor, "
    "Tensor, Tensor, Tensor, Tensor)",
)
def titans_memory_backward_op(dy, dM, dS, q, k, v, la, lu, eta, states, us, chunk, read):
    """Gradients of q, k, v, log alpha, log mu, eta, M0, S0."""
    B, H, L, DK = k.shape
    DV = v.shape[-1]
    dy, dM, dS, q, k, v, la, lu, eta = (x.contiguous() for x in (dy, dM, dS, q, k, v, la, lu, eta))
    N, NV, meta, options = _meta(q, DV, chunk, read)
    cut = slices(q.dtype, DK, DV, capability(q.device))
    hs, du, dstates, dm0, ds0 = (torch.empty_like(x) for x in (us, us, states, dM, dS))
    meta["R"] = cut["R"]
    if read != "start":
        launch(titans_memory_backward_prepare, (N, NV, B * H), q, k, la, lu, dy, hs, L, chunk, **meta, **options)
    launch(
        titans_memory_backward_chain,
        (NV, B * H),
        q,
        k,
        la,
        lu,
        eta,
        hs,
        dy,
        dM,
        dS,
        dstates,
        du,
        dm0,
        ds0,
        L,
        N,
        chunk,
        **meta,
        **options,
    )
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    parts = -(-DK // cut["BC"])
    rows = eta.new_empty(parts, B, H, N, 5, meta["C"])
    gates = [torch.empty_like(eta) for _ in range(3)]
    meta = {n: x for n, x in {**meta, **cut}.items() if n not in ("BK", "BV")}
    of = {n: {m: x for m, x in meta.items() if m in n.arg_names} for n in KERNELS[3:]}
    launch(
        titans_memory_backward_rest,
        (N, parts, B * H),
        q,
        k,
        la,
        lu,
        eta,
        states,
        dstates,
        us,
        du,
        dy,
        dq,
        dk,
        rows,
        L,
        N,
        chunk,
        B * H * N,
        **of[titans_memory_backward_rest],
        **options,
    )
    launch(
        titans_memory_backward_gates,
        (N, B * H),
        q,
        k,
        v,
        la,
        lu,
        eta,
        states,
        us,
        du,
        dy,
        rows.sum(0),
        dv,
        *gates,
        L,
        N,
        chunk,
        **of[titans_memory_backward_gates],
        **options,
    )
    return dq, dk, dv, *gates, dm0, ds0


@titans_memory_backward_op.register_fake
def _(dy, dM, dS, q, k, v, la, lu, eta, states, us, chunk, read):
    return tuple(x.new_empty(x.shape) for x in (q, k, v, la, lu, eta, dM, dS))


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.chunk, ctx.read = inputs
    ctx.save_for_backward(*tensors[:6], *output[3:])


def _backward(ctx: Any, dy: Tensor, dM: Tensor, dS: Tensor, *_: Any) -> tuple:
    found = torch.ops.nlkernels.titans_memory_backward(dy, dM, dS, *ctx.saved_tensors, ctx.chunk, ctx.read)
    return *found, None, None


titans_memory_op.register_autograd(_backward, setup_context=_save)


def fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    mu: Tensor,
    eta: Tensor,
    M0: Tensor,
    S0: Tensor,
    *,
    chunk: int,
    read: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes as in `titans_memory`; gates and states in float32 (float64 for float64).  eq. 90"""
    return titans_memory_op(q, k, v, alpha.log(), mu.log(), eta, M0, S0, chunk, read)[:3]


KERNELS = (
    titans_memory_forward,
    titans_memory_backward_prepare,
    titans_memory_backward_chain,
    titans_memory_backward_rest,
    titans_memory_backward_gates,
)
