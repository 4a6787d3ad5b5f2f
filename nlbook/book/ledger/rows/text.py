"""Table 2 once more, on text: the source of the reader's own Python."""

from __future__ import annotations

from typing import Any

from nlbook.book.ledger.pictures import dotted
from nlbook.book.ledger.row import Cell, Results, Verdict, row
from nlbook.book.ledger.rules import best_of_all
from nlbook.book.ledger.tables import evaluation_cells, mean, tuning_cells

FUNCTION = "nlbook.book.ledger.runs.text:run"
LEARNERS: dict[str, dict[str, Any]] = {m: {"method": m} for m in ("Hope", "gated delta", "Transformer")}
COUNTERS = ("single bytes", "pairs of bytes")
RATES: list[dict[str, Any]] = [{"lr": 0.012}, {"lr": 0.024}, {"lr": 0.048}]
SIZE: dict[str, Any] = {"dim": 48, "layers": 1, "hidden": 64, "periods": [16, 64]}
SCALE: dict[str, dict[str, Any]] = {
    "quick": {"steps": 200, **SIZE},
    "full": {"steps": 2000, "most": 8_000_000, **SIZE, "layers": 2},
}
SEEDS = {"quick": [0, 1, 2], "full": [0, 1, 2, 3, 4]}


def tuning(profile: str) -> list[Cell]:
    return tuning_cells(FUNCTION, LEARNERS, RATES, [100], **SCALE[profile])


def cells(profile: str, tuned: Results) -> list[Cell]:
    counts = [
        Cell(m, FUNCTION, {"method": m, "lr": 0.0, "seed": s, **SCALE[profile]})
        for m in COUNTERS
        for s in SEEDS[profile]
    ]
    return counts + evaluation_cells(FUNCTION, LEARNERS, RATES, SEEDS[profile], tuned, "bits", **SCALE[profile])


def judge(r: Results) -> Verdict:
    found = best_of_all(r, "Hope", ["gated delta", "Transformer"], "bits", near="gated delta", what="Bits per byte: ")
    first, last = (mean(r, "Hope", f"bits {i}") for i in (1, 4))
    return Verdict(
        found.word,
        f"{found.because} Counting pairs of bytes {mean(r, 'pairs of bytes', 'bits'):.3f}. From the first "
        f"quarter of a window of 512 bytes to the last, Hope's bits go from {first:.3f} to {last:.3f}.",
    )


ROWS = [
    row(
        "table2-text",
        tuning=tuning,
        cells=cells,
        judge=judge,
        figure=dotted(
            "bits", "bits per byte of held-out files", "The text of Python's standard library", ("Hope",), ".3f"
        ),
    )
]
