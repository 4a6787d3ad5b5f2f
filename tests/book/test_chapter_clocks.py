"""Every claim of chapter 05 that stands under a figure or in a sentence with a number."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch

from nlbook.book import viz
from nlbook.book.chapters.clocks import figures as ch07
from nlbook.book.chapters.clocks import levels_alone
from nlbook.cms import CMS, schedule
from nlbook.errors import NLBookError


@lru_cache
def three(seed: int = 0, switch: int = 512) -> tuple[levels_alone.Knowledge, ...]:
    return tuple(levels_alone.knowledge((1, 16, 128), seed=seed, switch=switch, length=switch + 512))


def on_a(k: levels_alone.Knowledge, token: int) -> torch.Tensor:
    return k.a[levels_alone.at(k, token)]


def test_prompts_shorter_than_the_chunk_teach_nothing():
    stream = levels_alone.two_rotations(1, 500, 500)
    level = CMS(16, 32, [64], lr=0.8).double()
    state, carry = level.initial_state(1), level.initial_state(1)
    first = {n: w.clone() for n, w in state.levels[0].weights.items()}
    for p in range(10):
        part = slice(50 * p, 50 * p + 50)
        _, state = level(stream.x[:, part], state, stream.target[:, part], partial="drop")
        _, carry = level(stream.x[:, part], carry, stream.target[:, part])
    assert state.position == 500 and state.levels[0].updates == 0
    assert all(torch.equal(state.levels[0].weights[n], w) for n, w in first.items())
    assert (carry.levels[0].updates, carry.levels[0].clock) == (7, 52)


def test_the_hand_calculation():
    w, waiting, seen = [0.0, 0.0], [], []
    for t in (1, 2, 3):
        y = sum(w)
        seen.append(y)
        waiting.append(y - 1)
        w[0] -= 0.5 * (y - 1)
        if t % 2 == 0:
            w[1] -= 0.5 * sum(waiting) / 2
            waiting = []
    assert seen == [0.0, 0.5, 1.125] and w[1] == 0.375


@pytest.mark.parametrize("seed", range(3))
def test_only_the_level_that_has_not_written_still_knows_a(seed):
    fast, middle, slow = three(seed)
    assert (fast.updates, middle.updates, slow.updates) == (1024, 64, 8)
    for k in (fast, middle, slow):
        assert (on_a(k, 512) < 0.35).all()  # all have learned A
        assert (k.b[-1] < 0.35).all() and (k.a[-1] > 1).all()  # and in the end all have lost it to B
    assert torch.equal(on_a(slow, 576), on_a(slow, 512))  # not one bit lost 64 tokens later
    assert (on_a(fast, 576) > 1).all() and (on_a(middle, 576) > 0.7).all()
    assert (on_a(slow, 640) > 2 * on_a(slow, 512)).all()  # its next write takes A away
    at = levels_alone.at(slow, 576)
    assert (slow.b[at] > fast.b[at]).all() and (slow.b[at] > middle.b[at]).all()  # and it is the last to follow B


def test_the_figures_in_the_prose():
    fast, _, slow = three()
    assert float(on_a(fast, 512).mean()) == pytest.approx(0.12, abs=0.005)
    assert float(on_a(slow, 512).mean()) == pytest.approx(0.23, abs=0.005)


def test_a_switch_between_boundaries_leaves_only_the_rest_of_the_chunk():
    fast, _, slow = three(0, 480)  # boundaries of the slow level at 384, 512, 640
    assert torch.equal(on_a(slow, 504), on_a(slow, 480))
    assert (on_a(slow, 512) > on_a(slow, 504)).all() and torch.equal(on_a(slow, 512), on_a(slow, 632))
    assert (on_a(slow, 544) < on_a(fast, 544)).all()


def test_control_equal_periods_are_one_level():
    equal = levels_alone.knowledge((16, 16, 16), streams=4)
    assert torch.equal(equal[0].a, equal[1].a) and torch.equal(equal[0].a, equal[2].a)
    assert (on_a(equal[0], 576) > 0.7).all()


def test_in_one_chain_with_one_loss_the_answer_forgets_with_the_fast_level():
    for seed in range(3):
        s = levels_alone.two_rotations(seed=seed)
        chain = levels_alone.learn(levels_alone.model((1, 16, 128), [0.02, 0.2, 0.8]), s)
        alone = levels_alone.learn(levels_alone.model((1,), [0.02]), s)
        assert float(on_a(chain, 512).mean()) < 0.1
        assert float(on_a(chain, 576).mean()) > 0.9 and float(on_a(chain, 576).mean()) > float(on_a(alone, 576).mean())


def test_steps_are_tuned_inside_the_grid_and_on_other_streams():
    for period in (1, 16, 128):
        assert levels_alone.STEPS[0] < levels_alone.tune(period) < levels_alone.STEPS[-1]
    assert not torch.equal(levels_alone.two_rotations(2, seed=0).x, levels_alone.two_rotations(2, seed=1000).x)


@pytest.mark.eq(71)
def test_the_cost_that_is_counted_is_the_cost_that_is_predicted():
    cms = levels_alone.model((1, 16, 128), [0.05, 0.4, 0.8])
    s = levels_alone.two_rotations(2)
    with torch.no_grad():
        _, state = cms(s.x, target=s.target)
    assert state.moved_per_token() == pytest.approx(1024 * (1 + 1 / 16 + 1 / 128))
    assert state.moved_per_token() == pytest.approx(cms.moved_per_token())
    assert cms.moved_per_token() / 3072 == pytest.approx(0.357, abs=1e-3)


@pytest.mark.eq(72)
def test_floor_not_ceil_updates_fit_into_a_context():
    events = schedule((2, 5), 10, nested=True)
    assert [e.time for e in events if (e.kind, e.level) == ("update", 0)] == [2, 4, 7, 9]
    assert [e.time for e in events if e.kind == "restart"] == [5, 10]


@pytest.mark.eq(73)
def test_the_outer_gradient_reaches_every_start():
    s = levels_alone.two_rotations(1)
    cms = levels_alone.model((1, 4, 16), [0.05, 0.2, 0.4])
    y, _ = cms(s.x[:, :40], target=s.target[:, :40])
    (y - s.target[:, :40]).square().mean().backward()
    assert all(p.grad is not None and float(p.grad.norm()) > 0 for p in (*cms.up, *cms.down))


def test_the_score_at_120_tokens_and_after():
    for seed in range(5):
        f = viz.find("score").facts(viz.find("score").state("C=1,16,64;T=120").replace(seed=seed))
        assert f["first_64"] > 0.9 > 0.5 > max(f["first_1"], f["first_16"])
    assert viz.find("score").facts("C=1,16,64;T=120")["notes_16"] == 7
    assert viz.find("score").facts("C=1,16,64;T=128")["notes_64"] == 2


def test_figures_say_what_they_show():
    k = levels_alone.knowledge((4, 8), streams=1, switch=64, length=128, every=8)
    assert len(ch07.per_level(k, 64).axes) == 2 and "period 8 wrote 16 times" in ch07.per_level_alt(k, 64, 16)
    assert levels_alone.at(k[0], 7) == 0 and levels_alone.at(k[0], 8) == 1
    with pytest.raises(NLBookError, match="switch: got 9"):
        levels_alone.two_rotations(1, 9, 8)
