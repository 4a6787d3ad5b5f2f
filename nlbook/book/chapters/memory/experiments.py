"""The measured facts about memories: who recalls what, who survives a rewritten key, where interference comes from.

Every function draws its data from a seed and returns plain numbers; pictures and chapters show them, tests assert them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlbook.book.data import recall as task
from nlbook.errors import generator, need
from nlbook.memory.core import Memory
from nlbook.memory.dual import TrainingTrace, squared_loss, train_linear
from nlbook.memory.presets import make


@dataclass(frozen=True)
class Score:
    """accuracy: share of answers nearest to the right value; error: mean |y - v|^2 / |v|^2; spread: sd of accuracy over
    sequences.
    """

    accuracy: float
    error: float
    spread: float
    chance: float


def nearest(y: Tensor, candidates: Tensor) -> Tensor:
    """Which candidate each answer means: y (..., n, d), candidates (..., m, d) -> index (..., n) of the largest cosine."""
    return (y @ task.unit(candidates).mT).argmax(-1)


def score(y: Tensor, target: Tensor) -> Score:
    """Identify each answer y (batch, n, d) among the n targets (batch, n, d)."""
    right = (nearest(y, target) == torch.arange(target.shape[-2])).double().mean(-1)
    error = ((y - target).square().sum(-1) / target.square().sum(-1)).mean()
    return Score(float(right.mean()), float(error), float(right.std(correction=0)), 1 / target.shape[-2])


def _memory(rule: str | Memory, options: dict[str, Any]) -> Memory:
    need(isinstance(rule, str) or not options, "options", sorted(options), "none: the memory is already made")
    return make(rule, **options) if isinstance(rule, str) else rule


def answers(rule: str | Memory, data: task.Recall, passes: int = 1, **options: Any) -> Tensor:
    """Write the whole stream, then ask every question: (batch, n, d_v)."""
    memory = _memory(rule, options)
    return memory.read(memory.write_all(data.k, data.v, passes=passes), data.q)


def recall_accuracy(
    rule: str | Memory,
    n: int,
    d: int = 32,
    rho: float = 0.0,
    *,
    kind: str = "common",
    batch: int = 8,
    seed: int = 0,
    passes: int = 1,
    control: bool = False,
    **options: Any,
) -> Score:
    """Store n pairs in `batch` independent memories, ask for all n: how many answers are nearest to the right value?

    rule: a preset's name (with its options, lr= among them) or a memory. rho: overlap of the keys. control=True: the
    answers are scored against shuffled pairings (must fall to chance, 1/n, or below).

    >>> recall_accuracy("delta", n=4, d=32).accuracy
    1.0
    """
    data = task.pairs(n, d, rho, kind=kind, batch=batch, seed=seed)
    return score(answers(rule, data, passes, **options), (task.shuffled(data, seed) if control else data).target)


def rewrite_accuracy(
    rule: str | Memory,
    n: int,
    times: int,
    d: int = 32,
    rho: float = 0.0,
    *,
    kind: str = "common",
    batch: int = 8,
    seed: int = 0,
    **options: Any,
) -> Score:
    """n keys, each written `times` times with new values: how many answers are nearest to the *latest* value?"""
    data = task.rewrites(n, times, d, rho, kind=kind, batch=batch, seed=seed)
    return score(answers(rule, data, **options), data.target)


@dataclass(frozen=True)
class Rewrite:
    """One key written twice: the answer, its distance from the second value and from the sum of both."""

    answer: Tensor
    first: Tensor
    second: Tensor
    error: float
    distance_to_sum: float


def rewrite_key(rule: str | Memory, d: int = 32, *, seed: int = 0, value_scale: float = 1.0, **options: Any) -> Rewrite:
    """Write (k, v1), then (k, v2) with the same unit key; ask for k. Hebb answers v1 + v2, delta with lr = 1 answers
    v2.
    """
    memory = _memory(rule, options)
    k = task.keys(1, d, seed=seed)[0]
    v = value_scale * task.values(2, d, seed=seed)[0]
    y = memory.read(memory.write_all(k.expand(2, d), v), k[0])
    return Rewrite(y, v[0], v[1], float((y - v[1]).norm()), float((y - v.sum(0)).norm()))


def crosstalk(k: Tensor) -> Tensor:
    """How much of pair j comes back when key i is asked, in a Hebbian memory: the Gram matrix <k_i, k_j> (..., n, n).

    The diagonal is the signal, everything else interference: y_i = sum_j <k_i, k_j> v_j (eq. 15-16).
    """
    return k @ k.mT


def interference(k: Tensor) -> Tensor:
    """Expected squared crosstalk of each answer for independent unit values: sum over j != i of <k_i, k_j>^2, shape
    (..., n).
    """
    return crosstalk(k).square().sum(-1) - k.square().sum(-1).square()


def recall_matrix(rule: str | Memory, data: task.Recall, **options: Any) -> Tensor:
    """Cosine of every answer with every candidate value: (batch, n, n). A perfect memory has the targets' own cosines."""
    y = answers(rule, data, **options)
    return task.unit(y) @ task.unit(data.target).mT


def best_rate(
    rule: str,
    n: int,
    d: int = 32,
    rho: float = 0.0,
    *,
    rates: tuple[float, ...] = (0.1, 0.3, 0.6, 1.0, 1.5),
    seed: int = 100,
    **options: Any,
) -> float:
    """The write rate with the best accuracy (ties: the smaller error) on a seed that the result must not be reported
    on.
    """

    def quality(lr: float) -> tuple[float, float]:
        s = recall_accuracy(rule, n, d, rho, seed=seed, lr=lr, **options)
        return (s.accuracy, -s.error) if s.error == s.error else (-1.0, 0.0)

    return max(rates, key=quality)


@dataclass(frozen=True)
class DualForm:
    """A linear layer trained on T samples and asked at q. Vectors (d_out), but bars (T, d_out).

    answer = W_T q; bars = what each step wrote into it; start = W_0 q; frozen = the answer when every surprise was
    taken at the start; target = the true map at q.
    """

    trace: TrainingTrace
    q: Tensor
    start: Tensor
    bars: Tensor
    answer: Tensor
    frozen: Tensor
    target: Tensor

    @property
    def sum_error(self) -> float:
        """|W_0 q + sum of the bars - W_T q|: rounding alone."""
        return float((self.start + self.bars.sum(0) - self.answer).norm())

    @property
    def error(self) -> float:
        """|W_T q - target|: what training got wrong."""
        return float((self.answer - self.target).norm())

    @property
    def frozen_gap(self) -> float:
        """|frozen answer - W_T q|: what it matters that the values depend on the state."""
        return float((self.frozen - self.answer).norm())


def dual_form(steps: int = 40, d_in: int = 8, d_out: int = 1, lr: float = 0.5, *, seed: int = 0) -> DualForm:
    """Regress on a random linear map from unit inputs, one SGD step a sample; take the answer at a new q apart.

    W_T comes from autograd's gradients of the loss, the bars from the recorded trace: two roads to one answer.
    """
    need(isinstance(steps, int) and steps >= 1, "steps", steps, "an int >= 1")
    x = task.keys(steps + 1, d_in, seed=seed)[0]
    g = generator(seed + 3_000_003)
    true_map, W0 = (torch.randn(d_out, d_in, generator=g, dtype=torch.float64) for _ in range(2))
    x, q, targets = x[:-1], x[-1], x[:-1] @ true_map.mT
    W = W0
    for x_t, target in zip(x, targets):
        W = W.detach().requires_grad_()
        W = W - lr * torch.autograd.grad(0.5 * (W @ x_t - target).square().sum(), W)[0]
    surprise = squared_loss(targets)
    trace = train_linear(W0, x, surprise, lr)
    frozen = train_linear(W0, x, surprise, lr, frozen_surprises=True).predict(q)
    return DualForm(trace, q, W0 @ q, trace.contributions(q), (W @ q).detach(), frozen, true_map @ q)
