"""The book in a real browser: JupyterLab and Chromium, a mouse and a keyboard, and nobody else on the line."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import browser
import nbformat
import pytest

from nlbook.book import viz

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build" / "shots"
CHAPTER = sorted((ROOT / "notebooks").glob("01_*.ipynb"))
BENCH = viz.find("interference")
pytestmark = pytest.mark.browser

CELLS = [
    """
from nlbook.book import viz
viz.load("interference:n=8")
""",
    """
@viz.view("fragile", title="Breaks at nine", task="Move it to nine.", answer="It breaks.",
          params=[viz.Int("n", 8, 1, 9)], facts=lambda s: {"n": s.n},
          alt=lambda s, f: f"A straight line from zero up to the number {s.n}.")
def draw(state):
    fig = viz.figure(5, 1.6)
    fig.subplots().plot([0, 10 / (9 - state.n)])
    return fig

viz.load("fragile")
""",
    """
viz.score()
""",
    """
import time, torch
from nlbook.levels import Trace
net = torch.nn.Linear(4, 1)
sgd = torch.optim.SGD(net.parameters(), lr=0.1)
with Trace(net, sgd) as trace:
    display(viz.score(trace))
    for step in range(30):
        net(torch.ones(1, 4)).sum().backward()
        sgd.step()
        time.sleep(0.05)
""",
    """
viz.load("detective")
""",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, chromium: None) -> Iterator[browser.Server]:
    root = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c.strip()) for c in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, root / "pictures.ipynb")
    for chapter in CHAPTER:
        shutil.copy(chapter, root)
    if (ROOT / "data").is_dir():
        shutil.copytree(ROOT / "data", root / "data")
    with browser.lab(root) as running:
        yield running


@pytest.fixture(scope="module")
def new_page(server: browser.Server) -> Iterator[Callable[..., browser.Page]]:
    with browser.chrome(SHOTS) as make:
        yield make


@pytest.fixture(scope="module")
def lab(server: browser.Server, new_page: Callable[..., browser.Page]) -> browser.Page:
    """The notebook of CELLS, run once, shared by the tests below."""
    page = new_page(height=2300)
    browser.open_notebook(page, server, "pictures.ipynb")
    page.evaluate(
        "() => { window.heard = [];"
        " addEventListener('nlbook-trace', () => heard.push(Object.values(nlbookTraces)[0])); }"
    )
    browser.run_all(page)
    page.locator("canvas").first.wait_for(timeout=20_000)
    page.locator(".nlbook-screen img").first.wait_for(timeout=20_000)
    page.wait_for_timeout(300)
    page.shot("1_run_all")
    return page


@pytest.fixture(autouse=True)
def nothing_went_wrong(lab: browser.Page) -> Iterator[None]:
    lab.errors.clear()
    yield
    assert not lab.errors, f"errors in the page: {lab.errors}"
    assert not lab.outside, f"requests left this machine: {lab.outside}"


def test_mouse_and_keyboard_move_the_picture(lab: browser.Page) -> None:
    box = lab.locator(".nlbook-picture").nth(0)
    handle, shown = box.locator(".noUi-handle").first, box.locator(".nlbook-state code")
    old = browser.picture(box)
    browser.drag(lab, handle, 60)
    browser.wait_change(lab, box, old)
    lab.wait_for_timeout(700)  # what was still on its way
    n = int(box.locator(".widget-readout").first.inner_text())
    assert n > 8 and shown.inner_text() == f'viz.load("{BENCH.state(n=n)}")'  # the last value is the one that is drawn
    lab.shot("2_drag")
    old = browser.picture(box)
    handle.focus()
    lab.keyboard.press("ArrowLeft")  # the drag may have reached the right end
    browser.wait_change(lab, box, old)
    lab.wait_for_timeout(700)
    m = int(box.locator(".widget-readout").first.inner_text())
    assert m < n and shown.inner_text() == f'viz.load("{BENCH.state(n=m)}")'


def test_a_landmark_is_one_click(lab: browser.Page) -> None:
    box = lab.locator(".nlbook-picture").nth(0)
    old = browser.picture(box)
    box.get_by_role("button", name="delta, key written again").click()
    browser.wait_change(lab, box, old)
    assert box.locator(".nlbook-state code").inner_text() == 'viz.load("interference:n=4,rule=delta,again=1")'
    box.get_by_role("button", name="Copy state").click()
    lab.wait_for_timeout(200)
    assert lab.evaluate("() => navigator.clipboard.readText()") == "interference:n=4,rule=delta,again=1"
    box.get_by_role("button", name="More").click()
    assert box.locator("input[type=checkbox]").is_checked()
    box.get_by_text("Describe the picture").click()
    assert "Settings: pairs n 4" in box.locator(".nlbook-describe").inner_text()
    box.locator("summary", has_text="Answer").click()
    lab.shot("3_landmark")


def test_every_picture_has_words(lab: browser.Page) -> None:
    for image in lab.locator(".jp-OutputArea img:visible").all():
        assert len((image.get_attribute("alt") or "").split()) >= 8
    for canvas in lab.locator(".jp-OutputArea canvas").all():
        assert len((canvas.get_attribute("aria-label") or "").split()) >= 8


def test_an_error_in_draw_is_shown_and_goes_away(lab: browser.Page) -> None:
    box = lab.locator(".nlbook-picture").nth(1)
    box.locator(".noUi-handle").first.focus()
    lab.keyboard.press("ArrowRight")
    box.locator("pre.nlbook-error").wait_for(timeout=20_000)
    assert "ZeroDivisionError" in box.locator("pre.nlbook-error").inner_text()
    lab.shot("4_error")
    lab.keyboard.press("ArrowLeft")
    box.locator("pre.nlbook-error").wait_for(state="detached", timeout=20_000)


def test_the_detective_takes_mouse_and_keyboard(lab: browser.Page) -> None:
    box = lab.locator(".nlbook-detective")
    box.scroll_into_view_if_needed()
    shown = lab.locator(".nlbook-picture", has=box).locator(".nlbook-state code")

    def move(name: str, lane: int, says: str) -> None:
        part = box.locator(f".part[data-name='{name}']")
        part.drag_to(box.locator(f".lane[data-lane='{lane}'] .label"))
        browser.wait_text(lab, shown, says)

    box.locator(".part[data-name='W_k']").focus()
    for lanes in ("lanes=1,0,0,0,0,0,0", "lanes=2,0,0,0,0,0,0"):
        lab.keyboard.press("ArrowUp")
        browser.wait_text(lab, shown, lanes)  # the part keeps the focus when the board is drawn again
    move("m_t", 1, "lanes=2,0,1,0,0,0,0")
    browser.wait_text(lab, box.locator("li").first, "m_t > W_k is violated")
    assert box.locator("svg path").count() == 1 and box.locator(".part.trouble").count() == 2
    lab.shot("5_detective_broken")
    for name, lane, lanes in (
        ("m_t", 3, "2,0,3,0,0,0,0"),
        ("v_t", 3, "2,0,3,3,0,0,0"),
        ("M_t", 4, "2,4,3,3,0,0,0"),
        ("attention", 5, "2,4,3,3,5,0,0"),
        ("MLP", 2, "2,4,3,3,5,2,0"),
        ("W_init", 2, "2,4,3,3,5,2,2"),
    ):
        move(name, lane, f"lanes={lanes}")
    browser.wait_text(lab, box.locator(".verdict"), "Solved: 4 levels")
    lab.shot("6_detective_solved")


def test_the_score_plays_and_steps_by_keyboard(lab: browser.Page) -> None:
    score = lab.locator(".nlbook-score").first
    score.scroll_into_view_if_needed()
    roll = score.locator(".roll")
    keys = (
        ("Home", "nothing is written"),
        ("ArrowRight", "Token 1: "),
        ("ArrowLeft", "nothing is written"),
        ("End", "Token 144: "),
    )
    for part in (score.locator(".scrub"), roll):  # JupyterLab has a use of its own for the arrows
        part.focus()
        for key, says in keys:
            lab.keyboard.press(key)
            browser.wait_text(lab, score.locator(".said"), says)
    lab.keyboard.press(" ")  # from the beginning again
    lab.wait_for_timeout(200)
    rate = lab.evaluate(
        "(e) => new Promise((done) => { const n = e.nlbookFrames, t = performance.now();"
        " setTimeout(() => done((e.nlbookFrames - n) / (performance.now() - t) * 1000), 1000); })",
        score.element_handle(),
    )
    lab.shot("5_score")
    lab.keyboard.press(" ")
    assert rate >= 5, f"{rate:.0f} frames a second"  # it plays; how smoothly is for a quiet machine to say
    browser.wait_text(lab, score.locator(".play"), "Play")


def test_the_score_stands_still_for_those_who_ask(lab: browser.Page) -> None:
    score = lab.locator(".nlbook-score").first
    lab.emulate_media(reduced_motion="reduce")
    try:
        score.locator(".roll").focus()
        lab.keyboard.press("Home")
        lab.keyboard.press(" ")
        start, seen = time.monotonic(), []
        for _ in range(16):
            lab.wait_for_timeout(60)
            seen.append(browser.picture(score))
        tokens = 14 * (time.monotonic() - start)
        lab.keyboard.press(" ")
        assert 2 <= len(set(seen)) <= tokens + 2, (len(set(seen)), tokens)  # nothing moves between two tokens
    finally:
        lab.emulate_media(reduced_motion="no-preference")


def test_the_score_of_a_model_grows_while_it_trains(lab: browser.Page) -> None:
    heard = lab.evaluate("() => heard.map((d) => [d.length, d.live])")
    lengths, live = zip(*heard, strict=True)
    assert len({n for n, on in heard if on}) >= 3 and lengths[-1] == 30 and not live[-1]
    score = lab.locator(".nlbook-score").nth(1)
    score.get_by_role("button", name="Step").click()
    browser.wait_text(lab, score.locator(".where"), "step 30 of 30")
    browser.wait_text(lab, score.locator(".said"), "It moved by")


def test_chapter_memory_runs_and_moves(server: browser.Server, new_page: Callable[..., browser.Page]) -> None:
    if not CHAPTER:
        pytest.skip("notebooks/01_*.ipynb is not built yet")
    page = new_page()
    browser.open_notebook(page, server, CHAPTER[0].name)
    browser.run_all(page)
    box = page.locator(".nlbook-picture").first
    for _ in range(40):  # cells far away are not laid out yet: scrolling to one moves it
        box.scroll_into_view_if_needed()
        page.wait_for_timeout(500)
        if box.locator(".nlbook-screen img").is_visible():
            break
    old = browser.picture(box)
    browser.drag(page, box.locator(".noUi-handle").first, 50)
    browser.wait_change(page, box, old)
    page.shot("7_chapter_01")
    assert not page.errors and not page.outside, (page.errors, page.outside)
    assert page.locator("pre.nlbook-error").count() == 0
