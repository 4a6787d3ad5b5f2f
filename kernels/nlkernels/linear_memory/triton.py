"""The linear memory's fused kernels as operators of torch: plan, registration, gradients.

one kernel a direction   forward.py; backward.py (a chain and a chunk-parallel rest)
split over chunks        wy.py: everything but the passing of the state in parallel; then the same rest
which of the two         split.py
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nlkernels.blocks import block, settings
from nlkernels.dispatch import capability
from nlkernels.errors import need
from nlkernels.interpret import launch
from nlkernels.linear_memory.backward import linear_memory_backward_chain, linear_memory_backward_rest
from nlkernels.linear_memory.forward import linear_memory_forward
from nlkernels.linear_memory.wy import (
    linear_memory_wy_backward_chain,
    linear_memory_wy_backward_prepare,
    linear_memory_wy_chain,
    linear_memory_wy_prepare,
    linear_memory_wy_read,
)


def plan(
    dtype: torch.dtype,
    cc: tuple[int, int],
    dk: int,
    dv: int,
    chunk: int,
    free: bool,
) -> tuple[int, dict[str, Any], dict[str, int]]:
    """Tokens a chunk, tile sizes and launch options for compute capability `cc` ((0, 0): the interpreter).

    `free`: the result does not depend on the chunk, so the kernel picks the one that spills nothing: 64 tokens and 8
    warps for half precision on sm_90, 32 and 4 elsewhere and for heads over 64. A chunk of 64 that the rule asks for,
    and large heads, get narrower value blocks. A spill check over a grid of settings chose the numbers.
    """
    half, hopper = dtype in (torch.float16, torch.bfloat16), cc >= (9, 0)
    BK = block(dk)
    large = BK > 64
    if free and cc > (0, 0):
        chunk = min(chunk, 64 if half and hopper and not large else 32)
    C = block(chunk)
    wide = (64 if half else 32) // (2 if large or (C > 32 and not hopper) else 1)
    BV = min(block(dv), 64 if cc == (0, 0) else wide)
    tiles = {"DK": dk, "DV": dv, "BK": BK, "BV": BV, "C": C}
    return chunk, tiles, {"num_warps": 8 if C > 32 or large else 4}


def slice_of(meta: dict[str, Any], cc: tuple[int, int]) -> int:
    """Dimensions that `blocks.product` sums at a time."""
    return max(meta["BK"], block(meta["DV"])) if cc == (0, 0) else 32


def _launch_arguments(
    q: Tensor,
    v: Tensor,
    la: Tensor | None,
    er: Tensor | None,
    M0: Tensor,
    chunk: int,
    objective: str,
    read: str,
    self_values: bool,
) -> tuple[int, int, int, dict[str, Any], dict[str, int]]:
    free = objective == "dot" and read != "start" and not self_values
    chunk, meta, options = plan(q.dtype, capability(q.device), q.shape[-1], M0.shape[-2], chunk, free)
    meta |= {
        "DX": v.shape[-1],
        "DECAY": la is not None,
        "ERASE": er is not None,
        "L2": objective == "l2",
        "SELF": self_values,
        "READ": read,
        **settings(q),
    }
    return chunk, -(-q.shape[2] // chunk), -(-meta["DV"] // meta["BV"]), meta, options


GATES = "Tensor? la, Tensor? er, Tensor wr"
OPTIONS = "int chunk, str objective, str read, bool self_values, bool wy"


def columns(meta: dict[str, Any]) -> int:
    """Columns of dQ and dK that `linear_memory_backward_rest` has in registers."""
    return min(meta["BK"], 64)


@torch.library.custom_op(
    "nlkernels::linear_memory",
    mutates_args=(),
    schema=f"(Tensor q, Tensor k, Tensor v, {GATES}, Tensor M0, {OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor)",
)
def linear_memory_op(q, k, v, la, er, wr, M0, chunk, objective, read, self_values, wy):
    """(y, last memory, chunk-start states, written rows): the last two are for the backward."""
    B, H, L, DK = k.shape
    DV = M0.shape[-2]
    chunk, N, NV, meta, options = _launch_arguments(q, v, la, er, M0, chunk, objective, read, self_values)
    q, k, v, wr, M0 = (x.contiguous() for x in (q, k, v, wr, M0))
    la, er = (wr if x is None else x.contiguous() for x in (la, er))  # never read when absent
    y, e = (torch.empty(B, H, L, DV, dtype=q.dtype, device=q.device) for _ in range(2))
    states, mT = torch.empty(B, H, N, DK, DV, dtype=M0.dtype, device=q.device), torch.empty_like(M0)
    if not wy:
        launch(
            linear_memory_forward,
            (NV, B * H),
            q,
            k,
            v,
            la,
            er,
            wr,
            M0,
            y,
            states,
            e,
            mT,
            L,
            N,
            chunk,
            **meta,
            **options,
        )
        return y, mT, states, e
    meta["R"], NK = slice_of(meta, capability(q.device)), -(-DK // meta["BV"])
    us = e if self_values else torch.empty_like(e)  # with self-made values there is no U
    recalls = meta["ERASE"] or meta["L2"] or self_values  # and without these no W
    ws = torch.empty_like(k) if recalls else k
    blocks = (0 if self_values else NV) + (NK if recalls else 0)
    launch(linear_memory_wy_prepare, (N, blocks, B * H), k, v, la, er, wr, us, ws, L, chunk, **meta, **options)
    launch(linear_memory_wy_chain, (NV, B * H), k, la, us, ws, M0, states, e, mT, L, N, chunk, **meta, **options)
    launch(linear_memory_wy_read, (N, NV, B * H), q, k, la, states, e, y, L, N, chunk, **meta, **options)
    return y, mT, states, e


@linear_memory_op.register_fake
def _(q, k, v, la, er, wr, M0, chunk, objective, read, self_values, wy):
    B, H, L, DK = k.shape
    _, N, _, _, _ = _launch_arguments(q, v, la, er, M0, chunk, objective, read, self_values)
    DV = M0.shape[-2]
    return (
        q.new_empty(B, H, L, DV),
        M0.new_empty(B, H, DV, DK),
        M0.new_empty(B, H, N, DK, DV),
        q.new_empty(B, H, L, DV),
    )


@torch.library.custom_op(
    "nlkernels::linear_memory_backward",
    mutates_args=(),
    schema=f"(Tensor dy, Tensor dM, Tensor q, Tensor k, Tensor v, {GATES}, Tensor M0, "
    f"Tensor states, Tensor e, {OPTIONS}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def linear_memory_backward_op(dy, dM, q, k, v, la, er, wr, M0, states, e, chunk, objective, read, self_values, wy):
    """Gradients of q, k, v, la, er, wr, M0; la's and er's are 0 when they were absent."""
    B, H, L, DK = k.shape
    DV = M0.shape[-2]
    chunk, N, NV, meta, options = _launch_arguments(q, v, la, er, M0, chunk, objective, read, self_values)
    q, k, v, wr, dy, dM = (x.contiguous() for x in (q, k, v, wr, dy, dM))
    decays, erases = la is not None, er is not None
    la, er = (wr if x is None else x.contiguous() for x in (la, er))
    like = {"dtype": M0.dtype, "device": q.device}
    dstates, dr, dm0 = torch.empty_like(states), torch.empty_like(e), torch.empty(B, H, DV, DK, **like)
    split = {**meta, "R": slice_of(meta, capability(q.device))}
    if wy:
        hs, gs = (dr if read == "start" else torch.empty_like(e)), torch.empty_like(k)  # H is 0 for "start"
        blocks = (0 if read == "start" else NV) - (-DK // meta["BV"])
        launch(
            linear_memory_wy_backward_prepare,
            (N, blocks, B * H),
            q,
            k,
            la,
            er,
            dy,
            hs,
            gs,
            L,
            chunk,
            **split,
            **options,
        )
        launch(
            linear_memory_wy_backward_chain,
            (NV, B * H),
            q,
            k,
            v,
            la,
            er,
            wr,
            hs,
            gs,
            dy,
            dM,
            dstates,
            dr,
            dm0,
            L,
            N,
            chunk,
            **split,
            **options,
        )
    else:
        launch(
            linear_memory_backward_chain,
            (NV, B * H),
            q,
            k,
            v,
            la,
            er,
            wr,
            dy,
            dM,
            dstates,
            dr,
            dm0,
            L,
            N,
            chunk,
            **meta,
            **options,
        )
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    parts = -(-DK // columns(meta))
    dla, der, dwr = (torch.empty(parts if there else 0, B, H, L, **like) for there in (decays, erases, True))
    launch(
        linear_memory_backward_rest,
        (N, parts, B * H),
        q,
        k,
        v,
        la,
        er,
        wr,
        states,
        dstates,
        e,
        dr,
        dy,
        dq,
        dk,
        dv,
        dla,
        der,
        dwr,
        L,
        N,
        chunk,
        B * H * L,
        BW=block(DV),
        BC=columns(meta),
        **split,
        **options,
    )
    return dq, dk, dv, *(x.sum(0) for x in (dla, der, dwr)), dm0


@linear_memory_backward_op.register_fake
def _(dy, dM, q, k, v, la, er, wr, M0, states, e, chunk, objective, read, self_values, wy):
    gate = [wr.new_empty(wr.shape) for _ in range(3)]
    dq, dk, dv, dM0 = (x.new_empty(x.shape) for x in (q, k, v, M0))
    return dq, dk, dv, *gate, dM0


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    q, k, v, la, er, wr, M0, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, la, er, wr, M0, *output[2:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor | None, dM: Tensor | None, *_: Any) -> tuple:
    q, k, v, la, er, wr, M0, states, e = ctx.saved_tensors
    dy = torch.zeros_like(e) if dy is None else dy
    dM = torch.zeros_like(M0) if dM is None else dM
    dq, dk, dv, dla, der, dwr, dm0 = torch.ops.nlkernels.linear_memory_backward(
        dy, dM, q, k, v, la, er, wr, M0, states, e, *ctx.options
    )
    return (
        dq,
        dk,
        dv,
        None if la is None else dla,
        None if er is None else der,
        dwr,
        dm0,
        None,
        None,
        None,
        None,
        None,
    )


linear_memory_op.register_autograd(_backward, setup_context=_save)


def fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor | None,
    erase: Tensor | None,
    write: Tensor,
    M0: Tensor,
    *,
    chunk: int,
    objective: str,
    read: str,
    self_values: bool,
    wy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `linear_memory`; gates and M0 in float32 (float64 for float64). `wy`: split over chunks.

    Returns (y, last memory).  eq. 90, eq. 92-93
    """
    need(
        "linear_memory",
        chunk <= 128 or (objective == "dot" and read != "start" and not self_values),
        "chunk",
        chunk,
        "at most 128 for impl='triton', where the chunk is part of the rule",
        "impl='chunked' takes any",
    )
    log_alpha = None if alpha is None else alpha.log()
    y, M, _, _ = linear_memory_op(q, k, v, log_alpha, erase, write, M0, chunk, objective, read, self_values, wy)
    return y, M
