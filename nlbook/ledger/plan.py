"""What rows share: seeds, methods, words about set-ups."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SEEDS = {"quick": [1, 2, 3], "full": [1, 2, 3, 4, 5]}
TUNING_SEEDS = {"quick": [101], "full": [101, 102]}
RATES: dict[str, list[dict[str, Any]]] = {
    "quick": [{"lr": 0.01}, {"lr": 0.02}],
    "full": [{"lr": 0.005}, {"lr": 0.01}, {"lr": 0.02}, {"lr": 0.04}],
}
"""Learning rates that every method tries, on tuning seeds; judged are other seeds."""

BASELINES = ("Transformer", "linear attention", "gated delta", "Titans")

SAME = ("Transformer, linear attention, gated delta rule and Titans: the same block with another mixer; the same "
        "convolution on q, k and v, gate, norms and number of parameters; the same number of learning rates tried.")


def named(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings by method for functions that take `method`."""
    return {m: {"method": m} for m in methods}
