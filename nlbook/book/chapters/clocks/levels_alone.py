"""One stream, levels of different periods: what each level knows of the task before and of the task now (chapter 05).

Streams of pairs (x, x + R x): a rotation A for `switch` tokens, then a rotation B. Every level is a CMS of one
level that learns the stream by itself, at a step that was tuned for it on other streams. The streams of a run are one
batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from nlbook.cms import CMS, CMSState
from nlbook.errors import generator, need

DIM, HIDDEN = 16, 32
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


class Stream(NamedTuple):
    """x, target (streams, length, DIM): target = x + R x, R = tasks[0] before `switch` tokens and tasks[1] after."""

    x: Tensor
    target: Tensor
    probe: Tensor  # (streams, 64, DIM): inputs on which both tasks are tested
    tasks: Tensor  # (2, streams, DIM, DIM)
    switch: int


class Knowledge(NamedTuple):
    """Relative squared errors at `times` (tokens read): 0 knows the task, 1 is as good as never trained.

    a, b: (points, streams), on the first and on the second task. updates: the level's writes.
    """

    period: int
    lr: float
    times: Tensor
    a: Tensor
    b: Tensor
    updates: int


def two_rotations(streams: int = 8, switch: int = 512, length: int = 1024, seed: int = 0) -> Stream:
    """Inputs of length sqrt(DIM) in random directions, float64."""
    need(0 < switch <= length, "switch", switch, f"1 ... length = {length}")
    g = generator(seed)
    tasks = torch.linalg.qr(torch.randn(2, streams, DIM, DIM, generator=g, dtype=torch.float64)).Q
    x, probe = (torch.randn(streams, n, DIM, generator=g, dtype=torch.float64) for n in (length, 64))
    x, probe = (t * math.sqrt(DIM) / t.norm(dim=-1, keepdim=True) for t in (x, probe))
    turned = torch.cat([x[:, :switch] @ tasks[0].mT, x[:, switch:] @ tasks[1].mT], 1)
    return Stream(x, x + turned, probe, tasks, switch)


def model(periods: Sequence[int], lr: float | Sequence[float], variant: str = "sequential", seed: int = 0) -> CMS:
    """The CMS of this chapter, in float64: updates take the mean of their chunk."""
    return CMS(DIM, HIDDEN, list(periods), variant, lr=lr, seed=seed).double()


@torch.no_grad()
def learn(cms: CMS, stream: Stream, every: int = 8) -> Knowledge:
    """Read the stream, testing both tasks every so many tokens (a test reads and does not learn)."""
    state = cms.initial_state(len(stream.x))
    at, errors = [0], [_errors(cms, state, stream)]
    for t in range(0, stream.x.shape[1], every):
        _, state = cms(stream.x[:, t : t + every], state, stream.target[:, t : t + every])
        at.append(min(t + every, stream.x.shape[1]))
        errors.append(_errors(cms, state, stream))
    a, b = torch.stack(errors).unbind(1)
    rate = cms.rate(0)
    return Knowledge(cms.periods[0], float(rate), torch.tensor(at), a, b, state.levels[0].updates)


def _errors(cms: CMS, state: CMSState, stream: Stream) -> Tensor:
    """(tasks, streams); |R x|^2 = DIM."""
    said = cms(stream.probe, state)[0] - stream.probe
    return torch.stack([(said - stream.probe @ r.mT).square().sum(-1).mean(1) / DIM for r in stream.tasks])


@lru_cache
def tune(period: int, steps: tuple[float, ...] = STEPS, streams: int = 4, switch: int = 512) -> float:
    """The step with which a level of this period knows most after `switch` tokens, on streams of another seed."""
    s = two_rotations(streams, switch, switch, seed=1000)
    ends = [float(learn(model([period], lr), s, every=switch).a[-1].mean()) for lr in steps]
    return min(zip(ends, steps), key=lambda pair: (math.isnan(pair[0]), *pair))[1]


def knowledge(
    periods: Sequence[int] = (1, 16, 128),
    streams: int = 8,
    switch: int = 512,
    length: int = 1024,
    seed: int = 0,
    every: int = 16,
) -> list[Knowledge]:
    """Each level by itself on the same streams, at its own tuned step."""
    s = two_rotations(streams, switch, length, seed)
    best = {c: tune(c, switch=switch) for c in dict.fromkeys(periods)}
    return [learn(model([c], best[c]), s, every) for c in periods]


def at(k: Knowledge, token: int) -> int:
    """The index of the last test that came after at most `token` tokens."""
    return int((k.times <= token).nonzero()[-1])
