"""Documents of the reader's stream, and a memory that reads them by the delta rule.

The documents are those of one stream of `nlbook.book.data.lives`: `A B` hold in all of them, `d e` are new in each,
`x y` change under way. A key is one of six directions, a value one of eight, less their mean: an answer of zero says
"all eight alike". A linear memory reads a document by the delta rule, from a start that the documents share.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nlbook.book.data.lives import Lives

KEYS = ("A B", "d e", "x y")
"""They hold for ever, for a document, for a moment."""
ETA, STEP, TOLD = 0.7, 0.03, 8
"""The rate of a write, the step of the start, and the pairs of a document that are told before the others are asked."""


@dataclass(frozen=True)
class Documents:
    """key, value (documents, pairs): numbers of the six keys and of the eight values."""

    key: Tensor
    value: Tensor

    @property
    def k(self) -> Tensor:
        """(documents, pairs, 6)."""
        return torch.eye(6, dtype=torch.float64)[self.key]

    @property
    def v(self) -> Tensor:
        """(documents, pairs, 8), centred."""
        return (torch.eye(8, dtype=torch.float64) - 1 / 8)[self.value]

    @property
    def first_use(self) -> Tensor:
        """Whether a pair is the first of its key in its document, (documents, pairs)."""
        same = self.key[:, :, None] == self.key[:, None, :]
        return ~same.tril(-1).any(2)

    def part(self, begin: int, end: int) -> Documents:
        return Documents(self.key[begin:end], self.value[begin:end])

    def in_one(self) -> Documents:
        """The same pairs as one long document."""
        return Documents(self.key.reshape(1, -1), self.value.reshape(1, -1))


def documents(n: int, seed: int = 0, shared: bool = True) -> Documents:
    """n documents of one stream; shared=False: each of a stream of its own, so that `A B` are new in each as well."""
    language = Lives(documents=n) if shared else Lives(documents=1)
    tokens = language.sample(1 if shared else n, seed).tokens.reshape(n, language.document_length)
    key, value = tokens[:, 1:].reshape(n, -1, 2).unbind(-1)
    return Documents(key, value - len(language.keys))


def read(start: Tensor, docs: Documents, eta: float = ETA) -> tuple[Tensor, Tensor]:
    """Read each document from `start`, one memory each; every pair is asked first and then written.

    Returns (documents, pairs) twice: the chance of a right answer (best values that tie share it), and the squared
    error, as a share of that of an answer of zero.
    """
    k, v = docs.k, docs.v
    M, answers = start.expand(len(k), *start.shape), []
    for t in range(k.shape[1]):
        answers.append((M @ k[:, t, :, None])[..., 0])
        M = M + eta * (v[:, t] - answers[-1])[..., None] * k[:, t, None, :]
    y = torch.stack(answers, 1)
    best = (y >= y.max(-1, keepdim=True).values - 1e-9).double()
    right = best.gather(-1, docs.value[..., None])[..., 0] / best.sum(-1)
    return right, (y - v).square().sum(-1) / (7 / 8)


def by_kind(right: Tensor, docs: Documents, where: Tensor | None = None) -> dict[str, float]:
    """The mean over the pairs of each kind of key, of those that `where` marks."""
    where = torch.ones_like(docs.key, dtype=torch.bool) if where is None else where
    return {name: float(right[(docs.key // 2 == i) & where].mean()) for i, name in enumerate(KEYS)}
