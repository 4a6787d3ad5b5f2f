"""Every claim of chapter 02 that stands under a figure or in a sentence with a number."""

from __future__ import annotations

import pytest
import torch

from nlbook.book import viz
from nlbook.book.chapters.writing import figures as ch02
from nlbook.book.chapters.writing import written_layer
from nlbook.errors import NLBookError


@pytest.mark.parametrize("seed", range(10))
def test_the_list_answers_as_the_weight_and_frozen_surprises_do_not(seed):
    layer = written_layer.write_digits(400, 0.05, seed)
    q, trace = layer.x_test, layer.trace
    scores = q @ trace.start.T + written_layer.kernel_scores(trace, q, 400)
    assert float((scores - q @ trace.weight().T).abs().max()) < 1e-12
    assert layer.accuracy() > 0.7
    frozen = written_layer.write_digits(400, 0.05, seed, frozen_surprises=True)
    assert frozen.accuracy() < 0.4 < layer.accuracy() - 0.3
    centred = [
        written_layer.write_digits(400, 0.05, seed, centred=True, frozen_surprises=f).accuracy() for f in (False, True)
    ]
    assert centred[1] > 0.7 and 0.01 < centred[0] - centred[1] < 0.15  # a Hebbian sum, a little behind
    one_batch_step = trace.start - 0.05 * frozen.trace.surprises.T @ trace.keys
    assert torch.allclose(frozen.trace.weight(), one_batch_step)  # "one huge step"


def test_the_hand_calculation():
    W = torch.tensor([[0.5, 0.0]])
    seen = []
    for x, target in [((1.0, 2.0), 3.0), ((2.0, 0.0), 1.0)]:
        key = torch.tensor(x)
        surprise = W @ key - target
        W = W - 0.1 * torch.outer(surprise, key)
        seen.append(round(surprise.item(), 6))
    assert seen == [-2.5, 0.5] and torch.allclose(W, torch.tensor([[0.65, 0.5]]))


def test_other_classes_can_only_speak_against():
    """The caution under the digits: inputs are never negative, so the sign of a write is that of its own class."""
    layer = written_layer.write_digits(400)
    assert float(layer.trace.keys.min()) >= 0
    for i in range(20):
        s = written_layer.support(layer, i)
        own = layer.labels == layer.y_test[i]
        assert bool((s[own] >= 0).all()) and bool((s[~own] <= 0).all())
        total = float((layer.trace.weight() - layer.trace.start)[layer.y_test[i]] @ layer.x_test[i])
        assert abs(float(s.sum()) - total) < 1e-10


def test_divergence():
    d = written_layer.divergence(seeds=3)
    for lr, gaps in d.dual.items():
        assert float(gaps.max()) < 1e-12, lr
    for lr, gaps in d.frozen.items():
        mean = gaps.mean(0)
        assert float(mean[0]) > 1e-4 and bool((mean.diff() > 0).all()), lr  # ever further from the second step on
    assert float(d.frozen[0.002][:, 1].max()) < 0.02  # the kernel regime: good for a few small steps
    assert float(d.frozen[0.2][:, -1].min()) > 5  # and hopeless at a large rate


def test_after_one_step_frozen_is_live():
    live, cold = (written_layer.write_digits(1, 0.2, frozen_surprises=f).trace.weight() for f in (False, True))
    assert torch.equal(live, cold)


def test_a_steeper_loss_can_make_dgd_diverge():
    """The limit of "stable at every rate": the sentence holds for half the squared error, not for twice that slope."""
    w, x, lr = 0.0, 1.5, 1.0
    a = lr / (1 + lr * x * x)
    for _ in range(200):
        w = w * (1 - a * x * x) - a * 2 * (w * x - 1) * x
    assert abs(w * x) > 1e3


@pytest.mark.parametrize("lr", [0.1, 0.5, 1.0, 10.0, 1000.0])
def test_dgd_rests_at_half_the_target_at_every_rate(lr):
    answers = written_layer.one_weight("dgd", lr, steps=20_000)
    assert abs(answers[-1] - 0.5) < 1e-3
    assert max(abs(a) for a in answers) <= 1.0  # never beyond the target


def test_gradient_descent_explodes_at_the_printed_rates():
    assert abs(written_layer.one_weight("gd", 0.1, steps=200)[-1] - 1) < 1e-6
    assert abs(written_layer.one_weight("gd", 1.0, steps=200)[-1]) > 1e6
    with pytest.raises(NLBookError, match="rule: got 'sgd'"):
        written_layer.one_weight("sgd", 0.1)


def test_the_frozen_sum_of_v3_overshoots():
    facts = viz.load("weight").facts
    assert facts["gap"] < 1e-12 and facts["error"] < 0.01 and facts["ratio"] > 3


def test_figures_say_what_they_show():
    layer = written_layer.write_digits(60)
    assert len(ch02.made_of(layer, 3).axes) == 11 and "beside the training digits" in ch02.made_of_alt(layer, 3)
    d = written_layer.divergence((0.02,), (1, 5), seeds=1)
    assert ch02.divergence_curves(d).axes and "1e-12" in ch02.divergence_alt(d)
