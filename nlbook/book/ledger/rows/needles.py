"""Table 1, Fig. 7 and Fig. 9: facts in long texts."""

from __future__ import annotations

from typing import Any

from nlbook.book.ledger import plan
from nlbook.book.ledger.plan import EDGE, ONE_RATE, SAME, SEEDS
from nlbook.book.ledger.row import Cell, Results, Row, Verdict
from nlbook.book.ledger.rules import SURE, against_best, best_of_all, spreads
from nlbook.book.ledger.tables import gap, mean, values
from nlbook.paper import table

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
    Row(
        id="table1",
        title="needles in a haystack",
        source="Table 1",
        claim="Hope is the best attention-free model at single and multiple needles at all lengths, and Hope-Attention is at least as good as "
        "a Transformer.",
        paper=table(1),
        setup="Texts of 12 hay words with one or four marked facts (8 keys, 8 values), asked for at the end; training on 48 tokens (200 steps "
        "of 16 texts; full: 128 tokens, 1000 steps of 32), tests at 48, 96 and 192 tokens (full: 128 to 1024). "
        + ONE_RATE,
        baselines=SAME.replace("linear attention, ", ""),
        tuning=tuning,
        cells=cells,
        judge=judge_table1,
        rule="On the mean accuracy over counts and lengths, differences under one point or two standard errors are level. Reproduced if Hope is "
        "better than gated delta and Titans, and Hope-Attention no worse than the Transformer; partly if Hope is level with the best of "
        "the two, or better than Titans; else not reproduced.",
        limits=EDGE
        + " Facts of two tokens in noise, lengths of up to 192 tokens; RULER has sentences, and prompts of 4K to 16K tokens.",
        scale="out of reach: models trained on 50B tokens, contexts of 4K to 16K.",
        chapters=("10",),
    ),
    Row(
        id="fig7",
        title="number of levels, and the slowest",
        source="Fig. 7",
        claim="More levels improve in-context learning, and a faster slowest level makes it worse.",
        paper="A picture without printed numbers: scores at MK-NIAH, LongHealth and QASPER, better with more levels and with a slower slowest level.",
        setup="Hope-Attention with 0 to 3 MLP levels that learn in context, 48 hidden units in all; four facts in texts as for Table 1, the "
        "learning rate of Hope-Attention there. Periods in tokens: 4, 16; 48; 16, 48; 4, 16, 48.",
        baselines="The same MLP without updates ('no level').",
        tuning=tuning,
        cells=cells_fig7,
        judge=judge_fig7,
        rule="On mean accuracy over lengths, with differences above one point and two standard errors: more levels help if three beat both none "
        "and one; a slow level helps if slowest 48 beats slowest 16 at two levels. Reproduced if both hold; partly if one; else not "
        "reproduced.",
        limits="The paper adds levels to a pre-trained Llama and continues its training; here everything is trained at once on one small task.",
        scale="out of reach: Llama 3 with 3B and 8B parameters, 15B tokens.",
        chapters=("07", "10"),
    ),
    Row(
        id="fig9",
        title="long texts after short training",
        source="Fig. 9",
        claim="After fine-tuning, Hope keeps its accuracy on BABILong to 10M tokens, further than Titans and all others.",
        paper="A picture without printed numbers: accuracy against context length; large models fail around 128K to 256K tokens, Titans and ARMT "
        "hold to 1M, Hope to 10M.",
        setup="Six facts about three keys are told in a haystack; a later fact replaces an earlier one; asked for is the last. Training on 48 "
        "tokens (200 steps of 16 texts; full: 64, 1000 of 32), tests at up to 16 times that (full: 64 times). "
        + ONE_RATE,
        baselines=SAME.replace("linear attention, ", ""),
        tuning=tuning_fig9,
        cells=cells_fig9,
        judge=judge_fig9,
        figure=figure9,
        rule="Reproduced if at the longest text Hope has at least 90% of its accuracy at the length of training and is better than every baseline "
        "by more than one point and two standard errors; partly if one of the two holds; not reproduced otherwise, or if Hope has less "
        "than half of the answers right at the length of training.",
        limits=EDGE
        + " One hop, no language; 768 tokens are far from 10M, and the hay is noise of the same kind as in training.",
        scale="out of reach: contexts of 10M tokens.",
        chapters=("10",),
    ),
]
