"""The Hope that one can talk to: what its level is good for, its best reader, and its page in a real browser."""

import json
import statistics

import browser
import pytest
import torch
from kit import in_node

from nlbook.book.chapters.hope import talker
from nlbook.book.viz.live import JS

SPEC = {"keys": talker.LANGUAGE.keys, "values": 8, "slip": talker.LANGUAGE.slip, "hazard": talker.LANGUAGE.hazard}


@pytest.fixture(scope="module")
def found():
    return talker.judged(talker.talker())


def test_the_level_knows_what_lives_for_ever(found):
    """Holding it costs at least 0.1 nats a value; the mixer forgets A and B at each document, the level does not."""
    (level,) = found["levels"]
    assert level["nats"] > 0.1 and level["moved"] > 0.05
    assert found["excess"]["all"] < 0.3
    model, streams = talker.talker(), talker.LANGUAGE.sample(64, 10**6)
    model.blocks[0].mlp.held.add(0)
    with torch.no_grad():
        held = streams.excess(model(streams.tokens)[0])
    loss = {kind: held[kind] - found["excess"][kind] for kind in held}
    assert loss["for ever"] > 2 * max(loss["document"], loss["moment"], 0.01)


def test_the_best_reader_of_the_page_is_the_optimum(tmp_path):
    streams = talker.LANGUAGE.sample(1, seed=4)
    tokens = streams.tokens[0].tolist()
    code = f"const {{ model }} = T; return input.tokens.map((t, i) => {{ const p = model.best({json.dumps(SPEC)}, "
    code += "input.tokens.slice(0, i)); return p && t >= 6 && t < 14 ? -Math.log(p[t - 6]) : 0; });"
    page = in_node(code, {"tokens": tokens}, tmp_path, T=JS / "talk.js")
    assert torch.allclose(torch.tensor(page, dtype=torch.float64), streams.optimum[0], atol=1e-9)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_one_talks_to_hope_in_a_page(chromium, tmp_path, width, scheme):
    file = tmp_path / "talk.html"
    head = "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    file.write_text(head + talker.talk()._repr_html_())
    with browser.chrome(tmp_path) as new_page:
        page = new_page(width=width, scheme=scheme)
        page.goto(file.as_uri())

        def bars():
            return page.evaluate("[...document.querySelectorAll('.bar i')].map((b) => parseFloat(b.style.height))")

        page.click(".anew")
        page.fill(".line", "|A3|A")  # told in one document, asked in the next
        assert page.inner_text(".asked") == "What is A?"
        moving = bars()
        assert moving.index(max(moving)) == 2
        page.click(".lane[data-part='level 0'] button")
        assert bars()[2] < moving[2] - 10  # without the level it is forgotten
        page.click(".lane[data-part='level 0'] button")
        assert bars() == moving
        times = [
            page.evaluate(
                "(t) => { const a = performance.now(); document.querySelector(`[data-token='${t}']`).click();"
                " return performance.now() - a; }",
                t,
            )
            for t in [8, 2, 9, 3, 7] * 4
        ]
        assert statistics.median(times) < 100
        widths = "[...document.querySelectorAll('.lane i')].map((b) => b.style.width)"
        now = page.evaluate(widths)
        page.hover(".read button:nth-child(3)")  # the 3 of |A3|A: what was read, what surprised, what moved
        said = page.inner_text(".said")
        assert said.startswith("3: the reader had read ") and "nats" in said and "Moved most: " in said
        assert page.evaluate(widths) != now
        page.focus(".read button:nth-child(2)")
        assert page.inner_text(".said").startswith("A, a key: there the reader reads ")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") and not page.errors
