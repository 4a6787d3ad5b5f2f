"""What a memory recalls for the floats that it keeps: caches, windows and matrices on one axis (chapter 03).

Everybody gets the same stream of pairs of width d and the same questions. A cache grows with the pairs; a matrix is
made wider by a feature map: `fourier_features` is the kernel of softmax attention in D numbers. Each world has keys and
values of its own, so that a spread can be shown beside every mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import pi
from typing import Any

import torch
from torch import Tensor

from nlbook.book.chapters.memory.curves import nearest
from nlbook.book.data import recall as task
from nlbook.errors import generator, need
from nlbook.memory.core import Memory, State
from nlbook.memory.matrix import Feature
from nlbook.memory.presets import make

TEMPERATURE = 0.1  # of every softmax memory here; unit keys of width 32 are told apart below about 0.3
SEQUENCES = 8  # a world, where one sequence asks only a few questions
RECENCY = 0.9  # what a pair's weight loses at every later token, where a memory prefers the recent
LABELS = {
    "softmax": "softmax, full cache",
    "window": "softmax, sliding window",
    "hebbian": "Hebbian",
    "delta": "delta",
    "rls": "best linear (RLS)",
    "recency": "softmax with recency",
    "features": "Hebbian, 32 features",
}


def fourier_features(d: int, D: int, temperature: float = TEMPERATURE, *, seed: int = 0) -> Feature:
    """phi: (..., d) -> (..., D) with <phi(k), phi(q)> -> exp(-|k - q|^2 / (2 temperature)) as D grows.

    For unit keys that is softmax attention's exp(<k, q> / temperature) up to one constant factor; the error falls as
    1/sqrt(D). The map is fixed and the same for every sequence: it is no state. Source: Rahimi and Recht 2007.
    """
    need(isinstance(D, int) and D >= 1, "D", D, "an int >= 1 (features)")
    need(0 < temperature < float("inf"), "temperature", temperature, "a finite number > 0")
    g = generator(seed + 4_000_003)
    W = torch.randn(D, d, generator=g, dtype=torch.float64) / temperature**0.5
    phase = 2 * pi * torch.rand(D, generator=g, dtype=torch.float64)
    return lambda x: (2 / D) ** 0.5 * torch.cos(x @ W.to(x).mT + phase.to(x))


@dataclass(frozen=True)
class Point:
    """A memory at one size: the floats that one sequence keeps, and the share of pairs identified in each world.

    control: the same memory asked with keys that were never written. There is nothing to recall, so it must be chance.
    """

    size: int
    floats: int
    recall: Tensor
    control: Tensor

    @property
    def mean(self) -> float:
        return float(self.recall.mean())


def share(memory: Memory, state: State, q: Tensor, target: Tensor) -> Tensor:
    """Ask q (worlds, n, d_k): the share of answers nearest to their own target (worlds, n, d_v) -> (worlds,)."""
    y = torch.nan_to_num(memory.read(state, q))
    return (nearest(y, target) == torch.arange(target.shape[-2])).double().mean(-1)


def identified(memory: Memory, data: task.Recall) -> Tensor:
    """Write the stream, ask every question: the share identified in each world (worlds,)."""
    return share(memory, memory.write_all(data.k, data.v), data.q, data.target)


def _matrix(name: str, **options: Any) -> Callable[[int, int, int], Memory]:
    return lambda d, D, seed: make(name, phi=fourier_features(d, D, seed=seed), **options)


# How each member is built at a size: features D or tokens c. Delta's rate: the best of a grid on other seeds.
MEMBERS: dict[str, Callable[[int, int, int], Memory]] = {
    "softmax": lambda d, c, seed: make("softmax", temperature=TEMPERATURE),
    "window": lambda d, c, seed: make("sliding_window", window=c, temperature=TEMPERATURE),
    "hebbian": _matrix("hebbian"),
    "delta": _matrix("delta", lr=0.3),
    "rls": _matrix("rls"),
}


def sizes(name: str, n: int, d: int) -> list[int]:
    """The sizes at which `frontier` measures a member: powers of two up to about the floats of the full cache."""
    need(name in MEMBERS, "name", repr(name), f"one of {', '.join(MEMBERS)}")
    if name == "softmax":
        return [n]
    if name == "window":
        return [c for i in range(5, -1, -1) if (c := n >> i) >= 1]
    cache = n * (2 * d + 1)
    return [s for s in (16 << i for i in range(8)) if d * s + (s * s if name == "rls" else 0) <= 1.25 * cache]


def frontier(
    n: int, d: int = 32, *, worlds: int = 5, seed: int = 0, members: Sequence[str] = tuple(MEMBERS)
) -> dict[str, list[Point]]:
    """Recall of n random pairs of width d against floats of state: member -> a Point a size, with its control."""
    data = task.pairs(n, d, batch=worlds, seed=seed)
    unknown = task.keys(n, d, batch=worlds, seed=seed + 5_000_003)
    found: dict[str, list[Point]] = {}
    for name in members:
        found[name] = []
        for size in sizes(name, n, d):
            memory = MEMBERS[name](d, size, seed)
            state = memory.write_all(data.k, data.v)
            recall, control = (share(memory, state, q, data.target) for q in (data.q, unknown))
            found[name].append(Point(size, state.floats(), recall, control))
    return found


def needed(points: Sequence[Point], least: float = 0.95) -> int | None:
    """The fewest floats, among the sizes measured, that identify at least `least` on the mean of the worlds."""
    return min((p.floats for p in points if p.mean >= least), default=None)


def rewriters() -> dict[str, Memory]:
    """The memories that meet changing facts: full steps, no feature map."""
    return {
        "softmax": make("softmax", temperature=TEMPERATURE),
        "recency": make("softmax", temperature=TEMPERATURE, keep=RECENCY),
        "hebbian": make("hebbian"),
        "delta": make("delta"),
        "rls": make("rls"),
    }


def _by_world(memory: Memory, data: task.Recall, worlds: int) -> Tensor:
    """Shares (worlds,): each world's is the mean over SEQUENCES sequences of its own."""
    return identified(memory, data).view(worlds, -1).mean(-1)


def rewriting(
    times: Sequence[int] = (1, 2, 4, 8, 16),
    *,
    n: int = 8,
    d: int = 32,
    worlds: int = 5,
    seed: int = 0,
    change: bool = True,
) -> dict[str, dict[int, Tensor]]:
    """n keys, each written `times` times with new values; asked for the latest: member -> times -> (worlds,).

    change=False is the control: the same keys as often in the same order, but each says its latest value every time.
    """
    streams = {r: task.rewrites(n, r, d, batch=worlds * SEQUENCES, seed=seed) for r in times}
    if not change:
        own = {r: (s.k @ s.q.mT).argmax(-1, keepdim=True).expand_as(s.v) for r, s in streams.items()}  # whose key it is
        streams = {r: s._replace(v=s.target.gather(1, own[r])) for r, s in streams.items()}
    return {name: {r: _by_world(m, data, worlds) for r, data in streams.items()} for name, m in rewriters().items()}


def overlapping(
    rhos: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9), *, n: int = 32, d: int = 32, worlds: int = 5, seed: int = 0
) -> dict[str, dict[float, Tensor]]:
    """n pairs whose keys overlap by about rho: member -> rho -> (worlds,). delta at the rate 0.3, no recency.

    "features" is the Hebbian memory of the same size, d x d, behind `fourier_features`.
    """
    streams = {rho: task.pairs(n, d, rho, batch=worlds * SEQUENCES, seed=seed) for rho in rhos}
    members: Mapping[str, Memory] = {
        "softmax": make("softmax", temperature=TEMPERATURE),
        "hebbian": make("hebbian"),
        "delta": make("delta", lr=0.3),
        "rls": make("rls"),
        "features": MEMBERS["hebbian"](d, d, seed),
    }
    return {name: {rho: _by_world(m, data, worlds) for rho, data in streams.items()} for name, m in members.items()}


def by_temperature(
    temperatures: Sequence[float], *, n: int = 64, d: int = 32, worlds: int = 5, seed: int = 0, centred: bool = False
) -> dict[float, Tensor]:
    """Recall of softmax attention over n unit keys at each temperature: temperature -> (worlds,).

    centred=True takes the mean value away from every answer before it is identified: what a hot softmax still knows.
    """
    data = task.pairs(n, d, batch=worlds, seed=seed)
    found = {}
    for tau in temperatures:
        memory = make("softmax", temperature=tau)
        state = memory.write_all(data.k, data.v)
        y = memory.read(state, data.q) - (data.v.mean(-2, keepdim=True) if centred else 0)
        found[tau] = (nearest(y, data.target) == torch.arange(n)).double().mean(-1)
    return found
