"""What rows share: seeds, methods, one tuning for all small tasks, words about set-ups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nlbook.book.ledger.row import Cell, Results
from nlbook.book.ledger.tables import chosen, tuning_cells

SEEDS = {"quick": [1, 2, 3], "full": [1, 2, 3, 4, 5]}
TUNING_SEEDS = {"quick": [101], "full": [101, 102]}
RATES: dict[str, list[dict[str, Any]]] = {
    "quick": [{"lr": 0.01}, {"lr": 0.02}],
    "full": [{"lr": 0.005}, {"lr": 0.01}, {"lr": 0.02}, {"lr": 0.04}],
}
"""Learning rates that every method tries, on tuning seeds; judged are other seeds."""

SIZE: dict[str, dict[str, Any]] = {"quick": {"steps": 200, "batch": 16}, "full": {"steps": 1000, "batch": 32}}
"""Training in every small task: quick sees 200 batches of 16 sequences of 48 tokens."""

BASELINES = ("Transformer", "linear attention", "gated delta", "Titans")


def named(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings by method for functions that take `method`."""
    return {m: {"method": m} for m in methods}


def tuning(methods: Sequence[str], profile: str) -> list[Cell]:
    """Every method at every rate, on the recall task."""
    return tuning_cells(
        "nlbook.book.ledger.runs.sequence_tasks:mad",
        named(methods),
        RATES[profile],
        TUNING_SEEDS[profile],
        task="recall",
        **SIZE[profile],
    )


def rate(tuned: Results, method: str, profile: str) -> dict[str, Any]:
    """The rate of a method, as the tuning has it: {"lr": ...}."""
    return chosen(tuned, method, RATES[profile], "nats")


def cells(function: str, methods: Sequence[str], profile: str, tuned: Results, **settings: Any) -> list[Cell]:
    """Every method at its rate on the seeds that count."""
    return [
        Cell(m, function, {**SIZE[profile], **settings, "method": m, **rate(tuned, m, profile), "seed": seed})
        for m in methods
        for seed in SEEDS[profile]
    ]
