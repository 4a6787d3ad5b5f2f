"""Table 1, Fig. 7 and Fig. 9: facts in long texts."""

from __future__ import annotations

from typing import Any

from nlbook.book.ledger import plan
from nlbook.book.ledger.plan import SEEDS
from nlbook.book.ledger.row import Cell, Results, Verdict, row
from nlbook.book.ledger.rules import SURE, against_best, best_of_all, spreads
from nlbook.book.ledger.tables import gap, mean, values

FUNCTION = "nlbook.book.ledger.runs.sequence_tasks:facts"
METHODS = ("Transformer", "Hope-Attention", "gated delta", "Titans", "Hope")
FREE = ("gated delta", "Titans")
TEXTS: dict[str, dict[str, Any]] = {
    "quick": {"counts": [1, 4], "length": 48, "tests": [48, 96, 192]},
    "full": {"counts": [1, 4, 8], "length": 128, "tests": [128, 256, 512, 1024]},
}


def tuning(profile: str) -> list[Cell]:
    return plan.tuning(METHODS, profile)


def cells(profile: str, tuned: Results) -> list[Cell]:
    return plan.cells(FUNCTION, METHODS, profile, tuned, **TEXTS[profile])


def judge_table1(r: Results) -> Verdict:
    free = best_of_all(
        r, "Hope", FREE, "mean", near="Titans", higher=True, least=0.01, what="Mean accuracy, attention-free: "
    )
    pair = against_best(r, "Hope-Attention", ["Transformer"], "mean", higher=True, least=0.01)
    words = f"{free.because} {pair.words}: {pair.outcome}."
    if free.word == "reproduced at toy scale" and pair.outcome != "worse":
        return Verdict("reproduced at toy scale", words)
    return Verdict("partly" if free.word != "not reproduced" else "not reproduced", words)


# ---------------------------------------------------------------------- Fig. 7
LEVELS = {
    "no level": [],
    "2 levels, slowest 16": [4, 16],
    "1 level, slowest 48": [48],
    "2 levels, slowest 48": [16, 48],
    "3 levels, slowest 48": [4, 16, 48],
}
UNITS = 48  # hidden units in all levels together


def cells_fig7(profile: str, tuned: Results) -> list[Cell]:
    rate = plan.rate(tuned, "Hope-Attention", profile)
    out = []
    for name, periods in LEVELS.items():
        own: dict[str, Any] = {"periods": periods or [1], "hidden": UNITS // max(1, len(periods))}
        if not periods:
            own["mlp"] = "static"
        out += [
            Cell(
                name,
                FUNCTION,
                {
                    **plan.SIZE[profile],
                    **TEXTS[profile],
                    "counts": [4],
                    "method": "Hope-Attention, as given",
                    **own,
                    **rate,
                    "seed": seed,
                },
            )
            for seed in SEEDS[profile]
        ]
    return out


def judge_fig7(r: Results) -> Verdict:
    more, more_error = gap(r, "3 levels, slowest 48", "no level", "mean")
    one, one_error = gap(r, "3 levels, slowest 48", "1 level, slowest 48", "mean")
    slow, slow_error = gap(r, "2 levels, slowest 48", "2 levels, slowest 16", "mean")
    helps = more > max(SURE * more_error, 0.01) and one > max(SURE * one_error, 0.01)
    slower = slow > max(SURE * slow_error, 0.01)
    words = (
        f"Mean accuracy with 4 facts: {spreads(r, list(LEVELS), 'mean', '.3f')}. "
        f"Three levels against none {more:+.3f}, against one {one:+.3f}; slowest 48 against 16 {slow:+.3f}."
    )
    return Verdict(
        "reproduced at toy scale" if helps and slower else "partly" if helps or slower else "not reproduced", words
    )


# ---------------------------------------------------------------------- Fig. 9
NEWS = ("Transformer", "gated delta", "Titans", "Hope")
LONG: dict[str, dict[str, Any]] = {
    "quick": {"counts": [6], "keys": 3, "length": 48, "tests": [48, 96, 192, 384, 768], "news": True},
    "full": {"counts": [6], "keys": 3, "length": 64, "tests": [64, 256, 1024, 4096], "news": True},
}


def tuning_fig9(profile: str) -> list[Cell]:
    return plan.tuning(NEWS, profile)


def cells_fig9(profile: str, tuned: Results) -> list[Cell]:
    return plan.cells(FUNCTION, NEWS, profile, tuned, **LONG[profile])


def lengths(r: Results) -> list[int]:
    return sorted(int(k.split(" in ")[1]) for k in r["Hope"] if k.startswith("6 in "))


def judge_fig9(r: Results) -> Verdict:
    short, far = lengths(r)[0], lengths(r)[-1]
    c = against_best(r, "Hope", [m for m in r if m != "Hope"], f"6 in {far}", higher=True, least=0.01)
    kept = mean(r, "Hope", f"6 in {far}") / mean(r, "Hope", f"6 in {short}")
    learned = mean(r, "Hope", f"6 in {short}") >= 0.5
    words = (
        f"At {far} tokens, {far // short} times the length of training: {c.words}: {c.outcome}. Hope keeps {100 * kept:.0f}% of its "
        f"accuracy at {short} tokens ({mean(r, 'Hope', f'6 in {short}'):.2f})."
    )
    if not learned:
        return Verdict("not reproduced", words + " It did not learn the task at the length of training.")
    if kept >= 0.9 and c.outcome == "better":
        return Verdict("reproduced at toy scale", words)
    return Verdict("partly" if kept >= 0.9 or c.outcome == "better" else "not reproduced", words)


def figure9(r: Results) -> tuple[Any, str]:
    from nlbook.book.ledger.pictures import curves

    x = lengths(r)
    picture = curves(
        x,
        {m: [values(r, m, f"6 in {n}") for n in x] for m in r},
        "tokens in the text",
        "accuracy",
        f"Trained on {x[0]} tokens",
        log=True,
    )
    return picture, (
        "Accuracy against the length of the text: "
        + "; ".join(
            f"{m} {mean(r, m, f'6 in {x[0]}'):.2f} at {x[0]} tokens, {mean(r, m, f'6 in {x[-1]}'):.2f} at {x[-1]}"
            for m in r
        )
    )


ROWS = [
    row("table1", tuning=tuning, cells=cells, judge=judge_table1),
    row("fig7", tuning=tuning, cells=cells_fig7, judge=judge_fig7),
    row("fig9", tuning=tuning_fig9, cells=cells_fig9, judge=judge_fig9, figure=figure9),
]
