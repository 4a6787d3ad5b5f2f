"""Parity, trained on short strings and read at lengths never trained: which memory can count modulo two? Chapter 09.

One block of the book's model (chapter 10 puts it together), chunk size 1, without decay and convolution, so that
nothing but the memory can carry the count. What differs is the rule of that memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from nlbook.errors import need
from nlbook.hope import Hope, HopeConfig
from nlbook.tasks.formal import VOCABULARY, Words, words
from nlbook.train import adamw, constant, train

SELF = {"memory": "linear", "chunk": 1, "other_chunk": 1, "read": "after", "eta": 0.5, "eta_max": 1.0, "decay": False}
ONLY_MEMORY = {**SELF, "adaptive": ("mem",), "self_values": False}
KINDS: dict[str, tuple[str, dict]] = {
    "linear attention": ("linear", {}),
    "delta rule": ("delta", {}),
    "delta rule, rate to 2": ("delta", {"beta_max": 2.0}),
    "self-modifying": ("self_modifying", SELF),
    "DGD, given values": ("self_modifying", ONLY_MEMORY),
    "DGD, given values, rate to 0.5": ("self_modifying", {**ONLY_MEMORY, "eta": 0.25, "eta_max": 0.5}),
    "self-modifying, chunks of 16": ("self_modifying", {**SELF, "chunk": 16, "other_chunk": 16, "read": "start"}),
}
"""Name -> mixer and its options."""


def model(kind: str, seed: int = 0, dim: int = 16) -> Hope:
    need(kind in KINDS, "kind", repr(kind), f"one of {', '.join(map(repr, KINDS))}")
    mixer, options = KINDS[kind]
    return Hope(
        HopeConfig(
            vocabulary=VOCABULARY,
            dim=dim,
            layers=1,
            hidden=2 * dim,
            periods=(1,),
            mlp="static",
            conv=0,
            mixer=mixer,
            options=options,
            seed=seed,
        )
    )


@dataclass(frozen=True)
class Counted:
    """A trained model; bins[i]: share of new words with every prefix right, for lengths[i] = (low, high)."""

    kind: str
    model: Hope
    steps: int
    longest: int
    lengths: tuple[tuple[int, int], ...]
    bins: tuple[float, ...]


def score(m: Hope, data: Words) -> float:
    with torch.no_grad():
        return data.accuracy(m(data.tokens)[0])


@lru_cache(maxsize=64)
def count(kind: str, seed: int = 0, steps: int = 250, longest: int = 12) -> Counted:
    """Train on words of 2 to `longest` symbols (stops at 100 % twice), then read words up to four times as long."""

    def batch(i: int) -> Words:
        return words("parity", 2, longest, 32, 1_000_003 * seed + i)

    m, seen = model(kind, seed), words("parity", 2, longest, 64, 77)
    history = train(
        m,
        batch,
        steps,
        optimizer=adamw(m, 3e-3),
        schedule=constant,
        warmup=50,
        seed=seed,
        every=25,
        enough=1.0,
        patience=2,
        check=lambda _: score(m, seen),
    )
    lengths = ((2, longest), (longest + 1, 2 * longest), (2 * longest + 1, 4 * longest))
    bins = tuple(score(m, words("parity", low, high, 128, 5)) for low, high in lengths)
    return Counted(kind, m, history.steps, longest, lengths, bins)


def trace(m: Hope, bits: list[int]) -> Tensor:
    """M_mem after each symbol of the word, (length + 1, dim * dim): what the trained memory does while it reads."""
    state, rows = m.initial_state(1), []
    with torch.no_grad():
        for token in [0, *(b + 1 for b in bits)]:
            _, state = m(torch.tensor([[token]]), state)
            rows.append(state.blocks[0][0].now["mem"]["W"][0, 0, 0].flatten().clone())
    return torch.stack(rows)
