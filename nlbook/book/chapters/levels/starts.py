"""Where a memory starts: documents that share two facts, and a start learned through the memory's own writes.

The documents are those of one stream of `nlbook.book.data.lives`: `A B` hold in all of them, `d e` are new in each,
`x y` change under way. A key is one of six directions, a value one of eight, less their mean: an answer of zero says
"all eight alike". A linear memory reads a document by the delta rule, from a start that the documents share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nlbook.book.chapters.levels.exercises import adapt, outer_gradient
from nlbook.book.data.lives import Lives
from nlbook.errors import need

KEYS = ("A B", "d e", "x y")
"""They hold for ever, for a document, for a moment."""
ETA, STEP, TOLD = 0.7, 0.03, 8
"""The rate of a write, the step of the start, and the pairs of a document that are told before the others are asked."""

Gradient = Callable[..., Tensor]


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


# ---- what may reach the start ---------------------------------------------------------------------------------------
def first_order(start: Tensor, K: Tensor, V: Tensor, Q: Tensor, T: Tensor, eta: float) -> Tensor:
    """The gradient at the adapted memory, as if no write stood between it and the start."""
    M = adapt(start, K, V, eta)
    return (Q @ M.T - T).T @ Q


def as_printed(start: Tensor, K: Tensor, V: Tensor, Q: Tensor, T: Tensor, eta: float) -> Tensor:
    """The gradient of eq. 28 as printed: the loss of the start itself, before any write."""
    return (Q @ start.T - T).T @ Q


def cut(start: Tensor, K: Tensor, V: Tensor, Q: Tensor, T: Tensor, eta: float) -> Tensor:
    """Nothing: the inner loop began at `start.detach()`. The negative control."""
    return torch.zeros_like(start)


def outer_loss(start: Tensor, K: Tensor, V: Tensor, Q: Tensor, T: Tensor, eta: float) -> Tensor:
    """What the slow level descends: 1/2 |M q - t|^2, summed over the questions, of the *adapted* M. Eq. 28, completed."""
    return 0.5 * (Q @ adapt(start, K, V, eta).T - T).square().sum()


def learn(
    k: Tensor, v: Tensor, told: int = TOLD, eta: float = ETA, lr: float = STEP, gradient: Gradient = outer_gradient
) -> Tensor:
    """The start after one step a document, from zero. k (documents, pairs, d_k), v (documents, pairs, d_v)."""
    need(0 <= told < k.shape[1], "told", told, f"0 to {k.shape[1] - 1}: some pairs must be left to ask for")
    start = torch.zeros(v.shape[-1], k.shape[-1], dtype=k.dtype)
    for K, V in zip(k, v):
        start = start - lr * gradient(start, K[:told], V[:told], K[told:], V[told:], eta)
    return start


# ---- the experiment -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Reading:
    """right, error (seeds, kinds, pairs) or (seeds, pairs): means over new documents, by the place in the document."""

    right: Tensor
    error: Tensor
    first: Tensor  # (seeds, kinds): chance of a right answer at a key's first use in a document
    later: Tensor  # (seeds, kinds): at all later uses


GRADIENTS: Mapping[str, Gradient | None] = {"zero start": None, "learned start": outer_gradient, "gradient cut": cut}


def compare(
    names: tuple[str, ...] = ("zero start", "learned start"),
    shared: bool = True,
    n: int = 200,
    seeds: int = 3,
    seed: int = 0,
    eta: float = ETA,
) -> dict[str, Reading]:
    """Learn a start on n documents, then read n new ones of the same stream; each start reads the same documents."""
    found: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in names}
    for s in range(seed, seed + seeds):
        docs = documents(2 * n, s, shared)
        old, new = docs.part(0, n), docs.part(n, 2 * n)
        kind = torch.nn.functional.one_hot(new.key // 2, 3).double()  # (documents, pairs, kinds)
        for name in names:
            gradient = GRADIENTS[name]
            start = torch.zeros(8, 6, dtype=torch.float64)
            if gradient is not None:
                start = learn(old.k, old.v, eta=eta, gradient=gradient)
            right, error = read(start, new, eta)
            curve = (right[..., None] * kind).sum(0) / kind.sum(0)
            uses = [torch.tensor([*by_kind(right, new, w).values()]) for w in (new.first_use, ~new.first_use)]
            found[name].append((curve.T, error.mean(0), *uses))
    return {name: Reading(*(torch.stack(x) for x in zip(*rows))) for name, rows in found.items()}


def worth(learned: Tensor, zero: Tensor) -> float:
    """After how many pairs the zero start's error (pairs,) has come down to where the learned start's begins."""
    below = (zero <= learned[0]).nonzero()
    need(len(below) > 0, "zero", f"{len(zero)} pairs", "enough pairs to reach the learned start")
    n = int(below[0])
    return n - float((learned[0] - zero[n]) / (zero[n - 1] - zero[n])) if n else 0.0


def loud_and_quiet(loud: float = 1.6, quiet: float = 0.2, n: int = 400) -> tuple[Tensor, Tensor]:
    """Documents of one pair, told once and asked once: `d` is 3 in the loud ones and 7 in the quiet ones, in turn.

    They differ in the length of the key: loud and quiet are its square. k (n, 2, 6), v (n, 2, 8).
    """
    length = torch.tensor([loud, quiet], dtype=torch.float64).sqrt().repeat(n // 2)
    k = torch.zeros(n, 2, 6, dtype=torch.float64)
    k[:, :, 2] = length[:, None]
    v = (torch.eye(8, dtype=torch.float64) - 1 / 8)[torch.tensor([2, 6]).repeat(n // 2)]
    return k, (v * length[:, None])[:, None].expand(-1, 2, -1)
