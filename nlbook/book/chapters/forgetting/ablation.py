"""The fair ablation of chapter F: a CMS, one MLP of the same size, and every cheaper explanation of the difference."""

from __future__ import annotations

from collections.abc import Sequence

from nlbook.book.chapters.forgetting.continual_methods import METHODS, Score, train, tune
from nlbook.errors import NLBookError

STEPS = 120  # training steps per task of the quick run; the full run takes 350
GRID = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.4)
WIDE = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3)  # class-incremental: the best rates are tiny

TUNED: dict[str, float] = {
    "MLP": 0.05,
    "CMS, sum": 0.05,
    "CMS, mean": 0.1,
    "lr split (1, 1/8, 1/64)": 0.1,
    "only block 0 learns": 0.1,
    "CMS head-wise, mean": 0.1,
    "MLP head-wise": 0.1,
    "EMA 0.99": 0.1,
    "EWC 30": 0.1,
    "CMS nested, reset 64": 0.05,
    "replay 100": 0.1,
    "all periods 64, sum": 0.01,
}
"""Learning rates for permuted digits at STEPS, tuned on seeds 100 and 101 over GRID, as `tune` finds them again."""

WORDS = {
    "MLP": "one MLP",
    "CMS, sum": "CMS, sums of gradients",
    "CMS, mean": "CMS, means of gradients",
    "lr split (1, 1/8, 1/64)": "same steps, no periods",
    "only block 0 learns": "slow part frozen",
    "CMS head-wise, mean": "CMS side by side",
    "MLP head-wise": "MLP side by side, no periods",
    "EMA 0.99": "one MLP, averaged weights",
    "EWC 30": "EWC (is told the task)",
    "CMS nested, reset 64": "CMS nested, reset",
    "replay 100": "replay of 100 digits",
    "all periods 64, sum": "all periods 64",
}
"""What a method is called in the pictures."""


def ablation(
    kind: str = "permuted",
    names: Sequence[str] = tuple(TUNED),
    *,
    steps: int = STEPS,
    seeds: int = 5,
    retune: bool = False,
) -> dict[str, Score]:
    """Accuracy matrices of `names` over `seeds` seeds, each method at the learning rate that suited it on other seeds.

    retune: search the rate anew (needed for any other kind or number of steps than those of TUNED).
    """
    if not retune and (kind != "permuted" or steps != STEPS):
        raise NLBookError(
            f"retune: got False for {kind!r} at {steps} steps, expected True: the stored learning rates "
            f"are for 'permuted' at {STEPS} steps"
        )
    every = list(range(seeds))
    if retune:
        lrs = WIDE if kind == "class" else GRID
        return {n: tune(METHODS[n], kind, lrs=lrs, seeds=every, steps=steps) for n in names}
    return {n: at_rate(n, kind, TUNED[n], steps=steps, seeds=seeds) for n in names}


def at_rate(name: str, kind: str, lr: float, *, steps: int = STEPS, seeds: int = 5) -> Score:
    """One method at a given learning rate."""
    return Score(lr, train(METHODS[name], kind, [lr], list(range(seeds)), steps=steps).r[0], False)
