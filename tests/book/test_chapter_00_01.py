"""Every claim of chapters 00 and 01 that stands under a figure or in a sentence with a number."""

from __future__ import annotations

import math

import pytest
import torch

from nlbook import memory
from nlbook.book import viz
from nlbook.book.chapters.memory import curves
from nlbook.book.chapters.memory import figures as ch01
from nlbook.book.data import recall, words
from nlbook.errors import NLBookError


@pytest.mark.parametrize(("keep", "half"), [(0.9, 7), (0.99, 69)])
def test_keep_halves_a_memory_in_so_many_writes(keep, half):
    assert keep ** (half - 1) > 0.5 - 0.04 and keep**half < 0.5
    assert round(viz.load(f"first_look:keep={keep}").facts["half"]) == half


def test_the_first_plot_is_the_memory_it_says():
    fading, kept = viz.load("first_look:keep=0.9").facts, viz.load("first_look:keep=1.0").facts
    assert fading["left_7"] < 0.5 < viz.load("first_look:keep=0.91").facts["left_7"]  # the task's answer
    assert abs(fading["signal_end"] - fading["left_end"]) < 0.05  # forgotten
    assert abs(kept["signal_end"] - 1) < 0.1 and kept["noise_end"] > 1.2  # nothing shrinks, and yet it drowns
    assert kept["half"] == math.inf and 25 <= kept["drowned"] <= 45  # "some 30 writes"


@pytest.mark.parametrize(
    "state",
    ["first_look:keep=0.5,writes=10", "first_look:keep=1.0,writes=200", "first_look:keep=0.99,writes=200,seed=9"],
)
def test_the_first_plot_draws_at_its_extremes(state):
    picture = viz.load(state)
    assert picture.figure().axes and all(not math.isnan(x) for x in picture.facts.values())


def test_forty_capitals_nearly_all_come_back():
    assert len(set(words.CAPITALS)) == 40 == len({c for c, _ in words.CAPITALS})
    shares = curves.capacity(["hebbian"], grid=[3, 40], worlds=20)["hebbian"]
    assert float(shares[3].mean()) == 1 and 0.9 < float(shares[40].mean()) < 1


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
def test_delta_forgets_by_age_and_hebb_does_not(seed):
    found = {r: e.mean(0) for r, e in curves.identified_by_age(["hebbian", "delta"], worlds=150, seed=seed).items()}
    assert float(found["delta"][0]) == 1  # right about the newest pair
    assert float(found["delta"][-3:].mean()) < 0.6  # and half of the oldest are lost
    assert float(found["hebbian"].min()) > 0.9  # all ages alike
    data = recall.pairs(32, 32, batch=60, seed=seed)
    hebbian, delta = (curves.score(curves.answers(r, data, lr=1.0), data.target)[1] for r in ("hebbian", "delta"))
    assert 0.9 < hebbian < 1.05 and 0.5 < delta < 0.65  # by squared error delta leads


@pytest.mark.parametrize("d", [16, 64])
def test_what_a_pair_keeps_is_1_minus_1_over_d_to_its_age(d):
    """Read the part along the own value after `age` further full delta writes, in 400 worlds."""
    data = recall.pairs(d + 1, d, batch=400, seed=3)
    m = memory.make("delta", lr=1.0)
    y = m.read(m.write_all(data.k, data.v), data.k[:, :1])
    measured = float((y[:, 0] * data.v[:, 0]).sum(-1).mean())
    assert abs(measured - curves.kept(d, d)) < 0.05
    assert abs(curves.kept(d, d) - math.exp(-1)) < 0.02


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_capacity_claims(seed):
    random = curves.capacity(["hebbian", "delta", "omega", "rls"], grid=[32, 96, 128], worlds=12, seed=seed)
    at = {r: float(by_n[32].mean()) for r, by_n in random.items()}
    assert at["hebbian"] > 0.95 and 0.7 < at["delta"] < 0.88 and at["rls"] == 1  # when delta is worse
    assert float(random["hebbian"][96].mean()) > 0.5 > float(random["hebbian"][128].mean())
    common = curves.capacity(["hebbian", "delta", "omega", "rls"], rho=0.5, grid=[32], worlds=12, seed=seed)
    share = {r: float(by_n[32].mean()) for r, by_n in common.items()}
    assert share["hebbian"] < share["delta"] < share["omega"] < share["rls"]


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
def test_it_is_the_step_that_loses_and_not_the_objective(seed):
    data = recall.pairs(32, 32, batch=20, seed=seed)
    full, small, hebbian = (
        curves.score(curves.answers(rule, data, lr=lr), data.target)[0]
        for rule, lr in (("delta", 1.0), ("delta", 0.1), ("hebbian", 1.0))
    )
    assert full < 0.88 and small > 0.96 and abs(small - hebbian) < 0.03


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_control_falls_to_chance(seed):
    found = curves.capacity(["hebbian", "rls"], grid=[8, 32, 128], worlds=150, seed=seed, fresh_values=True)
    for by_n in found.values():
        for n, share in by_n.items():
            assert abs(float(share.mean()) - 1 / n) < 4 * (1 / n / (150 * n)) ** 0.5  # four standard errors


def test_with_overlapping_keys_hebb_leads_while_pairs_are_few():
    found = curves.capacity(["hebbian", "delta"], rho=0.5, grid=[4, 8, 32, 64], worlds=100)
    lead = {n: float(found["hebbian"][n].mean() - found["delta"][n].mean()) for n in found["delta"]}
    assert lead[4] > 0.1 and lead[8] > 0.05 and lead[32] < -0.05 and lead[64] < -0.05


def test_half_capacity_says_when_the_grid_is_too_short():
    assert curves.half_capacity({4: torch.tensor([1.0]), 8: torch.tensor([0.4])}) == 8
    with pytest.raises(NLBookError, match="reaches further"):
        curves.half_capacity({4: torch.tensor([1.0])})


def test_figures_say_what_they_show():
    ages = curves.identified_by_age(["hebbian", "delta"], n=8, worlds=4)
    capacity = {0.0: curves.capacity(["hebbian"], grid=[4, 32], worlds=2)}
    assert ch01.age_curve(ages).axes and "delta" in ch01.age_curve_alt(ages)
    assert ch01.capacity_curves(capacity).axes and "32 pairs" in ch01.capacity_alt(capacity)
