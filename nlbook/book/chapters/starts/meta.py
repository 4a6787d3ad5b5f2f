"""Where a memory starts: contexts that share a map, a start learned through the writes, five ways to pass knowledge.

A context is a stream of pairs (k, A k) with a map A of its own. All maps have a part in common:

    A = sqrt(1 - s^2) C + s R        C common to all contexts, R new in each; entries N(0, 1/d), so |A k| is about 1

A linear memory reads the pairs by the delta rule (chapter 01). The slow level sees many contexts and may learn where
the fast one starts (eq. 28 with the inner adaptation that the print leaves out). Chapter E.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from nlbook.book.chapters.starts.transfer import (
    backpropagate,
    direct,
    direct_nonparametric,
    generate_context,
    generate_weights,
)
from nlbook.book.data.recall import unit
from nlbook.errors import generator, need, need_shape
from nlbook.levels import Component, Writes


@dataclass(frozen=True)
class Contexts:
    """k, v (contexts, length, d): the pairs of each context. maps (contexts, d, d): their A."""

    k: Tensor
    v: Tensor
    maps: Tensor


class World:
    """Contexts whose maps share a part. `spread` = s in [0, 1]: 0 all maps alike, 1 nothing in common."""

    def __init__(self, d: int = 8, spread: float = 0.5, seed: int = 0) -> None:
        need(d >= 1, "d", d, "an int >= 1")
        need(0 <= spread <= 1, "spread", spread, "a number in [0, 1]")
        self.d, self.spread, self._draw = d, spread, generator(seed)
        self.common = torch.randn(d, d, generator=self._draw, dtype=torch.float64) / d**0.5

    def contexts(self, n: int, length: int, seed: int | None = None) -> Contexts:
        """n new contexts of `length` pairs; each call draws others, unless `seed` asks for certain ones."""
        g = self._draw if seed is None else generator(seed)
        own = torch.randn(n, self.d, self.d, generator=g, dtype=torch.float64) / self.d**0.5
        maps = math.sqrt(1 - self.spread**2) * self.common + self.spread * own
        k = unit(torch.randn(n, length, self.d, generator=g, dtype=torch.float64))
        return Contexts(k, k @ maps.mT, maps)


def write(M: Tensor, k: Tensor, v: Tensor, lr: float | Tensor) -> Tensor:
    """One delta write in every context: M (..., d_v, d_k), k (..., d_k), v (..., d_v). Differentiable."""
    need_shape("M", M, "d_v", "d_k")
    error = v[..., None] - M @ k[..., None]  # (..., d_v, 1)
    return M + lr * error * k[..., None, :]


def adapted(start: Tensor, c: Contexts, writes: int, lr: float | Tensor = 1.0) -> Tensor:
    """The inner loop: the state of each context's memory after its first `writes` pairs, (contexts, d, d)."""
    need(0 <= writes <= c.k.shape[1], "writes", writes, f"0 to {c.k.shape[1]}, the pairs of a context")
    M = start.expand(len(c.k), *start.shape[-2:])
    for t in range(writes):
        M = write(M, c.k[:, t], c.v[:, t], lr)
    return M


def asked(M: Tensor, c: Contexts, writes: int) -> Tensor:
    """Mean of 1/2 |M k - v|^2 on the pairs that come *after* the first `writes` of each context."""
    rest = c.k[:, writes:]
    need(rest.shape[1] > 0, "writes", writes, "fewer than the pairs of a context: some must be left to ask for")
    return 0.5 * (rest @ M.mT - c.v[:, writes:]).square().sum(-1).mean()


def outer_loss(start: Tensor, c: Contexts, writes: int, lr: float | Tensor = 1.0) -> Tensor:
    """What the slow level descends: the loss of the adapted memory on what comes next. Eq. 28, completed."""
    return asked(adapted(start, c, writes, lr), c, writes)


METHODS = ("meta", "first order", "printed", "cut", "none")


@dataclass(frozen=True)
class Learned:
    """What the slow level has learned: where the memory starts (d, d), and its write rate, an outer weight."""

    start: Tensor
    rate: float


def learn(
    world: World,
    method: str = "meta",
    writes: int = 8,
    steps: int = 60,
    batch: int = 32,
    questions: int = 4,
    lr: float = 0.08,
) -> Learned:
    """Learn start and write rate over many contexts, from zero and 0.5, by Adam (its rate falls to 0 along a cosine).

    The write rate always gets its gradient through the writes. What reaches the start differs:
    method: "meta" the gradient through all writes; "first order" the one at the adapted state, as if no write stood in
    between; "printed" that of eq. 28 as printed, the loss before any write; "cut" none, for the inner loop starts from
    a detached copy (the negative control); "none": the start is zero and not a parameter.
    """
    need(method in METHODS, "method", repr(method), f"one of {', '.join(METHODS)}")
    start = torch.zeros(world.d, world.d, dtype=torch.float64, requires_grad=method != "none")
    rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([start, rate] if method != "none" else [rate], lr=lr)
    for i in range(steps):
        c = world.contexts(batch, writes + questions)
        M = adapted(start if method == "meta" else start.detach(), c, writes, rate)
        if method == "first order":
            M = M + start - start.detach()  # its value, with d M / d start = 1
        loss = asked(M, c, writes)
        if method == "printed":
            loss = loss + asked(start, c, writes)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * i / steps))
        optimizer.step()
    return Learned(start.detach(), float(rate.detach()))


def error_curve(learned: Learned, c: Contexts) -> Tensor:
    """|M - A|^2 / |A|^2 after 0, 1, ..., length writes, mean over contexts: error on a random query, (length + 1,)."""
    M = learned.start.expand(len(c.k), *learned.start.shape[-2:])
    scale, errors = c.maps.square().sum((-1, -2)).mean(), []
    for t in range(c.k.shape[1] + 1):
        errors.append((M - c.maps).square().sum((-1, -2)).mean() / scale)
        if t < c.k.shape[1]:
            M = write(M, c.k[:, t], c.v[:, t], learned.rate)
    return torch.stack(errors)


@lru_cache(maxsize=128)
def _learned(d: int, spread: float, seed: int, method: str, steps: int) -> Learned:
    return learn(World(d, spread, seed), method, steps=steps)


def compare_starts(
    methods: tuple[str, ...] = ("none", "meta", "cut"),
    spread: float = 0.5,
    d: int = 8,
    length: int = 24,
    seeds: int = 3,
    seed: int = 0,
    steps: int = 60,
    contexts: int = 200,
) -> dict[str, Tensor]:
    """method -> error after each write, (seeds, length + 1), on new contexts of the world that it was learned in.

    Every method of a seed sees the same contexts, in learning and in the test.
    """
    found: dict[str, list[Tensor]] = {m: [] for m in methods}
    for s in range(seed, seed + seeds):
        for m in methods:
            world = World(d, spread, s)
            found[m].append(error_curve(_learned(d, spread, s, m, steps), world.contexts(contexts, length, 10_000 + s)))
    return {m: torch.stack(rows) for m, rows in found.items()}


def measured_worth(curve: Tensor, baseline: Tensor) -> float:
    """After how many writes the baseline (length + 1,) has come down to curve[0], interpolated between two writes."""
    below = (baseline <= curve[0]).nonzero()
    need(len(below) > 0, "baseline", f"{len(baseline) - 1} writes", "enough writes to reach the other's start")
    n = int(below[0])
    if n == 0:
        return 0.0
    high, low = float(baseline[n - 1].log()), float(baseline[n].log())
    return n - 1 + (high - float(curve[0].log())) / (high - low)


class StartedMemory(Writes, nn.Module):
    """A memory in a layer, with all three things that are called initialisation.

    W_k (d, d): outer weights, which make keys of tokens. start (d, d): the initial state. The inner state M
    (batch, d, d) begins at `start` in each call and is written by every token. x, v (batch, length, d) -> y, M: token
    t's read has seen tokens before t.
    """

    nested_initial_states: ClassVar[tuple[str, ...]] = ("start",)

    def __init__(self, d: int, lr: float = 1.0) -> None:
        super().__init__()
        self.d, self.lr = d, lr
        self.W_k = nn.Parameter(torch.eye(d, dtype=torch.float64))
        self.start = nn.Parameter(torch.zeros(d, d, dtype=torch.float64))

    def nested_components(self) -> list[Component]:
        return [Component("M", period=1, kind="fast state", size=self.d**2, note="starts at `start` in each context")]

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        need_shape("x", x, "batch", "length", self.d)
        k = unit(x @ self.W_k.mT)
        M, reads = self.start.expand(len(x), -1, -1), []
        for t in range(x.shape[1]):
            reads.append((M @ k[:, t, :, None])[..., 0])
            new = write(M, k[:, t], v[:, t], self.lr)
            if self.write_hooks:
                self.wrote("M", t + 1, new, new - M, "one token")
            M = new
        return torch.stack(reads, 1), M


@dataclass(frozen=True)
class Way:
    """One way of knowledge transfer, measured.

    passes: how much the output changes when the giver's state is changed by 0.1. gradient: norm of what the output's
    loss sends back to the giver (0: nothing arrives).
    """

    name: str
    equation: str
    giver: str
    receiver: str
    passes: float
    gradient: float


def _back(loss: Tensor, giver: Tensor) -> float:
    if not loss.requires_grad:
        return 0.0
    g = torch.autograd.grad(loss, giver, allow_unused=True)[0]
    return 0.0 if g is None else float(g.norm())


def five_ways(seed: int = 0, d: int = 4) -> list[Way]:
    """Each way of section 3.3 on small random blocks: what passes, and does a gradient come back? Eq. 24-28."""
    g = generator(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    slow, fast, x, target, code = draw(d, d), draw(d, d), draw(d), draw(d), draw(2)
    keys, values = unit(draw(6, d)), draw(6, d)
    context = Contexts(keys[None], values[None], torch.zeros(1, d, d, dtype=torch.float64))

    def half(y: Tensor, z: object = None) -> Tensor:
        return 0.5 * (y - target).square().sum()

    def squared(theta: Tensor, q: object) -> Tensor:
        return half(theta @ x)

    ways: list[tuple[str, str, str, str, Tensor, Callable[[Tensor], Tensor]]] = [
        ("direct, parametric", "24-26", "fast state M1", "slow read", draw(d, d), lambda M: direct(slow, M, x)),
        (
            "direct, non-parametric",
            "27",
            "raw context",
            "slow read",
            keys,
            lambda K: direct_nonparametric(slow, K, values, x),
        ),
        ("backpropagation", "3.3", "slow block", "fast block", draw(d, d), lambda W: fast @ torch.tanh(W @ x)),
        (
            "initialisation",
            "28",
            "slow level's start",
            "fast state",
            draw(d, d),
            lambda S: adapted(S, context, 3, 0.5)[0] @ x,
        ),
        (
            "generation of weights",
            "3.3",
            "generator",
            "fast weights",
            draw(d * d, 2),
            lambda h: generate_weights(h, code, (d, d)) @ x,
        ),
        (
            "generation of context",
            "3.3",
            "slow weights",
            "optimizer's data",
            draw(d, d),
            lambda W: generate_context(W, squared, None) @ x,
        ),
    ]
    out = []
    for name, equation, giver, receiver, state, read in ways:
        leaf = state.clone().requires_grad_()
        y = read(leaf)
        moved = read(state + 0.1 * draw(*state.shape))
        out.append(Way(name, equation, giver, receiver, float((moved - y).detach().norm()), _back(half(y), leaf)))
    return out


def two_rates(steps: int = 8, period: int = 4, seed: int = 0, d: int = 3) -> list[tuple[int, bool, bool]]:
    """Backpropagation as a transfer: one gradient flow, the slow block moves once in `period` steps.

    Returns (step, did the slow block move, did the fast block move) for each step.
    """
    g = generator(seed)
    a, b = (torch.randn(d, d, generator=g, dtype=torch.float64) for _ in range(2))
    out = []
    for t in range(1, steps + 1):
        x, y = (torch.randn(d, generator=g, dtype=torch.float64) for _ in range(2))
        a_new, b_new = backpropagate(a, b, x, y, 0.1, 0.1, move0=t % period == 0)
        out.append((t, not torch.equal(a, a_new), not torch.equal(b, b_new)))
        a, b = a_new, b_new
    return out
