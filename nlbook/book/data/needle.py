"""A needle in a haystack, in miniature: a fact told once, much else after it, and the question at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from nlbook.book.data.sequences import Sequences, sizes
from nlbook.errors import generator, need


@dataclass(frozen=True)
class Needle:
    """`[mark key value]` somewhere in a hay of random words, and `[ask key value]` at the end; the last token is
    graded.

    With several needles the question is about one of them, at random; their keys differ. Hay words are not keys, values
    or marks, unless `decoys` > 0: that many pairs [key value] with other keys lie in the hay *without* a mark.
    Tokens: hay words, then keys, then values, then mark and ask.
    """

    hay: int = 16
    keys: int = 8
    values: int = 8
    needles: int = 1
    decoys: int = 0

    def __post_init__(self) -> None:
        sizes(hay=self.hay, keys=self.keys, values=self.values, needles=self.needles)
        need(isinstance(self.decoys, int) and self.decoys >= 0, "decoys", self.decoys, "an int >= 0")
        need(
            self.needles + self.decoys <= self.keys,
            "needles + decoys",
            self.needles + self.decoys,
            f"at most keys = {self.keys}",
        )

    @property
    def vocabulary(self) -> int:
        return self.hay + self.keys + self.values + 2

    @property
    def mark(self) -> int:
        return self.vocabulary - 2

    @property
    def ask(self) -> int:
        return self.vocabulary - 1

    @property
    def chance(self) -> float:
        """Nats of somebody who knows what values look like and has missed the needle."""
        return math.log(self.values)

    def sample(self, batch: int, length: int, seed: int, depth: float | None = None) -> Sequences:
        """`batch` sequences of `length` tokens. depth in [0, 1]: where the needle that is asked for lies, 0 the
        beginning of the text, 1 its end; None: anywhere.
        """
        things = self.needles + self.decoys
        sizes(batch=batch, length=length)
        need(length >= 3 * things + 3, "length", length, f"at least {3 * things + 3} for {things} pairs and a question")
        need(depth is None or 0 <= depth <= 1, "depth", depth, "a number in [0, 1], or None")
        g = generator(seed)
        tokens = torch.randint(self.hay, (batch, length), generator=g)
        room = length - 3 - 2 * things  # places for a needle when each shrinks to one place
        for b in range(batch):
            key = torch.randperm(self.keys, generator=g)[:things]
            value = torch.randint(self.values, (things,), generator=g)
            spots = torch.randperm(room, generator=g)[:things]
            which = 0
            if depth is not None:  # the asked needle takes its place, the others keep off it
                target = round(depth * (room - 1))
                others = spots[spots != target][: things - 1]
                spots = torch.cat([torch.tensor([target]), others])
                if len(spots) < things:
                    free = next(i for i in range(room) if i not in set(spots.tolist()))
                    spots = torch.cat([spots, torch.tensor([free])])
            order = spots.argsort()
            for rank, i in enumerate(order.tolist()):
                at = int(spots[i]) + 2 * rank
                pair = [self.hay + int(key[i]), self.hay + self.keys + int(value[i])]
                head = [self.mark] if i < self.needles else [int(tokens[b, at])]
                tokens[b, at : at + 3] = torch.tensor(head + pair)
            if depth is None:
                which = int(torch.randint(self.needles, (1,), generator=g))
            tokens[b, -3:] = torch.tensor(
                [self.ask, self.hay + int(key[which]), self.hay + self.keys + int(value[which])]
            )
        graded = torch.zeros_like(tokens, dtype=torch.bool)
        graded[:, -1] = True
        kind = torch.where(graded, 0, -1)
        return Sequences(tokens, graded, torch.zeros(tokens.shape, dtype=torch.float64), kind, ("needle",))
