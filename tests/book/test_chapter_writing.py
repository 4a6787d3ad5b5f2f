"""Every claim of chapter 02 that stands under a figure or in a sentence with a number."""

from __future__ import annotations

import pytest
import torch
from kit import close, draws

from nlbook.book import viz
from nlbook.book.chapters.writing import figures as ch02
from nlbook.book.chapters.writing import two_tasks, written_layer
from nlbook.errors import NLBookError
from nlbook.optim import M3

SEEDS = range(5)


def without_a_quarter(layer):
    """Accuracy of the list without its lines 1, 5, 9 ..., without 2, 6, 10 ..., and so on."""
    trace, shares = layer.trace, []
    for first in range(4):
        kept = torch.arange(400) % 4 != first
        short = layer.x_test @ (trace.start - 0.05 * trace.surprises[kept].mT @ trace.keys[kept]).mT
        shares.append(float((short.argmax(-1) == layer.y_test).double().mean()))
    return shares


def test_what_a_list_without_a_quarter_of_its_lines_names():
    """The ranges in "Good for": three worlds, four quarters, raw and with the mean image taken off."""
    for centred, low, high in ((False, 0.27, 0.76), (True, 0.81, 0.90)):
        shares = [x for s in range(3) for x in without_a_quarter(written_layer.write_digits(seed=s, centred=centred))]
        assert (round(min(shares), 2), round(max(shares), 2)) == (low, high)


@pytest.mark.parametrize("seed", range(10))
def test_the_list_answers_as_the_weight_and_frozen_surprises_do_not(seed):
    layer = written_layer.write_digits(400, 0.05, seed)
    q, trace = layer.x_test, layer.trace
    scores = q @ trace.start.T + written_layer.kernel_scores(trace, q, 400)
    assert float((scores - q @ trace.weight().T).abs().max()) < 1e-12
    assert layer.accuracy() > 0.7
    assert layer.accuracy(300) > max(without_a_quarter(layer))  # list A beats list B, whichever quarter B lacks
    centred = written_layer.write_digits(400, 0.05, seed, centred=True)
    assert min(without_a_quarter(centred)) > centred.accuracy() - 0.13  # most of the harm is the shared direction
    frozen = written_layer.write_digits(400, 0.05, seed, frozen_surprises=True)
    assert frozen.accuracy() < 0.4 < layer.accuracy() - 0.3
    cold = written_layer.write_digits(400, 0.05, seed, centred=True, frozen_surprises=True).accuracy()
    assert cold > 0.7 and 0.01 < centred.accuracy() - cold < 0.15  # a Hebbian sum, a little behind
    one_batch_step = trace.start - 0.05 * frozen.trace.surprises.T @ trace.keys
    assert torch.allclose(frozen.trace.weight(), one_batch_step)  # "one huge step"


def test_the_hand_calculation():
    W, seen = torch.tensor([[0.5, 0.0]]), []
    for t in range(100):
        key, target = (torch.tensor([2.0, 0.0]), 1.0) if t % 2 else (torch.tensor([1.0, 2.0]), 3.0)
        surprise = W @ key - target
        W = W - 0.1 * torch.outer(surprise, key)
        seen.append(round(surprise.item(), 6))
        if t == 1:
            assert seen == [-2.5, 0.5] and torch.allclose(W, torch.tensor([[0.65, 0.5]]))
    assert torch.allclose(W, torch.tensor([[0.5, 1.25]]), atol=5e-3) and abs(seen[-1]) < 5e-3


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


@pytest.mark.eq(56, 57)
def test_dgd_does_not_pile_up_and_is_sgd_on_a_loss_that_pulls_to_zero():
    from nlbook.book.chapters.writing.exercises import dgd_step

    held, x, delta = torch.zeros(1, 1), torch.ones(1), -torch.ones(1)
    for _ in range(20):
        held = dgd_step(held, x, delta, 0.5)
    assert float(held) == pytest.approx(1, abs=1e-3) and float(held) < 1 and 20 * 0.5 == 10
    g = torch.Generator().manual_seed(0)
    W, x, y = (torch.randn(*n, generator=g, dtype=torch.float64) for n in ((2, 3), (3,), (2,)))
    Z = W.clone().requires_grad_()
    (slope,) = torch.autograd.grad(0.5 * (Z @ x - y).square().sum() + 0.5 * (Z @ x).square().sum(), Z)
    assert torch.allclose(dgd_step(W, x, W @ x - y, 0.7), W - 0.7 / (1 + 0.7 * x @ x) * slope)


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


# --- momentum ---


def test_horizon_horizons():
    view = viz.find("horizon")
    for beta, half, most in ((0.9, 7, 44), (0.99, 69, 459), (0.999, 693, 4603)):
        f = view.facts({"beta": beta})
        assert (f["n50"], f["n99"]) == (f["step50"], f["step99"]) == (half, most)
        assert str(half) in view.answer and str(most) in view.answer
    assert view.facts("beta=0.5")["n50"] == 1


def test_horizon_a_slow_momentum_adds_a_tail():
    view = viz.find("horizon")
    plain, slow = view.facts("beta=0.9"), view.facts("beta=0.9,slow=1,log=1")
    assert (slow["step50"], slow["step99"]) == (12, 333) and "333" in view.answer
    assert plain["tail"] < 0.01 < 0.2 < slow["tail"]
    for period, before in ((20, 10), (50, 20)):  # the longer the period, the longer the tail
        f = [view.facts({"slow": True, "period": p}) for p in (period, before)]
        assert f[0]["step99"] > f[1]["step99"]


def test_horizon_draws_what_a_slow_momentum_does():
    """Its weights, against the memory itself: write one gradient of one, then zeros."""
    from nlbook.book.chapters.writing.horizon import weights

    _, step = weights(0.9, True, 10, 0.9, 0.5)
    for age in (0, 3, 9, 10, 37):
        memory = two_tasks.SlowMomentum(1, 0.9, 0.9, period=10, weight=0.5)
        last = 100  # a multiple of the period: just written
        for t in range(1, last + 1):
            out = memory.write(torch.full((1,), float(t == last - age), dtype=torch.float64))
        assert abs(float(out) / 1.5 - float(step[age])) < 1e-12


def test_by_hand_and_one_push():
    m = 0.0
    seen = [m := 0.5 * m + 0.5 * g for g in (8.0, 4.0, -2.0)]
    assert seen == [4.0, 4.0, 1.0]
    for keep, after in ((0.9, (1.0, 5.2, 9.9, 10.0)), (0.99, (1.0, 6.8, 35.7, 100.0))):
        path = (1 - keep ** torch.tensor([1.0, 7, 44, 1000], dtype=torch.float64)) / (1 - keep)
        assert [round(float(x), 1) for x in path] == list(after)


@pytest.mark.eq(12, 13, 33, 34)
def test_a_step_on_the_inner_objective_is_the_heavy_ball():
    from nlbook.book.chapters.writing.exercises import inner_gradient

    g = torch.Generator().manual_seed(0)
    m, v = torch.randn(2, 3, 4, generator=g, dtype=torch.float64)
    torch.testing.assert_close(m - 0.3 * inner_gradient(m, v, 0.3, 0.9), 0.9 * m + 0.3 * v)


@pytest.mark.eq(45)
def test_the_old_subspace_fades_at_the_speed_of_beta():
    fast, slow = two_tasks.remembered(0.9, seeds=SEEDS), two_tasks.remembered(0.9, period=40, seeds=SEEDS)
    assert float((fast.mean(0) - ch02.predicted_share(0.9, 200)).abs().max()) < 0.1
    assert abs(float(fast[:, 7].mean()) - 0.49) < 0.05 and float(fast[:, 44].max()) < 1e-3
    assert abs(float(slow[:, 44].mean()) - 0.38) < 0.05 and float(slow[:, 44].min()) > 0.2
    between, long = (two_tasks.remembered(keep, seeds=SEEDS).mean(0) for keep in (0.95, 0.99))
    heard, kept = 1 - slow.mean(0), slow.mean(0)
    assert 1 - float(between[10]) > float(heard[10]) > 10 * (1 - float(long[10]))  # one number: quick, or long
    assert float(between[200]) < 1e-6 and float(long[200]) < 0.04 and 0.1 < float(kept[200]) < 0.2
    assert abs(float(fast.mean(0)[20]) - 0.02) < 0.01
    orthogonal, overlapping = (two_tasks.two_tasks(overlap=o).bases for o in (0.0, 0.3))
    close(orthogonal[0].mT @ orthogonal[1], torch.zeros(8, 8))
    close(torch.linalg.svdvals(overlapping[0].mT @ overlapping[1]), torch.full((8,), 0.3, dtype=torch.float64))


@pytest.mark.eq(45, 75)
def test_a_slow_momentum_protects_nothing_and_a_projection_does():
    lost = {
        m: two_tasks.forgetting(m, 0.3, steps=300, seeds=SEEDS)[:, 1]
        for m in ("sgd", "momentum", "slow momentum", "projection")
    }
    assert (lost["sgd"] > 0.1).all()
    assert ((lost["slow momentum"] / lost["sgd"] - 1).abs() < 0.05).all()
    assert ((lost["momentum"] / lost["sgd"] - 1).abs() < 0.05).all()
    assert (lost["projection"] < 0.01).all()
    assert (two_tasks.forgetting("projection", 0.3, steps=300)[:, 2] < 0.05).all()  # task 2 is learned
    short = {m: two_tasks.forgetting(m, 0.3, steps=30, seeds=SEEDS).mean(0) for m in lost}  # task 1 unfinished
    gained = {m: float(before - after) for m, (before, after, _) in short.items()}
    assert gained["sgd"] < -0.2 < 0 < gained["momentum"] < gained["slow momentum"]
    for method in ("sgd", "momentum", "slow momentum"):
        assert (two_tasks.forgetting(method, 0.0, steps=300, seeds=SEEDS)[:, 1] < 0.01).all()
    assert two_tasks.forgetting("slow sum", 0.0, steps=300, seeds=SEEDS)[:, 1].mean() > 0.05


@pytest.mark.eq(75)
def test_the_slow_momentum_is_the_two_memories_of_m3():
    """M3 gathers a period's sum where the toy takes its mean; Newton-Schulz reads both memories and changes none."""
    W, draw = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True), draws()
    optimizer, memory = M3([W], 0.1, (0.9, 0.95, 0.8), period=5), two_tasks.SlowMomentum(12, 0.9, 0.8, period=5)
    for _ in range(23):
        W.grad = draw(3, 4)
        optimizer.step()
        memory.write(W.grad.flatten())
        kept = optimizer.state[W]
        close(memory.fast, kept["fast"].flatten())
        close(5 * memory.slow, kept["slow"].flatten())
        close(memory.block, kept["block"].flatten())


def test_figures_say_what_they_show():
    d = written_layer.divergence((0.02,), (1, 5), seeds=1)
    assert ch02.divergence_curves(d).axes and "1e-12" in ch02.divergence_alt(d)
    sums = {"plain": written_layer.frozen_sum(0), "equal": written_layer.frozen_sum(0, balanced=True)}
    assert ch02.class_sums(sums).axes and "from -6 to 12" in ch02.class_sums_alt(sums)
    held = {"momentum 0.9": two_tasks.remembered(0.9, after=50, before=60, seeds=(0,))}
    assert ch02.forgetting_curves(held).axes and "after 44" in ch02.forgetting_alt(held)
    said = {t.get_text() for fig in (ch02.loop_and_line(), ch02.nested_loops()) for ax in fig.axes for t in ax.texts}
    assert {"weight W", "error δ", "pair (x, −δ)", "momentum m", "push v = −gradient"} <= said
