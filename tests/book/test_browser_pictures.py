"""Pictures of the chapters in a real browser: a click, the arrow keys, a slider, a choice, a filter, their words."""

from __future__ import annotations

from collections.abc import Iterator

import browser
import pytest

from nlbook.book.ledger.verdicts import verdicts

pytestmark = pytest.mark.browser
VIEWS, HEIGHT = ("stability", "memories", "reading", "ledger"), 5200


@pytest.fixture(scope="module")
def page(views_page: browser.Page) -> browser.Page:
    views_page.locator(".nlbook-picture").nth(len(VIEWS) - 1).wait_for(timeout=60_000)
    views_page.locator(".nlbook-grid button").first.wait_for(timeout=20_000)
    return views_page


@pytest.fixture(autouse=True)
def nothing_went_wrong(page: browser.Page) -> Iterator[None]:
    page.errors.clear()
    yield
    assert not page.errors, f"errors in the page: {page.errors}"
    assert not page.outside, f"requests left this machine: {page.outside}"


def words(box: object) -> str:
    return box.locator(".nlbook-screen img").get_attribute("alt") or ""  # type: ignore[attr-defined, no-any-return]


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


def test_memories_the_switch_is_moved_with_the_slider_and_a_trap_with_a_button(page: browser.Page) -> None:
    box = page.locator(".nlbook-picture").nth(1)
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


def test_reading_a_part_is_held_and_another_stream_is_read(page: browser.Page) -> None:
    box = page.locator(".nlbook-picture").nth(2)
    shown, old = box.locator(".nlbook-state code"), browser.picture(box)
    assert "held at its start: nothing" in words(box) and "A B 0.95" in words(box)
    box.locator("select").first.select_option("M_mem")
    browser.wait_change(page, box, old)
    browser.wait_text(page, shown, "hold=M_mem")
    assert "held at its start: M_mem" in words(box) and "d e 0.12" in words(box)
    old = browser.picture(box)
    box.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    browser.wait_change(page, box, old)
    browser.wait_text(page, shown, "stream=1")
    page.shot("reading")


def test_a_row_is_chosen_with_the_mouse_and_with_the_keys_and_filtered(page: browser.Page) -> None:
    rows = verdicts()
    if len(rows) < 3:
        pytest.skip("no ledger is committed yet")
    picture = page.locator(".nlbook-picture").nth(3)
    box = picture.locator(".nlbook-ledger")
    assert box.get_by_role("option").count() == len(rows)
    shown, card = picture.locator(".nlbook-state code"), box.locator(".card")
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
    page.shot("ledger")
    word = rows[0].verdict  # a landmark button shows one verdict only
    picture.get_by_role("button", name=word, exact=False).first.click()
    page.wait_for_function(
        "n => document.querySelectorAll('.nlbook-ledger [role=option]').length === n",
        arg=rows.count(word),
        timeout=20_000,
    )
    assert all(word in (o.get_attribute("aria-label") or "") for o in box.get_by_role("option").all())
