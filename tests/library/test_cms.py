"""nlbook.cms: equality with the token-by-token definition, streaming, outer gradients, isolation, state files,
stacking."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlbook.cms import CMS, MLP, Adam, Momentum, cms_reference, find_mlps, half_squared_error, schedule, stack_levels
from nlbook.errors import NLBookError
from nlbook.levels import Trace, levels_of
from nlbook.train import constant, train
from nlbook.tree import load, save

F64 = torch.float64
Z = torch.zeros(1, 3, 4)
D, H, T = 4, 5, 23


def rnd(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def make(variant: str = "sequential", periods=(3, 5, 7), **kw) -> CMS:
    kw = {"lr": [0.3, 0.2, 0.1][: len(periods)], **kw}
    cms = CMS(D, [H, H + 1, H][: len(periods)], periods, variant, **kw).double()
    with torch.no_grad():
        for down in cms.down:
            down.mul_(10)  # so that a level says as much as it reads
    return cms


def cross_entropy(y: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(y.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)


# ---------------------------------------------------------------------------- the definition
CASES = [  # periods that divide neither each other nor the length; no state may explode, or rounding grows with it
    {},
    {"reduce": "sum", "lr": [0.03, 0.02, 0.01]},
    {"mlp": MLP(norm=False)},
    {"mlp": MLP("gelu")},
    {"mlp": MLP("tanh")},
    {"mlp": MLP("relu")},
    {"optimizer": "momentum"},
    {"optimizer": Adam(weight_decay=0.1), "lr": 0.02},
    {"objective": "local"},
    {"objective": "local", "optimizer": "momentum", "reduce": "sum", "lr": 0.02},
    {"learn_lr": True},
]


@pytest.mark.eq(70, 71, 72, 73, 74)
@pytest.mark.parametrize("variant", ["sequential", "nested", "headwise"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c.values())) or "default")
def test_fast_form_equals_the_token_by_token_definition(variant: str, case: dict) -> None:
    cms = make(variant, **case)
    x, target = rnd(2, T, D), rnd(2, T, D, seed=1)
    goal = None if cms.objective == "local" else target
    y, state = cms(x, target=goal)
    for b in range(2):
        yr, theta, facts = cms_reference(cms, x[b], None if goal is None else target[b])
        torch.testing.assert_close(y[b], yr, atol=1e-11, rtol=1e-11)
        for i, level in enumerate(state.levels):
            for n in ("up", "down"):
                torch.testing.assert_close(level.weights[n][b], theta[i][n], atol=1e-11, rtol=1e-11)
                if level.start is not None:
                    torch.testing.assert_close(level.start[n][b], facts["starts"][i][n], atol=1e-11, rtol=1e-11)
        assert [s.updates for s in state.levels] == facts["updates"]
        assert [s.restarts for s in state.levels] == facts["restarts"]


@pytest.mark.eq(70, 71)
def test_any_loss_of_the_output() -> None:
    cms = make(objective=cross_entropy)
    x, target = rnd(2, T, D), torch.randint(0, D, (2, T), generator=torch.Generator().manual_seed(1))
    y, state = cms(x, target=target)
    yr, theta, _ = cms_reference(cms, x[1], target[1])
    torch.testing.assert_close(y[1], yr, atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(state.levels[1].weights["up"][1], theta[1]["up"], atol=1e-11, rtol=1e-11)
    y2, _ = make()(x, target=target, loss=cross_entropy)
    torch.testing.assert_close(y, y2)


@pytest.mark.eq(71)
def test_one_level_is_mini_batch_sgd_and_uses_every_token_once() -> None:
    cms = make(periods=(4,), lr=0.02, reduce="sum")
    x, target = rnd(1, 8, D), rnd(1, 8, D, seed=1)
    _, state = cms(x, target=target)
    up, down = cms.up[0].detach().clone(), cms.down[0].detach().clone()
    for c in (0, 4):
        up.requires_grad_(), down.requires_grad_()
        xs = x[0, c : c + 4]
        n = xs * (xs.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        loss = 0.5 * (xs + F.silu(n @ up.mT) @ down.mT - target[0, c : c + 4]).square().sum()
        gu, gd = torch.autograd.grad(loss, (up, down))
        up, down = (up - 0.02 * gu).detach(), (down - 0.02 * gd).detach()
    torch.testing.assert_close(state.levels[0].weights["up"][0], up, atol=1e-12, rtol=0)
    torch.testing.assert_close(state.levels[0].weights["down"][0], down, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("periods", "length"), [((3, 5, 7), 23), ((1, 8, 64), 200), ((4, 12), 24), ((5, 12), 30)])
def test_schedule_is_floor_of_length_over_period(periods: tuple, length: int) -> None:
    events = schedule(periods, length)
    for i, c in enumerate(periods):
        assert [e.time for e in events if e.level == i] == list(range(c, length + 1, c))
    assert [e.time for e in events] == sorted(e.time for e in events)


@pytest.mark.eq(72)
def test_nested_schedule_fits_floor_not_ceil() -> None:
    for slow, fast, fit in ((12, 4, 3), (12, 5, 2)):
        events = schedule((fast, slow), 2 * slow, nested=True)
        updates = [e.time for e in events if e.level == 0 and e.kind == "update"]
        assert len([t for t in updates if t <= slow]) == fit == slow // fast
        assert [t - slow for t in updates if t > slow] == [t for t in updates if t <= slow]  # a context is like another
        assert [e.time for e in events if e.kind == "restart"] == [slow, 2 * slow]
    # an owner that restarts before its chunk is full takes its level along, but teaches its start nothing
    events = schedule((2, 4, 6), 6, nested=True)
    restarts = [(e.time, e.level, e.full) for e in events if e.kind == "restart"]
    assert restarts == [(4, 0, True), (6, 1, True), (6, 0, False)]


@pytest.mark.eq(72)
def test_nested_restarts_isolate_contexts_and_only_the_start_carries(monkeypatch) -> None:
    x, target = rnd(1, 24, D), rnd(1, 24, D, seed=1)
    cms = make("nested", (4, 12), lr=[0.3, 0.0])
    y2, state = cms(x, target=target)
    monkeypatch.setattr("nlbook.cms.layer.META_LR", 0.0)
    y, _ = cms(x, target=target)
    second, _ = cms(x[:, 12:], target=target[:, 12:])
    torch.testing.assert_close(y[:, 12:], second, atol=1e-13, rtol=0)
    assert torch.equal(y2[:, :12], y[:, :12]) and (y2[:, 12:] - y[:, 12:]).abs().max() > 1e-3
    assert [s.restarts for s in state.levels] == [2, 0]


# ---------------------------------------------------------------------------- causality, streaming, isolation
@pytest.mark.parametrize("variant", ["sequential", "nested", "headwise"])
@pytest.mark.parametrize("objective", [half_squared_error, "local"])
def test_a_stream_cut_at_every_position_equals_one_call(variant: str, objective: str) -> None:
    cms = make(variant, objective=objective, optimizer="momentum")
    x, target = rnd(2, T, D), (rnd(2, T, D, seed=1) if objective is half_squared_error else None)
    with torch.no_grad():
        y, whole = cms(x, target=target)
        for cut in range(1, T):
            a, state = cms(x[:, :cut], target=None if target is None else target[:, :cut])
            b, state = cms(x[:, cut:], state, target=None if target is None else target[:, cut:])
            torch.testing.assert_close(torch.cat([a, b], 1), y, atol=1e-11, rtol=1e-11)
            for one, two in zip(whole.levels, state.levels):
                torch.testing.assert_close(one.weights["down"], two.weights["down"], atol=1e-11, rtol=1e-11)
                assert one.clock == two.clock and one.updates == two.updates
        state = None
        parts = []
        for t in range(T):  # one token a call
            out, state = cms(x[:, t : t + 1], state, target=None if target is None else target[:, t : t + 1])
            parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), y, atol=1e-11, rtol=1e-11)
    assert state is not None and state.position == T


@pytest.mark.parametrize("variant", ["sequential", "nested", "headwise"])
@pytest.mark.parametrize("objective", [half_squared_error, "local"])
def test_causal(variant: str, objective: str) -> None:
    cms = make(variant, (2, 4, 12), objective=objective)
    x, target = rnd(1, T, D), rnd(1, T, D, seed=1)
    for at in (0, 3, 11, 12):
        x2, t2 = x.clone(), target.clone()
        x2[:, at] += 1
        t2[:, at] += 1
        if objective is half_squared_error:
            a, b = cms(x, target=target)[0], cms(x, target=t2)[0]
            assert torch.equal(a[:, : at + 1], b[:, : at + 1])  # its own output too: the target comes after the read
            assert (a - b).abs().max() > 1e-6
        a, b = (cms(v, target=target if objective is half_squared_error else None)[0] for v in (x, x2))
        assert torch.equal(a[:, :at], b[:, :at]) and (a[:, at + 1 :] - b[:, at + 1 :]).abs().max() > 1e-6


@pytest.mark.parametrize("objective", [half_squared_error, "local"])
def test_sequences_do_not_see_each_other(objective: str) -> None:
    cms = make("nested", objective=objective)
    x, target = rnd(3, T, D), (rnd(3, T, D, seed=1) if objective is half_squared_error else None)
    y, state = cms(x, target=target)
    x2 = x.clone()
    x2[1] += 5
    y2, state2 = cms(x2, target=target)
    for b in (0, 2):
        assert torch.equal(y[b], y2[b])
        for p, q in zip(state.levels, state2.levels):
            assert all(torch.equal(p.weights[n][b], q.weights[n][b]) for n in p.weights)
    assert (y[1] - y2[1]).abs().max() > 0.1
    alone, _ = cms(x[1:2], target=None if target is None else target[1:2])
    torch.testing.assert_close(alone[0], y[1], atol=1e-12, rtol=0)


# ---------------------------------------------------------------------------- outer gradients
def outer(cms: CMS, x: Tensor, target: Tensor | None) -> Tensor:
    """Loss over the stream, inner updates inside."""
    y, _ = cms(x, target=target)
    goal = target if target is not None else torch.sin(x)
    return 0.5 * (y - goal).square().sum()


@pytest.mark.eq(28, 72, 73, 74)
@pytest.mark.parametrize(
    ("variant", "kw"),
    [
        ("sequential", {}),
        ("sequential", {"optimizer": "adam", "lr": 0.03}),
        ("sequential", {"optimizer": "momentum"}),
        ("nested", {}),
        ("headwise", {}),
        ("sequential", {"objective": "local", "learn_lr": True}),
        ("nested", {"objective": "local"}),
        ("sequential", {"objective": lambda y, t: (y - t).cosh().log().sum(-1)}),
    ],
)
def test_outer_gradient_reaches_every_initial_state(variant: str, kw: dict) -> None:
    cms = make(variant, **kw)
    x, target = rnd(2, T, D), (None if cms.objective == "local" else rnd(2, T, D, seed=1))
    outer(cms, x, target).backward()
    for name, p in cms.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 1e-8, name
        d = rnd(*p.shape, seed=7) if p.ndim else rnd(1)[0]
        keep = p.detach().clone()
        with torch.no_grad():
            p.copy_(keep + 1e-6 * d)
            plus = outer(cms, x, target)
            p.copy_(keep - 1e-6 * d)
            minus = outer(cms, x, target)
            p.copy_(keep)
        assert float((plus - minus) / 2e-6) == pytest.approx(float((p.grad * d).sum()), rel=2e-5, abs=1e-7), name


def test_first_order_is_cheaper_and_different() -> None:
    full, first = make(), make(first_order=True)
    x, target = rnd(1, T, D), rnd(1, T, D, seed=1)
    y1, _ = full(x, target=target)
    y2, state = first(x, target=target)
    torch.testing.assert_close(y1, y2, atol=1e-13, rtol=0)  # the same function
    a = torch.autograd.grad(y1.square().sum(), full.up[0])[0]
    b = torch.autograd.grad(y2.square().sum(), first.up[0])[0]
    assert (a - b).abs().max() > 1e-4
    # straight through: the end state moves with its start one to one
    end = torch.autograd.grad(state.levels[0].weights["up"][0, 0, 0], first.up[0])[0]
    want = torch.zeros_like(end)
    want[0, 0] = 1
    torch.testing.assert_close(end, want)


def test_the_outer_loop_learns_a_better_start() -> None:
    """Each sequence is another linear map. Outer training of the start helps, and through what is learned in
    context."""
    cms = CMS(6, 16, (4, 16), lr=0.1, seed=1)
    g = torch.Generator().manual_seed(0)
    basis = torch.randn(6, 6, generator=g) / 6**0.5

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(32, 32, 6, generator=g)
        return x, x + torch.randn(32, 1, 1, generator=g) * (x @ basis)

    def late(model: CMS, x: Tensor, t: Tensor) -> Tensor:
        return 0.5 * (model(x, target=t)[0] - t)[:, 16:].square().mean()

    test = batch()
    before = late(cms, *test).item()
    opt = torch.optim.Adam(cms.parameters(), lr=0.02)
    for _ in range(60):
        opt.zero_grad()
        late(cms, *batch()).backward()
        opt.step()
    still = CMS(6, 16, (4, 16), lr=0.0)
    still.load_state_dict(cms.state_dict())
    after, frozen = late(cms, *test).item(), late(still, *test).item()
    assert after < 0.6 * before and after < 0.6 * frozen, (before, after, frozen)


# ---------------------------------------------------------------------------- the knobs
def test_lr_zero_is_the_static_chain_and_deviation_is_linear() -> None:
    x, target = rnd(2, T, D), rnd(2, T, D, seed=1)
    static, unread = make(lr=0.0)(x, target=target)[0], make()(x)[0]
    torch.testing.assert_close(static, unread, atol=1e-13, rtol=0)
    gap = [(make(lr=lr)(x, target=target)[0] - static).abs().max() for lr in (1e-4, 1e-5)]
    assert abs(gap[0] / gap[1] - 10) < 0.1


def test_partial_chunks() -> None:
    x, target = rnd(1, 10, D), rnd(1, 10, D, seed=1)
    out = {p: make(periods=(4,))(x, target=target, partial=p)[1].levels[0] for p in ("carry", "drop", "flush")}
    assert torch.equal(out["carry"].weights["up"], out["drop"].weights["up"])
    assert out["carry"].clock == 2 and out["drop"].clock == out["flush"].clock == 0
    assert out["carry"].buffer is not None and out["drop"].buffer is None and out["flush"].buffer is None
    assert (out["carry"].updates, out["flush"].updates) == (2, 3)
    applied = out["carry"].weights["up"] - 0.3 / 4 * out["carry"].buffer["up"]  # each token counts lr / C
    torch.testing.assert_close(out["flush"].weights["up"], applied, atol=1e-13, rtol=0)
    # a sequence shorter than a chunk learns nothing, unless it is flushed
    short = make(periods=(64,))
    assert short(x, target=target)[1].levels[0].updates == 0
    assert short(x, target=target, partial="flush")[1].levels[0].updates == 1


def test_token_weights_mask_padding() -> None:
    cms = make(periods=(4, 8))
    x, target = rnd(1, 16, D), rnd(1, 16, D, seed=1)
    w = torch.ones(1, 16, dtype=F64)
    w[:, 5] = 0
    t2 = target.clone()
    t2[:, 5] += 100
    a, b = (cms(x, target=t, weight=w)[0] for t in (target, t2))
    assert torch.equal(a, b)
    torch.testing.assert_close(cms(x, target=target, weight=torch.ones_like(w))[0], cms(x, target=target)[0])


@pytest.mark.eq(71, 74)
def test_a_panel_reads_its_source_and_every_level_has_token_weights() -> None:
    """source instead of x where levels read, y on top of x; weights of zero for one level hold that level alone."""
    x, source, target = rnd(2, 12, D), rnd(2, 12, D, seed=2), rnd(2, 12, D, seed=1)
    cms = make("headwise", (3, 4))
    y, _ = cms(x, source=source)
    own, _ = cms(source)
    torch.testing.assert_close(y - x, own - source, atol=1e-13, rtol=0)
    assert (cms(x)[0] - y).abs().max() > 1e-2
    weight = torch.ones(2, 12, 2, dtype=F64)
    weight[..., 0] = 0
    _, state = cms(x, source=source, target=target, weight=weight)
    assert torch.equal(state.levels[0].weights["up"][0], cms.up[0])
    assert not torch.equal(state.levels[1].weights["up"][0], cms.up[1])


@pytest.mark.eq(71)
@pytest.mark.parametrize("first_order", [True, False])
def test_token_weights_and_rates_stay_in_the_outer_graph(first_order: bool) -> None:
    cms = make("headwise", (3, 4), first_order=first_order, learn_lr=True, reduce="sum", lr=0.05)
    x, target = rnd(1, 12, D), rnd(1, 12, D, seed=1)
    weight = torch.ones(1, 12, 2, dtype=F64, requires_grad=True)

    def value(w: Tensor) -> Tensor:
        return cms(x, target=target, weight=w)[0].square().sum()

    value(weight).backward()
    assert cms.log_lr.grad.abs().min() > 1e-6 and weight.grad[0, :8].abs().min() > 1e-9
    if not first_order:
        way = rnd(1, 12, 2, seed=3)
        slope = (value(weight + 1e-6 * way) - value(weight - 1e-6 * way)) / 2e-6
        assert float(slope) == pytest.approx(float((weight.grad * way).sum()), rel=1e-5)


@pytest.mark.eq(71)
def test_the_end_of_a_context() -> None:
    """What is gathered moves its level as it is; levels that end start again; only the sequences that are named."""
    x, target = rnd(3, 10, D), rnd(3, 10, D, seed=1)
    cms = make(periods=(4, 7), reduce="sum", lr=0.02)
    _, state = cms(x, target=target)
    ended = cms.end_context(state)
    for i, (old, new) in enumerate(zip(state.levels, ended.levels, strict=True)):
        for n in ("up", "down"):
            torch.testing.assert_close(new.weights[n], old.weights[n] - 0.02 * old.buffer[n], atol=1e-13, rtol=0)
        assert (new.clock, new.buffer, new.updates) == (0, None, old.updates + 1), i
    rows = torch.tensor([True, False, True])
    restarts = torch.tensor([[True, False], [False, False], [False, False]])
    some = cms.end_context(state, rows, restarts)
    assert torch.equal(some.levels[0].weights["up"][0], cms.up[0])  # level 0 of sequence 0 starts again
    assert torch.equal(some.levels[0].weights["up"][2], ended.levels[0].weights["up"][2])
    assert torch.equal(some.levels[1].weights["up"][0], ended.levels[1].weights["up"][0])
    for s, old in zip(some.levels, state.levels, strict=True):
        assert torch.equal(s.weights["up"][1], old.weights["up"][1]) and s.clock == old.clock
        assert torch.equal(s.buffer["up"][1], old.buffer["up"][1]) and s.buffer["up"][0].abs().max() == 0
    held = make(periods=(4, 7), reduce="sum", lr=0.02)
    held.held.add(1)
    _, still = held(x, target=target)
    assert torch.equal(still.levels[1].weights["up"][0], held.up[1]) and still.levels[1].clock == 3
    assert not torch.equal(still.levels[0].weights["up"][0], held.up[0])


@pytest.mark.parametrize(
    ("inner", "torchs"),
    [
        (Adam(weight_decay=0.1), lambda p: torch.optim.AdamW(p, 0.05, betas=(0.9, 0.99), weight_decay=0.1)),
        (Momentum(0.8), lambda p: torch.optim.SGD(p, 0.05, momentum=0.8)),
    ],
)
def test_an_inner_optimizer_is_torchs(inner, torchs) -> None:
    w, p = rnd(3, 4), nn.Parameter(rnd(3, 4))
    opt, state = torchs([p]), inner.init(w)
    for t in range(4):
        p.grad = rnd(3, 4, seed=t + 1)
        opt.step()
        w, state = inner.step(w, p.grad, state, 0.05)
    torch.testing.assert_close(w, p.detach())


@pytest.mark.parametrize("variant", ["sequential", "nested"])
@pytest.mark.parametrize("optimizer", ["sgd", Adam(), Momentum(0.8)])
def test_state_survives_a_file(variant: str, optimizer, tmp_path) -> None:
    cms = make(variant, optimizer=optimizer, lr=0.05)
    x, target = rnd(2, T, D), rnd(2, T, D, seed=1)
    with torch.no_grad():
        y, _ = cms(x, target=target)
        _, state = cms(x[:, :11], target=target[:, :11])
        save(tmp_path / "state.safetensors", state)
        read = load(tmp_path / "state.safetensors", cms.initial_state(1))
        rest, end = cms(x[:, 11:], read, target=target[:, 11:])
        direct, _ = cms(x[:, 11:], state, target=target[:, 11:])
    assert torch.equal(rest, direct) and end.position == T
    torch.testing.assert_close(rest, y[:, 11:], atol=1e-11, rtol=0)


def test_cost_counted_equals_predicted() -> None:
    cms = make(periods=(2, 4, 12))
    x = rnd(1, 24, D)
    _, state = cms(x, target=x)
    assert state.moved_per_token() == pytest.approx(cms.moved_per_token())
    assert cms.moved_per_token() == pytest.approx(2 * D * (H / 2 + (H + 1) / 4 + H / 12))
    assert [r["level"] for r in CMS(2, 2, (1, 8, 8, 8)).cost()] == ["C1", "C8", "C8.2", "C8.3"]


def test_levels_and_trace() -> None:
    cms = make("nested", (2, 4, 12), optimizer="momentum")
    opt = torch.optim.SGD(cms.parameters(), lr=0.1)
    s = levels_of(cms, opt, tokens_per_step=24)
    assert s.order() == (
        "{down.0, down.1, down.2, up.0, up.1, up.2}  <  {C12, C4.start}  <  {C12.momentum}  <  "
        "{C2.start, C4}  <  {C4.momentum}  <  {C2}  <  {C2.momentum}"
    )
    assert [s[n].size for n in ("C4", "C4.start", "C4.momentum")] == [2 * D * (H + 1)] * 3
    x = rnd(1, 24, D)
    with Trace(cms, opt, tokens_per_step=24) as trace:
        cms(x, target=x)[0].sum().backward()
        opt.step()
    assert trace.updates["C12"] == [12, 24] and trace.updates["up.0"] == [24]
    reasons = {e.reason for e in trace.events if e.level == "C4"}
    assert reasons == {"chunk of 4 tokens is full", "restart from the start that C12 owns"}
    before = len(trace.events)
    cms(x, target=x)
    assert len(trace.events) == before and not cms.write_hooks


@pytest.mark.parametrize(
    ("make_it", "match"),
    [
        (lambda: CMS(4, 4, ()), "periods: got"),
        (lambda: CMS(4, 4, (0, 2)), "periods: got 0"),
        (lambda: CMS(4, 4, (2.5,)), "periods: got 2.5"),
        (lambda: CMS(0, 4, (2,)), "dim: got 0"),
        (lambda: CMS(4, [4, 4], (2,)), "hidden: got 2 values"),
        (lambda: CMS(4, 4, (2,), "parallel"), "variant: got 'parallel'"),
        (lambda: CMS(4, 4, (8, 2), "nested"), "strictly growing periods"),
        (lambda: CMS(4, 4, (2,), lr=-1), "lr: got -1"),
        (lambda: CMS(4, 4, (2,), lr=0.0, learn_lr=True), "numbers > 0"),
        (lambda: CMS(4, 4, (2,), optimizer="lion"), "optimizer: got 'lion'"),
        (lambda: CMS(4, 4, (2,), optimizer=Adam), "an object with init and step"),
        (lambda: CMS(4, 4, (2,))(torch.zeros(1, 3, 5)), "x: got shape"),
        (lambda: CMS(4, 4, (2,))(torch.zeros(3, 4)), "x: got shape"),
        (lambda: CMS(4, 4, (2,))(Z.long()), "floating-point"),
        (lambda: CMS(4, 4, (2,))(Z.double()), "float64"),
        (lambda: CMS(4, 4, (2,))(Z, target=torch.zeros(1, 2, 4)), "target: got shape"),
        (lambda: CMS(4, 4, (2,))(Z, target=torch.zeros(1, 3, 5)), "target: got shape"),
        (lambda: CMS(4, 4, (2,), objective="local")(Z, target=Z), "makes its own values"),
        (lambda: CMS(4, 4, (2,))(Z, loss=cross_entropy), "a loss without a target"),
        (lambda: CMS(4, 4, (2,), objective=lambda y, t: (y - t).sum())(Z, target=Z), "one number a token"),
        (lambda: CMS(4, 4, (2,))(Z, partial="keep"), "partial: got 'keep'"),
        (lambda: CMS(4, 4, (2,))(torch.zeros(2, 3, 4), CMS(4, 4, (2,)).initial_state(1)), "1 levels for 1 sequence"),
        (lambda: CMS(4, 4, (2,))(Z, target=Z, weight=torch.ones(1, 4)), "weight: got shape"),
        (lambda: CMS(4, 4, (2,), objective="global"), "objective: got"),
        (lambda: CMS(4, 4, (2,), mlp=MLP("sin")), "activation: got"),
        (lambda: CMS(4, 4, (2,))(Z, target=Z, source=Z), "source: got"),
        (lambda: CMS(4, 4, (2,), "headwise")(Z, target=Z, source=Z[:, 1:]), "source: got"),
    ],
)
def test_errors(make_it, match: str) -> None:
    with pytest.raises(NLBookError, match=match):
        make_it()


def test_a_chain_compiles_into_one_graph() -> None:
    cms, x = make("nested", (2, 3)), rnd(1, 4, D)
    torch.compiler.reset()
    compiled = torch.compile(cms, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, target=x)[0], cms(x, target=x)[0])


# ---------------------------------------------------------------------------- level stacking (section 7.3)
class Decoder(nn.Module):
    """A small pre-trained decoder of torch's own layers."""

    def __init__(self, layers: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=True) for _ in range(layers)
        )
        self.head = nn.Linear(8, 11)

    def forward(self, ids: Tensor) -> Tensor:
        h, mask = self.embed(ids), nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        for b in self.blocks:
            h = b(h, src_mask=mask, is_causal=True)
        return self.head(h)

    def loss(self, ids: Tensor) -> Tensor:
        return F.cross_entropy(self(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def decoder() -> Decoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Decoder()


def text(steps: int, length: int = 8) -> list[Tensor]:
    g = torch.Generator().manual_seed(1)
    return [torch.randint(0, 11, (2, length + 1), generator=g) for _ in range(steps)]


def read(model: nn.Module, stack, batches: list[Tensor]) -> list[list[str]]:
    moved = []
    for ids in batches:
        logits = model(ids[:, :-1])
        logits = getattr(logits, "logits", logits)
        F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        moved.append(stack.step(tokens=ids.shape[1] - 1))
    return moved


@pytest.mark.eq(70, 71)
def test_stacked_levels_preserve_the_function_and_move_on_time() -> None:
    model, ids = decoder(), text(1)[0]
    with torch.no_grad():
        before = model(ids)
    weights = [p.detach().clone() for p in model.parameters()]
    stack = stack_levels(model, (8, 32), lr=0.0)
    assert [v.blocks for v in stack.levels] == [["blocks.0", "blocks.1"], ["blocks.2", "blocks.3"]]
    moved = read(model, stack, text(4))
    assert moved == [["C8"], ["C8"], ["C8"], ["C8", "C32"]]
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters()))
    with torch.no_grad():
        torch.testing.assert_close(model(ids), before)

    def gap(lr: float) -> float:
        m = decoder()
        read(m, stack_levels(m, (8, 32), lr=lr), text(4))
        with torch.no_grad():
            return (m(ids) - before).abs().max().item()

    assert gap(1e-2) / gap(1e-3) == pytest.approx(10, rel=0.1)


def test_a_slow_level_takes_the_mean_over_its_own_tokens() -> None:
    """One level with C = 16 and two calls of 8 tokens is one SGD step on all 16."""
    model, batches = decoder(), text(2)
    stack = stack_levels(model, (16,), lr=0.1)
    frozen = model.head.weight.detach().clone()
    assert read(model, stack, batches) == [[], ["C16"]]
    plain = decoder()
    (sum(map(plain.loss, batches)) / 2).backward()
    with torch.no_grad():
        for params in find_mlps(plain).values():
            for p in params:
                p -= 0.1 * p.grad
    for (name, a), b in zip(model.named_parameters(), plain.parameters()):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5, msg=name)
    assert torch.equal(model.head.weight, frozen) and not model.head.weight.requires_grad


def test_stack_resumes_from_its_state_dict_and_shows_its_levels(tmp_path) -> None:
    def heavy(params, lr):
        return torch.optim.SGD(params, lr=lr, momentum=0.9)

    batches = text(7)
    whole = decoder()
    stack = stack_levels(whole, (8, 24), lr=0.1, optimizer=heavy, rest=40)
    s = levels_of(whole, stack, tokens_per_step=1, depth=0)
    order = [sorted(x) for x in s.levels if any("attention" not in n for n in x)]
    assert order == [[f"{what} [{i}]"] for i in (3, 2, 1) for what in ("weights", "momentum_buffer")]
    assert [s[f"weights [{i}]"].period for i in (1, 2, 3)] == [8, 24, 40]
    read(whole, stack, batches)
    half = decoder()
    first = stack_levels(half, (8, 24), lr=0.1, optimizer=heavy, rest=40)
    read(half, first, batches[:4])
    torch.save({"model": half.state_dict(), "stack": first.state_dict()}, tmp_path / "at4.pt")
    again = decoder()
    second = stack_levels(again, (8, 24), lr=0.1, optimizer=heavy, rest=40)
    kept = torch.load(tmp_path / "at4.pt")
    again.load_state_dict(kept["model"])
    second.load_state_dict(kept["stack"])
    read(again, second, batches[4:])
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters()))
    assert [v.updates for v in second.levels] == [7, 2, 1]
    mlp = 2 * (8 * 16 * 2 + 16 + 8)  # two blocks' weights and biases
    others = sum(p.numel() for p in whole.parameters()) - 2 * mlp
    assert stack.moved_per_token() == pytest.approx(mlp / 8 + mlp / 24 + others / 40)


@pytest.mark.parametrize(
    ("make_it", "match"),
    [
        (lambda: stack_levels(nn.Linear(2, 2), (8,)), "without MLPs"),
        (lambda: stack_levels(decoder(), ()), "periods: got"),
        (lambda: stack_levels(decoder(), (0,)), "periods: got 0"),
        (lambda: stack_levels(decoder(), (1, 2, 3, 4, 5)), "at most 4"),
        (lambda: stack_levels(decoder(), (1, 2), assign=[0, 0, 0, 0]), "assign"),
        (lambda: stack_levels(decoder(), (1, 2), lr=[0.1]), "lr: got 1 values"),
        (lambda: stack_levels(decoder(), (8, 16)).step(9), "at most 8, the period of C8"),
    ],
)
def test_stack_errors(make_it, match: str) -> None:
    with pytest.raises(NLBookError, match=match):
        make_it()


def test_stack_on_a_hugging_face_decoder(tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    ids = text(1)[0]
    with torch.no_grad():
        before = model(ids).logits
    stack = stack_levels(model, (8, 16), lr=0.0)
    assert [len(v.blocks) for v in stack.levels] == [2, 2] and all("mlp" in b for v in stack.levels for b in v.blocks)
    assert read(model, stack, text(2)) == [["C8"], ["C8", "C16"]]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, before)
    system = levels_of(model, stack, tokens_per_step=1, depth=0)
    assert any(c.kind == "non-parametric" for c in system.components)
    moving = stack_levels(model, (8, 16), lr=1.0)  # a fresh Llama is nearly flat: small steps would not show
    read(model, moving, text(2))
    assert (model(ids).logits - before).abs().max() > 1e-4
    model.save_pretrained(tmp_path / "after")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "after", local_files_only=True)
    torch.testing.assert_close(back(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("kind", "sizes", "blocks"),
    [
        ("Bert", {"intermediate_size": 16}, "encoder.layer.{}"),
        ("OPT", {"ffn_dim": 16, "word_embed_proj_dim": 8}, "decoder.layers.{}"),
        (
            "T5",
            {"d_ff": 16, "d_model": 8, "d_kv": 4, "num_layers": 2, "num_heads": 2},
            "encoder.block.{}.layer.1.DenseReluDense",
        ),
    ],
)
def test_the_mlps_of_other_families_are_found(kind, sizes, blocks) -> None:
    transformers = pytest.importorskip("transformers")
    if kind != "T5":
        sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, **sizes}
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(vocab_size=11, **sizes))
    found = find_mlps(model)
    assert [p for p in found if not p.startswith("decoder.block")] == [blocks.format(i) for i in range(2)]
    assert {p.shape for p in found[blocks.format(0)] if p.ndim == 2} == {(16, 8), (8, 16)}


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp, self.head = nn.Linear(4, 4), nn.Linear(4, 2)


def test_half_precision_gradients_are_gathered_in_full() -> None:
    model = Tiny().to(torch.bfloat16)
    nn.init.zeros_(model.mlp.weight)
    stack = stack_levels(model, (4096,), lr=1.0)
    for _ in range(4096):
        for p in model.mlp.parameters():
            p.grad = torch.ones_like(p)
        stack.step(tokens=1)
    assert model.mlp.weight.dtype == torch.bfloat16 and (model.mlp.weight == -1).all()


def test_the_mean_is_over_all_tokens_gathered_and_a_weight_undoes_a_divided_loss() -> None:
    """Two calls of 3 tokens for a period of 4: slopes of 1 and 2, the second one of a loss divided by 2."""
    model = Tiny()
    nn.init.zeros_(model.mlp.weight)
    stack = stack_levels(model, (4,), lr=1.0)
    for weight in (1.0, 2.0):
        for p in model.mlp.parameters():
            p.grad = torch.ones_like(p)
        stack.step(tokens=3, weight=weight)
    assert (model.mlp.weight == -1.5).all()


def test_a_stack_follows_a_schedule_and_a_scaler() -> None:
    """A level moves at the rate that holds then; gradients that a scaler multiplied come back as they were."""
    plain, scaled = decoder(), decoder()
    stacks = [stack_levels(m, (8, 16), lr=(0.1, 0.2), tokens=8) for m in (plain, scaled)]
    halves = [torch.optim.lr_scheduler.StepLR(s, 1, gamma=0.5) for s in stacks]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    start, slopes = plain.blocks[0].linear1.weight.detach().clone(), []
    for ids in text(2):
        plain.loss(ids).backward()
        slopes.append(plain.blocks[0].linear1.weight.grad.clone())
        stacks[0].step()
        scaler.scale(scaled.loss(ids)).backward()
        scaler.step(stacks[1])
        scaler.update()
        for half in halves:
            half.step()
    torch.testing.assert_close(plain.blocks[0].linear1.weight, start - 0.1 * slopes[0] - 0.05 * slopes[1])
    assert [g["lr"] for g in stacks[0].param_groups] == [0.025, 0.05]
    for a, b in zip(plain.parameters(), scaled.parameters()):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_a_stack_is_trained_and_goes_on_from_its_checkpoint(tmp_path) -> None:
    def run(steps: int, folder: str) -> nn.Module:
        model = decoder()
        adam = stack_levels(model, (8, 24), lr=0.01, optimizer=torch.optim.Adam, tokens=8)
        train(model, lambda step: text(7)[step], steps, optimizer=adam, schedule=constant, folder=tmp_path / folder)
        return model

    run(4, "b")  # the slow level has gathered one call of three
    whole, parts = run(7, "a"), run(7, "b")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters()))
    assert not torch.equal(whole.blocks[3].linear1.weight, decoder().blocks[3].linear1.weight)


def test_paths_are_taken_as_given_and_unstack_gives_the_model_back() -> None:
    model = Tiny()
    model.mlp.bias.requires_grad_(False)
    wanted = {n: p.requires_grad for n, p in model.named_parameters()}
    stack = stack_levels(model, (8,), mlps=["head"])
    assert stack.levels[0].blocks == ["head"] and not model.mlp.weight.requires_grad
    with pytest.raises(NLBookError, match="gradients: got none"):
        stack.step(tokens=1)
    model.head(torch.ones(1, 4)).sum().backward()
    stack.unstack()
    assert all(p.grad is None for p in model.parameters())
    assert {n: p.requires_grad for n, p in model.named_parameters()} == wanted
    with pytest.raises(NLBookError, match="mlps"):
        stack_levels(model, (8,), mlps=["nothing"])
    inside = nn.ModuleDict({"mlp": nn.ModuleDict({"mlp": nn.Linear(2, 2)}), "ffn": nn.Identity()})
    assert list(find_mlps(inside)) == ["mlp"]
