"""Where a memory starts: a start that documents share, learned through the memory's own writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nlbook.book.chapters.levels.documents import ETA, STEP, TOLD, documents, read
from nlbook.book.chapters.levels.documents import KEYS as KEYS  # the chapter finds these here too
from nlbook.book.chapters.levels.documents import by_kind as by_kind
from nlbook.book.chapters.levels.exercises import adapt, outer_gradient
from nlbook.errors import need

Gradient = Callable[..., Tensor]


# ---- what may reach the start ---------------------------------------------------------------------------------------
def first_order(start: Tensor, K: Tensor, V: Tensor, Q: Tensor, T: Tensor, eta: float) -> Tensor:
    """The gradient at the adapted memory, as if no write stood between it and the start."""
    M = adapt(start, K, V, eta)
    return (Q @ M.T - T).T @ Q


def as_printed(start: Tensor, K: Tensor, V: Tensor, Q: Tensor, T: Tensor, eta: float) -> Tensor:
    """The gradient of eq. 28 as printed: the loss of the start itself, before any write."""
    return (Q @ start.T - T).T @ Q


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


def compare(
    names: tuple[str, ...] = ("zero start", "learned start"),
    shared: bool = True,
    n: int = 200,
    seeds: int = 3,
    seed: int = 0,
    eta: float = ETA,
) -> dict[str, Reading]:
    """Learn a start on n documents, then read n new ones of the same stream; each reads the same documents.

    "state kept" is the rival: one memory that is never emptied, so all documents are read as one.
    """
    found: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in names}
    for s in range(seed, seed + seeds):
        docs = documents(2 * n, s, shared)
        old, new = docs.part(0, n), docs.part(n, 2 * n)
        kind = torch.nn.functional.one_hot(new.key // 2, 3).double()  # (documents, pairs, kinds)
        for name in names:
            start = torch.zeros(8, 6, dtype=torch.float64)
            if name == "learned start":
                start = learn(old.k, old.v, eta=eta)
            if name == "state kept":
                right, error = (x.reshape(2 * n, -1)[n:] for x in read(start, docs.in_one(), eta))
            else:
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
