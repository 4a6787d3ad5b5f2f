"""The learners of chapter 05 and of the ledger's streams of digits: a CMS against one MLP, and what else could explain
the difference.

Every learner is a `nlbook.cms.CMS` of three residual blocks, chained (eq. 70), and a linear head. Its sequences are replicas, one for each seed and learning rate: tuning a method costs little more than running
it. The batch of a training step is a stretch of the sequence, so periods count steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.book.data.continual import Task, average_accuracy, forgetting, learning_accuracy, stream
from nlbook.cms import CMS, MLP, CMSState, LevelState
from nlbook.errors import generator, need

DIM, HIDDEN, CLASSES = 64, 64, 10
Weights = dict[str, Tensor]  # "up0" (replica, hidden, dim), "down0" (replica, dim, hidden), ..., "head", "bias"


@dataclass(frozen=True)
class Method:
    """One learner. The default is one MLP: every block is updated at every step.

    Args:
        periods: steps between two updates of each block (eq. 71); the linear head moves at every step.
        reduce: what an update takes of the gradients of its steps: their "sum" (as printed) or their "mean".
        lr_split: factors on the blocks' learning rates. (1, 1/8, 1/64) is the control that has the step sizes of a CMS
            and not its periods; 0 freezes a block.
        reset: steps after which block 0 restarts from a start of its own, which has moved by the share `meta_lr`
            towards the block (eq. 72, by Reptile); 0 is never. `CMS(variant="nested")` restarts a level only when the
            next slower one moves; here the end of a context does it.
        ewc: strength of elastic weight consolidation (it is told when a task ends); 0 is off.
        replay: examples kept by reservoir sampling and mixed in one to one; 0 is off.
    """

    periods: tuple[int, ...] = (1, 1, 1)
    reduce: str = "sum"
    lr_split: tuple[float, ...] = ()
    reset: int = 0
    meta_lr: float = 0.1
    ewc: float = 0.0
    replay: int = 0

    def __post_init__(self) -> None:
        if len(self.lr_split) not in (0, len(self.periods)):
            need(False, "lr_split", self.lr_split, f"{len(self.periods)} factors, one per block")


METHODS: dict[str, Method] = {
    "MLP": Method(),
    "CMS, sum": Method((1, 8, 64)),
    "CMS, mean": Method((1, 8, 64), reduce="mean"),
    "CMS nested, reset 64": Method((1, 8, 64), reduce="mean", reset=64),
    "lr split (1, 1/8, 1/64)": Method(lr_split=(1, 1 / 8, 1 / 64)),
    "only block 0 learns": Method(lr_split=(1, 0, 0)),
    "EWC 30": Method(ewc=30.0),
    "replay 100": Method(replay=100),
}


def named(name: str) -> Method:
    """A method of `METHODS`."""
    need(name in METHODS, "name", repr(name), f"one of {', '.join(METHODS)}")
    return METHODS[name]


class Run(NamedTuple):
    """Accuracy matrices (lr, seed, task, task)."""

    r: Tensor


@dataclass(frozen=True)
class Score:
    """A tuned method: learning rate chosen on other seeds, then the field's numbers per seed."""

    lr: float
    r: Tensor  # (seed, task, task)
    at_edge: bool  # the chosen learning rate is the smallest or the largest tried: widen the grid before believing it

    @property
    def average(self) -> Tensor:
        return average_accuracy(self.r)

    @property
    def learned(self) -> Tensor:
        return learning_accuracy(self.r)

    @property
    def forgotten(self) -> Tensor:
        return forgetting(self.r)

    def row(self) -> str:
        a = self.average
        return (
            f"{a.mean():.3f} +- {a.std(correction=0):.3f} | {self.learned.mean():.3f} | "
            f"{self.forgotten.mean():.3f} | lr {self.lr:g}{' (edge of the grid)' if self.at_edge else ''}"
        )


# ---------------------------------------------------------------------- one learner
@dataclass(frozen=True)
class ReplicaSGD:
    """An inner optimizer (see `nlbook.cms.inner`): SGD at a rate of its own in each replica, rate (replica, 1, 1).

    most: entries of a gradient are cut to +-most, so that a rate at the edge of the grid still ends in numbers. A state
    that holds `stiffness` and `anchor` pulls the weight back to the anchor (elastic weight consolidation).
    """

    rate: Tensor
    most: float

    def init(self, w: Tensor) -> dict[str, Tensor]:
        return {}

    def step(self, w: Tensor, g: Tensor, state: dict[str, Tensor], lr: Tensor | float) -> tuple[Tensor, dict]:
        g = g.nan_to_num(0, 0, 0).clamp(-self.most, self.most)
        if state:
            g = g + state["stiffness"] * (w - state["anchor"])
        return w - lr * self.rate * g, state


def first_weights(seed: int, blocks: int) -> list[tuple[Tensor, Tensor]]:
    """(up, down) of each block before the first step."""

    def draw(rows: int, columns: int, gain: float, offset: int) -> Tensor:
        return torch.randn(columns, rows, generator=generator(7 * seed + offset)).mT * gain / math.sqrt(columns)

    return [(draw(HIDDEN, DIM, 1.4, i), draw(DIM, HIDDEN, 0.3, i + 3)) for i in range(blocks)]


class Learner:
    """A CMS and a linear head in `len(seeds)` replicas; `tokens` is the number of examples of a step."""

    def __init__(self, method: Method, seeds: Sequence[int], rate: Tensor, tokens: int) -> None:
        blocks = len(method.periods)
        self.method, self.rate, self.steps = method, rate, 0
        self.share = 1 / tokens if method.reduce == "sum" else 1.0  # a step counts as the mean of its examples
        self.inner = ReplicaSGD(rate, 5.0 * (max(method.periods) if method.reduce == "sum" else 1))
        self.cms = CMS(
            DIM,
            HIDDEN,
            [tokens * c for c in method.periods],
            optimizer=self.inner,
            lr=list(method.lr_split or (1,) * blocks),
            reduce=method.reduce,
            mlp=MLP("relu", norm=False),
        ).to(rate.dtype)
        self.state = self.cms.initial_state(len(seeds))
        first = [first_weights(s, blocks) for s in seeds]
        for i, level in enumerate(self.state.levels):
            up, down = (torch.stack([f[i][j] for f in first]).to(rate) for j in (0, 1))
            level.weights = {"up": up, "down": down}
        self.start = self.state.levels[0].weights
        self.head = {"head": torch.zeros(len(seeds), DIM, CLASSES), "bias": torch.zeros(len(seeds), 1, CLASSES)}
        self.head = {n: w.to(rate) for n, w in self.head.items()}
        self.pull: dict[str, dict[str, Tensor]] = {n: {} for n in self.head}
        self.fisher = {n: torch.zeros_like(w) for n, w in self.weights.items()}

    @property
    def weights(self) -> Weights:
        return {f"{n}{i}": w for i, s in enumerate(self.state.levels) for n, w in s.weights.items()} | self.head

    def logits(self, x: Tensor, p: Weights) -> Tensor:
        """x (replica, n, 64) -> (replica, n, 10) at the weights p."""
        levels = [LevelState({n: p[f"{n}{i}"] for n in ("up", "down")}) for i in range(len(self.state.levels))]
        return self.cms(x, CMSState(levels))[0] @ p["head"] + p["bias"]

    @torch.no_grad()
    def tested(self, x: Tensor) -> Tensor:
        return self.logits(x, self.weights)

    @torch.no_grad()
    def step(self, x: Tensor, y: Tensor) -> None:
        """Learn from x (replica, tokens, 64), labels y (replica, tokens): eq. 71 by the CMS, the head beside it."""
        self.steps += 1
        head, bias = self.head.values()

        def loss(h: Tensor, label: Tensor) -> Tensor:
            return F.cross_entropy((h @ head + bias).mT, label, reduction="none") * self.share

        h, self.state = self.cms(x, self.state, y, loss=loss)
        error = (torch.softmax(h @ head + bias, -1) - F.one_hot(y, CLASSES)) / y.shape[1]
        for n, g in (("head", h.mT @ error), ("bias", error.sum(1, keepdim=True))):
            self.head[n], _ = self.inner.step(self.head[n], g, self.pull[n], 1.0)
        if self.method.reset and self.steps % self.method.reset == 0:
            fast = self.state.levels[0]
            self.start = {n: w + self.method.meta_lr * (fast.weights[n] - w) for n, w in self.start.items()}
            fast.weights = self.start

    def consolidate(self, xs: list[Tensor], index: Tensor, draws: list[torch.Generator], samples: int = 40) -> None:
        """EWC at the end of a task: add the Fisher diagonal (labels drawn from the model), move the anchor."""
        p = {n: w.detach().requires_grad_() for n, w in self.weights.items()}
        for _ in range(samples):
            pick = [torch.randint(0, len(x), (1,), generator=g) for x, g in zip(xs, draws)]
            x = torch.stack([x[i] for x, i in zip(xs, pick)]).to(self.rate)[index]
            logits = self.logits(x, p)[:, 0]
            coin = torch.stack([torch.rand(1, generator=g) for g in draws])[index]
            y = (logits.detach().softmax(-1).cumsum(-1) < coin).sum(-1).clamp(max=CLASSES - 1)
            loss = F.cross_entropy(logits, y, reduction="sum")
            for n, g in zip(p, torch.autograd.grad(loss, list(p.values()))):
                self.fisher[n] += g.square() / samples
        most = 0.5 / float(self.rate.max())
        pull = {
            n: {"stiffness": (self.method.ewc * f).clamp(max=most), "anchor": p[n].detach()}
            for n, f in self.fisher.items()
        }
        self.pull = {n: pull[n] for n in self.head}
        for i, level in enumerate(self.state.levels):
            level.inner = {n: pull[f"{n}{i}"] for n in level.weights}


def _replay(buffer: list, most: int, x: Tensor, y: Tensor, seen: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix in as many stored examples as new ones, then put the new ones into the reservoir."""
    old = (x, y)
    if len(buffer) >= len(x):
        pick = torch.randint(0, len(buffer), (len(x),), generator=g).tolist()
        old = (torch.stack([buffer[i][0] for i in pick]), torch.stack([buffer[i][1] for i in pick]))
    for i in range(len(x)):
        if len(buffer) < most:
            buffer.append((x[i], y[i]))
        else:
            at = int(torch.randint(0, seen + i + 1, (1,), generator=g))
            if at < most:
                buffer[at] = (x[i], y[i])
    return torch.cat([x, old[0]]), torch.cat([y, old[1]])


def _stack_tests(tasks: Sequence[Task], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Test sets of all seeds as one tensor, padded; the third result marks real rows."""
    longest = max(len(t.y_test) for t in tasks)
    x, y = torch.zeros(len(tasks), longest, DIM, dtype=dtype), torch.zeros(len(tasks), longest, dtype=torch.long)
    real = torch.zeros(len(tasks), longest, dtype=torch.bool)
    for i, t in enumerate(tasks):
        n = len(t.y_test)
        x[i, :n], y[i, :n], real[i, :n] = t.x_test.to(dtype), t.y_test, True
    return x, y, real


# ---------------------------------------------------------------------- runs
def train(
    method: Method,
    kind: str | Callable[[int], list[Task]],
    lrs: Sequence[float],
    seeds: Sequence[int],
    *,
    tasks: int = 5,
    steps: int = 350,
    batch: int = 8,
    dtype: torch.dtype = torch.float32,
) -> Run:
    """Run one method on a stream for all seeds and learning rates at once.

    kind: a kind of `stream`, or a function seed -> tasks.
    """
    need(len(lrs) > 0 and all(lr >= 0 for lr in lrs), "lrs", lrs, "learning rates >= 0")
    need(len(seeds) > 0, "seeds", seeds, "at least one seed")
    data = [kind(s) if callable(kind) else stream(kind, s, tasks) for s in seeds]
    tasks = len(data[0])
    index = torch.arange(len(seeds)).repeat(len(lrs))  # the data of each replica
    rate = torch.tensor(lrs, dtype=dtype).repeat_interleave(len(seeds))[:, None, None]
    learner = Learner(method, [s for _ in lrs for s in seeds], rate, 2 * batch if method.replay else batch)
    draws = [generator(50 + s) for s in seeds]
    buffers: list[list] = [[] for _ in seeds]
    result = torch.zeros(len(index), tasks, tasks)
    tests = [_stack_tests([d[t] for d in data], dtype) for t in range(tasks)]

    def accuracy() -> Tensor:
        out = []
        for x, y, real in tests:  # padded rows do not count
            hit = (learner.tested(x[index]).argmax(-1) == y[index]) & real[index]
            out.append(hit.sum(1) / real[index].sum(1))
        return torch.stack(out, 1)

    for t in range(tasks):
        now = [(d[t].x_train.to(dtype), d[t].y_train) for d in data]
        for _ in range(steps):
            parts = []
            for (x, y), buffer, g in zip(now, buffers, draws):
                pick = torch.randint(0, len(x), (batch,), generator=g)
                x, y = x[pick], y[pick]
                parts.append(
                    _replay(buffer, method.replay, x, y, learner.steps * batch, g) if method.replay else (x, y)
                )
            learner.step(*(torch.stack(p)[index] for p in zip(*parts)))
        if method.ewc:
            learner.consolidate([x for x, _ in now], index, draws)
        result[:, t] = accuracy()
    return Run(result.view(len(lrs), len(seeds), tasks, tasks))


def tune(
    method: Method,
    kind: str,
    *,
    lrs: Sequence[float],
    tuning_seeds: Sequence[int] = (100, 101),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    **kw: Any,
) -> Score:
    """Choose the learning rate by average accuracy on `tuning_seeds`, report on `seeds`."""
    tried = average_accuracy(train(method, kind, lrs, tuning_seeds, **kw).r).mean(1)
    best = int(tried.argmax())
    run = train(method, kind, [lrs[best]], seeds, **kw)
    return Score(lrs[best], run.r[0], best in (0, len(lrs) - 1) and len(lrs) > 1)
