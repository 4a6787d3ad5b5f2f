"""Facts that live for different spans on the same keys, and exact readers with and without each span."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.book.data.sequences import Sequences, sizes
from nlbook.errors import generator, need

KINDS = ("first early", "first late", "again")


@dataclass(frozen=True)
class Scales:
    """A stream of documents, each a list of pairs `key value key value ...`.

    Each key has a base value that holds for the whole stream. For each span, longest first, a key is overridden with
    probability `p`: it has a fresh value for that many documents and then its old one again. `spans=(1,)` gives facts
    of the stream and of a document (two scales), `spans=(4, 1)` adds facts of a group of four documents (three). The
    value that is written is the fact with probability 1 - `noise`, else uniform. So a memory with one time constant has
    to choose between the last document and the average of all.

    A share `refer` of the pairs is `key key`, a reference: until the document ends, the first key means what the second
    one means now, whether or not that was said. Its `value` is other key - keys, below 0, and it is not graded, so
    neither the optimum nor a model that is trained on values alone has to guess which pairs are references.

    Tokens: keys are 0 .. keys - 1, then the values; `boundary`, the last token, opens each document if `marked`.

    >>> language = Scales(keys=6, values=5)
    >>> language.vocabulary, language.document_length
    (12, 23)
    """

    keys: int = 6
    values: int = 5
    documents: int = 8
    pairs: int = 11
    spans: tuple[int, ...] = (1,)
    p: float = 0.3
    noise: float = 0.05
    marked: bool = True
    refer: float = 0.0

    def __post_init__(self) -> None:
        sizes(keys=self.keys, documents=self.documents, pairs=self.pairs)
        need(isinstance(self.values, int) and self.values >= 2, "values", self.values, "an int >= 2")
        need(
            len(self.spans) >= 1
            and all(isinstance(s, int) and s >= 1 for s in self.spans)
            and all(a > b and a % b == 0 for a, b in zip(self.spans, self.spans[1:])),
            "spans",
            self.spans,
            "documents per span, longest first, each a multiple of the next, such as (4, 1)",
        )
        need(0 <= self.p <= 1, "p", self.p, "a number in [0, 1]")
        need(0 < self.noise < 1, "noise", self.noise, "a number in (0, 1)")
        need(0 <= self.refer < 1 and self.keys > (self.refer > 0), "refer", self.refer, "in [0, 1); above 0 two keys")

    @property
    def vocabulary(self) -> int:
        return self.keys + self.values + 1

    @property
    def boundary(self) -> int:
        """The token that opens a document."""
        return self.keys + self.values

    @property
    def document_length(self) -> int:
        """Tokens of a document."""
        return 2 * self.pairs + self.marked

    def draw(self, batch: int, seed: int) -> tuple[Tensor, Tensor]:
        """Keys and written values (below 0: references), each (batch, documents, pairs)."""
        sizes(batch=batch)
        g, B, D = generator(seed), batch, self.documents
        key = torch.randint(self.keys, (B, D, self.pairs), generator=g)
        truth = torch.randint(self.values, (B, 1, self.keys), generator=g).expand(B, D, -1)
        for span in self.spans:
            blocks = -(-D // span)
            over = torch.rand(B, blocks, self.keys, generator=g, dtype=torch.float32) < self.p
            fresh = torch.randint(self.values, (B, blocks, self.keys), generator=g)
            over, fresh = (t.repeat_interleave(span, 1)[:, :D] for t in (over, fresh))
            truth = torch.where(over, fresh, truth)
        slip = torch.rand(key.shape, generator=g, dtype=torch.float32) < self.noise
        noise = torch.randint(self.values, key.shape, generator=g)
        if not self.refer:
            return key, torch.where(slip, noise, truth.gather(2, key))
        other = torch.randint(self.keys - 1, key.shape, generator=g)
        refers = torch.rand(key.shape, generator=g) < self.refer
        other = torch.where(refers, other + (other >= key) - self.keys, 0)
        return key, torch.where(refers, other, torch.where(slip, noise, truth.gather(2, self.meaning(key, other))))

    def meaning(self, key: Tensor, value: Tensor) -> Tensor:
        """The key whose fact is meant at each pair, like `key`: itself, unless references in its document turned it."""
        means, out = torch.arange(self.keys).expand(*key.shape[:2], -1), []
        for k, v in zip(key.split(1, 2), value.split(1, 2), strict=True):
            out.append(means.gather(2, k))
            now = torch.where(v < 0, means.gather(2, v % self.keys), out[-1])
            means = means.scatter(2, k, now)
        return torch.cat(out, 2)

    def pay(self, key: Tensor, value: Tensor, without: int | None = None) -> Tensor:
        """Nats that the Bayes reader pays for each value, (batch, documents, pairs), float64.

        `without` names a scale (0 the stream, 1 .. the spans) that this reader does not carry from one document to the
        next; None is the optimum. The fastest scale cannot be left out: it is the document itself.
        """
        need(
            without is None or 0 <= without < len(self.spans),
            "without",
            without,
            f"0 .. {len(self.spans) - 1}, or None",
        )
        ends = [0, *self.spans]  # documents after which each scale is drawn again; 0: never
        if without is not None:
            ends[without] = ends[without + 1]
        B, K, V = len(key), self.keys, self.values
        like, move = self._chances()
        key, paid = self.meaning(key, value), torch.zeros(key.shape, dtype=torch.float64)
        row = torch.arange(B)
        belief = torch.full((B, K), 1.0, dtype=torch.float64)  # grows one axis of V a scale, slowest first
        for d in range(key.shape[1]):
            kept = next((i for i, n in enumerate(ends) if n and d % n == 0), len(ends)) if d else 0
            belief = belief.flatten(2 + kept).sum(-1) if belief.ndim > 2 + kept else belief
            for i in range(kept, len(ends)):
                belief = belief[..., None] * (move if i else torch.full((V,), 1 / V, dtype=torch.float64))
            for t in range(key.shape[2]):
                k, v = key[:, d, t], value[:, d, t].clamp_min(-1)
                post = belief[row, k] * like[:, v].mT.reshape(B, *[1] * (belief.ndim - 3), V)
                evidence = post.flatten(1).sum(1)
                paid[:, d, t] = -evidence.log()
                belief[row, k] = post / evidence.reshape(-1, *[1] * (post.ndim - 1))
        return paid

    def pay_drifting(self, key: Tensor, value: Tensor, q: float) -> Tensor:
        """The best that one time constant can do: one belief a key, which drifts to uniform by `q` at each document."""
        B, V, row = len(key), self.values, torch.arange(len(key))
        like, _ = self._chances()
        key = self.meaning(key, value)
        paid = torch.zeros(key.shape, dtype=torch.float64)
        belief = torch.full((B, self.keys, V), 1 / V, dtype=torch.float64)
        for d in range(key.shape[1]):
            belief = (1 - q) * belief + q / V
            for t in range(key.shape[2]):
                k, v = key[:, d, t], value[:, d, t].clamp_min(-1)
                post = belief[row, k] * like[:, v].mT
                evidence = post.sum(-1, keepdim=True)
                paid[:, d, t] = -evidence[:, 0].log()
                belief[row, k] = post / evidence
        return paid

    def _chances(self) -> tuple[Tensor, Tensor]:
        """P(written | fact), (values, values + 1): in the last column, -1, nothing is said; and P(fact of a faster
        scale | fact of the slower one)."""
        V = self.values
        eye = torch.eye(V, dtype=torch.float64)
        return F.pad((1 - self.noise) * eye + self.noise / V, (0, 1), value=1.0), (1 - self.p) * eye + self.p / V

    def kind(self, key: Tensor, value: Tensor) -> Tensor:
        """An index into KINDS, first use of a key in a document of the first half or the second, used before, or
        3: it means another one, which is "borrowed"."""
        uses = F.one_hot(key, self.keys).cumsum(2).gather(3, key[..., None])[..., 0]
        late = torch.arange(key.shape[1]) >= key.shape[1] // 2
        own = torch.where(uses == 1, late.long()[None, :, None].expand_as(uses), torch.full_like(uses, 2))
        return torch.where(self.meaning(key, value) == key, own, torch.full_like(own, 3))

    def sample(self, batch: int, seed: int, priced: bool = True) -> Sequences:
        """`batch` streams with what the optimum pays (0 unless `priced`: training does not ask); values are graded,
        kinds are KINDS and "borrowed"."""
        key, value = self.draw(batch, seed)
        tokens = torch.stack([key, self.keys + value], -1).flatten(2)
        if self.marked:
            tokens = F.pad(tokens, (1, 0), value=self.boundary)

        def at_values(x: Tensor, empty: int) -> Tensor:
            rows = torch.stack([torch.full_like(x, empty), x], -1).flatten(2)
            return (F.pad(rows, (1, 0), value=empty) if self.marked else rows).flatten(1)

        said = value >= 0
        paid = self.pay(key, value) if priced else torch.zeros(key.shape, dtype=torch.float64)
        kind = torch.where(said, self.kind(key, value), -1)
        return Sequences(
            tokens.flatten(1), at_values(said, 0), at_values(paid, 0), at_values(kind, -1), (*KINDS, "borrowed")
        )
