"""The linear memory's fused forward: all chunks at once but for the passing of the state (the WY form).

The rows that a chunk writes are linear in its start state, E = U - W S, so that

    prepare    U = (I + L)^-1 write V,   W = (I + L)^-1 (s K [- write V with self-made values])     all chunks at once
    chain      E = U - W S,   S <- e^{g_C} S + (w K)^T E                            two products a chunk, no solve
    read       Y = lam Q S + (D * Q K^T) E                                          all chunks at once

The solve works on any columns of its right side, so a program takes BV of them. The chunks' start states S and the rows
E are all that the backward needs. Names and algebra are those of chunked.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from nlkernels.blocks import decay, dot, dot_add, gates, gram, product, put, solve_rows, tile


@triton.jit
def write_rate(er, h, r, mr, gp, ERASE: tl.constexpr, L2: tl.constexpr, ACC: tl.constexpr):
    """erase, and s = erase e^{g'} [+ write]."""
    ep = tl.load(er + r, mask=mr & ERASE, other=0.0).to(ACC)
    s = ep * tl.exp(gp)
    if L2:
        s += h
    return ep, s


@triton.jit
def linear_memory_prepare(
    k,
    v,
    la,
    er,
    wr,
    us,
    ws,
    L,
    CHUNK,
    DK: tl.constexpr,
    DV: tl.constexpr,
    DX: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    DECAY: tl.constexpr,
    ERASE: tl.constexpr,
    L2: tl.constexpr,
    SELF: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """One program per (chunk, BV columns, batch x head): the columns of U first (none with SELF), then those of W."""
    n, block, bh = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    i, o = tl.arange(0, C), tl.arange(0, BV)
    r = n * CHUNK + i
    mr = (i < CHUNK) & (r < L)
    k += bh * L * DK
    v += bh * L * DX
    h = tl.load(wr + bh * L + r, mask=mr, other=0.0).to(ACC)
    g, gp, _gC = gates(la + bh * L, r, mr, C, DECAY, ACC)
    ep, s = write_rate(er + bh * L, h, r, mr, gp, ERASE, L2, ACC)
    first = (DV + BV - 1) // BV * (not SELF)  # columns of U
    if block < first:
        col = block * BV + o
        right = h[:, None] * tile(v, r[:, None], col[None, :], DX, mr[:, None], (col < DV)[None, :], ACC)
    else:
        col = (block - first) * BV + o
        right = s[:, None] * tile(k, r[:, None], col[None, :], DK, mr[:, None], (col < DK)[None, :], ACC)
        if SELF:
            right -= h[:, None] * tile(v, r[:, None], col[None, :], DK, mr[:, None], (col < DK)[None, :], ACC)
    if ERASE:
        start = k + n * CHUNK * DK
        Lm = (
            ep[:, None]
            * decay(gp[:, None], g[None, :], i[:, None] > i[None, :])
            * gram(start, start, i, mr, DK, C, R, PREC, ACC)
        )
        right = solve_rows(Lm, right, C)
    if block < first:
        put(us + bh * L * DV + r[:, None] * DV + col[None, :], right, mr[:, None] & (col < DV)[None, :])
    else:
        put(ws + bh * L * DK + r[:, None] * DK + col[None, :], right, mr[:, None] & (col < DK)[None, :])


@triton.jit
def linear_memory_chain(
    k,
    la,
    us,
    ws,
    m0,
    states,
    e,
    mT,
    L,
    N,
    CHUNK,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    DECAY: tl.constexpr,
    ERASE: tl.constexpr,
    L2: tl.constexpr,
    SELF: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """One program per (value block, batch x head): the states, and the rows E."""
    pv, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, ok, ov = tl.arange(0, C), tl.arange(0, BK), pv * BV + tl.arange(0, BV)
    mk, mv = ok < DK, ov < DV
    k += bh * L * DK
    ws += bh * L * DK
    us += bh * L * DV
    e += bh * L * DV
    la += bh * L
    states += bh * N * DK * DV
    sm = mk[:, None] & mv[None, :]
    m_at = bh * DK * DV + ov[None, :] * DK + ok[:, None]
    S = tl.load(m0 + m_at, mask=sm, other=0.0).to(ACC)
    for n in tl.range(0, N, disable_licm=True):
        tl.store(states + n * DK * DV + ok[:, None] * DV + ov[None, :], S, mask=sm)
        r = n * CHUNK + i
        mr = (i < CHUNK) & (r < L)
        here = mr[:, None] & mv[None, :]
        if SELF:
            E = tl.zeros([C, BV], ACC)
        else:
            E = tile(us, r[:, None], ov[None, :], DV, mr[:, None], mv[None, :], ACC)
        if ERASE or L2 or SELF:
            E -= dot(tile(ws, r[:, None], ok[None, :], DK, mr[:, None], mk[None, :], ACC), S, PREC)
        put(e + r[:, None] * DV + ov[None, :], E, here)
        g, _gp, gC = gates(la, r, mr, C, DECAY, ACC)
        Kt = tile(k, r[None, :], ok[:, None], DK, mr[None, :], mk[:, None], ACC)
        S = dot_add(Kt * tl.exp(gC - g)[None, :], E, tl.exp(gC) * S, PREC)
    tl.store(mT + m_at, S, mask=sm)


@triton.jit
def linear_memory_read(
    q,
    k,
    la,
    states,
    e,
    y,
    L,
    N,
    CHUNK,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    DECAY: tl.constexpr,
    READ: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """One program per (chunk, value block, batch x head): what is read."""
    n, pv, bh = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    i, ov = tl.arange(0, C), pv * BV + tl.arange(0, BV)
    r = n * CHUNK + i
    mr, mv = (i < CHUNK) & (r < L), ov < DV
    q += (bh * L + n * CHUNK) * DK
    k += (bh * L + n * CHUNK) * DK
    Y = product(
        tl.zeros([C, BV], ACC), q, DK, 1, i, mr, states + (bh * N + n) * DK * DV, DV, 1, ov, mv, DK, R, PREC, ACC
    )
    if READ != "start":
        g, gp, _gC = gates(la + bh * L, r, mr, C, DECAY, ACC)
        if READ == "before":
            A = decay(gp[:, None], g[None, :], i[:, None] > i[None, :]) * gram(q, k, i, mr, DK, C, R, PREC, ACC)
            Y = tl.exp(gp)[:, None] * Y
        else:
            A = decay(g[:, None], g[None, :], i[:, None] >= i[None, :]) * gram(q, k, i, mr, DK, C, R, PREC, ACC)
            Y = tl.exp(g)[:, None] * Y
        Y = dot_add(A, tile(e + bh * L * DV, r[:, None], ov[None, :], DV, mr[:, None], mv[None, :], ACC), Y, PREC)
    put(y + bh * L * DV + r[:, None] * DV + ov[None, :], Y, mr[:, None] & mv[None, :])
