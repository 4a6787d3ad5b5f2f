"""Chapter 07, Hope, whole: the pieces of a token-wise Hope, which the chapter puts together, and what its parts carry.

`read`, `say`, `unpack`, `begin` and `learn` are given on the page, cell by cell; the others are written there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from nlbook.book.check.define import *
from nlbook.hope import Hope, HopeConfig, plain
from nlbook.numerics import rms, unit

Pair = tuple[Tensor, Tensor]  # W1, W2 of a memory with two layers
GATES = ("eta", "alpha")
NAMES = ("mem", "k", "v", *GATES)


# ---------------------------------------------------------------------- (a) a memory
def read(S, x, residual=True):
    W1, W2 = S
    said = W1 @ silu(W2 @ x)
    return x + said if residual else said


def write(W: Pair, S: Pair, k: Tensor, value: Tensor, eta: Tensor, alpha: Tensor, residual: bool = True) -> Pair:
    """One write into a memory of two layers: the new (W1, W2). W: its weights now. S: those at the last chunk boundary.

    The loss is half the squared distance of read(S, k, residual) from value, a constant; its gradient is taken at S.
    Each layer does W (alpha I - e n n^T) - e gradient, where e = eta / (1 + eta |n|^2) and n is the layer's own input.
    n too is read at S: n = silu(S2 k) for the first layer W1, and n = k for W2.
    """
    # BEGIN SOLUTION
    W1, W2 = S
    z = W2 @ k
    a, s = silu(z), torch.sigmoid(z)
    error = read(S, k, residual) - value  # what reaches W1 from behind
    inner = (W1.T @ error) * s * (1 + z * (1 - s))  # what reaches W2
    e1, e2 = (eta / (1 + eta * n.square().sum()) for n in (a, k))
    new1 = alpha * W[0] - e1 * torch.outer(W[0] @ a + error, a)
    new2 = alpha * W[1] - e2 * torch.outer(W[1] @ k + inner, k)
    return new1, new2
    # END SOLUTION


def write_with(W, S, k, value, eta, alpha, residual=True, *, at=None, erase=1, shared=False, plain=False, slope=True,
               erased=None, after=False, now=()):  # fmt: skip
    W1, W2 = at or S
    z = W2 @ k
    a, s = silu(z), torch.sigmoid(z)
    error = read((W1, W2), k, residual) - value
    inner = (W1.T @ error) * (s * (1 + z * (1 - s)) if slope else 1)
    erases, rated, grows = (silu(W[1] @ k) if use in now else a for use in ("erases", "rated", "grows"))
    e1, e2 = (eta / (1 + eta * n.square().sum()) for n in (k if shared else rated, k))
    e1, e2 = (eta, eta) if plain else (e1, e2)
    w1, w2 = erased or W
    keep = alpha if after else 1
    new1 = alpha * W[0] - e1 * (torch.outer(erase * keep * w1 @ erases, erases) + torch.outer(error, grows))
    return new1, alpha * W[1] - e2 * torch.outer(erase * keep * w2 @ k + inner, k)


READ_AT_S = (
    "Something is read at W, the weights of now, that is read at S, those of the chunk's start: the rows, the gates, each "
    "memory's own value, the error, and each layer's input n, which is silu(S2 k) for W1. Only what is erased, W n, and "
    "the answer are of now."
)


def memory(d: Draw, n: int, h: int, out: int) -> Pair:
    return d.tensor(out, h), d.tensor(h, n)


def number(d: Draw, low: float, high: float) -> Tensor:
    return torch.tensor(d.float(low, high), dtype=torch.float64)


def draw_write(d: Draw) -> tuple:
    n, h = d.int(1, 3), d.int(2, 3)
    gate = d.pick(False, False, True)
    out = 1 if gate else n
    W, S = memory(d, n, h, out), memory(d, n, h, out)
    return W, S, d.tensor(n), d.tensor(out), number(d, 0.2, 1.5), number(d, 0.2, 1), not gate


def whole(*rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


ONE, HALF = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
SMALL_WRITE = Case(
    ((whole([2.0]), whole([1.0])), (whole([1.0]), whole([0.0])), whole(1.0), whole(2.0), ONE, HALF),
    "one number a layer; at the boundary W2 was 0",
)


# ---------------------------------------------------------------------- (b) five memories
def self_modify(
    W: dict, S: dict, past: Tensor, taps: Tensor, W_q: Tensor, b: dict, x: Tensor
) -> tuple[Tensor, dict, Tensor]:
    """Five memories and one token x (d,). Returns the answer, the memories after their writes, and the new window.

    W, S: "mem", "k", "v", "eta", "alpha" -> (W1, W2), now and at the last chunk boundary. All reads are at S, but for
    the answer: read(W["mem"], q) after its write. The gates "eta", "alpha" are no residuals; each is the sigmoid of its
    one number plus b[name]. past, taps (3, 4, d): the last four rows of q, k, v, the newest last, and their weights;
    q, k, v are the weighted sums, through silu, at length 1. Each memory is written with read(S[name], v) as its value
    (for the gates without residual, as everywhere).
    """
    # BEGIN SOLUTION
    rows = torch.stack([W_q @ x, read(S["k"], x), read(S["v"], x)])
    past = torch.cat([past[:, 1:], rows[:, None]], 1)
    q, k, v = unit(silu((taps * past).sum(1)))
    eta, alpha = (torch.sigmoid(read(S[name], x, False)[0] + b[name]) for name in ("eta", "alpha"))
    new = {}
    for name in W:
        residual = name not in ("eta", "alpha")
        own = read(S[name], v, residual)
        new[name] = write(W[name], S[name], k, own, eta, alpha, residual)
    return read(new["mem"], q), new, past
    # END SOLUTION


def five_with(W, S, past, taps, W_q, b, x, *, now=(), own=True, answer=None, long_v=False, soft=True, of="v",
              broad="", flip=False, still=False):  # fmt: skip
    at = {what: W if what in now else S for what in ("rows", "gates", "values", "writes")}
    rows = torch.stack([W_q @ x, read(at["rows"]["k"], x), read(at["rows"]["v"], x)])
    window = torch.cat([past[:, 1:], rows[:, None]], 1)
    mixed = ((taps.flip(1) if flip else taps) * window).sum(1)
    mixed = silu(mixed) if soft else mixed
    q, k, v = unit(mixed)
    v = mixed[2] if long_v else v
    eta, alpha = (torch.sigmoid(read(at["gates"][n], x, False)[0] + b[n]) for n in GATES)
    new = {}
    for n in W:
        given = v if n not in GATES else v[:1]
        value = read(at["values"][n], {"v": v, "k": k}[of], n not in GATES) if own else given
        if broad and n in GATES:  # v + one number is a row: its error, summed over the row, as autograd does
            said = read(S[n], k, False)
            value = said - (said + (k if broad == "both" else 0) - v - value).sum()
        new[n] = write(W[n], at["writes"][n], k, value, eta, alpha, n not in GATES)
    mem = {"before": W, "boundary": S}.get(answer, new)["mem"]
    return read(mem, q), new, past if still else window


def five(d: Draw, n: int, h: int) -> dict[str, Pair]:
    return {name: memory(d, n, h, 1 if name in GATES else n) for name in NAMES}


def draw_five(d: Draw) -> tuple:
    n, h = d.int(2, 3), d.int(2, 3)
    b = {name: number(d, -1, 1) for name in GATES}
    return five(d, n, h), five(d, n, h), d.tensor(3, 4, n), d.tensor(3, 4, n), d.tensor(n, n), b, d.tensor(n)


# ---------------------------------------------------------------------- (c) a level
def say(up, down, share, n):
    return sum(p * (D @ silu(U @ n)) for U, D, p in zip(up, down, share))


def slopes(
    up: list[Tensor], down: list[Tensor], share: Tensor, n: Tensor, rest: Tensor, head: Tensor, token: int
) -> tuple[list[Tensor], list[Tensor]]:
    """What the next token says to the levels: the gradients of its loss for each of `up` and for each of `down`.

    The model said y = rest + say(up, down, share, n). The head (vocabulary, d) reads rms(y); the loss is the
    cross-entropy of `token`, the one that came next.
    """
    # BEGIN SOLUTION
    up = [w.detach().requires_grad_() for w in up]
    down = [w.detach().requires_grad_() for w in down]
    y = rest + say(up, down, share, n)
    loss = -torch.log_softmax(head @ rms(y), 0)[token]
    found = torch.autograd.grad(loss, [*up, *down])
    return list(found[: len(up)]), list(found[len(up) :])
    # END SOLUTION


def slopes_with(up, down, share, n, rest, head, token, *, norm=True, alone=False, shared=True, error=False):
    up, down = ([w.detach().requires_grad_() for w in ws] for ws in (up, down))
    y = (0 if alone else rest) + say(up, down, share if shared else torch.ones_like(share), n)
    y = rms(y) if norm else y
    loss = 0.5 * (y - head[token]).square().sum() if error else -torch.log_softmax(head @ y, 0)[token]
    found = torch.autograd.grad(loss, [*up, *down])
    return list(found[: len(up)]), list(found[len(up) :])


def draw_slopes(d: Draw) -> tuple:
    n, h, levels, words = d.int(2, 3), d.int(1, 3), d.int(1, 2), d.int(3, 5)
    up, down = ([d.tensor(*s) for _ in range(levels)] for s in ((h, n), (n, h)))
    share = (d.tensor(levels) - 1).exp()
    return up, down, share, d.tensor(n), d.tensor(n), d.tensor(words, n), d.int(0, words - 1)


def tick(
    w: Tensor, waiting: list[Tensor], slope: Tensor, rate: Tensor, period: int, ends: bool
) -> tuple[Tensor, list[Tensor]]:
    """A level hears the slope of one token. Returns its weight and what waits for the next move.

    It gathers slopes, and moves by minus rate times their sum once there are `period` of them; `ends`: the document
    ends here, and it moves by what it has.
    """
    # BEGIN SOLUTION
    waiting = [*waiting, slope]
    if ends or len(waiting) == period:
        return w - rate * sum(waiting), []
    return w, waiting
    # END SOLUTION


MEAN = "That is a mean of the slopes. Eq. 71 adds them up, so that a level with a long period makes a long step."


def drops(w, waiting, slope, rate, period, ends):
    w, waiting = tick(w, waiting, slope, rate, period, False)
    return w, [] if ends else waiting


def late(w, waiting, slope, rate, period, ends):
    if ends or len(waiting) + 1 == period:
        return (w - rate * sum(waiting) if waiting else w), [slope]
    return w, [*waiting, slope]


def draw_tick(d: Draw) -> tuple:
    period, shape = d.int(2, 5), (d.int(1, 3), d.int(1, 3))
    waiting = [d.tensor(*shape) for _ in range(d.int(1, period - 1))]
    return d.tensor(*shape), waiting, d.tensor(*shape), number(d, 0.5, 2), period, d.pick(False, False, True)


FULL_TICK = Case((whole(1.0), [whole(2.0)], whole(4.0), HALF, 2, False), "the second of two slopes")
WAIT_TICK = Case((whole(1.0), [whole(2.0)], whole(4.0), HALF, 3, False), "the second of three slopes")
END_TICK = Case((whole(1.0), [whole(2.0)], whole(4.0), HALF, 5, True), "a document ends after two of five slopes")


# ---------------------------------------------------------------------- (d) the block
def block(w: dict, s: dict, x: Tensor, chunk: int) -> tuple[Tensor, dict]:
    """One token x (d,) through a block: y (d,), and the block's new state.

    w: the weights "W_q", "taps", "b" of the memories, "W_o", "W_g", "share". s: the state "W", "S", "past", "seen",
    "up", "down". n = rms(x); o comes from `self_modify`, which hears n; h = x + W_o (rms(o) * silu(W_g n)); y is h plus
    what the levels say to n. The new state counts the token in "seen"; after every `chunk` tokens "S" becomes "W"; it
    keeps "n" and "h", which wait for the next token.
    """
    # BEGIN SOLUTION
    n = rms(x)
    o, W, past = self_modify(s["W"], s["S"], s["past"], w["taps"], w["W_q"], w["b"], n)
    h = x + w["W_o"] @ (rms(o) * silu(w["W_g"] @ n))
    y = h + say(s["up"], s["down"], w["share"], n)
    seen = s["seen"] + 1
    S = W if seen % chunk == 0 else s["S"]
    return y, {**s, "W": W, "S": S, "past": past, "seen": seen, "n": n, "h": h}
    # END SOLUTION


def block_with(w, s, x, chunk, *, raw=False, soft=silu, bare=False, alone=False, behind="", bound=None, gate_x=False):
    n = rms(x)
    o, W, past = self_modify(s["W"], s["S"], s["past"], w["taps"], w["W_q"], w["b"], x if raw else n)
    h = (0 if alone else x) + w["W_o"] @ ((o if bare else rms(o)) * soft(w["W_g"] @ (x if gate_x else n)))
    y = h + say(s["up"], s["down"], w["share"], {"rms": rms(h), "h": h}.get(behind, n))
    seen = s["seen"] + 1
    S = W if (seen % chunk == 0 if bound is None else bound) else s["S"]
    return y, {**s, "W": W, "S": S, "past": past, "seen": seen, "n": n, "h": h}


BEHIND = "The levels read what comes out of the memories' half, as eq. 97 prints it. Here they stand beside it and read n (eq. 74)."


def draw_block(d: Draw) -> tuple:
    n, h, levels, chunk = d.int(2, 3), d.int(1, 3), d.int(1, 2), d.int(2, 3)
    w = {"taps": d.tensor(3, 4, n), "W_q": d.tensor(n, n), "b": {name: number(d, -1, 1) for name in GATES}}
    w |= {"W_o": d.tensor(n, n), "W_g": d.tensor(n, n), "share": d.tensor(levels).sigmoid()}
    s: dict[str, Any] = {"W": five(d, n, h), "S": five(d, n, h), "past": d.tensor(3, 4, n), "seen": d.int(0, 5)}
    s |= {"up": [d.tensor(h, n) for _ in range(levels)], "down": [d.tensor(n, h) for _ in range(levels)]}
    return w, s, d.tensor(n), chunk


# ---------------------------------------------------------------------- (e) all of it
def unpack(weights):
    blocks: list[dict] = []
    while any(name.startswith(f"blocks.{len(blocks)}.") for name in weights):
        first = f"blocks.{len(blocks)}."
        w = {name.removeprefix(first): x for name, x in weights.items() if name.startswith(first)}
        start = {}
        for name, group, i in (
            ("mem", "mem", 0),
            ("k", "proj", 0),
            ("v", "proj", 1),
            ("eta", "gate", 0),
            ("alpha", "gate", 1),
        ):
            start[name] = tuple(w[f"mixer.initial.{group}_{layer}"][0, i] for layer in ("W1", "W2"))
        levels = range(len(w["mlp.mix"]))
        up, down = ([w[f"mlp.{name}.{i}"] for i in levels] for name in ("up", "down"))
        part = {"start": start, "up": up, "down": down, "share": w["mlp.mix"].softmax(0), "rate": w["mlp.log_lr"].exp()}
        part |= {
            "taps": w["mixer.taps"][0],
            "W_q": w["mixer.W_q"],
            "b": {name: w[f"mixer.b_{name}"][0] for name in GATES},
        }
        blocks.append(part | {name: w[name] for name in ("W_o", "W_g", "gate", "gate_bias")})
    return blocks


def begin(w, s=None):
    if s is None:
        none: list[list] = [[] for _ in w["up"]]
        s = {"up": w["up"], "down": w["down"], "waiting up": none, "waiting down": none}
    return {**s, "W": w["start"], "S": w["start"], "past": torch.zeros_like(w["taps"]), "seen": 0}


def learn(w, s, y, head, token, periods, ends):
    rest = y - say(s["up"], s["down"], w["share"], s["n"])
    slope = dict(zip(("up", "down"), slopes(s["up"], s["down"], w["share"], s["n"], rest, head, token)))
    eta = 2 * torch.sigmoid(w["gate"] @ rms(s["h"]) + w["gate_bias"])
    new: dict[str, list] = {name: [] for name in ("up", "down", "waiting up", "waiting down")}
    for i, period in enumerate(periods):
        for name in ("up", "down"):
            moved = tick(s[name][i], s[f"waiting {name}"][i], eta[i] * slope[name][i], w["rate"][i], period, ends)
            new[name].append(moved[0])
            new[f"waiting {name}"].append(moved[1])
    return {**s, **new}


def hope(weights: dict, tokens: Tensor, periods: tuple, chunk: int = 16, boundary: int | None = None) -> Tensor:
    """Logits (length, vocabulary) of a stream of tokens (length,). The token `boundary` opens a document.

    At each token but the first all blocks learn from it: it is what came next, after the y that the last block said at
    the token before. Where a document opens, memories begin again and levels live on. Then the token's row of
    weights["embedding"] goes through the blocks, one after the other, and the same matrix reads rms of the last one's
    y. unpack(weights) has the blocks' weights.
    """
    # BEGIN SOLUTION
    head, blocks, said = weights["embedding"], unpack(weights), list[Tensor]()
    states = [begin(w) for w in blocks]
    for token in tokens.tolist():
        x, ends = head[token], token == boundary
        for i, w in enumerate(blocks):
            s = learn(w, states[i], said[-1], head, token, periods, ends) if said else states[i]
            x, states[i] = block(w, begin(w, s) if ends else s, x, chunk)
        said.append(x)
    return torch.stack([head @ rms(y) for y in said])
    # END SOLUTION


def hope_with(weights, tokens, periods, chunk=16, boundary=None, *, lasts=False, fresh=False, still=False, read=False,
              bare=False, ends=True, own=False):  # fmt: skip
    head, blocks, said = weights["embedding"], unpack(weights), list[Tensor]()
    states = [begin(w) for w in blocks]
    listed = tokens.tolist()
    for t, token in enumerate(listed):
        for i, w in enumerate(blocks) if t else ():
            if not still:
                heard, s = listed[t - 1] if read else token, states[i]
                y = s["h"] + say(s["up"], s["down"], w["share"], s["n"]) if own else said[-1]
                states[i] = learn(w, s, y, head, heard, periods, ends and token == boundary)
            if token == boundary and not lasts:
                states[i] = begin(w, None if fresh else states[i])
        x = head[token]
        for i, w in enumerate(blocks):
            x, states[i] = block(w, states[i], x, chunk)
        said.append(x)
    return torch.stack([head @ (y if bare else rms(y)) for y in said])


def draw_hope(d: Draw) -> tuple:
    sizes: dict[str, Any] = {"vocabulary": 5, "dim": d.int(2, 4), "hidden": d.int(2, 3), "layers": d.int(1, 2)}
    periods = (d.int(2, 3), d.int(4, 6))
    weights = Hope(HopeConfig(**sizes, periods=periods)).double().state_dict()
    weights = {n: x + 0.5 * d.tensor(*x.shape) for n, x in weights.items()}
    tokens = torch.tensor([d.int(0, 4) for _ in range(14)])
    tokens[0] = tokens[8] = 4
    return weights, tokens, periods, d.int(2, 5), 4


# ---------------------------------------------------------------------- whose memory, and until when
def broken_lives(streams: list[list[list[int]]]) -> list[tuple[int, int]]:
    """Streams of documents of numbers. A mixer adds up what it hears within a document, a level what it hears within a
    stream. Returns (mixer, level) at the end of every document."""
    told = []
    mixer = level = 0
    for documents in streams:
        for document in documents:
            for x in document:
                mixer, level = mixer + x, level + x
            told.append((mixer, level))
    return told


def lives(streams: list[list[list[int]]]) -> list[tuple[int, int]]:
    """Streams of documents of numbers. A mixer adds up what it hears within a document, a level what it hears within a
    stream. Returns (mixer, level) at the end of every document."""
    # BEGIN SOLUTION
    told = []
    for documents in streams:
        level = 0
        for document in documents:
            mixer = 0
            for x in document:
                mixer, level = mixer + x, level + x
            told.append((mixer, level))
    return told
    # END SOLUTION


def lives_with(streams, *, reset_level, reset_mixer):
    told, mixer, level = [], 0, 0
    for documents in streams:
        level = 0 if reset_level in ("stream", "document") else level
        mixer = 0 if reset_mixer in ("stream", "document") else mixer
        for document in documents:
            level = 0 if reset_level == "document" else level
            mixer = 0 if reset_mixer == "document" else mixer
            for x in document:
                mixer, level = mixer + x, level + x
            told.append((mixer, level))
    return told


def draw_lives(d: Draw) -> tuple:
    def document() -> list[int]:
        return [d.int(1, 9) for _ in range(d.int(1, 3))]

    return ([[document() for _ in range(d.int(2, 3))] for _ in range(d.int(2, 3))],)


def known_without_level() -> float:
    """How well the facts that hold for ever are known in stream 0 with the level held: the mean from document 2 on."""
    # BEGIN SOLUTION
    from nlbook.book import viz

    return viz.load("reading:hold=level").facts["known_for_ever"]
    # END SOLUTION


ITEMS: list = [
    Implement(
        id="07-write",
        title="Write into a memory of two layers",
        objective="07.1",
        minutes=12,
        difficulty=3,
        points=2,
        prompt="Write `write`: the gradient of half the squared distance, by the chain rule or by autograd, taken at S; then the step of each layer from W. "
        "`read`, `silu` and `torch` are there.",
        hints=(
            "Two layers: which error reaches W1, and what is left of it when it has gone back through W1 and silu to W2?",
            "With z = W2 k and s = sigmoid(z), silu'(z) = s (1 + z (1 - s)). The gradient of W1 is outer(error, silu(z)), that of W2 is outer(inner, k). Each layer's n is what it multiplies.",
            "`new1 = alpha * W[0] - e1 * torch.outer(W[0] @ a + error, a)` with `a = silu(S[1] @ k)` and `e1 = eta / (1 + eta * a.square().sum())`; W2 likewise, with k and `inner`.",
        ),
        solution=write,
        draw=draw_write,
        cases=[SMALL_WRITE],
        misconceptions=[
            Misconception(
                "the gradient of now",
                lambda W, S, k, v, e, a, r=True: write_with(W, S, k, v, e, a, r, at=W),
                READ_AT_S,
            ),
            *(
                Misconception(
                    f"the input of now {' and '.join(now)}", lambda *x, now=now: write_with(*x, now=now), READ_AT_S
                )
                for now in (("erases",), ("erases", "rated"), ("erases", "rated", "grows"))
            ),
            Misconception(
                "nothing erased",
                lambda *x: write_with(*x, erase=0),
                "That is a gradient step with retention. The term -e W n n^T is missing: before it writes, the memory erases what W itself says about n.",
            ),
            Misconception(
                "erases the old weights",
                lambda W, S, *x: write_with(W, S, *x, erased=S),
                "What is erased is what the memory says *now*: W n, not S n.",
            ),
            Misconception(
                "forgets first",
                lambda *x: write_with(*x, after=True),
                "alpha scales W once: W (alpha I - e n n^T). It does not scale what is erased.",
            ),
            Misconception(
                "a rate for length one",
                lambda *x: write_with(*x, plain=True),
                "The rate is eta itself. That would be right if |n| were small; for a row of any length it is eta / (1 + eta |n|^2).",
            ),
            Misconception(
                "k for both layers",
                lambda *x: write_with(*x, shared=True),
                "Both rates use the length of k. W1 does not read k but silu(W2 k): its rate needs the length of that.",
            ),
            Misconception(
                "silu is straight",
                lambda *x: write_with(*x, slope=False),
                "On its way back to W2 the error passes silu, so it is multiplied by silu'(z) = s (1 + z (1 - s)) with s = sigmoid(z).",
            ),
        ],
    ),
    Implement(
        id="07-five",
        title="Five memories that write themselves",
        objective="07.1",
        minutes=15,
        difficulty=3,
        points=2,
        prompt="Write `self_modify` with `read` and `write`: make the three rows and shift them into the window, mix and normalise them to q, k, v, make the two gates, write all five, answer. `silu` and `unit` are there; unit works row by row.",
        hints=(
            "In this order: rows, window, q k v, gates, writes, answer. Which of them look at S, which at the new memories?",
            "`unit(silu((taps * past).sum(1)))` gives q, k, v at once. The value of a memory is what it would itself answer to v, at S.",
            '`new[name] = write(W[name], S[name], k, read(S[name], v, residual), eta, alpha, residual)`, and in the end `read(new["mem"], q)`.',
        ),
        solution=self_modify,
        draw=draw_five,
        misconceptions=[
            Misconception(
                "given values",
                lambda *x: five_with(*x, own=False),
                "All memories are told the same value v. Each makes its own: what it answers to v, read(S[name], v). That is the self-modification.",
            ),
            Misconception(
                "read before write",
                lambda *x: five_with(*x, answer="before"),
                "The answer is read before this token's write. Eq. 86 prints it so; the Hope in use reads after it, as eq. 78 does.",
            ),
            Misconception(
                "the answer of the chunk's start",
                lambda *x: five_with(*x, answer="boundary"),
                "The answer is read at the chunk's start, so it knows nothing of this chunk. It comes from the memory after this token's write.",
            ),
            *(
                Misconception(f"{' and '.join(now)} of now", lambda *x, now=now: five_with(*x, now=now), READ_AT_S)
                for now in (
                    ("rows",),
                    ("gates",),
                    ("values",),
                    ("writes",),
                    ("rows", "gates", "values"),
                    ("rows", "gates", "values", "writes"),
                )
            ),
            *(
                Misconception(
                    f"a gate that answers a row ({broad})",
                    lambda *x, broad=broad: five_with(*x, broad=broad),
                    "A gate's memory is told a row. It answers one number, so its own value is read without residual, and it is written without residual; v + one number is a row, and PyTorch says nothing.",
                )
                for broad in ("value", "both")
            ),
            Misconception(
                "v of any length",
                lambda *x: five_with(*x, long_v=True),
                "v keeps its length. q, k and v are all brought to length 1: a memory that is told its own answer to a long v explodes.",
            ),
            Misconception(
                "no silu",
                lambda *x: five_with(*x, soft=False),
                "After the window's weighted sum comes silu, then the length.",
            ),
            Misconception(
                "the answer to k",
                lambda *x: five_with(*x, of="k"),
                "The memory is told what it already answers to k, so there is nothing to learn but erasing. Its value is what it answers to v.",
            ),
            Misconception(
                "newest first",
                lambda *x: five_with(*x, flip=True),
                "The weights meet the window the wrong way round: the newest row is the last, and so is its weight.",
            ),
            Misconception(
                "a window that stands still",
                lambda *x: five_with(*x, still=True),
                "The window that you return is the one that came in: the next token would not find this one in it.",
            ),
        ],
    ),
    Implement(
        id="07-loss",
        title="What the next token says to a level",
        objective="07.1",
        minutes=4,
        difficulty=2,
        prompt="Write `slopes` with torch.autograd.grad: make copies of the levels' weights that require a gradient, say y again with them, take the loss of the token that came.",
        hints=(
            "A level is trained as the whole model is: by the loss of the next token. Only the weights of the levels are asked for.",
            "`w.detach().requires_grad_()` makes such a copy; the loss is `-torch.log_softmax(..., 0)[token]`.",
            "`torch.autograd.grad(-torch.log_softmax(head @ rms(rest + say(up, down, share, n)), 0)[token], [*up, *down])`, cut in two lists.",
        ),
        solution=slopes,
        draw=draw_slopes,
        misconceptions=[
            Misconception(
                "the head reads y",
                lambda *x: slopes_with(*x, norm=False),
                "The head reads rms(y), here as at the end of the model.",
            ),
            Misconception(
                "levels alone",
                lambda *x: slopes_with(*x, alone=True),
                "Only what the levels say is scored. The model says rest + that, so a level need not repeat what the memories know already.",
            ),
            Misconception(
                "without shares",
                lambda *x: slopes_with(*x, shared=False),
                "The levels speak with their shares, as in `say`; without them the loss is another one.",
            ),
            Misconception(
                "a distance to the token's row",
                lambda *x: slopes_with(*x, error=True),
                "That is half the squared distance from the token's embedding. The loss is its cross-entropy among all tokens.",
            ),
        ],
    ),
    Implement(
        id="07-clock",
        title="Gather, then move",
        objective="07.1",
        minutes=3,
        difficulty=1,
        prompt="Write `tick`. A sum, not a mean; and no slope is lost where a document ends.",
        hints=(
            "The slope of this token counts already in this token's move.",
            "Make a new list, `[*waiting, slope]`; move when it is as long as the period or when the document ends.",
            "`return w - rate * sum(waiting), []` when it moves, `return w, waiting` when it does not.",
        ),
        solution=tick,
        draw=draw_tick,
        cases=[FULL_TICK, WAIT_TICK, END_TICK],
        misconceptions=[
            Misconception(
                "mean",
                lambda w, waiting, g, r, p, e: (
                    (w - r * sum([*waiting, g]) / (len(waiting) + 1), [])
                    if e or len(waiting) + 1 == p
                    else (w, [*waiting, g])
                ),
                MEAN,
            ),
            Misconception(
                "mean over a period",
                lambda w, waiting, g, r, p, e: (
                    (w - r * sum([*waiting, g]) / p, []) if e or len(waiting) + 1 == p else (w, [*waiting, g])
                ),
                MEAN,
            ),
            Misconception(
                "drops the rest",
                drops,
                "Where a document ends, what was gathered is thrown away. A level whose period is longer than every document would then never learn.",
            ),
            Misconception(
                "never early",
                lambda w, waiting, g, r, p, e: tick(w, waiting, g, r, p, False),
                "`ends` is not used: where the document ends, the level moves by the slopes that it has.",
            ),
            Misconception(
                "one slope late",
                late,
                "It moves by the slopes before this one, and this one waits. But this token has been heard: it counts in this move.",
            ),
            Misconception(
                "moves again and again",
                lambda w, waiting, g, r, p, e: (tick(w, waiting, g, r, p, e)[0], [*waiting, g]),
                "After a move the same slopes still wait, and the next move makes them once more. Return an empty list.",
            ),
            Misconception(
                "every token",
                lambda w, waiting, g, r, p, e: (w - r * g, []),
                "It moves at every token. It waits until `period` slopes are there.",
            ),
        ],
    ),
    Implement(
        id="07-block",
        title="The block",
        objective="07.1",
        minutes=4,
        difficulty=2,
        prompt="Write `block` with `self_modify` and `say`. Return a new dict; `{**s, ...}` is one with some entries replaced.",
        hints=(
            "Who hears n, who hears x? Both the memories and the levels hear n; x only goes round them.",
            "First n, then the memories, then h, then y; in the end the bookkeeping of `seen` and `S`.",
            '`h = x + w["W_o"] @ (rms(o) * silu(w["W_g"] @ n))`, `S = W if seen % chunk == 0 else s["S"]` with seen counted up.',
        ),
        solution=block,
        draw=draw_block,
        samples=10,
        misconceptions=[
            Misconception(
                "levels behind the memories",
                lambda *x: block_with(*x, behind="rms"),
                BEHIND,
            ),
            Misconception("levels hear h", lambda *x: block_with(*x, behind="h"), BEHIND),
            Misconception(
                "memories hear x",
                lambda *x: block_with(*x, raw=True),
                "The memories hear n = rms(x), not x.",
            ),
            Misconception(
                "the gate is a sigmoid",
                lambda *x: block_with(*x, soft=torch.sigmoid),
                "The gate is silu(z) = z sigmoid(z), not sigmoid(z).",
            ),
            Misconception(
                "the gate hears x", lambda *x: block_with(*x, gate_x=True), "The gate hears n = rms(x), not x."
            ),
            Misconception(
                "o as it is",
                lambda *x: block_with(*x, bare=True),
                "The memories' answer goes through rms before it meets the gate.",
            ),
            Misconception(
                "x is lost", lambda *x: block_with(*x, alone=True), "x itself is lost: h = x + the memories' half."
            ),
            Misconception(
                "S of every token",
                lambda *x: block_with(*x, bound=True),
                "S becomes W at every token. It does so after every `chunk` tokens, and in between it stays.",
            ),
            Misconception(
                "S for ever",
                lambda *x: block_with(*x, bound=False),
                "S never becomes W, so no key, value or gate ever learns from what was read.",
            ),
        ],
    ),
    Implement(
        id="07-hope",
        title="Hope",
        objective="07.1",
        minutes=8,
        difficulty=2,
        points=3,
        prompt="Write `hope` with `unpack`, `begin`, `learn` and `block`. It is compared with nlbook.hope.plain on small models with random weights and documents that end under way.",
        hints=(
            "Two loops: over tokens, and inside it over blocks. What has to happen to the levels before a token is read?",
            "At a token: every block learns from it, begins again if it is the boundary, and only then the token goes through the blocks. The first token has nothing before it to learn from.",
            "`states[i] = learn(w, states[i], y, head, token, periods, token == boundary)`, then `begin(w, states[i])` at a boundary, then `x, states[i] = block(w, states[i], x, chunk)`.",
        ),
        solution=hope,
        reference=lambda weights, tokens, periods, chunk, boundary: plain.hope(
            weights, tokens, periods, chunk, boundary
        ),
        draw=draw_hope,
        samples=4,
        misconceptions=[
            Misconception(
                "levels begin again as well",
                lambda *x: hope_with(*x, fresh=True),
                "At a boundary the levels go back to their starts, with all that they had learned. Only the memories begin again; `begin(w, state)` leaves the levels alone.",
            ),
            Misconception(
                "memories live on",
                lambda *x: hope_with(*x, lasts=True),
                "The memories carry what they know into the next document. Where one opens, they begin again.",
            ),
            Misconception(
                "levels stand still",
                lambda *x: hope_with(*x, still=True),
                "The levels never learn: call `learn` for every block before the token is read.",
            ),
            Misconception(
                "learns the token that it read",
                lambda *x: hope_with(*x, read=True),
                "What waits in the state was said *before* this token, about this token. You score it by the token that it had read itself.",
            ),
            Misconception(
                "each block by its own answer",
                lambda *x: hope_with(*x, own=True),
                "Each block learns from its own y here. All learn from what the last block said at the token before.",
            ),
            Misconception(
                "the document's end unheard",
                lambda *x: hope_with(*x, ends=False),
                "Where a document ends the levels move by what they have gathered: the last argument of `learn` is token == boundary.",
            ),
            Misconception(
                "the head reads x",
                lambda *x: hope_with(*x, bare=True),
                "The head reads rms of what the last block says.",
            ),
        ],
    ),
    FixTheBug(
        id="07-lives",
        title="Whose memory, and until when?",
        objective="07.3",
        minutes=3,
        difficulty=1,
        prompt="Two streams are read, each with several documents. The mixer should know a document, the level a stream. As it is, both know everything. Mend it.",
        hints=(
            "A memory belongs to one sequence. Where does the second stream find what the first one left?",
            "Each of the two is set to 0 at the place where what it should know begins.",
            "`level = 0` inside the loop over streams, `mixer = 0` inside the loop over documents.",
        ),
        solution=lives,
        broken=broken_lives,
        draw=draw_lives,
        misconceptions=[
            Misconception(
                "nothing ends",
                lambda s: lives_with(s, reset_level=None, reset_mixer=None),
                "Both know all that was ever read. Where does the second stream find what the first one left, and the second document what the first one left?",
            ),
            Misconception(
                "one level for all streams",
                lambda s: lives_with(s, reset_level=None, reset_mixer="document"),
                "The level still knows the stream before. Two readers of two streams share nothing: a state belongs to one sequence, never to a batch.",
            ),
            Misconception(
                "the level begins with the document",
                lambda s: lives_with(s, reset_level="document", reset_mixer="document"),
                "Now the level forgets with every document, so nothing is left that could know what outlives one.",
            ),
            Misconception(
                "the mixer lives as long",
                lambda s: lives_with(s, reset_level="stream", reset_mixer="stream"),
                "The mixer still knows the document before. It begins again with each.",
            ),
        ],
    ),
    ReadPicture(
        id="07-picture",
        title="Without the level",
        objective="07.3",
        minutes=2,
        difficulty=1,
        prompt="Stream 0, the level held: with what probability are A and B known, on average from the second document on? (The mean over both.)",
        view="reading:hold=level",
        unit="",
        within=0.06,
        wrong={
            0.95: "The level still moves in this picture. Hold it: the first control.",
            0.12: "That is the cold open's number: A is asked right after a document opened. The mean from the second document on also has the moments after a document has said A again.",
        },
        solution=known_without_level,
        hints=(
            "Set the first control to the level and leave the stream at 0; the numbers at the right of the lowest panel are means from the second document on.",
            "A and B are its two topmost rows: take the mean of their numbers.",
            "The text under the picture ends with that mean: the number after `A B`.",
        ),
    ),
]
