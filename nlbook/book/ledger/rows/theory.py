"""What the paper derives: its equations, and the statements that need no training."""

from __future__ import annotations

from nlbook.book.ledger.row import Cell, Results, Row, Verdict, row
from nlbook.book.ledger.tables import mean, values

MODULE = "nlbook.book.ledger.runs.identities"
EXACT, APART = 1e-9, 1e-3


def judge_identity(r: Results) -> Verdict:
    """Proved: exact as printed; partly: only a corrected form is."""
    holds, printed = max(values(r, "float64", "holds")), values(r, "float64", "printed")
    if holds >= EXACT:
        return Verdict("not reproduced", f"No form of it holds: the two sides differ by {holds:.0e}.")
    if max(printed) < EXACT:
        return Verdict("proved", f"The two sides agree to {holds:.0e}.")
    return Verdict(
        "partly",
        f"In the form given here the two sides agree to {holds:.0e}, as printed they differ by {min(printed):.1g} and more.",
    )


def judge_control(name: str):
    """The same, and `name` has to differ: a control that could not fail would prove nothing."""

    def judge(r: Results) -> Verdict:
        v = judge_identity(r)
        least = min(values(r, "float64", name))
        if least < APART:
            return Verdict("not reproduced", f"{v.because} The control differs by {least:.0e} only.")
        return Verdict(v.word, f"{v.because} The control ({name}) differs by {least:.1g} and more.")

    return judge


def judge_horizon(r: Results) -> Verdict:
    six, seven, many, more = (mean(r, "momentum 0.9", f"last {n}") for n in (6, 7, 43, 44))
    words = f"The last 6 gradients make up {100 * six:.1f}% and the last 43 {100 * many:.2f}%; 7 make up {100 * seven:.1f}%, 44 {100 * more:.2f}%."
    if six >= 0.5 and many >= 0.99:
        return Verdict("proved", words)
    return Verdict("partly" if seven >= 0.5 and more >= 0.99 else "not reproduced", words)


def judge_equations(r: Results) -> Verdict:
    n = {k: int(mean(r, "all", k)) for k in r["all"]}
    words = (
        f"Of {n['equations']} numbered equations {n['ok'] + n['conv']} hold as printed or up to notation, {n['open']} leave a choice open, {n['text']} hold "
        f"with a slip in the text around them, {n['slip']} do not hold as printed; {n['slip'] - n['without a corrected form']} of those have a form that "
        f"holds, and {n['equations'] - n['without a test']} of {n['equations']} have a test here or need none."
    )
    if n["without a corrected form"] or n["without a test"]:
        return Verdict("not reproduced", words)
    return Verdict("partly" if n["slip"] else "proved", words)


IDENTITIES = {  # row -> function, and the control that has to differ
    "theory-training": ("training_writes", "frozen"),
    "theory-momentum": ("momentum_is_a_memory", ""),
    "theory-attention": ("linear_attention_descends", ""),
    "theory-muon": ("newton_schulz_descends", ""),
    "theory-adam": ("adam_is_an_optimum", ""),
    "theory-dgd": ("dgd_closed_form", ""),
    "theory-parallel": ("parallel_equals_sequential", "chunked"),
}


def identity(id: str, function: str, control: str) -> Row:
    made = [Cell("float64", f"{MODULE}:{function}", {"seed": s}) for s in (1, 2, 3)]
    judge = judge_control(control) if control else judge_identity
    return row(id, cells=lambda profile, tuned: made, judge=judge)


ROWS = [
    row("equations", cells=lambda profile, tuned: [Cell("all", f"{MODULE}:equations", {})], judge=judge_equations),
    row(
        "theory-horizon",
        cells=lambda profile, tuned: [Cell("momentum 0.9", f"{MODULE}:horizon", {})],
        judge=judge_horizon,
    ),
    *(identity(id, *how) for id, how in IDENTITIES.items()),
]
