"""Parity and (aa)*, trained on short strings and read at lengths never trained: which memory can count modulo two?

One block of the book's model (chapter 07 puts it together), chunk size 1, without decay and convolution, so that
nothing but the memory can carry the count. What differs is the rule of that memory. Appendix D.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from nlbook.book.data.formal import VOCABULARY, Words, words
from nlbook.errors import need
from nlbook.hope import Hope, HopeConfig
from nlbook.train import Watch, adamw, constant, train

SELF = {"memory": "linear", "chunk": 1, "other_chunk": 1, "read": "after", "eta": 0.5, "eta_max": 1.0, "decay": False}
CHUNKS = (2, 4, 16)
ONLY_MEMORY = {**SELF, "adaptive": ("mem",), "self_values": False}
KINDS: dict[str, tuple[str, dict]] = {
    "linear attention": ("linear", {}),
    "delta rule": ("delta", {}),
    "delta rule, rate to 2": ("delta", {"beta_max": 2.0}),
    "self-modifying": ("self_modifying", SELF),
    "DGD, given values": ("self_modifying", ONLY_MEMORY),
    "DGD, given values, rate to 0.5": ("self_modifying", {**ONLY_MEMORY, "eta": 0.25, "eta_max": 0.5}),
    **{f"self-modifying, chunks of {n}": ("self_modifying", {**SELF, "chunk": n, "other_chunk": n}) for n in CHUNKS},
}
"""Name -> mixer and its options."""

LANGUAGES: dict[str, dict[str, Any]] = {"parity": {}, "aa": {"longest": 20, "patience": 4}}
"""How each language is trained. (aa)* has one word for each even length: six up to 12 do not pin the rule down, ten
up to 20 do; and its words are learned a little before its rule, so training goes on for two checks more."""


def model(kind: str, seed: int = 0, dim: int = 16) -> Hope:
    need(kind in KINDS, "kind", repr(kind), f"one of {', '.join(map(repr, KINDS))}")
    mixer, options = KINDS[kind]
    return Hope(
        HopeConfig.first_edition(
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
def count(
    kind: str, seed: int = 0, steps: int = 250, longest: int = 12, language: str = "parity", patience: int = 2
) -> Counted:
    """Train on words of 2 to `longest` symbols (stops at 100 % `patience` times in a row, checked every 25 steps), then
    read words up to four times as long.
    """

    def batch(i: int) -> Words:
        return words(language, 2, longest, 32, 1_000_003 * seed + i)

    m, seen = model(kind, seed), words(language, 2, longest, 64, 77)
    history = train(
        m,
        batch,
        steps,
        optimizer=adamw(m, 3e-3),
        schedule=partial(constant, warmup=50),
        seed=seed,
        watch=Watch(lambda _: score(m, seen), every=25, enough=1.0, patience=patience),
    )
    lengths = ((2, longest), (longest + 1, 2 * longest), (2 * longest + 1, 4 * longest))
    bins = tuple(score(m, words(language, low, high, 128, 5)) for low, high in lengths)
    return Counted(kind, m, history.steps, longest, lengths, bins)


def trace(m: Hope, bits: list[int]) -> Tensor:
    """M_mem after each symbol of the word, (length + 1, dim * dim): what the trained memory does while it reads."""
    state, rows = m.initial_state(1), []
    with torch.no_grad():
        for token in [0, *(b + 1 for b in bits)]:
            _, state = m(torch.tensor([[token]]), state)
            rows.append(state.blocks[0].mixer.now["mem"]["W"][0, 0, 0].flatten().clone())
    return torch.stack(rows)
