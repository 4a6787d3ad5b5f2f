"""Section 7.1, Fig. 6 and Fig. 8: does a continuum memory forget less, and is it the levels?"""

from __future__ import annotations

from typing import Any

from nlbook.book.ledger.pictures import dotted
from nlbook.book.ledger.row import Cell, Results, Verdict, row
from nlbook.book.ledger.rules import against_best, spreads
from nlbook.book.ledger.tables import evaluation_cells, mean, spread, tuning_cells

SEEDS = {"quick": [0, 1, 2], "full": [0, 1, 2, 3, 4]}
TUNING_SEEDS = {"quick": [100], "full": [100, 101]}
# Streams of digits are cheap. With one tuning seed one MLP got a rate at which it diverged on others: three for all.
STREAM_SEEDS, STREAM_TUNING = [0, 1, 2, 3, 4], [100, 101, 102]

# ---- digits ----------------------------------------------------------------------------------------------------------
OURS, PLAIN, STEPS_ONLY = "CMS", "one MLP", "same steps, no periods"
METHODS = {
    OURS: "CMS, mean",
    PLAIN: "MLP",
    STEPS_ONLY: "lr split (1, 1/8, 1/64)",
    "CMS nested, reset": "CMS nested, reset 64",
    "EWC": "EWC 30",
    "replay of 100": "replay 100",
}
GRID = [0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.4]
WIDE = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3]  # class-incremental: the best rates are tiny
STEPS = {"quick": 120, "full": 350}
LEAST = 1.0  # percentage points
STREAM, TUNE = "nlbook.book.ledger.runs.continual:stream", "nlbook.book.ledger.runs.continual:accuracy_by_rate"


def tuning_of(kind: str, grid: list[float], profile: str) -> list[Cell]:
    return [
        Cell(f"{m}, {kind}", TUNE, {"method": name, "kind": kind, "lrs": grid, "seed": s, "steps": STEPS[profile]})
        for m, name in METHODS.items()
        for s in STREAM_TUNING
    ]


def cells_of(kind: str, grid: list[float], profile: str, tuned: Results, label: str = "{m}") -> list[Cell]:
    """Each method at the rate with the best accuracy on the tuning seeds; the first rate where nothing was tuned."""
    out = []
    for m, name in METHODS.items():
        tried = tuned.get(f"{m}, {kind}", {})
        lr = max(grid, key=lambda x: mean(tuned, f"{m}, {kind}", f"{x:g}") if tried else 0.0)
        out += [
            Cell(
                label.format(m=m), STREAM, {"method": name, "kind": kind, "lr": lr, "seed": s, "steps": STEPS[profile]}
            )
            for s in STREAM_SEEDS
        ]
    return out


def fig6_tuning(profile: str) -> list[Cell]:
    return tuning_of("class", WIDE, profile)


def fig6_cells(profile: str, tuned: Results) -> list[Cell]:
    return cells_of("class", WIDE, profile, tuned)


def judge_fig6(r: Results) -> Verdict:
    rivals = against_best(r, OURS, [PLAIN, "EWC"], "average", higher=True, form=".1f", least=LEAST)
    steps = against_best(r, OURS, [STEPS_ONLY], "average", higher=True, form=".1f", least=LEAST)
    text = (
        f"Accuracy on all classes: {rivals.words}: {rivals.outcome}. Same steps without periods "
        f"{spread(r, STEPS_ONLY, 'average', '.1f')}: {steps.outcome}. Replay of 100 {spread(r, 'replay of 100', 'average', '.1f')}."
    )
    if rivals.outcome == "better":
        return Verdict("reproduced at toy scale" if steps.outcome == "better" else "partly", text)
    plain = against_best(r, OURS, [PLAIN], "average", higher=True, form=".1f", least=LEAST)
    return Verdict("partly" if plain.outcome == "better" else "not reproduced", text)


KINDS = ("permuted", "rotated")


def forgetting_tuning(profile: str) -> list[Cell]:
    return [c for kind in KINDS for c in tuning_of(kind, GRID, profile)]


def forgetting_cells(profile: str, tuned: Results) -> list[Cell]:
    return [c for kind in KINDS for c in cells_of(kind, GRID, profile, tuned, "{m}, " + kind)]


def judge_forgetting(r: Results) -> Verdict:
    said, plain, steps = [], [], []
    for kind in KINDS:
        ours, one, same = (f"{m}, {kind}" for m in (OURS, PLAIN, STEPS_ONLY))
        plain.append(against_best(r, ours, [one], "average", higher=True, least=LEAST).outcome)
        steps.append(against_best(r, ours, [same], "average", higher=True, least=LEAST).outcome)
        said.append(f"{spreads(r, (ours, one, same), 'average', '.1f')}")
    text = f"Accuracy on all five tasks at the end: {'; '.join(said)}."
    if set(plain) == {"better"} and set(steps) == {"better"}:
        return Verdict("reproduced at toy scale", text)
    return Verdict("partly" if "better" in plain and "worse" not in plain else "not reproduced", text)


# ---- two languages ---------------------------------------------------------------------------------------------------
LANGUAGES = "nlbook.book.ledger.runs.continual:two_languages"
READERS: dict[str, dict[str, Any]] = {m: {"method": m} for m in ("ICL", "static-3", "Hope-1", "Hope-2", "Hope-3")}
RATES: list[dict[str, Any]] = [{"lr": 0.008}, {"lr": 0.02}]
READING: dict[str, dict[str, Any]] = {"quick": {"steps": 240}, "full": {"steps": 1500}}


def both(found: dict[str, list[float]]) -> float:
    """What a rate is chosen by: accuracy on a language alone and on two in turn alike."""
    n = len(found["single"])
    return sum(s / 2 + (a + b) / 4 for s, a, b in zip(found["single"], found["A"], found["B"])) / n


def fig8_tuning(profile: str) -> list[Cell]:
    return tuning_cells(LANGUAGES, READERS, RATES, TUNING_SEEDS[profile], **READING[profile])


def fig8_cells(profile: str, tuned: Results) -> list[Cell]:
    return evaluation_cells(LANGUAGES, READERS, RATES, SEEDS[profile], tuned, both, higher=True, **READING[profile])


COLLAPSE = 10.0  # percentage points


def judge_fig8(r: Results) -> Verdict:
    text = "Lost of the first language: " + spreads(r, tuple(READERS), "lost", ".1f") + " points; "
    text += "right on it after the second: " + spreads(r, tuple(READERS), "A", ".1f") + " %."
    collapse = mean(r, "ICL", "lost") > COLLAPSE
    icl = against_best(r, "Hope-3", ["ICL"], "A", higher=True, least=LEAST).outcome
    control = against_best(r, "Hope-3", ["static-3"], "A", higher=True, least=LEAST).outcome
    levels = against_best(r, "Hope-3", ["Hope-1"], "A", higher=True, least=LEAST).outcome
    if collapse and icl == control == levels == "better":
        return Verdict("reproduced at toy scale", text)
    return Verdict("partly" if icl == "better" else "not reproduced", text)


ROWS = [
    row(
        "fig6",
        tuning=fig6_tuning,
        cells=fig6_cells,
        judge=judge_fig6,
        figure=dotted("average", "accuracy on all classes at the end, %", "Class-incremental digits", (OURS,), ".1f"),
    ),
    row(
        "cms-forgetting",
        tuning=forgetting_tuning,
        cells=forgetting_cells,
        judge=judge_forgetting,
        figure=dotted(
            "average",
            "accuracy on all tasks at the end, %",
            "Two streams of digits",
            tuple(f"{OURS}, {kind}" for kind in KINDS),
            ".1f",
        ),
    ),
    row(
        "fig8",
        tuning=fig8_tuning,
        cells=fig8_cells,
        judge=judge_fig8,
        figure=dotted(
            "A", "right in language A after B, %", "Two invented languages", ("Hope-1", "Hope-2", "Hope-3"), ".1f"
        ),
    ),
]
