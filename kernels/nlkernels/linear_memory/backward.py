"""The linear memory's fused backward: all chunks at once but for the passing of the states' gradients.

Per chunk (D = decayed causal mask of the read, lam = its row factor, w = e^{g_C - g}, X = erase * decay * dL,
R = write V - s (K S) the right side):

    dE = (D * Q K^T)^T dY + (w K) dS'      dR = (I + L)^-T dE       dL = -dR E^T
    dS = e^{g_C} dS' + Q^T (lam dY) - K^T (s dR)   [+ V^T (write dR) with self-made values]
    dQ = lam (dY S^T) + (D * dY E^T) K     dV = write dR
    dK = w (E dS'^T) + (D^T * E dY^T) Q + (X + X^T) K - s (dR S^T)

dR is linear in dS', which leaves the chain two products and no solve:

    prepare    H = (I + L)^-T (D * Q K^T)^T dY,   G = (I + L)^-T (w K)      all chunks at once
    chain      dR = H + G dS', and dS                                       last chunk first
    rest       the gradients of the inputs                                  all chunks at once

A gate's gradient sums over the pairs of tokens that it lies between, and over no others (gates.py): `blocks.crossing`
of the scores' gradients, which need the scores once more. Score matrices are computed transposed where they are needed
transposed: no `tl.trans` of an accumulator, which Triton 3.4-3.7.0 miscompiles on Hopper.
"""

from __future__ import annotations

import triton
import triton.language as tl

from nlkernels.blocks import (
    crossing,
    decay,
    dot,
    dot_add,
    earlier,
    gates,
    gram,
    later,
    product,
    put,
    solve_rows_t,
    suffix_sum,
    tile,
)
from nlkernels.linear_memory.forward import write_rate


@triton.jit
def linear_memory_backward_prepare(
    q,
    k,
    la,
    er,
    dy,
    hs,
    gs,
    L,
    CHUNK,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    DECAY: tl.constexpr,
    ERASE: tl.constexpr,
    READ: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """One program per (chunk, BV columns, batch x head): the columns of H first (none for "start"), then those of G."""
    n, block, bh = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    i, o = tl.arange(0, C), tl.arange(0, BV)
    r = n * CHUNK + i
    mr = (i < CHUNK) & (r < L)
    q += (bh * L + n * CHUNK) * DK
    k += (bh * L + n * CHUNK) * DK
    g, gp, gC = gates(la + bh * L, r, mr, C, DECAY, ACC)
    first = (DV + BV - 1) // BV * (READ != "start")  # columns of H
    if block < first:
        col = block * BV + o
        dY = tile(dy + bh * L * DV, r[:, None], col[None, :], DV, mr[:, None], (col < DV)[None, :], ACC)
        At = gram(k, q, i, mr, DK, C, R, PREC, ACC)
        if READ == "before":
            At = At * decay(gp[None, :], g[:, None], i[:, None] < i[None, :])
        else:
            At = At * decay(g[None, :], g[:, None], i[:, None] <= i[None, :])
        right = dot(At, dY, PREC)
    else:
        col = (block - first) * BV + o
        right = tl.exp(gC - g)[:, None] * tile(k, i[:, None], col[None, :], DK, mr[:, None], (col < DK)[None, :], ACC)
    if ERASE:
        ep = tl.load(er + bh * L + r, mask=mr, other=0.0).to(ACC)
        Lm = (
            ep[:, None]
            * decay(gp[:, None], g[None, :], i[:, None] > i[None, :])
            * gram(k, k, i, mr, DK, C, R, PREC, ACC)
        )
        right = solve_rows_t(Lm, right, C)
    if block < first:
        put(hs + bh * L * DV + r[:, None] * DV + col[None, :], right, mr[:, None] & (col < DV)[None, :])
    else:
        put(gs + bh * L * DK + r[:, None] * DK + col[None, :], right, mr[:, None] & (col < DK)[None, :])


@triton.jit
def linear_memory_backward_chain(
    q,
    k,
    v,
    la,
    er,
    wr,
    hs,
    gs,
    dy,
    dmT,
    dstates,
    dr,
    dm0,
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
    """One program per (value block, batch x head), last chunk first: dS at every chunk's end, and dR."""
    pv, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, ok, ov = tl.arange(0, C), tl.arange(0, BK), pv * BV + tl.arange(0, BV)
    mk, mv = ok < DK, ov < DV
    q += bh * L * DK
    k += bh * L * DK
    v += bh * L * DX
    gs += bh * L * DK
    hs += bh * L * DV
    dy += bh * L * DV
    dr += bh * L * DV
    la += bh * L
    er += bh * L
    wr += bh * L
    dstates += bh * N * DK * DV
    sm = mk[:, None] & mv[None, :]
    m_at = bh * DK * DV + ov[None, :] * DK + ok[:, None]
    dS = tl.load(dmT + m_at, mask=sm, other=0.0).to(ACC)
    for back in tl.range(0, N, disable_licm=True):
        n = N - 1 - back
        tl.store(dstates + n * DK * DV + ok[:, None] * DV + ov[None, :], dS, mask=sm)
        r = n * CHUNK + i
        mr = (i < CHUNK) & (r < L)
        here, at = mr[:, None] & mv[None, :], r[:, None] * DV + ov[None, :]
        if READ == "start":
            dR = tl.zeros([C, BV], ACC)
        else:
            dR = tl.load(hs + at, mask=here, other=0.0).to(ACC)
        dR = dot_add(tile(gs, r[:, None], ok[None, :], DK, mr[:, None], mk[None, :], ACC), dS, dR, PREC)
        put(dr + at, dR, here)
        h = tl.load(wr + r, mask=mr, other=0.0).to(ACC)
        g, gp, gC = gates(la, r, mr, C, DECAY, ACC)
        dS = tl.exp(gC) * dS
        if ERASE or L2:
            _ep, s = write_rate(er, h, r, mr, gp, ERASE, L2, ACC)
            Kt = tile(k, r[None, :], ok[:, None], DK, mr[None, :], mk[:, None], ACC)
            dS = dot_add(-Kt, s[:, None] * dR, dS, PREC)
        if SELF:
            Vt = tile(v, r[None, :], ok[:, None], DK, mr[None, :], mk[:, None], ACC)
            dS = dot_add(Vt, h[:, None] * dR, dS, PREC)
        dY = tl.load(dy + at, mask=here, other=0.0).to(ACC)
        if READ == "before":
            dY = tl.exp(gp)[:, None] * dY
        elif READ == "after":
            dY = tl.exp(g)[:, None] * dY
        Qt = tile(q, r[None, :], ok[:, None], DK, mr[None, :], mk[:, None], ACC)
        dS = dot_add(Qt, dY, dS, PREC)
    tl.store(dm0 + m_at, dS, mask=sm)


@triton.jit
def linear_memory_backward_rest(
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
    CHUNK,
    BHL,
    DK: tl.constexpr,
    DV: tl.constexpr,
    DX: tl.constexpr,
    BW: tl.constexpr,
    BC: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    DECAY: tl.constexpr,
    ERASE: tl.constexpr,
    L2: tl.constexpr,
    SELF: tl.constexpr,
    READ: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """One program per (chunk, BC columns of dQ and dK, batch x head): every gradient of an input. Sums over the DV
    values are taken R at a time from memory; BW is the tile side that holds all DV. The gates' gradients sum over the
    columns: one slab a column block, no atomics."""
    n, part, bh = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    i, ok, ov = tl.arange(0, C), part * BC + tl.arange(0, BC), tl.arange(0, BW)
    r = n * CHUNK + i
    mr, mk, mv = (i < CHUNK) & (r < L), ok < DK, ov < DV
    here, at = mr[:, None] & mk[None, :], i[:, None] * DK + ok[None, :]
    slab = part.to(tl.int64) * BHL + bh * L
    first = bh * L + n * CHUNK
    q += first * DK
    k += first * DK
    dq += first * DK
    dk += first * DK
    v += first * DX
    dv += first * DX
    e += first * DV
    dr += first * DV
    dy += first * DV
    st = states + (bh * N + n) * DK * DV
    dst = dstates + (bh * N + n) * DK * DV
    h = tl.load(wr + bh * L + r, mask=mr, other=0.0).to(ACC)
    g, gp, gC = gates(la + bh * L, r, mr, C, DECAY, ACC)
    ep = tl.load(er + bh * L + r, mask=mr & ERASE, other=0.0).to(ACC)
    s = ep * tl.exp(gp)
    if L2:
        s += h
    dlog = tl.zeros([C], ACC)
    ds = tl.zeros([C], ACC)
    dL = tl.zeros([C], ACC)
    dh = tl.zeros([C], ACC)
    mine = part * BC  # the first of this program's columns, and how many they are: scores are summed over them
    many = tl.minimum(DK - mine, BC)
    if DECAY:
        for b in tl.range(part * BC, part * BC + BC, R, disable_licm=True):
            p = b + tl.arange(0, R)
            sm, at_s = (p < tl.minimum(DK, part * BC + BC))[:, None] & mv[None, :], p[:, None] * DV + ov[None, :]
            both = tl.load(st + at_s, mask=sm, other=0.0).to(ACC) * tl.load(dst + at_s, mask=sm, other=0.0).to(ACC)
            dlog += tl.exp(gC) * tl.sum(tl.sum(both, 1), 0)
    if not SELF and part == 0:
        row_v, at_v = mr[:, None] & mv[None, :], i[:, None] * DV + ov[None, :]
        dR = tl.load(dr + at_v, mask=row_v, other=0.0).to(ACC)
        dh += tl.sum(dR * tl.load(v + at_v, mask=row_v, other=0.0).to(ACC), 1)
        put(dv + at_v, h[:, None] * dR, row_v)
    # S' = e^{g_C} S + (w K)^T E
    dK = product(tl.zeros([C, BC], ACC), e, DV, 1, i, mr, dst, 1, DV, ok, mk, DV, R, PREC, ACC)
    dK = tl.exp(gC - g)[:, None] * dK
    if DECAY:
        dlog += earlier(tl.sum(dK * tl.load(k + at, mask=here, other=0.0).to(ACC), 1), C)
    tl.debug_barrier()  # here and below: orders nothing, but keeps the compiler from mixing the sections
    # Y
    dQ = product(tl.zeros([C, BC], ACC), dy, DV, 1, i, mr, st, 1, DV, ok, mk, DV, R, PREC, ACC)
    if READ != "start":
        if READ == "before":
            lam = gp
            D = decay(gp[:, None], g[None, :], i[:, None] > i[None, :])
            Dt = decay(gp[None, :], g[:, None], i[:, None] < i[None, :])
        else:
            lam = g
            D = decay(g[:, None], g[None, :], i[:, None] >= i[None, :])
            Dt = decay(g[None, :], g[:, None], i[:, None] <= i[None, :])
        dQ = tl.exp(lam)[:, None] * dQ
        dlam = tl.sum(dQ * tl.load(q + at, mask=here, other=0.0).to(ACC), 1)
        A = D * gram(dy, e, i, mr, DV, C, R, PREC, ACC)
        dQ = dot_add(A, tl.load(k + at, mask=here, other=0.0).to(ACC), dQ, PREC)
        if DECAY:
            A = product(tl.zeros([C, C], ACC), q + mine, DK, 1, i, mr, k + mine, 1, DK, i, mr, many, R, PREC, ACC) * A
            dlog += crossing(A, i, READ == "before", C)
            if READ == "before":
                dlog += later(dlam, C)
            else:
                dlog += suffix_sum(dlam, C)
        At = Dt * gram(e, dy, i, mr, DV, C, R, PREC, ACC)
        dK = dot_add(At, tl.load(q + at, mask=here, other=0.0).to(ACC), dK, PREC)
    put(dq + at, dQ, here)
    tl.debug_barrier()
    # (I + L) E = write V - s K S
    if ERASE or L2 or SELF:
        G = product(tl.zeros([C, BC], ACC), dr, DV, 1, i, mr, st, 1, DV, ok, mk, DV, R, PREC, ACC)  # dR S^T
        if SELF:
            dh += tl.sum(G * tl.load(v + at, mask=here, other=0.0).to(ACC), 1)
            put(dv + at, h[:, None] * G, here)
    if ERASE or L2:
        ds -= tl.sum(G * tl.load(k + at, mask=here, other=0.0).to(ACC), 1)
        dK -= s[:, None] * G
    if ERASE:
        tl.debug_barrier()
        X = -decay(gp[:, None], g[None, :], i[:, None] > i[None, :]) * gram(dr, e, i, mr, DV, C, R, PREC, ACC)
        XK = dot(X, tl.load(k + at, mask=here, other=0.0).to(ACC), PREC)
        dL += tl.sum(XK * tl.load(k + at, mask=here, other=0.0).to(ACC), 1)
        dK += ep[:, None] * XK
        if DECAY:
            X = product(tl.zeros([C, C], ACC), k + mine, DK, 1, i, mr, k + mine, 1, DK, i, mr, many, R, PREC, ACC) * X
            dlog += crossing(ep[:, None] * X, i, True, C) + later(ep * tl.exp(gp) * ds, C)
        tl.debug_barrier()
        Xt = -ep[None, :] * decay(gp[None, :], g[:, None], i[:, None] < i[None, :])
        Xt = Xt * gram(e, dr, i, mr, DV, C, R, PREC, ACC)
        dK = dot_add(Xt, tl.load(k + at, mask=here, other=0.0).to(ACC), dK, PREC)
    put(dk + at, dK, here)
    if L2:
        dh += ds
    if ERASE:
        tl.store(der + slab + r, ds * tl.exp(gp) + dL, mask=mr)
    tl.store(dwr + slab + r, dh, mask=mr)
    if DECAY:
        tl.store(dla + slab + r, dlog, mask=mr)
