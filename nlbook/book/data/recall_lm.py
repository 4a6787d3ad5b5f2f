"""Associative recall with overwriting, as a language model meets it: pairs, some of them again with another value; then
questions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from nlbook.book.data.sequences import Sequences, sizes
from nlbook.errors import generator, need


@dataclass(frozen=True)
class RecallLM:
    """`pairs` pairs (key, value) over `keys` keys, a mark, then `questions` keys, each followed by the value written
    last.

    Keys are drawn uniformly, so with pairs > keys many are written again; the question asks only for keys that were
    written.
    Kinds: "once" and "rewritten". The optimum is 0 nats at an answer; a guess costs log(values).
    Tokens: keys, then values, then the mark.
    """

    keys: int = 8
    values: int = 12
    pairs: int = 16
    questions: int = 4

    def __post_init__(self) -> None:
        sizes(keys=self.keys, values=self.values, pairs=self.pairs, questions=self.questions)

    @property
    def vocabulary(self) -> int:
        return self.keys + self.values + 1

    @property
    def chance(self) -> float:
        """Nats per answer of somebody who has read nothing."""
        return math.log(self.values)

    def sample(self, batch: int, seed: int) -> Sequences:
        """`batch` sequences of 2 * pairs + 1 + 2 * questions tokens; the answers are graded."""
        sizes(batch=batch)
        g, row = generator(seed), torch.arange(batch)[:, None]
        key = torch.randint(self.keys, (batch, self.pairs), generator=g)
        value = torch.randint(self.values, (batch, self.pairs), generator=g)
        written = torch.zeros(batch, self.keys, dtype=torch.long).scatter_add(1, key, torch.ones_like(key))
        last = torch.zeros(batch, self.keys, dtype=torch.long)
        for t in range(self.pairs):
            last[row[:, 0], key[:, t]] = value[:, t]
        asked = torch.multinomial((written > 0).double(), self.questions, replacement=True, generator=g)
        study = torch.stack([key, self.keys + value], -1).flatten(1)
        exam = torch.stack([asked, self.keys + last[row, asked]], -1).flatten(1)
        mark = torch.full((batch, 1), self.vocabulary - 1)
        tokens = torch.cat([study, mark, exam], 1)
        graded = torch.zeros_like(tokens, dtype=torch.bool)
        graded[:, 2 * self.pairs + 2 :: 2] = True
        kind = torch.full_like(tokens, -1)
        kind[graded] = (written[row, asked] > 1).long().flatten()
        return Sequences(tokens, graded, torch.zeros(tokens.shape, dtype=torch.float64), kind, ("once", "rewritten"))


def shuffled(data: Sequences, seed: int = 0) -> Sequences:
    """The negative control: answers of another sequence of the batch. Nobody can beat chance in the long run."""
    need(len(data.tokens) >= 2, "data", f"{len(data.tokens)} sequence", "at least 2 sequences")
    shift = int(torch.randint(1, len(data.tokens), (1,), generator=generator(seed)))
    tokens = torch.where(data.graded, data.tokens.roll(shift, 0), data.tokens)
    return Sequences(tokens, data.graded, data.optimum, data.kind, data.kinds)
