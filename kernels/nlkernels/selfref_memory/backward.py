"""The self-referential memory's backward: the chain of the memories' gradients, and what needs no chain.

Of a chunk, given dM' of every memory (primes: at the chunk's end; P = (w K)^T Z, Phi = e^{g_C} I + P):

    S' = Phi S (each):           dPhi = sum dM'^T M,   dM = e^{g_C} dM' + dM' P + ...
    P = (w K)^T Z:               dZ = (w K) dPhi,   dK = w Z dPhi^T
    (I + L) Z = eta V - s K:     dR = (I + L)^-T dZ = G dPhi,   dL = -dR Z^T,   dV = eta dR,   dK -= s dR + ...
    K = unit(X S_k), ...:        dK~ = (dK - K <dK, K>) / |K~|,   dM_k += dK~^T X,   dX = dK~ M_k + dV~ M_v + ...
    Y = Q S_mem:                 dM_mem += dY^T Q,   dQ = dY M_mem
"""

from __future__ import annotations

import triton
import triton.language as tl

from nlkernels.blocks import crossing, decay, dot_add, earlier, later, product, put, tile


@triton.jit
def selfref_memory_backward_chain(
    x,
    q,
    states,
    vectors,
    keys,
    values,
    zs,
    phis,
    gs,
    gates,
    dy,
    dms,
    dvectors,
    dks,
    dvs,
    dzs,
    dphis,
    drs,
    dk1,
    sums,
    L,
    N,
    CHUNK,
    D: tl.constexpr,
    BD: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    R: tl.constexpr,
    L2: tl.constexpr,
    UNIT: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """One program per (batch, head), last chunk first.

    dms (2, 3, D, D) and dvectors (2, 2, D): the memories' gradients, from one half to the other at every chunk; those
    of the last memories are given. dphis (D, D), drs, dk1 (CHUNK, D), sums (6, C): scratch.
    """
    bh = tl.program_id(0).to(tl.int64)
    o = tl.arange(0, BD)
    ok = o < D
    x += bh * L * D
    q += bh * L * D
    dy += bh * L * D
    keys += bh * L * D
    values += bh * L * D
    zs += bh * L * D
    gs += bh * L * D
    dks += bh * L * D
    dvs += bh * L * D
    dzs += bh * 2 * L
    dms += bh * 6 * D * D
    dvectors += bh * 4 * D
    dphis += bh * D * D
    drs += bh * CHUNK * D
    dk1 += bh * CHUNK * D
    sums += bh * 6 * C
    for back in tl.range(0, N, disable_licm=True):
        n = N - 1 - back
        tokens = tl.minimum(CHUNK, L - n * CHUNK)
        first = n * CHUNK * D
        st = states + (bh * N + n) * 3 * D * D
        vec = vectors + (bh * (N + 1) + n) * 2 * D
        phi = phis + (bh * N + n) * D * D
        gate = gates + (bh * N + n) * 8 * C
        old, new = dms + (back % 2) * 3 * D * D, dms + ((back + 1) % 2) * 3 * D * D
        vold, vnew = dvectors + (back % 2) * 2 * D, dvectors + ((back + 1) % 2) * 2 * D
        trace = change_of_transition(old, vold, st, vec, dphis, D, BD, R, PREC, ACC)
        tl.debug_barrier()
        change_of_solution(
            keys + first,
            values + first,
            zs + first,
            gs + first,
            gate,
            dphis,
            drs,
            dk1,
            dvs + first,
            sums,
            tokens,
            D,
            BD,
            C,
            T,
            R,
            L2,
            UNIT,
            PREC,
            ACC,
        )
        tl.debug_barrier()
        change_of_keys(
            keys + first, zs + first, gate, drs, dk1, dks + first, sums, tokens, D, BD, C, T, R, L2, PREC, ACC
        )
        tl.debug_barrier()
        change_of_decays(keys + first, zs + first, gate, drs, sums, tokens, D, C, T, R, PREC, ACC)
        tl.debug_barrier()
        keep = change_of_gates(gate, sums, dzs + n * CHUNK, trace, tokens, L, C, ACC)
        tl.debug_barrier()
        # dM = e^{g_C} dM' + dM' P + (what the chunk read from M)
        for m in tl.static_range(3):
            if m == 0:
                left, right = dks + first, x + first
            elif m == 1:
                left, right = dvs + first, x + first
            else:
                left, right = dy + first, q + first
            for b in tl.range(0, D, R, disable_licm=True):
                p = b + tl.arange(0, R)
                there = p < D
                at, here = m * D * D + p[:, None] * D + o[None, :], there[:, None] & ok[None, :]
                dM = keep * tl.load(old + at, mask=here, other=0.0).to(ACC)
                dM = product(dM, old + m * D * D, D, 1, p, there, phi, D, 1, o, ok, D, R, PREC, ACC)
                dM = product(dM, left, 1, D, p, there, right, D, 1, o, ok, tokens, T, PREC, ACC)
                tl.store(new + at, dM, mask=here)
        i = tl.arange(0, C)
        for v in tl.static_range(2):
            dz = tl.load(dzs + v * L + n * CHUNK + i, mask=i < tokens, other=0.0).to(ACC)
            for b in tl.range(0, D, R, disable_licm=True):
                p = b + tl.arange(0, R)
                there = p < D
                dv = keep * tl.load(vold + v * D + p, mask=there, other=0.0).to(ACC)
                Pt = tile(phi, o[None, :], p[:, None], D, ok[None, :], there[:, None], ACC)
                dv += tl.sum(Pt * tl.load(vold + v * D + o, mask=ok, other=0.0).to(ACC)[None, :], 1)
                Xt = tile(x + first, i[None, :], p[:, None], D, i[None, :] < tokens, there[:, None], ACC)
                dv += tl.sum(Xt * dz[None, :], 1)
                tl.store(vnew + v * D + p, dv, mask=there)
        tl.debug_barrier()


@triton.jit
def change_of_transition(
    dm, dvec, st, vec, dphis, D: tl.constexpr, BD: tl.constexpr, R: tl.constexpr, PREC: tl.constexpr, ACC: tl.constexpr
):
    """dPhi = sum dM'^T M over the five memories; returns its trace."""
    o = tl.arange(0, BD)
    ok = o < D
    trace = tl.zeros([1], ACC)
    for b in tl.range(0, D, R, disable_licm=True):
        p = b + tl.arange(0, R)
        there = p < D
        dPhi = tl.zeros([R, BD], ACC)
        for v in tl.static_range(2):
            dv = tl.load(dvec + v * D + p, mask=there, other=0.0).to(ACC)
            dPhi += dv[:, None] * tl.load(vec + v * D + o, mask=ok, other=0.0).to(ACC)[None, :]
        for m in tl.range(0, 3, disable_licm=True):
            dPhi = product(dPhi, dm + m * D * D, 1, D, p, there, st + m * D * D, D, 1, o, ok, D, R, PREC, ACC)
        put(dphis + p[:, None] * D + o[None, :], dPhi, there[:, None] & ok[None, :])
        trace += tl.sum(tl.sum(tl.where(p[:, None] == o[None, :], dPhi, 0.0), 1), 0)
    return trace


@triton.jit
def change_of_solution(
    keys,
    values,
    zs,
    gs,
    gate,
    dphis,
    drs,
    dk1,
    dvs,
    sums,
    tokens,
    D: tl.constexpr,
    BD: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    R: tl.constexpr,
    L2: tl.constexpr,
    UNIT: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """dR = G dPhi, dV of it, and dK's part through w K; row sums for the gates: dw, d eta, d g'."""
    o = tl.arange(0, BD)
    ok = o < D
    for t in tl.range(0, tokens, T, disable_licm=True):
        i = t + tl.arange(0, T)
        live = i < tokens
        here, at = live[:, None] & ok[None, :], i[:, None] * D + o[None, :]
        dR = product(tl.zeros([T, BD], ACC), gs, D, 1, i, live, dphis, D, 1, o, ok, D, R, PREC, ACC)
        tl.store(drs + at, dR, mask=here)
        eta = tl.load(gate + i, mask=live, other=0.0).to(ACC)
        passed = tl.exp(tl.load(gate + 7 * C + i, mask=live, other=0.0).to(ACC))
        ds = -tl.sum(dR * tl.load(keys + at, mask=here, other=0.0).to(ACC), 1)
        V = tl.load(values + at, mask=here, other=0.0).to(ACC)
        deta = tl.sum(dR * V, 1) + ds * passed
        if L2:
            deta += ds
        tl.store(sums + C + i, deta, mask=live)
        tl.store(sums + 2 * C + i, ds * eta * passed, mask=live)
        dV = eta[:, None] * dR
        if UNIT:
            dV = tl.load(gate + 5 * C + i, mask=live, other=0.0).to(ACC)[:, None] * (
                dV - V * tl.sum(dV * V, 1)[:, None]
            )
        tl.store(dvs + at, dV, mask=here)
        dK = product(tl.zeros([T, BD], ACC), zs, D, 1, i, live, dphis, 1, D, o, ok, D, R, PREC, ACC)
        dK = dK * tl.load(gate + 6 * C + i, mask=live, other=0.0).to(ACC)[:, None]
        tl.store(dk1 + at, dK, mask=here)
        tl.store(sums + i, tl.sum(dK * tl.load(keys + at, mask=here, other=0.0).to(ACC), 1), mask=live)


@triton.jit
def change_of_keys(
    keys,
    zs,
    gate,
    drs,
    dk1,
    dks,
    sums,
    tokens,
    D: tl.constexpr,
    BD: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    R: tl.constexpr,
    L2: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """dK~ of all: through the right side, through L_ti = eta_t e^{g'_t - g_i} k_t . k_i, and through unit()."""
    o = tl.arange(0, BD)
    ok = o < D
    for t in tl.range(0, tokens, T, disable_licm=True):
        i = t + tl.arange(0, T)
        live = i < tokens
        here, at = live[:, None] & ok[None, :], i[:, None] * D + o[None, :]
        gp = tl.load(gate + 7 * C + i, mask=live, other=0.0).to(ACC)
        XK = tl.zeros([T, BD], ACC)
        for u in tl.range(0, t + T, T, disable_licm=True):  # tokens up to this block
            j = u + tl.arange(0, T)
            there = j < tokens
            g = tl.load(gate + C + j, mask=there, other=0.0).to(ACC) + tl.load(
                gate + 7 * C + j, mask=there, other=0.0
            ).to(ACC)
            scores = product(tl.zeros([T, T], ACC), drs, D, 1, i, live, zs, 1, D, j, there, D, R, PREC, ACC)
            scores = -scores * decay(gp[:, None], g[None, :], (i[:, None] > j[None, :]) & live[:, None])
            XK = dot_add(scores, tile(keys, j[:, None], o[None, :], D, there[:, None], ok[None, :], ACC), XK, PREC)
        dL = tl.sum(XK * tl.load(keys + at, mask=here, other=0.0).to(ACC), 1)
        tl.store(sums + 4 * C + i, dL, mask=live)
        eta = tl.load(gate + i, mask=live, other=0.0).to(ACC)
        s = eta * tl.exp(gp)
        if L2:
            s += eta
        dK = tl.load(dk1 + at, mask=here, other=0.0).to(ACC) + eta[:, None] * XK
        dK -= s[:, None] * tl.load(drs + at, mask=here, other=0.0).to(ACC)
        g = gp + tl.load(gate + C + i, mask=live, other=0.0).to(ACC)
        XtK = tl.zeros([T, BD], ACC)
        for u in tl.range(t, tokens, T, disable_licm=True):  # and from it on
            j = u + tl.arange(0, T)
            there = j < tokens
            later = decay(
                tl.load(gate + 7 * C + j, mask=there, other=0.0).to(ACC)[None, :],
                g[:, None],
                (i[:, None] < j[None, :]) & there[None, :],
            )
            scores = product(tl.zeros([T, T], ACC), zs, D, 1, i, live, drs, 1, D, j, there, D, R, PREC, ACC)
            scores = -scores * later * tl.load(gate + j, mask=there, other=0.0).to(ACC)[None, :]
            XtK = dot_add(scores, tile(keys, j[:, None], o[None, :], D, there[:, None], ok[None, :], ACC), XtK, PREC)
        dK += XtK
        K = tl.load(keys + at, mask=here, other=0.0).to(ACC)
        rk = tl.load(gate + 4 * C + i, mask=live, other=0.0).to(ACC)
        tl.store(dks + at, rk[:, None] * (dK - K * tl.sum(dK * K, 1)[:, None]), mask=here)


@triton.jit
def change_of_decays(
    keys,
    zs,
    gate,
    drs,
    sums,
    tokens,
    D: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    R: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """The gradient of log alpha through L, T rows and T columns at a time."""
    dlog = tl.zeros([C], ACC)
    for t in tl.range(0, tokens, T, disable_licm=True):
        i = t + tl.arange(0, T)
        live = i < tokens
        eta = tl.load(gate + i, mask=live, other=0.0).to(ACC)
        gp = tl.load(gate + 7 * C + i, mask=live, other=0.0).to(ACC)
        for u in tl.range(0, t + T, T, disable_licm=True):
            j = u + tl.arange(0, T)
            there = j < tokens
            g = tl.load(gate + C + j, mask=there, other=0.0).to(ACC)
            g += tl.load(gate + 7 * C + j, mask=there, other=0.0).to(ACC)
            X = product(tl.zeros([T, T], ACC), drs, D, 1, i, live, zs, 1, D, j, there, D, R, PREC, ACC)
            X *= product(tl.zeros([T, T], ACC), keys, D, 1, i, live, keys, 1, D, j, there, D, R, PREC, ACC)
            X *= -eta[:, None] * decay(gp[:, None], g[None, :], (i[:, None] > j[None, :]) & live[:, None])
            dlog += crossing_blocks(X, t, u, C, T)
    tl.store(sums + 3 * C + tl.arange(0, C), dlog)


@triton.jit
def crossing_blocks(X, t, u, C: tl.constexpr, T: tl.constexpr):
    """`blocks.crossing` of a whole chunk, for X (T, T) of the rows from t on and the columns from u <= t on."""
    s, i = tl.arange(0, C), tl.arange(0, T)
    if t == u:
        y = crossing(X, i, True, T)
        y = tl.sum(tl.where(t + i[:, None] == s[None, :], y[:, None], 0.0), 0)
    else:  # every column lies before every row
        rows, columns = tl.sum(X, 1), tl.sum(X, 0)
        later_rows = tl.sum(tl.where(t + i[:, None] > s[None, :], rows[:, None], 0.0), 0)
        earlier_columns = tl.sum(tl.where(u + i[:, None] < s[None, :], columns[:, None], 0.0), 0)
        y = tl.where(s >= t, later_rows, earlier_columns)
    return y


@triton.jit
def change_of_gates(gate, sums, dzs, trace, tokens, L, C: tl.constexpr, ACC: tl.constexpr):
    """Gradients before the sigmoids, from the row sums; returns e^{g_C}."""
    i = tl.arange(0, C)
    live = i < tokens
    dw = tl.load(sums + i, mask=live, other=0.0).to(ACC)
    dL = tl.load(sums + 4 * C + i, mask=live, other=0.0).to(ACC)
    deta = tl.load(sums + C + i, mask=live, other=0.0).to(ACC) + dL
    ds = tl.load(sums + 2 * C + i, mask=live, other=0.0).to(ACC)
    keep = tl.exp(tl.sum(tl.load(gate + C + i, mask=live, other=0.0).to(ACC), 0))
    dlog = keep * tl.sum(trace, 0) + earlier(dw, C) + later(ds, C) + tl.load(sums + 3 * C + i).to(ACC)
    tl.store(dzs + i, deta * tl.load(gate + 2 * C + i, mask=live, other=0.0).to(ACC), mask=live)
    tl.store(dzs + L + i, dlog * tl.load(gate + 3 * C + i, mask=live, other=0.0).to(ACC), mask=live)
    return keep


@triton.jit
def selfref_memory_backward_rest(
    states,
    vectors,
    dy,
    dks,
    dvs,
    dzs,
    dx,
    dq,
    L,
    N,
    CHUNK,
    D: tl.constexpr,
    BD: tl.constexpr,
    T: tl.constexpr,
    R: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """dX and dQ of every chunk, all at once."""
    n, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    o = tl.arange(0, BD)
    ok = o < D
    tokens = tl.minimum(CHUNK, L - n * CHUNK)
    first = bh * L * D + n * CHUNK * D
    st = states + (bh * N + n) * 3 * D * D
    vec = vectors + (bh * (N + 1) + n) * 2 * D
    dzs += bh * 2 * L + n * CHUNK
    for t in tl.range(0, tokens, T, disable_licm=True):
        i = t + tl.arange(0, T)
        live = i < tokens
        here, at = live[:, None] & ok[None, :], first + i[:, None] * D + o[None, :]
        dQ = product(tl.zeros([T, BD], ACC), dy + first, D, 1, i, live, st + 2 * D * D, D, 1, o, ok, D, R, PREC, ACC)
        put(dq + at, dQ, here)
        dX = product(tl.zeros([T, BD], ACC), dks + first, D, 1, i, live, st, D, 1, o, ok, D, R, PREC, ACC)
        dX = product(dX, dvs + first, D, 1, i, live, st + D * D, D, 1, o, ok, D, R, PREC, ACC)
        for v in tl.static_range(2):
            dz = tl.load(dzs + v * L + i, mask=live, other=0.0).to(ACC)
            dX += dz[:, None] * tl.load(vec + v * D + o, mask=ok, other=0.0).to(ACC)[None, :]
        put(dx + at, dX, here)
