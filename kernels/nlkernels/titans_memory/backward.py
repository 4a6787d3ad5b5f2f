"""Titans' linear memory backwards: four kernels, of which only `chain` walks the chunks.

Notation of chunked.py: b, m cumulated retention and momentum, B = tril(b_t / b_j), W = tril(m_j / m_i), G = B W,
f = B m; b_C, m_C, f_C and the rows G_C, W_C are those of the chunk's last token. Of a chunk, dM' and dS' at its end:

    prepare    H = (G * Q K^T)^T dY
    chain      dU = H + G_C * (K dM') + W_C * (K dS')
               dM = b_C dM' + Q^T (b dY) - K^T (eta dU),      dS = m_C dS' + f_C dM' + Q^T (f dY)
    rest       dQ = b * (dY M^T) + f * (dY S^T) + (G * dY U^T) K
               dK = (G * dY U^T)^T Q + G_C * (U dM'^T) + W_C * (U dS'^T) - eta (dU M^T)
    gates      dV = eta dU, and alpha, mu, eta

The gates: dG = (dY U^T) * (Q K^T) and df go through G = B W and f = B m, and the gradient of a mask's element belongs
to all gates between its two tokens (`blocks.crossing`). For "before" the masks of what is read are those of the token
before: b_{t-1} / b_j, j < t.
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
    gram,
    later,
    mask_dot,
    product,
    put,
    suffix_sum,
    tile,
)


@triton.jit
def sums(la, lu, r, mr, C: tl.constexpr, READ: tl.constexpr, ACC: tl.constexpr):
    """Cumulated log alpha and log mu, and the former up to the token whose memory is read."""
    a = tl.load(la + r, mask=mr, other=0.0).to(ACC)
    lb = tl.cumsum(a, 0)
    lm = tl.cumsum(tl.load(lu + r, mask=mr, other=0.0).to(ACC), 0)
    if READ == "before":
        to = lb - a
    else:
        to = lb
    return lb, lm, to


@triton.jit
def until(rows, cols, READ: tl.constexpr):
    """Whether the momentum of token `cols` is in what token `rows` reads."""
    if READ == "before":
        r = cols < rows
    else:
        r = cols <= rows
    return r


@triton.jit
def titans_memory_backward_prepare(
    q,
    k,
    la,
    lu,
    dy,
    hs,
    L,
    CHUNK,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    READ: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """One program per (chunk, value block, batch x head)."""
    n, pv, bh = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    i, ov = tl.arange(0, C), pv * BV + tl.arange(0, BV)
    r = n * CHUNK + i
    mr, mv = (i < CHUNK) & (r < L), ov < DV
    first = bh * L + n * CHUNK
    lb, lm, to = sums(la + bh * L, lu + bh * L, r, mr, C, READ, ACC)
    j, t = i[:, None], i[None, :]
    Bt = decay(to[None, :], lb[:, None], until(t, j, READ) & mr[:, None] & mr[None, :])  # (j, t)
    Gt = mask_dot(decay(lm[None, :], lm[:, None], j <= t), Bt, PREC)
    At = Gt * gram(k + first * DK, q + first * DK, i, mr, DK, C, R, PREC, ACC)
    dY = tile(dy + first * DV, i[:, None], ov[None, :], DV, mr[:, None], mv[None, :], ACC)
    put(hs + first * DV + i[:, None] * DV + ov[None, :], dot(At, dY, PREC), mr[:, None] & mv[None, :])


@triton.jit
def titans_memory_backward_chain(
    q,
    k,
    la,
    lu,
    wr,
    hs,
    dy,
    dmT,
    dsT,
    dstates,
    du,
    dm0,
    ds0,
    L,
    N,
    CHUNK,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    READ: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """One program per (value block, batch x head), last chunk first."""
    pv, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, ok, ov = tl.arange(0, C), tl.arange(0, BK), pv * BV + tl.arange(0, BV)
    mk, mv = ok < DK, ov < DV
    q += bh * L * DK
    k += bh * L * DK
    dy += bh * L * DV
    hs += bh * L * DV
    du += bh * L * DV
    sm = mk[:, None] & mv[None, :]
    m_at = bh * DK * DV + ov[None, :] * DK + ok[:, None]
    dM = tl.load(dmT + m_at, mask=sm, other=0.0).to(ACC)
    dS = tl.load(dsT + m_at, mask=sm, other=0.0).to(ACC)
    for back in tl.range(0, N, disable_licm=True):
        n = N - 1 - back
        st = dstates + (bh * N + n) * 2 * DK * DV + ok[:, None] * DV + ov[None, :]
        tl.store(st, dM, mask=sm)
        tl.store(st + DK * DV, dS, mask=sm)
        r = n * CHUNK + i
        mr = (i < CHUNK) & (r < L)
        here, at = mr[:, None] & mv[None, :], r[:, None] * DV + ov[None, :]
        lb, lm, to = sums(la + bh * L, lu + bh * L, r, mr, C, READ, ACC)
        end = i == C - 1
        lbC, lmC = tl.sum(tl.where(end, lb, 0.0), 0), tl.sum(tl.where(end, lm, 0.0), 0)
        last = decay(lbC, lb, mr)  # b_C / b_j
        fC = tl.sum(last * tl.exp(lm), 0)
        W = decay(lm[:, None], lm[None, :], i[:, None] >= i[None, :])
        GC = tl.sum(last[:, None] * W, 0)
        K = tile(k, r[:, None], ok[None, :], DK, mr[:, None], mk[None, :], ACC)
        dU = GC[:, None] * dot(K, dM, PREC) + tl.exp(lmC - lm)[:, None] * dot(K, dS, PREC)
        if READ != "start":
            dU += tl.load(hs + at, mask=here, other=0.0).to(ACC)
        put(du + at, dU, here)
        dS = tl.exp(lmC) * dS + fC * dM
        Kt = tile(k, r[None, :], ok[:, None], DK, mr[None, :], mk[:, None], ACC)
        h = tl.load(wr + bh * L + r, mask=mr, other=0.0).to(ACC)
        dM = dot_add(-Kt, h[:, None] * dU, tl.exp(lbC) * dM, PREC)
        tl.debug_barrier()  # orders nothing, but keeps the compiler from mixing the sections
        dY = tl.load(dy + at, mask=here, other=0.0).to(ACC)
        Qt = tile(q, r[None, :], ok[:, None], DK, mr[None, :], mk[:, None], ACC)
        if READ == "start":
            dM = dot_add(Qt, dY, dM, PREC)
        else:
            B = decay(to[:, None], lb[None, :], until(i[:, None], i[None, :], READ) & mr[None, :])
            f = tl.sum(B * tl.exp(lm)[None, :], 1)
            dM = dot_add(Qt, tl.exp(to)[:, None] * dY, dM, PREC)
            dS = dot_add(Qt, f[:, None] * dY, dS, PREC)
    tl.store(dm0 + m_at, dM, mask=sm)
    tl.store(ds0 + m_at, dS, mask=sm)


@triton.jit
def titans_memory_backward_rest(
    q,
    k,
    la,
    lu,
    wr,
    states,
    dstates,
    us,
    du,
    dy,
    dq,
    dk,
    rows,
    L,
    N,
    CHUNK,
    BHN,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BC: tl.constexpr,
    BW: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    READ: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """dQ and dK: one program per (chunk, BC columns, batch x head); BW holds all DV values.

    rows (5, C) a column block and chunk: what `gates` needs of these columns: the gradients of the reading's row
    factors b and f, of G_C and W_C, and of the three numbers b_C, f_C, m_C.
    """
    n, part, bh = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    i, ok, ov = tl.arange(0, C), part * BC + tl.arange(0, BC), tl.arange(0, BW)
    r = n * CHUNK + i
    mr, mk, mv = (i < CHUNK) & (r < L), ok < DK, ov < DV
    here, at = mr[:, None] & mk[None, :], i[:, None] * DK + ok[None, :]
    first = bh * L + n * CHUNK
    q += first * DK
    k += first * DK
    dq += first * DK
    dk += first * DK
    us += first * DV
    du += first * DV
    dy += first * DV
    rows += ((part.to(tl.int64) * BHN + bh * N) + n) * 5 * C
    M = states + (bh * N + n) * 2 * DK * DV
    S = M + DK * DV
    dM = dstates + (bh * N + n) * 2 * DK * DV
    dS = dM + DK * DV
    lb, lm, to = sums(la + bh * L, lu + bh * L, r, mr, C, READ, ACC)
    dbC = tl.sum(tl.zeros([C], ACC), 0)
    dfC = dbC
    dmC = dbC
    for b in tl.range(part * BC, part * BC + BC, R, disable_licm=True):
        p = b + tl.arange(0, R)
        sm, at_s = (p < tl.minimum(DK, part * BC + BC))[:, None] & mv[None, :], p[:, None] * DV + ov[None, :]
        one = tl.load(dM + at_s, mask=sm, other=0.0).to(ACC)
        dbC += tl.sum(tl.sum(one * tl.load(M + at_s, mask=sm, other=0.0).to(ACC), 1), 0)
        two = tl.load(S + at_s, mask=sm, other=0.0).to(ACC)
        dfC += tl.sum(tl.sum(one * two, 1), 0)
        dmC += tl.sum(tl.sum(two * tl.load(dS + at_s, mask=sm, other=0.0).to(ACC), 1), 0)
    tl.store(rows + 4 * C + i, tl.where(i == 0, dbC, tl.where(i == 1, dfC, dmC)))
    # M' = b_C M + f_C S + (G_C K)^T U,   S' = m_C S + (W_C K)^T U,   U = eta (V - K M)
    _last, WC, GC = at_the_end(lb, lm, mr, i, C)
    dK = product(tl.zeros([C, BC], ACC), us, DV, 1, i, mr, dM, 1, DV, ok, mk, DV, R, PREC, ACC)
    tl.store(rows + 2 * C + i, tl.sum(dK * tl.load(k + at, mask=here, other=0.0).to(ACC), 1))
    dK = GC[:, None] * dK
    UdS = product(tl.zeros([C, BC], ACC), us, DV, 1, i, mr, dS, 1, DV, ok, mk, DV, R, PREC, ACC)
    tl.store(rows + 3 * C + i, tl.sum(UdS * tl.load(k + at, mask=here, other=0.0).to(ACC), 1))
    dK += WC[:, None] * UdS
    tl.debug_barrier()  # here and below: orders nothing, but keeps the compiler from mixing sections
    h = tl.load(wr + bh * L + r, mask=mr, other=0.0).to(ACC)
    dK -= h[:, None] * product(tl.zeros([C, BC], ACC), du, DV, 1, i, mr, M, 1, DV, ok, mk, DV, R, PREC, ACC)
    tl.debug_barrier()
    # Y = b * Q M + f * Q S + (G * Q K^T) U
    dQ = product(tl.zeros([C, BC], ACC), dy, DV, 1, i, mr, M, 1, DV, ok, mk, DV, R, PREC, ACC)
    if READ != "start":
        dQ = tl.exp(to)[:, None] * dQ
        tl.store(rows + i, tl.sum(dQ * tl.load(q + at, mask=here, other=0.0).to(ACC), 1))
        dYS = product(tl.zeros([C, BC], ACC), dy, DV, 1, i, mr, S, 1, DV, ok, mk, DV, R, PREC, ACC)
        tl.store(rows + C + i, tl.sum(dYS * tl.load(q + at, mask=here, other=0.0).to(ACC), 1))
        B = decay(to[:, None], lb[None, :], until(i[:, None], i[None, :], READ) & mr[None, :] & mr[:, None])
        dQ += tl.sum(B * tl.exp(lm)[None, :], 1)[:, None] * dYS
        tl.debug_barrier()
        G = mask_dot(B, decay(lm[:, None], lm[None, :], i[:, None] >= i[None, :]), PREC)
        G = G * gram(dy, us, i, mr, DV, C, R, PREC, ACC)
        dQ = dot_add(G, tl.load(k + at, mask=here, other=0.0).to(ACC), dQ, PREC)
        put(dq + at, dQ, here)
        tl.debug_barrier()
        Bt = decay(to[None, :], lb[:, None], until(i[None, :], i[:, None], READ) & mr[:, None] & mr[None, :])
        Gt = mask_dot(decay(lm[None, :], lm[:, None], i[:, None] <= i[None, :]), Bt, PREC)
        Gt = Gt * gram(us, dy, i, mr, DV, C, R, PREC, ACC)
        dK = dot_add(Gt, tl.load(q + at, mask=here, other=0.0).to(ACC), dK, PREC)
    else:
        put(dq + at, dQ, here)
    put(dk + at, dK, here)


@triton.jit
def at_the_end(lb, lm, mr, i, C: tl.constexpr):
    """b_C / b_j, W_C and G_C."""
    end = i == C - 1
    last = decay(tl.sum(tl.where(end, lb, 0.0), 0), lb, mr)
    WC = tl.exp(tl.sum(tl.where(end, lm, 0.0), 0) - lm)
    return last, WC, tl.sum(last[:, None] * decay(lm[:, None], lm[None, :], i[:, None] >= i[None, :]), 0)


@triton.jit
def titans_memory_backward_gates(
    q,
    k,
    v,
    la,
    lu,
    wr,
    states,
    us,
    du,
    dy,
    rows,
    dv,
    dla,
    dlu,
    dwr,
    L,
    N,
    CHUNK,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BW: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    READ: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """dV and the gates: one program per (chunk, batch x head). rows: from `rest`, summed over its columns."""
    n, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, ov = tl.arange(0, C), tl.arange(0, BW)
    r = n * CHUNK + i
    mr, mv = (i < CHUNK) & (r < L), ov < DV
    first = bh * L + n * CHUNK
    h = tl.load(wr + bh * L + r, mask=mr, other=0.0).to(ACC)
    at, here = first * DV + i[:, None] * DV + ov[None, :], mr[:, None] & mv[None, :]
    M, K = states + (bh * N + n) * 2 * DK * DV, k + first * DK
    error = product(tl.zeros([C, BW], ACC), K, DK, 1, i, mr, M, DV, 1, ov, mv, DK, R, PREC, ACC)
    error = tl.load(v + at, mask=here, other=0.0).to(ACC) - error
    dU = tl.load(du + at, mask=here, other=0.0).to(ACC)
    tl.store(dwr + bh * L + r, tl.sum(dU * error, 1), mask=mr)
    put(dv + at, h[:, None] * dU, here)
    tl.debug_barrier()  # here and below: orders nothing, but keeps the compiler from mixing sections
    lb, lm, to = sums(la + bh * L, lu + bh * L, r, mr, C, READ, ACC)
    end, j, t = i == C - 1, i[:, None], i[None, :]
    dto = tl.zeros([C], ACC)
    df = tl.zeros([C], ACC)
    rows += (bh * N + n) * 5 * C + i
    if READ != "start":
        dto += tl.load(rows).to(ACC)
        df += tl.load(rows + C).to(ACC)
    dGC = tl.load(rows + 2 * C).to(ACC)
    dWC = tl.load(rows + 3 * C).to(ACC)
    three = tl.load(rows + 4 * C).to(ACC)
    dbC = tl.sum(tl.where(i == 0, three, 0.0), 0)
    dfC = tl.sum(tl.where(i == 1, three, 0.0), 0)
    dmC = tl.sum(tl.where(i == 2, three, 0.0), 0)
    # at the chunk's end: G_C = last W,  f_C = last . m
    m = tl.exp(lm)
    last, WC, _GC = at_the_end(lb, lm, mr, i, C)
    W = decay(lm[:, None], lm[None, :], j >= t)
    dlast = (tl.sum(W * dGC[None, :], 1) + dfC * m) * last
    da = earlier(dlast, C) + dbC * tl.exp(tl.sum(tl.where(end, lb, 0.0), 0))
    du = earlier(dWC * WC, C) + dmC * tl.exp(tl.sum(tl.where(end, lm, 0.0), 0))
    dm = dfC * last * m
    tl.debug_barrier()
    du += crossing(last[:, None] * dGC[None, :] * W, i, False, C)
    if READ != "start":  # G = B W,  f = B m
        tl.debug_barrier()
        dG = gram(dy + first * DV, us + first * DV, i, mr, DV, C, R, PREC, ACC)
        dG = dG * gram(q + first * DK, k + first * DK, i, mr, DK, C, R, PREC, ACC)
        dG = tl.where(until(j, t, READ), dG, 0.0)
        dB = mask_dot(dG, decay(lm[None, :], lm[:, None], j <= t), PREC) + df[:, None] * m[None, :]
        B = decay(to[:, None], lb[None, :], until(j, t, READ) & mr[None, :] & mr[:, None])
        dm += tl.sum(B * df[:, None], 0) * m
        dB = dB * B
        tl.debug_barrier()
        da += crossing(dB, i, READ == "before", C)
        tl.debug_barrier()
        Bt = decay(to[None, :], lb[:, None], until(t, j, READ) & mr[:, None] & mr[None, :])
        through = mask_dot(Bt, dG, PREC) * decay(lm[:, None], lm[None, :], j >= t)
        tl.debug_barrier()
        du += crossing(through, i, False, C)
    if READ == "before":
        da += later(dto, C)
    else:
        da += suffix_sum(dto, C)
    tl.store(dla + bh * L + r, da, mask=mr)
    tl.store(dlu + bh * L + r, du + suffix_sum(dm, C), mask=mr)
