"""The linear memory's fused forward: one program per (value block, batch x head), the memory in registers.

It stores each chunk's start state S and written rows E: all that the backward needs. The algebra is chunked.py's.
"""

from __future__ import annotations

import triton
import triton.language as tl

from nlkernels.blocks import decay, dot, gates, solve_rows, tile


@triton.jit
def linear_memory_forward(
    q,
    k,
    v,
    la,
    er,
    wr,
    m0,
    y,
    states,
    e,
    mT,
    L,
    N,
    CHUNK,
    DK: tl.constexpr,
    DV: tl.constexpr,
    DX: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    DECAY: tl.constexpr,
    ERASE: tl.constexpr,
    L2: tl.constexpr,
    SELF: tl.constexpr,
    READ: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """DX: width of v (DK with self-made values, else DV). C: tile rows, the power of two that holds CHUNK tokens."""
    pv, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, ok, ov = tl.arange(0, C), tl.arange(0, BK), pv * BV + tl.arange(0, BV)
    mk, mv = ok < DK, ov < DV
    q += bh * L * DK
    k += bh * L * DK
    v += bh * L * DX
    y += bh * L * DV
    e += bh * L * DV
    la += bh * L
    er += bh * L
    wr += bh * L
    states += bh * N * DK * DV
    sm = mk[:, None] & mv[None, :]
    m_at = bh * DK * DV + ov[None, :] * DK + ok[:, None]  # M is (d_v, d_k); S = M^T
    S = tl.load(m0 + m_at, mask=sm, other=0.0).to(ACC)
    for n in tl.range(0, N, disable_licm=True):
        tl.store(states + n * DK * DV + ok[:, None] * DV + ov[None, :], S, mask=sm)
        r = n * CHUNK + i
        mr = (i < CHUNK) & (r < L)
        K = tile(k, r[:, None], ok[None, :], DK, mr[:, None], mk[None, :], ACC)
        h = tl.load(wr + r, mask=mr, other=0.0).to(ACC)
        g, gp, gC = gates(la, r, mr, C, DECAY, ACC)
        # the rows that are written: (I + L) E = write V - s K S
        if SELF:
            E = h[:, None] * dot(tile(v, r[:, None], ok[None, :], DK, mr[:, None], mk[None, :], ACC), S, PREC)
        else:
            E = h[:, None] * tile(v, r[:, None], ov[None, :], DV, mr[:, None], mv[None, :], ACC)
        if ERASE:
            ep = tl.load(er + r, mask=mr, other=0.0).to(ACC)
            s = ep * tl.exp(gp)
            if L2:
                s += h
            E -= s[:, None] * dot(K, S, PREC)
            Kt = tile(k, r[None, :], ok[:, None], DK, mr[None, :], mk[:, None], ACC)
            Lm = ep[:, None] * decay(gp[:, None], g[None, :], i[:, None] > i[None, :]) * dot(K, Kt, PREC)
            E = solve_rows(Lm, E, C)
        elif L2:
            E -= h[:, None] * dot(K, S, PREC)
        tl.store(e + r[:, None] * DV + ov[None, :], E.to(e.dtype.element_ty), mask=mr[:, None] & mv[None, :])
        tl.debug_barrier()  # orders nothing, but keeps the compiler from loading what is read before the solve
        # what is read
        Q = tile(q, r[:, None], ok[None, :], DK, mr[:, None], mk[None, :], ACC)
        Y = dot(Q, S, PREC)
        Kt = tile(k, r[None, :], ok[:, None], DK, mr[None, :], mk[:, None], ACC)  # again: cheaper than keeping it
        if READ == "before":
            D = decay(gp[:, None], g[None, :], i[:, None] > i[None, :])
            Y = tl.exp(gp)[:, None] * Y + dot(D * dot(Q, Kt, PREC), E, PREC)
        elif READ == "after":
            D = decay(g[:, None], g[None, :], i[:, None] >= i[None, :])
            Y = tl.exp(g)[:, None] * Y + dot(D * dot(Q, Kt, PREC), E, PREC)
        tl.store(y + r[:, None] * DV + ov[None, :], Y.to(y.dtype.element_ty), mask=mr[:, None] & mv[None, :])
        S = tl.exp(gC) * S + dot(Kt * tl.exp(gC - g)[None, :], E, PREC)
    tl.store(mT + m_at, S, mask=sm)
