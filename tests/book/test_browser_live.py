"""The live pictures in a real browser, at three widths, light and dark: in motion, quick, accessible, nothing wrong."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import browser
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe

from nlbook.book import viz
from nlbook.book.chapters.hope import talker
from nlbook.levels import Trace

pytestmark = pytest.mark.browser
PICTURES = ("shop", "score", "played", "talk")
GROUND = "<style>@media (prefers-color-scheme: dark) { body { background: #15161a; --ink: #e9e6df; } }</style>"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, chromium: None) -> dict[str, Path]:
    """A page for each picture, as a notebook's output would be."""
    net = torch.nn.Linear(4, 1)
    with Trace(net, torch.optim.Adam(net.parameters())) as trace:
        played = viz.score(trace)
        for _ in range(24):
            net(torch.ones(1, 4)).sum().backward()
            trace.optimizers[0].step()
    shown = {"shop": viz.shop(), "score": viz.score(), "played": played, "talk": talker.talk()}
    folder, files = tmp_path_factory.mktemp("live"), {}
    for name, picture in shown.items():
        data = picture.data() if name == "played" else ""
        head = "<!doctype html><html lang=en><meta charset=utf-8><title>picture</title><meta name=color-scheme "
        head += f"content='light dark'><meta name=viewport content='width=device-width'>{GROUND}<main><h1>picture</h1>"
        files[name] = folder / f"{name}.html"
        files[name].write_text(head + picture._repr_html_() + data + "</main>")
    return files


@pytest.fixture(scope="module")
def new_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., browser.Page]]:
    with browser.chrome(tmp_path_factory.mktemp("shots")) as make:
        yield make


def opened(new_page: Callable[..., browser.Page], file: Path, width: int = 1280, scheme: str = "light") -> browser.Page:
    p = new_page(width=width, scheme=scheme)
    p.goto(file.as_uri())
    return p


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize(
    ("width", "scheme"),
    [(w, s) for w in (1280, 1600, 390) for s in ("light", "dark")],
)
def test_nothing_is_wrong_at_any_width(pages, new_page, name: str, width: int, scheme: str) -> None:
    p = opened(new_page, pages[name], width, scheme)
    p.wait_for_timeout(300)
    found = Axe().run(p).response["violations"]
    serious = [(v["id"], v["nodes"][0]["html"][:100]) for v in found if v["impact"] in ("serious", "critical")]
    assert not serious
    assert not p.errors and not p.outside
    assert p.evaluate("document.documentElement.scrollWidth <= innerWidth")
    p.context.close()


@pytest.mark.parametrize("name", PICTURES[:3])
def test_it_moves_without_a_click_and_not_for_those_who_ask_for_calm(pages, new_page, name: str) -> None:
    p = opened(new_page, pages[name])
    first = p.inner_text(".where")
    p.wait_for_function("t => document.querySelector('.where').textContent !== t", arg=first, timeout=2000)
    q = new_page()
    q.emulate_media(reduced_motion="reduce")
    q.goto(pages[name].as_uri())
    q.wait_for_timeout(200)
    first = q.inner_text(".where")
    q.wait_for_timeout(1200)
    assert q.inner_text(".where") == first


def test_typing_changes_the_bars_at_once(pages, new_page) -> None:
    p = opened(new_page, pages["talk"])
    p.evaluate(
        """() => { window.took = []; let at = 0; // from the key that goes down to the bar that moves
        document.querySelector('.line').addEventListener('keydown', () => { at = performance.now(); }, true);
        new MutationObserver(() => { if (at) { took.push(performance.now() - at); at = 0; } })
          .observe(document.querySelector('.bars'), { subtree: true, attributes: true }); }"""
    )
    p.focus(".line")
    medians = []
    for _ in range(5):  # the best of five rounds: the machine may be busy with something else
        for key in "A3d5x1B7e2y4A3d5x1B7":
            p.keyboard.press(key)
        took = p.evaluate("took.splice(0)")
        assert len(took) == 20
        medians.append(statistics.median(took))
        if medians[-1] < 100:
            break
    assert min(medians) < 100, medians


def test_every_control_of_the_score_does_what_it_says(pages, new_page) -> None:
    p = opened(new_page, pages["score"])
    lanes = "document.querySelector('.roll').getAttribute('aria-label')"
    p.focus(".roll")
    p.keyboard.press("Home")
    assert p.inner_text(".where") == "token 0 of 144" and "nothing is written" in p.inner_text(".said")
    p.click(".step")
    assert p.inner_text(".where") == "token 1 of 144"
    p.click(".back")
    assert p.inner_text(".where") == "token 0 of 144"
    p.evaluate("s => { s.value = 64; s.dispatchEvent(new Event('input')) }", p.query_selector(".scrub"))
    p.wait_for_timeout(100)
    assert "Level C = 64 writes after token 64. It read 64 pairs" in p.inner_text(".said")
    assert "level C = 64 1" in p.evaluate(lanes)
    p.evaluate("s => { s.value = 128; s.dispatchEvent(new Event('input')) }", p.query_selector(".scrub"))
    p.wait_for_timeout(100)
    assert "Erased: " in p.inner_text(".said") and "tree → arbre (0.86 to 0.05)" in p.inner_text(".said")
    box = p.locator(".roll").bounding_box()
    p.mouse.move(box["x"] + 156 + (box["width"] - 156 - 112) * 32 / 144, box["y"] + 44 + 2 * 64 + 22)
    assert "Level C = 16 writes after token 32. It read 16 pairs" in p.inner_text(".said")
    p.click("[data-preset=transformer]")
    p.wait_for_timeout(100)
    assert "2 lanes" in p.evaluate(lanes) and "two ends only" in p.inner_text(".about")
    p.click(".play")
    p.wait_for_function("document.querySelector('.play').textContent === 'Pause'")
    p.wait_for_function("document.querySelector('.where').textContent !== 'token 128 of 144'", timeout=2000)
