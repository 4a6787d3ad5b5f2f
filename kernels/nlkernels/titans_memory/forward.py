"""Titans' linear memory in one fused forward kernel: memory and momentum stay in registers.

One program per (value block, batch x head) walks the chunks; the algebra is that of chunked.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from nlkernels.blocks import decay, dot, gram, mask_dot, tile


@triton.jit
def last_row(G, i, C: tl.constexpr):
    return tl.sum(tl.where(i[:, None] == C - 1, G, 0.0), 0)


@triton.jit
def titans_memory_forward(
    q,
    k,
    v,
    la,
    lu,
    wr,
    m0,
    s0,
    y,
    us,
    states,
    mT,
    sT,
    L,
    N,
    CHUNK,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    READ: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """la, lu: log alpha, log mu.

    states (N, 2, DK, DV): memory and momentum at every chunk's start, transposed; us: the rows that are written."""
    pv, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, ok, ov = tl.arange(0, C), tl.arange(0, BK), pv * BV + tl.arange(0, BV)
    mk, mv = ok < DK, ov < DV
    q += bh * L * DK
    k += bh * L * DK
    v += bh * L * DV
    y += bh * L * DV
    la += bh * L
    lu += bh * L
    wr += bh * L
    at = bh * DK * DV + ov[None, :] * DK + ok[:, None]
    sm = mk[:, None] & mv[None, :]
    M = tl.load(m0 + at, mask=sm, other=0.0).to(ACC)  # transposed: (d_k, d_v)
    S = tl.load(s0 + at, mask=sm, other=0.0).to(ACC)
    for n in tl.range(0, N, disable_licm=True):
        st = states + (bh * N + n) * 2 * DK * DV + ok[:, None] * DV + ov[None, :]
        tl.store(st, M, mask=sm)
        tl.store(st + DK * DV, S, mask=sm)
        r = n * CHUNK + i
        mr = (i < CHUNK) & (r < L)
        lb = tl.cumsum(tl.load(la + r, mask=mr, other=0.0).to(ACC), 0)
        lm = tl.cumsum(tl.load(lu + r, mask=mr, other=0.0).to(ACC), 0)
        h = tl.load(wr + r, mask=mr, other=0.0).to(ACC)
        upto = i[:, None] >= i[None, :]
        B = decay(lb[:, None], lb[None, :], upto & mr[None, :])  # a token that is not there adds no momentum
        W = decay(lm[:, None], lm[None, :], upto)
        G = mask_dot(B, W, PREC)
        f = tl.sum(B * tl.exp(lm)[None, :], 1)
        tl.debug_barrier()  # here and below: orders nothing, but keeps the compiler from mixing sections
        K = tile(k, r[:, None], ok[None, :], DK, mr[:, None], mk[None, :], ACC)
        U = h[:, None] * (tile(v, r[:, None], ov[None, :], DV, mr[:, None], mv[None, :], ACC) - dot(K, M, PREC))
        tl.store(
            us + bh * L * DV + r[:, None] * DV + ov[None, :], U.to(us.dtype.element_ty), mask=mr[:, None] & mv[None, :]
        )
        tl.debug_barrier()
        Q = tile(q, r[:, None], ok[None, :], DK, mr[:, None], mk[None, :], ACC)
        Y = dot(Q, M, PREC)
        if READ != "start":
            scores = gram(q + n * CHUNK * DK, k + n * CHUNK * DK, i, mr, DK, C, R, PREC, ACC)
        if READ == "after":
            Y = tl.exp(lb)[:, None] * Y + f[:, None] * dot(Q, S, PREC) + dot(G * scores, U, PREC)
        elif READ == "before":
            # M_{t-1} = (M_t - S_t) / alpha_t divides by alpha; instead the masks of the token before are made anew
            before = tl.cumsum(tl.load(la + r - 1, mask=mr & (i > 0), other=0.0).to(ACC), 0)
            past = i[:, None] > i[None, :]
            Bp = decay(before[:, None], lb[None, :], past & mr[None, :])
            fp = tl.sum(Bp * tl.exp(lm)[None, :], 1)
            Y = tl.exp(before)[:, None] * Y + fp[:, None] * dot(Q, S, PREC)
            Y += dot(mask_dot(Bp, W, PREC) * scores, U, PREC)
        tl.store(y + r[:, None] * DV + ov[None, :], Y.to(y.dtype.element_ty), mask=mr[:, None] & mv[None, :])
        tl.debug_barrier()
        end = i == C - 1
        Kt = tile(k, r[None, :], ok[:, None], DK, mr[None, :], mk[:, None], ACC)
        M = (
            tl.exp(tl.sum(tl.where(end, lb, 0.0), 0)) * M
            + tl.sum(tl.where(end, f, 0.0), 0) * S
            + dot(Kt * last_row(G, i, C)[None, :], U, PREC)
        )
        S = tl.exp(tl.sum(tl.where(end, lm, 0.0), 0)) * S + dot(Kt * last_row(W, i, C)[None, :], U, PREC)
    tl.store(mT + at, M, mask=sm)
    tl.store(sT + at, S, mask=sm)
