"""Levels that add up (nlbook.cms.additive) read two languages: the reader's, and one with two spans on the same keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.book.data.lives import Lives
from nlbook.book.data.scales import KINDS, Scales
from nlbook.cms.additive import Clock, additive
from nlbook.errors import generator

SPANS = Scales(keys=8, values=8, documents=12, pairs=15)

LADDER: dict[str, list[Clock]] = {
    "one level": [Clock(1.5)],
    "two levels, nobody forgets": [Clock(1.0), Clock(0.5)],
    "the fast one ends with its document": [Clock(3.0, ends=1), Clock(1.0)],
    "... and the slow one moves once a document": [Clock(4.0, ends=1), Clock(1.0, period=SPANS.pairs)],
    "... and the slow one is held": [Clock(4.0, ends=1), Clock(0.0)],
}
"""Rates were tuned on 128 other streams for each row; the last row has those of the row before."""


class Pairs(NamedTuple):
    """Streams of the reader's language as vectors: keys at right angles, values of length one whose sum is zero."""

    k: Tensor  # (streams, pairs, 6)
    v: Tensor  # (streams, pairs, 8)
    begins: Tensor  # (pairs,), true where a document begins
    kind: Tensor  # (streams, pairs): 0 for A B, 1 for d e, 2 for x y


def reader(streams: int = 64, seed: int = 0) -> Pairs:
    """`streams` streams of 8 documents of 16 pairs."""
    language = Lives()
    tokens = language.sample(streams, seed).tokens.view(streams, language.documents, -1)[:, :, 1:]
    key, written = tokens.reshape(streams, -1, 2).unbind(-1)
    n = language.values
    values = (torch.eye(n, dtype=torch.float64) - 1 / n) * (n / (n - 1)) ** 0.5
    begins = torch.arange(key.shape[1]) % language.pairs == 0
    k = F.one_hot(key, len(language.keys)).double()
    return Pairs(k, values[written - len(language.keys)], begins, key // 2)


def misses(clocks: Sequence[Clock], stream: Pairs) -> list[float]:
    """Mean squared error on A B, on d e, on x y and on all, second half of the stream. 0 is right, 1 says nothing."""
    y, _ = additive(clocks, stream.k, stream.v, stream.begins)
    late = y.shape[1] // 2
    error, kind = (y - stream.v).square().sum(-1)[:, late:], stream.kind[:, late:]
    return [float(error[kind == i].mean()) for i in range(3)] + [float(error.mean())]


class OneKey(NamedTuple):
    """What was told of one key and what two levels held of it after each token, numbers."""

    told: list[float]
    fast: list[float]
    slow: list[float]


def two_keys(documents: int = 16, seed: int = 0, fast: float = 0.6, slow: float = 0.08) -> dict[str, OneKey]:
    """`A` is 1 for ever, `d` is 1 or -1 in each document of three tokens. The fast level ends with its document."""
    signs = 2 * torch.randint(2, (documents,), generator=generator(seed)).double() - 1
    runs = {}
    for name, told in {"A, one value for ever": signs.abs(), "d, a new value in each document": signs}.items():
        v = told.repeat_interleave(3)
        levels = []
        for n in range(1, len(v) + 1):
            clocks, k = [Clock(fast, ends=1), Clock(slow, period=3)], torch.ones(n, 1, dtype=v.dtype)
            _, held = additive(clocks, k, v[:n, None], torch.arange(n) % 3 == 0)
            levels.append([float(m) for m in held])
        runs[name] = OneKey(v.tolist(), *map(list, zip(*levels)))
    return runs


class Excess(NamedTuple):
    """Nats a value above the exact reader: mean and standard error over sets of streams, and the mean by kind."""

    mean: float
    se: float
    kinds: dict[str, float]  # nlbook.book.data.scales.KINDS


def excess(clocks: Sequence[Clock], language: Scales = SPANS, sets: int = 5) -> Excess:
    """On `sets` sets of 64 streams. The levels are logits: they add up and pay the cross-entropy of their softmax."""
    all_sets, kinds = [], []
    for seed in range(100, 100 + sets):
        key, value = language.draw(64, seed)
        k, v = F.one_hot(key.flatten(1), language.keys).float(), F.one_hot(value.flatten(1), language.values).float()
        y, _ = additive(clocks, k, v, torch.arange(k.shape[1]) % language.pairs == 0, "softmax")
        extra = -(torch.log_softmax(y, -1) * v).sum(-1) - language.pay(key, value).flatten(1)
        kind = language.kind(key, value).flatten(1)
        all_sets.append(extra.mean())
        kinds.append(torch.stack([extra[kind == i].mean() for i in range(len(KINDS))]))
    x = torch.stack(all_sets)
    by_kind = dict(zip(KINDS, torch.stack(kinds).mean(0).tolist(), strict=True))
    return Excess(float(x.mean()), float(x.std() / sets**0.5), by_kind)


def one_time_scale(language: Scales = SPANS, sets: int = 5) -> float:
    """The same excess of the best reader with one time scale: one belief a key that drifts at each document."""
    found = []
    for seed in range(100, 100 + sets):
        key, value = language.draw(64, seed)
        best = language.pay(key, value).mean()
        found.append([language.pay_drifting(key, value, q).mean() - best for q in (0.3, 0.4, 0.5, 0.6)])
    return float(torch.tensor(found).mean(0).min())
