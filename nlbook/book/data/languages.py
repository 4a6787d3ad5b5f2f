"""Two invented languages, learned in context one after the other (Fig. 8 in miniature).

A language is a dictionary: each of `words` word forms has one of `meanings`. A reader meets pairs (word, meaning) of
language A, all of them, `rounds` times in new orders, then those of B, and is then asked for every word of A and of B.
The word forms are the same in both; a tag says which language speaks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nlbook.book.data.sequences import Sequences, sizes
from nlbook.errors import generator, need

KINDS = ("again", "A", "B")  # a meaning seen before in the lesson; the examination of A; that of B


@dataclass(frozen=True)
class TwoLanguages:
    """Sequences of triples: tag, word, meaning. Tokens: two tags, then words, then meanings.

    Graded are the meanings of the second and later rounds of a lesson ("again") and of the examinations ("A", "B"); the
    best possible reader pays nothing there. In a first round nothing can be known.
    """

    words: int = 8
    meanings: int = 8
    rounds: int = 2

    def __post_init__(self) -> None:
        sizes(words=self.words, meanings=self.meanings, rounds=self.rounds)

    @property
    def vocabulary(self) -> int:
        return 2 + self.words + self.meanings

    def sample(self, batch: int, seed: int, *, single: bool = False) -> Sequences:
        """`batch` readers with dictionaries of their own. single: one language only (which one is drawn), its lesson
        and its examination; else A, B, and the examinations of A and of B.
        """
        sizes(batch=batch)
        g = generator(seed)
        books = torch.randint(self.meanings, (batch, 2, self.words), generator=g)
        if single:
            tag = torch.randint(2, (batch,), generator=g)
            plan = [(tag, False)] * self.rounds + [(tag, True)]
        else:
            a, b = torch.zeros(batch, dtype=torch.long), torch.ones(batch, dtype=torch.long)
            plan = [(a, False)] * self.rounds + [(b, False)] * self.rounds + [(a, True), (b, True)]
        tokens, kinds = [], []
        for i, (tag, exam) in enumerate(plan):
            tokens.append(self._round(tag, books, g))
            first = not exam and i % self.rounds == 0
            kind = tag + 1 if exam else torch.full_like(tag, -1 if first else 0)
            row = torch.full((batch, self.words, 3), -1)
            row[:, :, 2] = kind[:, None]
            kinds.append(row.flatten(1))
        kind = torch.cat(kinds, 1)
        return Sequences(torch.cat(tokens, 1), kind >= 0, torch.zeros(kind.shape, dtype=torch.float64), kind, KINDS)

    def _round(self, tag: Tensor, books: Tensor, g: torch.Generator) -> Tensor:
        """Every word once, in an order of its own for each reader: (batch, 3 * words)."""
        batch = len(tag)
        word = torch.stack([torch.randperm(self.words, generator=g) for _ in range(batch)])
        meaning = books[torch.arange(batch), tag].gather(1, word)
        triples = torch.stack([tag[:, None].expand_as(word), 2 + word, 2 + self.words + meaning], -1)
        return triples.flatten(1)

    def right(self, data: Sequences, logits: Tensor) -> dict[str, float]:
        """Share of meanings that are the model's first choice, by kind; a kind that is not asked for is left out."""
        need(logits.shape[:2] == data.tokens.shape, "logits", tuple(logits.shape), f"{tuple(data.tokens.shape)} + (V,)")
        hit = torch.nn.functional.pad(logits[:, :-1].argmax(-1) == data.tokens[:, 1:], (1, 0)).double()
        return {name: float(hit[data.kind == i].mean()) for i, name in enumerate(KINDS) if (data.kind == i).any()}
