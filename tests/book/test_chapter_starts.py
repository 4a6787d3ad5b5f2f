"""Every claim of chapter E that stands under a figure or in a sentence with a number."""

from __future__ import annotations

import linecache
import math

import pytest
import torch

from nlbook import levels
from nlbook.book import viz
from nlbook.book.chapters.starts import figures as ch06
from nlbook.book.chapters.starts import meta
from nlbook.errors import NLBookError

F64 = torch.float64
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def found():
    return meta.compare_starts(meta.METHODS, seeds=len(SEEDS))


@pytest.mark.eq(28)
def test_the_learned_start_beats_the_zero_start_after_every_write(found):
    ratio = found["meta"] / found["none"]
    assert float(ratio.max()) < 0.3 and float(ratio.min()) > 0.18  # "about a quarter", in each seed, at each n
    assert float((ratio.max(1).values - ratio.min(1).values).max()) < 0.04  # "the ratio hardly changes"
    assert abs(float(found["none"][:, 8].mean()) - (1 - 1 / 8) ** 8) < 0.02


def test_the_start_is_worth_about_ten_writes(found):
    each = [meta.measured_worth(a, b) for a, b in zip(found["meta"], found["none"])]
    assert all(9 < w < 12.5 for w in each)
    assert math.log(0.5**2) / math.log(1 - 1 / 8) == pytest.approx(10.38, abs=0.01)
    assert abs(meta.measured_worth(found["meta"].mean(0), found["none"].mean(0)) - 10.98) < 0.05


def test_where_the_gradient_is_cut_nothing_is_gained(found):
    assert torch.equal(found["cut"], found["none"])  # the same bits
    learned = meta.learn(meta.World(), "cut")
    assert not learned.start.any() and abs(learned.rate - 0.5) > 0.4  # while the rate was learned all the same


def test_with_nothing_in_common_a_learned_start_gains_nothing():
    alone = meta.compare_starts(("none", "meta"), spread=1.0, seeds=len(SEEDS))
    ratio = alone["meta"] / alone["none"]
    assert float(ratio.min()) > 0.98 and float(ratio.max()) < 1.06


def test_in_this_world_the_short_cuts_find_the_same_start(found):
    at = {m: float(found[m][:, 8].mean()) for m in ("meta", "first order", "printed")}
    assert max(at.values()) - min(at.values()) < 0.003


@pytest.mark.parametrize(("spread", "better"), [(0.0, 0.02), (0.9, 1.0)])
def test_starts_at_the_extremes_of_what_is_shared(spread, better):
    found = meta.compare_starts(("none", "meta"), spread=spread, seeds=1, length=4, contexts=50)
    assert found["meta"].shape == (1, 5)
    assert float(found["meta"][0, 0]) < better * float(found["none"][0, 0])


def test_the_cold_open():
    fresh = meta.World(d=8, spread=0.5, seed=0).contexts(200, 24, seed=99)
    learned = meta.learn(meta.World(seed=0), steps=60)
    zero = meta.error_curve(meta.Learned(torch.zeros(8, 8, dtype=F64), 1.0), fresh)
    began = meta.error_curve(learned, fresh)
    assert float(began[0]) < 0.25 < float(zero[8]) and bool((began < zero).all())


# ---------------------------------------------------------------------------- the loud and the quiet context
@pytest.mark.eq(28)
def test_the_best_start_serves_the_quiet_context():
    f = viz.find("start").facts("start:writes=1")
    assert (f["best_printed"], f["best_first"], f["best_meta"]) == pytest.approx((0.8, 0.0, -0.8), abs=1e-9)
    assert (f["left_loud"], f["left_quiet"]) == pytest.approx((0.1, 0.9))
    assert f["loss_meta"] < f["loss_first"] < f["loss_printed"]
    assert viz.find("start").facts("start:writes=0")["best_meta"] == pytest.approx(0.8)
    same = viz.find("start").facts("start:loud=1.0,quiet=1.0")
    assert same["best_printed"] == same["best_first"] == same["best_meta"] == 0


@pytest.mark.parametrize(
    "state",
    [
        "start:writes=6",
        "start:writes=0,eta=0",
        "start:eta=0.5,loud=1.9,quiet=1.9,writes=6",
        "start:loud=0.2,quiet=0.1,eta=0.05",
    ],
)
def test_the_dial_is_right_at_its_extremes(state):
    """The marked start is the minimum of the outer loss: no start on a fine grid is better, and autograd agrees."""
    view = viz.find("start")
    f, s = view.facts(state), view.state(state)
    from nlbook.book.chapters.starts.start import loss

    grid = torch.linspace(-2, 2, 401, dtype=F64)
    assert float(loss(s, grid, s.writes).min()) >= f["loss_meta"] - 1e-15
    c, a = torch.tensor([s.loud, s.quiet], dtype=F64), torch.tensor([1.0, -1.0], dtype=F64)

    start = torch.tensor(f["best_meta"], dtype=F64, requires_grad=True)
    M = start.expand(2)
    for _ in range(s.writes):
        M = M - s.eta * c * (M - a)
    (g,) = torch.autograd.grad((c * (M - a) ** 2).sum(), start)
    assert abs(float(g)) < 1e-9 and view.figure(state).axes


# ---------------------------------------------------------------------------- the gradient through the writes
@pytest.mark.eq(28)
@pytest.mark.parametrize("writes", [0, 1, 8])
def test_the_gradient_through_the_inner_loop(writes):
    """Autograd, finite differences in a direction, and the product of I - eta k k^T agree."""
    c = meta.World(5, seed=3).contexts(1, writes + 3)
    g = torch.Generator().manual_seed(0)
    start, way = (torch.randn(5, 5, generator=g, dtype=F64) for _ in range(2))
    leaf = start.clone().requires_grad_()
    (auto,) = torch.autograd.grad(meta.outer_loss(leaf, c, writes, 0.7), leaf)
    up, down = (meta.outer_loss(start + s * way, c, writes, 0.7) for s in (1e-6, -1e-6))
    assert float(up - down) / 2e-6 == pytest.approx(float((auto * way).sum()), rel=1e-6)
    product = torch.eye(5, dtype=F64)
    for k in c.k[0, :writes]:
        product = product @ (torch.eye(5, dtype=F64) - 0.7 * torch.outer(k, k))
    M, q = meta.adapted(start, c, writes, 0.7)[0], c.k[0, writes:]
    formula = (q @ M.mT - c.v[0, writes:]).mT @ q @ product.mT / len(q)
    torch.testing.assert_close(auto, formula, atol=1e-12, rtol=0)


def test_the_inner_loop_is_the_delta_rule_and_the_librarys_adapt():
    from nlbook import memory

    c = meta.World(4, seed=1).contexts(3, 6)
    mine = meta.adapted(torch.zeros(4, 4, dtype=F64), c, 6, 0.6)
    rule = memory.make("delta", lr=0.6)
    torch.testing.assert_close(mine, rule.write_all(c.k[:, None], c.v[:, None]).M[:, 0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("method", ["meta", "first order", "printed"])
def test_each_method_follows_its_own_gradient(method):
    """One step of plain descent, by hand, moves the start the way that Adam's first step does: by the sign."""
    world, same = meta.World(3, seed=5), meta.World(3, seed=5)
    learned = meta.learn(world, method, writes=2, steps=1, batch=8, questions=2)
    c = same.contexts(8, 4)
    start = torch.zeros(3, 3, dtype=F64, requires_grad=True)
    M = meta.adapted(start, c, 2, 0.5)
    (through,) = torch.autograd.grad(meta.asked(M, c, 2), start)
    at_M = meta.adapted(start.detach(), c, 2, 0.5).requires_grad_()
    first = torch.autograd.grad(meta.asked(at_M, c, 2), at_M)[0].sum(0)
    (printed,) = torch.autograd.grad(meta.asked(start, c, 2), start)
    wanted = {"meta": through, "first order": first, "printed": printed}[method]
    assert torch.equal(learned.start.sign(), -wanted.sign())
    assert not torch.allclose(through, first) and not torch.allclose(first, printed)


# ---------------------------------------------------------------------------- three things, five ways
def test_three_things_called_initialisation():
    layer = meta.StartedMemory(4)
    system = levels.levels_of(layer, torch.optim.SGD(layer.parameters(), lr=0.1), tokens_per_step=6)
    assert system.order() == "{W_k, start}  <  {M}"
    assert [system[n].kind for n in ("W_k", "start", "M")] == ["weights", "initial state", "fast state"]
    c = meta.World(4, seed=2).contexts(2, 6)
    reads, M = layer(c.k, c.v)
    (reads - c.v).square().mean().backward()
    assert all(float(p.grad.norm()) > 0 for p in layer.parameters())
    assert float((M[0] - M[1]).detach().norm()) > 0.5 and "M" not in dict(layer.named_parameters())
    assert torch.equal(reads[:, 0].detach(), torch.zeros(2, 4, dtype=F64))  # before the first write: the start's answer
    layer.start.data.fill_(1.0)
    torch.testing.assert_close(layer(c.k, c.v)[0][:, 0], c.k[:, 0].sum(-1, keepdim=True).expand(2, 4))
    with levels.Trace(layer) as trace:
        layer(c.k, c.v)
    assert trace.updates["M"] == [1, 2, 3, 4, 5, 6]


@pytest.mark.eq(24, 25, 26, 27, 28)
@pytest.mark.parametrize("seed", SEEDS)
def test_knowledge_passes_in_every_way_and_a_gradient_comes_back_in_three(seed):
    ways = {w.name: w for w in meta.five_ways(seed)}
    assert all(w.passes > 1e-3 for w in ways.values())
    back = {n for n, w in ways.items() if w.gradient > 0}
    assert back == {"backpropagation", "initialisation", "generation of weights"}


@pytest.mark.eq(29, 30)
def test_one_flow_two_rates():
    assert [s for s, slow, _ in meta.two_rates(8, 4) if slow] == [4, 8]
    assert all(fast for _, _, fast in meta.two_rates(8, 4))
    assert all(slow for _, slow, _ in meta.two_rates(3, 1)) and not any(slow for _, slow, _ in meta.two_rates(3, 4))


def test_errors_and_figures():
    with pytest.raises(NLBookError, match="method: got 'maml'"):
        meta.learn(meta.World(), "maml")
    with pytest.raises(NLBookError, match="spread: got 2"):
        meta.World(spread=2)
    with pytest.raises(NLBookError, match="writes: got 4, expected fewer"):
        meta.outer_loss(torch.zeros(8, 8, dtype=F64), meta.World().contexts(1, 4), 4)
    with pytest.raises(NLBookError, match="enough writes"):
        meta.measured_worth(torch.tensor([0.1]), torch.tensor([1.0, 0.9]))
    assert math.isclose(meta.measured_worth(torch.tensor([0.5]), torch.tensor([1.0, 0.25])), 0.5)
    rows = {"none": torch.tensor([[1.0, 0.8]]), "meta": torch.tensor([[0.5, 0.4]])}
    assert ch06.curves(rows, 2.0).axes and "zero start 1.00" in ch06.curves_alt(rows, 1)
    assert len(ch06.panels({"a": rows, "b": rows}).axes) == 2 and "2 worlds" in ch06.panels_alt({"a": rows, "b": rows})


@pytest.mark.parametrize("id", ["01-shared", "04-levels", "E-cut"])
def test_a_bug_as_the_notebook_holds_it_is_shown_but_not_named(id):
    """A cell has its source in linecache, as a module has its file."""
    from nlbook.book.check import registry
    from nlbook.book.check.define import FixTheBug
    from nlbook.book.check.judge import judge

    item = registry.find(id, FixTheBug)
    assert isinstance(item, FixTheBug)

    def cell(source: str):
        made: dict = {"torch": torch, "Tensor": torch.Tensor}
        linecache.cache["<cell>"] = len(source), None, source.splitlines(keepends=True), "<cell>"
        exec(compile(source, "<cell>", "exec", dont_inherit=True), made)
        return made[item.solution.__name__]

    shown = judge(item, cell(item.stub_source()))
    assert shown.status == "not tried" and "Unchanged" in shown.message
    touched = judge(item, cell(item.stub_source().replace("    return ", "    wrong = 1\n    return ")))
    assert touched.status == "failed"
