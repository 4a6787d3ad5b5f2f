"""What the paper derives: its equations, and the statements that need no training."""

from __future__ import annotations

from nlbook.book.ledger.row import Cell, Results, Row, Verdict
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


RULE = (
    "The largest difference of the two sides in float64, over three seeds, decides. Proved if it stays below 1e-9 as printed; partly if only the "
    "form that this book carries does; else not reproduced."
)
COLUMNS = [("holds", "difference", ".0e"), ("printed", "as printed", ".0e")]


def identity(
    id: str,
    source: str,
    title: str,
    claim: str,
    function: str,
    setup: str,
    chapters: tuple[str, ...],
    evidence: tuple[str, ...],
    limits: str,
    control: str = "",
) -> Row:
    made = [Cell("float64", f"{MODULE}:{function}", {"seed": s}) for s in (1, 2, 3)]
    return Row(
        id=id,
        title=title,
        source=source,
        claim=claim,
        paper="A derivation.",
        setup=setup,
        limits=limits,
        chapters=chapters,
        evidence=evidence,
        cells=lambda profile, tuned: made,
        judge=judge_control(control) if control else judge_identity,
        rule=RULE
        + (f" The control ({control}) has to differ by more than 1e-3, or nothing was shown." if control else ""),
        columns=[*COLUMNS, *([(control, f"control: {control}", ".2f")] if control else [])],
    )


ROWS = [
    Row(
        id="equations",
        title="the 121 numbered equations",
        source="Equations",
        claim="The paper numbers 121 equations.",
        paper="121 printed equations.",
        setup="Every equation is in the index `nlbook paper` with its status, a corrected form where one is needed, the code that carries it and the "
        "tests that prove it.",
        rule="Proved if all hold as printed; partly if some do not, but all of those have a form that holds and every equation has a test or is a "
        "definition that needs none; else not reproduced.",
        cells=lambda profile, tuned: [Cell("all", f"{MODULE}:equations", {})],
        judge=judge_equations,
        columns=[
            ("equations", "equations", ".0f"),
            ("ok", "hold", ".0f"),
            ("conv", "hold up to notation", ".0f"),
            ("open", "leave a choice", ".0f"),
            ("text", "slip in the text", ".0f"),
            ("slip", "do not hold as printed", ".0f"),
        ],
        limits="That an equation holds says nothing about whether the model it describes is good. A status is this book's reading.",
        chapters=("12",),
        evidence=("tests/library/test_errata.py", "tests/library/test_paper.py"),
    ),
    identity(
        "theory-training",
        "Section 3.1",
        "training a linear layer is writing into a memory",
        "Gradient descent on a linear layer stores pairs of inputs and errors; since the errors depend on the state, it is not linear attention "
        "over the data.",
        "training_writes",
        "A layer of 5 inputs and 4 outputs, 12 samples, torch's gradients; against the start plus the sum of the written pairs. Control: the same sum "
        "with the errors of the untrained layer.",
        ("02",),
        ("tests/library/test_memory_dual.py::test_a_layer_step_is_a_memory_problem",),
        "Plain gradient descent on one layer; the deep case is a test of its own.",
        "frozen",
    ),
    identity(
        "theory-momentum",
        "Section 3.1 (momentum)",
        "momentum solves an inner problem",
        "Gradient descent with momentum is a system of two levels: the momentum is a memory that minimises an objective about the gradients.",
        "momentum_is_a_memory",
        "The slope of the inner objective at the momentum that the rule writes.",
        ("03",),
        ("tests/library/test_optim_identities.py::test_momentum_solves_its_inner_problem",),
        "Every linear recursion minimises some quadratic; that it does so here is exact, not surprising.",
    ),
    Row(
        id="theory-horizon",
        title="how far back momentum sees",
        source="Section 4.3",
        claim="With decay 0.9 the last 6 gradients make up half of a momentum and the last 43 make up 99%.",
        paper="6 and 43.",
        setup="The weights of the gradients in an exponential average.",
        rule="Proved if 6 gradients make up at least 50% and 43 at least 99%; partly if 7 and 44 do; else not reproduced.",
        cells=lambda profile, tuned: [Cell("momentum 0.9", f"{MODULE}:horizon", {})],
        judge=judge_horizon,
        columns=[(f"last {n}", f"the last {n}", ".4f") for n in (6, 7, 43, 44)],
        limits="The printed numbers are the index of the gradient, counted from 0. What momentum forgets the weights may still hold.",
        chapters=("03",),
        evidence=(
            "tests/library/test_optim_identities.py::test_momentum_remembers_7_gradients_to_half_and_44_to_99_percent",
        ),
    ),
    identity(
        "theory-attention",
        "Section 3.1 (attention)",
        "linear attention is gradient descent",
        "Linear attention is a memory that is written by gradient descent on the dot-product objective, one step a token.",
        "linear_attention_descends",
        "A mixer in its parallel form on 40 tokens, against torch's gradients of the objective, token by token.",
        ("04",),
        ("tests/library/test_errata.py",),
        "One head, unit keys, a rate of 1.",
    ),
    identity(
        "theory-muon",
        "Section 4.2",
        "Newton-Schulz is an inner optimisation",
        "Muon's Newton-Schulz iteration is gradient descent on an objective that makes the momentum orthogonal (eq. 43-44).",
        "newton_schulz_descends",
        "One cubic step against a gradient step; 600 steps of the free and of the printed rule, and how far the result is from "
        "orthogonal.",
        ("03",),
        ("tests/library/test_optim_identities.py::test_newton_schulz_is_gradient_descent_without_the_proximity_term",),
        "The cubic map. The quintic that Muon uses is a gradient step of no rate.",
    ),
    identity(
        "theory-adam",
        "Appendix B",
        "Adam as the best memory of gradients",
        "Adam's step is the optimal solution of a regression on past gradients.",
        "adam_is_an_optimum",
        "The slope of the objective at Adam's step, twelve gradients of six numbers. 'As printed' takes Adam's usual decays 0.9 and 0.999, in the better of "
        "the two weightings.",
        ("03",),
        ("tests/library/test_optim_identities.py::test_adams_usual_betas_minimise_neither_weighted_objective",),
        "With equal decays, weighted sums and a matched target it is exact; Adam is not used that way.",
    ),
    identity(
        "theory-dgd",
        "Section 4.5, Appendix C",
        "delta gradient descent in closed form",
        "The minimiser of the squared loss with a proximal term is gradient descent with a decay that depends on the input (eq. 57).",
        "dgd_closed_form",
        "The slope of the objective at the closed form, inputs of any length.",
        ("03",),
        ("tests/library/test_optim_identities.py::test_dgd_is_the_argmin_with_the_corrected_rate",),
        "As printed it holds for inputs of length 1, which the paper assumes in one place.",
    ),
    identity(
        "theory-parallel",
        "Section 8.2",
        "self-modifying Titans in parallel",
        "The self-modifying memory can be trained chunk by chunk in parallel, with the same result as the sequential rule of the same chunks.",
        "parallel_equals_sequential",
        "Five two-layer memories, 40 tokens, chunks of 1 and of 16; parallel form against token loop.",
        ("09",),
        ("tests/library/test_titans.py::test_the_parallel_form_is_the_definition",),
        "The chunked rule is another rule than the token-wise one: the control measures how far apart their outputs are.",
        "chunked",
    ),
]
