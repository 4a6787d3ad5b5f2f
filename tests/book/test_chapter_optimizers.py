"""Every claim of chapter A that stands under a figure or in a sentence with a number."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from kit import refuses

from nlbook import optim
from nlbook.book.chapters.optimizers import figures as chA
from nlbook.book.chapters.optimizers import race, valleys
from nlbook.book.chapters.optimizers.valleys import Valley
from nlbook.optim import DeltaMomentum

SEEDS = range(5)


# --- delta momentum ---


@pytest.mark.eq(49, 53)
def test_the_picture_of_one_valley():
    valley = Valley(5.0, 1.0, 2.0)
    heavy, clipped = chA.steps_on(valley, "heavy ball"), chA.steps_on(valley, "clipped")
    assert clipped < 0.6 * heavy < 300 and chA.steps_on(valley, "printed") == float("inf")
    start = valley.gradient(*torch.tensor(valleys.START, dtype=torch.float64))
    assert float(start[0] ** 2 + start[1] ** 2) > 100  # "in the hundreds at the start", or above


@pytest.mark.eq(49, 53)
@pytest.mark.parametrize("length", [1500, 2500])  # the chapter's, the ledger's
def test_printed_delta_momentum_never_arrives_and_a_stable_one_usually_wins(length):
    """13 rates each, brake tied to the rate: the figure's claim needs a stabilised brake."""
    found = valleys.sweep(("heavy ball", "printed", "column", "row", "clipped", "bounded"), length=length)
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
    hard = valleys.sweep(
        ("heavy ball", "bounded"),
        rates=grid(-4, 0, 15),
        keeps=(0.0, 0.5, 0.8, 0.9, 0.95),
        erases=grid(-5, 0, 11),
        length=700,
    )
    assert set(hard.settings.values()) == {825}
    assert 0.8 < hard.ratio("bounded") < 1 and 5 <= hard.faster("heavy ball", "bounded") <= 11
    assert hard.faster("bounded", margin=0.9) == 0 < hard.faster("bounded")


@pytest.mark.slow
def test_on_36_valleys_the_verdict_depends_on_the_grid():
    """825 settings each, a tenth faster or slower: 18 to 10 with one grid, 10 to 19 with another."""
    land = [Valley(*v) for v in product((1.0, 5.0, 20.0), (0.5, 1.0, 2.0), (1.0, 2.0, 4.0, 8.0))]
    margins = []
    for low, high, keeps in ((-4.5, -1, (0.5, 0.8, 0.9, 0.95, 0.99)), (-4, 0, (0.0, 0.5, 0.8, 0.9, 0.95))):
        found = valleys.sweep(
            ("heavy ball", "bounded"),
            land,
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
        torch.testing.assert_close(s, chA.after(before, 5, polynomial).sort(descending=True).values)
    low, high = chA.band()
    assert (round(low, 2), round(high, 2)) == (0.68, 1.13)
    s = torch.linspace(0.01, 1, 500, dtype=torch.float64)
    assert float((chA.after(s, 15) - 1).abs().max()) < 1e-3  # "the 15 steps that this takes"
    assert float(chA.after(s, 5).min()) < 0.1  # five are not enough
    steep = chA.after(s, 5, "quintic").diff()
    assert bool((steep > 0).any()) and bool((steep < 0).any())  # "the order is lost"
    stops = chA.after_pull(s)
    assert 0.7 < float(stops.min()) < 0.72 and float(stops.max()) <= 1 + 1e-9


# --- Adam ---


@pytest.mark.eq(101, 102)
def test_adams_regression_by_hand_and_without_a_unit():
    v = torch.tensor([[3.0], [-1.0], [2.0]], dtype=torch.float64)
    for unit in (1, 1000):
        for weights, best in ((None, 1.07), (torch.full((3,), 1 / 3, dtype=torch.float64), 0.62)):
            P = ((unit * v).square().sum(0) if weights is None else weights @ (unit * v).square()).sqrt()
            m = optim.adam_memory.elementwise_optimum(unit * v, P, weights)
            assert round(float(m), 2) == best


def test_the_read_of_the_momentum_is_uneven():
    V = race.recorded_pushes(0)
    s = torch.linalg.svdvals(torch.tensordot(optim.adam_memory.discount(0.9, 100), V, 1))
    assert float(s[8] / s[0]) < 0.25 and float(s[9] / s[0]) < 1e-9 and V.sum(1).abs().max() < 1e-9


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


def test_the_raceties_but_for_the_printed_denominator():
    """Five seeds at the rates that the tuning picks for 150 steps."""
    picked = {"AdamW": 1e-2, "Muon": 1e-2, "M3 update": 3e-3, "M3 fast only": 3e-3, "M3 grad": 1e-5}
    assert all(lr in race.RATES[name] for name, lr in picked.items())
    loss = {n: torch.tensor([race.run(n, lr, seed=s, steps=150)[1] for s in SEEDS]) for n, lr in picked.items()}
    for name in ("AdamW", "Muon", "M3 update", "M3 fast only"):
        assert 0.07 < float(loss[name].mean()) < 0.15, name  # "within a few hundredths"
    spread = float(loss["M3 update"].std())
    assert float(loss["M3 fast only"].mean() - loss["M3 update"].mean()) < 2 * spread  # the control is no worse
    assert float(loss["M3 grad"].min()) > 5 * float(loss["M3 update"].max())


def test_in_a_short_racethe_slow_memory_is_in_the_way():
    short = {
        n: torch.tensor([race.run(n, 1e-2, seed=s, steps=100)[1] for s in SEEDS]) for n in ("M3 update", "M3 fast only")
    }  # after 100 steps: better without
    assert float(short["M3 fast only"].mean()) < float(short["M3 update"].mean()) - 0.01


# --- the toys and the race themselves ---


@pytest.mark.eq(53)
def test_the_valleys_gradient_is_autograds_and_its_minimum_is_zero():
    for valley in valleys.VALLEYS:
        z = torch.tensor(valleys.START, dtype=torch.float64, requires_grad=True)
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
    fast = valleys.descend(valley, rule, lr=lr, erase=erase, length=40, path=True).path
    z = torch.tensor(valleys.START, dtype=torch.float64, requires_grad=True)
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
        valleys.descend(Valley(5.0, 1.0, 2.0), rule, lr=lr, erase=erase, length=1000).steps
    )
    assert steps("clipped", 0.0178, 0.1) < 0.5 * steps("heavy ball", 0.0178) < 150
    assert steps("heavy ball", 0.0316) == math.inf and steps("clipped", 0.0316, 0.1) < 150
    with refuses("rule"):
        valleys.descend(Valley(), "nesterov", lr=0.1)


def test_a_raceis_fair_and_repeats_itself():
    a = race.run("M3 update", 3e-3, seed=1, steps=12)
    b = race.run("M3 update", 3e-3, seed=1, steps=12)
    assert torch.equal(a[0], b[0]) and a[1:3] == b[1:3]
    first = {float(race.run(name, rates[0], seed=3, steps=1)[0]) for name, rates in race.RATES.items()}
    assert len(first) == 1  # same weights and batches for everybody
    assert len({len(r) for r in race.RATES.values()}) == 1  # same budget
    assert set(race.RATES) == set(race.OPTIMIZERS)
    entry = race.race(("AdamW",), steps=20, seeds=(0, 1)).entries["AdamW"]
    assert entry.validation[entry.lr] == min(entry.validation.values()) and entry.train.shape == (2, 20)
    with refuses("name"):
        race.run("Adam", 0.1)


def test_figures_say_what_they_show():
    assert chA.valley_paths(Valley()).axes and "arrives after" in chA.valley_alt(Valley())
    found = valleys.sweep(("heavy ball", "printed", "bounded"), length=60)
    assert chA.sweep_strip(found).axes and "27 valleys" in chA.sweep_alt(found)
    assert chA.singular_values().axes and "0.68 to 1.13" in chA.singular_alt()
    raced = race.race(("AdamW",), steps=12, seeds=(0, 1))
    assert len(chA.race_figure(raced).axes) == 2 and "AdamW" in chA.race_alt(raced)
    assert "time" not in chA.race_table(raced)  # never a time in a notebook
