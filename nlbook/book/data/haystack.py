"""Facts told in a haystack and asked for at its end: needles (each key once) or news (a later fact counts)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from nlbook.book.data.sequences import Sequences, sizes
from nlbook.errors import generator, need


@dataclass(frozen=True)
class Facts:
    """A text of hay words in which `facts` facts `[mark key value]` are told, then questions `[ask key value]`.

    news=False: the facts have different keys and each is asked for once, in random order (one needle, or several).
    news=True: `facts` facts about `keys` keys drawn uniformly; what was said last holds; each key that was mentioned is
    asked for once, and kinds are "once" and "rewritten".
    Tokens: hay words, then keys, then values, then mark and ask. A guess costs log(values) nats; the optimum is 0.
    """

    facts: int = 4
    keys: int = 8
    values: int = 8
    hay: int = 12
    news: bool = False

    def __post_init__(self) -> None:
        sizes(facts=self.facts, keys=self.keys, values=self.values, hay=self.hay)
        need(self.news or self.facts <= self.keys, "facts", self.facts, f"at most keys = {self.keys}, or news=True")

    @property
    def vocabulary(self) -> int:
        return self.hay + self.keys + self.values + 2

    @property
    def questions(self) -> int:
        """Questions at the end of every text; with fewer keys mentioned, the rest of them is hay."""
        return min(self.facts, self.keys)

    @property
    def chance(self) -> float:
        return math.log(self.values)

    def sample(self, batch: int, length: int, seed: int) -> Sequences:
        """`batch` texts of `length` tokens, the questions included."""
        sizes(batch=batch, length=length)
        body = length - 3 * self.questions
        need(body >= 3 * self.facts, "length", length, f"at least {3 * (self.facts + self.questions)}")
        g, row = generator(seed), torch.arange(batch)[:, None]
        n, first = self.facts, self.hay + self.keys
        tokens = torch.randint(self.hay, (batch, length), generator=g)
        key = (
            torch.randint(self.keys, (batch, n), generator=g)
            if self.news
            else torch.rand(batch, self.keys, generator=g, dtype=torch.float32).argsort(1)[:, :n]
        )
        value = torch.randint(self.values, (batch, n), generator=g)
        # a fact shrinks to one place while places are drawn: facts never overlap
        places = torch.rand(batch, body - 2 * n, generator=g, dtype=torch.float32).argsort(1)[:, :n].sort(
            1
        ).values + 2 * torch.arange(n)
        tokens[row, places], tokens[row, places + 1] = self.vocabulary - 2, self.hay + key
        tokens[row, places + 2] = first + value
        now = torch.full((batch, self.keys), -1)  # the value of each key after the text, -1: never told
        times = torch.zeros(batch, self.keys, dtype=torch.long).scatter_add(1, key, torch.ones_like(key))
        for i in range(n):
            now[row[:, 0], key[:, i]] = value[:, i]
        told = now >= 0
        # questions stand at the end: keys that were told last, in random order
        order = (torch.rand(batch, self.keys, generator=g, dtype=torch.float32) + told).argsort(1)[
            :, self.keys - self.questions :
        ]
        asked, place = told.gather(1, order), body + 3 * torch.arange(self.questions).expand(batch, -1)
        exam = torch.stack(
            [torch.full_like(order, self.vocabulary - 1), self.hay + order, first + now.gather(1, order)], -1
        )
        for i in range(3):
            tokens[row, place + i] = torch.where(asked, exam[..., i], tokens[row, place + i])
        graded = torch.zeros(batch, length, dtype=torch.bool).scatter(1, place + 2, asked)
        again = times.gather(1, order) > 1
        kind = torch.full((batch, length), -1).scatter(1, place + 2, torch.where(asked, (again & self.news).long(), -1))
        kinds = ("once", "rewritten") if self.news else ("needle",)
        return Sequences(tokens, graded, torch.zeros(tokens.shape, dtype=torch.float64), kind, kinds)
