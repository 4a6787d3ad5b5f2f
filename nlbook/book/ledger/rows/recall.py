"""Tables 3 and 4: in-context recall and the MAD tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nlbook.book.data.mad import TASKS
from nlbook.book.ledger import plan
from nlbook.book.ledger.plan import BASELINES
from nlbook.book.ledger.row import Cell, Results, Verdict, row
from nlbook.book.ledger.rules import against_best, best_of_all
from nlbook.book.ledger.tables import percent

FUNCTION = "nlbook.book.ledger.runs.sequence_tasks:mad"
METHODS = ("Hope", *BASELINES)
FREE = tuple(m for m in BASELINES if m != "Transformer")  # attention-free


def tuning(profile: str) -> list[Cell]:
    return plan.tuning(METHODS, profile)


def cells_of(tasks: tuple[str, ...], profile: str, tuned: Results) -> list[Cell]:
    return [
        replace(c, group=f"{c.group}: {task}")
        for task in tasks
        for c in plan.cells(FUNCTION, METHODS, profile, tuned, task=task)
    ]


def of_task(r: Results, task: str) -> Results:
    """The results of one task, by method."""
    return {m: r[f"{m}: {task}"] for m in METHODS if f"{m}: {task}" in r}


def judge_table3(r: Results) -> Verdict:
    one = of_task(r, "recall")
    free = best_of_all(one, "Hope", FREE, "accuracy", near="Titans", higher=True, least=0.01, what="Accuracy: ")
    top = against_best(one, "Transformer", ["Hope", *FREE], "accuracy", higher=True, least=0.01)
    words = f"{free.because} Transformer against the best attention-free model: {top.words}: {top.outcome}."
    if free.word == "reproduced at toy scale" and top.outcome == "better":
        return Verdict("reproduced at toy scale", words)
    return Verdict(
        "partly" if "not reproduced" not in free.word or top.outcome == "better" else "not reproduced", words
    )


def judge_table4(r: Results) -> Verdict:
    found = {t: against_best(of_task(r, t), "Hope", BASELINES, "accuracy", higher=True, least=0.01) for t in TASKS}
    count = {o: [t for t, c in found.items() if c.outcome == o] for o in ("better", "level", "worse")}
    words = "; ".join(f"{t}: {c.words} ({c.outcome})" for t, c in found.items()) + "."
    if len(count["better"]) >= 3 and not count["worse"]:
        return Verdict("reproduced at toy scale", words)
    return Verdict("partly" if len(count["better"]) + len(count["level"]) >= 3 else "not reproduced", words)


def rows_of(tasks: tuple[str, ...]) -> Any:
    def table_of(r: Results) -> tuple[list[str], list[list[str]]]:
        return ["accuracy in percent", *tasks], [
            [m, *(percent(r, f"{m}: {t}", "accuracy") for t in tasks)]
            for m in METHODS
            if all(f"{m}: {t}" in r for t in tasks)
        ]

    return table_of


ROWS = [
    row(
        "table3",
        tuning=tuning,
        cells=lambda profile, tuned: cells_of(("recall",), profile, tuned),
        judge=judge_table3,
        table=rows_of(("recall",)),
    ),
    row(
        "table4",
        tuning=tuning,
        cells=lambda profile, tuned: cells_of(TASKS, profile, tuned),
        judge=judge_table4,
        table=rows_of(TASKS),
    ),
]
