"""The ledger's explorer (V12) in a real browser: a click, the arrow keys, a filter."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from nlbook import paper
from nlbook.viz import browser

SHOTS = Path(__file__).parents[1] / "build" / "shots"
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    if not browser.chromium():
        if os.environ.get("NLBOOK_REQUIRE_BROWSER") == "1":
            pytest.fail("NLBOOK_REQUIRE_BROWSER=1, but no chromium is on the PATH (apt-get install chromium)")
        pytest.skip("no chromium on the PATH: apt-get install chromium, or name one in $CHROMIUM")
    if len(paper.verdicts()) < 3:
        pytest.skip("no ledger is committed yet")
    root = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('from nlbook import viz\nviz.load("v12")')])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, root / "ledger.ipynb")
    with browser.lab(root) as server, browser.chrome(SHOTS) as new_page:
        made = new_page(height=1300)
        browser.open_notebook(made, server, "ledger.ipynb")
        browser.run_all(made)
        made.locator(".nlbook-ledger button").first.wait_for(timeout=20_000)
        yield made


def test_a_row_is_chosen_with_the_mouse_and_with_the_keys_and_filtered(page: browser.Page) -> None:
    rows = paper.verdicts()
    box = page.locator(".nlbook-ledger")
    assert box.get_by_role("option").count() == len(rows)
    shown, card = page.locator(".nlbook-state code"), box.locator(".card")
    box.get_by_role("option").nth(1).click()
    browser.wait_text(page, shown, f"row={rows[1].id}")
    browser.wait_text(page, card, rows[1].title)
    page.wait_for_function("() => document.activeElement?.getAttribute('aria-selected') === 'true'", timeout=20_000)
    page.keyboard.press("ArrowDown")
    browser.wait_text(page, card, rows[2].title)
    page.wait_for_function("() => document.activeElement?.getAttribute('aria-selected') === 'true'", timeout=20_000)
    page.keyboard.press("End")
    browser.wait_text(page, card, rows[-1].title)
    assert rows[-1].command in card.locator("code").inner_text()
    page.wait_for_timeout(300)
    page.screenshot(path=SHOTS / "v12.png")
    word = rows[0].verdict  # a landmark button shows one verdict only
    page.get_by_role("button", name=word, exact=False).first.click()
    page.wait_for_function("n => document.querySelectorAll('.nlbook-ledger [role=option]').length === n",
                           arg=rows.count(word), timeout=20_000)
    assert all(word in (o.get_attribute("aria-label") or "") for o in box.get_by_role("option").all())
    assert not page.errors and not page.outside
