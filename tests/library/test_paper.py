"""The index of the paper: complete, renderable, in step with the code and the tests that it names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nlbook import paper
from nlbook.book import coverage as scan
from nlbook.errors import NLBookError
from nlbook.paper import show
from nlbook.paper.equations import STATUS

ROOT = Path(__file__).resolve().parents[2]
# Every macro of the index. All were rendered once, without an error, by MathJax 3 (JupyterLab, GitHub) and by KaTeX in
# strict mode; a macro that is not listed here has to pass both before it is added.
MACROS = re.findall(
    r"\w+",
    """
    Big Phi Rightarrow Theta Vert alpha approx arg begin beta big bmod cdot cdots delta dots ell end epsilon equiv eta
    exp frac gamma ge gt hat in lambda langle lbrace lceil le leftarrow lfloor lt mathbb mathbf mathcal mathrm max mid
    min nabla ne neq odot omega otimes overbrace partial phi prod psi qquad quad rangle rbrace rceil rfloor sigma sim
    sin sqrt square subseteq sum text textstyle tfrac theta tilde times to top underbrace varepsilon vert zeta""",
)
SPACES = {",", ";", "%", " ", "\\"}


def every_formula() -> list[tuple[str, str]]:
    """(where, LaTeX) of every formula that the index can show."""
    found = [(f"{e.number}.{f}", getattr(e, f)) for e in paper.equations() for f in ("latex", "correct_latex")]
    texts = ("meaning", "shapes", "note", "check", "definition_only")
    prose = [(f"{e.number}.{f}", getattr(e, f)) for e in paper.equations() for f in texts]
    prose += [(f"definition {d.number}", f"{d.text} {d.remark}") for d in paper.definitions()]
    prose += [("words", str(cell)) for t in (paper.notation(), paper.glossary()) for row in t for cell in row]
    for where, text in prose:
        assert text.count("$") % 2 == 0, where
        found += [(where, part) for part in text.split("$")[1::2]]
    return [(where, latex) for where, latex in found if latex]


def balanced(latex: str) -> bool:
    """Braces, environments and \\left-\\right pairs open and close in order."""
    open_: list[str] = []
    for m in re.finditer(r"\\begin\{(\w+)\}|\\end\{(\w+)\}|\\left\b|\\right\b|\\[a-zA-Z]+|\\.|[{}]", latex):
        token, begin, end = m[0], m[1], m[2]
        if begin or token in ("{", r"\left"):
            open_.append(begin or token)
        elif (end or token in ("}", r"\right")) and (
            not open_ or open_.pop() != (end or {"}": "{", r"\right": r"\left"}[token])
        ):
            return False
    return not open_


# ---- the data --------------------------------------------------------------------------------------------------------
def test_all_121_equations_are_there_and_whole():
    equations = paper.equations()
    assert [e.number for e in equations] == list(range(1, 122))
    for e in equations:
        assert e.status in STATUS and e.number in e.group and e.section and e.name and e.latex
        assert len(e.meaning.split()) >= 3 and e.meaning.endswith((".", "?")), e.number
        assert bool(e.correct_latex) or e.status not in ("slip", "text"), e.number
        assert e.note or e.status not in ("slip", "text", "open", "conv"), e.number


def test_every_number_of_a_block_has_its_own_meaning():
    meanings = [e.meaning for e in paper.equations()]
    assert len(set(meanings)) == len(meanings)


def test_prose_names_no_machine_and_no_source_of_its_own():
    for e in paper.equations():
        text = " ".join((e.meaning, e.note, e.check, e.shapes))
        assert not re.search(r"\bv\d\d\b|\.md\b|\.py\b|verified|digest", text), e.number
        assert text.isascii(), e.number


@pytest.mark.parametrize(
    ("latex", "good"),
    [
        (r"\frac{a}{b}", True),
        (r"\frac{a}{b", False),
        (r"\lbrace a}", False),
        (r"\begin{cases}a\end{cases}", True),
        (r"\begin{cases}a\end{array}", False),
        (r"\left(\frac{1}{2}\right)", True),
        (r"\left(a", False),
        (r"{\right)}", False),
    ],
)
def test_the_balance_check_can_fail(latex, good):
    assert balanced(latex) is good


def test_every_formula_is_balanced_ascii_and_uses_known_macros():
    formulas = every_formula()
    assert len(formulas) > 700
    for where, latex in formulas:
        assert balanced(latex), (where, latex)
        assert latex.isascii() and "$" not in latex, (where, latex)
        macros = set(re.findall(r"\\([a-zA-Z]+|.)", latex))
        assert macros <= {*MACROS, *SPACES}, (where, macros.difference(MACROS, SPACES))
        assert not re.search(r"[<>]|\\[|{}]", latex), (where, latex)  # HTML and Markdown would eat these


def test_definition_only_is_explained():
    only = [e for e in paper.equations() if e.definition_only]
    assert [e.number for e in only] == [24, 25, 36]
    assert all(len(e.definition_only.split()) > 6 for e in only)


# ---- errata ----------------------------------------------------------------------------------------------------------
def test_errata_are_complete_and_each_is_shown_by_a_test_that_exists():
    numbers = [n for e in paper.errata() for n in e.numbers]
    assert sorted(numbers) == [e.number for e in paper.equations() if e.status in ("slip", "text")]
    marked = {
        f"tests/library/test_errata.py::{name}": numbers
        for name, numbers in scan.marked_in((ROOT / "tests/library/test_errata.py").read_text()).items()
    }
    assert {e.test for e in paper.errata()} == set(marked)
    for e in paper.errata():
        assert e.printed and e.holds and len(e.why) > 20
        assert not set(e.printed) & set(e.holds)
        assert set(e.numbers) <= marked[e.test], e.label
        assert paper.equation(e.numbers[0]).errata == e


def test_an_equation_that_stands_has_no_erratum():
    assert paper.equation(8).errata is None and paper.equation(57).errata is not None


# ---- looking things up -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [0, 122, -1, "57", 5.0, True, None])
def test_a_number_that_is_not_in_the_paper_is_refused(number):
    with pytest.raises(NLBookError, match=r"^number: got .*, expected a whole number from 1 to 121"):
        paper.equation(number)


def test_definitions_and_tables():
    assert [d.number for d in paper.definitions()] == list(range(1, 8))
    assert paper.definition(5).equations == (59, 60)
    with pytest.raises(NLBookError, match="from 1 to 7"):
        paper.definition(8)
    with pytest.raises(NLBookError, match="expected one of 1, 2, 3, 4, 5, 6, short-1"):
        paper.table(7)
    assert [len(t) for t in paper.tables()] == [7, 22, 5, 5, 6, 8, 14]
    for t in paper.tables():
        assert all(len(row) == len(t.columns) for row in t)


def test_what_the_notes_say_of_the_tables_is_so():
    one, two, six = paper.table(1), paper.table(2), paper.table(6)
    rows = {row[0]: row[1:] for row in one}
    free = [rows[m] for m in rows if m not in ("Transformer", "Hope-Attention")]
    assert sum(h == max(column) for h, column in zip(rows["Hope"], zip(*free))) == 16
    wrong = {(row[0], row[1]) for row in two if abs(sum(row[4:12]) / 8 - row[12]) > 0.05}
    assert wrong == {("760M/30B", "TTT"), ("1.3B/100B", "Comba")}
    ppl = dict(zip(six["model"], six["ppl"]))
    assert min(ppl, key=ppl.get) == "w/o inner-projection q" and ppl["Hope"] == 12.24
    with pytest.raises(NLBookError, match="column: got 'loss'"):
        six["loss"]


def test_notation_covers_the_four_words():
    words = " ".join(paper.notation()["meaning"])
    assert all(word in words for word in ("key", "value", "query", "write rate", "retention"))
    assert "objective" in "".join(paper.notation()["code"])


# ---- shown in a notebook ---------------------------------------------------------------------------------------------
def everything_shown() -> list[show.Shown]:
    lists = [*paper.equations(), *paper.errata(), *paper.definitions(), *paper.tables()]
    return [*lists, paper.errata(), paper.notation(), paper.glossary()]


def test_everything_shows_itself_as_markdown_and_text():
    for thing in everything_shown():
        bundle = thing._repr_mimebundle_()
        assert set(bundle) == {"text/markdown", "text/plain"} and all(bundle.values())


def test_the_markdown_is_safe_on_github():
    """Maths between dollars only, display maths on its own lines, and tables whose rows agree with their head."""
    for thing in everything_shown():
        text = thing.markdown()
        assert not re.search(r"\\\[|\\\(|:::|\{math\}|\\newcommand|\\operatorname|\\tag", text)
        assert all(line == "$$" for line in text.splitlines() if "$$" in line)
        assert text.count("$$") % 2 == 0 and text.replace("$$", "").count("$") % 2 == 0
        widths = {line.count("|") for line in text.splitlines() if line.startswith("| ")}
        assert len(widths) <= 1


def test_the_printed_form_gives_no_correction_away():
    e = paper.equation(57)
    for text in (e.printed.markdown(), str(e.printed)):
        assert e.latex in text and e.correct_latex not in text and e.note[:20] not in text


def test_an_equation_shows_what_holds_and_folds_what_is_printed():
    e = paper.equation(57)
    text, _, fold = e.markdown().partition("<details><summary>Does not hold as printed</summary>")
    assert e.correct_latex in text and e.meaning in text and e.latex not in text and e.note not in text
    assert e.latex in fold and e.note in fold and fold.endswith("</details>") and "nlbook/" not in text + fold


def test_a_pipe_in_a_cell_breaks_neither_table_nor_maths():
    text = show.table(("a",), [("$|x|$ or a|b",)])
    assert text.splitlines()[-1] == r"| $\vert x\vert $ or a&#124;b |"


def test_looking_an_equation_up_does_not_load_torch():
    code = "import sys; from nlbook import paper; paper.equation(57).markdown(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
