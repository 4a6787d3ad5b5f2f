"""Newton-Schulz backwards: one program per matrix runs the steps again, keeps every X, and walks back over them.

Of a step X' = a X + B X, B = b A + c A^2, A = X X^T (A and B are symmetric), given dX':

    dB = dX' X^T,    dA = b dB + c (dB A + A dB),    dX = a dX' + B dX' + (dA + dA^T) X

and of X_0 = G / (t + eps), t = |G|:  dG = dX_0 / (t + eps) - G <dX_0, G> / (t (t + eps)^2).

Everything lies in scratch memory, in the accumulators' dtype; products take R rows at a time (`blocks.product`). A
barrier between a write and the read of it orders the program's threads; nothing is updated in place.
"""

from __future__ import annotations

import triton
import triton.language as tl

from nlkernels.blocks import product, put


@triton.jit
def polynomial(
    x,
    sq,
    b,
    c,
    M: tl.constexpr,
    N: tl.constexpr,
    BM: tl.constexpr,
    R: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """A = X X^T to sq[0], B = b A + c A^2 to sq[1]; ends behind a barrier."""
    j = tl.arange(0, BM)
    for r in tl.range(0, M, R, disable_licm=True):
        p = r + tl.arange(0, R)
        A = product(tl.zeros([R, BM], ACC), x, N, 1, p, p < M, x, 1, N, j, j < M, N, R, PREC, ACC)
        put(sq + p[:, None] * M + j[None, :], A, (p < M)[:, None] & (j < M)[None, :])
    tl.debug_barrier()
    for r in tl.range(0, M, R, disable_licm=True):
        p = r + tl.arange(0, R)
        here, at = (p < M)[:, None] & (j < M)[None, :], p[:, None] * M + j[None, :]
        A2 = product(tl.zeros([R, BM], ACC), sq, M, 1, p, p < M, sq, M, 1, j, j < M, M, R, PREC, ACC)
        put(sq + M * M + at, b * tl.load(sq + at, mask=here, other=0.0).to(ACC) + c * A2, here)
    tl.debug_barrier()


@triton.jit
def newton_schulz_backward(
    g,
    dout,
    dg,
    xs,
    ds,
    sq,
    a,
    b,
    c,
    eps,
    M: tl.constexpr,
    N: tl.constexpr,
    TALL: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    R: tl.constexpr,
    STEPS: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """g, dout, dg: one (M, N) matrix a program, M <= N; TALL ones lie as (N, M). xs (STEPS + 1, M, N), ds (2, M, N),
    sq (4, M, M): scratch."""
    program = tl.program_id(0).to(tl.int64)
    g += program * M * N
    dout += program * M * N
    dg += program * M * N
    xs += program * (STEPS + 1) * M * N
    ds += program * 2 * M * N
    sq += program * 4 * M * M
    SM: tl.constexpr = 1 if TALL else N
    SN: tl.constexpr = M if TALL else 1
    n, j = tl.arange(0, BN), tl.arange(0, BM)
    square = tl.sum(tl.zeros([R], ACC), 0)
    for r in tl.range(0, M, R, disable_licm=True):
        p = r + tl.arange(0, R)
        here = (p < M)[:, None] & (n < N)[None, :]
        G = tl.load(g + p[:, None] * SM + n[None, :] * SN, mask=here, other=0.0).to(ACC)
        square += tl.sum(tl.sum(G * G, 1), 0)
    t = tl.sqrt(square)
    for r in tl.range(0, M, R, disable_licm=True):
        p = r + tl.arange(0, R)
        here, at = (p < M)[:, None] & (n < N)[None, :], p[:, None] * N + n[None, :]
        where = p[:, None] * SM + n[None, :] * SN
        put(xs + at, tl.load(g + where, mask=here, other=0.0).to(ACC) / (t + eps), here)
        put(ds + at, tl.load(dout + where, mask=here, other=0.0).to(ACC), here)
    tl.debug_barrier()
    for s in tl.range(0, STEPS, disable_licm=True):
        x = xs + s * M * N
        polynomial(x, sq, b, c, M, N, BM, R, PREC, ACC)
        for r in tl.range(0, M, R, disable_licm=True):
            p = r + tl.arange(0, R)
            here, at = (p < M)[:, None] & (n < N)[None, :], p[:, None] * N + n[None, :]
            X = a * tl.load(x + at, mask=here, other=0.0).to(ACC)
            X = product(X, sq + M * M, M, 1, p, p < M, x, N, 1, n, n < N, M, R, PREC, ACC)
            put(x + M * N + at, X, here)
        tl.debug_barrier()
    for back in tl.range(0, STEPS, disable_licm=True):
        x = xs + (STEPS - 1 - back) * M * N
        d, new = ds + (back % 2) * M * N, ds + ((back + 1) % 2) * M * N
        dB, dA = sq + 2 * M * M, sq + 3 * M * M
        for r in tl.range(0, M, R, disable_licm=True):
            p = r + tl.arange(0, R)
            change = product(tl.zeros([R, BM], ACC), d, N, 1, p, p < M, x, 1, N, j, j < M, N, R, PREC, ACC)
            put(dB + p[:, None] * M + j[None, :], change, (p < M)[:, None] & (j < M)[None, :])
        polynomial(x, sq, b, c, M, N, BM, R, PREC, ACC)
        for r in tl.range(0, M, R, disable_licm=True):
            p = r + tl.arange(0, R)
            here, at = (p < M)[:, None] & (j < M)[None, :], p[:, None] * M + j[None, :]
            change = product(tl.zeros([R, BM], ACC), dB, M, 1, p, p < M, sq, M, 1, j, j < M, M, R, PREC, ACC)
            change = product(change, sq, M, 1, p, p < M, dB, M, 1, j, j < M, M, R, PREC, ACC)
            put(dA + at, b * tl.load(dB + at, mask=here, other=0.0).to(ACC) + c * change, here)
        tl.debug_barrier()
        for r in tl.range(0, M, R, disable_licm=True):
            p = r + tl.arange(0, R)
            here, at = (p < M)[:, None] & (n < N)[None, :], p[:, None] * N + n[None, :]
            X = a * tl.load(d + at, mask=here, other=0.0).to(ACC)
            X = product(X, sq + M * M, M, 1, p, p < M, d, N, 1, n, n < N, M, R, PREC, ACC)
            X = product(X, dA, M, 1, p, p < M, x, N, 1, n, n < N, M, R, PREC, ACC)
            X = product(X, dA, 1, M, p, p < M, x, N, 1, n, n < N, M, R, PREC, ACC)
            put(new + at, X, here)
        tl.debug_barrier()
    d = ds + (STEPS % 2) * M * N
    inner = tl.sum(tl.zeros([R], ACC), 0)
    for r in tl.range(0, M, R, disable_licm=True):
        p = r + tl.arange(0, R)
        here = (p < M)[:, None] & (n < N)[None, :]
        G = tl.load(g + p[:, None] * SM + n[None, :] * SN, mask=here, other=0.0).to(ACC)
        inner += tl.sum(tl.sum(G * tl.load(d + p[:, None] * N + n[None, :], mask=here, other=0.0).to(ACC), 1), 0)
    share = tl.where(t > 0, inner / (tl.where(t > 0, t, 1.0) * (t + eps) * (t + eps)), 0.0)
    for r in tl.range(0, M, R, disable_licm=True):
        p = r + tl.arange(0, R)
        here, where = (p < M)[:, None] & (n < N)[None, :], p[:, None] * SM + n[None, :] * SN
        D = tl.load(d + p[:, None] * N + n[None, :], mask=here, other=0.0).to(ACC) / (t + eps)
        put(dg + where, D - share * tl.load(g + where, mask=here, other=0.0).to(ACC), here)
