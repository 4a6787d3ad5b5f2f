"""Fig. 1, 2, 3 and 5: what the diagrams say that can be computed."""

from __future__ import annotations

from nlbook.book.ledger.row import Cell, Results, Row, Verdict
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
    Row(
        id="fig1",
        title="the brain's waves and a stack of levels",
        source="Fig. 1",
        claim="As brain waves have different frequencies, so have the levels of a model; its parts are uniform.",
        paper="A drawing, with ranges of frequencies for five kinds of wave.",
        setup="Nothing is run: the figure is a motivation.",
        rule="A picture that claims nothing of a model is out of reach.",
        judge=judge_fig1,
        limits="The ranges in the figure and in the text of Section 1.1 differ (gamma ends at 100 Hz in one, at "
        "150 Hz in the other); we judge neither.",
        chapters=("05",),
    ),
    Row(
        id="fig2",
        title="a model drawn as nested levels",
        source="Fig. 2",
        claim="What deep learning draws as one stack is a flattened picture of a system of nested levels, each with its own "
        "gradient flow and update frequency.",
        paper="A drawing.",
        setup="Five live models and their optimizers (linear attention, Transformer, AdaTransformer and others); their parts are read "
        "off the modules, every ordered diagram of them is drawn and checked against Definition 2.",
        baselines="Frequency alone, without asking which part is computed from which, gives a wrong diagram for four of the five (chapter 05).",
        rule="Proved if exactly one diagram passes for each model; else not reproduced.",
        cells=cells("five models", "levels"),
        judge=judge_fig2,
        limits="That a picture is well defined does not make it useful. Parts are those that `levels_of` finds.",
        columns=[
            ("models", "models", ".0f"),
            ("diagrams", "diagrams", ".0f"),
            ("models with one", "with exactly one", ".0f"),
        ],
        chapters=("05",),
        evidence=("tests/book/test_chapter_05.py", "tests/library/test_levels.py"),
    ),
    Row(
        id="fig3",
        title="a recurrent memory is an MLP with one more level",
        source="Fig. 3",
        claim="A linear memory with a learned initial state is an MLP layer that also adapts in context: the two differ by one level.",
        paper="A drawing; eq. 21 and 69.",
        setup="One block of attention and linear memory in float64, random weights, three seeds; compared with the MLP of its start "
        "(nothing written) and with its own token loop.",
        rule="Proved if both distances stay below 1e-12 and the writes move the output by more than that; else not reproduced.",
        cells=cells("block", "recurrent_mlp", (0, 1, 2)),
        judge=judge_fig3,
        columns=[
            ("empty context", "distance from the MLP", ".0e"),
            ("loop", "from the token loop", ".0e"),
            ("written", "moved by writes", ".1f"),
        ],
        limits="The printed write of eq. 21 is a number when tokens are rows; the transposed one is used. Whether the extra level helps "
        "is another question (chapter 06).",
        chapters=("04", "05", "06"),
        evidence=(
            "tests/library/test_errata.py::test_the_adatransformer_writes_key_times_value_in_rows",
            "tests/library/test_errata.py::test_the_adatransformer_block_writes_the_transpose",
        ),
    ),
    Row(
        id="fig5",
        title="the levels of Hope",
        source="Fig. 5",
        claim="In Hope every memory has its own frequency, from the self-modifying Titans (fastest) to the last MLP level (slowest); "
        "frequency times chunk is the same for all.",
        paper="Lanes (chunk, frequency): (16, 1M), ..., (16M, 1).",
        setup="The printed pairs are multiplied; a small live Hope reads 64 tokens while every write is recorded.",
        rule="Proved if the products agree and every fast memory is written floor(tokens / period) times; else not reproduced.",
        cells=cells("Hope", "hope_lanes"),
        judge=judge_fig5,
        columns=[
            ("spread", "largest / smallest product", ".0f"),
            ("lanes", "memories", ".0f"),
            ("wrong", "of another rhythm", ".0f"),
        ],
        limits="The order of the MLP levels in eq. 70 and in the figure differ; ours follows the figure. The lengths of BPTT in the "
        "figure are not tested.",
        chapters=("05", "10"),
        evidence=("tests/library/test_hope.py",),
    ),
]
