"""The stability map: what its answer claims; its controls move it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from nlbook.book import viz
from nlbook.book.chapters.clocks import stability


# ---------------------------------------------------------------------- stability
@pytest.mark.eq(71)
def test_stability_the_border_falls_with_the_period_as_the_answer_says() -> None:
    view = viz.find("stability")
    f = view.facts()
    for c, said in ((1, "2.00"), (4, "1.29"), (16, "0.64"), (32, "0.41"), (64, "0.26"), (128, "0.15")):
        assert f"{f[f'border_{c}']:.2f}" == said and said in view.answer
    for seed in range(4):
        edge = stability.borders(seed)
        assert all(a > b for a, b in pairwise(edge))
        assert 18 < 128 * edge[-1] < 20  # with the mean of a chunk the border rises from 2 to 19
    assert stability.long_chunk_border(128) == pytest.approx(f["border_128"], rel=0.1)


def test_stability_cells_learn_below_the_border_and_diverge_above() -> None:
    for seed in range(3):
        ends, edge = stability.grid(seed), stability.borders(seed)
        for i, b in enumerate(edge):
            for j, step in enumerate(stability.STEPS):
                if step < 0.75 * b:
                    assert ends[i, j] < 0, (stability.PERIODS[i], step)
                if step > 1.35 * b:
                    assert ends[i, j] > 1, (stability.PERIODS[i], step)
    same = [viz.find("stability").facts(f"period={c},step=0.5")["final"] for c in (1, 16, 64)]
    assert same[0] < same[1] < 0.01 and same[2] > 1e6
    assert viz.find("stability").facts("period=64,step=0.12")["final"] < 0.01


def test_stability_a_click_on_a_cell_shows_its_run() -> None:
    p: Any = viz.load("stability")
    up = list(reversed(stability.STEPS))
    assert p.live.at == [up.index(0.5), stability.PERIODS.index(16)] and p.live.png[:4] == b"\x89PNG"
    before = p.live.png
    p.live.set_state({"chosen": [1, up.index(0.5), stability.PERIODS.index(64)]})  # what the browser sends
    assert p.state_string == "stability:period=64" and p.live.png != before and "diverges" in p.live.alt
    assert p.controls["period"].value == 64  # the sliders follow
    p.live.set_state({"chosen": [2, 99, 0]})  # nonsense is not obeyed
    assert p.state_string == "stability:period=64" and p.live.at == [up.index(0.5), stability.PERIODS.index(64)]
    p.set("C = 64, a step that it bears")
    assert "learns" in p.live.alt and p.live.at[0] == up.index(0.12)
    labels = [c["label"] for row in p.live.cells for c in row]
    assert len(labels) == len(set(labels)) == 8 * 11 and sum(c["edge"] for row in p.live.cells for c in row) == 8
