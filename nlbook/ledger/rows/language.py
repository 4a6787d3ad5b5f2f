"""Table 2 and Fig. 10: language modelling where the best possible loss is known."""
from __future__ import annotations

from typing import Any

from nlbook.ledger.row import Cell, Results, Row, Verdict
from nlbook.ledger.rules import BEST_RULE, best_of_all
from nlbook.ledger.tables import evaluation_cells, tuning_cells
from nlbook.paper import table

FUNCTION = "nlbook.tasks.trials:language"
BASELINES = ("Transformer", "linear attention", "gated delta", "Titans")
METHODS: dict[str, dict[str, Any]] = {m: {"method": m} for m in ("Hope", "Hope-Attention", *BASELINES)}
RATES: list[dict[str, Any]] = [{"lr": 0.005}, {"lr": 0.015}]
SEEDS = {"quick": [1, 2, 3], "full": [1, 2, 3, 4, 5]}
TUNING_SEEDS = {"quick": [101], "full": [101, 102]}
SIZE: dict[str, dict[str, Any]] = {"quick": {"steps": 200}, "full": {"steps": 1000}}


def tuning(profile: str) -> list[Cell]:
    return tuning_cells(FUNCTION, METHODS, RATES, TUNING_SEEDS[profile], **SIZE[profile])


def cells(profile: str, tuned: Results) -> list[Cell]:
    return evaluation_cells(FUNCTION, METHODS, RATES, SEEDS[profile], tuned, "excess", **SIZE[profile])


def judge_table2(r: Results) -> Verdict:
    return best_of_all(r, "Hope", BASELINES, "excess", near="Titans", what="Nats above the entropy rate: ")


SETUP = ("Documents of pairs (key, value): a third of the keys have one value in the whole language, others a "
         "fresh one in each document, others one that changes under way (`TimescaleLanguage`); the ideal reader's loss is "
         "known exactly. Models of about 21 thousand parameters, one block, width 32, trained on fresh documents. Learning "
         "rates 0.005 and 0.015 are tried for every method on seeds that are used for nothing else.")
SAME = ("Transformer, linear attention, gated delta rule, Titans: the same block with another mixer, the same "
        "convolution on q, k and v, gate and norms, one static MLP that makes them as large. Hope-Attention is shown, "
        "not judged.")
COLUMNS = [("excess", "nats above the optimum", ".3f"), ("excess static", "static facts", ".3f"),
           ("excess document", "the document's facts", ".3f"), ("excess fast", "facts that change", ".3f"),
           ("parameters", "parameters", ".0f")]

ROWS = [
    Row(
        id="table2", title="language modelling", source="Table 2",
        claim="Hope has the lowest perplexity and the best average accuracy among all models, at 760M and at 1.3B "
              "parameters.",
        paper=table(2), setup=SETUP, baselines=SAME, tuning=tuning, cells=cells, judge=judge_table2,
        rule="On nats per value above the entropy rate: " + BEST_RULE.format(ours="Hope", near="Titans") + ".",
        columns=COLUMNS, chapters=("10",),
        limits="A language of 30 tokens says nothing about text; at this size the short convolution and the schedule "
               "decide much, and a few hundred steps measure how fast a model learns as much as what it can reach.",
        scale="out of reach: 760M and 1.3B parameters on 30B and 100B tokens."),
]
