"""Table 2, Fig. 10 and Table 6: language modelling where the best possible loss is known."""

from __future__ import annotations

from typing import Any

from nlbook.book.ledger import plan
from nlbook.book.ledger.plan import BASELINES, SEEDS
from nlbook.book.ledger.row import Cell, Results, Verdict, row
from nlbook.book.ledger.rules import SURE, best_of_all
from nlbook.book.ledger.tables import gap, mean, spread, values

FUNCTION = "nlbook.book.ledger.runs.sequence_tasks:language"
METHODS = ("Hope", *BASELINES)
PAIRS = {"quick": 24, "full": 64}


def tuning(profile: str) -> list[Cell]:
    return plan.tuning(METHODS, profile)


def cells(profile: str, tuned: Results) -> list[Cell]:
    return plan.cells(FUNCTION, METHODS, profile, tuned, pairs=PAIRS[profile])


def judge_table2(r: Results) -> Verdict:
    return best_of_all(r, "Hope", BASELINES, "excess", near="Titans", what="Nats above the entropy rate: ")


# ---------------------------------------------------------------------- Fig. 10
def judge_fig10(r: Results) -> Verdict:
    """Falls in every seed, and because of the context, in every method."""
    fell, because = [], []
    for m in r:
        first, last, cut = (values(r, m, k) for k in ("nats 1", "nats 4", "cut 4"))
        fell.append(all(b < a for a, b in zip(first, last)))
        because.append(all(b < c for b, c in zip(last, cut)))
    words = (
        f"Hope pays {spread(r, 'Hope', 'nats 1', '.2f')} nats a value in the first quarter of a document and "
        f"{spread(r, 'Hope', 'nats 4', '.2f')} in the last, {spread(r, 'Hope', 'cut 4', '.2f')} there when the rest "
        f"was cut off; the ideal reader pays {mean(r, 'Hope', 'optimum 4'):.2f} there. The loss falls with context in "
        f"{sum(f and b for f, b in zip(fell, because))} of {len(r)} methods."
    )
    hope = list(r).index("Hope")
    if all(fell) and all(because):
        return Verdict("reproduced at toy scale", words)
    return Verdict("partly" if fell[hope] and because[hope] else "not reproduced", words)


def figure10(r: Results) -> tuple[Any, str]:
    from nlbook.book.ledger.pictures import curves

    lines = {m: [values(r, m, f"nats {i}") for i in (1, 2, 3, 4)] for m in r}
    lines["ideal reader"] = [values(r, "Hope", f"optimum {i}") for i in (1, 2, 3, 4)]
    picture = curves([1, 2, 3, 4], lines, "quarter of the document", "nats per value", "More context, lower loss")
    return picture, (
        "Nats per value in the four quarters of a document for each method, over the ideal reader's: "
        + "; ".join(f"{m} {mean(r, m, 'nats 1'):.2f} to {mean(r, m, 'nats 4'):.2f}" for m in r)
    )


# ---------------------------------------------------------------------- Table 6
PARTS = {
    "DGD": "w/o DGD",
    "momentum": "with momentum",
    "weight decay": "w/o weight decay",
    "CMS": "w/o CMS",
    "inner projection k": "w/o inner-projection k",
    "inner projection v": "w/o inner-projection v",
    "inner projection q": "with inner-projection q",
}
"""Part -> the variant that lacks it, or, where equations 83-97 lack it, has it."""


def cells_table6(profile: str, tuned: Results) -> list[Cell]:
    rate = plan.rate(tuned, "Hope", profile)
    return [
        Cell(m, FUNCTION, {**plan.SIZE[profile], "pairs": PAIRS[profile], "method": m, **rate, "seed": seed})
        for m in ("Hope", *PARTS.values())
        for seed in SEEDS[profile]
    ]


def effects(r: Results) -> dict[str, tuple[float, str]]:
    """Part -> nats that it saves, and "helps", "hurts" or "no difference"."""
    out = {}
    for part, variant in PARTS.items():
        saved, error = gap(r, variant, "Hope", "excess")
        saved = -saved if variant.startswith("with ") else saved
        out[part] = saved, "no difference" if abs(saved) <= SURE * error else "helps" if saved > 0 else "hurts"
    return out


def judge_table6(r: Results) -> Verdict:
    found = effects(r)
    count = {w: [p for p, (_, e) in found.items() if e == w] for w in ("helps", "hurts", "no difference")}
    words = (
        f"Hope {spread(r, 'Hope', 'excess')} nats above the entropy rate. "
        + "; ".join(f"{w}: {', '.join(f'{p} ({found[p][0]:+.3f})' for p in ps)}" for w, ps in count.items() if ps)
        + "."
    )
    helps, hurts = len(count["helps"]), len(count["hurts"])
    if helps >= 6 and hurts == 0:
        return Verdict("reproduced at toy scale", words)
    return Verdict("partly" if helps >= 3 and helps > hurts else "not reproduced", words)


ROWS = [
    row("table2", tuning=tuning, cells=cells, judge=judge_table2),
    row("fig10", tuning=tuning, cells=cells, judge=judge_fig10, figure=figure10),
    row("table6", tuning=tuning, cells=cells_table6, judge=judge_table6),
]
