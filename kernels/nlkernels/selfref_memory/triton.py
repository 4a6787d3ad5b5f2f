"""Self-modifying Titans in fused kernels: one forward; a backward in three parts.

    forward           one program per (batch, head) walks the chunks and updates the five memories        forward.py
    backward_prepare  the forward of every chunk again, all chunks at once, from the stored chunk-start memories
    backward_chain    one program per (batch, head), last chunk first: the memories' gradients, and those of
                      K, V, gates                                                                        backward.py
    backward_rest     dX and dQ, all chunks at once

The algebra is that of chunked.py: one solve for Z and one transition a chunk, shared by all memories. The kernels
carry M and not S = M^T; an operand that is needed transposed is read so from memory (`blocks.product`).

Registers are the limit: a chunk and five memories are some twenty tiles of 32 registers a thread, and eight fit. So
everything lives in global memory, which the cache holds, and a phase works through it in slices of `T` tokens or `R`
dimensions; only the triangular solve has a whole chunk in registers. States and their gradients go from one buffer to
another at each chunk and are never updated in place: of two neighbouring phases one writes what the other reads, and
one barrier between them is all the order there is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nlkernels.blocks import block, settings
from nlkernels.dispatch import capability
from nlkernels.interpret import launch
from nlkernels.selfref_memory.backward import selfref_memory_backward_chain, selfref_memory_backward_rest
from nlkernels.selfref_memory.forward import selfref_memory_backward_prepare, selfref_memory_forward


def plan(d: int, chunk: int, cc: tuple[int, int]) -> tuple[dict[str, Any], dict[str, int]]:
    """Tile sizes and launch options for compute capability `cc` ((0, 0): the interpreter, which wants few, large
    tiles). One stage: no load is moved before the barrier that it waits for."""
    C, BD = block(chunk), block(d)
    T, R = (C, BD) if cc == (0, 0) else (min(C, 32), min(BD, 32))
    return {"D": d, "BD": BD, "C": C, "T": T, "R": R}, {"num_warps": 8 if max(C, BD) > 64 else 4, "num_stages": 1}


def _meta(x: Tensor, chunk: int, l2: bool, eta_max: float, unit_values: bool) -> tuple[int, dict[str, Any]]:
    meta, options = plan(x.shape[-1], chunk, capability(x.device))
    return -(-x.shape[2] // chunk), {
        **meta,
        "L2": l2,
        "ETA_MAX": eta_max,
        "UNIT": unit_values,
        **settings(x),
        **options,
    }


STATE = "Tensor mk, Tensor mv, Tensor mm, Tensor me, Tensor ma"
OPTIONS = "int chunk, bool l2, float eta_max, bool unit_values"


def _tuple(n: int) -> str:
    return f"({', '.join(['Tensor'] * n)})"


@torch.library.custom_op(
    "nlkernels::selfref_memory",
    mutates_args=(),
    schema=f"(Tensor x, Tensor q, {STATE}, Tensor be, Tensor ba, {OPTIONS}) -> {_tuple(8)}",
)
def selfref_memory_op(x, q, mk, mv, mm, me, ma, be, ba, chunk, l2, eta_max, unit_values):
    """(y, the five last memories, chunk-start matrices, chunk-start vectors): the last two are for the backward."""
    B, H, L, d = x.shape
    N, meta = _meta(x, chunk, l2, eta_max, unit_values)
    x, q, be, ba = (z.contiguous() for z in (x, q, be, ba))
    y = torch.empty_like(x)
    states, vectors = x.new_empty(B, H, N, 3, d, d), me.new_empty(B, H, N + 1, 2, d)
    ms = mk.new_empty(B, H, 2, 3, d, d)
    for m, M in enumerate((mk, mv, mm)):
        ms[:, :, 0, m] = M
        states[:, :, 0, m] = M
    vectors[:, :, 0, 0], vectors[:, :, 0, 1] = me, ma
    keys, values, zs = (x.new_empty(B, H, chunk, d) for _ in range(3))
    phis, gates = x.new_empty(B, H, d, d), mk.new_empty(B, H, 8, meta["C"])
    launch(
        selfref_memory_forward,
        (B * H,),
        x,
        q,
        be,
        ba,
        ms,
        y,
        states,
        vectors,
        keys,
        values,
        zs,
        phis,
        gates,
        L,
        N,
        chunk,
        **meta,
    )
    return (
        y,
        *(M.clone() for M in ms[:, :, N % 2].unbind(2)),
        *(v.clone() for v in vectors[:, :, N].unbind(2)),
        states,
        vectors,
    )


@selfref_memory_op.register_fake
def _(x, q, mk, mv, mm, me, ma, be, ba, chunk, l2, eta_max, unit_values):
    B, H, L, d = x.shape
    N = -(-L // chunk)
    return (
        x.new_empty(x.shape),
        *(M.new_empty(M.shape) for M in (mk, mv, mm, me, ma)),
        x.new_empty(B, H, N, 3, d, d),
        mk.new_empty(B, H, N + 1, 2, d),
    )


GRADS = "Tensor dy, Tensor dmk, Tensor dmv, Tensor dmm, Tensor dme, Tensor dma"


@torch.library.custom_op(
    "nlkernels::selfref_memory_backward",
    mutates_args=(),
    schema=f"({GRADS}, Tensor x, Tensor q, Tensor be, Tensor ba, Tensor states, Tensor vectors, "
    f"{OPTIONS}) -> {_tuple(9)}",
)
def selfref_memory_backward_op(
    dy, dmk, dmv, dmm, dme, dma, x, q, be, ba, states, vectors, chunk, l2, eta_max, unit_values
):
    """Gradients of x, q, the five memories and the two biases."""
    B, H, L, d = x.shape
    N, meta = _meta(x, chunk, l2, eta_max, unit_values)
    x, q, be, ba, dy = (z.contiguous() for z in (x, q, be, ba, dy))
    C, like = meta["C"], {"dtype": dme.dtype, "device": x.device}
    keys, values, zs, gs = (torch.empty_like(x) for _ in range(4))
    phis, gates = x.new_empty(B, H, N, d, d), torch.empty(B, H, N, 8, C, **like)
    again = keys, values, zs, phis, gs, gates
    launch(selfref_memory_backward_prepare, (N, B * H), x, be, ba, states, vectors, *again, L, N, chunk, **meta)
    dks, dvs = (torch.empty(x.shape, **like) for _ in range(2))
    dms, dvectors = torch.empty(B, H, 2, 3, d, d, **like), torch.empty(B, H, 2, 2, d, **like)
    dms[:, :, 0] = torch.stack([dmk, dmv, dmm], 2)
    dvectors[:, :, 0] = torch.stack([dme, dma], 2)
    dzs, dphis, sums = torch.empty(B, H, 2, L, **like), x.new_empty(B, H, d, d), torch.empty(B, H, 6, C, **like)
    drs, dk1 = (torch.empty(B, H, chunk, d, **like) for _ in range(2))
    launch(
        selfref_memory_backward_chain,
        (B * H,),
        x,
        q,
        states,
        vectors,
        *again,
        dy,
        dms,
        dvectors,
        dks,
        dvs,
        dzs,
        dphis,
        drs,
        dk1,
        sums,
        L,
        N,
        chunk,
        **meta,
    )
    dx, dq = torch.empty_like(x), torch.empty_like(q)
    launch(selfref_memory_backward_rest, (N, B * H), states, vectors, dy, dks, dvs, dzs, dx, dq, L, N, chunk, **meta)
    last = N % 2
    return (
        dx,
        dq,
        *(M.clone() for M in dms[:, :, last].unbind(2)),
        *(v.clone() for v in dvectors[:, :, last].unbind(2)),
        *(z.clone() for z in dzs.sum(-1).unbind(2)),
    )


@selfref_memory_backward_op.register_fake
def _(dy, dmk, dmv, dmm, dme, dma, x, q, be, ba, states, vectors, chunk, l2, eta_max, unit_values):
    return tuple(z.new_empty(z.shape) for z in (x, q, dmk, dmv, dmm, dme, dma, be, ba))


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    x, q, _, _, _, _, _, be, ba, *ctx.options = inputs
    ctx.save_for_backward(x, q, be, ba, *output[6:])


def _backward(ctx: Any, *grads: Tensor) -> tuple:
    x, q, be, ba, states, vectors = ctx.saved_tensors
    found = torch.ops.nlkernels.selfref_memory_backward(*grads[:6], x, q, be, ba, states, vectors, *ctx.options)
    return *found, None, None, None, None


selfref_memory_op.register_autograd(_backward, setup_context=_save)


def fused(
    x: Tensor,
    q: Tensor,
    memories: tuple[Tensor, ...],
    b_eta: Tensor,
    b_alpha: Tensor,
    *,
    chunk: int,
    objective: str,
    eta_max: float,
    unit_values: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Shapes as in `reference`; d and chunk at most 128.  eq. 86-88, eq. 90, eq. 92-93"""
    y, *rest = selfref_memory_op(x, q, *memories, b_eta, b_alpha, chunk, objective == "l2", eta_max, unit_values)
    return y, tuple(rest[:5])
