"""Trials of the ledger about optimizers: one run, its seed and settings in, a dict of numbers out (Fig. 4, 11, 12)."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbook.book.chapters.optimizers.race import MODELS, OPTIMIZERS, run
from nlbook.book.chapters.optimizers.valleys import START, VALLEYS, sweep
from nlbook.book.data.digits import load_digits
from nlbook.errors import generator, need

WORST = 20.0  # nats: a run that diverged counts as this


def valleys(*, rule: str, seed: int, length: int = 2500) -> dict[str, float]:
    """The 27 valleys of eq. 53 with 13 rates each, the brake tied to the rate, against a heavy ball with the same 13.

    seed 0 starts where Fig. 4 does; others within 1 of it. Returns "arrives" and "heavy ball arrives" (of 27),
    "faster" (of 27) and, where both arrive somewhere, "ratio": the median ratio of steps.
    """
    g = generator(seed)
    r, theta = (float(x + (2 * torch.rand((), generator=g) - 1) * (seed > 0)) for x in START)
    found = sweep(("heavy ball", rule) if rule != "heavy ball" else ("heavy ball",), length=length, start=(r, theta))
    out = {
        "arrives": float(found.arrives(rule)),
        "heavy ball arrives": float(found.arrives("heavy ball")),
        "faster": float(found.faster(rule)),
        "valleys": float(len(VALLEYS)),
    }
    ratio = found.ratio(rule)
    return out if math.isnan(ratio) else out | {"ratio": ratio}


def digits(
    *, optimizer: str, model: str, lr: float, seed: int, steps: int, validation: bool = False, width: int = 32
) -> dict[str, float]:
    """Handwritten digits: "train" (mean loss of the last tenth of the batches), "held" (loss on the test images, or on
    the validation images), "accuracy"; a run that diverges counts as WORST.
    """
    losses, held, right, _ = run(optimizer, lr, seed=seed, steps=steps, width=width, validation=validation, model=model)
    train = float(losses[-max(1, steps // 10) :].mean())
    return {
        "train": min(train, WORST) if math.isfinite(train) else WORST,
        "held": min(held, WORST) if math.isfinite(held) else WORST,
        "accuracy": right,
    }


def step_times(*, seed: int, width: int = 256, rounds: int = 40, batch: int = 64) -> dict[str, float]:
    """CPU time of whole training steps (forward, backward, update), in turn for each optimizer, as ratios of medians.

    "M3 / Muon" and "M3 / AdaMuon" (M3 without its slow memory is Muon with AdaMuon's denominator), and "Muon / AdamW".
    M3's slow memory is written once in ten steps, so its times are averaged over tens before the median is taken.
    """
    names = {"AdamW": 1e-3, "Muon": 1e-3, "M3 fast only": 1e-3, "M3 update": 1e-3}
    need(rounds >= 20, "rounds", rounds, "an int >= 20")
    data, g = load_digits(seed=0), generator(seed)
    nets = {n: MODELS["mlp"](width, seed) for n in names}
    optimizers = {n: OPTIMIZERS[n](nets[n], lr) for n, lr in names.items()}
    took: dict[str, list[float]] = {n: [] for n in names}
    for _ in range(rounds):
        i = torch.randint(len(data.x_train), (batch,), generator=g)
        x, y = 2 * data.x_train[i] - 1, data.y_train[i]
        for n in names:
            took[n].append(_step(nets[n], optimizers[n], x, y))
    typical = {
        n: statistics.median(statistics.fmean(t[k : k + 10]) for k in range(10, rounds - 9, 10))
        for n, t in took.items()
    }
    return {
        "M3 / Muon": typical["M3 update"] / typical["Muon"],
        "M3 / AdaMuon": typical["M3 update"] / typical["M3 fast only"],
        "Muon / AdamW": typical["Muon"] / typical["AdamW"],
        "milliseconds of M3": 1e3 * typical["M3 update"],
    }


def _step(net: Any, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    began = time.process_time()
    optimizer.zero_grad()
    F.cross_entropy(net(x), y).backward()
    optimizer.step()
    return time.process_time() - began
