"""Every claim of chapter A that stands under a figure or in a sentence with a number; the horizon among them."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from kit import close, draws, refuses

from nlbook import optim
from nlbook.book import viz
from nlbook.book.chapters.optimizers import figures as ch03
from nlbook.book.chapters.optimizers import optim_race, optim_toys
from nlbook.book.chapters.optimizers.optim_toys import Valley
from nlbook.optim import M3, DeltaMomentum

SEEDS = range(5)


# --- how far back? ---


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
    from nlbook.book.chapters.optimizers.horizon import weights

    _, step = weights(0.9, True, 10, 0.9, 0.5)
    for age in (0, 3, 9, 10, 37):
        memory = optim_toys.SlowMomentum(1, 0.9, 0.9, period=10, weight=0.5)
        last = 100  # a multiple of the period: just written
        for t in range(1, last + 1):
            out = memory.write(torch.full((1,), float(t == last - age), dtype=torch.float64))
        assert abs(float(out) / 1.5 - float(step[age])) < 1e-12


# --- the hand calculation, the push, the inner problem ---


def test_by_hand_and_one_push():
    m = 0.0
    seen = [m := 0.5 * m + 0.5 * g for g in (8.0, 4.0, -2.0)]
    assert seen == [4.0, 4.0, 1.0]
    for keep, after in ((0.9, (1.0, 5.2, 9.9, 10.0)), (0.99, (1.0, 6.8, 35.7, 100.0))):
        path = (1 - keep ** torch.tensor([1.0, 7, 44, 1000], dtype=torch.float64)) / (1 - keep)
        assert [round(float(x), 1) for x in path] == list(after)


@pytest.mark.eq(12, 13, 33, 34)
def test_a_step_on_the_inner_objective_is_the_heavy_ball():
    from nlbook.book.chapters.optimizers.exercises import inner_gradient

    g = torch.Generator().manual_seed(0)
    m, grad = torch.randn(2, 3, 4, generator=g, dtype=torch.float64)
    torch.testing.assert_close(m - 0.3 * inner_gradient(m, grad, 0.3, 0.9), 0.9 * m - 0.3 * grad)


# --- the signature, its control, and what does not follow ---


@pytest.mark.eq(45)
def test_the_old_subspace_fades_at_the_speed_of_beta():
    fast, slow = optim_toys.remembered(0.9, seeds=SEEDS), optim_toys.remembered(0.9, period=40, seeds=SEEDS)
    assert float((fast.mean(0) - ch03.predicted_share(0.9, 200)).abs().max()) < 0.1
    assert abs(float(fast[:, 7].mean()) - 0.49) < 0.05 and float(fast[:, 44].max()) < 1e-3
    assert abs(float(slow[:, 44].mean()) - 0.38) < 0.05 and float(slow[:, 44].min()) > 0.2
    shuffled = optim_toys.remembered(0.9, shuffle=True, seeds=SEEDS)
    assert (shuffled.mean(1) > 0.8).all()  # three gradients in four are task 1's, for ever
    assert abs(float(shuffled[:, :100].mean() - shuffled[:, 100:].mean())) < 0.05
    orthogonal, overlapping = (optim_toys.two_tasks(overlap=o).bases for o in (0.0, 0.3))
    close(orthogonal[0].mT @ orthogonal[1], torch.zeros(8, 8))
    close(torch.linalg.svdvals(overlapping[0].mT @ overlapping[1]), torch.full((8,), 0.3, dtype=torch.float64))


@pytest.mark.eq(45, 75)
def test_a_slow_momentum_protects_nothing_and_a_projection_does():
    lost = {
        m: optim_toys.forgetting(m, 0.3, steps=300, seeds=SEEDS)[:, 1]
        for m in ("sgd", "momentum", "slow momentum", "projection")
    }
    assert (lost["sgd"] > 0.1).all()
    assert ((lost["slow momentum"] / lost["sgd"] - 1).abs() < 0.05).all()
    assert ((lost["momentum"] / lost["sgd"] - 1).abs() < 0.05).all()
    assert (lost["projection"] < 0.01).all()
    assert (optim_toys.forgetting("projection", 0.3, steps=300)[:, 2] < 0.05).all()  # task 2 is learned
    for method in ("sgd", "momentum", "slow momentum"):
        assert (optim_toys.forgetting(method, 0.0, steps=300, seeds=SEEDS)[:, 1] < 0.01).all()
    assert optim_toys.forgetting("slow sum", 0.0, steps=300, seeds=SEEDS)[:, 1].mean() > 0.05


# --- delta momentum ---


@pytest.mark.eq(49, 53)
def test_the_picture_of_one_valley():
    valley = Valley(5.0, 1.0, 2.0)
    heavy, clipped = ch03.steps_on(valley, "heavy ball"), ch03.steps_on(valley, "clipped")
    assert clipped < 0.6 * heavy < 300 and ch03.steps_on(valley, "printed") == float("inf")
    start = valley.gradient(*torch.tensor(optim_toys.START, dtype=torch.float64))
    assert float(start[0] ** 2 + start[1] ** 2) > 100  # "in the hundreds at the start", or above


@pytest.mark.eq(49, 53)
@pytest.mark.parametrize("length", [1500, 2500])  # the chapter's, the ledger's
def test_printed_delta_momentum_never_arrives_and_a_stable_one_usually_wins(length):
    """13 rates each, brake tied to the rate: the figure's claim needs a stabilised brake."""
    found = optim_toys.sweep(("heavy ball", "printed", "column", "row", "clipped", "bounded"), length=length)
    assert found.arrives("printed") == 0 and math.isnan(found.ratio("printed"))
    for rule in ("column", "row"):
        assert found.arrives(rule) <= 12 and found.faster(rule) <= 3
    for rule in ("clipped", "bounded"):
        assert found.faster(rule) >= 16 + 2 * (length > 2000) and found.faster("heavy ball", rule) <= 5
        assert found.ratio(rule) < 0.75
    assert set(found.settings.values()) == {13}


def grid(low: float, high: float, n: int) -> list[float]:
    return [10 ** (low + (high - low) * i / (n - 1)) for i in range(n)]


def test_tuned_harder_the_lead_shrinks():
    hard = optim_toys.sweep(
        ("heavy ball", "bounded"),
        rates=grid(-4, 0, 15),
        keeps=(0.0, 0.5, 0.8, 0.9, 0.95),
        erases=grid(-5, 0, 11),
        length=700,
    )
    assert set(hard.settings.values()) == {825}
    assert 0.8 < hard.ratio("bounded") < 1 and 5 <= hard.faster("heavy ball", "bounded") <= 11


def test_on_36_valleys_the_verdict_depends_on_the_grid():
    """825 settings each, a tenth faster or slower: 18 to 10 with one grid, 10 to 19 with another."""
    valleys = [Valley(*v) for v in product((1.0, 5.0, 20.0), (0.5, 1.0, 2.0), (1.0, 2.0, 4.0, 8.0))]
    margins = []
    for low, high, keeps in ((-4.5, -1, (0.5, 0.8, 0.9, 0.95, 0.99)), (-4, 0, (0.0, 0.5, 0.8, 0.9, 0.95))):
        found = optim_toys.sweep(
            ("heavy ball", "bounded"),
            valleys,
            rates=grid(low, high, 15),
            keeps=keeps,
            erases=grid(-5, 0, 11),
            length=3000 if low == -4.5 else 1500,
        )
        margins.append(found.faster("bounded", margin=0.1) - found.faster("heavy ball", "bounded", margin=0.1))
    assert margins[0] >= 4 and margins[1] <= -4


# --- Newton-Schulz ---


@pytest.mark.eq(43, 44)
def test_where_singular_values_go():
    from nlkernels import newton_schulz

    g = torch.Generator().manual_seed(0)
    G = torch.randn(6, 9, generator=g, dtype=torch.float64)
    before = torch.linalg.svdvals(G) / G.norm()
    for polynomial in ("cubic", "quintic"):  # the figure's map is the matrix iteration
        s = torch.linalg.svdvals(newton_schulz(G, 5, polynomial, eps=0.0))
        torch.testing.assert_close(s, ch03.after(before, 5, polynomial).sort(descending=True).values)
    low, high = ch03.band()
    assert (round(low, 2), round(high, 2)) == (0.68, 1.13)
    s = torch.linspace(0.01, 1, 500, dtype=torch.float64)
    assert float((ch03.after(s, 15) - 1).abs().max()) < 1e-3  # "the 15 steps that this takes"
    assert float(ch03.after(s, 5).min()) < 0.1  # five are not enough
    steep = ch03.after(s, 5, "quintic").diff()
    assert bool((steep > 0).any()) and bool((steep < 0).any())  # "the order is lost"
    stops = ch03.after_pull(s)
    assert 0.7 < float(stops.min()) < 0.72 and float(stops.max()) <= 1 + 1e-9


# --- Adam ---


@pytest.mark.eq(101, 105)
def test_adam_is_the_optimum_only_with_equal_betas():
    g = torch.randn(100, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    w = optim.adam_memory.discount(0.9, 100)
    P = (w @ g.square()).sqrt()
    best = optim.adam_memory.elementwise_loss(optim.adam_memory.elementwise_optimum(g, P, w), g, P, w)
    for beta2 in (0.9, 0.99, 0.999):
        adam = (w @ g) / (optim.adam_memory.discount(beta2, 100) @ g.square()).sqrt()
        excess = float(optim.adam_memory.elementwise_loss(adam, g, P, w) / best - 1)
        assert abs(excess) < 1e-12 if beta2 == 0.9 else excess > 1e-3


# --- the race ---


def test_the_race_ties_but_for_the_printed_denominator():
    """Five seeds at the rates that the tuning picks for 150 steps."""
    picked = {"AdamW": 1e-2, "Muon": 1e-2, "M3 update": 3e-3, "M3 fast only": 3e-3, "M3 grad": 1e-5}
    assert all(lr in optim_race.RATES[name] for name, lr in picked.items())
    loss = {n: torch.tensor([optim_race.run(n, lr, seed=s, steps=150)[1] for s in SEEDS]) for n, lr in picked.items()}
    for name in ("AdamW", "Muon", "M3 update", "M3 fast only"):
        assert 0.07 < float(loss[name].mean()) < 0.15, name  # "within a few hundredths"
    spread = float(loss["M3 update"].std())
    assert float(loss["M3 fast only"].mean() - loss["M3 update"].mean()) < 2 * spread  # the control is no worse
    assert float(loss["M3 grad"].min()) > 5 * float(loss["M3 update"].max())


def test_in_a_short_race_the_slow_memory_is_in_the_way():
    short = {
        n: torch.tensor([optim_race.run(n, 1e-2, seed=s, steps=100)[1] for s in SEEDS])
        for n in ("M3 update", "M3 fast only")
    }  # after 100 steps: better without
    assert float(short["M3 fast only"].mean()) < float(short["M3 update"].mean()) - 0.01


# --- the toys and the race themselves ---


@pytest.mark.eq(53)
def test_the_valleys_gradient_is_autograds_and_its_minimum_is_zero():
    for valley in optim_toys.VALLEYS:
        z = torch.tensor(optim_toys.START, dtype=torch.float64, requires_grad=True)
        (g,) = torch.autograd.grad(valley.value(z[0], z[1]), z)
        torch.testing.assert_close(torch.stack(valley.gradient(*z.detach())), g)
        grid = torch.arange(-40, 41, dtype=torch.float64) / 10
        psi = valley.value(*torch.meshgrid(grid, grid, indexing="ij"))
        assert psi[40, 40] == 0 and (psi <= 1e-3).sum() == 1


@pytest.mark.eq(48, 53)
@pytest.mark.parametrize(
    ("rule", "variant"),
    [("bounded", "bounded"), ("clipped", "clipped"), ("implicit", "implicit"), ("row", "corrected")],
)
def test_the_fast_descent_is_the_optimizer(rule, variant):
    valley, lr, erase = Valley(5.0, 1.0, 2.0), 0.01, 1e-4
    fast = optim_toys.descend(valley, rule, lr=lr, erase=erase, length=40, path=True).path
    z = torch.tensor(optim_toys.START, dtype=torch.float64, requires_grad=True)
    optimizer, path = DeltaMomentum([z], lr, 0.9, erase, variant), [z.detach().clone()]
    for _ in range(40):
        optimizer.zero_grad()
        valley.value(z[0], z[1]).backward()
        optimizer.step()
        path.append(z.detach().clone())
    torch.testing.assert_close(fast, torch.stack(path), rtol=1e-9, atol=1e-9)


@pytest.mark.eq(53)
def test_one_picture_and_its_neighbours():
    steps = lambda rule, lr, erase=None: float(  # noqa: E731
        optim_toys.descend(Valley(5.0, 1.0, 2.0), rule, lr=lr, erase=erase, length=1000).steps
    )
    assert steps("clipped", 0.0178, 0.1) < 0.5 * steps("heavy ball", 0.0178) < 150
    assert steps("heavy ball", 0.0316) == math.inf and steps("clipped", 0.0316, 0.1) < 150
    with refuses("rule"):
        optim_toys.descend(Valley(), "nesterov", lr=0.1)


@pytest.mark.eq(75)
def test_the_slow_momentum_is_the_two_memories_of_m3():
    """M3 gathers a period's sum where the toy takes its mean; Newton-Schulz reads both memories and changes none."""
    W, draw = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True), draws()
    optimizer, memory = M3([W], 0.1, (0.9, 0.95, 0.8), period=5), optim_toys.SlowMomentum(12, 0.9, 0.8, period=5)
    for _ in range(23):
        W.grad = draw(3, 4)
        optimizer.step()
        memory.write(W.grad.flatten())
        kept = optimizer.state[W]
        close(memory.fast, kept["fast"].flatten())
        close(5 * memory.slow, kept["slow"].flatten())
        close(memory.block, kept["block"].flatten())


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
    with refuses("name"):
        optim_race.run("Adam", 0.1)


def test_figures_say_what_they_show():
    held = {"momentum 0.9": optim_toys.remembered(0.9, after=50, before=60, seeds=(0,))}
    assert ch03.forgetting_curves(held).axes and "after 44" in ch03.forgetting_alt(held)
    assert ch03.valley_paths(Valley()).axes and "arrives after" in ch03.valley_alt(Valley())
    found = optim_toys.sweep(("heavy ball", "printed", "bounded"), length=60)
    assert ch03.sweep_strip(found).axes and "27 valleys" in ch03.sweep_alt(found)
    assert ch03.singular_values().axes and "0.68 to 1.13" in ch03.singular_alt()
    race = optim_race.race(("AdamW",), steps=12, seeds=(0, 1))
    assert len(ch03.race_figure(race).axes) == 2 and "AdamW" in ch03.race_alt(race)
    assert "time" not in ch03.race_table(race)  # never a time in a notebook
