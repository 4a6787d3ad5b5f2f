"""A toy of chapter 05: the stability border against the period."""

from __future__ import annotations

import pytest
import torch
from kit import refuses

from nlbook.book.chapters.clocks.timescales import period_run, stability_border, stability_map, unit_keys

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


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: stability_border(0), "period"),
        (lambda: period_run(2, -1.0), "step"),
    ],
)
def test_errors(make, argument: str) -> None:
    with refuses(argument):
        make()
