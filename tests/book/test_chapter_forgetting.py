"""Every claim of chapter F that stands under a figure or in a sentence with a number."""

from __future__ import annotations

from functools import lru_cache

import pytest
from kit import refuses

from nlbook.book import viz
from nlbook.book.chapters.forgetting import ablation
from nlbook.book.chapters.forgetting import figures as ch08
from nlbook.book.chapters.forgetting.continual_methods import (
    METHODS,
    Score,
    average_accuracy,
    period_effect,
    recoveries,
    train,
)


@lru_cache
def scores() -> dict[str, Score]:
    return ablation.ablation()


def mean(name: str) -> float:
    return float(scores()[name].average.mean())


def test_the_cold_open_a_cms_is_ahead_on_every_seed():
    cms, mlp = scores()["CMS, mean"], scores()["MLP"]
    assert (cms.average > mlp.average).all() and 0.05 < mean("CMS, mean") - mean("MLP") < 0.08  # "six points"
    assert float(cms.forgotten.mean()) < float(mlp.forgotten.mean()) - 0.03
    assert len(cms.average) == 5


@pytest.mark.eq(71)
def test_the_control_same_steps_no_periods_is_the_same():
    gap = scores()["lr split (1, 1/8, 1/64)"].average - scores()["CMS, mean"].average
    assert float(gap.abs().max()) < 0.01 and float(gap.mean()) > 0  # "less than a point, not in favour of the CMS"


def test_the_six_sober_sentences():
    assert mean("CMS, sum") < mean("MLP")  # sums: no better
    assert abs(mean("only block 0 learns") - mean("CMS, mean")) < 0.02  # freezing is as good
    assert abs(mean("EMA 0.99") - mean("CMS, mean")) < 0.02  # and so is averaging the weights
    assert mean("CMS head-wise, mean") > mean("CMS, mean")  # side by side gains more
    assert mean("MLP head-wise") > mean("CMS head-wise, mean")  # and without periods too
    assert mean("MLP head-wise") - 0.05 < mean("EWC 30") < mean("MLP head-wise") + 0.05
    best = scores()["replay 100"].average
    assert all(mean("replay 100") > mean(n) + 0.1 for n in scores() if n != "replay 100") and float(best.min()) > 0.7


def test_negative_control_slow_for_all_forgets_little_because_it_learned_little():
    slow = scores()["all periods 64, sum"]
    assert mean("all periods 64, sum") == min(map(mean, scores()))
    assert float(slow.forgotten.mean()) == min(float(s.forgotten.mean()) for s in scores().values())
    assert float(slow.forgotten.mean()) == pytest.approx(0.14, abs=0.01) and float(slow.learned.mean()) < 0.6


def test_class_incremental_a_tiny_rate_needs_no_levels():
    tried = (("MLP", 0.05), ("CMS, mean", 0.1), ("CMS, mean, slow head", 0.03), ("MLP", 1e-4), ("replay 100", 0.1))
    usual, cms, slow, tiny, replay = (ablation.at_rate(n, "class", lr).average for n, lr in tried)
    assert float(usual.max()) < 0.22 and float(cms.max()) < 0.22
    assert float(slow.mean()) > 0.4 and float(tiny.mean()) > float(slow.mean()) + 0.1 and float(tiny.min()) > 0.6
    assert float(replay.min()) > 0.8


def test_second_order_for_sgd_and_not_for_adam():
    for seed in range(2):
        big, small = (period_effect((4, 16), lr, seed=seed) for lr in (0.01, 0.001))
        adam = period_effect((4, 16), 0.001, adam=True, seed=seed)
        for c in (4, 16):
            assert 8 < big[c] / small[c] < 12 and adam[c] > 0.3


def test_the_hand_calculation():
    assert 0.81 - 0.8 == pytest.approx((1 - 0.1) ** 2 - (1 - 2 * 0.1)) == pytest.approx(0.1**2)


@pytest.mark.eq(72)
def test_the_saw_tooth_only_the_nested_variant_brings_a_back():
    loop = {
        w: recoveries("facts", METHODS[n])
        for w, n in (("one MLP", "MLP"), ("CMS", "CMS, mean"), ("CMS nested", "CMS nested, reset 64"))
    }
    mlp, cms, nested = loop.values()
    assert mlp["jump"] < 0.05 and cms["jump"] < 0.05 and nested["jump"] > 0.2
    assert nested["final"] > cms["final"] > mlp["final"]
    assert nested["a_end"] < mlp["a_end"] and nested["b_end"] < mlp["b_end"]  # the price
    rises = nested["curve"].diff().topk(3).indices + 1
    assert all(int(i) * 8 % 64 < 16 for i in rises)  # at the resets
    assert (float(nested["curve"][-1]), float(nested["curve"][-2])) == pytest.approx((0.73, 0.54), abs=0.01)
    assert "CMS nested falls to" in ch08.sawtooth_alt(loop) and len(ch08.sawtooth(loop).axes) == 1


def test_two_tasks_at_the_extremes_of_the_exercise():
    assert viz.find("two_tasks").facts("keep=0.95")["a_after"] == pytest.approx(0.167, abs=0.005)


def test_the_figure_and_its_words():
    s = {n: scores()[n] for n in ("MLP", "CMS, mean", "replay 100")}
    fig = ch08.dots(s)
    labels = [t.get_text() for t in fig.axes[0].get_yticklabels()]
    assert labels == ["one MLP", "CMS, means of gradients", "replay of 100 digits"]
    assert ch08.dots_alt(s).index("replay") < ch08.dots_alt(s).index("one MLP")
    assert set(ablation.WORDS) == set(ablation.TUNED)
    with refuses("retune"):
        ablation.ablation("facts")


@pytest.mark.parametrize("name", list(ablation.TUNED))
def test_the_stored_learning_rates_are_what_tuning_finds(name):
    """Or as good: two rates of replay are 0.0026 apart, and which of them leads depends on the processor's rounding."""
    run = train(METHODS[name], "permuted", ablation.GRID, (100, 101), steps=ablation.STEPS)
    tried = average_accuracy(run.r).mean(1)
    best, at = int(tried.argmax()), ablation.GRID.index(ablation.TUNED[name])
    assert float(tried[best] - tried[at]) < 0.005 and abs(best - at) <= 1
    assert 0 < best < len(ablation.GRID) - 1 and 0 < at < len(ablation.GRID) - 1  # not at the edge of the grid


FULL = {  # what the chapter's table says: one MLP, CMS, same steps with no periods, nested, replay
    "permuted": (0.529, 0.596, 0.596, 0.562, 0.789),
    "rotated": (0.448, 0.486, 0.486, 0.588, 0.772),
    "facts": (0.543, 0.607, 0.609, 0.538, 0.777),
    "class": (0.759, 0.759, 0.759, 0.759, 0.905),
}


def test_the_full_runs_order_at_two_seeds_and_near_rates():
    rates = {"CMS, mean": 0.1, "lr split (1, 1/8, 1/64)": 0.1, "CMS nested, reset 64": 0.05, "replay 100": 0.1}
    got = {n: ablation.at_rate(n, "rotated", lr, steps=350, seeds=2).average for n, lr in rates.items()}
    cms, control, nested, replay = (got[n] for n in rates)
    assert (nested > cms + 0.04).all() and (replay > nested + 0.1).all()  # on every seed
    assert float((cms - control).abs().max()) < 0.02


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", list(FULL))
def test_the_table_of_the_full_run(kind):
    names = ["MLP", "CMS, mean", "lr split (1, 1/8, 1/64)", "CMS nested, reset 64", "replay 100"]
    got = ablation.ablation(kind, names, steps=350, retune=True)
    means = tuple(float(s.average.mean()) for s in got.values())
    # a tie between two rates falls differently with the rounding, and moves a mean by up to three points
    assert means == pytest.approx(FULL[kind], abs=0.03) and not any(s.at_edge for s in got.values())
    assert (means[3] > means[1]) is (kind == "rotated") or kind == "class"  # resets beat the CMS on rotated digits only
    assert abs(means[1] - means[2]) < 0.005 and means[4] == max(means)  # the control agrees everywhere; replay leads
