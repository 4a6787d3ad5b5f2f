"""Self-modifying Titans in fused kernels: one forward; a backward in three parts.

    forward           one program per (batch, head) keeps the five memories in registers and walks the chunks
    backward_prepare  the forward of every chunk again, all chunks at once, from the stored chunk-start memories
    backward_chain    one program per (batch, head), last chunk first: the memories' gradients, and those of K, V,
    gates backward_rest     dX and dQ, all chunks at once

The algebra is that of chunked.py: one solve for Z and one transition Phi a chunk, shared by all memories. The kernels
carry M and not S = M^T, so that every product finds its left operand as it is: K^T comes as M_k X^T (X loaded
transposed) and Phi as (w K^T) Z. A transposed register tile is only ever a right operand, which the compiler takes
through shared memory.

What the compiler says (d 64, chunk 64, bf16): the chain is short of registers. In one kernel the backward spilled 2.1
KB a thread on sm_90 and 29 KB on sm_80; split like this its chain spills 1.1 KB and 5.7 KB, the forward 0.2 KB, the
rest nothing. Keeping the memories' gradients in global memory instead of registers changed nothing.

Backward of a chunk, given dM' of every memory (primes: at the chunk's end):

    Y = Q S_mem:                 dQ = dY M_mem,   dM_mem = dY^T Q + ...
    S' = Phi S (each):           dPhi^T = sum S dM',   dM = dM' Phi
    Phi = e^{g_C} I + (w K)^T Z: dZ = (w K) dPhi,   dK = w Z dPhi^T
    (I + L) Z = eta V - s K:     dR = (I + L)^-T dZ,   dL = -dR Z^T,   dV = eta dR,   dK -= s dR + ...
    K = unit(X S_k), ...:        dK~ = (dK - K <dK, K>) / |K~|,   dM_k += dK~^T X,   dX = dK~ M_k + dV~ M_v + ...

"""
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nlkernels.blocks import block, decay, dot, dot_add, settings, solve_rows, solve_rows_t, suffix_sum, tile
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
def generate(X, Xt, Mk, Mv, me, ma, be, ba, live, ETA_MAX: tl.constexpr, UNIT: tl.constexpr, PREC: tl.constexpr):
    """What the memories make of a chunk: K, K^T, V, the inverse norms, eta, log alpha and the gates' slopes."""
    K = dot(X, tl.trans(Mk), PREC)
    rk = tl.rsqrt(tl.sum(K * K, 1) + 1e-12)
    V = dot(X, tl.trans(Mv), PREC)
    rv = tl.rsqrt(tl.sum(V * V, 1) + 1e-12)
    if UNIT:
        V = V * rv[:, None]
    Kt = dot(Mk, Xt, PREC) * rk[None, :]
    sig = tl.sigmoid(tl.sum(X * me[None, :], 1) + be)
    z = tl.sum(X * ma[None, :], 1) + ba
    eta = tl.where(live, ETA_MAX * sig, 0.0)
    a = tl.where(live, log_sigmoid(z), 0.0)
    return K * rk[:, None], Kt, V, rk, rv, eta, a, eta * (1.0 - sig), tl.where(live, tl.sigmoid(-z), 0.0)


@triton.jit
def transition(K, Kt, V, eta, g, gp, gC, i, o, L2: tl.constexpr, C: tl.constexpr, PREC: tl.constexpr):
    """(L, Z, Phi) of a chunk."""
    s = eta * tl.exp(gp)
    if L2:
        s += eta
    Lm = eta[:, None] * decay(gp[:, None], g[None, :], i[:, None] > i[None, :]) * dot(K, Kt, PREC)
    Z = solve_rows(Lm, eta[:, None] * V - s[:, None] * K, C)
    Phi = tl.where(o[:, None] == o[None, :], tl.exp(gC), 0.0) + dot(Kt * tl.exp(gC - g)[None, :], Z, PREC)
    return Lm, Z, Phi


@triton.jit
def selfref_memory_forward(x, q, mk, mv, mm, me, ma, be, ba, y, mkT, mvT, mmT, meT, maT, states, vectors, L, N, CHUNK,
                           D: tl.constexpr, BD: tl.constexpr, C: tl.constexpr, L2: tl.constexpr, ETA_MAX: tl.constexpr,
                           UNIT: tl.constexpr, PREC: tl.constexpr, ACC: tl.constexpr):
    bh = tl.program_id(0).to(tl.int64)
    i, o = tl.arange(0, C), tl.arange(0, BD)
    row, col, ok = o[:, None], o[None, :], o < D
    sq = ok[:, None] & ok[None, :]
    x += bh * L * D
    q += bh * L * D
    y += bh * L * D
    at = bh * D * D + row * D + col
    Mk = matrix(mk + bh * D * D, row, col, D, ACC)
    Mv = matrix(mv + bh * D * D, row, col, D, ACC)
    Mm = matrix(mm + bh * D * D, row, col, D, ACC)
    we = tl.load(me + bh * D + o, mask=ok, other=0.0).to(ACC)
    wa = tl.load(ma + bh * D + o, mask=ok, other=0.0).to(ACC)
    b_eta = tl.load(be + bh).to(ACC)
    b_alpha = tl.load(ba + bh).to(ACC)
    for n in range(0, N):
        st = states + (bh * N + n) * 3 * D * D + row * D + col
        tl.store(st, Mk, mask=sq)
        tl.store(st + D * D, Mv, mask=sq)
        tl.store(st + 2 * D * D, Mm, mask=sq)
        tl.store(vectors + (bh * N + n) * 2 * D + o, we, mask=ok)
        tl.store(vectors + (bh * N + n) * 2 * D + D + o, wa, mask=ok)
        r = n * CHUNK + i
        live = (i < CHUNK) & (r < L)
        Q = tile(q, r[:, None], col, D, live[:, None], ok[None, :], ACC)
        tl.store(y + r[:, None] * D + col, dot(Q, tl.trans(Mm), PREC).to(y.dtype.element_ty),
                 mask=live[:, None] & ok[None, :])
        X = tile(x, r[:, None], col, D, live[:, None], ok[None, :], ACC)
        Xt = tile(x, r[None, :], row, D, live[None, :], ok[:, None], ACC)
        K, Kt, V, _rk, _rv, eta, a, _e, _a = generate(X, Xt, Mk, Mv, we, wa, b_eta, b_alpha, live, ETA_MAX, UNIT, PREC)
        g = tl.cumsum(a, 0)
        _L, _Z, Phi = transition(K, Kt, V, eta, g, g - a, tl.sum(a, 0), i, o, L2, C, PREC)
        Pt = tl.trans(Phi)
        Mk = dot(Mk, Pt, PREC)
        Mv = dot(Mv, Pt, PREC)
        Mm = dot(Mm, Pt, PREC)
        we = tl.sum(Phi * we[None, :], 1)
        wa = tl.sum(Phi * wa[None, :], 1)
    tl.store(mkT + at, Mk, mask=sq)
    tl.store(mvT + at, Mv, mask=sq)
    tl.store(mmT + at, Mm, mask=sq)
    tl.store(meT + bh * D + o, we, mask=ok)
    tl.store(maT + bh * D + o, wa, mask=ok)


@triton.jit
def selfref_memory_backward_prepare(x, be, ba, states, vectors, keys, values, zs, phis, ls, gates, L, N, CHUNK,
                                    D: tl.constexpr, BD: tl.constexpr, C: tl.constexpr, L2: tl.constexpr,
                                    ETA_MAX: tl.constexpr, UNIT: tl.constexpr, PREC: tl.constexpr, ACC: tl.constexpr):
    """The forward of every chunk again, all chunks at once: K, V, Z, Phi, L and six rows of gates (C padded
    tokens)."""
    n, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, o = tl.arange(0, C), tl.arange(0, BD)
    row, col, ok = o[:, None], o[None, :], o < D
    r = n * CHUNK + i
    live = (i < CHUNK) & (r < L)
    x += bh * L * D
    st = states + (bh * N + n) * 3 * D * D
    we = tl.load(vectors + (bh * N + n) * 2 * D + o, mask=ok, other=0.0).to(ACC)
    wa = tl.load(vectors + (bh * N + n) * 2 * D + D + o, mask=ok, other=0.0).to(ACC)
    X = tile(x, r[:, None], col, D, live[:, None], ok[None, :], ACC)
    Xt = tile(x, r[None, :], row, D, live[None, :], ok[:, None], ACC)
    K, Kt, V, rk, rv, eta, a, slope_e, slope_a = generate(
        X, Xt, matrix(st, row, col, D, ACC), matrix(st + D * D, row, col, D, ACC), we, wa, tl.load(be + bh).to(ACC),
        tl.load(ba + bh).to(ACC), live, ETA_MAX, UNIT, PREC)
    g = tl.cumsum(a, 0)
    Lm, Z, Phi = transition(K, Kt, V, eta, g, g - a, tl.sum(a, 0), i, o, L2, C, PREC)
    here = live[:, None] & ok[None, :]
    at = bh * L * D + r[:, None] * D + col
    tl.store(keys + at, K, mask=here)
    tl.store(values + at, V, mask=here)
    tl.store(zs + at, Z, mask=here)
    tl.store(phis + (bh * N + n) * D * D + row * D + col, Phi, mask=ok[:, None] & ok[None, :])
    tl.store(ls + (bh * N + n) * C * C + i[:, None] * C + i[None, :], Lm)
    to = gates + (bh * N + n) * 6 * C + i
    tl.store(to, eta)
    tl.store(to + C, a)
    tl.store(to + 2 * C, slope_e)
    tl.store(to + 3 * C, slope_a)
    tl.store(to + 4 * C, rk)
    tl.store(to + 5 * C, rv)


@triton.jit
def selfref_memory_backward_chain(x, q, states, vectors, keys, values, zs, phis, ls, gates, dy, dmkT, dmvT, dmmT, dmeT,
                                  dmaT, dks, dvs, dzs, dmk, dmv, dmm, dme, dma, L, N, CHUNK, D: tl.constexpr,
                                  BD: tl.constexpr, C: tl.constexpr, L2: tl.constexpr, ETA_MAX: tl.constexpr,
                                  UNIT: tl.constexpr, PREC: tl.constexpr, ACC: tl.constexpr):
    """One program per (batch, head), last chunk first. Tiles are loaded where they are used: registers are the
    limit."""
    bh = tl.program_id(0).to(tl.int64)
    i, o = tl.arange(0, C), tl.arange(0, BD)
    row, col, ok = o[:, None], o[None, :], o < D
    sq = ok[:, None] & ok[None, :]
    x += bh * L * D
    q += bh * L * D
    dy += bh * L * D
    keys += bh * L * D
    values += bh * L * D
    zs += bh * L * D
    dks += bh * L * D
    dvs += bh * L * D
    at = bh * D * D + row * D + col
    dMk = matrix(dmkT + bh * D * D, row, col, D, ACC)
    dMv = matrix(dmvT + bh * D * D, row, col, D, ACC)
    dMm = matrix(dmmT + bh * D * D, row, col, D, ACC)
    dwe = tl.load(dmeT + bh * D + o, mask=ok, other=0.0).to(ACC)
    dwa = tl.load(dmaT + bh * D + o, mask=ok, other=0.0).to(ACC)
    for back in range(0, N):
        n = N - 1 - back
        st = states + (bh * N + n) * 3 * D * D
        we = tl.load(vectors + (bh * N + n) * 2 * D + o, mask=ok, other=0.0).to(ACC)
        wa = tl.load(vectors + (bh * N + n) * 2 * D + D + o, mask=ok, other=0.0).to(ACC)
        r = n * CHUNK + i
        live = (i < CHUNK) & (r < L)
        here = live[:, None] & ok[None, :]
        gate = gates + (bh * N + n) * 6 * C + i
        eta = tl.load(gate).to(ACC)
        a = tl.load(gate + C).to(ACC)
        g = tl.cumsum(a, 0)
        gp = g - a
        gC = tl.sum(a, 0)
        w = tl.exp(gC - g)
        # S' = Phi S for all five
        dPt = dot(matrix(st, col, row, D, ACC), dMk, PREC)
        dPt = dot_add(matrix(st + D * D, col, row, D, ACC), dMv, dPt, PREC)
        dPt = dot_add(matrix(st + 2 * D * D, col, row, D, ACC), dMm, dPt, PREC)
        dPt += we[:, None] * dwe[None, :] + wa[:, None] * dwa[None, :]
        Phi = matrix(phis + (bh * N + n) * D * D, row, col, D, ACC)
        dMk = dot(dMk, Phi, PREC)
        dMv = dot(dMv, Phi, PREC)
        dMm = dot(dMm, Phi, PREC)
        dwe = tl.sum(Phi * dwe[:, None], 0)
        dwa = tl.sum(Phi * dwa[:, None], 0)
        # Y = Q S_mem
        dYt = tile(dy, r[None, :], row, D, live[None, :], ok[:, None], ACC)
        dMm = dot_add(dYt, tile(q, r[:, None], col, D, live[:, None], ok[None, :], ACC), dMm, PREC)
        # Phi = e^{g_C} I + (w K)^T Z
        K = tile(keys, r[:, None], col, D, live[:, None], ok[None, :], ACC)
        dK = w[:, None] * dot(tile(zs, r[:, None], col, D, live[:, None], ok[None, :], ACC), dPt, PREC)
        dw = tl.sum(dK * K, 1)
        dgC = tl.exp(gC) * tl.sum(tl.sum(tl.where(row == col, dPt, 0.0), 1), 0) + tl.sum(dw, 0)
        dg = -dw
        # (I + L) Z = eta V - s K
        dR = dot(w[:, None] * K, tl.trans(dPt), PREC)
        dR = solve_rows_t(tl.load(ls + (bh * N + n) * C * C + i[:, None] * C + i[None, :]).to(ACC), dR, C)
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
        tl.store(dvs + r[:, None] * D + col, dV, mask=here)
        Xt = tile(x, r[None, :], row, D, live[None, :], ok[:, None], ACC)
        dMv += tl.trans(dot(Xt, dV, PREC))
        # L_ti = eta_t e^{g'_t - g_i} k_t . k_i
        dK -= s[:, None] * dR
        Zt = tile(zs, r[None, :], row, D, live[None, :], ok[:, None], ACC)
        XK = dot(-decay(gp[:, None], g[None, :], i[:, None] > i[None, :]) * dot(dR, Zt, PREC), K, PREC)
        dL = tl.sum(XK * K, 1)
        deta += dL
        dgp += eta * dL
        dK += eta[:, None] * XK
        Z = tile(zs, r[:, None], col, D, live[:, None], ok[None, :], ACC)
        back_scores = -eta[None, :] * decay(gp[None, :], g[:, None], i[:, None] < i[None, :])
        XtK = dot(back_scores * dot(Z, tl.trans(dR), PREC), K, PREC)
        dg -= tl.sum(XtK * K, 1)
        dK += XtK
        # K = unit(X S_k), and the gates
        dK = tl.load(gate + 4 * C).to(ACC)[:, None] * (dK - K * tl.sum(dK * K, 1)[:, None])
        tl.store(dks + r[:, None] * D + col, dK, mask=here)
        dMk += tl.trans(dot(Xt, dK, PREC))
        dze = deta * tl.load(gate + 2 * C).to(ACC)
        dza = (suffix_sum(dg + dgp + tl.where(i == C - 1, dgC, 0.0), C) - dgp) * tl.load(gate + 3 * C).to(ACC)
        tl.store(dzs + bh * 2 * L + r, dze, mask=live)
        tl.store(dzs + bh * 2 * L + L + r, dza, mask=live)
        dwe += tl.sum(dze[None, :] * Xt, 1)
        dwa += tl.sum(dza[None, :] * Xt, 1)
    tl.store(dmk + at, dMk, mask=sq)
    tl.store(dmv + at, dMv, mask=sq)
    tl.store(dmm + at, dMm, mask=sq)
    tl.store(dme + bh * D + o, dwe, mask=ok)
    tl.store(dma + bh * D + o, dwa, mask=ok)


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
    return {"D": d, "BD": BD, "C": C}, {"num_warps": 8 if max(C, BD) > 32 else 4}


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
    y = torch.empty_like(x)
    last = [torch.empty_like(M) for M in memories[:5]]
    states, vectors = mk.new_empty(B, H, N, 3, d, d), mk.new_empty(B, H, N, 2, d)
    launch(selfref_memory_forward, (B * H,), x, q, *memories, y, *last, states, vectors, L, N, chunk, **meta)
    return y, *last, states, vectors


@selfref_memory_op.register_fake
def _(x, q, mk, mv, mm, me, ma, be, ba, chunk, l2, eta_max, unit_values):
    B, H, L, d = x.shape
    N = -(-L // chunk)
    return (x.new_empty(x.shape), *(M.new_empty(M.shape) for M in (mk, mv, mm, me, ma)), mk.new_empty(B, H, N, 3, d,
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
    C, like = meta["C"], {"dtype": states.dtype, "device": x.device}
    keys, values, zs, dks, dvs = (torch.empty(x.shape, **like) for _ in range(5))
    phis, ls = torch.empty(B, H, N, d, d, **like), torch.empty(B, H, N, C, C, **like)
    gates, dzs = torch.empty(B, H, N, 6, C, **like), torch.empty(B, H, 2, L, **like)
    again = keys, values, zs, phis, ls, gates
    launch(selfref_memory_backward_prepare, (N, B * H), x, be, ba, states, vectors, *again, L, N, chunk, **meta)
    starts = [torch.empty_like(M) for M in ends]
    launch(selfref_memory_backward_chain, (B * H,), x, q, states, vectors, *again, dy, *ends, dks, dvs, dzs, *starts,
           L, N, chunk, **meta)
    dx, dq = torch.empty_like(x), torch.empty_like(q)
    launch(selfref_memory_backward_rest, (N, B * H), states, vectors, dy, dks, dvs, dzs, dx, dq, L, N, chunk, **meta)
    dbe, dba = dzs.sum(-1).unbind(2)
    return dx, dq, *starts, dbe.clone(), dba.clone()


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


def compile_cases(cc: int, dtype: str, d: int = 64, chunk: int = 64) -> list[Case]:
    """Forward and backward of Hope's setting."""
    found = []
    meta, options = plan(d, chunk)
    meta |= {"L2": True, "ETA_MAX": 0.5, "UNIT": True, "PREC": "tf32" if dtype == "fp32" else dtype, "ACC": tl.float32}
    assert dtype in TORCH
    for kernel in (selfref_memory_forward, selfref_memory_backward_prepare, selfref_memory_backward_chain,
                   selfref_memory_backward_rest):
        signature = {n: "i32" if n in ("L", "N", "CHUNK") else f"*{dtype}" if n in ("x", "q", "y", "dy", "dx",
                     "dq") else "*fp32"
                     for n in kernel.arg_names if n not in meta}
        found.append(Case(kernel, signature, meta, **options, label=f"{dtype} d{d} C{chunk}"))
    return found
