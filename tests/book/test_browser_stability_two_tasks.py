"""The stability map and two tasks and a clock in a real browser: a click, the arrow keys, a landmark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from nlbook_tools import browser

pytestmark = pytest.mark.browser
VIEWS, HEIGHT = ("stability", "two_tasks"), 2300


@pytest.fixture(scope="module")
def page(views_page: browser.Page) -> browser.Page:
    views_page.locator(".nlbook-grid button").first.wait_for(timeout=20_000)
    return views_page


@pytest.fixture(autouse=True)
def nothing_went_wrong(page: browser.Page) -> Iterator[None]:
    page.errors.clear()
    yield
    assert not page.errors, f"errors in the page: {page.errors}"
    assert not page.outside, f"requests left this machine: {page.outside}"


def test_stability_a_cell_is_chosen_with_the_mouse_and_with_the_keys(page: browser.Page) -> None:
    box = page.locator(".nlbook-picture").nth(0)
    shown, image = box.locator(".nlbook-state code"), box.locator(".nlbook-grid img")
    assert box.locator(".nlbook-grid td button").count() == 88
    box.get_by_role("button", name="period 64, step 0.5: diverges").click()
    browser.wait_text(page, shown, "stability:period=64")
    assert "diverges" in (image.get_attribute("alt") or "") and len((image.get_attribute("alt") or "").split()) >= 8
    chosen = box.locator('.nlbook-grid [aria-pressed="true"]')
    page.wait_for_function("() => document.activeElement?.getAttribute('aria-pressed') === 'true'", timeout=20_000)
    assert chosen.count() == 1
    for _ in range(4):  # down to a step that it bears: 0.35, 0.25, 0.12, 0.06
        old = shown.inner_text()
        page.keyboard.press("ArrowDown")
        page.wait_for_function("([e, t]) => e.textContent !== t", arg=[shown.element_handle(), old], timeout=20_000)
        page.wait_for_function("() => document.activeElement?.getAttribute('aria-pressed') === 'true'", timeout=20_000)
    assert shown.inner_text() == 'viz.load("stability:period=64,step=0.06")'
    page.wait_for_timeout(300)
    assert "learns" in (image.get_attribute("alt") or "")
    page.shot("stability")


def test_two_tasks_a_landmark_and_its_words(page: browser.Page) -> None:
    box = page.locator(".nlbook-picture").nth(1)
    old = browser.picture(box)
    box.get_by_role("button", name="rates alone").click()
    browser.wait_change(page, box, old)
    assert box.locator(".nlbook-state code").inner_text() == 'viz.load("two_tasks:keep=1")'
    assert "The error on A is 1.97" in (box.locator(".nlbook-screen img").get_attribute("alt") or "")
    page.shot("two_tasks")
