"""The static site: what it holds, what its own checks find, and what they must not let pass."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner
from nlbook_tools.site import check, twins
from nlbook_tools.site.build import build, clear, views
from nlbook_tools.site.cells import Chapter, Renderer, box, read_chapters
from nlbook_tools.site.maths import inline, mathml, plain
from nlbook_tools.site.text import Writer, page_of

import nlbook
from nlbook import paper
from nlbook.book.viz import all_views, find
from nlbook.errors import NLBookError

ROOT = Path(__file__).resolve().parents[2]
parse = partial(BeautifulSoup, features="html.parser")
MATHS = re.compile(r"\$\$(.+?)\$\$|(?<![\\$])\$([^$\n]+?)\$", re.S)
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.S)
PAGES = {"01_a.ipynb", "teaching/plan.md", "ledger.md"}


# ---- formulas and text ----------------------------------------------------------------------------------------------
def formulas() -> set[tuple[str, bool]]:
    """Every formula of the notebooks, of what they show, and of the index of the paper."""
    texts = [e.markdown() + e.check for e in paper.equations()] + [d.markdown() for d in paper.definitions()]
    texts += [e.markdown() for e in paper.errata()] + [paper.notation().markdown(), paper.glossary().markdown()]
    for chapter in read_chapters(ROOT / "notebooks"):
        for cell in chapter.nb["cells"]:
            if cell["cell_type"] == "markdown":
                texts.append("".join(cell["source"]))
            texts += [
                "".join(o["data"]["text/markdown"])
                for o in cell.get("outputs", [])
                if "text/markdown" in o.get("data", {})
            ]
    return {(d or i, bool(d)) for t in texts for d, i in MATHS.findall(CODE.sub("", t))}


def test_every_formula_of_the_book_becomes_mathml():
    found = formulas()
    assert len(found) > 600
    for latex, display in found:
        made = mathml(latex, display)
        assert made.startswith("<math") and made.endswith("</math>") and "merror" not in made, latex


def test_an_unknown_formula_is_named():
    with pytest.raises(NLBookError, match=r"nosuchmacro"):
        mathml(r"a + \nosuchmacro{b}")


def test_inline_text_escapes_what_is_no_formula():
    made = inline("a < b, `x < y` and $k < v$")
    assert made.startswith("a &lt; b, <code>x &lt; y</code> and <math") and plain(made) == "a < b, x < y and"


@pytest.mark.parametrize(
    ("href", "here", "there"),
    [
        ("01_a.ipynb", "00_b.ipynb", "01_a.html"),
        ("../01_a.ipynb#keys", "teaching/x.md", "../01_a.html#keys"),
        ("plan.md", "teaching/x.md", "plan.html"),
        ("#keys", "00_b.ipynb", "#keys"),
        ("99_none.ipynb", "00_b.ipynb", None),
        ("../README.md", "00_b.ipynb", None),
        ("https://arxiv.org", "00_b.ipynb", "https://arxiv.org"),
        ("images/a.png", "00_b.ipynb", "images/a.png"),
    ],
)
def test_links_between_notebooks_become_links_between_pages(href: str, here: str, there: str | None):
    assert page_of(href, here, PAGES, {"images/a.png"}) == there


def test_a_link_to_no_page_leaves_its_words():
    made = Writer(lambda href: page_of(href, "00_b.ipynb", PAGES, set())).render(
        "See [chapter 99](99_none.ipynb) and [01](01_a.ipynb)."
    )
    assert 'See chapter 99 and <a href="01_a.html">01</a>.' in made


def test_headings_have_anchors_of_their_own():
    writer = Writer(lambda href: href)
    writer.render("# One\n\n## Same $x$\n\n## Same $x$")
    assert [(h.level, h.anchor) for h in writer.headings] == [(1, "one"), (2, "same"), (2, "same-1")]
    writer.render("## Fig. 1: the brain's waves, 7.1")
    assert writer.headings[-1].anchor == "fig-1-the-brains-waves-71"  # as on GitHub


# ---- cells ----------------------------------------------------------------------------------------------------------
def rendered(*cells) -> str:
    nb = nbformat.v4.new_notebook(cells=list(cells), metadata={"nlbook": {"number": "99", "title": "A sample"}})
    kept: dict[str, bytes] = {}
    body = Renderer(Writer(lambda href: href), kept.__setitem__, lambda state: None).body(Chapter("99_sample", nb))
    return body.markup


def code(source: str, *outputs, tags: tuple[str, ...] = ()):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


def test_an_exercise_is_marked_and_its_hints_stay_folded():
    made = rendered(code("def f(x):\n    raise NotImplementedError", tags=("exercise",)))
    assert 'class="yours"' in made and "NotImplementedError" in made
    shown = box(
        '<div role="group" aria-label="Exercise 01-x" style="color:red"><details><summary>Hint 1</summary></details></div>'
    )
    assert 'class="box exercise"' in shown and "style=" not in shown and "<details><summary>Hint 1" in shown


def test_imports_and_single_calls_are_folded_and_code_is_not():
    assert "<summary>Imports" in rendered(code("import torch\nfrom nlbook.book import viz"))
    assert "<summary>Parameters" in rendered(code("seed = 0", tags=("parameters",)))
    assert "<summary>Code" in rendered(code('check.predict("01-p1")'))
    assert "<summary>" not in rendered(code("x = 1\nprint(x)"))


def test_output_text_is_escaped():
    out = nbformat.v4.new_output("stream", text="<b>1 < 2</b>")
    assert "&lt;b&gt;1 &lt; 2&lt;/b&gt;" in rendered(code("print(1)", out))


def test_a_notebook_without_front_matter_is_refused():
    with pytest.raises(NLBookError, match=r"nlbook\.number"):
        Chapter("99_none", nbformat.v4.new_notebook())


# ---- moving pictures ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spec", all_views(), ids=lambda v: v.key)
def test_every_view_has_states_to_choose_from(spec):
    """A lattice names values that the view allows, and enough of them; none is drawn for nothing."""
    base = spec.state()
    grid, found = twins.lattice(spec, base), twins.states(spec, base)
    assert len(found) == len(set(found)) and set(spec.landmarks.values()) <= set(found)
    assert spec.key in twins.LIVE or (3 <= len(found) <= 60 and len(grid) >= 1)
    for name, values in grid.items():
        assert base[name] in values and len(values) == len(set(values)) >= 2


def test_a_frame_is_the_picture_of_its_state():
    a, b, again = (twins.draw(s) for s in ("first_look:keep=0.9", "first_look:keep=1.0", "first_look:keep=0.9"))
    assert a.data == again.data != b.data and a.data[8:12] == b"WEBP"
    assert a.alt == find("first_look").alt("first_look:keep=0.9") and (a.width, a.height) == (700, 310)


def test_frames_are_kept_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = twins.Frames(tmp_path)["first_look:keep=0.9"]
    monkeypatch.setattr(twins, "draw", lambda state: pytest.fail("drawn again"))
    assert twins.Frames(tmp_path)["first_look:keep=0.9"] == first


def test_the_widgets_scripts_work_outside_modules():
    made = views()
    assert (
        "export" not in made
        and "import " not in re.sub(r"//.*", "", made)
        and made.count("return { render };") == len(twins.LIVE)
    )


# ---- a site ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("small") / "site"
    build(ROOT, out, few=True, only=["00"])
    return out


def test_the_site_passes_its_own_checks(small: Path):
    assert check.site(small) == []


def test_the_index_of_equations_is_whole(small: Path):
    page = parse((small / "equations.html").read_text())
    articles = page.find_all("article")
    assert [e["id"] for e in articles] == [f"eq-{n}" for n in range(1, 122)]
    for e, article in zip(paper.equations(), articles):
        assert e.name in article.text and ("What holds:" in article.text) == (e.status == "slip")
    assert (
        len(page.find_all("a", href=re.compile("^code/"))) > 200
    )  # code and tests, each to its line; that the lines exist is checked with the links


def test_the_words_of_the_book_are_on_its_pages(small: Path):
    for href, found in (("notation.html", paper.notation()), ("glossary.html", paper.glossary())):
        page = parse((small / href).read_text())
        assert len(page.find_all("tr")) == len(found) + 1
    text = (small / "definitions.html").read_text()
    assert all(d.name in text for d in paper.definitions())
    assert all(t.title.split(":")[1].strip()[:20] in (small / "tables.html").read_text() for t in paper.tables())


def test_one_page_has_every_public_name(small: Path):
    page = parse((small / "library.html").read_text()).text
    for room in (nlbook.memory, nlbook.optim, nlbook.levels, nlbook.attention, nlbook.cms, nlbook.titans, nlbook.hope):
        assert all(f"{room.__name__.removeprefix('nlbook.')}.{name}" in page for name in room.__all__)


def test_the_chapter_shows_every_cell(small: Path):
    """Nothing of the notebook is lost: each code cell's first line and each text cell's first words are on the page."""
    (chapter,) = [c for c in read_chapters(ROOT / "notebooks") if c.number == "00"]
    page = parse((small / chapter.href).read_text())
    said = " ".join(page.main.text.split())
    for cell in chapter.nb["cells"]:
        first = "".join(cell["source"]).strip().splitlines()[0]
        if cell["cell_type"] == "code":
            assert " ".join(first.split()) in said
        elif "$" not in first and "[" not in first:
            assert re.sub(r"[#*_`>]|^- ", "", first).strip()[:40] in said, first


def test_the_search_index_finds_sections(small: Path):
    text = (small / "assets" / "search-index.js").read_text()
    entries = json.loads(text.partition(" = ")[2].rstrip().rstrip(";"))
    assert any(e["href"] == "equations.html#eq-57" for e in entries)
    for e in entries:
        page, _, fragment = e["href"].partition("#")
        assert e["title"].strip() and f'id="{fragment or "main"}"' in (small / page).read_text(), e


def test_only_a_former_site_is_ever_removed(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("three years")
    with pytest.raises(NLBookError, match="holds other things"):
        clear(tmp_path)
    assert (tmp_path / "thesis.tex").is_file()


SPOILT = {  # what is done to the page of chapter 00 -> what the check says
    "alt": (lambda t: re.sub(r'alt="[^"]*"', 'alt="A plot"', t, count=1), "alternative text"),
    "no alt": (lambda t: re.sub(r' alt="[^"]*"', "", t, count=1), "alternative text"),
    "size": (lambda t: re.sub(r'(<img [^>]*) width="\d+"', r"\1", t, count=1), "no width"),
    "link": (lambda t: t.replace('href="equations.html"', 'href="equation.html"', 1), "leads to no file"),
    "fragment": (lambda t: t.replace('href="#main"', 'href="#main"></a><a href="#nowhere">x', 1), "no such place"),
    "empty": (lambda t: t.replace('href="equations.html"', 'href=" "', 1), "empty address"),
    "absolute": (lambda t: t.replace('href="glossary.html"', 'href="/glossary.html"', 1), "not relative"),
    "outside": (lambda t: t.replace("</head>", '<script src="https://cdn.example.org/a.js"></script></head>'), "asks"),
    "font": (lambda t: t.replace("</head>", '<link rel="stylesheet" href="//fonts.example.org/a.css"></head>'), "asks"),
}


@pytest.mark.parametrize("spoil", SPOILT)
def test_the_check_finds_what_is_wrong(small: Path, spoil: str):
    change, said = SPOILT[spoil]
    before = (small / "00_talk_to_it.html").read_text()
    assert change(before) != before, "the change did nothing"
    tags = check.Tags(change(before)).found
    found = [*check.links("00_talk_to_it.html", tags, small, {"00_talk_to_it.html": set()}), *check.images("", tags)]
    assert any(said in p.what for p in found)


def test_a_missing_frame_is_found(small: Path, tmp_path: Path):
    copy = shutil.copytree(small, tmp_path / "copy")
    next((copy / "twins").glob("*.webp")).unlink()
    assert [p for p in check.twins(copy) if "no file" in p.what]


def test_the_command_says_what_is_wrong_with_a_site(small: Path, tmp_path: Path):
    from nlbook_tools.commands.build import command

    copy = shutil.copytree(small, tmp_path / "copy")
    shutil.rmtree(copy / "code")
    (copy / "glossary.html").unlink()
    run = CliRunner().invoke(command, ["--check", "--out", str(copy)])
    assert run.exit_code == 1 and "glossary.html leads to no file" in run.output


def test_a_formula_and_a_spread_are_not_torn_apart():
    made = Writer(lambda href: href).render("So $w=0.04$. It is 0.84 ± 0.15, `a ± b`; $x$ and $y$: both.")
    assert re.findall(r'<span class="keep"><math.*?</math>([^<]*)</span>', made, re.S) == [".", ":"]
    assert "0.84\u00a0±\u00a00.15" in made and "a ± b" in made
