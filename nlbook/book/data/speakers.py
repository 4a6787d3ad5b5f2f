"""Who says what: slow knowledge that is a rule and not a list of pairs, with exact readers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.book.data.sequences import Sequences, sizes
from nlbook.errors import generator, need

KINDS = ("new early", "new late", "said before")


@dataclass(frozen=True)
class Speakers:
    """A stream of documents, each a list of statements `speaker fact bit`, opened by one boundary token.

    Each fact is true or false for the whole stream. A share `liars` of the speakers says the contrary, the others say
    the truth; a bit is turned round with probability `noise`. So what a speaker says of a fact that nobody heard from
    him follows from two things: whether he lies, and what others said of the fact. A memory that is linear in features
    of the pair cannot form that product, however large it is. Tokens: speakers, facts, the two bits, the boundary.

    >>> Speakers().vocabulary, Speakers().document_length
    (27, 19)
    """

    speakers: int = 8
    facts: int = 16
    documents: int = 24
    statements: int = 6
    liars: float = 0.15
    noise: float = 0.05

    def __post_init__(self) -> None:
        sizes(speakers=self.speakers, facts=self.facts, documents=self.documents, statements=self.statements)
        need(self.speakers <= 12, "speakers", self.speakers, "at most 12: the optimum sums over who lies")
        need(0 < self.liars < 1, "liars", self.liars, "a number in (0, 1)")
        need(0 < self.noise < 1, "noise", self.noise, "a number in (0, 1)")

    @property
    def vocabulary(self) -> int:
        return self.speakers + self.facts + 3

    @property
    def boundary(self) -> int:
        """The token that opens a document."""
        return self.speakers + self.facts + 2

    @property
    def document_length(self) -> int:
        """Tokens of a document."""
        return 3 * self.statements + 1

    def draw(self, batch: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Speaker, fact and bit of every statement, each (batch, documents * statements)."""
        sizes(batch=batch)
        g, n = generator(seed), self.documents * self.statements
        a = torch.randint(self.speakers, (batch, n), generator=g)
        b = torch.randint(self.facts, (batch, n), generator=g)
        lies = torch.rand(batch, self.speakers, generator=g, dtype=torch.float32) < self.liars
        true = torch.randint(2, (batch, self.facts), generator=g).bool()
        slip = torch.rand(batch, n, generator=g, dtype=torch.float32) < self.noise
        return a, b, (lies.gather(1, a) ^ true.gather(1, b) ^ slip).long()

    def pay(self, a: Tensor, b: Tensor, bit: Tensor) -> Tensor:
        """Nats of the Bayes reader, like `bit`, float64: it sums over all 2^speakers sets of liars."""
        A, row = self.speakers, torch.arange(len(a))
        lies = (torch.arange(2**A)[:, None] >> torch.arange(A)) & 1  # (sets, speakers)
        chance = torch.where(lies == 1, self.liars, 1 - self.liars).double().log().sum(-1)
        like = torch.zeros(len(a), 2**A, self.facts, 2, dtype=torch.float64)  # log P(said of a fact | set, truth)
        paid = torch.zeros(a.shape, dtype=torch.float64)
        for i in range(a.shape[1]):
            who, what, said = a[:, i], b[:, i], bit[:, i]
            posterior = torch.softmax(torch.logsumexp(like, -1).sum(-1) + chance, -1)
            truth = lies.mT[who] ^ said[:, None]  # the truth that this set makes of what was said: (batch, sets)
            p = (posterior * torch.softmax(like[row, :, what], -1).gather(2, truth[..., None])[..., 0]).sum(-1)
            paid[:, i] = -((1 - self.noise) * p + self.noise * (1 - p)).log()
            fits = truth[..., None] == torch.arange(2)
            like[row, :, what] += torch.where(fits, 1 - self.noise, self.noise).double().log()
        return paid

    def pay_without_speakers(self, a: Tensor, b: Tensor, bit: Tensor) -> Tensor:
        """Nats of the best reader that does not ask who lies: whether a speaker lies is drawn anew for each fact."""
        row = torch.arange(len(a))
        like = torch.ones(len(a), self.speakers, self.facts, 2, dtype=torch.float64)  # P(what a said of b | his word)
        paid = torch.zeros(a.shape, dtype=torch.float64)

        def evidence(said: Tensor) -> Tensor:
            return (0.5 * ((1 - self.liars) * said + self.liars * said.flip(-1)).prod(1)).sum(-1)

        for i in range(a.shape[1]):
            who, what = a[:, i], b[:, i]
            before = like[row, :, what]
            after = before.clone()
            after[row, who] *= torch.where(torch.arange(2) == bit[:, i, None], 1 - self.noise, self.noise).double()
            paid[:, i] = -(evidence(after) / evidence(before)).log()
            like[row, :, what] = after
        return paid

    def sample(self, batch: int, seed: int, priced: bool = True) -> Sequences:
        """`batch` streams with what the optimum pays (0 unless `priced`: training does not ask); bits are graded,
        kinds are KINDS.
        """
        a, b, bit = self.draw(batch, seed)
        pair = F.one_hot(a * self.facts + b, self.speakers * self.facts)
        again = pair.cumsum(1).gather(2, (a * self.facts + b)[..., None])[..., 0] > 1
        late = torch.arange(a.shape[1]) >= a.shape[1] // 2
        kind = torch.where(again, 2, late.long().expand_as(a))
        words = torch.stack([a, self.speakers + b, self.speakers + self.facts + bit], -1)

        def stream(x: Tensor, empty: int) -> Tensor:
            rows = x.view(batch, self.documents, 3 * self.statements)
            return F.pad(rows, (1, 0), value=empty).flatten(1)

        def at_bits(x: Tensor, empty: int) -> Tensor:
            blank = torch.full_like(x, empty)
            return stream(torch.stack([blank, blank, x], -1), empty)

        graded = at_bits(torch.ones_like(a), 0).bool()
        optimum = at_bits(self.pay(a, b, bit) if priced else torch.zeros(a.shape, dtype=torch.float64), 0)
        return Sequences(stream(words, self.boundary), graded, optimum, at_bits(kind, -1), KINDS)
