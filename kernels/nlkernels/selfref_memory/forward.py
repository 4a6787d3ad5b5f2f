"""What the self-referential memory's kernels do chunk by chunk: make keys, values and gates, solve, step.

Three helpers follow the chunk form (chunked.py); between them everything lies in scratch memory, which the cache
holds, in the tokens' dtype, to which a product would round it anyway. Each takes pointers to the first token of a
chunk and works through `T` tokens or `R` dimensions at a time, so that a tile of any head size fits the registers.
A barrier orders what one thread stored before what another loads; nothing is updated in place.

The rows of `gates`, C numbers each: eta, log alpha, the slopes of both, 1 / |k~|, 1 / |v~|, w = e^{g_C - g} and g'.
"""

from __future__ import annotations

import triton
import triton.language as tl

from nlkernels.blocks import decay, product, put, solve_rows, solve_rows_t, tile


@triton.jit
def log_sigmoid(z):
    return tl.minimum(z, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(z)))


@triton.jit
def make(
    x,
    st,
    vectors,
    b_eta,
    b_alpha,
    keys,
    values,
    gates,
    tokens,
    D: tl.constexpr,
    BD: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    R: tl.constexpr,
    ETA_MAX: tl.constexpr,
    UNIT: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """K = unit(X S_k), V = [unit] X S_v and six rows of gates, from the chunk-start memories."""
    o = tl.arange(0, BD)
    ok = o < D
    for t in tl.range(0, tokens, T, disable_licm=True):
        i = t + tl.arange(0, T)
        live = i < tokens
        here, at = live[:, None] & ok[None, :], i[:, None] * D + o[None, :]
        K = product(tl.zeros([T, BD], ACC), x, D, 1, i, live, st, 1, D, o, ok, D, R, PREC, ACC)
        rk = tl.rsqrt(tl.sum(K * K, 1) + 1e-12)
        put(keys + at, K * rk[:, None], here)
        V = product(tl.zeros([T, BD], ACC), x, D, 1, i, live, st + D * D, 1, D, o, ok, D, R, PREC, ACC)
        rv = tl.rsqrt(tl.sum(V * V, 1) + 1e-12)
        if UNIT:
            V = V * rv[:, None]
        put(values + at, V, here)
        X = tl.load(x + at, mask=here, other=0.0).to(ACC)
        sig = tl.sigmoid(tl.sum(X * tl.load(vectors + o, mask=ok, other=0.0).to(ACC)[None, :], 1) + b_eta)
        z = tl.sum(X * tl.load(vectors + D + o, mask=ok, other=0.0).to(ACC)[None, :], 1) + b_alpha
        eta = ETA_MAX * sig
        tl.store(gates + i, eta, mask=live)
        tl.store(gates + C + i, log_sigmoid(z), mask=live)
        tl.store(gates + 2 * C + i, eta * (1.0 - sig), mask=live)
        tl.store(gates + 3 * C + i, tl.sigmoid(-z), mask=live)
        tl.store(gates + 4 * C + i, rk, mask=live)
        tl.store(gates + 5 * C + i, rv, mask=live)


@triton.jit
def solve(
    keys,
    values,
    gates,
    zs,
    tokens,
    D: tl.constexpr,
    BD: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    L2: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """(I + L) Z = eta V - s K. Stores Z, w and g'; returns L and w."""
    i, o = tl.arange(0, C), tl.arange(0, BD)
    live, ok = i < tokens, o < D
    eta = tl.load(gates + i, mask=live, other=0.0).to(ACC)
    a = tl.load(gates + C + i, mask=live, other=0.0).to(ACC)
    g = tl.cumsum(a, 0)
    gp = g - a
    w = tl.exp(tl.sum(a, 0) - g)
    tl.store(gates + 6 * C + i, w, mask=live)
    tl.store(gates + 7 * C + i, gp, mask=live)
    s = eta * tl.exp(gp)
    if L2:
        s += eta
    scores = product(tl.zeros([C, C], ACC), keys, D, 1, i, live, keys, 1, D, i, live, D, R, PREC, ACC)
    Lm = eta[:, None] * decay(gp[:, None], g[None, :], i[:, None] > i[None, :]) * scores
    K = tile(keys, i[:, None], o[None, :], D, live[:, None], ok[None, :], ACC)
    V = tile(values, i[:, None], o[None, :], D, live[:, None], ok[None, :], ACC)
    Z = solve_rows(Lm, eta[:, None] * V - s[:, None] * K, C)
    put(zs + i[:, None] * D + o[None, :], Z, live[:, None] & ok[None, :])
    return Lm, w


@triton.jit
def shrinks(gates, tokens, C: tl.constexpr, ACC: tl.constexpr):
    """e^{g_C}, what the whole chunk keeps."""
    i = tl.arange(0, C)
    return tl.exp(tl.sum(tl.load(gates + C + i, mask=i < tokens, other=0.0).to(ACC), 0))


@triton.jit
def transition(
    keys,
    zs,
    gates,
    phi,
    vectors,
    tokens,
    D: tl.constexpr,
    BD: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    R: tl.constexpr,
    STEP_VECTORS: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """P = (w K)^T Z, so that S' = e^{g_C} S + P S: kept apart, what stays is not rounded with what is learned. With
    STEP_VECTORS the gates' memories take the step too, from vectors (2, D) to the next two rows."""
    o = tl.arange(0, BD)
    ok = o < D
    keep = shrinks(gates, tokens, C, ACC)
    for b in tl.range(0, D, R, disable_licm=True):
        p = b + tl.arange(0, R)
        there = p < D
        P = product(tl.zeros([R, BD], ACC), keys, 1, D, p, there, zs, D, 1, o, ok, tokens, T, PREC, ACC, gates + 6 * C)
        put(phi + p[:, None] * D + o[None, :], P, there[:, None] & ok[None, :])
        if STEP_VECTORS:
            for v in tl.static_range(2):
                new = tl.sum(P * tl.load(vectors + v * D + o, mask=ok, other=0.0).to(ACC)[None, :], 1)
                new += keep * tl.load(vectors + v * D + p, mask=there, other=0.0).to(ACC)
                tl.store(vectors + (2 + v) * D + p, new, mask=there)


@triton.jit
def selfref_memory_forward(
    x,
    q,
    be,
    ba,
    ms,
    y,
    states,
    vectors,
    keys,
    values,
    zs,
    phis,
    gates,
    L,
    N,
    CHUNK,
    D: tl.constexpr,
    BD: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    R: tl.constexpr,
    L2: tl.constexpr,
    ETA_MAX: tl.constexpr,
    UNIT: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """One program per (batch, head) walks the chunks.

    ms (2, 3, D, D): the matrices, from one half to the other at every chunk; states (N, 3, D, D): their copies at
    every chunk's start in the tokens' dtype, vectors (N + 1, 2, D): the gates' memories; the first ones are given.
    keys, values, zs (CHUNK, D), phis (D, D), gates (8, C): scratch.
    """
    bh = tl.program_id(0).to(tl.int64)
    o = tl.arange(0, BD)
    ok = o < D
    x += bh * L * D
    q += bh * L * D
    y += bh * L * D
    ms += bh * 6 * D * D
    states += bh * N * 3 * D * D
    vectors += bh * (N + 1) * 2 * D
    keys += bh * CHUNK * D
    values += bh * CHUNK * D
    zs += bh * CHUNK * D
    phis += bh * D * D
    gates += bh * 8 * C
    b_eta = tl.load(be + bh).to(ACC)
    b_alpha = tl.load(ba + bh).to(ACC)
    for n in tl.range(0, N, disable_licm=True):
        tokens = tl.minimum(CHUNK, L - n * CHUNK)
        first = n * CHUNK * D
        st = states + n * 3 * D * D
        for t in tl.range(0, tokens, T, disable_licm=True):
            i = t + tl.arange(0, T)
            live = i < tokens
            Y = product(tl.zeros([T, BD], ACC), q + first, D, 1, i, live, st + 2 * D * D, 1, D, o, ok, D, R, PREC, ACC)
            put(y + first + i[:, None] * D + o[None, :], Y, live[:, None] & ok[None, :])
        make(
            x + first,
            st,
            vectors + n * 2 * D,
            b_eta,
            b_alpha,
            keys,
            values,
            gates,
            tokens,
            D,
            BD,
            C,
            T,
            R,
            ETA_MAX,
            UNIT,
            PREC,
            ACC,
        )
        tl.debug_barrier()
        solve(keys, values, gates, zs, tokens, D, BD, C, R, L2, PREC, ACC)
        tl.debug_barrier()
        transition(keys, zs, gates, phis, vectors + n * 2 * D, tokens, D, BD, C, T, R, True, PREC, ACC)
        tl.debug_barrier()
        keep = shrinks(gates, tokens, C, ACC)
        old, new = ms + (n % 2) * 3 * D * D, ms + ((n + 1) % 2) * 3 * D * D
        for b in tl.range(0, 3 * D, R, disable_licm=True):  # M <- e^{g_C} M + M P^T, all three
            p = b + tl.arange(0, R)
            there = p < 3 * D
            at, here = p[:, None] * D + o[None, :], there[:, None] & ok[None, :]
            M = keep * tl.load(old + at, mask=here, other=0.0).to(ACC)
            M = product(M, st, D, 1, p, there, phis, 1, D, o, ok, D, R, PREC, ACC)
            tl.store(new + at, M, mask=here)
            if n + 1 < N:
                put(st + 3 * D * D + at, M, here)
        tl.debug_barrier()


@triton.jit
def selfref_memory_backward_prepare(
    x,
    be,
    ba,
    states,
    vectors,
    keys,
    values,
    zs,
    phis,
    gs,
    gates,
    L,
    N,
    CHUNK,
    D: tl.constexpr,
    BD: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    R: tl.constexpr,
    L2: tl.constexpr,
    ETA_MAX: tl.constexpr,
    UNIT: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """The forward of every chunk again, all chunks at once: K, V, Z, P, the gates, and G = (I + L)^-T (w K), so that
    the chain, where it would be waited for, has no solve: dR = G dPhi."""
    n, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    tokens = tl.minimum(CHUNK, L - n * CHUNK)
    first = bh * L * D + n * CHUNK * D
    gates += (bh * N + n) * 8 * C
    vectors += (bh * (N + 1) + n) * 2 * D
    make(
        x + first,
        states + (bh * N + n) * 3 * D * D,
        vectors,
        tl.load(be + bh).to(ACC),
        tl.load(ba + bh).to(ACC),
        keys + first,
        values + first,
        gates,
        tokens,
        D,
        BD,
        C,
        T,
        R,
        ETA_MAX,
        UNIT,
        PREC,
        ACC,
    )
    tl.debug_barrier()
    Lm, w = solve(keys + first, values + first, gates, zs + first, tokens, D, BD, C, R, L2, PREC, ACC)
    i, o = tl.arange(0, C), tl.arange(0, BD)
    live, ok = i < tokens, o < D
    K = tile(keys + first, i[:, None], o[None, :], D, live[:, None], ok[None, :], ACC)
    put(gs + first + i[:, None] * D + o[None, :], solve_rows_t(Lm, w[:, None] * K, C), live[:, None] & ok[None, :])
    tl.debug_barrier()
    transition(
        keys + first, zs + first, gates, phis + (bh * N + n) * D * D, vectors, tokens, D, BD, C, T, R, False, PREC, ACC
    )
