"""Table 2 once more, on text: the source of the reader's own Python."""

from __future__ import annotations

from typing import Any

from nlbook.book.ledger.pictures import dotted
from nlbook.book.ledger.row import Cell, Results, Row, Verdict
from nlbook.book.ledger.rules import BEST_RULE, best_of_all
from nlbook.book.ledger.tables import evaluation_cells, mean, tuning_cells
from nlbook.paper import table

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
    Row(
        id="table2-text",
        title="language modelling on real text",
        source="Table 2",
        claim="Hope has the lowest perplexity of all models of its size.",
        paper=table(2),
        setup="The standard library of the Python that runs the ledger, byte by byte, from memory-mapped files: 2 MB to train on, "
        "files of its own to be graded on, chosen by the hash of their names. Models of 60 thousand parameters, one block, "
        "width 48, read 200 batches of 8 windows of 128 bytes. Learning rates 0.012, 0.024 and 0.048 for each, on a seed "
        "used for nothing else.",
        baselines="Gated delta rule and Transformer: the same block with another mixer, the same convolution, gate and norms, "
        "and one static MLP that makes them as large. Counting bytes, and pairs of bytes, in the same windows says "
        "what a number of bits is worth.",
        rule="On bits per byte of held-out files: " + BEST_RULE.format(ours="Hope", near="the gated delta rule") + ".",
        tuning=tuning,
        cells=cells,
        judge=judge,
        figure=dotted(
            "bits", "bits per byte of held-out files", "The text of Python's standard library", ("Hope",), ".3f"
        ),
        columns=[
            ("bits", "bits per byte", ".3f"),
            *((f"bits {i}", f"quarter {i} of 512 bytes", ".3f") for i in range(1, 5)),
            ("parameters", "parameters", ".0f"),
        ],
        limits="200 kB of reading is the first minute of a training run: this ranks how fast models begin to learn. The text, and "
        "with it the last digits, depend on the Python version. Held-out windows are four times as long as those trained "
        "on, so their later quarters also test length, and no model's bits need fall along them: that claim has a row of its own (Fig. 10). "
        "Hope diverges at the largest rate, the gated delta rule is best there, so a finer search could still move it. Equal bytes, not "
        "equal time: a step of Hope takes about four times as long as one of the others here.",
        scale="out of reach: 760M and 1.3B parameters on 30B and 100B tokens.",
        chapters=("10",),
        evidence=("tests/book/test_text_on_disk.py",),
    ),
]
