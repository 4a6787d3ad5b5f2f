"""A layer trained on real digits with every write recorded, and how far frozen surprises go astray (chapter 02)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nlbook.book.data.digits import load_digits
from nlbook.errors import generator, need
from nlbook.memory.dual import TrainingTrace, cross_entropy, train_linear


@dataclass(frozen=True)
class WrittenLayer:
    """A linear classifier of digits after one pass of SGD, as the list of what was written into it.

    trace: keys (T, 65), surprises (T, 10). labels (T): the class shown at each step. x_test (n, 65), y_test (n).
    """

    trace: TrainingTrace
    labels: Tensor
    x_test: Tensor
    y_test: Tensor

    def accuracy(self, t: int | None = None) -> float:
        """Share of test digits named rightly by the weight after t steps."""
        return float(((self.x_test @ self.trace.weight(t).mT).argmax(-1) == self.y_test).double().mean())


def write_digits(
    steps: int = 400, lr: float = 0.05, seed: int = 0, *, frozen_surprises: bool = False, centred: bool = False
) -> WrittenLayer:
    """One SGD step a digit, cross-entropy, from a small random weight; the last input is a constant 1 (the bias).

    float64. frozen_surprises=True takes every surprise at the untrained weight: the negative control. centred=True
    subtracts the mean training image, which takes away the direction that all digits share.
    """
    data = load_digits(seed=seed)
    if centred:
        mean = data.x_train.mean(0)
        data = data._replace(x_train=data.x_train - mean, x_test=data.x_test - mean)
    x, x_test = (torch.cat([z.double(), z.new_ones(len(z), 1).double()], 1) for z in (data.x_train, data.x_test))
    need(1 <= steps <= len(x), "steps", steps, f"an int from 1 to {len(x)}")
    W0 = 0.1 * torch.randn(10, x.shape[1], generator=generator(seed), dtype=torch.float64)
    labels = data.y_train[:steps]
    trace = train_linear(W0, x[:steps], cross_entropy(labels), lr, frozen_surprises=frozen_surprises)
    return WrittenLayer(trace, labels, x_test, data.y_test)


@dataclass(frozen=True)
class FrozenSum:
    """A sum of frozen surprises: written (10,) minus their sum in each class; answered (10,) how many test digits are
    named so; the share of right ones.
    """

    written: Tensor
    answered: Tensor
    accuracy: float


def frozen_sum(seed: int = 0, *, balanced: bool = False, random_start: bool = False) -> FrozenSum:
    """400 frozen writes, from zero or from the random start; balanced=True leaves out digits until all classes are equal."""
    layer = write_digits(400, seed=seed)
    keys, labels = layer.trace.keys, layer.labels
    count = torch.nn.functional.one_hot(labels, 10).cumsum(0)
    if balanced:
        kept = count.gather(1, labels[:, None])[:, 0] <= count[-1].min()
        keys, labels = keys[kept], labels[kept]
    W0 = layer.trace.start if random_start else torch.zeros_like(layer.trace.start)
    trace = train_linear(W0, keys, cross_entropy(labels), 0.05, frozen_surprises=True)
    said = (layer.x_test @ trace.weight().mT).argmax(-1)
    return FrozenSum(
        -trace.surprises.sum(0), torch.bincount(said, minlength=10), float((said == layer.y_test).double().mean())
    )


@dataclass(frozen=True)
class Divergence:
    """Relative distance of test scores from those of the trained weight, (seeds, checkpoints) for each rate."""

    checkpoints: tuple[int, ...]
    dual: dict[float, Tensor]
    frozen: dict[float, Tensor]


def divergence(
    rates: tuple[float, ...] = (0.002, 0.02, 0.2),
    checkpoints: tuple[int, ...] = (2, 5, 10, 30, 100, 300),
    seeds: int = 3,
    seed: int = 0,
) -> Divergence:
    """How far the dual form and the frozen surprises are from the trained weight, on the scores of all test digits.

    The trained weight comes from torch's autograd. The distance is |scores - trained| / |trained - start|.
    """
    runs = [(s, lr) for s in range(seed, seed + seeds) for lr in rates]
    live = [write_digits(checkpoints[-1], lr, s) for s, lr in runs]
    cold = [write_digits(checkpoints[-1], lr, s, frozen_surprises=True) for s, lr in runs]
    trained = train_with_autograd(live, checkpoints)  # a list over checkpoints of (runs, 10, 65)
    found = torch.zeros(2, len(runs), len(checkpoints), dtype=torch.float64)
    for r, (warm, frozen) in enumerate(zip(live, cold)):
        start = warm.x_test @ warm.trace.start.mT
        for c, t in enumerate(checkpoints):
            scores = warm.x_test @ trained[c][r].mT
            for kind, layer in enumerate((warm, frozen)):
                other = start + kernel_scores(layer.trace, layer.x_test, t)
                found[kind, r, c] = (other - scores).norm() / (scores - start).norm()
    by_rate = found.view(2, seeds, len(rates), len(checkpoints))
    dual, frozen_gaps = ({lr: by_rate[k, :, i] for i, lr in enumerate(rates)} for k in (0, 1))
    return Divergence(checkpoints, dual, frozen_gaps)


def kernel_scores(trace: TrainingTrace, q: Tensor, t: int) -> Tensor:
    """The dual form for many queries q (n, d): -sum over steps of lr <x_t, q> surprise_t, (n, d_out); no weight."""
    return -(q @ trace.keys[:t].mT * trace.lr[:t]) @ trace.surprises[:t]


def train_with_autograd(layers: list[WrittenLayer], checkpoints: tuple[int, ...]) -> list[Tensor]:
    """The same trainings with torch's autograd, side by side: (len(layers), 10, 65) after each checkpoint."""
    W = torch.stack([layer.trace.start for layer in layers])
    keys, rates = torch.stack([layer.trace.keys for layer in layers]), torch.stack([layer.trace.lr for layer in layers])
    labels, found = torch.stack([layer.labels for layer in layers]), []
    for t in range(checkpoints[-1]):
        W = W.detach().requires_grad_()
        scores = (W @ keys[:, t, :, None]).squeeze(-1)  # (runs, 10)
        loss = torch.nn.functional.cross_entropy(scores, labels[:, t], reduction="sum")
        W = W - rates[:, t, None, None] * torch.autograd.grad(loss, W)[0]  # each run at its own rate
        if t + 1 in checkpoints:
            found.append(W.detach())
    return found


def one_weight(rule: str, lr: float, *, x: float = 1.5, target: float = 1.0, steps: int = 40) -> list[float]:
    """The answer w x of a single weight, trained on one sample over and over with 1/2 (w x - target)^2, from w = 0.

    rule: "gd" the explicit step, or "dgd" delta gradient descent, eq. 57 with the rate that holds for any |x|:
    w (1 - a x^2) - a (w x - target) x with a = lr / (1 + lr x^2). Its fixed point is half the target.
    """
    need(rule in ("gd", "dgd"), "rule", repr(rule), "'gd' or 'dgd'")
    w, answers = 0.0, [0.0]
    for _ in range(steps):
        surprise = w * x - target
        a = lr / (1 + lr * x * x) if rule == "dgd" else lr
        w = (w * (1 - a * x * x) if rule == "dgd" else w) - a * surprise * x
        answers.append(w * x)
    return answers
