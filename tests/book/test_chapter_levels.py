"""Every claim of chapter 04 that stands under a figure or in a sentence with a number."""

from __future__ import annotations

import linecache
import math

import pytest
import torch

from nlbook import levels
from nlbook.book import viz
from nlbook.book.chapters.hope import talker
from nlbook.book.chapters.levels import diagrams, examples, exercises, figures, start_dial, starts
from nlbook.book.chapters.levels.documents import Documents
from nlbook.book.check import registry
from nlbook.book.check.define import FixTheBug
from nlbook.book.check.judge import judge
from nlbook.book.data.lives import Lives
from nlbook.errors import NLBookError
from nlbook.hope.block import LEVELS
from nlbook.levels import Component, NestedSystem, levels_of

F64 = torch.float64
SEEDS = (0, 1, 2)
FIVE = {
    "linear layer, momentum": "{W}  <  {m}",
    "linear layer, AdamW": "{W}  <  {m, v}",
    "linear attention, momentum": "{W}  <  {m}  <  {M}",
    "Transformer, SGD": "{W}  <  {attention}",
    "AdaTransformer, AdamW": "{W, W_init}  <  {m, v}  <  {M}  <  {attention}",
}


# ---- who is written how often ----------------------------------------------------------------------------------------
def test_the_axis_has_a_gap_for_a_transformer_in_use_and_for_nobody_else():
    rows = diagrams.on_the_axis()
    assert {n: s.order() for n, s in rows.items()} == {
        "Transformer, in training": "{weights}  <  {m, v}  <  {attention}",
        "Transformer, in use": "{weights}  <  {attention}",
        "with a fast memory, in training": "{start, weights}  <  {m, v}  <  {state}  <  {attention}",
        "with a fast memory, in use": "{start, weights}  <  {state}  <  {attention}",
    }
    assert [n for n, s in rows.items() if figures.empty(s)] == ["Transformer, in use"]
    texts = [t.get_text() for t in figures.axis(rows).axes[0].texts]
    assert texts.count("nothing in between") == 1 and texts.count("attention") == 4
    assert figures.axis_alt(rows).count("nothing in between") == 1


@pytest.mark.parametrize("length", [2, 64, 4096])
def test_the_unit_leaves_the_order_alone(length):
    """Read off the live models, whatever the length of a sequence; of length 1 the memory still is the faster one."""
    assert {n: s.order() for n, s in diagrams.five_systems(length).items()} == FIVE
    assert diagrams.five_systems(1)["AdaTransformer, AdamW"].order() == FIVE["AdaTransformer, AdamW"]
    model = examples.AdaTransformerLayer(8)
    system = levels_of(model, torch.optim.AdamW(model.parameters()), tokens_per_step=length, depth=0)
    assert system.in_unit(f"sequence of {length} tokens", length).levels == system.levels


def test_of_all_diagrams_one_is_accepted():
    five = diagrams.five_systems()
    every = {n: diagrams.judge_all(s) for n, s in five.items()}
    assert [e.total for e in every.values()] == [3, 13, 13, 3, 4683]
    for name, e in every.items():
        assert [sorted(map(sorted, e.accepted))] == [sorted([sorted(map(sorted, five[name].levels))])]
        assert sum(e.reasons.values()) == e.total - 1
    assert [sum(1 for _ in diagrams.all_diagrams("abcdef"[:n])) for n in range(1, 6)] == [1, 3, 13, 75, 541]
    with pytest.raises(NLBookError, match="at most 6"):
        diagrams.judge_all(NestedSystem([Component(str(i), 1) for i in range(7)], "step"))


def test_a_wrong_order_is_refused_with_the_arrow():
    ada = diagrams.five_systems()["AdaTransformer, AdamW"]
    with pytest.raises(levels.OrderError) as error:
        ada.check_order([["m", "v"], ["W", "W_init"], ["M", "attention"]])
    assert {(v.slow, v.fast) for v in error.value.violations} == {
        ("M", "attention"),
        ("W", "m"),
        ("W", "v"),
        ("W_init", "m"),
        ("W_init", "v"),
    }


def test_twelve_layers_are_three_levels():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    assert len(levels_of(model, sgd, tokens_per_step=64).levels) == exercises.twelve_layers() == 3
    assert len(levels_of(model).levels) == 2


def test_the_counts_of_the_text_are_those_of_a_run():
    assert exercises.updates(12, 6, 4, 3) == (1, 3, 12, 3) and exercises.updates(12, 6, 16, 3)[1] == 0
    model = examples.AdaTransformerLayer(8)
    with levels.Trace(model) as trace, torch.no_grad():
        model(torch.randn(3, 12, 8))
    assert len(trace.updates["W_LinAttn"]) == 12


# ---- a learned start -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def found():
    return starts.compare(("zero start", "learned start", "state kept"), seeds=len(SEEDS))


def test_documents_share_two_facts():
    docs = starts.documents(200)
    often = [docs.value[docs.key == i].bincount(minlength=8).max() / (docs.key == i).sum() for i in range(6)]
    assert min(often[:2]) > 0.93 and max(often[2:]) < 0.25
    docs = starts.documents(400)
    assert [int(docs.value[docs.key == i].mode().values) + 1 for i in (0, 1)] == [3, 1]  # "A is 3"
    alone = starts.documents(200, shared=False)
    assert (
        max(alone.value[alone.key == i].bincount(minlength=8).max() / (alone.key == i).sum() for i in range(6)) < 0.25
    )
    assert docs.first_use.sum(1).max() <= 6 and bool(docs.first_use[:, 0].all())
    assert docs.part(3, 5).key.equal(docs.key[3:5])


@pytest.mark.eq(28)
def test_a_and_b_are_known_at_once_and_the_other_keys_gain_nothing(found):
    zero, learned = found["zero start"], found["learned start"]
    torch.testing.assert_close(zero.first, torch.full_like(zero.first, 1 / 8))  # guessing, each time
    assert float(learned.first[:, 0].min()) > 0.95 and abs(float(learned.first[:, 0].mean()) - 0.97) < 0.005
    assert float((learned.first[:, 1:] - 1 / 8).abs().max()) < 0.04
    assert float((learned.later - zero.later).abs().max()) < 0.005  # the state does what it always did
    assert float(learned.right[:, 0, 0].mean()) > float(learned.right[:, 0, 8:].mean()) > 0.88  # slips overwrite it


@pytest.mark.slow
def test_the_rate_is_the_best_of_four_for_both():
    at = {eta: starts.compare(seeds=3, eta=eta) for eta in (0.3, 0.5, 0.7, 0.9)}
    for name in ("zero start", "learned start"):
        assert min(at, key=lambda eta: float(at[eta][name].error.mean())) == starts.ETA


def test_the_start_is_worth_three_pairs(found):
    learned, zero = found["learned start"].error, found["zero start"].error
    assert all(2.5 < starts.worth(a, b) < 3.5 for a, b in zip(learned, zero))
    assert round(starts.worth(learned.mean(0), zero.mean(0))) == 3
    assert round(math.log(2 / 3) / math.log(5 / 6), 1) == 2.2 and round(exercises.worth()) == 178
    assert starts.worth(torch.tensor([0.5]), torch.tensor([1.0, 0.25])) == pytest.approx(2 / 3)
    with pytest.raises(NLBookError, match="enough pairs"):
        starts.worth(torch.tensor([0.1]), torch.tensor([1.0, 0.9]))


@pytest.mark.slow
def test_it_is_worth_more_than_a_count_of_keys_because_x_and_y_change():
    """Where they stay, 2.3 pairs instead of 3.0."""
    curves = []
    for s in range(10):
        tokens = Lives(documents=400, hazard=0).sample(1, s).tokens.reshape(400, 33)
        key, value = tokens[:, 1:].reshape(400, -1, 2).unbind(-1)
        docs = Documents(key, value - 6)
        old, new = docs.part(0, 200), docs.part(200, 400)
        begin = starts.learn(old.k, old.v), torch.zeros(8, 6, dtype=F64)
        curves.append(torch.stack([starts.read(M, new)[1].mean(0) for M in begin]))
    assert round(starts.worth(*torch.stack(curves).mean(0)), 1) == 2.3


def test_a_state_that_is_kept_is_as_often_right_and_has_the_largest_error(found):
    zero, learned, kept = (found[n] for n in ("zero start", "learned start", "state kept"))
    assert bool((kept.error.mean(1) > 1.1 * zero.error.mean(1)).all())
    assert bool((learned.error.mean(1) < 0.9 * zero.error.mean(1)).all())
    assert float((kept.right.mean((1, 2)) - learned.right.mean((1, 2))).abs().max()) < 0.02
    assert 0.02 < float((learned.first - kept.first)[:, 0].mean()) < 0.06
    value = torch.eye(8, dtype=F64) - 1 / 8
    assert round(float((value[0] - value[1]).square().sum() / value[0].square().sum()), 1) == 2.3
    docs = starts.documents(3)
    assert docs.in_one().key[0, 16:32].equal(docs.key[1])


def test_with_nothing_shared_a_learned_start_does_slight_harm():
    alone = starts.compare(shared=False, seeds=len(SEEDS))
    assert abs(float(alone["learned start"].first[:, 0].mean()) - 1 / 8) < 0.03
    ratio = alone["learned start"].error.mean(1) / alone["zero start"].error.mean(1)
    assert float(ratio.min()) > 1.0 and float(ratio.max()) < 1.05


def test_a_and_b_live_in_the_start_and_the_other_keys_in_the_state():
    docs = starts.documents(400)
    old, one = docs.part(0, 200), docs.part(229, 230)
    learned = starts.learn(old.k, old.v)
    state = starts.adapt(learned, one.k[0], one.v[0], starts.ETA)
    first, last = figures.known(learned), figures.known(state)
    assert min(first["A"], first["B"]) > 0.7 and max(first[k] for k in "dexy") < 0.2
    assert min(last.values()) > 0.6
    assert len(figures.tables(learned, state).axes) == 2 and "A 0.7" in figures.tables_alt(learned, state)


# ---- the loud and the quiet document ---------------------------------------------------------------------------------
@pytest.mark.eq(28)
def test_the_best_start_serves_the_quiet_document():
    view = viz.find("start")
    f = view.facts("start:writes=1")
    assert (f["best_printed"], f["best_first"], f["best_meta"]) == pytest.approx((0.78, 0.28, -0.43), abs=0.005)
    assert (f["left_loud"], f["left_quiet"]) == pytest.approx((0.2, 0.9))
    assert f["loss_meta"] < f["loss_first"] < f["loss_printed"]
    quiet = {n: -1 + f["left_quiet"] * (f[f"best_{n}"] + 1) for n in ("printed", "first", "meta")}
    assert quiet["meta"] < 0 < quiet["first"] < quiet["printed"]  # the sign of the quiet document's answer
    assert all(1 + f["left_loud"] * (f[f"best_{n}"] - 1) > 0 for n in quiet)
    assert view.facts("start:writes=0")["best_meta"] == pytest.approx(0.78, abs=0.005)
    same = view.facts("start:loud=1.0,quiet=1.0")
    assert same["best_printed"] == same["best_first"] == same["best_meta"] == 0


def test_a_short_cut_is_free_where_all_learn_equally_fast_and_costs_half_of_the_answers_where_they_do_not():
    docs = starts.documents(400)
    old, new = docs.part(0, 200), docs.part(200, 400)
    k, v = starts.loud_and_quiet()
    twice = starts.loud_and_quiet(n=800)
    ours, said = [], []
    for gradient in (starts.outer_gradient, starts.first_order, starts.as_printed):
        ours.append(float(starts.read(starts.learn(old.k, old.v, gradient=gradient), new)[1].mean()))
        begin = starts.learn(k, v, told=1, eta=0.5, lr=0.1, gradient=gradient)
        again = starts.learn(*twice, told=1, eta=0.5, lr=0.1, gradient=gradient)
        assert float((begin - again).abs().max()) < 0.03  # more training would not help
        said.append([int((starts.adapt(begin, k[i, :1], v[i, :1], 0.5) @ k[i, 1]).argmax()) + 1 for i in (0, 1)])
    assert max(ours) - min(ours) < 0.01 and said == [[3, 7], [3, 3], [3, 3]]


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
    grid = torch.linspace(-2, 2, 401, dtype=F64)
    assert float(start_dial.loss(s, grid, s.writes).min()) >= f["loss_meta"] - 1e-15
    c, a = torch.tensor([s.loud, s.quiet], dtype=F64), torch.tensor([1.0, -1.0], dtype=F64)
    begin = torch.tensor(f["best_meta"], dtype=F64, requires_grad=True)
    M = begin.expand(2)
    for _ in range(s.writes):
        M = M - s.eta * c * (M - a)
    (g,) = torch.autograd.grad((c * (M - a) ** 2).sum(), begin)
    assert abs(float(g)) < 1e-9 and view.figure(state).axes


# ---- the gradient through the writes ---------------------------------------------------------------------------------
@pytest.mark.eq(28)
@pytest.mark.parametrize("told", [0, 1, 8])
def test_the_gradient_through_the_inner_loop(told):
    """Autograd, finite differences in a direction, and the way back through the writes agree, for keys that overlap."""
    g = torch.Generator().manual_seed(0)
    k = torch.nn.functional.normalize(torch.randn(told + 3, 5, generator=g, dtype=F64), dim=1)
    v, begin, way = (torch.randn(*n, generator=g, dtype=F64) for n in ((told + 3, 4), (4, 5), (4, 5)))
    asked = k[:told], v[:told], k[told:], v[told:], 0.7
    leaf = begin.clone().requires_grad_()
    (auto,) = torch.autograd.grad(starts.outer_loss(leaf, *asked), leaf)
    up, down = (starts.outer_loss(begin + s * way, *asked) for s in (1e-6, -1e-6))
    assert float(up - down) / 2e-6 == pytest.approx(float((auto * way).sum()), rel=1e-6)
    torch.testing.assert_close(auto, starts.outer_gradient(begin, *asked), atol=1e-12, rtol=0)


def test_a_reader_keeps_one_memory_a_document():
    docs, zero = starts.documents(3), torch.zeros(8, 6, dtype=F64)
    whole = starts.read(zero, docs)[1]
    for i in range(3):
        torch.testing.assert_close(starts.read(zero, docs.part(i, i + 1))[1][0], whole[i])
    last = starts.adapt(zero, docs.k[0, :-1], docs.v[0, :-1], starts.ETA) @ docs.k[0, -1] - docs.v[0, -1]
    assert float(last.square().sum() / (7 / 8)) == pytest.approx(float(whole[0, -1]))
    with pytest.raises(NLBookError, match="told: got 16"):
        starts.learn(docs.k, docs.v, told=16)


def test_this_is_how_hope_is_trained():
    """The starts of the talking Hope are parameters, and the gradient comes back to them through the writes."""
    hope = talker.talker()
    system = levels_of(hope, torch.optim.AdamW(hope.parameters()), tokens_per_step=264, depth=0)
    begin = [c.name for c in system.components if c.kind == "initial state"]
    in_use = levels_of(hope, depth=0)
    assert len(begin) == 8 and all(in_use[n].frequency == 0 for n in begin)
    assert in_use["blocks.0.mlp.C33"].period == talker.LANGUAGE.document_length == 33
    assert LEVELS["first_order"] and "first_order" not in talker.CONFIG.cms
    streams = talker.LANGUAGE.sample(1, 0)
    logits = hope(streams.tokens[:, :66])[0]
    logits[:, -1].logsumexp(-1).sum().backward()
    reached = [n for n, p in hope.named_parameters() if n in begin and p.grad is not None and bool(p.grad.any())]
    assert "blocks.0.mixer.initial.mem_W1" in reached and "blocks.0.mlp.up.0" in reached


def test_figures_say_what_they_show(found):
    fig = figures.curves({n: found[n] for n in ("zero start", "learned start")})
    assert len(fig.axes) == 3 and len({ax.get_ylim() for ax in fig.axes}) == 1
    assert "learned start A B 0.97" in figures.curves_alt({"learned start": found["learned start"]})
    texts = [t.get_text() for t in figures.boxes().axes[0].texts]
    assert sum("$M_" in t for t in texts) == 2 and sum("gradient" in t for t in texts) == 1
    assert len(figures.BOXES_ALT.split()) >= 8


def test_a_bug_as_the_notebook_holds_it_is_shown_but_not_named():
    """A cell has its source in linecache, as a module has its file."""
    item = registry.find("04-cut", FixTheBug)

    def cell(source: str):
        made: dict = {"torch": torch, "Tensor": torch.Tensor}
        linecache.cache["<cell>"] = len(source), None, source.splitlines(keepends=True), "<cell>"
        exec(compile(source, "<cell>", "exec", dont_inherit=True), made)
        return made[item.solution.__name__]

    shown = judge(item, cell(item.stub_source()))
    assert shown.status == "not tried" and "Unchanged" in shown.message
    touched = judge(item, cell(item.stub_source().replace("    return ", "    wrong = 1\n    return ")))
    assert touched.status == "failed"
