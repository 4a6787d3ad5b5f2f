"""The fair ablation of chapter 05: a CMS, one MLP of the same size, and every cheaper explanation of the difference."""

from __future__ import annotations

from collections.abc import Sequence

from nlbook.book.chapters.clocks.continual_methods import METHODS, Score, train, tune
from nlbook.errors import NLBookError

STEPS = 120  # training steps per task of the quick run; the full run takes 350
GRID = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.4)

TUNED: dict[str, float] = {
    "MLP": 0.05,
    "CMS, sum": 0.05,
    "CMS, mean": 0.1,
    "lr split (1, 1/8, 1/64)": 0.1,
    "only block 0 learns": 0.1,
    "replay 100": 0.1,
}
"""Learning rates for permuted digits at STEPS, tuned on seeds 100 and 101 over GRID, as `tune` finds them again."""

WORDS = {
    "MLP": "one MLP",
    "CMS, sum": "CMS, sums of gradients",
    "CMS, mean": "CMS, means of gradients",
    "lr split (1, 1/8, 1/64)": "same steps, no periods",
    "only block 0 learns": "slow part frozen",
    "replay 100": "replay of 100 digits",
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
    every = list(range(seeds))
    if retune:
        return {n: tune(METHODS[n], kind, lrs=GRID, seeds=every, steps=steps) for n in names}
    if kind != "permuted" or steps != STEPS:
        raise NLBookError(
            f"retune: got False for {kind!r} at {steps} steps, expected True: the stored learning rates "
            f"are for 'permuted' at {STEPS} steps"
        )
    rates = {n: TUNED[n] for n in names}
    return {n: Score(lr, train(METHODS[n], kind, [lr], every, steps=steps).r[0], False) for n, lr in rates.items()}
