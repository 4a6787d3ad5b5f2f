"""Chapter B, Make it fast: the chunk form, its triangular system, intensity, and three Triton kernels.

A kernel here is a plain function; the checker launches it in Triton's interpreter (`nlbook.book.chapters.speed.kernel_player`), so that this
file can be imported where Triton does not exist.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nlbook.book.chapters.speed.kernel_player import Puzzle, blank
from nlbook.book.check.define import *

if TYPE_CHECKING:
    import triton.language as tl


# ---- in PyTorch -----------------------------------------------------------------------------------------------------


def linear_chunk(S: Tensor, Q: Tensor, K: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """Linear attention on one chunk, read before write: outputs Y (C, d_v) and the next state (d_k, d_v).

    S (d_k, d_v) is the state at the chunk's start, S = M^T; Q, K (C, d_k) and V (C, d_v) hold its tokens. No loop.
    """
    # BEGIN SOLUTION
    scores = torch.tril(Q @ K.T, -1)
    return Q @ S + scores @ V, S + K.T @ V
    # END SOLUTION


def by_tokens(S: Tensor, Q: Tensor, K: Tensor, V: Tensor, after: bool = False) -> tuple[Tensor, Tensor]:
    Y = []
    for q, k, v in zip(Q, K, V):
        new = S + torch.outer(k, v)
        Y.append(q @ (new if after else S))
        S = new
    return torch.stack(Y), S


def draw_chunk(d: Draw) -> tuple[Any, ...]:
    C, dk, dv = d.int(2, 5), d.int(1, 4), d.int(1, 3)
    return d.tensor(dk, dv), d.tensor(C, dk), d.tensor(C, dk), d.tensor(C, dv)


def two_chunks_are_one(answer: Any, d: Draw) -> str | None:
    """Cutting a chunk in two and carrying the state changes nothing."""
    S, Q, K, V = d.tensor(3, 2), d.tensor(5, 3), d.tensor(5, 3), d.tensor(5, 2)
    whole, end = answer(S, Q, K, V)
    first, between = answer(S, Q[:2], K[:2], V[:2])
    second, last = answer(between, Q[2:], K[2:], V[2:])
    gap = max(float((torch.cat([first, second]) - whole).abs().max()), float((last - end).abs().max()))
    return None if gap < 1e-9 else f"a chunk of 5 and chunks of 2 and 3 differ by {gap:.3g}."


def written_rows(S: Tensor, K: Tensor, V: Tensor, eta: float) -> Tensor:
    """What each token of a chunk really writes under the delta rule: E (C, d_v), row t is eta (v_t - M_{t-1} k_t).

    S (d_k, d_v) is the state at the chunk's start, S = M^T; K (C, d_k) and V (C, d_v) hold its tokens.
    """
    # BEGIN SOLUTION
    L = eta * torch.tril(K @ K.T, -1)
    alone = eta * (V - K @ S)
    return torch.linalg.solve_triangular(torch.eye(len(K), dtype=K.dtype) + L, alone, upper=False)
    # END SOLUTION


def rows_by_tokens(S: Tensor, K: Tensor, V: Tensor, eta: float, frozen: bool = False) -> Tensor:
    E, now = [], S
    for k, v in zip(K, V):
        E.append(eta * (v - k @ (S if frozen else now)))
        now = now + torch.outer(k, E[-1])
    return torch.stack(E)


def rows_upside_down(S: Tensor, K: Tensor, V: Tensor, eta: float) -> Tensor:
    L = eta * torch.tril(K @ K.T, -1)
    return torch.linalg.solve(torch.eye(len(K), dtype=K.dtype) - L, eta * (V - K @ S))


def rows_one_term(S: Tensor, K: Tensor, V: Tensor, eta: float) -> Tensor:
    E = eta * (V - K @ S)
    return E - eta * torch.tril(K @ K.T, -1) @ E


def delta_stream(q: Tensor, k: Tensor, v: Tensor, eta: float, C: int) -> tuple[Tensor, Tensor]:
    """The delta rule over a whole stream, C tokens at a time (the last chunk may be short), from an empty memory.

    q, k (T, d_k) and v (T, d_v) -> outputs (T, d_v), read before write, and the last state S = M^T (d_k, d_v).
    """
    # BEGIN SOLUTION
    S, Y = torch.zeros(k.shape[1], v.shape[1], dtype=v.dtype), []
    for Q, K, V in zip(q.split(C), k.split(C), v.split(C)):
        y, S = linear_chunk(S, Q, K, written_rows(S, K, V, eta))
        Y.append(y)
    return torch.cat(Y), S
    # END SOLUTION


def stream_with(rows: Any, carry: bool = True) -> Any:
    """`delta_stream` with other rows in place of what is written, or with a memory that each chunk begins anew."""

    def stream(q: Tensor, k: Tensor, v: Tensor, eta: float, C: int) -> tuple[Tensor, Tensor]:
        empty, Y = torch.zeros(k.shape[1], v.shape[1], dtype=v.dtype), []
        S = empty
        for Q, K, V in zip(q.split(C), k.split(C), v.split(C)):
            start = S if carry else empty
            y, S = by_tokens(start, Q, K, rows(start, K, V, eta))
            Y.append(y)
        return torch.cat(Y), S

    return stream


def draw_stream(d: Draw) -> tuple[Any, ...]:
    T, dk, dv = d.int(3, 8), d.int(2, 4), d.int(1, 3)
    return d.unit(T, dk), d.unit(T, dk), d.tensor(T, dv), d.float(0.2, 0.9), d.pick(2, 3)


def any_chunk_is_the_same(answer: Any, d: Draw) -> str | None:
    """The size of the chunk is a matter of speed, not of the rule: 1, 3, 4 and all 10 tokens give the same."""
    q, k, v = d.unit(10, 3), d.unit(10, 3), d.tensor(10, 2)
    found = [answer(q, k, v, 0.5, C) for C in (1, 3, 4, 10)]
    gap = max(float((a - b).abs().max()) for other in found[1:] for a, b in zip(found[0], other))
    return None if gap < 1e-9 else f"chunks of 1, 3, 4 and 10 tokens differ by {gap:.3g}."


def state_read_as_printed(t: int, C: int) -> int:
    """The state M_i that token t (1, 2, ...) may read in chunks of C tokens: i, the last token of the chunk before."""
    return C * math.ceil(t / C)


def state_read(t: int, C: int) -> int:
    """The state M_i that token t (1, 2, ...) may read in chunks of C tokens: i, the last token of the chunk before."""
    # BEGIN SOLUTION
    return C * ((t - 1) // C)
    # END SOLUTION


def linear_attention_intensity() -> float:
    """FLOPs for each byte that travels: linear attention, chunks of 64, heads of width 64, bf16, state on the chip."""
    # BEGIN SOLUTION
    C = d = 64
    flops = 2 * (2 * C * C * d) + 2 * (2 * C * d * d)  # Q K^T and its product with V; Q S and K^T V
    travels = 4 * C * d * 2  # q, k, v in, y out
    return flops / travels
    # END SOLUTION


def frozen_error_in_the_picture() -> float:
    """The error of the state at chunks of 16 and a rate of 0.5, in percent."""
    # BEGIN SOLUTION
    from nlbook.book import viz

    return viz.load("theatre:C=16,eta=0.5").facts["error_percent"]
    # END SOLUTION


# ---- three kernels --------------------------------------------------------------------------------------------------


def outer_write(k, v, M, eta, DV, DK: tl.constexpr, ROWS: tl.constexpr):
    """M (DV, DK) <- M + eta v k^T, in place. Program p owns the rows p ROWS, ..., p ROWS + ROWS - 1 of M."""
    # BEGIN SOLUTION
    row, col = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DK)
    mine = row < DV
    key = tl.load(k + col)
    value = tl.load(v + row, mask=mine, other=0.0)
    at = row[:, None] * DK + col[None, :]
    old = tl.load(M + at, mask=mine[:, None], other=0.0)
    tl.store(M + at, old + eta * value[:, None] * key[None, :], mask=mine[:, None])
    # END SOLUTION


def outer_write_without_rate(k, v, M, eta, DV, DK: tl.constexpr, ROWS: tl.constexpr):
    row, col = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DK)
    mine, at = row[:, None] < DV, row[:, None] * DK + col[None, :]
    write = tl.load(v + row, mask=row < DV, other=0.0)[:, None] * tl.load(k + col)[None, :]
    tl.store(M + at, tl.load(M + at, mask=mine, other=0.0) + write, mask=mine)


def outer_write_afresh(k, v, M, eta, DV, DK: tl.constexpr, ROWS: tl.constexpr):
    row, col = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DK)
    mine, at = row[:, None] < DV, row[:, None] * DK + col[None, :]
    write = eta * tl.load(v + row, mask=row < DV, other=0.0)[:, None] * tl.load(k + col)[None, :]
    tl.store(M + at, write, mask=mine)


def outer_reference(k, v, M, eta, DV, DK, ROWS):
    return M + eta * torch.outer(v, k)


def draw_outer(d: Draw) -> tuple[Any, ...]:
    DV, DK = d.int(2, 9), d.pick(2, 4)
    return d.tensor(DK), d.tensor(DV), d.tensor(DV, DK), d.float(0.1, 0.9), DV, DK, 4


def causal_scores(q, k, A, L, C: tl.constexpr, D: tl.constexpr):
    """A (L, C): row t holds q_t . k_i for the tokens i of t's chunk that come before t, and 0 for the others.

    q, k (L, D). Program n owns the chunk of the tokens n C, ..., n C + C - 1; the last one may be short.
    """
    # BEGIN SOLUTION
    i, d = tl.arange(0, C), tl.arange(0, D)
    t = tl.program_id(0) * C + i
    at, there = t[:, None] * D + d[None, :], t[:, None] < L
    Q = tl.load(q + at, mask=there, other=0.0)
    K = tl.load(k + at, mask=there, other=0.0)
    scores = tl.where(i[:, None] > i[None, :], tl.dot(Q, tl.trans(K)), 0.0)
    tl.store(A + t[:, None] * C + i[None, :], scores, mask=there)
    # END SOLUTION


def scores_upto(q, k, A, L, C: tl.constexpr, D: tl.constexpr):
    i, d = tl.arange(0, C), tl.arange(0, D)
    t = tl.program_id(0) * C + i
    at, there = t[:, None] * D + d[None, :], t[:, None] < L
    Q, K = tl.load(q + at, mask=there, other=0.0), tl.load(k + at, mask=there, other=0.0)
    tl.store(A + t[:, None] * C + i[None, :], tl.where(i[:, None] >= i[None, :], tl.dot(Q, tl.trans(K)), 0.0), there)


def scores_of_the_future(q, k, A, L, C: tl.constexpr, D: tl.constexpr):
    i, d = tl.arange(0, C), tl.arange(0, D)
    t = tl.program_id(0) * C + i
    at, there = t[:, None] * D + d[None, :], t[:, None] < L
    Q, K = tl.load(q + at, mask=there, other=0.0), tl.load(k + at, mask=there, other=0.0)
    tl.store(A + t[:, None] * C + i[None, :], tl.where(i[:, None] < i[None, :], tl.dot(Q, tl.trans(K)), 0.0), there)


def scores_of_all(q, k, A, L, C: tl.constexpr, D: tl.constexpr):
    i, d = tl.arange(0, C), tl.arange(0, D)
    t = tl.program_id(0) * C + i
    at, there = t[:, None] * D + d[None, :], t[:, None] < L
    Q, K = tl.load(q + at, mask=there, other=0.0), tl.load(k + at, mask=there, other=0.0)
    tl.store(A + t[:, None] * C + i[None, :], tl.dot(Q, tl.trans(K)), mask=there)


def scores_of_the_past_transposed(q, k, A, L, C: tl.constexpr, D: tl.constexpr):
    i, d = tl.arange(0, C), tl.arange(0, D)
    t = tl.program_id(0) * C + i
    at, there = t[:, None] * D + d[None, :], t[:, None] < L
    Q, K = tl.load(q + at, mask=there, other=0.0), tl.load(k + at, mask=there, other=0.0)
    tl.store(A + t[:, None] * C + i[None, :], tl.where(i[:, None] > i[None, :], tl.dot(K, tl.trans(Q)), 0.0), there)


def scores_reference(q, k, A, L, C, D):
    return torch.cat(
        [torch.nn.functional.pad(torch.tril(Q @ K.T, -1), (0, C - len(Q))) for Q, K in zip(q.split(C), k.split(C))]
    )


def draw_scores(d: Draw) -> tuple[Any, ...]:
    L, C, D = d.int(3, 10), d.pick(2, 4), d.pick(2, 4)
    return d.tensor(L, D), d.tensor(L, D), blank(L, C), L, C, D


def linear_loop(q, k, v, y, L, C: tl.constexpr, D: tl.constexpr):
    """Linear attention, read before write: y_t = M_{t-1} q_t with M_t = M_{t-1} + v_t k_t^T, M_0 = 0.

    q, k, v, y (heads, L, D). Program h walks the chunks of head h and keeps S = M^T (D, D) to itself.
    """
    h, i, d = tl.program_id(0), tl.arange(0, C), tl.arange(0, D)
    S = tl.zeros((D, D), y.dtype.element_ty)
    for n in range(0, tl.cdiv(L, C)):
        t = n * C + i
        at, there = (h * L + t[:, None]) * D + d[None, :], t[:, None] < L
        # BEGIN SOLUTION
        Q = tl.load(q + at, mask=there, other=0.0)
        K = tl.load(k + at, mask=there, other=0.0)
        V = tl.load(v + at, mask=there, other=0.0)
        scores = tl.where(i[:, None] > i[None, :], tl.dot(Q, tl.trans(K)), 0.0)
        tl.store(y + at, tl.dot(Q, S) + tl.dot(scores, V), mask=there)
        S += tl.dot(tl.trans(K), V)
        # END SOLUTION


def loop_without_carry(q, k, v, y, L, C: tl.constexpr, D: tl.constexpr):
    h, i, d = tl.program_id(0), tl.arange(0, C), tl.arange(0, D)
    for n in range(0, tl.cdiv(L, C)):
        t = n * C + i
        at, there = (h * L + t[:, None]) * D + d[None, :], t[:, None] < L
        Q, K = tl.load(q + at, mask=there, other=0.0), tl.load(k + at, mask=there, other=0.0)
        V = tl.load(v + at, mask=there, other=0.0)
        scores = tl.where(i[:, None] > i[None, :], tl.dot(Q, tl.trans(K)), 0.0)
        tl.store(y + at, tl.dot(scores, V), mask=there)


def loop_without_scores(q, k, v, y, L, C: tl.constexpr, D: tl.constexpr):
    h, i, d = tl.program_id(0), tl.arange(0, C), tl.arange(0, D)
    S = tl.zeros((D, D), y.dtype.element_ty)
    for n in range(0, tl.cdiv(L, C)):
        t = n * C + i
        at, there = (h * L + t[:, None]) * D + d[None, :], t[:, None] < L
        Q, K = tl.load(q + at, mask=there, other=0.0), tl.load(k + at, mask=there, other=0.0)
        tl.store(y + at, tl.dot(Q, S), mask=there)
        S += tl.dot(tl.trans(K), tl.load(v + at, mask=there, other=0.0))


def loop_writes_first(q, k, v, y, L, C: tl.constexpr, D: tl.constexpr):
    h, i, d = tl.program_id(0), tl.arange(0, C), tl.arange(0, D)
    S = tl.zeros((D, D), y.dtype.element_ty)
    for n in range(0, tl.cdiv(L, C)):
        t = n * C + i
        at, there = (h * L + t[:, None]) * D + d[None, :], t[:, None] < L
        Q, K = tl.load(q + at, mask=there, other=0.0), tl.load(k + at, mask=there, other=0.0)
        V = tl.load(v + at, mask=there, other=0.0)
        S += tl.dot(tl.trans(K), V)
        scores = tl.where(i[:, None] > i[None, :], tl.dot(Q, tl.trans(K)), 0.0)
        tl.store(y + at, tl.dot(Q, S) + tl.dot(scores, V), mask=there)


def loop_read_after(q, k, v, y, L, C: tl.constexpr, D: tl.constexpr):
    h, i, d = tl.program_id(0), tl.arange(0, C), tl.arange(0, D)
    S = tl.zeros((D, D), y.dtype.element_ty)
    for n in range(0, tl.cdiv(L, C)):
        t = n * C + i
        at, there = (h * L + t[:, None]) * D + d[None, :], t[:, None] < L
        Q, K = tl.load(q + at, mask=there, other=0.0), tl.load(k + at, mask=there, other=0.0)
        V = tl.load(v + at, mask=there, other=0.0)
        scores = tl.where(i[:, None] >= i[None, :], tl.dot(Q, tl.trans(K)), 0.0)
        tl.store(y + at, tl.dot(Q, S) + tl.dot(scores, V), mask=there)
        S += tl.dot(tl.trans(K), V)


def loop_reference(q, k, v, y, L, C, D):
    zero = q.new_zeros(D, D)
    return torch.stack([by_tokens(zero, *head)[0] for head in zip(q, k, v)])


def draw_loop(d: Draw) -> tuple[Any, ...]:
    heads, L, C, D = d.int(1, 2), d.int(4, 11), d.pick(2, 4), d.pick(2, 4)
    return d.tensor(heads, L, D), d.tensor(heads, L, D), d.tensor(heads, L, D), blank(heads, L, D), L, C, D


def example(id: str) -> tuple[Any, ...]:
    """The arguments with which a kernel's moves are counted and drawn."""
    d = Draw(11)
    return {
        "B-write": (d.tensor(8), d.tensor(10), d.tensor(10, 8), 0.5, 10, 8, 4),
        "B-scores": (d.tensor(14, 4), d.tensor(14, 4), blank(14, 4), 14, 4, 4),
        "B-loop": (d.tensor(2, 14, 4), d.tensor(2, 14, 4), d.tensor(2, 14, 4), blank(2, 14, 4), 14, 4, 4),
    }[id]


WRITE = Puzzle(outer_write, lambda a: (-(-a["DV"] // a["ROWS"]),), "M")
SCORES = Puzzle(causal_scores, lambda a: (-(-a["L"] // a["C"]),), "A")
LOOP = Puzzle(linear_loop, lambda a: (a["q"].shape[0],), "y")
PUZZLES = {"B-write": WRITE, "B-scores": SCORES, "B-loop": LOOP}


ITEMS = [
    Implement(
        id="B-chunk",
        title="Linear attention, a chunk at once",
        objective="B.1",
        minutes=10,
        difficulty=2,
        points=2,
        prompt="Return the outputs of a chunk and the state after it, with matrix products only.",
        hints=(
            "An output has two parts: what the state at the chunk's start answers, and what the chunk's own earlier tokens add.",
            "The second part weighs the values by Q K^T, and only i < t may count: read before write.",
            "`torch.tril(..., -1)` keeps what lies strictly below the diagonal.",
        ),
        solution=linear_chunk,
        reference=by_tokens,
        draw=draw_chunk,
        time_dim=0,
        differentiable=True,
        properties=[Property("two chunks are one", two_chunks_are_one)],
        misconceptions=[
            Misconception(
                "inclusive",
                lambda S, Q, K, V: (Q @ S + torch.tril(Q @ K.T) @ V, S + K.T @ V),
                "Token t reads what it has just written itself: that is read *after* write. The diagonal must go.",
            ),
            Misconception(
                "no mask",
                lambda S, Q, K, V: (Q @ S + Q @ K.T @ V, S + K.T @ V),
                "Without a mask every token reads the whole chunk, its own future included.",
            ),
            Misconception(
                "triu",
                lambda S, Q, K, V: (Q @ S + torch.triu(Q @ K.T, 1) @ V, S + K.T @ V),
                "This keeps the future and drops the past: rows of Q K^T are the readers t, columns the writers i.",
            ),
            Misconception(
                "start only",
                lambda S, Q, K, V: (Q @ S, S + K.T @ V),
                "The whole chunk reads its start state. That is the rule of eq. 90, not the token loop.",
            ),
            Misconception(
                "not carried",
                lambda S, Q, K, V: (Q @ S + torch.tril(Q @ K.T, -1) @ V, K.T @ V),
                "The state after the chunk has lost what it held before: add S.",
            ),
        ],
    ),
    Implement(
        id="B-rows",
        title="What is really written",
        objective="B.1",
        minutes=12,
        difficulty=3,
        points=2,
        prompt="Return the rows that the delta rule writes in a chunk. Each depends on those before it.",
        hints=(
            "M_{t-1} k_t is what the start state answers, plus what the earlier rows of the chunk have added.",
            "Row t is eta (v_t - S^T k_t), minus eta times the sum over i < t of (k_t . k_i) e_i.",
            "With R = eta (V - K @ S) and L = eta tril(K K^T, -1): for t = 1, 2, ... take `L[t, :t] @ E[:t]` away from row t, "
            "or solve at once with `torch.linalg.solve_triangular(I + L, R, upper=False)`.",
        ),
        solution=written_rows,
        reference=rows_by_tokens,
        draw=lambda d: (
            d.tensor(dk := d.int(2, 4), dv := d.int(1, 3)),
            d.unit(C := d.int(2, 6), dk),
            d.tensor(C, dv),
            d.float(0.2, 0.9),
        ),
        misconceptions=[
            Misconception(
                "frozen",
                lambda S, K, V, eta: rows_by_tokens(S, K, V, eta, frozen=True),
                "Every row is taken at the chunk's start: the tokens do not see what their neighbours wrote. "
                "That is the other rule, the one whose error the kernel theatre shows.",
            ),
            Misconception(
                "wrong sign",
                rows_upside_down,
                "The earlier rows are *in* the memory already, so what they answer is taken off. The sign of L is wrong.",
            ),
            Misconception(
                "one term",
                rows_one_term,
                "The correction uses the uncorrected rows: it is the first term of the series, I - L. Row t needs the "
                "finished rows before it.",
            ),
            Misconception(
                "not scaled",
                lambda S, K, V, eta: rows_by_tokens(S, K, V, eta) / eta,
                "These are the errors. What is written is eta times the error.",
            ),
        ],
    ),
    Implement(
        id="B-stream",
        title="The whole stream, chunk by chunk",
        objective="B.1",
        minutes=8,
        difficulty=2,
        points=3,
        prompt="Walk over the chunks, carry S, and let your `written_rows` and `linear_chunk` do the work.",
        hints=(
            "A delta memory is a Hebbian one that is given other values. Which?",
            "What a chunk really writes is E = written_rows(S, K, V, eta). Hand E to linear_chunk in place of V.",
            "`y, S = linear_chunk(S, Q, K, written_rows(S, K, V, eta))` for the pieces of `q.split(C)` and so on.",
        ),
        solution=delta_stream,
        reference=stream_with(rows_by_tokens),
        draw=draw_stream,
        time_dim=0,
        properties=[Property("every chunk size gives the same", any_chunk_is_the_same)],
        misconceptions=[
            Misconception(
                "values as they are",
                stream_with(lambda S, K, V, eta: V),
                "This writes the values themselves: linear attention. The delta rule writes the rows E of exercise 2.",
            ),
            Misconception(
                "rate alone",
                stream_with(lambda S, K, V, eta: eta * V),
                "This writes eta times the values. The delta rule writes eta times the *errors*, the rows E of exercise 2.",
            ),
            Misconception(
                "frozen",
                stream_with(lambda S, K, V, eta: rows_by_tokens(S, K, V, eta, frozen=True)),
                "All errors of a chunk are taken at its start: that is another rule, and it depends on C. "
                "The triangular system of exercise 2 is missing.",
            ),
            Misconception(
                "starts anew",
                stream_with(rows_by_tokens, carry=False),
                "Every chunk begins with an empty memory: what `linear_chunk` returns as the next state must be carried on.",
            ),
        ],
    ),
    FixTheBug(
        id="B-index",
        title="Which state may be read?",
        objective="B.2",
        minutes=5,
        difficulty=1,
        prompt="Eq. 90 as printed reads the state number C ceil(t / C). Token 1 in chunks of 4 would read M_4. Mend it.",
        hints=(
            "List it by hand for C = 4: tokens 1, 2, 3, 4 may read M_0; tokens 5 to 8 may read M_4.",
            "Round down instead of up, and look at t = 4: it belongs to the first chunk still.",
            "Count from zero: (t - 1) // C whole chunks are finished before token t.",
        ),
        solution=state_read,
        broken=state_read_as_printed,
        draw=lambda d: (d.int(1, 40), d.int(1, 8)),
        samples=30,
        misconceptions=[
            Misconception(
                "printed",
                state_read_as_printed,
                "This is the state at the *end* of the token's own chunk: it holds the future, and the token itself.",
            ),
            Misconception(
                "floor of t",
                lambda t, C: C * (t // C),
                "Nearly: the last token of each chunk would read the state that it has just helped to write.",
            ),
            Misconception(
                "one chunk late",
                lambda t, C: max(0, C * ((t - 1) // C) - C),
                "That is one chunk too old: the chunk before is finished and may be read.",
            ),
        ],
    ),
    ReadPicture(
        id="B-picture",
        title="Freezing at a large rate",
        objective="B.2",
        minutes=4,
        difficulty=1,
        prompt="Chunks of 16, rate 0.5, the frozen rule: how far is the state from the token loop's, in percent?",
        hints=(
            "Move the chunk to 16 and the rate to 0.5.",
            "The number stands at the dot on the curve, top right.",
            "It is a little more than one half.",
        ),
        view="theatre:C=16,eta=0.5",
        solution=frozen_error_in_the_picture,
        unit="%",
        within=0.1,
    ),
    Estimate(
        id="B-intensity",
        title="FLOPs for each byte",
        objective="B.4",
        minutes=8,
        difficulty=2,
        prompt="Linear attention, one chunk of C = 64 tokens, width d = 64, bf16 (2 bytes), state on the chip. How many FLOPs for "
        "each byte that travels? An (m, k) by (k, n) product is 2 m n k FLOPs.",
        hints=(
            "Four products: Q K^T, its product with V, Q S, and K^T V. Four tensors travel: q, k, v in, y out.",
            "FLOPs: 4 C^2 d + 4 C d^2. Bytes: 8 C d.",
            "The quotient is (C + d) / 2.",
        ),
        solution=linear_attention_intensity,
        within=0.1,
        unit="FLOP/B",
        wrong={
            32: "A multiplication and an addition are two FLOPs. Or did you take 4 bytes a number?",
            128: "Each number of bf16 has two bytes.",
            42.67: "Did you let S travel? It stays on the chip here.",
        },
    ),
    KernelPuzzle(
        id="B-write",
        title="Kernel 1: an outer product",
        objective="B.5",
        minutes=25,
        difficulty=2,
        points=3,
        prompt="Write eta v k^T into M. Each program has ROWS rows of M; the last may have fewer. Load each number once.",
        hints=(
            "Which rows are mine? `tl.program_id(0) * ROWS + tl.arange(0, ROWS)`. Which of them exist?",
            "The address of M[row, col] is M + row * DK + col; `row[:, None] * DK + col[None, :]` makes the whole block.",
            "Load k (no mask), v and M (mask: row < DV), then store old + eta * value[:, None] * key[None, :].",
        ),
        solution=outer_write,
        reference=outer_reference,
        draw=draw_outer,
        in_place=("M",),
        launch=WRITE.launch,
        counter=WRITE.counter(*example("B-write")),
        par={"loads": 3 * 8 + 10 + 80, "stores": 80},
        samples=4,
        seconds=60.0,
        package="triton",
        misconceptions=[
            Misconception("no rate", outer_write_without_rate, "The write is not scaled by the rate eta."),
            Misconception(
                "not added", outer_write_afresh, "What M held before is gone: load the block first, and add to it."
            ),
        ],
    ),
    KernelPuzzle(
        id="B-scores",
        title="Kernel 2: the causal mask",
        objective="B.5",
        minutes=25,
        difficulty=2,
        points=3,
        prompt="The masked Q K^T of each chunk. There are two masks: one for the end of the text, one for time.",
        hints=(
            "The mask of the loads and stores says which tokens exist: t < L. It is not the causal one.",
            "Inside the chunk, row i may see column j only if i > j: `i[:, None] > i[None, :]`.",
            "`tl.where(past, tl.dot(Q, tl.trans(K)), 0.0)`, stored at A + t[:, None] * C + i[None, :].",
        ),
        solution=causal_scores,
        reference=scores_reference,
        draw=draw_scores,
        in_place=("A",),
        launch=SCORES.launch,
        counter=SCORES.counter(*example("B-scores")),
        par={"loads": 2 * 14 * 4, "stores": 14 * 4},
        samples=4,
        seconds=60.0,
        package="triton",
        misconceptions=[
            Misconception(
                "upto", scores_upto, "The diagonal is still there: token t would read what it is about to write."
            ),
            Misconception(
                "future", scores_of_the_future, "The mask is upside down: each token sees exactly its future."
            ),
            Misconception("all", scores_of_all, "No causal mask: each token sees its whole chunk."),
            Misconception("k q", scores_of_the_past_transposed, "Rows must be the readers: Q K^T, not K Q^T."),
        ],
    ),
    KernelPuzzle(
        id="B-loop",
        title="Kernel 3: walk the chunks, carry the state",
        objective="B.5",
        minutes=35,
        difficulty=3,
        points=4,
        prompt="The body of the loop: load the chunk, read, then write into the state that you carry. q, k, v once each.",
        hints=(
            "It is your function of exercise 1, once a chunk; S is a variable of the program and never leaves it.",
            "Store the outputs *before* S is changed. Tokens that do not exist are loaded as zeros: they write nothing.",
            "`tl.store(y + at, tl.dot(Q, S) + tl.dot(scores, V), mask=there)`, then `S += tl.dot(tl.trans(K), V)`.",
        ),
        solution=linear_loop,
        reference=loop_reference,
        draw=draw_loop,
        in_place=("y",),
        launch=LOOP.launch,
        time_dim=1,
        counter=LOOP.counter(*example("B-loop")),
        par={"loads": 3 * 2 * 14 * 4, "stores": 2 * 14 * 4},
        samples=4,
        seconds=60.0,
        package="triton",
        misconceptions=[
            Misconception(
                "no carry",
                loop_without_carry,
                "Every chunk starts from an empty memory: S is not read, or not carried.",
            ),
            Misconception(
                "no scores",
                loop_without_scores,
                "Tokens of one chunk do not see each other: that is the read at the chunk's start, another rule.",
            ),
            Misconception(
                "writes first",
                loop_writes_first,
                "S is written before it is read, so each token reads its whole chunk, and its past in it twice.",
            ),
            Misconception(
                "reads after", loop_read_after, "Token t reads its own write: the diagonal of the mask must go."
            ),
        ],
    ),
]
