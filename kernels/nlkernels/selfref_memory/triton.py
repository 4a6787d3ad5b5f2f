"""Self-modifying Titans in fused kernels: one forward; a backward in three parts.

    forward           one program per (batch, head) walks the chunks and updates the five memories
    backward_prepare  the forward of every chunk again, all chunks at once, from the stored chunk-start memories
    backward_chain    one program per (batch, head), last chunk first: the memories' gradients, and those of K, V, gates
    backward_rest     dX and dQ, all chunks at once

The algebra is that of chunked.py: one solve for Z and one transition Phi a chunk, shared by all memories. The kernels
carry M and not S = M^T, so that every product finds its left operand as it is: K^T comes as M_k X^T (X loaded
transposed) and Phi as (w K^T) Z. A transposed register tile is only ever a right operand, which the compiler takes
through shared memory.

Registers are the limit: a chunk and five memories are some twenty tiles of 32 registers a thread, and eight fit. So the
matrices (float32) and their gradients live in global memory, which the cache holds; products read copies in the tokens'
dtype, to which they would round anyway; each phase between two barriers loads what it needs and forgets it; and the
chain has no solve. In one kernel that kept everything the backward spilled 29 KB a thread on sm_80 (RESULTS.md has what
is left).

Backward of a chunk, given dM' of every memory (primes: at the chunk's end):

    Y = Q S_mem:                 dQ = dY M_mem,   dM_mem = dY^T Q + ...
    S' = Phi S (each):           dPhi = sum dM'^T M,   dM = dM' Phi
    Phi = e^{g_C} I + (w K)^T Z: dZ = (w K) dPhi,   dK = w Z dPhi^T
    (I + L) Z = eta V - s K:     dR = (I + L)^-T dZ = G dPhi,   dL = -dR Z^T,   dV = eta dR,   dK -= s dR + ...
    K = unit(X S_k), ...:        dK~ = (dK - K <dK, K>) / |K~|,   dM_k += dK~^T X,   dX = dK~ M_k + dV~ M_v + ...
"""
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nlkernels.blocks import (
    block,
    decay,
    dot,
    dot_add,
    dot_t,
    operand,
    settings,
    solve_rows,
    solve_rows_t,
    suffix_sum,
    tile,
)
from nlkernels.compile_check import TORCH, Case
from nlkernels.interpret import launch


@triton.jit
def log_sigmoid(z):
    return tl.minimum(z, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(z)))


@triton.jit
def matrix(p, rows, cols, D: tl.constexpr, ACC: tl.constexpr):
    """Load a (D, D) matrix; rows along the last axis gives it transposed."""
    return tl.load(p + rows * D + cols, mask=(rows < D) & (cols < D), other=0.0).to(ACC)


@triton.jit
def indices(n, L, CHUNK, NTH: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, C: tl.constexpr):
    """Token and dimension indices of chunk n: i, r, live, row, col, ok. Each phase of a kernel takes its own (NTH).
    The 0 that is added is one that the compiler cannot know: else it computes every address before the loop and keeps
    them all, in registers that are not there."""
    zero = (n >> (30 - NTH)) * 16
    i, o = tl.arange(0, C) + zero, tl.arange(0, BD) + zero
    r = n * CHUNK + i
    return i, r, (i < CHUNK) & (r < L), o[:, None], o[None, :], o < D


@triton.jit
def generate(X, st, row, col, me, ma, be, ba, live, D: tl.constexpr, ETA_MAX: tl.constexpr, UNIT: tl.constexpr,
             PREC: tl.constexpr, ACC: tl.constexpr):
    """What the memories (key and value matrix at st) make of a chunk: K, V, the inverse norms, eta, log alpha and the
    gates' slopes."""
    K = dot(X, matrix(st, col, row, D, ACC), PREC)
    rk = tl.rsqrt(tl.sum(K * K, 1) + 1e-12)
    V = dot(X, matrix(st + D * D, col, row, D, ACC), PREC)
    rv = tl.rsqrt(tl.sum(V * V, 1) + 1e-12)
    if UNIT:
        V = V * rv[:, None]
    sig = tl.sigmoid(tl.sum(X * me[None, :], 1) + be)
    z = tl.sum(X * ma[None, :], 1) + ba
    eta = tl.where(live, ETA_MAX * sig, 0.0)
    a = tl.where(live, log_sigmoid(z), 0.0)
    return K * rk[:, None], V, rk, rv, eta, a, eta * (1.0 - sig), tl.where(live, tl.sigmoid(-z), 0.0)


@triton.jit
def transition(K, V, rk, eta, g, gp, gC, x, st, n, L, CHUNK, L2: tl.constexpr, D: tl.constexpr, BD: tl.constexpr,
               C: tl.constexpr, PREC: tl.constexpr, ACC: tl.constexpr):
    """(L, Z, Phi) of a chunk. K^T is made anew after the solve, from the key matrix at st: kept, it would not fit."""
    i = tl.arange(0, C)
    s = eta * tl.exp(gp)
    if L2:
        s += eta
    Lm = eta[:, None] * decay(gp[:, None], g[None, :], i[:, None] > i[None, :]) * dot_t(K, K, PREC)
    Z = solve_rows(Lm, eta[:, None] * V - s[:, None] * K, C)
    tl.debug_barrier()
    i, r, live, row, col, ok = indices(n, L, CHUNK, 8, D, BD, C)
    Xt = tile(x, r[None, :], row, D, live[None, :], ok[:, None], ACC)
    Kt = dot(matrix(st, row, col, D, ACC), Xt, PREC) * (rk * tl.exp(gC - g))[None, :]
    Phi = dot_add(Kt, Z, tl.where(row == col, tl.exp(gC), 0.0).to(ACC), PREC)
    return Lm, Z, Phi


@triton.jit
def selfref_memory_forward(x, q, me, ma, be, ba, y, ms, meT, maT, states, vectors, L, N, CHUNK, D: tl.constexpr,
                           BD: tl.constexpr, C: tl.constexpr, L2: tl.constexpr, ETA_MAX: tl.constexpr,
                           UNIT: tl.constexpr, PREC: tl.constexpr, ACC: tl.constexpr):
    """ms (3, D, D): the matrices, updated in place; states: copies of every chunk's start, in the tokens' dtype."""
    bh = tl.program_id(0).to(tl.int64)
    o = tl.arange(0, BD)
    x += bh * L * D
    q += bh * L * D
    y += bh * L * D
    ms += bh * 3 * D * D
    we = tl.load(me + bh * D + o, mask=o < D, other=0.0).to(ACC)
    wa = tl.load(ma + bh * D + o, mask=o < D, other=0.0).to(ACC)
    b_eta = tl.load(be + bh).to(ACC)
    b_alpha = tl.load(ba + bh).to(ACC)
    for n in range(0, N):
        st = states + (bh * N + n) * 3 * D * D
        tl.store(vectors + (bh * N + n) * 2 * D + o, we, mask=o < D)
        tl.store(vectors + (bh * N + n) * 2 * D + D + o, wa, mask=o < D)
        _i, r, live, row, col, ok = indices(n, L, CHUNK, 0, D, BD, C)
        for m in range(0, 3):
            M = matrix(ms + m * D * D, row, col, D, ACC)
            tl.store(st + m * D * D + row * D + col, M.to(st.dtype.element_ty), mask=ok[:, None] & ok[None, :])
        tl.debug_barrier()                                               # the copies are there
        _i, r, live, row, col, ok = indices(n, L, CHUNK, 1, D, BD, C)
        Q = tile(q, r[:, None], col, D, live[:, None], ok[None, :], ACC)
        Y = dot(Q, matrix(st + 2 * D * D, col, row, D, ACC), PREC)
        tl.store(y + r[:, None] * D + col, Y.to(y.dtype.element_ty), mask=live[:, None] & ok[None, :])
        X = tile(x, r[:, None], col, D, live[:, None], ok[None, :], ACC)
        K, V, rk, _rv, eta, a, _e, _a = generate(X, st, row, col, we, wa, b_eta, b_alpha, live, D, ETA_MAX, UNIT, PREC,
                                                 ACC)
        g = tl.cumsum(a, 0)
        _L, _Z, Phi = transition(K, V, rk, eta, g, g - a, tl.sum(a, 0), x, st, n, L, CHUNK, L2, D, BD, C, PREC, ACC)
        we = tl.sum(Phi * we[None, :], 1)
        wa = tl.sum(Phi * wa[None, :], 1)
        _i, r, live, row, col, ok = indices(n, L, CHUNK, 2, D, BD, C)
        for m in range(0, 3):
            M = dot_t(matrix(ms + m * D * D, row, col, D, ACC), Phi, PREC)
            tl.debug_barrier()                                           # the old matrix has been read
            tl.store(ms + m * D * D + row * D + col, M, mask=ok[:, None] & ok[None, :])
        tl.debug_barrier()
    tl.store(meT + bh * D + o, we, mask=o < D)
    tl.store(maT + bh * D + o, wa, mask=o < D)


@triton.jit
def selfref_memory_backward_prepare(x, be, ba, states, vectors, keys, values, zs, phis, gs, gates, L, N, CHUNK,
                                    D: tl.constexpr, BD: tl.constexpr, C: tl.constexpr, L2: tl.constexpr,
                                    ETA_MAX: tl.constexpr, UNIT: tl.constexpr, PREC: tl.constexpr, ACC: tl.constexpr):
    """The forward of every chunk again, all chunks at once: K, V, Z, Phi, six rows of gates (C padded tokens), and
    G = (I + L)^-T (w K), so that the chain, where it would be waited for, has no solve: dR = G dPhi."""
    n, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    o = tl.arange(0, BD)
    i, r, live, row, col, ok = indices(n, L, CHUNK, 0, D, BD, C)
    x += bh * L * D
    st = states + (bh * N + n) * 3 * D * D
    we = tl.load(vectors + (bh * N + n) * 2 * D + o, mask=ok, other=0.0).to(ACC)
    wa = tl.load(vectors + (bh * N + n) * 2 * D + D + o, mask=ok, other=0.0).to(ACC)
    X = tile(x, r[:, None], col, D, live[:, None], ok[None, :], ACC)
    K, V, rk, rv, eta, a, slope_e, slope_a = generate(
        X, st, row, col, we, wa, tl.load(be + bh).to(ACC), tl.load(ba + bh).to(ACC), live, D, ETA_MAX, UNIT, PREC,
        ACC)
    here = live[:, None] & ok[None, :]
    at = bh * L * D + r[:, None] * D + col
    tl.store(keys + at, K.to(keys.dtype.element_ty), mask=here)
    tl.store(values + at, V.to(values.dtype.element_ty), mask=here)
    to = gates + (bh * N + n) * 6 * C + i
    tl.store(to, eta)
    tl.store(to + C, a)
    tl.store(to + 2 * C, slope_e)
    tl.store(to + 3 * C, slope_a)
    tl.store(to + 4 * C, rk)
    tl.store(to + 5 * C, rv)
    g = tl.cumsum(a, 0)
    Lm, Z, Phi = transition(K, V, rk, eta, g, g - a, tl.sum(a, 0), x, st, n, L, CHUNK, L2, D, BD, C, PREC, ACC)
    i, r, live, row, col, ok = indices(n, L, CHUNK, 1, D, BD, C)
    tl.store(zs + bh * L * D + r[:, None] * D + col, Z.to(zs.dtype.element_ty), mask=live[:, None] & ok[None, :])
    tl.store(phis + (bh * N + n) * D * D + row * D + col, Phi.to(phis.dtype.element_ty), mask=ok[:, None] & ok[None, :])
    tl.debug_barrier()
    i, r, live, row, col, ok = indices(n, L, CHUNK, 2, D, BD, C)
    K = tile(keys + bh * L * D, r[:, None], col, D, live[:, None], ok[None, :], ACC)
    G = solve_rows_t(Lm, tl.exp(tl.sum(a, 0) - g)[:, None] * K, C)
    tl.store(gs + bh * L * D + r[:, None] * D + col, G.to(gs.dtype.element_ty), mask=live[:, None] & ok[None, :])


@triton.jit
def selfref_memory_backward_chain(x, q, states, vectors, keys, values, zs, phis, gs, gates, dy, dmeT, dmaT, dks, dvs,
                                  dzs, dms, dme, dma, L, N, CHUNK, D: tl.constexpr, BD: tl.constexpr, C: tl.constexpr,
                                  L2: tl.constexpr, ETA_MAX: tl.constexpr, UNIT: tl.constexpr, PREC: tl.constexpr,
                                  ACC: tl.constexpr):
    """One program per (batch, head), last chunk first. dms (3, D, D): the matrices' gradients, in place."""
    bh = tl.program_id(0).to(tl.int64)
    o = tl.arange(0, BD)
    x += bh * L * D
    q += bh * L * D
    dy += bh * L * D
    keys += bh * L * D
    values += bh * L * D
    zs += bh * L * D
    gs += bh * L * D
    dks += bh * L * D
    dvs += bh * L * D
    dms += bh * 3 * D * D
    dwe = tl.load(dmeT + bh * D + o, mask=o < D, other=0.0).to(ACC)
    dwa = tl.load(dmaT + bh * D + o, mask=o < D, other=0.0).to(ACC)
    for back in range(0, N):
        n = N - 1 - back
        st = states + (bh * N + n) * 3 * D * D
        phi = phis + (bh * N + n) * D * D
        i, r, live, row, col, ok = indices(n, L, CHUNK, 0, D, BD, C)
        gate = gates + (bh * N + n) * 6 * C + i
        # S' = Phi S for all five: dPhi = sum dM'^T M, dM = dM' Phi
        we = tl.load(vectors + (bh * N + n) * 2 * D + o, mask=o < D, other=0.0).to(ACC)
        wa = tl.load(vectors + (bh * N + n) * 2 * D + D + o, mask=o < D, other=0.0).to(ACC)
        dPhi = dwe[:, None] * we[None, :] + dwa[:, None] * wa[None, :]
        for m in range(0, 3):
            to = dms + m * D * D
            dPhi = dot_add(matrix(to, col, row, D, ACC), matrix(st + m * D * D, row, col, D, ACC), dPhi, PREC)
            dM = dot(matrix(to, row, col, D, ACC), matrix(phi, row, col, D, ACC), PREC)
            tl.debug_barrier()                                           # the old gradient has been read
            tl.store(to + row * D + col, dM, mask=ok[:, None] & ok[None, :])
        Phi = matrix(phi, row, col, D, ACC)
        dwe = tl.sum(Phi * dwe[:, None], 0)
        dwa = tl.sum(Phi * dwa[:, None], 0)
        tl.debug_barrier()
        i, r, live, row, col, ok = indices(n, L, CHUNK, 1, D, BD, C)
        # Y = Q S_mem
        add_transposed(dms + 2 * D * D, q, r, dy, live, row, col, ok, D, PREC, ACC)
        i, r, live, row, col, ok = indices(n, L, CHUNK, 2, D, BD, C)
        # Phi = e^{g_C} I + (w K)^T Z
        a = tl.load(gate + C).to(ACC)
        g = tl.cumsum(a, 0)
        gC = tl.sum(a, 0)
        w = tl.exp(gC - g)
        dK = w[:, None] * dot_t(tile(zs, r[:, None], col, D, live[:, None], ok[None, :], ACC), dPhi, PREC)
        K = tile(keys, r[:, None], col, D, live[:, None], ok[None, :], ACC)
        dw = tl.sum(dK * K, 1)
        dgC = tl.exp(gC) * tl.sum(tl.sum(tl.where(row == col, dPhi, 0.0), 1), 0) + tl.sum(dw, 0)
        dg = tl.where(i == C - 1, dgC, 0.0) - dw
        tl.store(dks + r[:, None] * D + col, dK, mask=live[:, None] & ok[None, :])              # so far
        # (I + L) Z = eta V - s K
        dR = dot(tile(gs, r[:, None], col, D, live[:, None], ok[None, :], ACC), dPhi, PREC)
        tl.debug_barrier()
        i, r, live, row, col, ok = indices(n, L, CHUNK, 3, D, BD, C)
        eta = tl.load(gate).to(ACC)
        gp = g - a
        K = tile(keys, r[:, None], col, D, live[:, None], ok[None, :], ACC)
        ds = -tl.sum(dR * K, 1)
        V = tile(values, r[:, None], col, D, live[:, None], ok[None, :], ACC)
        deta = tl.sum(dR * V, 1) + ds * tl.exp(gp)
        s = eta * tl.exp(gp)
        if L2:
            deta += ds
            s += eta
        dgp = ds * eta * tl.exp(gp)
        # V = unit(X S_v)
        dV = eta[:, None] * dR
        if UNIT:
            dV = tl.load(gate + 5 * C).to(ACC)[:, None] * (dV - V * tl.sum(dV * V, 1)[:, None])
        tl.store(dvs + r[:, None] * D + col, dV, mask=live[:, None] & ok[None, :])
        tl.debug_barrier()
        i, r, live, row, col, ok = indices(n, L, CHUNK, 4, D, BD, C)
        # L_ti = eta_t e^{g'_t - g_i} k_t . k_i
        Zt = tile(zs, r[None, :], row, D, live[None, :], ok[:, None], ACC)
        XK = dot(-decay(gp[:, None], g[None, :], i[:, None] > i[None, :]) * dot(dR, Zt, PREC),
                 tile(keys, r[:, None], col, D, live[:, None], ok[None, :], ACC), PREC)
        dL = tl.sum(XK * tile(keys, r[:, None], col, D, live[:, None], ok[None, :], ACC), 1)
        deta += dL
        dgp += eta * dL
        dK = tile(dks, r[:, None], col, D, live[:, None], ok[None, :], ACC) - s[:, None] * dR + eta[:, None] * XK
        tl.debug_barrier()
        i, r, live, row, col, ok = indices(n, L, CHUNK, 5, D, BD, C)
        Z = tile(zs, r[:, None], col, D, live[:, None], ok[None, :], ACC)
        back_scores = -eta[None, :] * decay(gp[None, :], g[:, None], i[:, None] < i[None, :])
        XtK = dot(back_scores * dot_t(Z, dR, PREC),
                  tile(keys, r[:, None], col, D, live[:, None], ok[None, :], ACC), PREC)
        K = tile(keys, r[:, None], col, D, live[:, None], ok[None, :], ACC)
        dg -= tl.sum(XtK * K, 1)
        dK += XtK
        # K = unit(X S_k), and the gates
        dK = tl.load(gate + 4 * C).to(ACC)[:, None] * (dK - K * tl.sum(dK * K, 1)[:, None])
        tl.store(dks + r[:, None] * D + col, dK, mask=live[:, None] & ok[None, :])
        tl.debug_barrier()                                               # all of dK and dV is there
        i, r, live, row, col, ok = indices(n, L, CHUNK, 6, D, BD, C)
        add_transposed(dms, x, r, dks, live, row, col, ok, D, PREC, ACC)
        add_transposed(dms + D * D, x, r, dvs, live, row, col, ok, D, PREC, ACC)
        dze = deta * tl.load(gate + 2 * C).to(ACC)
        dza = (suffix_sum(dg + dgp, C) - dgp) * tl.load(gate + 3 * C).to(ACC)
        tl.store(dzs + bh * 2 * L + r, dze, mask=live)
        tl.store(dzs + bh * 2 * L + L + r, dza, mask=live)
        Xt = tile(x, r[None, :], row, D, live[None, :], ok[:, None], ACC)
        dwe += tl.sum(dze[None, :] * Xt, 1)
        dwa += tl.sum(dza[None, :] * Xt, 1)
        tl.debug_barrier()
    tl.store(dme + bh * D + o, dwe, mask=o < D)
    tl.store(dma + bh * D + o, dwa, mask=o < D)


@triton.jit
def add_transposed(M, x, r, d, live, row, col, ok, D: tl.constexpr, PREC: tl.constexpr, ACC: tl.constexpr):
    """M += d^T x in place, M^T = x^T d in registers: a left operand is never a transposed register tile."""
    Xt = tile(x, r[None, :], row, D, live[None, :], ok[:, None], ACC)
    dT = operand(tile(d, r[:, None], col, D, live[:, None], ok[None, :], ACC), PREC)
    p = M + col * D + row
    sq = ok[:, None] & ok[None, :]
    new = dot_add(Xt, dT, tl.load(p, mask=sq, other=0.0).to(ACC), PREC)
    tl.debug_barrier()                                                   # the old M has been read
    tl.store(p, new, mask=sq)


@triton.jit
def selfref_memory_backward_rest(states, vectors, dy, dks, dvs, dzs, dx, dq, L, N, CHUNK, D: tl.constexpr,
                                 BD: tl.constexpr, C: tl.constexpr, L2: tl.constexpr, ETA_MAX: tl.constexpr,
                                 UNIT: tl.constexpr, PREC: tl.constexpr, ACC: tl.constexpr):
    """dX and dQ of every chunk, all at once."""
    n, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, o = tl.arange(0, C), tl.arange(0, BD)
    row, col, ok = o[:, None], o[None, :], o < D
    r = n * CHUNK + i
    live = (i < CHUNK) & (r < L)
    here = live[:, None] & ok[None, :]
    at = bh * L * D
    st = states + (bh * N + n) * 3 * D * D
    dY = tile(dy + at, r[:, None], col, D, live[:, None], ok[None, :], ACC)
    dQ = dot(dY, matrix(st + 2 * D * D, row, col, D, ACC), PREC)
    tl.store(dq + at + r[:, None] * D + col, dQ.to(dq.dtype.element_ty), mask=here)
    dK = tile(dks + at, r[:, None], col, D, live[:, None], ok[None, :], ACC)
    dX = dot(dK, matrix(st, row, col, D, ACC), PREC)
    dV = tile(dvs + at, r[:, None], col, D, live[:, None], ok[None, :], ACC)
    dX = dot_add(dV, matrix(st + D * D, row, col, D, ACC), dX, PREC)
    dze = tl.load(dzs + bh * 2 * L + r, mask=live, other=0.0).to(ACC)
    dza = tl.load(dzs + bh * 2 * L + L + r, mask=live, other=0.0).to(ACC)
    we = tl.load(vectors + (bh * N + n) * 2 * D + o, mask=ok, other=0.0).to(ACC)
    wa = tl.load(vectors + (bh * N + n) * 2 * D + D + o, mask=ok, other=0.0).to(ACC)
    dX += dze[:, None] * we[None, :] + dza[:, None] * wa[None, :]
    tl.store(dx + at + r[:, None] * D + col, dX.to(dx.dtype.element_ty), mask=here)


def plan(d: int, chunk: int) -> tuple[dict[str, Any], dict[str, int]]:
    """Tile sizes and launch options."""
    C, BD = block(chunk), block(d)
    return {"D": d, "BD": BD, "C": C}, {"num_warps": 8 if max(C, BD) > 64 else 4, "num_stages": 1}


def _meta(x: Tensor, chunk: int, l2: bool, eta_max: float, unit_values: bool) -> tuple[int, dict[str, Any]]:
    meta, options = plan(x.shape[-1], chunk)
    return -(-x.shape[2] // chunk), {**meta, "L2": l2, "ETA_MAX": eta_max, "UNIT": unit_values, **settings(x),
                                     **options}


STATE = "Tensor mk, Tensor mv, Tensor mm, Tensor me, Tensor ma"
OPTIONS = "int chunk, bool l2, float eta_max, bool unit_values"


def _tuple(n: int) -> str:
    return f"({', '.join(['Tensor'] * n)})"


@torch.library.custom_op("nlkernels::selfref_memory", mutates_args=(),
                         schema=f"(Tensor x, Tensor q, {STATE}, Tensor be, Tensor ba, {OPTIONS}) -> {_tuple(8)}")
def selfref_memory_op(x, q, mk, mv, mm, me, ma, be, ba, chunk, l2, eta_max, unit_values):
    """(y, the five last memories, chunk-start matrices, chunk-start vectors): the last two are for the backward."""
    B, H, L, d = x.shape
    N, meta = _meta(x, chunk, l2, eta_max, unit_values)
    x, q, *memories = (z.contiguous() for z in (x, q, mk, mv, mm, me, ma, be, ba))
    *matrices, me, ma, be, ba = memories
    ms = torch.stack(matrices, 2)                                           # (B, H, 3, d, d), updated in place
    y, ends = torch.empty_like(x), [torch.empty_like(z) for z in (me, ma)]
    states, vectors = x.new_empty(B, H, N, 3, d, d), mk.new_empty(B, H, N, 2, d)
    launch(selfref_memory_forward, (B * H,), x, q, me, ma, be, ba, y, ms, *ends, states, vectors, L, N, chunk, **meta)
    return y, *(M.clone() for M in ms.unbind(2)), *ends, states, vectors


@selfref_memory_op.register_fake
def _(x, q, mk, mv, mm, me, ma, be, ba, chunk, l2, eta_max, unit_values):
    B, H, L, d = x.shape
    N = -(-L // chunk)
    return (x.new_empty(x.shape), *(M.new_empty(M.shape) for M in (mk, mv, mm, me, ma)), x.new_empty(B, H, N, 3, d,
            d),
            mk.new_empty(B, H, N, 2, d))


GRADS = "Tensor dy, Tensor dmk, Tensor dmv, Tensor dmm, Tensor dme, Tensor dma"


@torch.library.custom_op("nlkernels::selfref_memory_backward", mutates_args=(),
                         schema=f"({GRADS}, Tensor x, Tensor q, Tensor be, Tensor ba, Tensor states, Tensor vectors, "
                                f"{OPTIONS}) -> {_tuple(9)}")
def selfref_memory_backward_op(dy, dmk, dmv, dmm, dme, dma, x, q, be, ba, states, vectors, chunk, l2, eta_max,
                               unit_values):
    """Gradients of x, q, the five memories and the two biases."""
    B, H, L, d = x.shape
    N, meta = _meta(x, chunk, l2, eta_max, unit_values)
    x, q, be, ba, dy, *ends = (z.contiguous() for z in (x, q, be, ba, dy, dmk, dmv, dmm, dme, dma))
    C, like = meta["C"], {"dtype": dme.dtype, "device": x.device}
    keys, values, zs, gs = (torch.empty_like(x) for _ in range(4))
    dks, dvs = (torch.empty(x.shape, **like) for _ in range(2))
    phis = torch.empty(B, H, N, d, d, dtype=x.dtype, device=x.device)
    gates, dzs = torch.empty(B, H, N, 6, C, **like), torch.empty(B, H, 2, L, **like)
    again = keys, values, zs, phis, gs, gates
    launch(selfref_memory_backward_prepare, (N, B * H), x, be, ba, states, vectors, *again, L, N, chunk, **meta)
    dms, starts = torch.stack(ends[:3], 2), [torch.empty_like(z) for z in ends[3:]]
    launch(selfref_memory_backward_chain, (B * H,), x, q, states, vectors, *again, dy, *ends[3:], dks, dvs, dzs, dms,
           *starts, L, N, chunk, **meta)
    dx, dq = torch.empty_like(x), torch.empty_like(q)
    launch(selfref_memory_backward_rest, (N, B * H), states, vectors, dy, dks, dvs, dzs, dx, dq, L, N, chunk, **meta)
    dbe, dba = dzs.sum(-1).unbind(2)
    return dx, dq, *(M.clone() for M in dms.unbind(2)), *starts, dbe.clone(), dba.clone()


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


def fused(x: Tensor, q: Tensor, memories: tuple[Tensor, ...], b_eta: Tensor, b_alpha: Tensor, *, chunk: int,
          objective: str,
          eta_max: float, unit_values: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Shapes as in `reference`; d and chunk at most 128.  eq. 86-88, eq. 90, eq. 92-93"""
    y, *rest = selfref_memory_op(x, q, *memories, b_eta, b_alpha, chunk, objective == "l2", eta_max, unit_values)
    return y, tuple(rest[:5])


TOKENS = ("x", "q", "y", "dy", "dx", "dq", "states", "keys", "values", "zs", "gs", "phis")       # in the tokens' dtype


def compile_cases(cc: int, dtype: str, d: int = 64, chunk: int = 64) -> list[Case]:
    """Forward and backward of Hope's setting."""
    found = []
    meta, options = plan(d, chunk)
    meta |= {"L2": True, "ETA_MAX": 0.5, "UNIT": True, "PREC": "tf32" if dtype == "fp32" else dtype, "ACC": tl.float32}
    assert dtype in TORCH
    for kernel in (selfref_memory_forward, selfref_memory_backward_prepare, selfref_memory_backward_chain,
                   selfref_memory_backward_rest):
        signature = {n: "i32" if n in ("L", "N", "CHUNK") else f"*{dtype}" if n in TOKENS else "*fp32"
                     for n in kernel.arg_names if n not in meta}
        found.append(Case(kernel, signature, meta, **options, label=f"{dtype} d{d} C{chunk}"))
    return found
