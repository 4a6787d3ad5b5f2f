"""Fig. 1, 2, 3 and 5: what the diagrams say that can be computed."""

from __future__ import annotations

from nlbook.book.ledger.row import Cell, Results, Verdict, row
from nlbook.book.ledger.tables import mean, values

EXACT = 1e-12


def judge_fig1(r: Results) -> Verdict:
    return Verdict("out of reach", "An analogy: it claims nothing of a model that a computation could contradict.")


def judge_fig2(r: Results) -> Verdict:
    models, one, drawn = (mean(r, "five models", m) for m in ("models", "models with one", "diagrams"))
    text = f"Of {drawn:.0f} ways to put the parts of {models:.0f} models into ordered levels, Definition 2 accepts one for {one:.0f} of them."
    return Verdict("proved" if one == models else "not reproduced", text)


def judge_fig3(r: Results) -> Verdict:
    worst = max(*values(r, "block", "empty context"), *values(r, "block", "loop"))
    moved = min(values(r, "block", "written"))
    text = (
        f"In float64 the block equals its MLP with nothing written and its token loop otherwise, to {worst:.0e}; its writes "
        f"move the output by {moved:.1f} and more."
    )
    return Verdict("proved" if worst < EXACT < moved else "not reproduced", text)


def judge_fig5(r: Results) -> Verdict:
    same, wrong, lanes = (mean(r, "Hope", m) for m in ("spread", "wrong", "lanes"))
    text = (
        f"Chunk x frequency is the same for all printed lanes (largest over smallest: {same:g}); in a live Hope {lanes - wrong:.0f} of "
        f"{lanes:.0f} memories are written once a period."
    )
    return Verdict("proved" if same == 1 and wrong == 0 and lanes > 1 else "not reproduced", text)


def cells(group: str, function: str, seeds: tuple[int, ...] = ()):
    path = f"nlbook.book.ledger.runs.diagrams:{function}"
    made = [Cell(group, path, {"seed": s}) for s in seeds] or [Cell(group, path, {})]
    return lambda profile, tuned: made


ROWS = [
    row("fig1", judge=judge_fig1),
    row("fig2", cells=cells("five models", "levels"), judge=judge_fig2),
    row("fig3", cells=cells("block", "recurrent_mlp", (0, 1, 2)), judge=judge_fig3),
    row("fig5", cells=cells("Hope", "hope_lanes"), judge=judge_fig5),
]
