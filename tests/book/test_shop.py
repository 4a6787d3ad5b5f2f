"""The Clock Shop: what its picture says, on the numbers behind it, and its page in a real browser."""

import pytest
from kit import in_node

from nlbook.book import viz
from nlbook.book.viz.live import JS, bundle
from nlbook.errors import NLBookError

FAST_AND_SLOW = [
    {"period": 1, "rate": 0.6, "keep": 0.99, "ends": 1, "on": True},
    {"period": 1, "rate": 0.03, "keep": 1, "ends": 0, "on": True},
    {"period": 1, "rate": 0, "keep": 1, "ends": 0, "on": False},
]
CODE = """
const { model } = S;
const clocks = Object.fromEntries(Object.entries(model.PRESETS).map(([id, p]) => [id, p.clocks]));
clocks.two = input;
const mean = (a) => a.reduce((x, y) => x + y, 0) / a.length;
const merge = (rs) => (typeof rs[0] === "number" ? mean(rs)
  : Array.isArray(rs[0]) ? rs[0].map((_, i) => merge(rs.map((r) => r[i])))
  : Object.fromEntries(Object.keys(rs[0]).map((k) => [k, merge(rs.map((r) => r[k]))])));
const five = (c) => merge([1, 2, 3, 4, 5].map((seed) => model.summary(c, seed)));
return Object.fromEntries(Object.entries(clocks).map(([id, c]) => [id, five(c)]));
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Preset -> its numbers, means over five streams."""
    return in_node(CODE, FAST_AND_SLOW, tmp_path_factory.mktemp("shop"), S=JS / "shop.js")


def test_the_life_time_of_a_fact_sorts_it(measured):
    for_ever, document, moment = measured["three"]["holds"]
    assert for_ever[2] > 0.8 > 10 * max(for_ever[:2])  # A, B: the slow memory
    assert document[1] > max(document[0], document[2])  # d, e: mostly the middle one
    assert moment[0] > max(moment[1:])  # x, y: mostly the fast one


def test_the_step_sorts_and_the_period_saves(measured):
    three, steps = measured["three"], measured["steps"]
    for a, b in zip(three["holds"], steps["holds"], strict=True):
        assert max(abs(x - y) for x, y in zip(a, b, strict=True)) < 0.07
    assert abs(three["all"] - steps["all"]) < 0.01
    assert three["writes"] == pytest.approx(1 + 1 / 8 + 1 / 48, abs=0.01) and steps["writes"] == 3


def test_where_nobody_forgets_every_fact_is_held_in_the_proportion_of_the_steps(measured):
    total = 0.6 + 0.2 + 0.025
    for held in measured["never"]["holds"]:
        for x, step in zip(held, (0.6, 0.2, 0.025), strict=True):
            assert x / sum(held) == pytest.approx(step / total, abs=0.02)
    assert measured["never"]["untold"] > 2  # it claims the old document's facts: worse than saying nothing (1)


def test_alike_memories_are_one(measured):
    one, alike = measured["one"], measured["alike"]
    assert one["error"] == pytest.approx(alike["error"], abs=1e-9)
    assert max(map(max, alike["holds"])) - min(map(min, alike["holds"])) < 0.05


def test_the_sentence_on_where_three_clocks_are_no_better(measured):
    three, one, two = (measured[n] for n in ("three", "one", "two"))
    said = (
        f"({three['error'][1]:.2f} against {one['error'][1]:.2f})",
        f"({three['error'][0]:.2f} against {one['error'][0]:.2f})",
    )
    said += f"({three['all']:.2f} against {one['all']:.2f})", f"({two['all']:.2f})"
    text = (JS / "shop.js").read_text()
    assert all(s in text for s in said), said
    assert three["error"][1] > one["error"][1] and three["error"][0] < one["error"][0] and two["all"] <= three["all"]


def test_nobody_beats_the_best_reader(measured):
    for numbers in measured.values():
        assert all(best < mine for best, mine in zip(numbers["best"], numbers["error"], strict=True))


def test_a_live_picture_is_one_piece_of_html():
    page = viz.shop("one", seed=4)._repr_html_()
    assert "import " not in bundle("shop") and "export " not in bundle("shop") and "http" not in page
    assert "&quot;preset&quot;: &quot;one&quot;" in page and len(page) < 60_000
    with pytest.raises(NLBookError, match="preset"):
        viz.shop("two")


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_shop_in_a_page(chromium, tmp_path, width, scheme):
    import browser

    file = tmp_path / "shop.html"
    file.write_text(f"<meta charset=utf-8><meta name=viewport content='width=device-width'>{viz.shop()._repr_html_()}")
    with browser.chrome(tmp_path) as new_page:
        page = new_page(width=width, scheme=scheme)
        page.goto(file.as_uri())
        page.wait_for_function(
            "document.querySelector('.where').textContent.match(/pair [1-9]/)", timeout=4000
        )  # it moves

        def where():
            return page.inner_text(".where")

        def says(key):
            return page.inner_text(f".glass[data-key='{key}'] .says")

        page.evaluate("s => { s.value = 1434; s.dispatchEvent(new Event('input')) }", page.query_selector(".scrub"))
        assert where() == "document 30, pair 42" and page.inner_text(".play") == "Play"
        known = says(0), says(1)
        page.click("[data-order=end]")
        assert where() == "document 31, pair 0" and (says(0), says(1)) == known and says(2) == "silent"
        page.click("[data-order=slip]")
        assert "slip of the pen" in page.inner_text(".said")
        page.click("[data-order=again]")
        assert "Said again" in page.inner_text(".said")
        writes = page.inner_text(".writes")
        page.click("[data-preset=steps]")
        assert (writes, page.inner_text(".writes")) == ("1.15 of 3", "3.00 of 3")
        page.click("[data-preset=one]")
        page.evaluate("s => { s.value = 1440; s.dispatchEvent(new Event('input')) }", page.query_selector(".scrub"))
        assert says(0) == "silent"  # one clock is emptied, A goes as well
        page.click("summary")
        page.evaluate(
            "i => { i.value = 2; i.dispatchEvent(new Event('input')) }", page.query_selector("[data-set=period]")
        )
        assert page.inner_text(".writes") == "0.25 of 3" and "own" in page.inner_text(".about")
        page.focus(".roll")
        page.keyboard.press("ArrowLeft")
        assert where() == "document 31, pair 5"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") and not page.errors
