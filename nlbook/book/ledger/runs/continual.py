"""Trials of the ledger about continual learning: digits in a stream (section 7.1, Fig. 6), two languages (Fig. 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from nlbook.book.chapters.clocks.continual_methods import named
from nlbook.book.chapters.clocks.continual_methods import train as learn
from nlbook.book.data.continual import average_accuracy, forgetting, learning_accuracy
from nlbook.book.data.languages import TwoLanguages
from nlbook.errors import need
from nlbook.hope import Hope, HopeConfig
from nlbook.train import train


def accuracy_by_rate(*, method: str, kind: str, lrs: Sequence[float], seed: int, steps: int) -> dict[str, float]:
    """Average accuracy at the end of a stream at each of `lrs`: what a method's rate is chosen by. Keys are the rates,
    as f"{lr:g}".
    """
    got = average_accuracy(learn(named(method), kind, list(lrs), [seed], steps=steps).r)[:, 0]
    return {f"{lr:g}": float(a) for lr, a in zip(lrs, got, strict=True)}


def stream(*, method: str, kind: str, lr: float, seed: int, steps: int) -> dict[str, float]:
    """One method on one stream of five tasks of digits, in percent: "average" accuracy over all tasks at the end,
    "learned" right after each task, "forgotten".
    """
    r = learn(named(method), kind, [lr], [seed], steps=steps).r[0, 0]
    return {
        "average": 100 * float(average_accuracy(r)),
        "learned": 100 * float(learning_accuracy(r)),
        "forgotten": 100 * float(forgetting(r)),
    }


# ---- two languages ---------------------------------------------------------------------------------------------------
LEVELS = {"Hope-1": (24,), "Hope-2": (24, 48), "Hope-3": (24, 48, 96)}
"""Periods in tokens; a lesson of 8 words, twice, has 48."""


def reader(method: str, vocabulary: int, seed: int, dim: int = 32, hidden: int = 32) -> HopeConfig:
    """Transformer blocks whose MLP is static ("ICL") or is 1, 2 or 3 levels that are written in context ("Hope-1" ...).

    "static-3" is the control of Hope-3: three MLPs in a chain that are not written. All are as large as Hope-3, to
    within one unit of the MLPs; the width of the MLPs makes up the difference.
    """
    whole = HopeConfig.first_edition(
        vocabulary=vocabulary, dim=dim, layers=2, mixer="attention", hidden=hidden, seed=seed, periods=LEVELS["Hope-3"]
    )
    if method == "ICL":
        return whole.baseline("attention")
    need(method in LEVELS or method == "static-3", "method", repr(method), f"ICL, static-3, {', '.join(LEVELS)}")
    if method == "static-3":
        return replace(whole, mlp="static").as_large_as(whole)
    periods = LEVELS[method]
    return replace(whole, periods=periods, ends=(1,) * (1 + len(periods))).as_large_as(whole)


def two_languages(
    *, method: str, lr: float, seed: int, steps: int, batch: int = 8, readers: int = 96, **size: Any
) -> dict[str, float]:
    """Meta-train a reader on invented languages, one alone or two in turn; grade it on new ones, in percent:

    "single": a language alone; "A": the first of two, after the second; "B": the second; "lost": single - A.
    """
    task = TwoLanguages()
    model = Hope(reader(method, task.vocabulary, seed, **size))
    train(model, lambda step: task.sample(batch, 10**5 * seed + step, single=step % 2 == 0), steps, lr=lr, seed=seed)
    out: dict[str, float] = {"parameters": float(model.parameter_count())}
    with torch.no_grad():
        for single in (True, False):
            data = task.sample(readers, 10**9 + seed, single=single)
            right = task.right(data, model(data.tokens)[0])
            if single:
                got = data.kind[data.kind > 0].double()
                out["single"] = 100 * sum(
                    right[n] * float((got == i + 1).double().mean()) for i, n in enumerate(("A", "B")) if n in right
                )
            else:
                out |= {"A": 100 * right["A"], "B": 100 * right["B"]}
    return out | {"lost": out["single"] - out["A"]}
