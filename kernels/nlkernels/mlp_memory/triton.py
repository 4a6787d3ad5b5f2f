"""The residual two-layer memory in one fused forward kernel.

One program per (batch, head) walks the chunks; the algebra is that of chunked.py, with S1 = W1^T (h, d) and S2 = W2^T
(d, h). Five phases a chunk, and between them everything goes through scratch memory (which stays in the cache) in the
tokens' dtype, as a product would round it anyway: kept in registers, the tiles of a chunk spilled 3 KB a thread on
sm_80. A barrier between a write and the read of it orders the program's threads. Nothing is updated in place: the
weights (float32) go from one buffer to another at each chunk.

The backward is not fused: it recomputes through the chunked form in PyTorch.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nlkernels.blocks import block, decay, dot, dot_add, settings, solve_rows, tile
from nlkernels.dispatch import compute_dtype
from nlkernels.interpret import launch
from nlkernels.mlp_memory.chunked import chunked


@triton.jit
def write_rates(la, wr, r, mr, i):
    """Of a chunk: h, g, g', g_C and h e^{g'}."""
    h = tl.load(wr + r, mask=mr, other=0.0)
    a = tl.load(la + r, mask=mr, other=0.0)
    g = tl.cumsum(a, 0)
    return h, g, g - a, tl.sum(a, 0), h * tl.exp(g - a)


@triton.jit
def indices(
    n,
    L,
    CHUNK,
    NTH: tl.constexpr,
    D: tl.constexpr,
    HID: tl.constexpr,
    BD: tl.constexpr,
    BH: tl.constexpr,
    C: tl.constexpr,
):
    """i, r, od, oh and their masks, anew for the NTH phase of chunk n: the zero is one that the compiler cannot know,
    so that it does not keep every address in a register (README.md)."""
    zero = (n >> (30 - NTH)) * 16
    i, od, oh = tl.arange(0, C) + zero, tl.arange(0, BD) + zero, tl.arange(0, BH) + zero
    r = n * CHUNK + i
    return i, r, od, oh, i < CHUNK, (i < CHUNK) & (r < L), od < D, oh < HID


@triton.jit
def put(p, x, ok):
    tl.store(p, x.to(p.dtype.element_ty), mask=ok)


@triton.jit
def mlp_memory_forward(
    q,
    k,
    v,
    la,
    wr,
    scratch,
    copies,
    y,
    w1,
    w2,
    L,
    N,
    CHUNK,
    D: tl.constexpr,
    HID: tl.constexpr,
    BD: tl.constexpr,
    BH: tl.constexpr,
    C: tl.constexpr,
    ERASE: tl.constexpr,
    L2: tl.constexpr,
    READ: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """w1, w2 (2, D HID): the weights, from one half to the other at every chunk; copies (2, 2, D HID): theirs in the
    tokens' dtype, for products.

    scratch: A = silu(K S2), E2 and its right side (CHUNK, HID), then e1, E1 and its right side (CHUNK, D).
    """
    bh = tl.program_id(0).to(tl.int64)
    od, oh = tl.arange(0, BD), tl.arange(0, BH)
    md, mh = od < D, oh < HID
    q += bh * L * D
    k += bh * L * D
    v += bh * L * D
    y += bh * L * D
    la += bh * L
    wr += bh * L
    w1 += bh * 2 * D * HID
    w2 += bh * 2 * D * HID
    copies += bh * 4 * D * HID
    pA = scratch + bh * CHUNK * 3 * (D + HID)
    pE2 = pA + CHUNK * HID
    pR2 = pE2 + CHUNK * HID
    pe = pR2 + CHUNK * HID
    pE1 = pe + CHUNK * D
    pR1 = pE1 + CHUNK * D
    m1, m2 = md[:, None] & mh[None, :], mh[:, None] & md[None, :]
    at1, at2 = od[:, None] * HID + oh[None, :], oh[:, None] * D + od[None, :]
    put(copies + at1, tl.load(w1 + at1, mask=m1, other=0.0), m1)  # W1 (d, h)
    put(copies + D * HID + at2, tl.load(w2 + at2, mask=m2, other=0.0), m2)  # W2 (h, d)
    tl.debug_barrier()
    for n in tl.range(0, N, disable_licm=True):
        now, then = (n % 2) * D * HID, ((n + 1) % 2) * D * HID
        c1 = copies + 2 * now
        c2 = c1 + D * HID
        i, r, od, oh, mi, mr, md, mh = indices(n, L, CHUNK, 0, D, HID, BD, BH, C)
        # the hidden layer of the keys
        K = tile(k, r[:, None], od[None, :], D, mr[:, None], md[None, :], ACC)
        z = dot(K, tile(c2, od[:, None], oh[None, :] * D, 1, md[:, None], mh[None, :], ACC), PREC)
        put(pA + i[:, None] * HID + oh[None, :], z * tl.sigmoid(z), mi[:, None] & mh[None, :])
        tl.debug_barrier()
        i, r, od, oh, mi, mr, md, mh = indices(n, L, CHUNK, 1, D, HID, BD, BH, C)
        # E1, the rows that W1 writes
        A = tile(pA, i[:, None], oh[None, :], HID, mi[:, None], mh[None, :], ACC)
        AS = dot(A, tile(c1, oh[:, None], od[None, :] * HID, 1, mh[:, None], md[None, :], ACC), PREC)
        e1 = -tile(v, r[:, None], od[None, :], D, mr[:, None], md[None, :], ACC)
        if L2:
            e1 += AS + tile(k, r[:, None], od[None, :], D, mr[:, None], md[None, :], ACC)
        put(pe + i[:, None] * D + od[None, :], e1, mi[:, None] & md[None, :])
        h, g, gp, gC, s = write_rates(la, wr, r, mr, i)
        E1 = -h[:, None] * e1
        if ERASE:
            put(pR1 + i[:, None] * D + od[None, :], E1 - s[:, None] * AS, mi[:, None] & md[None, :])
            tl.debug_barrier()
            i, r, od, oh, mi, mr, md, mh = indices(n, L, CHUNK, 2, D, HID, BD, BH, C)
            A = tile(pA, i[:, None], oh[None, :], HID, mi[:, None], mh[None, :], ACC)
            At = tile(pA, i[None, :], oh[:, None], HID, mi[None, :], mh[:, None], ACC)
            scores = h[:, None] * decay(gp[:, None], g[None, :], i[:, None] > i[None, :]) * dot(A, At, PREC)
            E1 = solve_rows(scores, tile(pR1, i[:, None], od[None, :], D, mi[:, None], md[None, :], ACC), C)
        put(pE1 + i[:, None] * D + od[None, :], E1, mi[:, None] & md[None, :])
        tl.debug_barrier()
        i, r, od, oh, mi, mr, md, mh = indices(n, L, CHUNK, 3, D, HID, BD, BH, C)
        # E2, the rows that W2 writes
        K = tile(k, r[:, None], od[None, :], D, mr[:, None], md[None, :], ACC)
        z = dot(K, tile(c2, od[:, None], oh[None, :] * D, 1, md[:, None], mh[None, :], ACC), PREC)
        e1 = tile(pe, i[:, None], od[None, :], D, mi[:, None], md[None, :], ACC)
        E2 = dot(e1, tile(c1, od[:, None], oh[None, :], HID, md[:, None], mh[None, :], ACC), PREC)
        sig = tl.sigmoid(z)
        E2 = -h[:, None] * E2 * sig * (1.0 + z * (1.0 - sig))
        if ERASE:
            put(pR2 + i[:, None] * HID + oh[None, :], E2 - s[:, None] * z, mi[:, None] & mh[None, :])
            tl.debug_barrier()
            i, r, od, oh, mi, mr, md, mh = indices(n, L, CHUNK, 4, D, HID, BD, BH, C)
            K = tile(k, r[:, None], od[None, :], D, mr[:, None], md[None, :], ACC)
            Kt = tile(k, r[None, :], od[:, None], D, mr[None, :], md[:, None], ACC)
            scores = h[:, None] * decay(gp[:, None], g[None, :], i[:, None] > i[None, :]) * dot(K, Kt, PREC)
            E2 = solve_rows(scores, tile(pR2, i[:, None], oh[None, :], HID, mi[:, None], mh[None, :], ACC), C)
        put(pE2 + i[:, None] * HID + oh[None, :], E2, mi[:, None] & mh[None, :])
        tl.debug_barrier()
        i, r, od, oh, mi, mr, md, mh = indices(n, L, CHUNK, 5, D, HID, BD, BH, C)
        # what is read
        Q = tile(q, r[:, None], od[None, :], D, mr[:, None], md[None, :], ACC)
        hidden = dot(Q, tile(c2, od[:, None], oh[None, :] * D, 1, md[:, None], mh[None, :], ACC), PREC)
        if READ != "start":
            if READ == "before":
                to = gp
                keep = i[:, None] > i[None, :]
            else:
                to = g
                keep = i[:, None] >= i[None, :]
            Kt = tile(k, r[None, :], od[:, None], D, mr[None, :], md[:, None], ACC)
            E2 = tile(pE2, i[:, None], oh[None, :], HID, mi[:, None], mh[None, :], ACC)
            hidden = tl.exp(to)[:, None] * hidden
            hidden = dot_add(decay(to[:, None], g[None, :], keep) * dot(Q, Kt, PREC), E2, hidden, PREC)
        hidden = hidden * tl.sigmoid(hidden)
        Y = dot(hidden, tile(c1, oh[:, None], od[None, :] * HID, 1, mh[:, None], md[None, :], ACC), PREC)
        if READ != "start":
            At = tile(pA, i[None, :], oh[:, None], HID, mi[None, :], mh[:, None], ACC)
            E1 = tile(pE1, i[:, None], od[None, :], D, mi[:, None], md[None, :], ACC)
            Y = dot_add(decay(to[:, None], g[None, :], keep) * dot(hidden, At, PREC), E1, tl.exp(to)[:, None] * Y, PREC)
        Y += tile(q, r[:, None], od[None, :], D, mr[:, None], md[None, :], ACC)
        put(y + r[:, None] * D + od[None, :], Y, mr[:, None] & md[None, :])
        tl.debug_barrier()
        i, r, od, oh, mi, mr, md, mh = indices(n, L, CHUNK, 6, D, HID, BD, BH, C)
        m1, m2 = md[:, None] & mh[None, :], mh[:, None] & md[None, :]
        at1, at2 = od[:, None] * HID + oh[None, :], oh[:, None] * D + od[None, :]
        # W <- e^{g_C} W + (w E)^T n, n the layer's input
        w = tl.exp(gC - g)[None, :]
        Et = w * tile(pE1, i[None, :], od[:, None], D, mi[None, :], md[:, None], ACC)
        A = tile(pA, i[:, None], oh[None, :], HID, mi[:, None], mh[None, :], ACC)
        W = dot_add(Et, A, tl.exp(gC) * tl.load(w1 + now + at1, mask=m1, other=0.0).to(ACC), PREC)
        tl.store(w1 + then + at1, W, mask=m1)
        put(copies + 2 * then + at1, W, m1)
        tl.debug_barrier()  # keeps the compiler from mixing the two
        Et = w * tile(pE2, i[None, :], oh[:, None], HID, mi[None, :], mh[:, None], ACC)
        K = tile(k, r[:, None], od[None, :], D, mr[:, None], md[None, :], ACC)
        W = dot_add(Et, K, tl.exp(gC) * tl.load(w2 + now + at2, mask=m2, other=0.0).to(ACC), PREC)
        tl.store(w2 + then + at2, W, mask=m2)
        put(copies + 2 * then + D * HID + at2, W, m2)
        tl.debug_barrier()


def plan(d: int, hidden: int, chunk: int) -> dict[str, Any]:
    """Tile sizes and launch options; one stage, so that no load is moved before the barrier it waits for."""
    return {
        "D": d,
        "HID": hidden,
        "BD": block(d),
        "BH": block(hidden),
        "C": block(chunk),
        "num_warps": 4,
        "num_stages": 1,
    }


@torch.library.custom_op(
    "nlkernels::mlp_memory",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor alpha, Tensor eta, Tensor W1, Tensor W2, "
    "int chunk, bool l2, str read, bool erase) -> (Tensor, Tensor, Tensor)",
)
def mlp_memory_op(q, k, v, alpha, eta, W1, W2, chunk, l2, read, erase):
    B, H, L, d = k.shape
    hidden = W2.shape[-2]
    q, k, v, eta = (x.contiguous() for x in (q, k, v, eta))
    y = torch.empty_like(q)
    ends = [torch.empty(B, H, 2, *x.shape[2:], dtype=x.dtype, device=x.device) for x in (W1, W2)]
    for end, W in zip(ends, (W1, W2), strict=True):
        end[:, :, 0] = W
    scratch = torch.empty(B, H, 3 * chunk * (d + hidden), dtype=q.dtype, device=q.device)
    copies = torch.empty(B, H, 4 * d * hidden, dtype=q.dtype, device=q.device)
    N = -(-L // chunk)
    launch(
        mlp_memory_forward,
        (B * H,),
        q,
        k,
        v,
        alpha.log().contiguous(),
        eta,
        scratch,
        copies,
        y,
        *ends,
        L,
        N,
        chunk,
        ERASE=erase,
        L2=l2,
        READ=read,
        **plan(d, hidden, chunk),
        **settings(q),
    )
    return y, *(end[:, :, N % 2].clone() for end in ends)


@mlp_memory_op.register_fake
def _(q, k, v, alpha, eta, W1, W2, chunk, l2, read, erase):
    return q.new_empty(q.shape), W1.new_empty(W1.shape), W2.new_empty(W2.shape)


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.chunk, ctx.l2, ctx.read, ctx.erase = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, *grads: Tensor) -> tuple:
    tensors = ctx.saved_tensors
    work = compute_dtype(tensors[0].dtype)
    with torch.enable_grad():
        leaves = [x.detach().to(work).requires_grad_() for x in tensors]
        out = chunked(*leaves, chunk=ctx.chunk, objective="l2" if ctx.l2 else "dot", read=ctx.read, erase=ctx.erase)
        found = torch.autograd.grad(out, leaves, [g.to(work) for g in grads])
    return *(g.to(x.dtype) for g, x in zip(found, tensors, strict=True)), None, None, None, None


mlp_memory_op.register_autograd(_backward, setup_context=_save)


def fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    eta: Tensor,
    W1: Tensor,
    W2: Tensor,
    *,
    chunk: int,
    objective: str,
    read: str,
    erase: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes as in `mlp_memory`; gates and weights in float32 (float64 for float64).  eq. 89-91"""
    return mlp_memory_op(q, k, v, alpha, eta, W1, W2, chunk, objective == "l2", read, erase)
