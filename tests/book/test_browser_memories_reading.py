"""Five memories and a model that reads in a real browser: a slider, a choice, a landmark, their words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from nlbook_tools import browser

pytestmark = pytest.mark.browser
VIEWS, HEIGHT = ("memories", "reading"), 2600


@pytest.fixture(scope="module")
def page(views_page: browser.Page) -> browser.Page:
    views_page.locator(".nlbook-picture").nth(1).wait_for(timeout=60_000)
    return views_page


@pytest.fixture(autouse=True)
def nothing_went_wrong(page: browser.Page) -> Iterator[None]:
    page.errors.clear()
    yield
    assert not page.errors, f"errors in the page: {page.errors}"
    assert not page.outside, f"requests left this machine: {page.outside}"


def words(box: object) -> str:
    return box.locator(".nlbook-screen img").get_attribute("alt") or ""  # type: ignore[attr-defined, no-any-return]


def test_memories_the_switch_is_moved_with_the_slider_and_a_trap_with_a_button(page: browser.Page) -> None:
    box = page.locator(".nlbook-picture").nth(0)
    shown, old = box.locator(".nlbook-state code"), browser.picture(box)
    assert "the words change after token 32" in words(box)
    handle = box.locator(".noUi-handle").nth(1)  # the first slider is the chunk
    handle.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    browser.wait_change(page, box, old)
    browser.wait_text(page, shown, "switch=29")
    assert "the words change after token 29" in words(box)
    old = browser.picture(box)
    box.get_by_role("button", name="v of any length").click()
    browser.wait_change(page, box, old)
    assert "a memory is larger than 1000" in words(box)
    page.shot("memories")


def test_reading_a_memory_is_held_and_the_cursor_moved(page: browser.Page) -> None:
    box = page.locator(".nlbook-picture").nth(1)
    shown, old = box.locator(".nlbook-state code"), browser.picture(box)
    assert "held at its start: nothing" in words(box) and "M memory ends farthest" in words(box)
    box.locator("select").first.select_option("M_mem")
    browser.wait_change(page, box, old)
    browser.wait_text(page, shown, "hold=M_mem")
    assert "held at its start: M_mem" in words(box) and "document 0.17" in words(box)
    old = browser.picture(box)
    box.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowLeft")
    browser.wait_change(page, box, old)
    assert "After 124 tokens" in words(box)
    page.shot("reading")
