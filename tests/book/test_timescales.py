"""Two toys of chapter 05: the stability border against the period, and two tasks and a clock."""

from __future__ import annotations

import pytest
import torch
from kit import refuses

from nlbook.book.chapters.clocks.timescales import period_run, stability_border, stability_map, two_tasks, unit_keys

PERIODS = (1, 4, 16, 32, 64, 128)


def test_border_falls_with_the_period() -> None:
    """Measured: 2.0, 1.29, 0.64, 0.41, 0.26, 0.15 (unit keys, d = 16, 200 seeds)."""
    border = [stability_border(c) for c in PERIODS]
    assert border == pytest.approx([2.0, 1.29, 0.64, 0.41, 0.26, 0.15], abs=0.01)
    # for many random keys lambda_max is about C/d (1 + sqrt(d/C))^2, so the border falls like 1/C in the end
    d, c = 16, 4096
    assert stability_border(c, seeds=20) == pytest.approx(2 * d / c / (1 + (d / c) ** 0.5) ** 2, rel=0.03)


@pytest.mark.parametrize("period", PERIODS)
def test_runs_converge_below_their_border_and_diverge_above(period: int) -> None:
    for seed in range(3):
        k = unit_keys(1, period, 16, seed)
        own = float(2 / torch.linalg.eigvalsh(k.mT @ k)[0, -1])
        assert period_run(period, 0.95 * own, seeds=1, seed=seed, updates=60)[-1] < 1
        assert period_run(period, 1.15 * own, seeds=1, seed=seed, updates=60)[-1] > 100
    steps = [0.5 * stability_border(period), 3 * stability_border(period)]
    learns, explodes = stability_map([period], steps)[0].tolist()
    assert learns < 0.2 < 1e3 < explodes


def test_rates_alone_forget_like_one_level() -> None:
    three, one = two_tasks(), two_tasks((1,))
    assert three.a == pytest.approx(2.0, abs=0.05) and one.a == pytest.approx(1.99, abs=0.05)  # 2 = knows B, not A
    assert three.a_learned < 1e-6 and three.b < 1e-3 and one.b < 1e-3
    assert three.share[0] > 0.9  # the fast level learned nearly all of A; nothing was left for the slow ones


def test_slow_levels_hold_a_when_the_fast_one_forgets() -> None:
    """2 % forgetting a step: after the reset the error on A is 0.10, where one level has 1.00."""
    r, one = two_tasks(keep=0.98), two_tasks((1,), keep=0.98)
    assert r.share[0] < 0.05 and r.share[1] > 0.85
    assert r.a_reset == pytest.approx(0.098, abs=0.02) and one.a_reset == pytest.approx(1.0, abs=1e-9)
    assert r.a > 0.9  # before the reset B stands in the way: the knowledge is there, but covered
    # the same step sizes at period 1 do the same: the time scale, not the period, matters here
    same = two_tasks((1, 1, 1), (0.5, 0.5 / 16, 0.5 / 256), keep=0.98)
    assert same.a_reset == pytest.approx(r.a_reset, abs=0.02)


def test_a_long_b_erases_a_anyway() -> None:
    r = two_tasks(keep=0.98, short=4096)
    assert r.a_reset > 1.5 and r.b_reset < 0.05


def test_curves_start_and_end_where_the_numbers_say() -> None:
    r = two_tasks((1, 4), long=64, short=20, seeds=2, every=8)
    assert r.times.tolist() == [*range(8, 81, 8), 84]
    assert r.curve_a[7] == pytest.approx(r.a_learned) and r.curve_a[-1] == pytest.approx(r.a)
    assert two_tasks((1, 4), long=64, short=20, seeds=2, every=8).a == r.a  # same seed, same numbers
    assert two_tasks((1, 4), long=64, short=20, seeds=2, every=8, seed=1).a != r.a
    assert two_tasks((1,), long=8, short=0, reset=False, seeds=2).a_reset == two_tasks((1,), long=8, short=0, seeds=2).a


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: stability_border(0), "period"),
        (lambda: period_run(2, -1.0), "step"),
        (lambda: two_tasks(keep=0.0), "keep"),
        (lambda: two_tasks((1, 2), (0.1,)), "steps"),
        (lambda: two_tasks(long=0), "long"),
    ],
)
def test_errors(make, argument: str) -> None:
    with refuses(argument):
        make()
