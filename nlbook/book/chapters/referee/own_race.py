"""A race that one can run oneself, in seconds: facts and exceptions on the same keys, read by memories that add up.

tables = {name: measure(name) for name in CONTESTANTS}      # loss at every setting and seed
referee.settle(tables["two clocks"], tables["one memory"])   # "better", "level" or "worse"
"""

from __future__ import annotations

import torch
from torch import Tensor

from nlbook.book.chapters.referee.referee import Losses
from nlbook.cms.additive import Clock, additive
from nlbook.errors import generator, need

KEYS, DOCUMENTS, LENGTH = 8, 20, 32
TUNING = range(1000, 1003)  # the streams to choose by
RATES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
PAIRS = tuple((fast, slow) for fast in (0.5, 0.7, 0.9) for slow in (0.05, 0.1, 0.2))
CONTESTANTS: dict[str, list[list[Clock]]] = {  # nine settings each
    "one memory": [[Clock(r)] for r in RATES],
    "one that fades": [[Clock(r, keep=keep)] for r in (0.8, 0.9, 1.0) for keep in (0.98, 0.99, 0.995)],
    "one that forgets": [[Clock(r, ends=1)] for r in RATES],
    "two clocks": [[Clock(fast, ends=1), Clock(slow, period=LENGTH)] for fast, slow in PAIRS],
    "two that never forget": [[Clock(fast), Clock(slow)] for fast, slow in PAIRS],
}


def stream(seed: int, exceptions: float = 0.25) -> tuple[Tensor, Tensor, Tensor]:
    """Keys (length, 8), values (length, 4) and begins (length,): every key has a fact for ever, and in each document of
    32 tokens about a quarter of the keys have an exception instead, a value that ends with the document.
    """
    g = generator(seed)
    facts, keys, values = torch.randn(KEYS, 4, generator=g), [], []
    for _ in range(DOCUMENTS):
        fresh = torch.randn(KEYS, 4, generator=g)
        now = torch.where((torch.rand(KEYS, generator=g) < exceptions)[:, None], fresh, facts)
        seen = torch.randint(KEYS, (LENGTH,), generator=g)
        keys.append(torch.eye(KEYS)[seen])
        values.append(now[seen])
    begins = torch.zeros(DOCUMENTS * LENGTH, dtype=torch.bool)
    begins[::LENGTH] = True
    return torch.cat(keys), torch.cat(values), begins


def losses(clocks: list[Clock], seeds: range) -> Tensor:
    """Mean squared error (seeds,) of what is expected before each token, over the second half; guessing 0 costs 1."""
    keys, values, begins = zip(*map(stream, seeds))
    v = torch.stack(values)
    y, _ = additive(clocks, torch.stack(keys), v, begins[0])
    return (y - v).square().mean(-1)[:, v.shape[1] // 2 :].mean(1).double()


def measure(name: str, seeds: int = 8) -> Losses:
    """Every setting of a contestant on three streams to choose by and on `seeds` others to report."""
    need(name in CONTESTANTS, "name", repr(name), f"one of {', '.join(CONTESTANTS)}")
    settings = CONTESTANTS[name]
    valid, test = (torch.stack([losses(c, of) for c in settings]) for of in (TUNING, range(seeds)))
    return Losses(name, tuple(settings), valid, test)
