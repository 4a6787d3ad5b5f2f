"""The reader's stream given to matrices: one, or two of which one is emptied where a document begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nlbook.book.data import recall
from nlbook.book.data.lives import Lives

RATES, KEEPS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0), (1.0, 0.98, 0.95)
SLOW, FAST = 0.2, 0.6
WARM_UP = 4  # documents that are read and not judged
ASKED = ("A B, first time in a document", "d e, told before", "x y, told before", "all")


class Told(NamedTuple):
    """Streams of pairs: k, v (worlds, length, width), begins (length,), kind 0-2 and again (worlds, length)."""

    k: Tensor
    v: Tensor
    begins: Tensor
    kind: Tensor
    again: Tensor


def told(worlds: int = 20, documents: int = 12, width: int = 16, seed: int = 0) -> Told:
    """Streams of the reader's language with a random unit vector for each of the six keys and eight values."""
    language = Lives(documents=documents)
    tokens = language.sample(worlds, seed).tokens.view(worlds, documents, -1)[:, :, 1:]
    key, value = tokens.unflatten(-1, (-1, 2)).unbind(-1)  # (worlds, documents, pairs)
    earlier = (key[..., :, None] == key[..., None, :]).tril(-1).any(-1)
    begins = torch.zeros(key.shape[1:], dtype=torch.bool)
    begins[:, 0] = True
    key, value, again = (x.flatten(1) for x in (key, value - len(language.keys), earlier))
    row = torch.arange(worlds)[:, None]
    k = recall.keys(len(language.keys), width, batch=worlds, seed=seed)[row, key]
    v = recall.values(language.values, width, batch=worlds, seed=seed)[row, value]
    return Told(k, v, begins.flatten(), key // 2, again)


def two_matrices(stream: Told, slow: float, fast: float, emptied: bool = True, keep: float = 1.0) -> Tensor:
    """What both matrices together answer to each key before its pair is written, at these rates: (worlds, length, width).

    Both write the one error that is left of both. emptied: the fast one is, where a document begins; `keep` multiplies
    it before each pair.
    """
    S = F = torch.zeros(stream.k.shape[0], stream.v.shape[-1], stream.k.shape[-1], dtype=stream.k.dtype)
    said = []
    for t, begins in enumerate(stream.begins.tolist()):
        k, v = stream.k[:, t], stream.v[:, t]
        F = (0.0 if begins and emptied else keep) * F
        said.append(((S + F) @ k[..., None])[..., 0])
        write = (v - said[-1])[..., None] * k[:, None]
        S, F = S + slow * write, F + fast * write
    return torch.stack(said, 1)


def errors(stream: Told, said: Tensor) -> dict[str, float]:
    """What is asked (ASKED) -> mean squared error of the answers, after the warm-up. An empty memory's error is 1."""
    error = (said - stream.v).square().sum(-1)
    judged = stream.begins.cumsum(0) > WARM_UP
    parts = [(stream.kind == 0) & ~stream.again, *((stream.kind == k) & stream.again for k in (1, 2))]
    parts.append(torch.ones_like(stream.again))
    return {name: float(error[part & judged].mean()) for name, part in zip(ASKED, parts, strict=True)}


def compared(stream: Told, rates: Sequence[float] = RATES) -> dict[str, dict[str, float]]:
    """The errors of each matrix alone, of the best single matrix, and of both together.

    A single matrix has one of the rates, and is emptied where a document begins or multiplied by one of KEEPS before each
    pair. The best one is chosen by its error on these very streams, which favours it.
    """

    def one(rate: float, emptied: bool, keep: float = 1.0) -> dict[str, float]:
        return errors(stream, two_matrices(stream, 0.0, rate, emptied, keep))

    singles = [one(rate, True) for rate in rates] + [one(rate, False, keep) for rate in rates for keep in KEEPS]
    return {
        f"slow alone, rate {SLOW}": one(SLOW, False),
        f"fast alone, rate {FAST}, emptied": one(FAST, True),
        f"best of {len(singles)} single": min(singles, key=lambda e: e["all"]),
        "both": errors(stream, two_matrices(stream, SLOW, FAST)),
    }
