"""The language of the running example: facts that live for ever, for a document, or for a moment."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.book.data.sequences import Sequences, sizes
from nlbook.errors import generator, need

KINDS = ("for ever", "document", "moment")


@dataclass(frozen=True)
class Lives:
    """A stream of documents, each a list of pairs `key value key value ...`, opened by one boundary token.

    `A B` have one value for the whole stream, `d e` a fresh one in each document. `x y` have a fresh one in each
    document too, and it changes with probability `hazard` before each later use. What is written is the fact with
    probability 1 - `slip`, else uniform. Tokens: keys 0 .. 5, then the values, then the boundary.

    >>> language = Lives()
    >>> language.vocabulary, language.document_length
    (15, 33)
    """

    values: int = 8
    documents: int = 8
    pairs: int = 16
    slip: float = 0.05
    hazard: float = 0.35
    keys: str = "ABdexy"

    def __post_init__(self) -> None:
        sizes(documents=self.documents, pairs=self.pairs)
        need(isinstance(self.values, int) and self.values >= 2, "values", self.values, "an int >= 2")
        need(0 < self.slip < 1, "slip", self.slip, "a number in (0, 1)")
        need(0 <= self.hazard <= 1, "hazard", self.hazard, "a number in [0, 1]")
        need(len(self.keys) == 6, "keys", repr(self.keys), "six letters, two a kind")

    @property
    def vocabulary(self) -> int:
        return len(self.keys) + self.values + 1

    @property
    def boundary(self) -> int:
        """The token that opens a document."""
        return len(self.keys) + self.values

    @property
    def document_length(self) -> int:
        """Tokens of a document."""
        return 2 * self.pairs + 1

    def sample(self, batch: int, seed: int) -> Sequences:
        """`batch` streams; values are graded, kinds are KINDS. The optimum is a Bayes filter for each key, exact."""
        sizes(batch=batch)
        g, V, K = generator(seed), self.values, len(self.keys)
        kind = torch.arange(K) // 2
        key = torch.randint(K, (batch, self.documents, self.pairs), generator=g)
        fact = torch.randint(V, (batch, K), generator=g)
        belief = torch.full((batch, K, V), 1 / V, dtype=torch.float64)
        like = (1 - self.slip) * torch.eye(V, dtype=torch.float64) + self.slip / V  # P(written | fact)
        row = torch.arange(batch)
        written, optimum = torch.empty_like(key), torch.empty(key.shape, dtype=torch.float64)
        for d in range(self.documents):
            fresh = torch.randint(V, (batch, K), generator=g)
            fact = torch.where(kind == 0, fact, fresh)
            belief = torch.where((kind == 0)[:, None], belief, torch.full_like(belief, 1 / V))
            used = torch.zeros(batch, K, dtype=torch.bool)
            for t in range(self.pairs):
                k = key[:, d, t]
                moment = (kind[k] == 2) & used[row, k]
                changes = moment & (torch.rand(batch, generator=g, dtype=torch.float32) < self.hazard)
                other = torch.randint(V, (batch,), generator=g)
                fact[row, k] = torch.where(changes, other, fact[row, k])
                slips = torch.rand(batch, generator=g, dtype=torch.float32) < self.slip
                other = torch.randint(V, (batch,), generator=g)
                v = written[:, d, t] = torch.where(slips, other, fact[row, k])
                drift = self.hazard * moment.double()[:, None]
                post = ((1 - drift) * belief[row, k] + drift / V) * like[:, v].mT
                evidence = post.sum(-1, keepdim=True)
                optimum[:, d, t] = -evidence[:, 0].log()
                belief[row, k] = post / evidence
                used[row, k] = True
        pairs = torch.stack([key, K + written], -1).flatten(2)
        tokens = F.pad(pairs, (1, 0), value=self.boundary).flatten(1)

        def at_values(x: Tensor, empty: int) -> Tensor:
            return F.pad(torch.stack([torch.full_like(x, empty), x], -1).flatten(2), (1, 0), value=empty).flatten(1)

        graded = at_values(torch.ones_like(key), 0).bool()
        return Sequences(tokens, graded, at_values(optimum, 0), at_values(kind[key], -1), KINDS)

    @property
    def names(self) -> list[str]:
        """What people write for each token."""
        return [*self.keys, *map(str, range(1, self.values + 1)), "|"]

    def words(self, tokens: Tensor) -> str:
        """Tokens as people read them: `| A 3 d 1 x 7`."""
        return " ".join(self.names[t] for t in tokens.tolist())

    def tokens(self, words: str) -> Tensor:
        """The tokens (length,) of `| A3 d1 x7`, spaces or none."""
        said = [w for w in words if not w.isspace()]
        strange = sorted(set(said) - set(self.names))
        need(not strange, "words", strange, f"only {' '.join(self.names)}")
        return torch.tensor([self.names.index(w) for w in said])
