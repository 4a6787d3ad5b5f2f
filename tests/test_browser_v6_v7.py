"""The stability map (V6) and two tasks and a clock (V7) in a real browser: a click, the arrow keys, a landmark."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from nlbook.viz import browser

SHOTS = Path(__file__).parents[1] / "build" / "shots"
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    if not browser.chromium():
        if os.environ.get("NLBOOK_REQUIRE_BROWSER") == "1":
            pytest.fail("NLBOOK_REQUIRE_BROWSER=1, but no chromium is on the PATH (apt-get install chromium)")
        pytest.skip("no chromium on the PATH: apt-get install chromium, or name one in $CHROMIUM")
    root = tmp_path_factory.mktemp("lab")
    cells = [nbformat.v4.new_code_cell(f'from nlbook import viz\nviz.load("{key}")') for key in ("v6", "v7")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, root / "maps.ipynb")
    with browser.lab(root) as server, browser.chrome(SHOTS) as new_page:
        made = new_page(height=2300)
        browser.open_notebook(made, server, "maps.ipynb")
        browser.run_all(made)
        made.locator(".nlbook-grid button").first.wait_for(timeout=20_000)
        yield made


@pytest.fixture(autouse=True)
def nothing_went_wrong(page: browser.Page) -> Iterator[None]:
    page.errors.clear()
    yield
    assert not page.errors, f"errors in the page: {page.errors}"
    assert not page.outside, f"requests left this machine: {page.outside}"


def test_v6_a_cell_is_chosen_with_the_mouse_and_with_the_keys(page: browser.Page) -> None:
    box = page.locator(".nlbook-picture").nth(0)
    shown, image = box.locator(".nlbook-state code"), box.locator(".nlbook-grid img")
    assert box.locator(".nlbook-grid td button").count() == 88
    box.get_by_role("button", name="period 64, step 0.5: diverges").click()
    browser.wait_text(page, shown, "v6:period=64")
    assert "diverges" in (image.get_attribute("alt") or "") and len((image.get_attribute("alt") or "").split()) >= 8
    chosen = box.locator('.nlbook-grid [aria-pressed="true"]')
    page.wait_for_function("() => document.activeElement?.getAttribute('aria-pressed') === 'true'", timeout=20_000)
    assert chosen.count() == 1
    for _ in range(4):  # down to a step that it bears: 0.35, 0.25, 0.12, 0.06
        old = shown.inner_text()
        page.keyboard.press("ArrowDown")
        page.wait_for_function("([e, t]) => e.textContent !== t", arg=[shown.element_handle(), old], timeout=20_000)
        page.wait_for_function("() => document.activeElement?.getAttribute('aria-pressed') === 'true'", timeout=20_000)
    assert shown.inner_text() == 'viz.load("v6:period=64,step=0.06")'
    page.wait_for_timeout(300)
    assert "learns" in (image.get_attribute("alt") or "")
    page.shot("v6")


def test_v7_a_landmark_and_its_words(page: browser.Page) -> None:
    box = page.locator(".nlbook-picture").nth(1)
    old = browser.picture(box)
    box.get_by_role("button", name="rates alone").click()
    browser.wait_change(page, box, old)
    assert box.locator(".nlbook-state code").inner_text() == 'viz.load("v7:keep=1")'
    assert "The error on A is 1.97" in (box.locator(".nlbook-screen img").get_attribute("alt") or "")
    page.shot("v7")
