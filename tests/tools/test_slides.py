"""The slides: what is on them, what is for the speaker only, and that nothing runs over the edge of any of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import browser
import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner
from nlbook_tools.site.cells import read_chapters
from nlbook_tools.site.deck import Deck, in_pieces, slides, without_answers
from nlbook_tools.site.twins import Frames

ROOT = Path(__file__).resolve().parents[2]
parse = partial(BeautifulSoup, features="html.parser")
SHOTS = ROOT / "build" / "shots"


def test_code_on_a_slide_does_not_give_the_answer_away():
    source = 'x = 1\ncheck.reveal("01-p1", x, {\n    "a": "why",\n})\nprint(x)\npaper.equation(5)'
    assert without_answers(source) == "x = 1\nprint(x)"
    assert without_answers('check.recall("01-r1")') == 'check.recall("01-r1")'


def test_a_long_table_goes_on_on_the_next_slide_and_loses_no_row():
    def table(n: int) -> str:
        rows = "".join(f"<tr><td>r{i};</td></tr>" for i in range(n))
        return f"<p>x</p><table><thead><tr><th>h</th></tr></thead><tbody>{rows}</tbody></table>"

    assert in_pieces(table(15)) == [table(15)] and in_pieces("no table") == ["no table"]
    made = in_pieces(table(31))
    assert [m.count("<td>") for m in made] == [10, 10, 11] and all("<th>h</th>" in m for m in made)
    assert [f"r{i};" in "".join(made) for i in range(31)] == [True] * 31


@pytest.fixture(scope="module")
def decks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return slides(read_chapters(ROOT / "notebooks"), tmp_path_factory.mktemp("decks"), Frames())


@pytest.fixture(scope="module")
def first() -> Deck:
    (chapter,) = [c for c in read_chapters(ROOT / "notebooks") if c.number == "01"]
    return Deck(chapter, Frames())


def test_answers_and_hints_are_the_speakers(first: Deck):
    every = [s for column in first.columns for s in column]
    kinds = [s.kind for s in every]
    assert kinds[0] == "opening"
    assert {"predict", "exercise", "question", "equation", "picture", "run", "words", "result"} <= set(kinds)
    for s in every:
        notes = "".join(s.notes)
        assert not re.search("<summary>(Hint|Solution|Answer)", s.body), s.title
        if s.kind == "exercise":
            assert "Hint 1" in notes and "Solution" in notes
        if s.kind == "question":
            assert "right:" in notes and "right:" not in s.body
        if s.kind == "predict":
            assert "Measured" in notes and "Measured" not in s.body


def test_every_tagged_cell_of_a_chapter_has_its_slide(first: Deck):
    text = " ".join(s.body + "".join(s.notes) for column in first.columns for s in column)
    for found in ("Forty pairs in a memory", "01-p1", "crosstalk", "interference", "Negative control", "Full steps."):
        assert found in text or any(found == s.title for column in first.columns for s in column), found


def test_a_deck_asks_for_nothing_outside_itself(decks: list[Path]):
    assert len(decks) == len(read_chapters(ROOT / "notebooks"))
    for path in decks:
        page = parse(re.sub(r"<script>.*?</script>", "", path.read_text(encoding="utf-8"), flags=re.S))
        for e in page.find_all(True):
            for key in ("src", "href"):
                assert e.get(key, "data:").startswith(("data:", "#")), (path.name, e.name, e[key][:60])
        assert all(len(e["alt"].split()) >= 8 for e in page.find_all("img"))
        assert "url(" not in re.sub(r'url\("?data:', "", path.read_text(encoding="utf-8").partition("</style>")[0])


def test_an_unknown_chapter_is_named():
    from nlbook_tools.commands.slides import command

    run = CliRunner().invoke(command, ["77"])
    assert run.exit_code == 2 and "no chapter '77'" in run.output


# ---- in the browser -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def projector(chromium: None) -> Iterator[browser.Page]:
    with browser.chrome(SHOTS) as new_page:
        yield new_page(1280, 720)


MEASURE = """[...document.querySelectorAll('.slides > section > section')].map((s, i) => {
    const at = Reveal.getIndices(s);
    Reveal.slide(at.h, at.v, 99);
    const inner = [...s.querySelectorAll('.body > *, h2, pre, img, math')].map((e) => e.getBoundingClientRect());
    const pres = [...s.querySelectorAll('pre')].filter((e) => e.offsetParent);
    return { i, title: s.textContent.trim().slice(0, 40), high: s.scrollHeight, fits: s.dataset.fits,
             scale: Number(s.dataset.scale), right: Math.max(...inner.map((r) => r.right)),
             bottom: Math.max(...inner.map((r) => r.bottom)),
             cut: pres.some((e) => e.scrollWidth > e.clientWidth + 2) }; })"""


@pytest.mark.browser
@pytest.mark.timeout(900)
def test_nothing_runs_over_the_edge(decks: list[Path], projector: browser.Page):
    p = projector
    for path in decks:
        p.goto(path.as_uri())
        p.wait_for_function("window.Reveal && Reveal.isReady()")
        found = p.evaluate(MEASURE)
        assert len(found) > 10
        for s in found:
            assert s["high"] <= 720 and s["right"] <= 1281 and s["bottom"] <= 721 and not s["cut"], (path.name, s)
            assert s["fits"] == "true" and s["scale"] >= 0.6, (path.name, s)  # and nothing is set too small to be read
        assert p.errors == [] and p.outside == []


@pytest.mark.browser
def test_digits_switch_the_picture_and_keys_turn_the_page(decks: list[Path], projector: browser.Page):
    p = projector
    (path,) = [d for d in decks if d.name.startswith("01_")]
    p.goto(path.as_uri())
    p.wait_for_function("window.Reveal && Reveal.isReady()")
    at = p.evaluate(
        "(() => { const s = document.querySelector('.frames').closest('section'), i = Reveal.getIndices(s);"
        " Reveal.slide(i.h, i.v); return [i.h, i.v]; })()"
    )
    shown = ".present .frames img:not([hidden])"
    before = p.locator(shown).get_attribute("alt")
    p.keyboard.press("4")
    assert p.locator(shown).count() == 1 and p.locator(shown).get_attribute("alt") != before
    assert p.locator('.present .frames button[aria-pressed="true"]').inner_text() == "keys overlap"
    p.keyboard.press("ArrowRight")
    assert p.evaluate("Object.values(Reveal.getIndices()).slice(0, 2)") != at
    dark = p.evaluate("getComputedStyle(document.body).backgroundColor")
    p.keyboard.press("t")
    assert p.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    p.keyboard.press("Escape")
    assert p.evaluate("Reveal.isOverview()")
    p.keyboard.press("Escape")
    p.shot("slides-01")
    assert p.errors == []


@pytest.mark.browser
def test_the_speakers_window_follows_the_slides(decks: list[Path], projector: browser.Page):
    p = projector
    (path,) = [d for d in decks if d.name.startswith("05_")]
    p.goto(path.as_uri())
    p.wait_for_function("window.Reveal && Reveal.isReady()")
    with p.context.expect_page() as opened:
        p.keyboard.press("s")
    speaker = opened.value
    notes = speaker.locator(".speaker-controls-notes .value")
    notes.get_by_text("After it one can").wait_for()
    at = p.evaluate(
        "(() => { const s = [...document.querySelectorAll('section.predict')][0], i = Reveal.getIndices(s);"
        " Reveal.slide(i.h, i.v); return s.querySelector('aside.notes').textContent.slice(0, 60); })()"
    )
    assert "choose before anybody speaks" in at
    notes.get_by_text("choose before anybody speaks").wait_for()
    speaker.close()
    assert p.errors == [] and p.outside == []


@pytest.mark.browser
def test_a_printed_deck_has_a_page_a_slide_and_keeps_its_margins(decks: list[Path], projector: browser.Page):
    p = projector
    (path,) = [d for d in decks if d.name.startswith("05_")]
    p.goto(path.as_uri() + "?print-pdf")
    p.wait_for_function("document.querySelectorAll('.pdf-page').length > 0")
    found = p.evaluate("""[...document.querySelectorAll('.pdf-page')].map((page) => {
        const r = page.getBoundingClientRect(), b = page.querySelector('.body').getBoundingClientRect();
        return [b.left - r.left, r.right - b.right, r.bottom - b.bottom]; })""")
    slides_in = p.evaluate("document.querySelectorAll('.pdf-page > section').length")
    assert len(found) == slides_in > 10
    assert all(left >= 60 and right >= 0 and below >= 0 for left, right, below in found), found
    assert p.errors == []
