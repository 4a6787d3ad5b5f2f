"""Chapter B: wrong answers that its checks must refuse, and right ones that they must accept. Kernels are plain
functions here, as in the notebook; one of them carries @triton.jit."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # the checks then say so; see tests/book/test_chapter_speed.py
    triton = SimpleNamespace(jit=lambda f: f)
    tl = SimpleNamespace(constexpr=int)

from nlbook.book.chapters.speed import chunking, exercises

# ---- B-chunk, B-rows, B-index ------------------------------------------------------------------------------------


def chunk_by_mask(S, Q, K, V):
    i = torch.arange(len(Q))
    return Q @ S + ((i[:, None] > i) * (Q @ K.T)) @ V, S + torch.einsum("ck,cv->kv", K, V)


def chunk_by_sums(S, Q, K, V):
    outer = K[:, :, None] * V[:, None, :]
    before = S + torch.cat([torch.zeros_like(outer[:1]), outer.cumsum(0)[:-1]])
    return (Q[:, None, :] @ before)[:, 0], S + outer.sum(0)


def rows_one_by_one(S, K, V, eta):
    E, L = eta * (V - K @ S), eta * torch.tril(K @ K.T, -1)
    for t in range(1, len(K)):
        E[t] = E[t] - L[t, :t] @ E[:t].clone()
    return E


def stream_by_tokens(q, k, v, eta):
    y, M = chunking.token_loop(q, k, v, eta)
    return y, M.mT


def stream_by_index(q, k, v, eta, C):
    Y, S = torch.zeros(len(q), v.shape[1], dtype=v.dtype), torch.zeros(k.shape[1], v.shape[1], dtype=v.dtype)
    for a in range(0, len(q), C):
        E = rows_one_by_one(S, k[a : a + C], v[a : a + C], eta)
        Y[a : a + C], S = chunk_by_mask(S, q[a : a + C], k[a : a + C], E)
    return Y, S


def rows_by_doubling(S, K, V, eta):
    X, P = torch.eye(len(K), dtype=K.dtype), -eta * torch.tril(K @ K.T, -1)
    for _ in range(4):
        X, P = X + X @ P, P @ P
    return X @ (eta * (V - K @ S))


def index_by_loop(t, C):
    done = 0
    while done + C < t:
        done += C
    return done


# ---- kernel 1 -------------------------------------------------------------------------------------------------------


def write_unmasked(k, v, M, eta, DV, DK: tl.constexpr, ROWS: tl.constexpr):
    row, col = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DK)
    at = row[:, None] * DK + col[None, :]
    tl.store(M + at, tl.load(M + at) + eta * tl.load(v + row)[:, None] * tl.load(k + col)[None, :])


def write_same_rows(k, v, M, eta, DV, DK: tl.constexpr, ROWS: tl.constexpr):
    row, col = tl.arange(0, ROWS), tl.arange(0, DK)
    mine, at = row[:, None] < DV, row[:, None] * DK + col[None, :]
    write = eta * tl.load(v + row, mask=row < DV, other=0.0)[:, None] * tl.load(k + col)[None, :]
    tl.store(M + at, tl.load(M + at, mask=mine, other=0.0) + write, mask=mine)


def write_erases(k, v, M, eta, DV, DK: tl.constexpr, ROWS: tl.constexpr):
    row, col = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DK)
    mine, at = row[:, None] < DV, row[:, None] * DK + col[None, :]
    write = eta * tl.load(v + row, mask=row < DV, other=0.0)[:, None] * tl.load(k + col)[None, :]
    tl.store(M + at, tl.load(M + at, mask=mine, other=0.0) - write, mask=mine)


def write_greedy(k, v, M, eta, DV, DK: tl.constexpr, ROWS: tl.constexpr):
    """Right, but it loads the key once a row."""
    row, col = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DK)
    mine, at = row[:, None] < DV, row[:, None] * DK + col[None, :]
    key = tl.load(k + col[None, :] + 0 * row[:, None])
    write = eta * tl.load(v + row, mask=row < DV, other=0.0)[:, None] * key
    tl.store(M + at, tl.load(M + at, mask=mine, other=0.0) + write, mask=mine)


def write_block_pointers(key_at, value_at, memory, rate, rows, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    r = tl.arange(0, BLOCK)[:, None] + tl.program_id(0) * BLOCK
    c = tl.arange(0, WIDTH)[None, :]
    here = memory + r * WIDTH + c
    value = tl.load(value_at + r, mask=r < rows, other=0.0)
    tl.store(here, tl.load(here, mask=r < rows, other=0.0) + (rate * value) * tl.load(key_at + c), mask=r < rows)


def write_scaled_key(k, v, M, eta, DV, DK: tl.constexpr, ROWS: tl.constexpr):
    row, col = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DK)
    key = eta * tl.load(k + col)
    value = tl.load(v + row, mask=row < DV, other=0.0)
    M += row[:, None] * DK + col[None, :]
    tl.store(M, value[:, None] * key[None, :] + tl.load(M, mask=row[:, None] < DV, other=0.0), row[:, None] < DV)


# ---- kernel 2 -------------------------------------------------------------------------------------------------------


def scores_unmasked_tail(q, k, A, L, C: tl.constexpr, D: tl.constexpr):
    i, d = tl.arange(0, C), tl.arange(0, D)
    t = tl.program_id(0) * C + i
    at = t[:, None] * D + d[None, :]
    P = tl.dot(tl.load(q + at), tl.trans(tl.load(k + at)))
    tl.store(A + t[:, None] * C + i[None, :], tl.where(i[:, None] > i[None, :], P, 0.0))


def scores_first_chunk(q, k, A, L, C: tl.constexpr, D: tl.constexpr):
    i, d = tl.arange(0, C), tl.arange(0, D)
    at, there = i[:, None] * D + d[None, :], i[:, None] < L
    P = tl.dot(tl.load(q + at, there, 0.0), tl.trans(tl.load(k + at, there, 0.0)))
    tl.store(A + i[:, None] * C + i[None, :], tl.where(i[:, None] > i[None, :], P, 0.0), there)


def scores_half(q, k, A, L, C: tl.constexpr, D: tl.constexpr):
    i, d = tl.arange(0, C), tl.arange(0, D)
    t = tl.program_id(0) * C + i
    at, there = t[:, None] * D + d[None, :], t[:, None] < L
    P = tl.dot(tl.load(q + at, there, 0.0), tl.trans(tl.load(k + at, there, 0.0)))
    tl.store(A + t[:, None] * C + i[None, :], P, mask=there & (i[:, None] > i[None, :]))


def scores_twice(q, k, A, L, C: tl.constexpr, D: tl.constexpr):
    """Right, but it loads the keys twice."""
    i, d = tl.arange(0, C), tl.arange(0, D)
    t = tl.program_id(0) * C + i
    at, there = t[:, None] * D + d[None, :], t[:, None] < L
    K = 0.5 * (tl.load(k + at, there, 0.0) + tl.load(k + at, there, 0.0))
    P = tl.dot(tl.load(q + at, there, 0.0), tl.trans(K))
    tl.store(A + t[:, None] * C + i[None, :], tl.where(i[:, None] > i[None, :], P, 0.0), there)


def scores_by_product(q, k, A, L, C: tl.constexpr, D: tl.constexpr):
    i, d = tl.arange(0, C), tl.arange(0, D)
    t = tl.program_id(0) * C + i
    at, there = t[:, None] * D + d[None, :], t[:, None] < L
    Q, K = tl.load(q + at, there, 0.0), tl.load(k + at, there, 0.0)
    past = (i[:, None] > i[None, :]).to(tl.float64)
    tl.store(A + t[:, None] * C + i[None, :], past * tl.sum(Q[:, None, :] * K[None, :, :], 2), there)


def scores_transposed_load(q, k, A, L, C: tl.constexpr, D: tl.constexpr):
    n, i, d = tl.program_id(0), tl.arange(0, C), tl.arange(0, D)
    t = n * C + i
    Q = tl.load(q + t[:, None] * D + d[None, :], mask=t[:, None] < L, other=0.0)
    Kt = tl.load(k + t[None, :] * D + d[:, None], mask=t[None, :] < L, other=0.0)
    P = tl.where(t[:, None] > t[None, :], tl.dot(Q, Kt), 0.0)
    tl.store(A + t[:, None] * C + i[None, :], P, mask=t[:, None] < L)


# ---- kernel 3 -------------------------------------------------------------------------------------------------------


def loop_whole_chunks_only(q, k, v, y, L, C: tl.constexpr, D: tl.constexpr):
    h, i, d = tl.program_id(0), tl.arange(0, C), tl.arange(0, D)
    S = tl.zeros((D, D), y.dtype.element_ty)
    for n in range(0, L // C):
        at = (h * L + n * C + i[:, None]) * D + d[None, :]
        Q, K, V = tl.load(q + at), tl.load(k + at), tl.load(v + at)
        P = tl.where(i[:, None] > i[None, :], tl.dot(Q, tl.trans(K)), 0.0)
        tl.store(y + at, tl.dot(Q, S) + tl.dot(P, V))
        S += tl.dot(tl.trans(K), V)


def loop_one_head(q, k, v, y, L, C: tl.constexpr, D: tl.constexpr):
    i, d = tl.arange(0, C), tl.arange(0, D)
    S = tl.zeros((D, D), y.dtype.element_ty)
    for n in range(0, tl.cdiv(L, C)):
        t = n * C + i
        at, there = t[:, None] * D + d[None, :], t[:, None] < L
        Q, K, V = tl.load(q + at, there, 0.0), tl.load(k + at, there, 0.0), tl.load(v + at, there, 0.0)
        P = tl.where(i[:, None] > i[None, :], tl.dot(Q, tl.trans(K)), 0.0)
        tl.store(y + at, tl.dot(Q, S) + tl.dot(P, V), there)
        S += tl.dot(tl.trans(K), V)


def loop_state_transposed(q, k, v, y, L, C: tl.constexpr, D: tl.constexpr):
    h, i, d = tl.program_id(0), tl.arange(0, C), tl.arange(0, D)
    S = tl.zeros((D, D), y.dtype.element_ty)
    for n in range(0, tl.cdiv(L, C)):
        t = n * C + i
        at, there = (h * L + t[:, None]) * D + d[None, :], t[:, None] < L
        Q, K, V = tl.load(q + at, there, 0.0), tl.load(k + at, there, 0.0), tl.load(v + at, there, 0.0)
        P = tl.where(i[:, None] > i[None, :], tl.dot(Q, tl.trans(K)), 0.0)
        tl.store(y + at, tl.dot(Q, S) + tl.dot(P, V), there)
        S += tl.dot(tl.trans(V), K)


def loop_loads_twice(q, k, v, y, L, C: tl.constexpr, D: tl.constexpr):
    """Right, but the keys travel twice."""
    h, i, d = tl.program_id(0), tl.arange(0, C), tl.arange(0, D)
    S = tl.zeros((D, D), y.dtype.element_ty)
    for n in range(0, tl.cdiv(L, C)):
        t = n * C + i
        at, there = (h * L + t[:, None]) * D + d[None, :], t[:, None] < L
        Q, K, V = tl.load(q + at, there, 0.0), tl.load(k + at, there, 0.0), tl.load(v + at, there, 0.0)
        P = tl.where(i[:, None] > i[None, :], tl.dot(Q, tl.trans(K)), 0.0)
        tl.store(y + at, tl.dot(Q, S) + tl.dot(P, V), there)
        S += tl.dot(tl.trans(tl.load(k + at, there, 0.0)), V)


def loop_memory_as_in_the_paper(q, k, v, y, L, C: tl.constexpr, D: tl.constexpr):
    """With M = S^T, and two stores' worth of sums in one variable."""
    h, i, d = tl.program_id(0), tl.arange(0, C), tl.arange(0, D)
    M = tl.zeros((D, D), y.dtype.element_ty)
    for n in range(0, tl.cdiv(L, C)):
        t = n * C + i
        at, there = (h * L + t[:, None]) * D + d[None, :], t[:, None] < L
        Q, K, V = tl.load(q + at, there, 0.0), tl.load(k + at, there, 0.0), tl.load(v + at, there, 0.0)
        Y = tl.dot(Q, tl.trans(M))
        Y += tl.dot(tl.where(t[:, None] > t[None, :], tl.dot(Q, tl.trans(K)), 0.0), V)
        M += tl.dot(tl.trans(V), K)
        tl.store(y + at, Y, mask=there)


def loop_takes_the_future_off(q, k, v, y, L, C: tl.constexpr, D: tl.constexpr):
    h, i, d = tl.program_id(0), tl.arange(0, C), tl.arange(0, D)
    S = tl.zeros((D, D), y.dtype.element_ty)
    for n in range(0, tl.cdiv(L, C)):
        t = n * C + i
        at, there = (h * L + t[:, None]) * D + d[None, :], t[:, None] < L
        Q, K, V = tl.load(q + at, there, 0.0), tl.load(k + at, there, 0.0), tl.load(v + at, there, 0.0)
        S += tl.dot(tl.trans(K), V)
        future = tl.where(i[:, None] <= i[None, :], tl.dot(Q, tl.trans(K)), 0.0)
        tl.store(y + at, tl.dot(Q, S) - tl.dot(future, V), mask=there)


MUTANTS = {
    "B-chunk": {
        "one token short": lambda S, Q, K, V: (Q @ S + torch.tril(Q @ K.T, -1) @ V, S + K[:-1].T @ V[:-1]),
        "gradient cut": lambda S, Q, K, V: (Q @ S + torch.tril(Q @ K.T, -1).detach() @ V, S + K.T @ V),
    },
    "B-rows": {
        "inclusive": lambda S, K, V, eta: torch.linalg.solve(
            torch.eye(len(K), dtype=K.dtype) + eta * torch.tril(K @ K.T), eta * (V - K @ S)
        ),
        "no rate in L": lambda S, K, V, eta: torch.linalg.solve(
            torch.eye(len(K), dtype=K.dtype) + torch.tril(K @ K.T, -1), eta * (V - K @ S)
        ),
    },
    "B-stream": {
        "asks with the keys": lambda q, k, v, eta, C: exercises.delta_stream(k, k, v, eta, C),
        "rate twice": lambda q, k, v, eta, C: exercises.delta_stream(q, k, v, eta * eta, C),
        "read after write": lambda q, k, v, eta, C: (
            torch.cat(
                [exercises.delta_stream(q, k, v, eta, C)[0][1:], q[-1:] @ exercises.delta_stream(q, k, v, eta, C)[1]]
            ),
            exercises.delta_stream(q, k, v, eta, C)[1],
        ),
    },
    "B-index": {
        "number of the chunk": lambda t, C: (t - 1) // C,
        "token before": lambda t, C: t - 1,
    },
    "B-picture": {"rate 0.1": 7.9, "share": 0.52, "chunk 8": 31.3, "chunk 32": 112.0, "chunk 64": 657.0},
    "B-intensity": {
        "one product": 16,
        "bytes": 32768,
    },
    "B-write": {
        "no mask": write_unmasked,
        "every program the same rows": write_same_rows,
        "sign": write_erases,
        "greedy": write_greedy,
    },
    "B-scores": {
        "no end": scores_unmasked_tail,
        "first chunk only": scores_first_chunk,
        "masked places never written": scores_half,
        "keys twice": scores_twice,
    },
    "B-loop": {
        "partial chunk dropped": loop_whole_chunks_only,
        "one head": loop_one_head,
        "state transposed": loop_state_transposed,
        "keys twice": loop_loads_twice,
    },
}

ACCEPTED = {
    "B-chunk": {"a loop": exercises.by_tokens, "a mask": chunk_by_mask, "cumulated states": chunk_by_sums},
    "B-rows": {
        "token by token": exercises.rows_by_tokens,
        "row by row": rows_one_by_one,
        "doubling, in float64": rows_by_doubling,
    },
    "B-stream": {
        "token by token": lambda q, k, v, eta, C: stream_by_tokens(q, k, v, eta),
        "one chunk": lambda q, k, v, eta, C: exercises.delta_stream(q, k, v, eta, len(q)),
        "a table of outputs": stream_by_index,
    },
    "B-index": {
        "ceil": lambda t, C: C * (math.ceil(t / C) - 1),
        "a loop": index_by_loop,
        "remainder": lambda t, C: t - 1 - (t - 1) % C,
    },
    "B-picture": {"read": 52.5, "with unit": "53 %", "rounded": 50},
    "B-intensity": {"number": 64, "with unit": "64 FLOP/B", "nearly": 62.0},
    "B-write": {
        "jitted": triton.jit(exercises.outer_write),
        "other names, one block": write_block_pointers,
        "scaled key": write_scaled_key,
    },
    "B-scores": {
        "jitted": triton.jit(exercises.causal_scores),
        "a sum of products": scores_by_product,
        "keys loaded transposed": scores_transposed_load,
    },
    "B-loop": {
        "jitted": triton.jit(exercises.linear_loop),
        "M as in the paper": loop_memory_as_in_the_paper,
        "the future taken off": loop_takes_the_future_off,
    },
}
