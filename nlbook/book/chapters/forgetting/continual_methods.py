"""Learners for the fair ablation of chapter 08: a CMS against one MLP of the same size, and what else could explain it.

All runs of one method, every seed at every learning rate, are one batched computation: parameters carry a leading
replica axis, so tuning a method costs little more than running it. The network is three residual MLP blocks, chained
(eq. 70) or in parallel (eq. 74), and a linear head. A token is one training step's batch; periods count steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.book.data.continual import Task, average_accuracy, backward_transfer, forgetting, learning_accuracy, stream
from nlbook.errors import NLBookError, generator, need

DIM, CLASSES = 64, 10
LEARNING_RATES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Method:
    """One learner. The default is one MLP: every block is updated at every step.

    Args:
        periods: steps between two updates of each block (eq. 71); `head_period` of the linear head.
        reduce: what an update takes of its C gradients: "sum" (as printed), "mean", or "sqrt" (sum / sqrt(C)).
        lr_split: factors on the blocks' learning rates (the control that has the step sizes of a CMS, but not its
            periods).
        headwise: blocks in parallel (eq. 74) instead of chained (eq. 70).
        frozen: numbers of blocks that never move.
        reset: steps after which the `reset_blocks` restart from their slow start state (nested CMS, eq. 72, Reptile
            with rate `meta_lr`); 0 is never.
        ema: tested weights are an exponential average with this retention; 0 is off.
        ewc: strength of elastic weight consolidation (it is told when a task ends); 0 is off.
        replay: examples kept by reservoir sampling and mixed in one to one; 0 is off.
        adam: Adam in place of SGD, at each (late) update.
    """

    periods: tuple[int, ...] = (1, 1, 1)
    head_period: int = 1
    reduce: str = "sum"
    lr_split: tuple[float, ...] | None = None
    headwise: bool = False
    frozen: tuple[int, ...] = ()
    reset: int = 0
    reset_blocks: tuple[int, ...] = (0,)
    reset_head: bool = False
    meta_lr: float = 0.1
    ema: float = 0.0
    ewc: float = 0.0
    replay: int = 0
    adam: bool = False

    def __post_init__(self) -> None:
        good = len(self.periods) >= 1 and all(isinstance(c, int) and c >= 1 for c in self.periods)
        need(good, "periods", self.periods, "ints >= 1, one per block")
        need(self.reduce in ("sum", "mean", "sqrt"), "reduce", repr(self.reduce), "'sum', 'mean' or 'sqrt'")
        need(
            self.lr_split is None or len(self.lr_split) == len(self.periods),
            "lr_split",
            self.lr_split,
            f"{len(self.periods)} factors, one per block",
        )


METHODS: dict[str, Method] = {
    "MLP": Method(),
    "CMS, sum": Method((1, 8, 64)),
    "CMS, mean": Method((1, 8, 64), reduce="mean"),
    "CMS, sqrt": Method((1, 8, 64), reduce="sqrt"),
    "CMS, mean, (1, 32, 512)": Method((1, 32, 512), reduce="mean"),
    "CMS, mean, slow first": Method((64, 8, 1), reduce="mean"),
    "CMS, mean, slow head": Method((1, 8, 64), reduce="mean", head_period=64),
    "CMS head-wise, sum": Method((1, 8, 64), headwise=True),
    "CMS head-wise, mean": Method((1, 8, 64), reduce="mean", headwise=True),
    "CMS nested, reset 64": Method((1, 8, 64), reduce="mean", reset=64),
    "lr split (1, 1/8, 1/64)": Method(lr_split=(1, 1 / 8, 1 / 64)),
    "only block 0 learns": Method(frozen=(1, 2)),
    "only the head learns": Method(frozen=(0, 1, 2)),
    "MLP head-wise": Method(headwise=True),
    "all periods 64, sum": Method((64, 64, 64), head_period=64),
    "EMA 0.99": Method(ema=0.99),
    "EWC 3": Method(ewc=3.0),
    "EWC 30": Method(ewc=30.0),
    "EWC 300": Method(ewc=300.0),
    "replay 20": Method(replay=20),
    "replay 100": Method(replay=100),
}


@dataclass(frozen=True)
class Run:
    """Accuracy matrices (lr, seed, task, task), and, where asked for, the accuracy on every task along the way."""

    r: Tensor
    lrs: tuple[float, ...]
    curve: Tensor | None = None  # (points, lr, seed, task)


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

    @property
    def transfer(self) -> Tensor:
        return backward_transfer(self.r)

    def row(self) -> str:
        a = self.average
        return (
            f"{a.mean():.3f} +- {a.std(correction=0):.3f} | {self.learned.mean():.3f} | "
            f"{self.forgotten.mean():.3f} | lr {self.lr:g}{' (edge of the grid)' if self.at_edge else ''}"
        )


class Net:
    """Residual blocks and a head for a batch of replicas: parameters (replica, in, out)."""

    def __init__(self, seeds: Sequence[int], blocks: int, hidden: int, headwise: bool, dtype: torch.dtype) -> None:
        self.blocks, self.headwise = blocks, headwise
        params: dict[str, Tensor] = {}
        for i in range(blocks):
            for name, shape, gain, offset in (
                (f"up{i}", (DIM, hidden), 1.4, i),
                (f"down{i}", (hidden, DIM), 0.3, i + 3),
            ):
                draw = [torch.randn(*shape, generator=generator(7 * s + offset)) for s in seeds]
                params[name] = torch.stack(draw) * gain / math.sqrt(shape[0])
        params["head"] = torch.zeros(len(seeds), DIM, CLASSES)
        params["bias"] = torch.zeros(len(seeds), 1, CLASSES)
        self.params = {k: v.to(dtype).requires_grad_() for k, v in params.items()}

    def __call__(self, x: Tensor, p: dict[str, Tensor] | None = None) -> Tensor:
        """x (replica, n, 64) -> logits (replica, n, 10)."""
        p = p or self.params
        h = x
        for i in range(self.blocks):
            h = h + torch.relu((x if self.headwise else h) @ p[f"up{i}"]) @ p[f"down{i}"]
        return h @ p["head"] + p["bias"]


def train(
    method: Method,
    kind: str | Callable[[int], list[Task]],
    lrs: Sequence[float],
    seeds: Sequence[int],
    *,
    tasks: int = 5,
    steps: int = 350,
    batch: int = 8,
    hidden: int = 64,
    cycles: int = 1,
    curve_every: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Run:
    """Run one method on a stream for all seeds and learning rates at once.

    kind: a kind of `stream`, or a function seed -> tasks. cycles: pass through the tasks that often (`steps` each
        time).
    curve_every: also record the accuracy on all tasks every so many steps.
    """
    need(len(lrs) > 0 and all(lr >= 0 for lr in lrs), "lrs", lrs, "learning rates >= 0")
    need(len(seeds) > 0, "seeds", seeds, "at least one seed")
    data = {s: kind(s) if callable(kind) else stream(kind, s, tasks) for s in seeds}
    tasks = len(data[seeds[0]])
    who = [s for _ in lrs for s in seeds]
    index = torch.tensor([i for _ in lrs for i in range(len(seeds))])
    rate = torch.tensor([lr for lr in lrs for _ in seeds], dtype=dtype)[:, None, None]
    net = Net(who, len(method.periods), hidden, method.headwise, dtype)
    learner = _Learner(method, net, rate)
    draws = {s: generator(50 + s) for s in seeds}
    buffers: dict[int, list[tuple[Tensor, Tensor]]] = {s: [] for s in seeds}
    result, curve, seen = torch.zeros(len(who), tasks, tasks), [], 0
    tests = [_stack_tests([data[s][j] for s in seeds], dtype) for j in range(tasks)]

    def accuracy() -> Tensor:
        with torch.no_grad():
            out = []
            for x, y, real in tests:  # padded rows do not count
                hit = (net(x[index], learner.tested).argmax(-1) == y[index]) & real[index]
                out.append(hit.sum(1) / real[index].sum(1))
            return torch.stack(out, 1)

    for turn in range(tasks * cycles):
        t = turn % tasks
        for _ in range(steps):
            parts = []
            for s in seeds:
                x, y = data[s][t].x_train, data[s][t].y_train
                pick = torch.randint(0, len(x), (batch,), generator=draws[s])
                x, y = x[pick], y[pick]
                if method.replay:
                    x, y = _replay(buffers[s], method.replay, x, y, seen * batch, draws[s])
                parts.append((x.to(dtype), y))
            seen += 1
            xs, ys = torch.stack([p[0] for p in parts])[index], torch.stack([p[1] for p in parts])[index]
            loss = F.cross_entropy(net(xs).flatten(0, 1), ys.flatten(), reduction="none").view(ys.shape).mean(1).sum()
            learner.step(dict(zip(net.params, torch.autograd.grad(loss, list(net.params.values())))))
            if curve_every and seen % curve_every == 0:
                curve.append(accuracy())
        if method.ewc:
            learner.consolidate([data[s][t].x_train for s in seeds], index, [draws[s] for s in seeds])
        result[:, t] = accuracy()  # with several cycles the last pass counts
    shape = (len(lrs), len(seeds), tasks, tasks)
    line = torch.stack(curve).view(-1, *shape[:3]) if curve else None
    return Run(result.view(shape), tuple(lrs), line)


def tune(
    method: Method,
    kind: str,
    *,
    lrs: Sequence[float] = LEARNING_RATES,
    tuning_seeds: Sequence[int] = (100, 101),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    **kw: Any,
) -> Score:
    """Choose the learning rate by average accuracy on `tuning_seeds`, report on `seeds`."""
    tried = average_accuracy(train(method, kind, lrs, tuning_seeds, **kw).r).mean(1)
    best = int(tried.argmax())
    run = train(method, kind, [lrs[best]], seeds, **kw)
    return Score(lrs[best], run.r[0], best in (0, len(lrs) - 1) and len(lrs) > 1)


def recoveries(
    kind: str,
    method: Method,
    *,
    lr: float = 0.1,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    steps: int = 256,
    every: int = 8,
) -> dict[str, Any]:
    """The "loop" of section 7.1: while task B is trained and A never shown, does the accuracy on A ever come back?

    Returns a_end (after A), curve (accuracy on A during B, mean over seeds), final, lowest, jump (largest rise from one
    point to the next) and b_end.
    """
    run = train(method, kind, [lr], seeds, tasks=2, steps=steps, curve_every=every)
    assert run.curve is not None
    n = steps // every
    a, b = run.curve[:, 0, :, 0].mean(1), run.curve[:, 0, :, 1].mean(1)
    return {
        "a_end": float(a[n - 1]),
        "curve": a[n - 1 :],
        "final": float(a[-1]),
        "lowest": float(a[n:].min()),
        "jump": float(a[n - 1 :].diff().max()),
        "b_end": float(b[-1]),
    }


def period_effect(
    periods: Sequence[int], lr: float, *, adam: bool = False, steps: int = 64, seed: int = 0
) -> dict[int, float]:
    """What does updating every C steps, with the summed gradient, change in 64 steps of training?

    |theta_C - theta_1| / |theta_1 - theta_0| per C. Falls linearly with lr for SGD (the period is a second-order
    effect), not for Adam, whose normalised step is taken C times less often.
    """

    def end(c: int) -> Tensor:
        g = generator(seed)
        w = [(torch.randn(16, 16, generator=g, dtype=torch.float64) / 4).requires_grad_() for _ in range(2)]
        first = [p.detach().clone() for p in w]
        opt = torch.optim.Adam(w, lr=lr, betas=(0.9, 0.99), eps=1e-12) if adam else torch.optim.SGD(w, lr=lr)
        for t in range(steps):
            x = torch.randn(8, 16, generator=g, dtype=torch.float64)
            loss = (torch.tanh(x @ w[0]) @ w[1] - torch.sin(3 * x)).square().mean()
            (loss / c if adam else loss).backward()
            if (t + 1) % c == 0:
                opt.step()
                opt.zero_grad()
        return torch.cat([(p.detach() - q).flatten() for p, q in zip(w, first)])

    base = end(1)
    return {c: float((end(c) - base).norm() / base.norm()) for c in periods}


# ---------------------------------------------------------------------- one learner
class _Learner:
    """Applies a method's updates to a net's replicas."""

    def __init__(self, method: Method, net: Net, rate: Tensor) -> None:
        self.m, self.net, self.rate, self.count = method, net, rate, 0
        p = net.params
        self.period = {n: method.head_period if (b := _block(n)) is None else method.periods[b] for n in p}
        power = {"sum": 0.0, "mean": -1.0, "sqrt": -0.5}[method.reduce]
        self.scale = {n: self.period[n] ** power for n in p}
        if method.lr_split is not None:
            self.scale = {n: 1.0 if (b := _block(n)) is None else method.lr_split[b] for n in p}
        self.frozen = {n for n in p if _block(n) in method.frozen}
        self.resets = [n for n in p if (method.reset_head if _block(n) is None else _block(n) in method.reset_blocks)]
        zeros = {n: torch.zeros_like(v) for n, v in p.items()}
        self.sum = {n: v.clone() for n, v in zeros.items()}
        self.start = {n: v.detach().clone() for n, v in p.items()}
        self.mean = {n: v.detach().clone() for n, v in p.items()} if method.ema else None
        self.fisher = {n: v.clone() for n, v in zeros.items()} if method.ewc else None
        self.anchor = {n: v.detach().clone() for n, v in p.items()}
        self.tasks_done = 0
        self.adam = {n: (v.clone(), v.clone(), 0) for n, v in zeros.items()} if method.adam else None

    @property
    def tested(self) -> dict[str, Tensor]:
        return self.mean or self.net.params

    @torch.no_grad()
    def step(self, grads: dict[str, Tensor]) -> None:
        self.count += 1
        for n, w in self.net.params.items():
            g = grads[n].nan_to_num(0, 0, 0).clamp(-5, 5)  # a diverging learning rate must not spoil its neighbours
            if self.fisher is not None and self.tasks_done:
                stiff = (self.m.ewc * self.fisher[n]).clamp(max=0.5 / float(self.rate.max()))
                g = g + stiff * (w - self.anchor[n])
            self.sum[n] += g
            if self.count % self.period[n] == 0:
                if n not in self.frozen:
                    w -= self.rate * self._update(n)
                self.sum[n].zero_()
            if self.mean is not None:
                self.mean[n].lerp_(w, 1 - self.m.ema)
        if self.m.reset and self.count % self.m.reset == 0:
            for n in self.resets:
                w = self.net.params[n]
                self.start[n] += self.m.meta_lr * (w - self.start[n])
                w.copy_(self.start[n])

    def _update(self, n: str) -> Tensor:
        if self.adam is None:
            return self.scale[n] * self.sum[n]
        g = self.sum[n] / self.period[n]
        m, v, k = self.adam[n]
        m, v, k = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g, k + 1
        self.adam[n] = (m, v, k)
        split = self.scale[n] if self.m.lr_split is not None else 1.0
        return split * (m / (1 - 0.9**k)) / ((v / (1 - 0.99**k)).sqrt() + 1e-8)

    def consolidate(self, xs: list[Tensor], index: Tensor, draws: list[torch.Generator], samples: int = 40) -> None:
        """EWC at the end of a task: add the Fisher diagonal (labels drawn from the model), move the anchor."""
        assert self.fisher is not None
        p = self.net.params
        for _ in range(samples):
            pick = [torch.randint(0, len(x), (1,), generator=g) for x, g in zip(xs, draws)]
            x = torch.stack([x[i] for x, i in zip(xs, pick)]).to(self.rate.dtype)[index]
            logits = self.net(x)[:, 0].nan_to_num(0, 0, 0)
            coin = torch.stack([torch.rand(1, generator=g) for g in draws])[index]
            y = (logits.detach().softmax(-1).cumsum(-1) < coin).sum(-1).clamp(max=CLASSES - 1)
            loss = F.cross_entropy(logits, y, reduction="sum")
            for (n, _w), g in zip(p.items(), torch.autograd.grad(loss, list(p.values()))):
                self.fisher[n] += g.nan_to_num(0, 0, 0).clamp(-30, 30).square() / samples
        self.anchor = {n: v.detach().clone() for n, v in p.items()}
        self.tasks_done += 1


def _block(name: str) -> int | None:
    """The block of a parameter; None for the head."""
    return None if name in ("head", "bias") else int(name.lstrip("updown"))


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


def named(name: str, **changes: Any) -> Method:
    """A method of `METHODS`, with changes: named("MLP", adam=True)."""
    if name not in METHODS:
        raise NLBookError(f"name: got {name!r}, expected one of {', '.join(METHODS)}")
    return replace(METHODS[name], **changes)
