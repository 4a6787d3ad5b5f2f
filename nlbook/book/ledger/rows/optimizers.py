"""Fig. 4, 11 and 12: delta momentum on bent valleys, M3 against Muon and AdamW, what M3 costs."""

from __future__ import annotations

from typing import Any

from nlbook.book.ledger.pictures import dotted
from nlbook.book.ledger.row import Cell, Results, Verdict, row
from nlbook.book.ledger.rules import against_best
from nlbook.book.ledger.tables import chosen, mean, sd, spread, try_group, values

SEEDS = {"quick": [0, 1, 2], "full": [0, 1, 2, 3, 4]}

# ---- Fig. 4 ----------------------------------------------------------------------------------------------------------
VALLEY = "nlbook.book.ledger.runs.optimizers:valleys"
PRINTED = "printed"
MENDED = ("row", "column")  # eq. 49 with the missing eta, in its two readings for a vector
STABLE = ("clipped", "bounded", "implicit")  # what we add: a brake that cannot turn the momentum round
HALF = 14  # of 27 valleys


def fig4_cells(profile: str, tuned: Results) -> list[Cell]:
    length = {"quick": 2500, "full": 10000}[profile]
    return [
        Cell(rule, VALLEY, {"rule": rule, "length": length, "seed": s})
        for rule in (PRINTED, *MENDED, *STABLE)
        for s in SEEDS[profile]
    ]


def wins(r: Results, rule: str) -> bool:
    """Faster than the heavy ball on more than half of the valleys, at every start."""
    return min(values(r, rule, "faster")) >= HALF


def judge_fig4(r: Results) -> Verdict:
    said = "; ".join(
        f"{rule}: arrives in {mean(r, rule, 'arrives'):.0f}, faster in {mean(r, rule, 'faster'):.0f}"
        for rule in (PRINTED, *MENDED, *STABLE)
    )
    said = f"Of 27 valleys (mean over starts) the heavy ball arrives in {mean(r, PRINTED, 'heavy ball arrives'):.0f}; {said}."
    if wins(r, PRINTED):
        return Verdict("reproduced at toy scale", said)
    return Verdict("partly" if any(wins(r, rule) for rule in (*MENDED, *STABLE)) else "not reproduced", said)


# ---- Fig. 11 ---------------------------------------------------------------------------------------------------------
DIGITS = "nlbook.book.ledger.runs.optimizers:digits"
OURS, CONTROL = "M3", "M3, fast memory only"
NAMES = {"AdamW": "AdamW", "Muon": "Muon", OURS: "M3 update", CONTROL: "M3 fast only", "M3 as printed": "M3 grad"}
RATES: dict[str, list[float]] = {  # five each, a factor of 3 apart; of 10 where nothing tells the size
    "AdamW": [1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
    "Muon": [1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
    OURS: [3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    CONTROL: [3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    "M3 as printed": [1e-7, 1e-6, 1e-5, 1e-4, 1e-3],
}
STEPS = {"quick": 200, "full": 1000}
LEAST = 0.01


def fig11_tuning(profile: str) -> list[Cell]:
    return [
        Cell(
            try_group(m, {"lr": lr}),
            DIGITS,
            {"optimizer": NAMES[m], "model": "vit", "lr": lr, "seed": s, "steps": STEPS[profile], "validation": True},
        )
        for m, lrs in RATES.items()
        for lr in lrs
        for s in {"quick": [100], "full": [100, 101]}[profile]
    ]


def fig11_cells(profile: str, tuned: Results) -> list[Cell]:
    out = []
    for m, lrs in RATES.items():
        best: dict[str, Any] = chosen(tuned, m, [{"lr": lr} for lr in lrs], "held")
        out += [
            Cell(m, DIGITS, {"optimizer": NAMES[m], "model": "vit", "steps": STEPS[profile], **best, "seed": s})
            for s in SEEDS[profile]
        ]
    return out


def judge_fig11(r: Results) -> Verdict:
    rivals = against_best(r, OURS, ["AdamW", "Muon"], "held", least=LEAST)
    slow = against_best(r, OURS, [CONTROL], "held", least=LEAST)
    text = (
        f"Test loss: {rivals.words}: {rivals.outcome}. Without the slow memory {spread(r, CONTROL, 'held')}: M3 is "
        f"{slow.outcome}. As printed {spread(r, 'M3 as printed', 'held')}."
    )
    if rivals.outcome == "better" and slow.outcome == "better":
        return Verdict("reproduced at toy scale", text)
    adamw = against_best(r, OURS, ["AdamW"], "held", least=LEAST)
    return Verdict("partly" if "better" in (rivals.outcome, adamw.outcome) else "not reproduced", text)


# ---- Fig. 12 ---------------------------------------------------------------------------------------------------------
NEAR = 0.15


def fig12_cells(profile: str, tuned: Results) -> list[Cell]:
    width = {"quick": 256, "full": 1024}[profile]
    return [
        Cell("ratios of CPU time", "nlbook.book.ledger.runs.optimizers:step_times", {"width": width, "seed": s})
        for s in (0, 1, 2)
    ]


def judge_fig12(r: Results) -> Verdict:
    group = "ratios of CPU time"
    muon, ada = mean(r, group, "M3 / Muon"), mean(r, group, "M3 / AdaMuon")
    slower = muon - 1 > 2 * sd(r, group, "M3 / Muon") / len(values(r, group, "M3 / Muon")) ** 0.5
    text = f"A step of M3 takes {spread(r, group, 'M3 / Muon', '.2f')} of Muon's time and {spread(r, group, 'M3 / AdaMuon', '.2f')} of AdaMuon's."
    if slower and abs(ada - 1) <= NEAR:
        return Verdict("reproduced at toy scale", text)
    return Verdict("partly" if slower else "not reproduced", text)


ROWS = [
    row(
        "fig4",
        cells=fig4_cells,
        judge=judge_fig4,
        figure=dotted(
            "faster",
            "valleys of 27 on which it is faster than the heavy ball",
            "Delta momentum, by the form of its brake",
            (PRINTED, *MENDED),
            ".1f",
        ),
    ),
    row(
        "fig11",
        tuning=fig11_tuning,
        cells=fig11_cells,
        judge=judge_fig11,
        figure=dotted("held", "test loss", "A small ViT on digits", (OURS,), ".3f"),
    ),
    row("fig12", cells=fig12_cells, judge=judge_fig12),
]
