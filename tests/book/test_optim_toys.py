"""The claims under chapter 3's pictures: the bent valley, the two-task memory, the race on digits."""

from __future__ import annotations

import math

import pytest
import torch
from kit import close, draws

from nlbook.book.chapters.optimizers import optim_race
from nlbook.book.chapters.optimizers.optim_toys import (
    START,
    VALLEYS,
    SlowMomentum,
    Valley,
    descend,
    forgetting,
    remembered,
    sweep,
    two_tasks,
)
from nlbook.errors import NLBookError
from nlbook.optim import M3, DeltaMomentum

eq = pytest.mark.eq


@eq(53)
def test_the_valleys_gradient_is_autograds_and_its_minimum_is_zero():
    for valley in VALLEYS:
        z = torch.tensor(START, dtype=torch.float64, requires_grad=True)
        (g,) = torch.autograd.grad(valley.value(z[0], z[1]), z)
        torch.testing.assert_close(torch.stack(valley.gradient(*z.detach())), g)
        grid = torch.arange(-40, 41, dtype=torch.float64) / 10
        psi = valley.value(*torch.meshgrid(grid, grid, indexing="ij"))
        assert psi[40, 40] == 0 and (psi <= 1e-3).sum() == 1


@eq(48, 53)
@pytest.mark.parametrize(
    ("rule", "variant"),
    [("bounded", "bounded"), ("clipped", "clipped"), ("implicit", "implicit"), ("row", "corrected")],
)
def test_the_fast_descent_is_the_optimizer(rule, variant):
    valley, lr, erase = Valley(5.0, 1.0, 2.0), 0.01, 1e-4
    fast = descend(valley, rule, lr=lr, erase=erase, length=40, path=True).path
    z = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    optimizer, path = DeltaMomentum([z], lr, 0.9, erase, variant), [z.detach().clone()]
    for _ in range(40):
        optimizer.zero_grad()
        valley.value(z[0], z[1]).backward()
        optimizer.step()
        path.append(z.detach().clone())
    torch.testing.assert_close(fast, torch.stack(path), rtol=1e-9, atol=1e-9)


@eq(49, 53)
def test_printed_delta_momentum_never_arrives_and_a_stable_one_usually_wins():
    """13 rates each, brake tied to the rate: the figure's claim needs a stabilised brake."""
    found = sweep(("heavy ball", "printed", "column", "row", "clipped", "bounded"), length=2500)
    assert found.arrives("printed") == 0
    assert found.arrives("column") <= 12 and found.arrives("row") <= 12
    assert found.faster("column") <= 3 and found.faster("row") <= 3
    assert found.faster("clipped") >= 18 and found.faster("bounded") >= 18
    assert found.ratio("bounded") < 0.8 and found.ratio("clipped") < 0.8
    assert set(found.settings.values()) == {13}
    assert math.isnan(found.ratio("printed"))


@eq(53)
def test_one_picture_and_its_neighbours():
    steps = lambda rule, lr, erase=None: float(  # noqa: E731
        descend(Valley(5.0, 1.0, 2.0), rule, lr=lr, erase=erase, length=1000).steps
    )
    assert steps("clipped", 0.0178, 0.1) < 0.5 * steps("heavy ball", 0.0178) < 150
    assert steps("heavy ball", 0.0316) == math.inf and steps("clipped", 0.0316, 0.1) < 150
    with pytest.raises(NLBookError, match="rule: got 'nesterov'"):
        descend(Valley(), "nesterov", lr=0.1)


@eq(75)
def test_the_slow_momentum_is_the_two_memories_of_m3():
    """M3 gathers a period's sum where the toy takes its mean; Newton-Schulz reads both memories and changes none."""
    W, draw = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True), draws()
    optimizer, memory = M3([W], 0.1, (0.9, 0.95, 0.8), period=5), SlowMomentum(12, 0.9, 0.8, period=5)
    for _ in range(23):
        W.grad = draw(3, 4)
        optimizer.step()
        memory.write(W.grad.flatten())
        kept = optimizer.state[W]
        close(memory.fast, kept["fast"].flatten())
        close(5 * memory.slow, kept["slow"].flatten())
        close(memory.block, kept["block"].flatten())


@eq(45)
def test_momentum_forgets_the_old_subspace_and_a_slow_one_later():
    fast, slow = remembered(0.9), remembered(0.9, period=40)
    assert (fast[:, 5] > 0.5).all() and (fast[:, 10] < 0.5).all() and abs(float(fast[:, 7].mean()) - 0.5) < 0.08
    assert (fast[:, 44] < 1e-3).all()
    assert (slow[:, 44] > 0.2).all() and (slow[:, 44] > 100 * fast[:, 44]).all()
    orthogonal, overlapping = two_tasks(overlap=0.0), two_tasks(overlap=0.3)
    assert float((orthogonal.bases[0].mT @ orthogonal.bases[1]).abs().max()) < 1e-12
    torch.testing.assert_close(
        torch.linalg.svdvals(overlapping.bases[0].mT @ overlapping.bases[1]), torch.full((8,), 0.3, dtype=torch.float64)
    )


@eq(45, 75)
def test_remembering_gradients_does_not_keep_the_old_task_but_a_constraint_does():
    for method in ("sgd", "momentum", "slow momentum"):
        assert (forgetting(method, 0.0, steps=300)[:, 1] < 0.01).all()  # exactly orthogonal tasks: nothing to forget
    lost = {m: forgetting(m, 0.3, steps=300)[:, 1] for m in ("sgd", "momentum", "slow momentum", "projection")}
    assert (lost["sgd"] > 0.1).all()
    for method in ("momentum", "slow momentum"):
        assert (lost[method] / lost["sgd"] - 1).abs().max() < 0.1
    assert (lost["projection"] < 0.01).all()
    assert (forgetting("projection", 0.3, steps=300)[:, 2] < 0.05).all()  # and task 2 is learned all the same
    assert forgetting("slow sum", 0.0)[:, 1].mean() > 0.02  # the printed sum without decay drags the weights away


def test_a_race_is_fair_and_repeats_itself():
    a = optim_race.run("M3 update", 3e-3, seed=1, steps=12)
    b = optim_race.run("M3 update", 3e-3, seed=1, steps=12)
    assert torch.equal(a[0], b[0]) and a[1:3] == b[1:3]
    first = {float(optim_race.run(name, rates[0], seed=3, steps=1)[0]) for name, rates in optim_race.RATES.items()}
    assert len(first) == 1  # same weights and batches for everybody
    assert len({len(r) for r in optim_race.RATES.values()}) == 1  # same budget
    assert set(optim_race.RATES) == set(optim_race.OPTIMIZERS)
    entry = optim_race.race(("AdamW",), steps=20, seeds=(0, 1)).entries["AdamW"]
    assert entry.validation[entry.lr] == min(entry.validation.values()) and entry.train.shape == (2, 20)
    with pytest.raises(NLBookError, match="name: got 'Adam'"):
        optim_race.run("Adam", 0.1)


def test_on_digits_m3_needs_the_scale_free_second_moment():
    """Five seeds at the rates that the full race picks; no claim about who wins among the others."""
    seeds = range(5)
    loss = {
        name: torch.tensor([optim_race.run(name, lr, seed=s, steps=150)[1] for s in seeds])
        for name, lr in (("AdamW", 3e-2), ("Muon", 1e-2), ("M3 update", 3e-3), ("M3 grad", 1e-5))
    }
    for name in ("AdamW", "Muon", "M3 update"):
        assert (loss[name] < 0.25).all()
    assert (loss["M3 grad"] > 2 * loss["M3 update"]).all()
