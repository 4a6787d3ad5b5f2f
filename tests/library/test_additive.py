"""The law of one level, and its way out (nlbook.cms.additive)."""

import pytest
import torch

from nlbook.cms.additive import Clock, additive
from nlbook.errors import NLBookError

F64 = torch.float64


def stream(length=40, d_k=5, d_v=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    k = torch.nn.functional.normalize(torch.randn(2, length, d_k, generator=g, dtype=F64), dim=-1)
    v = torch.nn.functional.one_hot(torch.randint(d_v, (2, length), generator=g), d_v).to(F64)
    k[1, 0] = 0  # a key may be zero
    begins = torch.arange(length) % 8 == 0
    return k, v, begins


def furthest(a, b):
    return float((a - b).abs().max())


@pytest.mark.parametrize("loss", ["squared", "softmax"])
@pytest.mark.parametrize("rates", [(0.3, 0.1), (0.05, 0.5, 0.01), (0.2, 0.0)])
def test_levels_that_never_forget_are_one_level(loss, rates):
    k, v, begins = stream()
    many, levels = additive([Clock(r) for r in rates], k, v, begins, loss)
    one, (level,) = additive([Clock(sum(rates))], k, v, begins, loss)
    assert furthest(many, one) < 1e-12 and furthest(sum(levels), level) < 1e-12
    for r, m in zip(rates, levels):  # and each holds its share of everything
        assert furthest(m, r / sum(rates) * level) < 1e-12


@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_a_period_delays_and_does_nothing_else(loss):
    """Between two moves the slow share waits: at the first token the answers agree, at the second they do not."""
    k, v, _ = stream(length=12)
    late, _ = additive([Clock(0.3), Clock(0.2, period=4)], k, v, None, loss)
    one, _ = additive([Clock(0.5)], k, v, None, loss)
    fast, _ = additive([Clock(0.3)], k, v, None, loss)
    assert furthest(late[:, :4], fast[:, :4]) < 1e-12  # before its first move the slow level is not there
    assert furthest(late[:, 1], one[:, 1]) > 1e-3
    still, _ = additive([Clock(0.3), Clock(0.2, period=13)], k, v, None, loss)
    assert furthest(still, fast) < 1e-12


@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_with_an_end_the_slow_period_costs_nothing(loss):
    """Rates (a + b, b), the slow level moving once a context, are rates (a, b) with both moving at every token."""
    k, v, begins = stream()
    seldom, slow = additive([Clock(0.4, ends=1), Clock(0.1, period=8)], k, v, begins, loss)
    always, each = additive([Clock(0.3, ends=1), Clock(0.1)], k, v, begins, loss)
    assert furthest(seldom, always) < 1e-12 and furthest(slow[1], each[1]) < 1e-12


def test_with_an_end_levels_are_not_one_level():
    k, v, begins = stream()
    two, levels = additive([Clock(0.3, ends=1), Clock(0.1)], k, v, begins)
    for rate in (0.1, 0.3, 0.4):
        for ends in (0, 1):
            one, _ = additive([Clock(rate, ends=ends)], k, v, begins)
            assert furthest(two[:, 9:], one[:, 9:]) > 1e-2
    assert furthest(levels[0], 3 * levels[1]) > 1e-2


def test_a_level_that_ends_starts_again_and_one_that_leaks_fades():
    k, v, begins = stream(length=16)
    y, _ = additive([Clock(0.5, ends=1)], k, v, begins)
    second, _ = additive([Clock(0.5)], k[:, 8:], v[:, 8:])
    assert furthest(y[:, 8:], second) < 1e-12
    every_other, _ = additive([Clock(0.5, ends=2)], k, v, begins)
    never, _ = additive([Clock(0.5)], k, v, begins)
    assert furthest(every_other, never) < 1e-12  # the second context would be the first to end it
    _, (leaky,) = additive([Clock(0.5, keep=0.5)], k[:, :2], v[:, :2])
    _, (first,) = additive([Clock(0.5)], k[:, :1], v[:, :1])
    error = (first @ k[:, 1, :, None])[..., 0] - v[:, 1]
    assert furthest(leaky, 0.5 * first - 0.5 * error[..., None] * k[:, 1, None, :]) < 1e-12


def test_bad_clocks_and_shapes_are_refused():
    k, v, begins = stream()
    for clocks, name in (([], "clocks"), ([Clock(0.1, period=0)], "clocks"), ([Clock(0.1, keep=0.0)], "clocks")):
        with pytest.raises(NLBookError, match=name):
            additive(clocks, k, v)
    with pytest.raises(NLBookError, match="loss"):
        additive([Clock(0.1)], k, v, loss="hinge")
    with pytest.raises(NLBookError, match="begins"):
        additive([Clock(0.1)], k, v, begins[:5])
