"""Chapter 05, Memory at many rates: a level's clock, partial chunks, the three variants, the cost."""

from __future__ import annotations

import torch
from torch import Tensor

from nlbook.book.check.define import *


# ---------------------------------------------------------------------- one level (eq. 71)
def run_level(W0: Tensor, X: Tensor, Y: Tensor, lr: float, period: int) -> Tensor:
    """The weight of a linear level that starts at W0 (d_out, d_in) and reads the pairs X (T, d_in), Y (T, d_out).

    Objective: half the squared error. One write every `period` tokens: lr times the summed gradient of these tokens. Tokens of an
    unfinished chunk are not written.
    """
    # BEGIN SOLUTION
    W = W0
    for end in range(period, len(X) + 1, period):
        x, y = X[end - period : end], Y[end - period : end]
        W = W - lr * (x @ W.T - y).T @ x
    return W
    # END SOLUTION


def chunked(
    W0: Tensor,
    X: Tensor,
    Y: Tensor,
    lr: float,
    period: int,
    *,
    extra: int = 0,
    flush: bool = False,
    mean: bool = False,
    last: bool = False,
) -> Tensor:
    """The level with one thing changed."""
    W = W0
    for end in range(period, len(X) + (period if flush else 1), period):
        x, y = (t[max(0, end - period - extra) : end] for t in (X, Y))
        if last:
            x, y = x[-1:], y[-1:]
        W = W - lr / (period if mean else 1) * (x @ W.T - y).T @ x
    return W


def clock_from_zero(W0: Tensor, X: Tensor, Y: Tensor, lr: float, period: int) -> Tensor:
    W, waiting = W0, torch.zeros_like(W0)
    for i, (x, y) in enumerate(zip(X, Y)):
        waiting = waiting + torch.outer(W @ x - y, x)
        if i % period == 0:
            W, waiting = W - lr * waiting, torch.zeros_like(W0)
    return W


def draw_level(d: Draw) -> tuple:
    period = d.int(2, 4)
    T = period * d.int(1, 3) + d.int(0, period - 1)
    n, m = d.int(1, 3), d.int(1, 2)
    return d.tensor(m, n), d.tensor(T, n), d.tensor(T, m), d.float(0.02, 0.2), period


def too_short_writes_nothing(answer, d: Draw) -> str | None:
    W0, X, Y = d.tensor(2, 3), d.tensor(5, 3), d.tensor(5, 2)
    return (
        None
        if torch.equal(answer(W0, X, Y, 0.1, 6), W0)
        else "five tokens do not fill a chunk of six, yet the weight moved."
    )


# ---------------------------------------------------------------------- a stream in several calls
def forgetful_stream(W0: Tensor, X: Tensor, Y: Tensor, lr: float, period: int, cut: int) -> Tensor:
    """The weight of a level whose stream X (T, d_in), Y (T, d_out) arrives in calls of `cut` tokens: as if it came in one piece."""
    W = W0
    for start in range(0, len(X), cut):
        waiting, clock = torch.zeros_like(W), 0
        for x, y in zip(X[start : start + cut], Y[start : start + cut]):
            waiting, clock = waiting + torch.outer(W @ x - y, x), clock + 1
            if clock == period:
                W, waiting, clock = W - lr * waiting, torch.zeros_like(W), 0
    return W


def mended_stream(W0: Tensor, X: Tensor, Y: Tensor, lr: float, period: int, cut: int) -> Tensor:
    """The weight of a level whose stream X (T, d_in), Y (T, d_out) arrives in calls of `cut` tokens: as if it came in one piece."""
    # BEGIN SOLUTION
    W = W0
    waiting, clock = torch.zeros_like(W), 0
    for start in range(0, len(X), cut):
        for x, y in zip(X[start : start + cut], Y[start : start + cut]):
            waiting, clock = waiting + torch.outer(W @ x - y, x), clock + 1
            if clock == period:
                W, waiting, clock = W - lr * waiting, torch.zeros_like(W), 0
    return W
    # END SOLUTION


def flushed_stream(W0: Tensor, X: Tensor, Y: Tensor, lr: float, period: int, cut: int) -> Tensor:
    """Every call's rest is written at once."""
    W = W0
    for start in range(0, len(X), cut):
        W = chunked(W, X[start : start + cut], Y[start : start + cut], lr, period, flush=True)
    return W


def draw_stream(d: Draw) -> tuple:
    W0, X, Y, lr, period = draw_level(d)
    return W0, X, Y, lr, period, d.int(1, 5)


def any_cut(answer, d: Draw) -> str | None:
    W0, X, Y = d.tensor(1, 2), d.tensor(9, 2), d.tensor(9, 1)
    ends = [answer(W0, X, Y, 0.1, 4, cut) for cut in (1, 3, 4, 9)]
    return (
        None
        if all(torch.allclose(e, ends[-1]) for e in ends)
        else "calls of 1, 3, 4 and 9 tokens end at different weights."
    )


# ---------------------------------------------------------------------- variants
def headwise(x: Tensor, up: Tensor, down: Tensor, mix: Tensor) -> Tensor:
    """y (d,) of eq. 74 for x (d,): x plus the softmax(mix)-weighted sum of down_l tanh(up_l x), all levels reading x.

    up (levels, h, d), down (levels, d, h), mix (levels,).
    """
    # BEGIN SOLUTION
    share = torch.softmax(mix, 0)
    return x + sum(s * (b @ torch.tanh(a @ x)) for s, a, b in zip(share, up, down))
    # END SOLUTION


def in_a_chain(x: Tensor, up: Tensor, down: Tensor, mix: Tensor) -> Tensor:
    h = x
    for s, a, b in zip(torch.softmax(mix, 0), up, down):
        h = h + s * (b @ torch.tanh(a @ h))
    return h


def draw_panel(d: Draw) -> tuple:
    levels, h, n = d.int(2, 4), d.int(1, 3), d.int(1, 3)
    return d.tensor(n), d.tensor(levels, h, n), d.tensor(levels, n, h), d.tensor(levels)


def nested(start: Tensor, grads: Tensor, lr: float, fast: int, slow: int, rho: float) -> Tensor:
    """The fast weight (d,) of a nested CMS after the gradients grads (T, d), which are given.

    Every `fast` tokens it moves by -lr times their sum. Every `slow` tokens the start learns from it, by the share rho of the
    way to it, and the weight restarts there: no gradient is left waiting, its chunk begins anew.
    """
    # BEGIN SOLUTION
    w, waiting, clock = start, torch.zeros_like(start), 0
    for t, g in enumerate(grads, 1):
        waiting, clock = waiting + g, clock + 1
        if clock == fast:
            w, waiting, clock = w - lr * waiting, torch.zeros_like(start), 0
        if t % slow == 0:
            start = start + rho * (w - start)
            w, waiting, clock = start, torch.zeros_like(start), 0
    return w
    # END SOLUTION


def nested_with(
    start: Tensor,
    grads: Tensor,
    lr: float,
    fast: int,
    slow: int,
    rho: float,
    *,
    restart: bool = True,
    clear: bool = True,
    first: bool = False,
    shared: bool = False,
) -> Tensor:
    w, waiting, clock = start, torch.zeros_like(start), 0
    for t, g in enumerate(grads, 1):
        waiting, clock = waiting + g, clock + 1
        if (t % fast == 0) if shared else (clock == fast):
            w, waiting, clock = w - lr * waiting, torch.zeros_like(start), 0
        if t % slow == 0:
            old, start = start, start + rho * (w - start)
            w = (old if first else start) if restart else w
            if clear:
                waiting, clock = torch.zeros_like(start), 0
    return w


def draw_nested(d: Draw) -> tuple:
    fast, n = d.int(1, 3), d.int(1, 3)
    slow = fast + d.int(1, 4)
    return d.tensor(n), d.tensor(slow * d.int(1, 3) + d.int(0, 4), n), d.float(0.05, 0.5), fast, slow, d.float(0.1, 0.9)


# ---------------------------------------------------------------------- numbers
def moved() -> float:
    """Parameters moved per token: four MLPs of 2 * 512 * 2048 parameters, periods 64, 256, 1024, 4096."""
    # BEGIN SOLUTION
    size = 2 * 512 * 2048
    return sum(size / period for period in (64, 256, 1024, 4096))
    # END SOLUTION


def notes_with_b() -> float:
    """Notes of the lane C = 16 whose chunk holds a token of task B (the tokens after the switch), at T = 120."""
    # BEGIN SOLUTION
    return sum(end > 120 // 2 for end in range(16, 121, 16))
    # END SOLUTION


ITEMS = [
    Implement(
        id="05-level",
        title="One level and its clock",
        objective="05.1",
        minutes=8,
        difficulty=2,
        points=2,
        prompt="Write one level of a continuum memory: it gathers the gradients of `period` tokens and then moves once.",
        hints=(
            "Walk over the ends of the full chunks: period, 2 * period, ... up to len(X).",
            "All gradients of a chunk are taken at the weight that the level had throughout the chunk.",
            "With x, y the chunk's rows: `W = W - lr * (x @ W.T - y).T @ x`.",
        ),
        solution=run_level,
        draw=draw_level,
        differentiable=True,
        properties=[Property("a stream shorter than the chunk", too_short_writes_nothing)],
        misconceptions=[
            Misconception(
                "writes at every token",
                lambda W0, X, Y, lr, period: run_level(W0, X, Y, lr, 1),
                "This level writes after every token. It has to wait until its chunk is full.",
            ),
            Misconception(
                "writes the rest",
                lambda *a: chunked(*a, flush=True),
                "The unfinished chunk at the end was written too. (The library calls that partial='flush'.)",
            ),
            Misconception(
                "mean",
                lambda *a: chunked(*a, mean=True),
                "This is the mean over the chunk; asked is the sum, as eq. 71 prints it.",
            ),
            Misconception(
                "C + 1 terms",
                lambda *a: chunked(*a, extra=1),
                "Each chunk also counts the token before it: C + 1 terms, as eq. 71 is printed. That token was written already.",
            ),
            Misconception(
                "clock from zero",
                clock_from_zero,
                "The clock is one token early: `i % period == 0` holds at i = 0, after a single token. Write when i + 1 tokens are full chunks.",
            ),
            Misconception(
                "last token only",
                lambda *a: chunked(*a, last=True),
                "Only the last token of each chunk is written; the others were read in vain.",
            ),
        ],
    ),
    FixTheBug(
        id="05-partial",
        title="The stream that was cut",
        objective="05.3",
        minutes=5,
        difficulty=2,
        prompt="A stream that arrives in several calls must end where one long call ends. This loop loses tokens. Which?",
        hints=(
            "Let period be 64 and every call 50 tokens long. What happens at the end of each call?",
            "What waits for the next write belongs to the stream, not to the call.",
            "Move the line that empties `waiting` and `clock` out of the loop over calls.",
        ),
        solution=mended_stream,
        broken=forgetful_stream,
        draw=draw_stream,
        properties=[Property("cut anywhere", any_cut)],
        misconceptions=[
            Misconception(
                "still dropped", forgetful_stream, "The gradients that wait at the end of a call are still thrown away."
            ),
            Misconception(
                "written early",
                flushed_stream,
                "Now every call's rest is written at its end: no token is lost, but the writes come at other times than in one call.",
            ),
        ],
    ),
    Implement(
        id="05-headwise",
        title="Levels side by side",
        objective="05.2",
        minutes=5,
        difficulty=1,
        prompt="The third variant, eq. 74: all levels read the same x, and a learned mixture adds their answers to it.",
        hints=(
            "Which input does level 2 read here? The same as level 1.",
            "One level's answer is `down[l] @ tanh(up[l] @ x)`.",
            "x + sum over l of softmax(mix)[l] times that.",
        ),
        solution=headwise,
        draw=draw_panel,
        differentiable=True,
        misconceptions=[
            Misconception(
                "a chain",
                in_a_chain,
                "Here level 2 reads what level 1 made: that is the chain of eq. 70. Side by side, all read x.",
            ),
            Misconception(
                "plain sum",
                lambda x, up, down, mix: (
                    headwise(x, up, down, 0 * mix) + (len(mix) - 1) * (headwise(x, up, down, 0 * mix) - x)
                ),
                "The answers are added up with weight one each; the mixture softmax(mix) is missing.",
            ),
            Misconception(
                "no residual",
                lambda x, up, down, mix: headwise(x, up, down, mix) - x,
                "x itself is missing: y = x + ...",
            ),
            Misconception(
                "equal shares",
                lambda x, up, down, mix: headwise(x, up, down, 0 * mix),
                "All levels have the same share. The shares are softmax(mix).",
            ),
        ],
    ),
    Implement(
        id="05-nested",
        title="A level with an owner",
        objective="05.2",
        minutes=9,
        difficulty=3,
        points=2,
        prompt="The nested variant, eq. 72, with gradients that are given: the slow level owns the *start* of the fast one.",
        hints=(
            "Two clocks: one counts the fast level's own chunk, the other the owner's tokens.",
            "At the owner's boundary, in this order: the start learns from w, w restarts at the start, the waiting gradients are emptied.",
            "`start = start + rho * (w - start)`; then w = start, waiting = 0, clock = 0.",
        ),
        solution=nested,
        draw=draw_nested,
        cases=[
            Case(
                (torch.zeros(1, dtype=torch.float64), -torch.ones(5, 1, dtype=torch.float64), 0.5, 1, 4, 0.5),
                "four tokens, then one more",
            )
        ],
        misconceptions=[
            Misconception(
                "never restarts",
                lambda *a: nested_with(*a, restart=False),
                "The fast weight goes on where it was. At the owner's boundary it restarts.",
            ),
            Misconception(
                "restarts at the old start",
                lambda *a: nested_with(*a, first=True),
                "It restarts where the start was *before* it learned. The start learns first.",
            ),
            Misconception(
                "waiting gradients survive",
                lambda *a: nested_with(*a, clear=False),
                "Gradients from before the restart are still waiting and will be written into the fresh weight.",
            ),
            Misconception(
                "one clock for both",
                lambda *a: nested_with(*a, shared=True),
                "The fast level counts the tokens of the stream. It has a clock of its own, which begins anew when it restarts.",
            ),
            Misconception(
                "the start never learns",
                lambda start, grads, lr, fast, slow, rho: nested(start, grads, lr, fast, slow, 0.0),
                "The start stays where it was: contexts are isolated (rho = 0). It should move by the share rho towards w.",
            ),
        ],
    ),
    Estimate(
        id="05-cost",
        title="What a token costs",
        objective="05.2",
        minutes=4,
        difficulty=1,
        unit="parameters",
        within=0.02,
        prompt="Four levels, each an MLP of width 512 and hidden width 2048 without biases, periods 64, 256, 1024 and 4096. How many "
        "parameters are moved per token, on average?",
        hints=(
            "One MLP has 2 * 512 * 2048 parameters, about 2.1 million.",
            "A level of P parameters and period C moves P / C per token.",
            "2.1 million times (1/64 + 1/256 + 1/1024 + 1/4096) = 2.1 million times 0.0208.",
        ),
        solution=moved,
        units={"thousand": 1e3},
        wrong={
            8388608: "That is all parameters together: what SGD at every token would move.",
            32768: "That is the fastest level alone. The three others add a third of it.",
            2097152: "That is the size of one level.",
            21760: "That counts one matrix a level. An MLP has two, one up to the hidden width and one down.",
        },
    ),
    ReadPicture(
        id="05-notes",
        title="Notes that know of B",
        objective="05.1",
        minutes=3,
        difficulty=1,
        unit="notes",
        within=0.01,
        view="score:C=1,16,64;T=120",
        prompt="In the score with T = 120, how many notes of the lane C = 16 have read at least one token of task B?",
        hints=(
            "The dotted line is the switch, after token 60.",
            "The notes of this lane stand at 16, 32, 48, 64, 80, 96, 112.",
            "The note at 64 has read tokens 49 to 64: eleven of A... and four of B.",
        ),
        solution=notes_with_b,
        wrong={
            7: "That is all its notes. The first three have read nothing but A.",
            3: "The note at 64 counts too: most of its chunk is A, its last tokens are B.",
        },
    ),
]
