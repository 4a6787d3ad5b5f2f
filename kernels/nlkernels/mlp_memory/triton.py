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

from nlkernels.blocks import block, decay, dot, dot_add, put, settings, solve_rows, tile
from nlkernels.dispatch import compute_dtype
from nlkernels.gates import log_gate
from nlkernels.interpret import launch
from nlkernels.mlp_memory.chunked import of_log_gate
from nlkernels.operator import Fused, Given, empty


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


def plan(d: int, hidden: int, chunk: int) -> tuple[dict[str, int], dict[str, int]]:
    """Tile sizes and launch options; one stage, so that no load is moved before the barrier it waits for."""
    tiles = {"D": d, "HID": hidden, "BD": block(d), "BH": block(hidden), "C": block(chunk)}
    return tiles, {"num_warps": 4, "num_stages": 1}


def outputs(given: Given, chunk, l2, read, erase) -> Given:
    """y and the last weights."""
    return {"y": empty(given["q"], *given["q"].shape)} | {f"last{n}": empty(given[n], *given[n].shape) for n in WEIGHTS}


def forward(given: Given, chunk, l2, read, erase) -> None:
    q, (B, H, L, d), hidden = given["q"], given["k"].shape, given["W2"].shape[-2]
    tiles, options = plan(d, hidden, chunk)
    N = -(-L // chunk)
    shared = {**tiles, **settings(q), "ERASE": erase, "L2": l2, "READ": read, "L": L, "N": N, "CHUNK": chunk}
    halves = {n.lower(): empty(given[n], B, H, 2, *given[n].shape[2:]) for n in WEIGHTS}
    for n in WEIGHTS:
        halves[n.lower()].select(2, 0).copy_(given[n])
    scratch, copies = empty(q, B, H, 3 * chunk * (d + hidden)), empty(q, B, H, 4 * d * hidden)
    launch(mlp_memory_forward, (B * H,), {**given, **shared, **halves, "scratch": scratch, "copies": copies}, **options)
    for n in WEIGHTS:
        given[f"last{n}"].copy_(halves[n.lower()].select(2, N % 2))


def backward(given: Given, chunk, l2, read, erase) -> Given:
    """The chunk form once more, with autograd."""
    tensors = {n: given[n] for n in ("q", "k", "v", "la", "wr", *WEIGHTS)}
    work = compute_dtype(given["q"].dtype)
    with torch.enable_grad():
        leaves = [x.detach().to(work).requires_grad_() for x in tensors.values()]
        out = of_log_gate(*leaves, chunk=chunk, objective="l2" if l2 else "dot", read=read, erase=erase)
        found = torch.autograd.grad(out, leaves, [given[n].to(work) for n in ("dy", "dlastW1", "dlastW2")])
    return {n: g.to(x.dtype) for g, (n, x) in zip(found, tensors.items(), strict=True)}


WEIGHTS = ("W1", "W2")
FUSED = Fused(
    "mlp_memory",
    "q k v la wr W1 W2",
    "int chunk, bool l2, str read, bool erase",
    returned="y lastW1 lastW2",
    outputs=outputs,
    forward=forward,
    backward=backward,
    traced=True,
)


def fused(q, k, v, alpha, eta, W1, W2, *, chunk, objective, read, erase) -> tuple[Any, ...]:
    """Shapes as in `mlp_memory`; gates and weights in float32 (float64 for float64).  eq. 89-91"""
    return FUSED(q, k, v, log_gate(alpha), eta, W1, W2, chunk, objective == "l2", read, erase)
