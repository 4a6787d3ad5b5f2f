"""Trials of the ledger: one model, one task, one seed; what comes back is a dict of numbers.

    numbers = language(method="Hope", lr=0.005, seed=3, steps=200)

Every method is the same language model (`nlbook.hope`) with the same convolution, gate and norms, and, but for Hope's
ablations, the same number of parameters.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from nlbook.errors import need
from nlbook.hope import Hope, HopeConfig
from nlbook.tasks.language import TimescaleLanguage
from nlbook.tasks.sequences import Sequences
from nlbook.train import train

SIZE: dict[str, Any] = {"dim": 32, "layers": 1, "hidden": 32, "periods": (16, 64)}
"""Size of every model of a trial; about 20 thousand parameters."""

MIXER = {"Transformer": "attention", "linear attention": "linear", "delta rule": "delta", "gated delta": "gated_delta",
         "Titans": "titans"}


def config(method: str, vocabulary: int, seed: int, **changes: Any) -> HopeConfig:
    """The settings of a method. Baselines have one static MLP, as wide as makes them as large as Hope.

    changes: fields of HopeConfig, the same for all methods.
    """
    hope = HopeConfig(vocabulary=vocabulary, seed=seed, **{**SIZE, **changes})
    if method == "Hope":
        return hope
    if method == "Hope-Attention":  # its levels are widened to Hope's size
        small = Hope(replace(hope, mixer="attention")).parameter_count()
        more = Hope(hope).parameter_count() - small
        return replace(hope, mixer="attention", hidden=hope.hidden + round(more / (2 * hope.dim * hope.layers
                                                                                  * len(hope.periods))))
    need(method in MIXER, "method", repr(method), f"Hope, Hope-Attention or one of {', '.join(MIXER)}")
    return hope.baseline(MIXER[method])


def fit(c: HopeConfig, batches: Callable[[int], Any], *, steps: int, lr: float, seed: int) -> Hope:
    """A model of these settings, trained; deterministic in its arguments."""
    model = Hope(c)
    train(model, batches, steps, lr=lr, seed=seed)
    return model


def held_out(seed: int) -> int:
    """The seed of test data, far from every seed of a training batch."""
    return 10**9 + seed


def batch_seed(seed: int, step: int) -> int:
    return 10**5 * seed + step


@torch.no_grad()
def logits_of(model: Hope, data: Sequences, batch: int = 64) -> torch.Tensor:
    """Logits for all of `data`, a part at a time."""
    return torch.cat([model(t)[0] for t in data.tokens.split(batch)])


def language(*, method: str, lr: float, seed: int, steps: int, batch: int = 16, pairs: int = 48,
             documents: int = 128, **changes: Any) -> dict[str, float]:
    """Learn TimescaleLanguage; nats above the entropy rate (all, static, document, fast) on new documents, and nats per
    value and the optimum's by quarter of the context ("nats 1" ... "nats 4", "optimum 1" ...).
    """
    task = TimescaleLanguage()
    model = fit(config(method, task.vocabulary, seed, **changes),
                lambda step: task.sample(batch, pairs, batch_seed(seed, step)), steps=steps, lr=lr, seed=seed)
    data = task.sample(documents, pairs, held_out(seed))
    logits = logits_of(model, data)
    out = {f"excess {k}" if k != "all" else "excess": v for k, v in data.excess(logits).items()}
    paid = data.nats(logits).double()
    for i in range(4):
        part = slice(i * 2 * pairs // 4, (i + 1) * 2 * pairs // 4)
        graded = data.graded[:, part]
        out[f"nats {i + 1}"] = float(paid[:, part][graded].mean())
        out[f"optimum {i + 1}"] = float(data.optimum[:, part][graded].mean())
    return out | {"parameters": float(model.parameter_count())}
