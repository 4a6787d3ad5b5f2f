"""How the small Hope takes three kinds of news, measured over all keys of a kind and all pairs of values."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from nlbook.book.chapters.hope.talker import LANGUAGE, talker
from nlbook.book.data.lives import KINDS
from nlbook.hope import Hope


@torch.no_grad()
def expected(model: Hope, streams: list[list[int]]) -> Tensor:
    """What it expects next after each of these streams of equal length: (streams, values), a probability a value."""
    keys = len(LANGUAGE.keys)
    return model(torch.tensor(streams))[0][:, -1].softmax(-1)[:, keys : keys + LANGUAGE.values]


def three_kinds(hold: bool = False) -> dict[str, dict[str, float]]:
    """Kind of news -> what the reader believes after a key was told `old old new`, and what it still knows later.

    old, new: the probability of the two values when it is asked again at once. next: the probability of a value that
    was told twice, asked in the next document. `old, later`, `new, later`: as old and new, where that next document tells
    `old old new` again. hold=True: its level never moves.
    """
    model = talker()
    if hold:
        model.blocks[0].mlp.held.add(0)
    end, said = LANGUAGE.boundary, {}
    for kind, name in enumerate(KINDS):
        asked = [(k, a, b) for k in (2 * kind, 2 * kind + 1) for a, b in permutations(range(LANGUAGE.values), 2)]
        row, old, new = torch.arange(len(asked)), *torch.tensor([(a, b) for _, a, b in asked]).T
        v = len(LANGUAGE.keys)
        twice = [[end, k, v + a, k, v + a] for k, a, _ in asked]
        then = [[k, v + b, k] for k, _, b in asked]
        same = expected(model, [t + n for t, n in zip(twice, then)])
        next_ = expected(model, [[*t, end, n[0]] for t, n in zip(twice, then)])
        later = expected(model, [t + t + n for t, n in zip(twice, then)])
        found = {"old": same[row, old], "new": same[row, new], "next": next_[row, old]}
        found |= {"old, later": later[row, old], "new, later": later[row, new]}
        said[name] = {what: float(p.mean()) for what, p in found.items()}
    return said
