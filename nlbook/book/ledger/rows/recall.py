"""Tables 3 and 4: in-context recall and the MAD tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nlbook.book.data.mad import TASKS
from nlbook.book.ledger import plan
from nlbook.book.ledger.plan import BASELINES, EDGE, ONE_RATE, SAME
from nlbook.book.ledger.row import Cell, Results, Row, Verdict
from nlbook.book.ledger.rules import against_best, best_of_all
from nlbook.book.ledger.tables import percent
from nlbook.paper import table

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


SETUP = (
    "Sequences of at most 48 tokens, 8 keys and 8 values, models of one block and width 32 trained for 200 steps of 16 fresh sequences "
    "(full: 1000 of 32). " + ONE_RATE
)


ROWS = [
    Row(
        id="table3",
        title="in-context recall",
        source="Table 3",
        claim="On short recall-intensive tasks the Transformer is best, and Hope is the best of the attention-free models.",
        paper=table(3),
        setup=SETUP + " Recall: keys with fresh values in each sequence, graded where a key comes again.",
        baselines=SAME,
        tuning=tuning,
        cells=lambda profile, tuned: cells_of(("recall",), profile, tuned),
        judge=judge_table3,
        table=rows_of(("recall",)),
        rule="On accuracy, differences under one point count as level: reproduced if Hope is better than every attention-free model and the "
        "Transformer is better than all of them, by more than two standard errors; partly if one of the two holds, or Hope is level with "
        "the best attention-free model or better than Titans; else not reproduced.",
        limits=EDGE + " Single-token keys and values. The paper's six sets ask questions about web pages and articles.",
        scale="out of reach: trained language models on SWDE, NQ, DROP, FDA, SQuAD and TQA.",
        chapters=("10",),
    ),
    Row(
        id="table4",
        title="the MAD tasks",
        source="Table 4",
        claim="Hope is best at compression, fuzzy recall, selective copying and memorisation, and as perfect as all at in-context recall.",
        paper=table(4),
        setup=SETUP
        + " Selective copying and compression: 6 items, with and without blanks between them, asked for in their "
        "order. Fuzzy recall: keys of two tokens. Memorisation: facts that only the weights can know.",
        baselines=SAME,
        tuning=tuning,
        cells=lambda profile, tuned: cells_of(TASKS, profile, tuned),
        judge=judge_table4,
        table=rows_of(TASKS),
        rule="On accuracy, task by task, Hope against the best baseline; differences under one point or two standard errors count as level. "
        "Reproduced if Hope is better in at least 3 of the 5 tasks and worse in none; partly if better or level in at least 3; else not "
        "reproduced.",
        limits=EDGE
        + " Small versions of the five tasks, short training; where all models reach 100% a task cannot tell them apart.",
        scale="out of reach in time: the benchmark trains each model on many sizes of each task.",
        chapters=("10",),
    ),
]
