"""Chapter 05, Clocks: a level and its clock, a whole CMS, nested starts, the cost, the law of one level, its way out."""

from __future__ import annotations

import torch
from torch import Tensor

from nlbook.book.check.define import *
from nlbook.cms import CMS, MLP


# ---------------------------------------------------------------------- one level (eq. 71)
def run_level(W0: Tensor, X: Tensor, Y: Tensor, lr: float, period: int) -> Tensor:
    """The weights (B, d_out, d_in) of a linear level after B sequences of pairs, X (B, T, d_in) and Y (B, T, d_out).

    Each sequence starts at W0 (d_out, d_in) and has a weight of its own. Objective: half the squared error. One write every
    `period` tokens of a sequence: lr times the summed gradient of these tokens. Tokens of an unfinished chunk are not written.
    """
    # BEGIN SOLUTION
    W = W0.expand(len(X), -1, -1)
    for end in range(period, X.shape[1] + 1, period):
        x, y = X[:, end - period : end], Y[:, end - period : end]
        W = W - lr * (x @ W.mT - y).mT @ x
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
    early: bool = False,
    shared: bool = False,
    emptied: bool = True,
    factor: int = 1,
) -> Tensor:
    """The level with one thing changed."""
    W, T = W0.expand(len(X), -1, -1), X.shape[1]
    waiting: Tensor | int = 0
    ends = range(1, T + 1, period) if early else range(period, T + (period if flush else 1), period)
    for end in ends:
        x, y = (t[:, max(0, end - period - extra) : end] for t in (X, Y))
        if last:
            x, y = x[:, -1:], y[:, -1:]
        g = factor * (x @ W.mT - y).mT @ x + waiting
        W, waiting = W - lr / (period if mean else 1) * (g.sum(0) if shared else g), 0 if emptied else g
    return W


def one_long_stream(W0: Tensor, X: Tensor, Y: Tensor, lr: float, period: int) -> Tensor:
    """The batch laid end to end, as if it were one sequence."""
    return run_level(W0, X.flatten(0, 1)[None], Y.flatten(0, 1)[None], lr, period).expand(len(X), -1, -1)


def draw_level(d: Draw) -> tuple:
    period = d.int(2, 4)
    B, T = d.int(2, 3), period * d.int(1, 3) + d.int(0, period - 1)
    n, m = d.int(1, 3), d.int(1, 2)
    return d.tensor(m, n), d.tensor(B, T, n), d.tensor(B, T, m), d.float(0.02, 0.5), period


def too_short_writes_nothing(answer, d: Draw) -> str | None:
    W0, X, Y = d.tensor(2, 3), d.tensor(2, 5, 3), d.tensor(2, 5, 2)
    same = torch.equal(answer(W0, X, Y, 0.1, 6), W0.expand(2, -1, -1))
    return None if same else "five tokens do not fill a chunk of six, yet a weight moved."


# ---------------------------------------------------------------------- a whole CMS (eq. 70 and 71)
def forward(x: Tensor, W: list[Tensor]) -> Tensor:
    """What a chain of levels makes of a token x (d,). W holds up (hidden, d) and down (d, hidden) of each level in turn.

    Each level reads a vector h and passes on h + down tanh(up h).
    """
    # BEGIN SOLUTION
    for up, down in zip(W[::2], W[1::2]):
        x = x + down @ torch.tanh(up @ x)
    return x
    # END SOLUTION


def no_residual(x: Tensor, W: list[Tensor]) -> Tensor:
    for up, down in zip(W[::2], W[1::2]):
        x = down @ torch.tanh(up @ x)
    return x


def added_to_the_token(x: Tensor, W: list[Tensor]) -> Tensor:
    h = x
    for up, down in zip(W[::2], W[1::2]):
        h = x + down @ torch.tanh(up @ h)
    return h


def side_by_side(x: Tensor, W: list[Tensor]) -> Tensor:
    return x + sum(down @ torch.tanh(up @ x) for up, down in zip(W[::2], W[1::2]))


def down_first(x: Tensor, W: list[Tensor]) -> Tensor:
    return forward(x, [w for i in range(len(W) - 2, -1, -2) for w in W[i : i + 2]])


def draw_weights(d: Draw) -> tuple[Tensor, list[Tensor]]:
    n, levels = d.int(2, 3), d.int(2, 3)
    return d.tensor(n), [w for h in (d.int(1, 3) for _ in range(levels)) for w in (d.tensor(h, n), d.tensor(n, h))]


def step(
    x: Tensor, target: Tensor, W: list[Tensor], waiting: list[Tensor], t: int, periods: list[int], lr: float
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Read token number t (counted from 1), learn from it, and return y, W and waiting after it.

    y is what `forward` says before anything is written. `waiting` has the shape of W: the gradients of 1/2 |y - target|^2
    since each weight's last move. W[i] belongs to level i // 2 and moves when t is a multiple of that level's period C, by
    -lr / C times what waits (the mean of the chunk); then nothing waits any more.
    """
    # BEGIN SOLUTION
    W = [w.detach().requires_grad_() for w in W]
    y = forward(x, W)
    grads = torch.autograd.grad(0.5 * (y - target).square().sum(), W)
    waiting = [old + g for old, g in zip(waiting, grads)]
    for i, C in enumerate(C for C in periods for _ in ("up", "down")):
        if t % C == 0:
            W[i], waiting[i] = W[i] - lr / C * waiting[i], torch.zeros_like(W[i])
    return y.detach(), [w.detach() for w in W], [g.detach() for g in waiting]
    # END SOLUTION


def library_step(x, target, W, waiting, t, periods, lr):
    """The same token, read by nlbook.cms.CMS."""
    cms = CMS(len(x), [len(w) for w in W[::2]], periods, lr=lr, mlp=MLP("tanh", norm=False)).to(x.dtype)
    state = cms.initial_state(1)
    for s, up, down, a, b in zip(state.levels, W[::2], W[1::2], waiting[::2], waiting[1::2]):
        s.weights, s.buffer = {"up": up[None], "down": down[None]}, {"up": a[None], "down": b[None]}
    for s, C in zip(state.levels, periods):
        s.clock = (t - 1) % C
    with torch.no_grad():
        y, state = cms(x[None, None], state, target[None, None])
    after = [s.weights[n][0] for s in state.levels for n in ("up", "down")]
    left = [
        torch.zeros_like(s.weights[n][0]) if s.buffer is None else s.buffer[n][0]
        for s in state.levels
        for n in ("up", "down")
    ]
    return y[0, 0], after, left


def step_with(
    x,
    target,
    W,
    waiting,
    t,
    periods,
    lr,
    *,
    late=False,
    early=False,
    keep=False,
    summed=False,
    only_last=False,
    half=0.5,
    by_level=True,
):
    W = [w.detach().requires_grad_() for w in W]
    y = forward(x, W)
    grads = torch.autograd.grad(half * (y - target).square().sum(), W)
    waiting = [g if only_last else old + g for old, g in zip(waiting, grads)]
    for i in range(len(W)):
        C = periods[i // 2 if by_level else i % len(periods)]
        if (t - 1 if early else t) % C == 0:
            W[i] = W[i] - lr / (1 if summed else C) * waiting[i]
            waiting[i] = waiting[i] if keep else torch.zeros_like(W[i])
    y = forward(x, W) if late else y
    return y.detach(), [w.detach() for w in W], [g.detach() for g in waiting]


def draw_step(d: Draw) -> tuple:
    x, W = draw_weights(d)
    periods = [1, *(d.int(2, 4) for _ in W[2::2])]
    t = periods[-1] * d.int(1, 3) - d.pick(0, 0, 1)
    return x, d.tensor(len(x)), W, [0 * w if t == 1 else d.tensor(*w.shape) for w in W], t, periods, d.float(0.05, 0.5)


# ---------------------------------------------------------------------- nested (eq. 72)
def one_clock(start: Tensor, grads: Tensor, lr: float, fast: int, slow: int, rho: float) -> Tensor:
    """The fast weight (d,) of a nested CMS after the gradients grads (T, d), which are given.

    Every `fast` tokens of its chunk it moves by -lr times their sum. Every `slow` tokens the start learns from it, by the share
    rho of the way to it, and the weight restarts there: no gradient is left waiting, its chunk begins anew.
    """
    w, waiting = start, torch.zeros_like(start)
    for t, g in enumerate(grads, 1):
        waiting = waiting + g
        if t % fast == 0:
            w, waiting = w - lr * waiting, torch.zeros_like(start)
        if t % slow == 0:
            start = start + rho * (w - start)
            w, waiting = start, torch.zeros_like(start)
    return w


def nested(start: Tensor, grads: Tensor, lr: float, fast: int, slow: int, rho: float) -> Tensor:
    """The fast weight (d,) of a nested CMS after the gradients grads (T, d), which are given.

    Every `fast` tokens of its chunk it moves by -lr times their sum. Every `slow` tokens the start learns from it, by the share
    rho of the way to it, and the weight restarts there: no gradient is left waiting, its chunk begins anew.
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
) -> Tensor:
    w, waiting, clock = start, torch.zeros_like(start), 0
    for t, g in enumerate(grads, 1):
        waiting, clock = waiting + g, clock + 1
        if clock == fast:
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


def share() -> float:
    """What the slow one of three additive levels with rates 0.5, 0.3 and 0.2 holds of a fact that all three hold."""
    # BEGIN SOLUTION
    rates = (0.5, 0.3, 0.2)
    return 0.8 * rates[-1] / sum(rates)
    # END SOLUTION


# ---------------------------------------------------------------------- the way out
def what_is_left(told: Tensor, fast: float, slow: float) -> Tensor:
    """The slow level s, one number, after documents told (documents, tokens): what was told of one key at each token.

    The answer is y = f + s; both start at 0. At each token f moves by `fast` times the error, told minus y. The context of f is
    the document: it starts each one at 0. At the end of a document s moves, by `slow` times the sum of the document's errors.
    """
    # BEGIN SOLUTION
    s = torch.zeros_like(told[0, 0])
    for document in told:
        f, waiting = torch.zeros_like(s), torch.zeros_like(s)
        for v in document:
            error = v - (f + s)
            f, waiting = f + fast * error, waiting + error
        s = s + slow * waiting
    return s
    # END SOLUTION


def left_with(told, fast, slow, *, ends=True, own=False, mean=False, each=False, alone=False, last=False, held=False):
    s = f = torch.zeros_like(told[0, 0])
    for document in told:
        f, waiting = torch.zeros_like(s) if ends else f, torch.zeros_like(s)
        for v in document:
            error = v - f if alone else v - (f + s)
            f, waiting = f + fast * error, (0 if last else waiting) + (v - s if own else error)
            if each:
                s, waiting = s + slow * error, torch.zeros_like(s)
        s = s + slow * (f if held else waiting) / (len(document) if mean else 1)
    return s


# ---------------------------------------------------------------------- the fair control
def divided_twice(lr: float, periods: list[int], reduce: str) -> list[float]:
    """The step per token of each level, for the control that moves at every token. reduce: an update takes the "mean" or the "sum" of
    its chunk's gradients."""
    return [lr / c if reduce == "sum" else lr / c**2 for c in periods]


def steps_per_token(lr: float, periods: list[int], reduce: str) -> list[float]:
    """The step per token of each level, for the control that moves at every token. reduce: an update takes the "mean" or the "sum" of
    its chunk's gradients."""
    # BEGIN SOLUTION
    return [lr if reduce == "sum" else lr / c for c in periods]
    # END SOLUTION


def draw_steps(d: Draw) -> tuple:
    return d.float(0.01, 0.5), [1, *(d.int(2, 64) for _ in range(d.int(1, 3)))], d.pick("mean", "sum")


ITEMS = [
    Implement(
        id="05-level",
        title="One level and its clock",
        objective="05.1",
        minutes=11,
        difficulty=2,
        points=2,
        prompt="Write one level: in each sequence of the batch it gathers the gradients of `period` tokens and then moves once.",
        hints=(
            "Walk over the ends of the full chunks: period, 2 * period, ... up to the number of tokens T.",
            "All gradients of a chunk are taken at the weight that the level had throughout the chunk; a batch only adds an axis in front.",
            "With x, y the chunk's rows (B, period, d): `W = W - lr * (x @ W.mT - y).mT @ x`.",
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
                lambda *a: chunked(*a, early=True),
                "The clock is off by one: `i % period == 0` holds at i = 0, after a single token. Write when i + 1 tokens are full chunks.",
            ),
            Misconception(
                "last token only",
                lambda *a: chunked(*a, last=True),
                "Only the last token of each chunk is written; the others were read in vain.",
            ),
            Misconception(
                "never emptied",
                lambda *a: chunked(*a, emptied=False),
                "The gradients that were written are still waiting: the next write adds them once more.",
            ),
            Misconception(
                "twice the gradient",
                lambda *a: chunked(*a, factor=2),
                "The gradient is twice too long. The objective is *half* the squared error, so the 2 cancels.",
            ),
            Misconception(
                "one memory for the batch",
                lambda *a: chunked(*a, shared=True),
                "The gradients of all sequences are added up, so strangers write into each other's memory. Each sequence has a weight of its own.",
            ),
            Misconception(
                "the mean over the batch",
                lambda W0, X, Y, lr, period: chunked(W0, X, Y, lr / len(X), period, shared=True),
                "All sequences share one weight, moved by the mean of their gradients. Each sequence has a weight of its own.",
            ),
            Misconception(
                "the batch as one stream",
                one_long_stream,
                "The sequences were laid end to end, as if the batch were one stream. They stand side by side: each has its own chunks.",
            ),
        ],
    ),
    Implement(
        id="05-forward",
        title="A chain reads",
        objective="05.1",
        minutes=4,
        difficulty=1,
        prompt="The first half of your CMS: what a chain of levels says about one token, with a residual around each level.",
        hints=(
            "Draw it: level 2 reads what level 1 has made of x.",
            "Go through the levels and let each change x before the next one reads it.",
            "`for up, down in zip(W[::2], W[1::2]): x = x + down @ torch.tanh(up @ x)`.",
        ),
        solution=forward,
        draw=draw_weights,
        differentiable=True,
        misconceptions=[
            Misconception(
                "no residual",
                no_residual,
                "What a level reads is lost: it adds its answer *to* h, it does not replace h.",
            ),
            Misconception(
                "added to the token",
                added_to_the_token,
                "Each answer is added to the token x, so what the levels before added is lost. Add it to what this level reads.",
            ),
            Misconception(
                "side by side",
                side_by_side,
                "Here every level reads x itself: levels side by side. In a chain level 2 reads what level 1 made.",
            ),
            Misconception(
                "the last level first", down_first, "The levels are applied in the wrong order: the first one first."
            ),
        ],
    ),
    Implement(
        id="05-step",
        title="A chain learns",
        objective="05.1",
        minutes=11,
        difficulty=3,
        points=3,
        prompt="The other half of your CMS: read one token, learn from it, and let every level move that is due. It must do what "
        "`nlbook.cms.CMS` does.",
        hints=(
            "In this order: read, one loss, its gradient for every weight, add to what waits, move whoever is due.",
            "`torch.autograd.grad(loss, W)` wants weights that ask for a gradient: `W = [w.detach().requires_grad_() for w in W]`.",
            "`if t % periods[i // 2] == 0:` move W[i] by `lr / periods[i // 2] * waiting[i]` and set `waiting[i]` to zeros.",
        ),
        solution=step,
        reference=library_step,
        draw=draw_step,
        in_place=("W", "waiting"),
        misconceptions=[
            Misconception(
                "answers after the write",
                lambda *a: step_with(*a, late=True),
                "y is read *after* the write. The answer to a token must come from weights that have not seen its target.",
            ),
            Misconception(
                "clock from zero",
                lambda *a: step_with(*a, early=True),
                "The clocks are one token late: t counts from 1, so a level is due when t itself is a multiple of its period.",
            ),
            Misconception(
                "without the half",
                lambda *a: step_with(*a, half=1.0),
                "The gradient is twice too long: the loss is 1/2 |y - target|^2.",
            ),
            Misconception(
                "the wrong level's period",
                lambda *a: step_with(*a, by_level=False),
                "W[i] has another level's period. W holds two weights a level, so W[i] belongs to level i // 2.",
            ),
            Misconception(
                "waits for ever",
                lambda *a: step_with(*a, keep=True),
                "What a level has written is still waiting: it will be written again with the next chunk.",
            ),
            Misconception(
                "sum",
                lambda *a: step_with(*a, summed=True),
                "This level moves by the sum of its chunk, C times too far. Asked is the mean: lr / C times what waits.",
            ),
            Misconception(
                "last token only",
                lambda *a: step_with(*a, only_last=True),
                "Only this token's gradient is kept: what waited from the tokens before is lost.",
            ),
        ],
    ),
    FixTheBug(
        id="05-nested",
        title="A level with an owner",
        objective="05.2",
        minutes=6,
        difficulty=2,
        points=2,
        prompt="The nested variant, eq. 72: the slow level owns the *start* of the fast one. This clockwork is right up to the first "
        "restart and wrong after it. Why?",
        hints=(
            "Take fast = 2 and slow = 5. After the restart at token 5, which two tokens make the next full chunk?",
            "Tokens 6 and 7. But `t % fast == 0` already holds at 6: it counts the tokens of the stream.",
            "Give the fast level a `clock` of its own: + 1 at each token, 0 after a move and after a restart.",
        ),
        broken=one_clock,
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
                one_clock,
                "The fast level still counts the tokens of the stream. It has a clock of its own, which begins anew when it restarts.",
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
        title="What a token moves",
        objective="05.2",
        minutes=5,
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
            8388608
            / 1360: "You divided all parameters by the mean period. Each level moves P / C, so the frequencies 1 / C add up.",
            10880: "That is the mean of the four levels. All four move, so add them up.",
            21760: "That counts one matrix a level. An MLP has two, one up to the hidden width and one down.",
        },
    ),
    Estimate(
        id="05-share",
        title="What the slow level holds",
        objective="05.4",
        minutes=3,
        difficulty=1,
        within=0.02,
        prompt="Three levels that add up follow one loss with the rates 0.5, 0.3 and 0.2; none forgets, all move at every token and "
        "start at zero. Together they hold 0.8 of the fact `A3`, which they have known for a long time. How much of it does the "
        "slow level hold?",
        hints=(
            "All three are shown the same error at every token. In what proportion do they move?",
            "Their contents stay in that proportion for ever, for A3 as for any other fact.",
            "The slow level has 0.2 of 1.0 of everything, so 0.2 of 0.8.",
        ),
        solution=share,
        wrong={
            0.8: "You expect old knowledge to sink into the slow level. Nothing makes it sink: all levels see the same error, so each "
            "holds its share of everything, old or new.",
            0.2: "That is its share of what they hold together; they hold 0.8.",
            0.8 / 3: "That would be equal shares. They move in the proportion of their rates.",
        },
    ),
    Implement(
        id="05-left",
        title="What is left for the slow level",
        objective="05.4",
        minutes=8,
        difficulty=2,
        points=2,
        prompt="Two numbers that add up: a fast one whose context is the document, and a slow one that moves once a document by what was "
        "left over. Return the slow one.",
        hints=(
            "Two loops: over the documents, and over what a document tells.",
            "One error for both levels: told minus (f + s), taken before anything moves.",
            "In the document `f += fast * error; waiting += error`; after it `s += slow * waiting`.",
        ),
        solution=what_is_left,
        draw=lambda d: (d.tensor(d.int(2, 4), d.int(2, 4)), d.float(0.1, 0.9), d.float(0.1, 0.9)),
        cases=[Case((torch.ones(2, 3, dtype=torch.float64), 1.0, 0.5), "the two documents of the text")],
        differentiable=True,
        misconceptions=[
            Misconception(
                "the fast level never ends",
                lambda *a: left_with(*a, ends=False),
                "f lives on from document to document, so from the second one on there is no error left from which s could learn. Its "
                "context ends with the document.",
            ),
            Misconception(
                "an error of its own",
                lambda *a: left_with(*a, own=True),
                "s learns here from an error of its own, told minus s. There is one error, told minus (f + s): s sees what f left over.",
            ),
            Misconception(
                "mean",
                lambda *a: left_with(*a, mean=True),
                "s moves by the mean of the document's errors; asked is their sum.",
            ),
            Misconception(
                "y is the fast level alone",
                lambda *a: left_with(*a, alone=True),
                "The error is told minus f: what s knows already is missing in the answer, so it is learned again and again.",
            ),
            Misconception(
                "last error only",
                lambda *a: left_with(*a, last=True),
                "s learns from a document's last error alone, when f has made up for nearly all of it. It takes the sum of all errors.",
            ),
            Misconception(
                "what f holds",
                lambda *a: left_with(*a, held=True),
                "s moves by slow times f. That is `fast` times too little: f holds `fast` times the sum of the errors.",
            ),
            Misconception(
                "s moves at every token",
                lambda *a: left_with(*a, each=True),
                "s moves within the document. It waits until the end and then moves once.",
            ),
        ],
    ),
    FixTheBug(
        id="05-steps",
        title="An unfair control",
        objective="05.5",
        minutes=5,
        difficulty=2,
        prompt="To ask whether the *period* matters, the control must have the same step per token and no period. This one has too small steps.",
        hints=(
            "Write down the update of a level of period C with reduce='mean': lr times the mean of C gradients.",
            "lr * (1/C) * sum = the sum of (lr / C) * each. So each token contributes lr / C times its gradient.",
            "mean: lr / C. sum: lr. The division by C happens once, not twice.",
        ),
        solution=steps_per_token,
        broken=divided_twice,
        draw=draw_steps,
        misconceptions=[
            Misconception(
                "still divided twice",
                divided_twice,
                "'It takes the mean, *and* it moves only once in C': that counts the same division twice.",
            ),
            Misconception(
                "always lr",
                lambda lr, periods, reduce: [lr for _ in periods],
                "With the mean, a token of a slow level contributes lr / C.",
            ),
            Misconception(
                "swapped",
                lambda lr, periods, reduce: [lr if reduce == "mean" else lr / c for c in periods],
                "Mean and sum are swapped.",
            ),
            Misconception(
                "always lr / C",
                lambda lr, periods, reduce: [lr / c for c in periods],
                "With the sum, each token's gradient is applied in full: late, but in full. That is why the CMS with sums forgets like one MLP.",
            ),
            Misconception(
                "multiplied",
                lambda lr, periods, reduce: [lr * c if reduce == "sum" else lr for c in periods],
                "This control moves C times too far: C gradients added up once are one step of lr for each of the C tokens.",
            ),
        ],
    ),
]
