"""Small versions of the five tasks of MAD (Table 4): recall, fuzzy recall, selective copying, compression, memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nlbook.book.data.sequences import Sequences, sizes
from nlbook.errors import generator, need

TASKS = ("recall", "fuzzy recall", "selective copying", "compression", "memorisation")


@dataclass(frozen=True)
class MAD:
    """Sequences of one task; every answer can be known, so the optimum is 0 nats where it is graded.

    recall: pairs (key, value) over `keys` keys, graded where a key comes again. Keys keep their value in a sequence.
    fuzzy recall: the same, a key is two tokens out of keys / 2 each.
    selective copying: `items` items among blanks, then they are asked for in their order.
    compression: `items` items without blanks, then the same: all of it must be kept.
    memorisation: keys whose values are the same in every sequence; nothing can be read off the context but what the
    weights know. `seed` draws these facts.

    Tokens: keys (two alphabets of them for fuzzy recall), values or items, blank, mark.
    """

    task: str
    keys: int = 8
    values: int = 8
    items: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        need(self.task in TASKS, "task", repr(self.task), f"one of {', '.join(TASKS)}")
        sizes(keys=self.keys, values=self.values, items=self.items)
        need(self.keys % 2 == 0, "keys", self.keys, "an even number: fuzzy keys have two halves")

    @property
    def vocabulary(self) -> int:
        return 2 * self.keys + self.values + 2

    def sample(self, batch: int, length: int, seed: int) -> Sequences:
        """`batch` sequences of at most `length` tokens (a whole number of pairs)."""
        sizes(batch=batch, length=length)
        if self.task in ("selective copying", "compression"):
            return self._copying(batch, length, generator(seed))
        return self._pairs(batch, length, generator(seed))

    def _pairs(self, batch: int, length: int, g: torch.Generator) -> Sequences:
        wide = 3 if self.task == "fuzzy recall" else 2
        n = length // wide
        half = self.keys // 2
        many = half * half if self.task == "fuzzy recall" else self.keys
        need(n >= 2, "length", length, f"at least {2 * wide}")
        # as many different keys a sequence as the other tasks have, so that keys come again
        own = torch.stack([torch.randperm(many, generator=g)[: min(self.keys, many)] for _ in range(batch)])
        pick = torch.randint(own.shape[1], (batch, n), generator=g)
        key = own.gather(1, pick)
        if self.task == "memorisation":
            fixed = torch.randint(self.values, (many,), generator=generator(self.seed))
            value = fixed[key]
        else:
            value = torch.randint(self.values, (batch, many), generator=g).gather(1, key)
        graded = _again(key) if self.task != "memorisation" else torch.ones_like(key, dtype=torch.bool)
        parts = [key // half, self.keys + key % half] if wide == 3 else [key]
        tokens = torch.stack([*parts, 2 * self.keys + value], -1).flatten(1)
        none = torch.zeros_like(graded)
        return _sequences(tokens, torch.stack([*[none] * (wide - 1), graded], -1).flatten(1))

    def _copying(self, batch: int, length: int, g: torch.Generator) -> Sequences:
        body = length - self.items - 1
        need(body >= self.items, "length", length, f"at least {2 * self.items + 1}")
        item = 2 * self.keys + torch.randint(self.values, (batch, self.items), generator=g)
        if self.task == "compression":
            body = self.items
            tokens = item
        else:
            spots = torch.stack([torch.randperm(body, generator=g)[: self.items].sort().values for _ in range(batch)])
            tokens = torch.full((batch, body), self.vocabulary - 2).scatter(1, spots, item)
        mark = torch.full((batch, 1), self.vocabulary - 1)
        tokens = torch.cat([tokens, mark, item], 1)
        graded = torch.zeros_like(tokens, dtype=torch.bool)
        graded[:, body + 1 :] = True
        return _sequences(tokens, graded)


def _again(key: Tensor) -> Tensor:
    """Where a key has come before in its sequence, (batch, n) bool."""
    same = key[:, :, None] == key[:, None, :]
    return torch.tril(same, -1).any(-1)


def _sequences(tokens: Tensor, graded: Tensor) -> Sequences:
    return Sequences(tokens, graded, torch.zeros(tokens.shape, dtype=torch.float64), torch.where(graded, 0, -1))
