"""The linear memory in three fused kernels: one forward, two backward.

    forward        one program per (value block, batch x head) walks the chunks; the memory S = M^T stays in registers.
                   It stores each chunk's start state S and written rows E: all that the backward needs.
    backward_chain the same walk backwards: carries dS, stores it per chunk, and dR = (I + L)^-T dE.
    backward_rest  one program per (chunk, value block, batch x head), all at once: every gradient of an input.

Backward, per chunk (derivation of the forward in chunked.py; D = decayed causal mask of the read, lam = its row
factor, w = e^{g_C - g}, X = erase * decay * dL, R = write V - s (K S) the right side):

    dE = (D * Q K^T)^T dY + (w K) dS'      dR = (I + L)^-T dE       dL = -dR E^T
    dS = e^{g_C} dS' + Q^T (lam dY) - K^T (s dR)   [+ V^T (write dR) with self-made values]
    dQ = lam (dY S^T) + (D * dY E^T) K     dV = write dR
    dK = w (E dS'^T) + (D^T * E dY^T) Q + (X + X^T) K - s (dR S^T)

The gates need no second pass over the scores: every factor e^{g_t - g_i} sits in a product that is already there, so
its gradient is a row sum <dQ, Q> or <dK, K>. Splitting the backward in two took the spills from 2.4 KB a thread to
none and made all but the chain parallel over chunks. Score matrices are computed transposed where they are needed
transposed: no `tl.trans` of an accumulator, which Triton 3.4-3.7.0 miscompiles on Hopper.
"""
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nlkernels.blocks import block, decay, dot, gates, settings, solve_rows, solve_rows_t, suffix_sum, tile
from nlkernels.compile_check import TORCH, Case
from nlkernels.dispatch import capability
from nlkernels.errors import need
from nlkernels.interpret import launch


@triton.jit
def linear_memory_forward(q, k, v, la, er, wr, m0, y, states, e, mT, L, N, CHUNK,
            DK: tl.constexpr, DV: tl.constexpr, DX: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
            DECAY: tl.constexpr, ERASE: tl.constexpr, L2: tl.constexpr, SELF: tl.constexpr, READ: tl.constexpr,
            PREC: tl.constexpr, ACC: tl.constexpr):
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
    m_at = bh * DK * DV + ov[None, :] * DK + ok[:, None]                # M is (d_v, d_k); S = M^T
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
        # what is read
        Q = tile(q, r[:, None], ok[None, :], DK, mr[:, None], mk[None, :], ACC)
        Y = dot(Q, S, PREC)
        Kt = tile(k, r[None, :], ok[:, None], DK, mr[None, :], mk[:, None], ACC)     # again: cheaper than keeping it
        if READ == "before":
            D = decay(gp[:, None], g[None, :], i[:, None] > i[None, :])
            Y = tl.exp(gp)[:, None] * Y + dot(D * dot(Q, Kt, PREC), E, PREC)
        elif READ == "after":
            D = decay(g[:, None], g[None, :], i[:, None] >= i[None, :])
            Y = tl.exp(g)[:, None] * Y + dot(D * dot(Q, Kt, PREC), E, PREC)
        tl.store(y + r[:, None] * DV + ov[None, :], Y.to(y.dtype.element_ty), mask=mr[:, None] & mv[None, :])
        S = tl.exp(gC) * S + dot(Kt * tl.exp(gC - g)[None, :], E, PREC)
    tl.store(mT + m_at, S, mask=sm)


@triton.jit
def linear_memory_backward_chain(q, k, v, la, er, wr, dy, dmT, dstates, dr, dm0, L, N, CHUNK,
                   DK: tl.constexpr, DV: tl.constexpr, DX: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
                   C: tl.constexpr, DECAY: tl.constexpr, ERASE: tl.constexpr, L2: tl.constexpr, SELF: tl.constexpr,
                   READ: tl.constexpr, PREC: tl.constexpr, ACC: tl.constexpr):
    pv, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, ok, ov = tl.arange(0, C), tl.arange(0, BK), pv * BV + tl.arange(0, BV)
    mk, mv = ok < DK, ov < DV
    q += bh * L * DK
    k += bh * L * DK
    v += bh * L * DX
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
        tl.store(dstates + n * DK * DV + ok[:, None] * DV + ov[None, :], dS, mask=sm)    # at this chunk's END
        r = n * CHUNK + i
        mr = (i < CHUNK) & (r < L)
        K = tile(k, r[:, None], ok[None, :], DK, mr[:, None], mk[None, :], ACC)
        Qt = tile(q, r[None, :], ok[:, None], DK, mr[None, :], mk[:, None], ACC)
        dY = tile(dy, r[:, None], ov[None, :], DV, mr[:, None], mv[None, :], ACC)
        h = tl.load(wr + r, mask=mr, other=0.0).to(ACC)
        g, gp, gC = gates(la, r, mr, C, DECAY, ACC)
        dR = dot(tl.exp(gC - g)[:, None] * K, dS, PREC)                                  # dE, so far
        dS = tl.exp(gC) * dS
        if READ == "start":
            dS += dot(Qt, dY, PREC)
        elif READ == "before":
            dR += dot(decay(gp[None, :], g[:, None], i[:, None] < i[None, :]) * dot(K, Qt, PREC), dY, PREC)
            dS += dot(Qt, tl.exp(gp)[:, None] * dY, PREC)
        else:
            dR += dot(decay(g[None, :], g[:, None], i[:, None] <= i[None, :]) * dot(K, Qt, PREC), dY, PREC)
            dS += dot(Qt, tl.exp(g)[:, None] * dY, PREC)
        Kt = tile(k, r[None, :], ok[:, None], DK, mr[None, :], mk[:, None], ACC)
        if ERASE:
            ep = tl.load(er + r, mask=mr, other=0.0).to(ACC)
            s = ep * tl.exp(gp)
            if L2:
                s += h
            Lm = ep[:, None] * decay(gp[:, None], g[None, :], i[:, None] > i[None, :]) * dot(K, Kt, PREC)
            dR = solve_rows_t(Lm, dR, C)
            dS -= dot(Kt, s[:, None] * dR, PREC)
        elif L2:
            dS -= dot(Kt, h[:, None] * dR, PREC)
        if SELF:
            dS += dot(tile(v, r[None, :], ok[:, None], DK, mr[None, :], mk[:, None], ACC), h[:, None] * dR, PREC)
        tl.store(dr + r[:, None] * DV + ov[None, :], dR.to(dr.dtype.element_ty), mask=mr[:, None] & mv[None, :])
    tl.store(dm0 + m_at, dS, mask=sm)


@triton.jit
def linear_memory_backward_rest(q, k, v, la, er, wr, states, dstates, e, dr, dy, dq, dk, dv, dla, der, dwr, L, N,
                                CHUNK, BHL,
                  DK: tl.constexpr, DV: tl.constexpr, DX: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
                  C: tl.constexpr, DECAY: tl.constexpr, ERASE: tl.constexpr, L2: tl.constexpr, SELF: tl.constexpr,
                  READ: tl.constexpr, PREC: tl.constexpr, ACC: tl.constexpr):
    """Gradients that sum over value blocks go to one slab a block (dq, dk, the gates', dv with SELF); no atomics."""
    n, pv, bh = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    i, ok, ov = tl.arange(0, C), tl.arange(0, BK), pv * BV + tl.arange(0, BV)
    r = n * CHUNK + i
    mr, mk, mv = (i < CHUNK) & (r < L), ok < DK, ov < DV
    slab = pv.to(tl.int64) * BHL + bh * L
    row_k, row_v = mr[:, None] & mk[None, :], mr[:, None] & mv[None, :]
    at_k, at_v = r[:, None] * DK + ok[None, :], r[:, None] * DV + ov[None, :]
    q += bh * L * DK
    k += bh * L * DK
    v += bh * L * DX
    e += bh * L * DV
    dr += bh * L * DV
    dy += bh * L * DV
    la += bh * L
    er += bh * L
    wr += bh * L
    s_at = (bh * N + n) * DK * DV + ok[None, :] * DV + ov[:, None]       # S^T, (BV, BK)
    sm = mk[None, :] & mv[:, None]
    h = tl.load(wr + r, mask=mr, other=0.0).to(ACC)
    g, gp, gC = gates(la, r, mr, C, DECAY, ACC)
    K = tile(k, r[:, None], ok[None, :], DK, mr[:, None], mk[None, :], ACC)
    E = tile(e, r[:, None], ov[None, :], DV, mr[:, None], mv[None, :], ACC)
    St = tl.load(states + s_at, mask=sm, other=0.0).to(ACC)
    dSt = tl.load(dstates + s_at, mask=sm, other=0.0).to(ACC)
    # S' = e^{g_C} S + (w K)^T E
    dK = tl.exp(gC - g)[:, None] * dot(E, dSt, PREC)
    dw = tl.sum(dK * K, 1)
    dgC = tl.exp(gC) * tl.sum(tl.sum(dSt * St, 1), 0) + tl.sum(dw, 0)
    dg = -dw
    dgp = tl.zeros([C], ACC)
    # Y
    Q = tile(q, r[:, None], ok[None, :], DK, mr[:, None], mk[None, :], ACC)
    dY = tile(dy, r[:, None], ov[None, :], DV, mr[:, None], mv[None, :], ACC)
    dQ = dot(dY, St, PREC)
    if READ != "start":
        Et = tile(e, r[None, :], ov[:, None], DV, mr[None, :], mv[:, None], ACC)
        dYt = tile(dy, r[None, :], ov[:, None], DV, mr[None, :], mv[:, None], ACC)
        if READ == "before":
            D = decay(gp[:, None], g[None, :], i[:, None] > i[None, :])
            Dt = decay(gp[None, :], g[:, None], i[:, None] < i[None, :])
            dQ = tl.exp(gp)[:, None] * dQ + dot(D * dot(dY, Et, PREC), K, PREC)
            dgp += tl.sum(dQ * Q, 1)
        else:
            D = decay(g[:, None], g[None, :], i[:, None] >= i[None, :])
            Dt = decay(g[None, :], g[:, None], i[:, None] <= i[None, :])
            dQ = tl.exp(g)[:, None] * dQ + dot(D * dot(dY, Et, PREC), K, PREC)
            dg += tl.sum(dQ * Q, 1)
        dK2 = dot(Dt * dot(E, dYt, PREC), Q, PREC)
        dg -= tl.sum(dK2 * K, 1)
        dK += dK2
    tl.store(dq + slab * DK + at_k, dQ, mask=row_k)
    # (I + L) E = write V - s K S
    dR = tile(dr, r[:, None], ov[None, :], DV, mr[:, None], mv[None, :], ACC)
    dh = tl.zeros([C], ACC)
    if ERASE or L2 or SELF:
        G = dot(dR, St, PREC)                                           # dR S^T
    if SELF:
        V = tile(v, r[:, None], ok[None, :], DK, mr[:, None], mk[None, :], ACC)
        dh += tl.sum(G * V, 1)
        tl.store(dv + slab * DK + at_k, h[:, None] * G, mask=row_k)
    else:
        V = tile(v, r[:, None], ov[None, :], DV, mr[:, None], mv[None, :], ACC)
        dh += tl.sum(dR * V, 1)
        tl.store(dv + bh * L * DV + at_v, (h[:, None] * dR).to(dv.dtype.element_ty), mask=row_v)
    if ERASE or L2:
        ds = -tl.sum(G * K, 1)
        s = tl.zeros([C], ACC)
        if L2:
            dh += ds
            s += h
        if ERASE:
            ep = tl.load(er + r, mask=mr, other=0.0).to(ACC)
            s += ep * tl.exp(gp)
            dgp += ds * ep * tl.exp(gp)
            Et = tile(e, r[None, :], ov[:, None], DV, mr[None, :], mv[:, None], ACC)
            dRt = tile(dr, r[None, :], ov[:, None], DV, mr[None, :], mv[:, None], ACC)
            D = decay(gp[:, None], g[None, :], i[:, None] > i[None, :])
            Dt = decay(gp[None, :], g[:, None], i[:, None] < i[None, :])
            XK = dot(-D * dot(dR, Et, PREC), K, PREC)
            XtK = dot(-ep[None, :] * Dt * dot(E, dRt, PREC), K, PREC)
            dL = tl.sum(XK * K, 1)
            tl.store(der + slab + r, ds * tl.exp(gp) + dL, mask=mr)
            dgp += ep * dL
            dg -= tl.sum(XtK * K, 1)
            dK += ep[:, None] * XK + XtK
        dK -= s[:, None] * G
    tl.store(dk + slab * DK + at_k, dK, mask=row_k)
    tl.store(dwr + slab + r, dh, mask=mr)
    if DECAY:
        total = dg + dgp + tl.where(i == C - 1, dgC, 0.0)               # tokens that are not there repeat g_C
        tl.store(dla + slab + r, suffix_sum(total, C) - dgp, mask=mr)


def plan(dtype: torch.dtype, cc: tuple[int, int], dk: int, dv: int, chunk: int, free: bool,
         ) -> tuple[int, dict[str, Any], dict[str, int]]:
    """Tokens a chunk, tile sizes and launch options for compute capability `cc` ((0, 0): the interpreter).

    `free`: the result does not depend on the chunk, so the kernel picks the one that spills (almost) nothing: 64
    tokens and 8 warps for half precision on sm_90, 32 and 4 elsewhere. A chunk of 64 that the rule asks for gets
    narrower value blocks where registers are short.
    """
    half, hopper = dtype in (torch.float16, torch.bfloat16), cc >= (9, 0)
    if free and cc > (0, 0):
        chunk = min(chunk, 64 if half and hopper else 32)
    C, BK = block(chunk), block(dk)
    BV = min(block(dv), 64 if cc == (0, 0) else (64 if half else 32) // (2 if C > 32 and not hopper else 1))
    return chunk, {"DK": dk, "DV": dv, "BK": BK, "BV": BV, "C": C}, {"num_warps": 8 if C > 32 or BK > 64 else 4}


def _launch_arguments(q: Tensor, v: Tensor, la: Tensor | None, er: Tensor | None, M0: Tensor, chunk: int,
                      objective: str, read: str, self_values: bool,
                      ) -> tuple[int, int, int, dict[str, Any], dict[str, int]]:
    free = objective == "dot" and read != "start" and not self_values
    chunk, meta, options = plan(q.dtype, capability(q.device), q.shape[-1], M0.shape[-2], chunk, free)
    meta |= {"DX": v.shape[-1], "DECAY": la is not None, "ERASE": er is not None, "L2": objective == "l2",
             "SELF": self_values, "READ": read, **settings(q)}
    return chunk, -(-q.shape[2] // chunk), -(-meta["DV"] // meta["BV"]), meta, options


GATES = "Tensor? la, Tensor? er, Tensor wr"
OPTIONS = "int chunk, str objective, str read, bool self_values"


@torch.library.custom_op("nlkernels::linear_memory", mutates_args=(),
                         schema=f"(Tensor q, Tensor k, Tensor v, {GATES}, Tensor M0, {OPTIONS}) "
                                "-> (Tensor, Tensor, Tensor, Tensor)")
def linear_memory_op(q, k, v, la, er, wr, M0, chunk, objective, read, self_values):
    """(y, last memory, chunk-start states, written rows): the last two are for the backward."""
    B, H, L, DK = k.shape
    DV = M0.shape[-2]
    chunk, N, NV, meta, options = _launch_arguments(q, v, la, er, M0, chunk, objective, read, self_values)
    q, k, v, wr, M0 = (x.contiguous() for x in (q, k, v, wr, M0))
    la, er = (wr if x is None else x.contiguous() for x in (la, er))      # never read when absent
    y, e = (torch.empty(B, H, L, DV, dtype=q.dtype, device=q.device) for _ in range(2))
    states, mT = torch.empty(B, H, N, DK, DV, dtype=M0.dtype, device=q.device), torch.empty_like(M0)
    launch(linear_memory_forward, (NV, B * H), q, k, v, la, er, wr, M0, y, states, e, mT, L, N, chunk, **meta,
           **options)
    return y, mT, states, e


@linear_memory_op.register_fake
def _(q, k, v, la, er, wr, M0, chunk, objective, read, self_values):
    B, H, L, DK = k.shape
    _, N, _, _, _ = _launch_arguments(q, v, la, er, M0, chunk, objective, read, self_values)
    DV = M0.shape[-2]
    return (q.new_empty(B, H, L, DV), M0.new_empty(B, H, DV, DK), M0.new_empty(B, H, N, DK, DV),
            q.new_empty(B, H, L, DV))


@torch.library.custom_op("nlkernels::linear_memory_backward", mutates_args=(),
                         schema=f"(Tensor dy, Tensor dM, Tensor q, Tensor k, Tensor v, {GATES}, Tensor M0, "
                                f"Tensor states, Tensor e, {OPTIONS}) "
                                "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)")
def linear_memory_backward_op(dy, dM, q, k, v, la, er, wr, M0, states, e, chunk, objective, read, self_values):
    """Gradients of q, k, v, la, er, wr, M0; la's and er's are empty when they were absent."""
    B, H, L, DK = k.shape
    DV = M0.shape[-2]
    chunk, N, NV, meta, options = _launch_arguments(q, v, la, er, M0, chunk, objective, read, self_values)
    q, k, v, wr, dy, dM = (x.contiguous() for x in (q, k, v, wr, dy, dM))
    decays, erases = la is not None, er is not None
    la, er = (wr if x is None else x.contiguous() for x in (la, er))
    like = {"dtype": M0.dtype, "device": q.device}
    dstates, dr, dm0 = torch.empty_like(states), torch.empty_like(e), torch.empty(B, H, DV, DK, **like)
    launch(linear_memory_backward_chain, (NV, B * H), q, k, v, la, er, wr, dy, dM, dstates, dr, dm0, L, N, chunk,
           **meta,
           **options)
    dq, dk = (torch.empty(NV, B, H, L, DK, **like) for _ in range(2))
    dla, der, dwr = (torch.empty(NV if there else 0, B, H, L, **like) for there in (decays, erases, True))
    dv = torch.empty(NV, B, H, L, DK, **like) if self_values else torch.empty_like(v)
    launch(linear_memory_backward_rest, (N, NV, B * H), q, k, v, la, er, wr, states, dstates, e, dr, dy, dq, dk, dv,
           dla, der, dwr,
           L, N, chunk, B * H * L, **meta, **options)
    return (total(dq, q), total(dk, k), total(dv, v) if self_values else dv, total(dla, wr) if decays else dla,
            total(der, wr) if erases else der, total(dwr, wr), dm0)


def total(slabs: Tensor, like: Tensor) -> Tensor:
    """Sum over value blocks, in like's dtype."""
    return (slabs[0] if slabs.shape[0] == 1 else slabs.sum(0)).to(like.dtype)


@linear_memory_backward_op.register_fake
def _(dy, dM, q, k, v, la, er, wr, M0, states, e, chunk, objective, read, self_values):
    gate = [wr.new_empty(wr.shape if there else (0, *wr.shape)) for there in (la is not None, er is not None, True)]
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
        dy, dM, q, k, v, la, er, wr, M0, states, e, *ctx.options)
    return dq, dk, dv, None if la is None else dla, None if er is None else der, dwr, dm0, None, None, None, None


linear_memory_op.register_autograd(_backward, setup_context=_save)


def fused(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor | None, erase: Tensor | None, write: Tensor, M0: Tensor, *,
          chunk: int, objective: str, read: str, self_values: bool) -> tuple[Tensor, Tensor]:
    """Shapes as in `linear_memory`; gates and M0 in float32 (float64 for float64).

    Returns (y, last memory).  eq. 90, eq. 92-93
    """
    need("linear_memory", chunk <= 128 or (objective == "dot" and read != "start" and not self_values), "chunk", chunk,
         "at most 128 for impl='triton', where the chunk is part of the rule", "impl='chunked' takes any")
    log_alpha = None if alpha is None else alpha.log()
    y, M, _, _ = linear_memory_op(q, k, v, log_alpha, erase, write, M0, chunk, objective, read, self_values)
    return y, M


def compile_cases(cc: int, dtype: str, d: int = 64) -> list[Case]:
    """The three kernels as gated_delta_rule (the chunk is free) and as hope_memory (chunk 64 at the user's word)
    launch them."""
    found = []
    for objective, read in (("dot", "before"), ("l2", "start")):
        _, meta, options = plan(TORCH[dtype], (cc // 10, cc % 10), d, d, 64, objective == "dot")
        meta |= {"DX": d, "DECAY": True, "ERASE": True, "L2": objective == "l2", "SELF": False, "READ": read,
                 "PREC": "tf32" if dtype == "fp32" else dtype, "ACC": tl.float32}
        for kernel in (linear_memory_forward, linear_memory_backward_chain, linear_memory_backward_rest):
            tokens = {"q", "k", "v", "y", "e", "dy", "dr"} | ({"dv"} if not meta["SELF"] else set())
            integers = {"L", "N", "CHUNK", "BHL"}
            signature = {n: "i32" if n in integers else f"*{dtype}" if n in tokens else "*fp32"
                         for n in kernel.arg_names}
            found.append(Case(kernel, {n: t for n, t in signature.items() if n not in meta}, meta, **options,
                              label=f"{dtype} d{d} C{meta['C']} {objective} {read}"))
    return found
