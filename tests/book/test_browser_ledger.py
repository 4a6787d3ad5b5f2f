"""The ledger's explorer in a real browser: a click, the arrow keys, a filter."""

from __future__ import annotations

from pathlib import Path

import pytest
from nlbook_tools import browser

from nlbook.book.ledger.verdicts import verdicts

SHOTS = Path(__file__).parents[2] / "build" / "shots"
pytestmark = pytest.mark.browser
VIEWS, HEIGHT = ("ledger",), 1300


@pytest.fixture(scope="module")
def page(views_page: browser.Page) -> browser.Page:
    if len(verdicts()) < 3:
        pytest.skip("no ledger is committed yet")
    views_page.locator(".nlbook-ledger button").first.wait_for(timeout=20_000)
    return views_page


def test_a_row_is_chosen_with_the_mouse_and_with_the_keys_and_filtered(page: browser.Page) -> None:
    rows = verdicts()
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
    page.screenshot(path=SHOTS / "ledger.png")
    word = rows[0].verdict  # a landmark button shows one verdict only
    page.get_by_role("button", name=word, exact=False).first.click()
    page.wait_for_function(
        "n => document.querySelectorAll('.nlbook-ledger [role=option]').length === n",
        arg=rows.count(word),
        timeout=20_000,
    )
    assert all(word in (o.get_attribute("aria-label") or "") for o in box.get_by_role("option").all())
    assert not page.errors and not page.outside
