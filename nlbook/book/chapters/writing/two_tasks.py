"""Two tasks whose gradients live in two subspaces (section 4.3): what a momentum still holds of the first, and what the
weight does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from nlbook.errors import generator, need

WIDTH, RANK = 32, 8


@dataclass(frozen=True)
class TwoTasks:
    """Linear regression tasks (eq. 45) whose inputs span subspaces of R^WIDTH at principal angles of one cosine.

    Attributes:
        bases: two (WIDTH, RANK) with orthonormal columns; overlap = cosine of every principal angle between them.
        targets: two (WIDTH,): the weights that solve the task.
    """

    bases: tuple[Tensor, Tensor]
    targets: tuple[Tensor, Tensor]

    def gradient(self, task: int, w: Tensor, g: torch.Generator) -> Tensor:
        """A stochastic gradient of the mean of (w x - y)^2 / 2 over 8 samples; it lies in the task's subspace."""
        U, n = self.bases[task], 8
        x = torch.randn(n, U.shape[1], generator=g, dtype=w.dtype) @ U.mT
        return x.mT @ (x @ (w - self.targets[task]) - 0.1 * torch.randn(n, generator=g, dtype=w.dtype)) / n

    def loss(self, task: int, w: Tensor) -> float:
        """Expected (w x - y)^2 without the noise."""
        return float((self.bases[task].mT @ (w - self.targets[task])).square().sum())


def two_tasks(overlap: float = 0.0, seed: int = 0) -> TwoTasks:
    """Draw two tasks; `overlap` in [0, 1] (0: orthogonal, 1: the same subspace)."""
    need(0 <= overlap <= 1, "overlap", overlap, "a number in [0, 1]")
    g = generator(seed)
    Q = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=g, dtype=torch.float64)).Q
    U = Q[:, :RANK]
    V = overlap * U + math.sqrt(1 - overlap**2) * Q[:, RANK : 2 * RANK]
    a, b = (torch.randn(WIDTH, generator=g, dtype=torch.float64) for _ in range(2))
    return TwoTasks((U, V), (a, b))


class SlowMomentum:
    """A fast moving average, plus one that is written once a `period` with the period's mean gradient (eq. 75,
    corrected): the two memories of `nlbook.optim.M3`, read without Newton-Schulz; a test holds them together.

    `decay=False` is the slow half of eq. 75 as printed, which M3 does not have: a sum that never forgets.
    """

    def __init__(
        self,
        d: int,
        keep: float = 0.9,
        slow_keep: float = 0.9,
        period: int = 0,
        weight: float = 1.0,
        decay: bool = True,
    ) -> None:
        self.fast, self.slow, self.block = (torch.zeros(d, dtype=torch.float64) for _ in range(3))
        self.keep, self.slow_keep, self.period, self.weight, self.decay = keep, slow_keep, period, weight, decay
        self.t = 0

    def write(self, g: Tensor) -> Tensor:
        """Store a gradient and return what a step would follow: fast + weight * slow."""
        self.t += 1
        self.fast = self.keep * self.fast + (1 - self.keep) * g
        self.block = self.block + g
        if self.period and self.t % self.period == 0:
            held = self.slow_keep * self.slow if self.decay else self.slow
            self.slow, self.block = held + (1 - self.slow_keep) * self.block / self.period, torch.zeros_like(self.block)
        return self.fast + self.weight * self.slow


def remembered(
    keep: float = 0.9,
    *,
    period: int = 0,
    after: int = 200,
    before: int = 600,
    seeds: Iterable[int] = range(5),
) -> Tensor:
    """How much of a momentum still lies in the *old* task's subspace, k = 0 .. after steps after a switch of tasks.

    Two orthogonal subspaces, gradients of a constant mean plus noise in each (so nothing but the memory itself
    forgets). The share is |U^T m|^2 / |m|^2: 1/2 after 7 steps at keep = 0.9, nothing left by 44; with a slow momentum
    a third.

    Args:
        period: 0 for plain momentum, else the slow momentum's.

    Returns:
        (seeds, after + 1) float64.
    """
    shares = []
    for seed in seeds:
        bases, g = two_tasks(0.0, seed).bases, generator(seed + 1000)
        means = [torch.randn(RANK, generator=g, dtype=torch.float64) for _ in range(2)]
        stream = []
        for t in range(before + after):
            task = int(t >= before)
            noise = 0.5 * torch.randn(RANK, generator=g, dtype=torch.float64)
            stream.append(bases[task] @ (means[task] + noise))
        memory = SlowMomentum(WIDTH, keep, period=period)
        held = torch.stack([memory.write(x) for x in stream][before - 1 :])
        shares.append((held @ bases[0]).square().sum(1) / held.square().sum(1))
    return torch.stack(shares)


METHODS = ("sgd", "momentum", "slow momentum", "slow sum", "projection")


def forgetting(method: str, overlap: float, *, steps: int = 400, seeds: Iterable[int] = range(5)) -> Tensor:
    """Losses when task 2 follows task 1: columns (task 1 before, task 1 after, task 2 after), one row a seed.

    The claim of section 4.3 is that momentum forgets the old gradients and the *model* therefore the old task. The
    second half does not follow: exactly orthogonal tasks lose nothing with any method, and once task 1 is learned,
    overlapping ones lose the same with either momentum, slow or not. What helps is to *use* the memory as a constraint.

    Args:
        method: "sgd" | "momentum" | "slow momentum" | "slow sum" (eq. 75 as printed, no decay) | "projection":
            gradients of task 2 are projected off the subspace that task 1's gradients spanned (orthogonal gradient
            descent).
    """
    need(method in METHODS, "method", repr(method), f"one of {', '.join(map(repr, METHODS))}")
    keep, period = 0.0 if method == "sgd" else 0.9, 40 if method.startswith("slow") else 0
    rows = []
    for seed in seeds:
        tasks, g = two_tasks(overlap, seed), generator(seed + 1000)
        w = torch.zeros(WIDTH, dtype=torch.float64)
        memory = SlowMomentum(WIDTH, keep, 0.5, period, weight=0.5, decay=method != "slow sum")
        seen, free = torch.zeros(WIDTH, WIDTH, dtype=torch.float64), torch.eye(WIDTH, dtype=torch.float64)
        losses = []
        for task in (0, 1):
            for _ in range(steps):
                grad = free @ tasks.gradient(task, w, g)
                seen += torch.outer(grad, grad)
                w = w - 0.02 * memory.write(grad)
            if method == "projection" and task == 0:
                values, vectors = torch.linalg.eigh(seen)
                old = vectors[:, values > 1e-6 * values[-1]]
                free = free - old @ old.mT
                memory = SlowMomentum(WIDTH, keep)  # its velocity still points into the old subspace
            losses.append(tasks.loss(0, w))
        rows.append([*losses, tasks.loss(1, w)])
    return torch.tensor(rows, dtype=torch.float64)
