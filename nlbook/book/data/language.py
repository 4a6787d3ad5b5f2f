"""A language whose entropy is known: facts that never change, facts of a document, facts that change under way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nlbook.book.data.sequences import Sequences, sizes
from nlbook.errors import generator, need


@dataclass(frozen=True)
class TimescaleLanguage:
    """Documents of pairs, key value key value ...; keys are uniform, values follow the fact that belongs to the key.

    A static key has one value in the whole language (what pre-training can know). A document key gets a fresh value in
    every document and keeps it (what must be learned in context). A fast key changes its value with probability
    `hazard` before each use (what must be relearned). The value written is the fact with probability 1 - noise, else
    uniform.

    The ideal predictor is a Bayes filter for each key, so the optimum is exact: `sample` returns what it pays for each
    value. `seed` draws the static facts: it is part of the language.

    >>> TimescaleLanguage().vocabulary
    30
    """

    static: int = 6
    document: int = 8
    fast: int = 4
    values: int = 12
    noise: float = 0.05
    hazard: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("static", "document", "fast"):
            n = getattr(self, name)
            need(isinstance(n, int) and n >= 0, name, n, "an int >= 0 (keys)")
        need(self.keys >= 1, "static + document + fast", self.keys, "at least one key")
        need(isinstance(self.values, int) and self.values >= 2, "values", self.values, "an int >= 2")
        need(0 < self.noise < 1, "noise", self.noise, "a number in (0, 1)")
        need(0 <= self.hazard <= 1, "hazard", self.hazard, "a number in [0, 1]")

    @property
    def keys(self) -> int:
        return self.static + self.document + self.fast

    @property
    def vocabulary(self) -> int:
        """Keys are tokens 0 .. keys - 1, then come the values."""
        return self.keys + self.values

    def facts(self) -> Tensor:
        """The values of the static keys, (static,), in 0 .. values - 1."""
        return torch.randint(self.values, (self.static,), generator=generator(self.seed))

    def story(self, batch: int, pairs: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values of `batch` documents, (batch, pairs), and the facts behind them after each pair, (batch,
        pairs, keys).
        """
        sizes(batch=batch, pairs=pairs)
        g, V, K = generator(seed), self.values, self.keys
        key = torch.randint(K, (batch, pairs), generator=g)
        now = torch.randint(V, (batch, K), generator=g)
        now[:, : self.static] = self.facts()
        changes = torch.rand(batch, pairs, generator=g, dtype=torch.float32) < self.hazard
        slips = torch.rand(batch, pairs, generator=g, dtype=torch.float32) < self.noise
        fresh, noise = (torch.randint(V, (batch, pairs), generator=g) for _ in range(2))
        changes &= key >= self.static + self.document
        row, truth = torch.arange(batch), []
        for t in range(pairs):
            k = key[:, t]
            now[row, k] = torch.where(changes[:, t], fresh[:, t], now[row, k])
            truth.append(now.clone())
        facts = torch.stack(truth, 1)
        return key, torch.where(slips, noise, facts.gather(2, key[..., None])[..., 0]), facts

    def sample(self, batch: int, pairs: int, seed: int) -> Sequences:
        """`batch` documents of 2 * pairs tokens. Values are graded; kinds are static, document and fast."""
        key, value, _ = self.story(batch, pairs, seed)
        V, K, row = self.values, self.keys, torch.arange(batch)
        # what a reader who knows the language but not the document believes: (batch, key, value)
        belief = torch.full((batch, K, V), 1 / V, dtype=torch.float64)
        belief[:, : self.static] = torch.nn.functional.one_hot(self.facts(), V).double()
        paid = torch.zeros(batch, pairs, dtype=torch.float64)
        for t in range(pairs):
            k = key[:, t]
            belief[row, k], paid[:, t] = self.update(belief[row, k], value[:, t], k >= self.static + self.document)
        tokens = torch.stack([key, K + value], -1).flatten(1)
        kind = (key >= self.static).long() + (key >= self.static + self.document).long()
        on_values = torch.tensor([False, True]).repeat(batch, pairs)
        spread = torch.stack([torch.full_like(kind, -1), kind], -1).flatten(1)
        optimum = torch.stack([torch.zeros_like(paid), paid], -1).flatten(1)
        return Sequences(tokens, on_values, optimum, spread, ("static", "document", "fast"))

    def update(self, belief: Tensor, seen: Tensor, is_fast: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the ideal reader: belief (n, values) about a key before its use, the value seen there (n,),
        whether the key is fast (n,). Returns the belief after it and the nats paid for `seen`.
        """
        drift = self.hazard * is_fast.double()[:, None]
        prior = (1 - drift) * belief + drift / self.values
        one = torch.nn.functional.one_hot(seen, self.values).double()
        likelihood = (1 - self.noise) * one + self.noise / self.values  # P(seen | fact)
        evidence = (prior * likelihood).sum(-1)
        return prior * likelihood / evidence[:, None], -evidence.log()
