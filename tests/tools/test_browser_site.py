"""The static site in a real browser, opened from its folder: desktop and phone, light and dark, mouse and keyboard."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
from axe_playwright_python.sync_playwright import Axe
from nlbook_tools.site.build import build

from nlbook.book import viz
from nlbook.book.chapters.levels.detective import judge
from nlbook.book.ledger.verdicts import verdicts

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "build" / "shots"
DESKTOP, PHONE = (1280, 900), (390, 844)
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, chromium: None) -> Path:
    out = tmp_path_factory.mktemp("web") / "a folder with spaces"
    build(ROOT, out, few=True, only=["00", "01", "04", "05", "07", "08", "C"])
    return out


@pytest.fixture(scope="module")
def new_page() -> Iterator[Callable[..., browser.Page]]:
    with browser.chrome(SHOTS) as make:
        yield make


def opened(
    new_page: Callable[..., browser.Page], site: Path, name: str, size: tuple[int, int] = DESKTOP, scheme: str = "light"
) -> browser.Page:
    p = new_page(*size, scheme=scheme)
    page, _, fragment = name.partition("#")
    p.goto((site / page).as_uri() + (f"#{fragment}" if fragment else ""))
    p.wait_for_load_state("load")
    return p


def seen(box: Any) -> bytes:
    """What is to be seen of a part of the page (a page opened from a folder may not read its own pictures)."""
    return box.screenshot(animations="disabled")


def changed(box: Any, before: bytes, timeout_s: float = 20) -> None:
    """Wait until it looks different."""
    end = time.monotonic() + timeout_s
    while seen(box) == before:
        assert time.monotonic() < end, "the picture did not change"
        box.page.wait_for_timeout(50)


def clean(p: browser.Page) -> None:
    """No error in the console, no request to another machine, nothing wider than the window."""
    assert p.errors == [] and p.outside == []
    assert p.evaluate("document.documentElement.scrollWidth <= innerWidth")


def breaches(p: browser.Page, part: str | None = None) -> list[str]:
    """What axe-core has to say about accessibility: labels, headings, landmarks, contrast and some hundred rules."""
    return [f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in Axe().run(p, part).response["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "name",
    ["index.html", "01_a_memory_you_can_hold.html", "tables.html", "ledger.html", "code/nlbook/memory/rules.py.html"],
)
def test_pages_are_accessible(site: Path, new_page: Callable[..., browser.Page], name: str, scheme: str):
    assert breaches(opened(new_page, site, name, scheme=scheme)) == []


def test_the_index_of_equations_is_accessible(site: Path, new_page: Callable[..., browser.Page]):
    some = "article:nth-of-type(4n)"  # every fourth: all of them take a minute
    assert breaches(opened(new_page, site, "equations.html"), some) == []


SPOIL = {  # what is done to a page -> the rule that finds it
    "document.querySelector('main').append(document.createElement('button'))": "button-name",
    "document.documentElement.removeAttribute('lang')": "html-has-lang",
    "document.querySelector('h2').outerHTML = '<h4>x</h4>'": "heading-order",
    "document.documentElement.style.setProperty('--soft', '#9a9a9a')": "color-contrast",
    "document.querySelector('main').append(document.createElement('input'))": "label",
}


@pytest.mark.parametrize(("act", "rule"), SPOIL.items(), ids=SPOIL.values())
def test_what_is_not_accessible_is_found(site: Path, new_page: Callable[..., browser.Page], act: str, rule: str):
    p = opened(new_page, site, "index.html")
    p.evaluate(act)
    assert rule in " ".join(breaches(p))


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize(
    "name",
    [
        "index.html",
        "01_a_memory_you_can_hold.html",
        "07_hope_whole.html",
        "C_errata_and_ledger.html",
        "equations.html",
        "ledger.html",
        "glossary.html",
        "code/nlbook/memory/rules.py.html",
    ],
)
def test_pages_open_from_a_folder(site: Path, new_page: Callable[..., browser.Page], name: str, size: tuple[int, int]):
    p = opened(new_page, site, name, size)
    p.wait_for_function("document.fonts.ready.then(() => true)")
    loaded = set(p.evaluate("[...document.fonts].filter((f) => f.status === 'loaded').map((f) => f.family)"))
    assert {"Source Sans 3"} <= {f.strip('"') for f in loaded}  # fonts are found from a folder, too
    clean(p)
    p.shot(f"site-{Path(name).stem}-{size[0]}")


def test_formulas_are_drawn_without_a_script(site: Path, new_page: Callable[..., browser.Page]):
    p = opened(new_page, site, "equations.html")
    boxes = p.evaluate(
        "[...document.querySelectorAll('article .display math')].map((m) => [m.getBoundingClientRect().width,"
        " m.getBoundingClientRect().height, getComputedStyle(m).fontFamily])"
    )
    assert len(boxes) > 121 and all(w > 20 and h > 12 and "STIX Two Math" in f for w, h, f in boxes)
    assert p.evaluate("document.querySelectorAll('merror').length") == 0


def test_search_finds_a_word_and_goes_there(site: Path, new_page: Callable[..., browser.Page]):
    p = opened(new_page, site, "equations.html", PHONE)
    p.keyboard.press("/")
    p.keyboard.type("crosstalk")
    first = p.locator("dialog ol a").first
    first.wait_for()
    assert "01 · A memory you can hold" in p.locator("dialog ol").inner_text()
    p.keyboard.press("Enter")
    p.wait_for_url("**/01_a_memory_you_can_hold.html#*")
    p.keyboard.press("/")
    p.keyboard.type("zzzz")
    p.get_by_text("Nothing found.").wait_for()
    p.keyboard.press("Escape")
    assert not p.locator("dialog").is_visible()
    clean(p)


def test_the_theme_follows_the_system_until_the_reader_chooses(site: Path, new_page: Callable[..., browser.Page]):
    paper = "getComputedStyle(document.body).backgroundColor"
    p = opened(new_page, site, "index.html", scheme="dark")
    dark = p.evaluate(paper)
    p.locator("button.theme").click()
    light = p.evaluate(paper)
    assert dark != light == opened(new_page, site, "index.html").evaluate(paper)
    p.reload()
    assert p.evaluate(paper) == light  # remembered
    clean(p)


def test_the_keyboard_reaches_everything(site: Path, new_page: Callable[..., browser.Page]):
    p = opened(new_page, site, "01_a_memory_you_can_hold.html")
    stops = []
    for _ in range(400):
        p.keyboard.press("Tab")
        stops.append(
            p.evaluate(
                "(() => { const e = document.activeElement, s = getComputedStyle(e);"
                " return [e.className || e.dataset.param || e.dataset.state || e.tagName, e.textContent.trim()"
                ".slice(0, 30), s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0]; })()"
            )
        )
        if "keys overlap" in stops[-1][1]:
            break
    names = [s[0] for s in stops]
    assert names[0] == "skip" and {"find", "theme", "n", "rho", "rule"} <= set(names) and "keys overlap" in stops[-1][1]
    assert all(seen for *_, seen in stops), [s for s in stops if not s[2]]  # the focus is always to be seen
    before = seen(p.locator("figure.twin img"))
    p.keyboard.press("Enter")
    changed(p.locator("figure.twin img"), before)
    clean(p)


def test_the_chapter_list_opens_on_a_phone(site: Path, new_page: Callable[..., browser.Page]):
    p = opened(new_page, site, "index.html", PHONE)
    assert not p.locator("#chapters").is_visible()
    p.locator("button.menu").click()
    assert p.locator("#chapters").is_visible() and p.locator("button.menu").get_attribute("aria-expanded") == "true"
    p.keyboard.press("Escape")
    assert not p.locator("#chapters").is_visible()


def test_landmarks_change_the_picture_and_its_words(site: Path, new_page: Callable[..., browser.Page]):
    p = opened(new_page, site, "01_a_memory_you_can_hold.html", PHONE)
    twin = p.locator("figure.twin")
    before = seen(twin.locator("img"))
    twin.get_by_role("button", name="keys overlap", exact=True).click()
    changed(twin.locator("img"), before)
    state = "interference:rule=delta,rho=0.5"
    assert twin.locator("img").get_attribute("alt") == viz.find("interference").alt(state)
    assert twin.locator(".state code").inner_text() == f'viz.load("{state}")'
    clean(p)


def test_a_memory_of_the_reader_is_held(site: Path, new_page: Callable[..., browser.Page]):
    p = opened(new_page, site, "07_hope_whole.html")
    twin = p.locator("figure.twin")
    before = seen(twin.locator("img"))
    assert twin.locator("select option").all_inner_texts()[:2] == [
        "nothing",
        "M_mem",
    ]  # each memory can be held, one by one
    twin.get_by_role("button", name="hold M memory").click()
    changed(twin.locator("img"), before)
    assert twin.locator("img").get_attribute("alt") == viz.find("reading").alt("reading:hold=M_mem")
    clean(p)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_ledgers_board_shows_a_row_and_filters(
    site: Path, new_page: Callable[..., browser.Page], size: tuple[int, int]
):
    rows = verdicts()
    p = opened(new_page, site, "C_errata_and_ledger.html", size)
    twin = p.locator("figure.twin")
    box = twin.locator(".nlbook-ledger")
    options = box.get_by_role("option")
    options.nth(1).click()
    box.locator(".card").get_by_text(rows[1].title).wait_for()
    p.keyboard.press("ArrowDown")
    box.locator(".card").get_by_text(rows[2].title).wait_for()
    assert options.count() == len(rows) and rows[2].command in box.locator(".card code").inner_text()
    word = rows[0].verdict
    twin.locator(".landmarks").get_by_role("button", name=word).first.click()
    p.wait_for_function(
        "n => document.querySelectorAll('.nlbook-ledger [role=option]').length === n", arg=rows.count(word)
    )
    clean(p)


def test_paper_is_white_and_nothing_is_cut_off_when_a_page_is_printed(
    site: Path, new_page: Callable[..., browser.Page]
):
    p = opened(new_page, site, "07_hope_whole.html", scheme="dark")
    dark = p.evaluate("getComputedStyle(document.body).color")
    p.emulate_media(media="print")
    p.set_viewport_size({"width": 700, "height": 900})
    assert p.evaluate("getComputedStyle(document.body).color") != dark
    cut = p.evaluate(
        "[...document.querySelectorAll('article pre')].filter((e) => e.scrollWidth > e.clientWidth + 1).length"
    )
    assert cut == 0 and not p.locator("#chapters").is_visible()


def test_a_prediction_is_kept_and_stands_beside_the_result(site: Path, new_page: Callable[..., browser.Page]):
    p = opened(new_page, site, "01_a_memory_you_can_hold.html")
    result = p.locator('.box.result[aria-label="Result of prediction 01-p2"]')
    assert not result.is_visible()  # folded until something is predicted
    p.locator('.box.predict[aria-label="Prediction 01-p2"] input').nth(3).check()
    assert "You predicted: Hebbian (5, 5), delta (0, 5)" in result.inner_text()
    p.reload()
    assert "You predicted: Hebbian (5, 5), delta (0, 5)" in result.inner_text()
    clean(p)


def test_each_option_of_a_question_answers_for_itself(site: Path, new_page: Callable[..., browser.Page]):
    p = opened(new_page, site, "01_a_memory_you_can_hold.html")
    box = p.locator(".box.question").first
    options = box.locator("input")
    answers = []
    for i in range(options.count()):
        options.nth(i).check()
        answers.append(box.locator(".said").inner_text())
    assert len(set(answers)) == options.count() > 2
    assert sorted(a.startswith("right:") for a in answers) == [False] * (options.count() - 1) + [True]
    clean(p)


def test_the_detective_judges_as_python_does(site: Path, new_page: Callable[..., browser.Page]):
    """The page's judgement of random orders against nlbook.levels, and one part moved by the keyboard."""
    p = opened(new_page, site, "04_who_is_written_how_often.html")
    spec, pick = viz.find("detective"), random.Random(0)
    for system in ("pair", "layer", "deployed", "momentum", "M3"):
        names = [c.name for c in judge(spec.state(f"system={system}")).system.components]
        orders = [[pick.randint(0, 3) for _ in names] for _ in range(12)] + [
            [pick.randint(1, 4) for _ in names] for _ in range(12)
        ]
        for lanes in [*orders, [1] * len(names), [0] * len(names)]:
            case = judge(spec.state(system=system, lanes=tuple(lanes)))
            got = p.evaluate(
                "([system, lanes]) => { const t = Object.values(nlbookTwins)[0].systems[system]; const r = nlbookJudge(t,"
                " Object.fromEntries(t.names.map((n, i) => [n, lanes[i]]))); return { ...r, trouble: [...r.trouble] }; }",
                [system, lanes],
            )
            assert (got["verdict"], got["messages"], got["solved"]) == (case.verdict(), case.messages(), case.solved)
            assert set(got["trouble"]) == case.names_in_trouble
            assert got["labels"] == [case.label(i) for i in range(1, 6)]
    p.get_by_role("button", name="the layer, solved").click()
    assert "Solved: 4 levels" in p.locator(".verdict").inner_text()
    p.locator('.part[data-name="M_t"]').focus()
    p.keyboard.press("ArrowDown")
    p.keyboard.press("ArrowDown")
    assert "broken" in p.locator(".verdict").inner_text()
    assert "lanes=1,1,2,2,4,1,1" in p.locator("figure.twin .state code").first.inner_text()
    clean(p)


def test_every_cell_of_the_stability_map_has_its_run(site: Path, new_page: Callable[..., browser.Page]):
    p = opened(new_page, site, "05_clocks.html", PHONE)
    twin = p.locator("figure.twin").filter(has=p.locator("td button"))
    chosen = twin.locator('td button[aria-pressed="true"]')
    assert "period 16, step 0.5" in chosen.get_attribute("aria-label")
    before = seen(twin.locator("img"))
    chosen.focus()
    p.keyboard.press("ArrowRight")
    changed(twin.locator("img"), before)
    assert twin.locator(".state code").inner_text() == 'viz.load("stability:period=32")'
    assert "diverges" in twin.locator("img").get_attribute("alt")
    clean(p)


@pytest.mark.parametrize(
    ("page", "picture"), [("index.html", "shop"), ("00_talk_to_it.html", "talk"), ("05_clocks.html", "score")]
)
def test_live_pictures_are_computed_in_the_page(site: Path, new_page: Callable[..., browser.Page], page, picture):
    p = opened(new_page, site, page)
    p.locator(f".nlbook-{picture} button").first.wait_for()
    if picture == "shop":
        p.wait_for_timeout(2000)
        assert p.locator(".nlbook-shop .where").inner_text() != "document 1, pair 0"
    elif picture == "score":
        p.locator(".nlbook-score").first.scroll_into_view_if_needed()
        p.wait_for_function("() => /^token [1-9]/.test(document.querySelector('.nlbook-score .where').textContent)")
    else:
        p.get_by_role("button", name="A", exact=True).first.click()
        assert p.locator(".nlbook-talk .asked").inner_text() == "What is A?"
    clean(p)


def test_without_scripts_the_chapter_can_be_read(site: Path, new_page: Callable[..., browser.Page]):
    """The picture, the text and the navigation are in the page itself; what needs a script is not shown."""
    p = new_page(*DESKTOP, scripts=False)
    p.goto((site / "01_a_memory_you_can_hold.html").as_uri())
    assert p.locator("figure.twin img").is_visible() and not p.locator(".twin-controls").is_visible()
    assert not p.locator("button.find").is_visible() and p.locator("#chapters").is_visible()
