"""nlbook.levels: the order of Definition 2, levels_of on real models, running boxes, knowledge transfer, the trace."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nlbook import levels as lv
from nlbook import optim
from nlbook.errors import NLBookError
from nlbook.levels import INF, Component, NestedSystem, OrderError, Trace, Writes, levels_of

torch.set_default_dtype(torch.float32)
F64 = torch.float64


def rnd(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------- the order
WANTED = {  # definitions.md, section 3
    "linear layer, SGD": "{W}",
    "linear layer, momentum": "{W}  <  {m}",
    "linear layer, Adam": "{W}  <  {m, v}",
    "linear attention, momentum": "{W_kvq}  <  {m}  <  {M_t}",
    "Transformer, SGD": "{W_MLP, W_kvq}  <  {attention}",
    "AdaTransformer, SGD": "{W_init, W_kvq}  <  {W_LinAttn}  <  {attention}",
    "Muon": "{W}  <  {m}  <  {O}",
    "M3": "{M2}  <  {W}  <  {M1, V}",
    "Hope": "{slow}  <  {CMS3}  <  {CMS2}  <  {CMS1}  <  {M_mem}  <  {M_alpha, M_eta, M_k, M_v}",
}


@pytest.mark.parametrize("name", WANTED)
def test_worked_examples(name: str) -> None:
    assert lv.worked_examples()[name].order() == WANTED[name]


def test_needs_are_transitive_and_ties_go_outward() -> None:
    s = NestedSystem([Component("W", 1, needs={"O"}), Component("O", 1, needs={"m"}), Component("m", 1)], unit="step")
    assert s.faster("m", "W") and s.levels == [["W"], ["O"], ["m"]]
    t = NestedSystem([Component("W", 1, needs="m"), Component("m", 1), Component("W2", 1)], unit="step")
    assert t.same("W2", "m") and t.same("W2", "W") and t.faster("m", "W")  # "=f" is not transitive
    assert t.levels == [["W", "W2"], ["m"]]
    t.check_order("W, W2 < m")
    t.check_order("W < m, W2", ties=False)
    with pytest.raises(OrderError, match="W2: got level 2, expected level 1: no arrow is broken"):
        t.check_order("W < m, W2")


def test_a_circle_of_same_time_needs_is_refused() -> None:
    with pytest.raises(NLBookError, match="M_k needs M_v and M_v needs M_k at the same time"):
        NestedSystem([Component("M_k", 1, needs={"M_v"}), Component("M_v", 1, needs={"M_k"})], unit="token")
    with pytest.raises(NLBookError, match="W needs W"):
        NestedSystem([Component("W", 1, needs={"W"})], unit="token")


def test_wrong_orders_name_the_arrow() -> None:
    s = lv.worked_examples(8)["AdaTransformer, SGD"]
    s.check_order([["W_kvq", "W_init"], ["W_LinAttn"], ["attention"]])
    why = "attention is updated inf times per sequence of 8 tokens and W_LinAttn 8 times"
    with pytest.raises(OrderError, match=f"attention > W_LinAttn is violated: {why}"):
        s.check_order("W_kvq, W_init < attention < W_LinAttn")
    with pytest.raises(OrderError, match="not of one level; got both in level 2"):
        s.check_order("W_kvq, W_init < attention, W_LinAttn")
    m = lv.worked_examples()["linear layer, momentum"]
    with pytest.raises(OrderError, match="both are updated 1 times per optimizer step and W at time t needs m"):
        m.check_order("m < W")
    kinds = {v.kind for v in m.violations("W < W < x")}
    assert kinds == {"twice", "unknown", "missing"}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 2, Fraction(1, 3), INF]), st.sets(st.integers(0, 7))), min_size=1, max_size=8
    )
)
def test_levels_never_contradict_the_order(parts: list[tuple]) -> None:
    """For any acyclic system: the levels pass check_order, and swapping two neighbouring levels never does."""
    s = NestedSystem(
        [Component(f"c{i}", f, needs={f"c{j}" for j in needs if j < i}) for i, (f, needs) in enumerate(parts)],
        unit="token",
    )
    s.check_order(s.levels)
    assert sorted(n for x in s.levels for n in x) == sorted(c.name for c in s.components)
    for i in range(len(s.levels) - 1):
        wrong = [*s.levels[:i], s.levels[i + 1], s.levels[i], *s.levels[i + 2 :]]
        assert any(v.kind == "arrow" for v in s.violations(wrong))
    assert NestedSystem.from_dict(json.loads(json.dumps(s.as_dict()))).levels == s.levels


def test_units_are_explicit_and_convert() -> None:
    s = NestedSystem([Component("M", period=16), Component("W", period=4096), Component("a", INF)], unit="token")
    assert s["M"].frequency == Fraction(1, 16) and s["M"].period == 16 and s["a"].period == 0
    seq = s.in_unit("sequence of 4096 tokens", 4096)
    assert seq["M"].frequency == 256 and seq["W"].frequency == 1 and seq["a"].frequency == INF
    assert "updates per sequence of 4096 tokens" in seq.text() and "1/16 (every 16)" in s.markdown()
    assert seq.levels == s.levels and s.arrows() == [("M", "a"), ("W", "M")]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Component("x"), "neither frequency nor period"),
        (lambda: Component("x", -1), "expected a number >= 0"),
        (lambda: Component("x", "often"), "expected a number >= 0"),
        (lambda: Component("x", 1, 2), "two that agree"),
        (lambda: NestedSystem([Component("x", 1)] * 2, "token"), "x twice"),
        (lambda: NestedSystem([Component("x", 1, needs={"y"})], "token"), "x.needs: got y"),
        (lambda: NestedSystem([Component("x", 1)], ""), "unit"),
        (lambda: NestedSystem([Component("x", 1)], "token")["y"], "name: got 'y'"),
        (lambda: levels_of(torch.zeros(1)), "expected a torch.nn.Module"),
        (lambda: levels_of(nn.Linear(1, 1), 3), "expected a torch.optim.Optimizer"),
        (lambda: levels_of(nn.Linear(1, 1), tokens_per_step=0), "tokens_per_step: got 0"),
    ],
)
def test_errors(make, match: str) -> None:
    with pytest.raises(NLBookError, match=match):
        make()


# ---------------------------------------------------------------------------- levels_of
@pytest.mark.parametrize(
    ("cls", "kw", "order"),
    [
        (torch.optim.SGD, {}, "{weight}"),
        (torch.optim.SGD, {"momentum": 0.9}, "{weight}  <  {momentum_buffer}"),
        (torch.optim.AdamW, {}, "{weight}  <  {exp_avg, exp_avg_sq}"),
        (torch.optim.Adam, {"amsgrad": True}, "{weight}  <  {exp_avg, max_exp_avg_sq}  <  {exp_avg_sq}"),
        (torch.optim.ASGD, {}, "{ax}  <  {weight}"),
        (torch.optim.Adagrad, {}, "{weight}  <  {sum}"),
        (
            torch.optim.RMSprop,
            {"momentum": 0.9, "centered": True},
            "{weight}  <  {grad_avg, momentum_buffer, square_avg}",
        ),
        (optim.Muon, {}, "{weight}  <  {momentum}"),
        (optim.M3, {"period": 8}, "{slow}  <  {weight}  <  {second}  <  {fast}"),  # V averages the update
        (optim.M3, {"period": 8, "second": "grad"}, "{slow}  <  {weight}  <  {fast, second}"),  # as printed
        (optim.M3, {"alpha": 0.0, "second": "none"}, "{weight}  <  {fast}"),
    ],
)
def test_optimizers(cls, kw: dict, order: str) -> None:
    layer = nn.Linear(3, 3, bias=False)
    opt = cls(layer.parameters(), lr=0.1, **kw)
    dry = levels_of(layer, opt)
    layer(torch.ones(2, 3)).sum().backward()
    opt.step()
    assert dry.order() == order and levels_of(layer, opt).order() == order and dry.unit == "optimizer step"


def test_the_slow_momentum_of_m3_has_its_own_clock() -> None:
    """Declared and measured; vectors of the same param group take AdamW and have no slow level."""
    layer = nn.Linear(3, 3)
    opt = optim.M3(layer.parameters(), lr=0.01, period=4)
    system = levels_of(layer, opt)
    assert system["slow"].period == 4 and system["slow"].size == layer.weight.numel()
    assert system["bias"].needs == {"exp_avg", "exp_avg_sq"} and system["weight"].needs == {"fast", "second"}
    with Trace(layer, opt, tokens_per_step=1) as trace:
        for i in range(9):
            opt.zero_grad()
            layer(rnd(5, 3, seed=i).float()).square().sum().backward()
            opt.step()
    assert trace.updates["slow"] == [4, 8] and trace.updates["fast"] == list(range(1, 10))


def test_transformer_has_only_the_two_ends() -> None:
    m = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
    s = levels_of(m, torch.optim.SGD(m.parameters(), lr=0.1), tokens_per_step=32)
    assert {c.frequency for c in s.components} == {Fraction(1, 32), INF} and s.unit == "token"
    assert [c.name for c in s.components if c.kind == "non-parametric"] == [
        "encoder.layers.0.self_attn.attention",
        "decoder.layers.0.self_attn.attention",
        "decoder.layers.0.multihead_attn.attention",
    ]
    after = levels_of(m)  # after pre-training
    assert {c.frequency for c in after.components} == {0, INF} and len(after.levels) == 2


def test_the_models_of_the_chapter() -> None:
    a = lv.LinearAttention(4)
    s = levels_of(a, torch.optim.SGD(a.parameters(), lr=0.1, momentum=0.9), tokens_per_step=8)
    assert s.levels == [["W_k", "W_v", "W_q"], ["momentum_buffer"], ["M"]]
    a = lv.AdaTransformerLayer(4)
    s = levels_of(a, torch.optim.SGD(a.parameters(), lr=0.1), tokens_per_step=8, depth=0)
    assert s.order() == "{W_init, weights}  <  {W_LinAttn}  <  {attention}" and s["W_init"].kind == "initial state"
    assert s["weights"].size == 48 and s["W_init"].size == 16
    with pytest.raises(NLBookError, match="tokens_per_step: got None"):
        levels_of(a, torch.optim.SGD(a.parameters(), lr=0.1))
    # a state that is written once per step is read by the outer gradient of that step: it is faster than all slow parts
    s = levels_of(a, torch.optim.AdamW(a.parameters()), tokens_per_step=1, depth=0)
    assert s.order() == "{W_init, weights}  <  {exp_avg, exp_avg_sq}  <  {W_LinAttn}  <  {attention}"


@pytest.mark.eq(21, 69)
def test_ada_transformer_is_a_recurrence_that_starts_at_an_mlp() -> None:
    m = lv.AdaTransformerLayer(4, seed=1).double()
    x = rnd(2, 6, 4)
    y = m(x)
    k, v, q = x @ m.W_k.mT, x @ m.W_v.mT, x @ m.W_q.mT
    for b in range(2):
        memory = m.W_init.clone()
        for t in range(6):
            memory = memory + torch.outer(v[b, t], k[b, t])
            attn = torch.softmax(k[b, : t + 1] @ q[b, t] / 2, 0) @ v[b, : t + 1]
            torch.testing.assert_close(y[b, t], memory @ attn, atol=1e-12, rtol=0)


def test_groups_frozen_parts_rnns_and_batch_norm() -> None:
    m = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LSTM(4, 4), nn.Linear(4, 4))
    opt = torch.optim.SGD([{"params": m[0].parameters(), "momentum": 0.9}, {"params": m[2].parameters()}], lr=0.1)
    s = levels_of(m, opt, tokens_per_step=5)
    assert s["3"].frequency == 0 and s["3"].kind == "frozen" and s["2.hidden state"].frequency == 1
    assert s["1.running statistics"].frequency == Fraction(1, 5) and s.faster("momentum_buffer", "0")
    assert s.same("2", "momentum_buffer")
    assert levels_of(m.eval(), opt, tokens_per_step=5)["1.running statistics"].frequency == 0
    two = torch.optim.SGD([{"params": [m[0].weight], "momentum": 0.9}, {"params": [m[0].bias]}], lr=0.1)
    names = {c.name for c in levels_of(m, two, tokens_per_step=5).components}
    assert {"0 [1]", "0 [2]", "momentum_buffer"} <= names
    both = levels_of(m, [torch.optim.Adam(m[0].parameters()), torch.optim.Adam(m[3].parameters())], tokens_per_step=5)
    assert {"exp_avg [1]", "exp_avg [2]"} <= {c.name for c in both.components}


def test_an_optimizer_may_speak_for_itself() -> None:
    class Slow(torch.optim.SGD):
        def nested_components(self, group: dict) -> list[Component]:
            return [
                Component("weights", 1, needs={"fast"}),
                Component("fast", 1, kind="optimizer state"),
                Component("slow", period=8, kind="optimizer state"),
            ]

    m = nn.Linear(2, 2)
    s = levels_of(m, Slow(m.parameters(), lr=0.1), tokens_per_step=4, depth=0)
    assert s.order() == "{slow}  <  {weights}  <  {fast}"

    class Odd(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

        def step(self, closure=None):
            raise RuntimeError("only on Tuesdays")

    with pytest.raises(NLBookError, match="only on Tuesdays"):
        levels_of(m, Odd(m.parameters()))


# ---------------------------------------------------------------------------- boxes
@pytest.mark.eq(19)
def test_proximal_step_descends_and_the_printed_sign_ascends() -> None:
    theta, x, y, lr = rnd(4, 3), rnd(3, seed=1), rnd(4, seed=2), 0.2

    def loss(w: torch.Tensor) -> torch.Tensor:
        return 0.5 * (w @ x - y).square().sum()

    u = theta @ x - y
    new = lv.proximal_step(theta, x, u, lr)
    torch.testing.assert_close(new, lv.explicit_step(theta, loss, lr=lr), atol=1e-14, rtol=0)
    for sign, point in ((1, new), (-1, theta + lr * torch.outer(u, x))):  # stationary points of both problems
        phi = point.clone().requires_grad_()
        ((phi @ x) @ (sign * u) + (phi - theta).square().sum() / (2 * lr)).backward()
        assert phi.grad is not None and phi.grad.abs().max() < 1e-13
    assert loss(new) < loss(theta) < loss(theta + lr * torch.outer(u, x))
    ball = lv.explicit_step(theta, loss, lr=lr, feasible=lambda w: w / w.norm())
    torch.testing.assert_close(ball.norm(), torch.tensor(1.0, dtype=F64))


@pytest.mark.eq(20, 98, 99)
def test_implicit_steps() -> None:
    theta, lr = rnd(5), 0.2
    a = rnd(5, 5, seed=1)
    a = a @ a.mT
    new = lv.implicit_step(theta, lambda t: 0.5 * t @ a @ t, lr=lr)
    torch.testing.assert_close(new, torch.linalg.solve(torch.eye(5, dtype=F64) + lr * a, theta), atol=1e-10, rtol=0)
    torch.testing.assert_close(new, theta - lr * a @ new, atol=1e-10, rtol=0)  # the gradient at the new point
    gaps = [
        (lv.implicit_step(theta, lambda t: 0.5 * t @ a @ t, lr=e) - (theta - e * a @ theta)).norm()
        for e in (1e-3, 1e-4)
    ]
    assert abs(gaps[0] / gaps[1] - 100) < 5  # second order: not "equivalent" to explicit descent
    memory, k, v = rnd(4, 3, seed=2), rnd(3, seed=3), rnd(4, seed=4)

    def l2(m: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return 0.5 * (m @ k - v).square().sum()

    def dot(m: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return -(m @ k) @ v

    new = lv.implicit_step(memory, l2, k, v, lr=3.0)
    torch.testing.assert_close(new, lv.implicit_delta(memory, k, v, 3.0), atol=1e-9, rtol=0)
    # a linear loss: explicit (eq. 20) and implicit (eq. 99) agree, and are the Hebbian write
    hebb = memory + lr * torch.outer(v, k)
    torch.testing.assert_close(lv.explicit_step(memory, dot, k, v, lr=lr), hebb, atol=1e-14, rtol=0)
    torch.testing.assert_close(lv.implicit_step(memory, dot, k, v, lr=lr), hebb, atol=1e-10, rtol=0)
    with pytest.raises(NLBookError, match="expected convergence"):
        lv.implicit_step(theta, lambda t: (10 * t).sin().sum(), lr=5.0, most=1)


@pytest.mark.eq(10, 11, 19, 20)
def test_momentum_as_two_boxes() -> None:
    """Eq. 10-13 as a nested system: the momentum is a box whose context is the gradient that the weights' box
    generates."""
    x, y, lr = rnd(3), rnd(4, seed=1), 0.05

    def gradient(w: torch.Tensor) -> torch.Tensor:
        return torch.outer(w @ x - y, x)

    w0 = rnd(4, 3, seed=2)
    m0 = torch.zeros(4, 3, dtype=F64)
    m = lv.Box("m", m0, lambda m, o, g: -(m * g).sum(), lambda t, o: (gradient(o["W"]),), lr=lr)
    w = lv.Box("W", w0, lambda w, o: (w * o["m"]).sum(), lambda t, o: (), lr=1.0, needs=frozenset({"m"}))
    assert lv.system_of([w, m]).levels == [["W"], ["m"]]
    seen: list = []
    lv.run([w, m], 5, on_write=lambda box, t, change: seen.append((t, box.name)))
    assert seen[:2] == [(1, "m"), (1, "W")]  # faster first
    ww, mm = w0, m0
    for _ in range(5):
        mm = mm + lr * gradient(ww)
        ww = ww - mm
    torch.testing.assert_close(w.theta, ww, atol=1e-13, rtol=0)
    torch.testing.assert_close(m.theta, mm, atol=1e-13, rtol=0)


def test_boxes_of_two_periods_and_an_implicit_one() -> None:
    target = rnd(3)

    def near(t: torch.Tensor, o: dict) -> torch.Tensor:
        return 0.5 * (t - target).square().sum()

    slow = lv.Box("slow", torch.zeros(3, dtype=F64), near, lambda t, o: (), lr=0.5, period=4)
    fast = lv.Box("fast", torch.zeros(3, dtype=F64), near, lambda t, o: (), lr=0.5, implicit=True)
    lv.run([slow, fast], 6)
    assert (slow.updates, fast.updates) == (1, 6)
    torch.testing.assert_close(slow.theta, target * 0.5)
    torch.testing.assert_close(fast.theta, target * (1 - 1.5**-6))
    lv.run([slow, fast], 2, start=6)
    assert slow.updates == 2


# ---------------------------------------------------------------------------- knowledge transfer
@pytest.mark.eq(24, 25, 26)
def test_direct_connection_has_no_gradient_across() -> None:
    w, m, x = rnd(3, 5).requires_grad_(), rnd(4, 3, seed=1).requires_grad_(), rnd(5, seed=2)
    torch.testing.assert_close(lv.direct(w, m, x), m @ (w @ x))
    gw, gm = torch.autograd.grad(lv.direct(w, m, x).sum(), (w, m), allow_unused=True)
    assert gw.abs().max() > 0 and gm is None
    gw, gm = torch.autograd.grad(lv.direct_fast(w, m, x).sum(), (w, m), allow_unused=True)
    assert gw is None and gm.abs().max() > 0
    assert (lv.direct(w, m + 1, x) - lv.direct(w, m, x)).abs().max() > 0.1  # yet the knowledge passes


@pytest.mark.eq(27)
def test_direct_nonparametric_reads_a_set() -> None:
    w, k, v, x = rnd(3, 5), rnd(7, 3, seed=1).requires_grad_(), rnd(7, 2, seed=2), rnd(5, seed=3)
    y = lv.direct_nonparametric(w.requires_grad_(), k, v, x)
    p = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(y, lv.direct_nonparametric(w, k[p], v[p], x))
    assert torch.autograd.grad(y.sum(), k, allow_unused=True) == (None,)


def test_backpropagation_is_one_flow_with_two_rates() -> None:
    a, b, x, y = rnd(4, 5), rnd(3, 4, seed=1), rnd(5, seed=2), rnd(3, seed=3)
    ga, gb = torch.autograd.functional.jacobian(lambda a, b: 0.5 * (b @ torch.tanh(a @ x) - y).square().sum(), (a, b))
    a1, b1 = lv.backpropagate(a, b, x, y, 0.1, 0.3)
    torch.testing.assert_close(a1, a - 0.1 * ga)
    torch.testing.assert_close(b1, b - 0.3 * gb)
    a2, b2 = lv.backpropagate(a, b, x, y, 0.1, 0.3, move0=False)
    assert torch.equal(a2, a) and torch.equal(b2, b1)
    # printed: Theta1 after its own update. That is not the gradient.
    wrong = torch.outer((1 - torch.tanh(a @ x) ** 2) * (b1.mT @ (b @ torch.tanh(a @ x) - y)), x)
    assert (wrong - ga).abs().max() > 1e-3


@pytest.mark.eq(28)
def test_initialisation_learns_the_state_after_adaptation() -> None:
    """Quadratic tasks a/2 (phi - b)^2: the printed form has its minimum at sum(ab)/sum(a); after one inner step of rate
    e the weights are a (1 - e a)^2."""
    tasks = [(0.5, 1.0), (2.0, -1.0), (1.0, 3.0)]

    def loss(phi: torch.Tensor, task: object) -> torch.Tensor:
        a, b = task  # type: ignore[misc]
        return 0.5 * a * (phi - b) ** 2

    def minimum(**kw) -> float:
        phi = torch.zeros((), dtype=F64)
        for _ in range(400):
            phi, _ = lv.learn_start(phi, loss, tasks, outer_lr=0.5, **kw)
        return float(phi)

    e = 0.3
    plain = sum(a * b for a, b in tasks) / sum(a for a, _ in tasks)
    w = [a * (1 - e * a) ** 2 for a, _ in tasks]
    w1 = [a * (1 - e * a) for a, _ in tasks]  # first order: one factor (1 - e a) is lost
    maml, fomaml = (sum(wi * b for wi, (_, b) in zip(ws, tasks)) / sum(ws) for ws in (w, w1))
    assert minimum(inner_lr=e, inner_steps=0) == pytest.approx(plain, abs=1e-9)
    assert minimum(inner_lr=e, inner_steps=1) == pytest.approx(maml, abs=1e-9)
    assert minimum(inner_lr=e, inner_steps=1, first_order=True) == pytest.approx(fomaml, abs=1e-9)
    assert min(abs(plain - maml), abs(maml - fomaml)) > 0.05
    phi = rnd(3)

    def outer(p: torch.Tensor) -> torch.Tensor:
        return sum(lq(lv.adapt(p, lq, c, 0.1, 3), c) for c in (1.0, 2.0)) / 2

    def lq(p: torch.Tensor, c: object) -> torch.Tensor:
        return (p.sin() * c).square().sum()  # type: ignore[operator]

    _, g = lv.learn_start(phi, lq, [1.0, 2.0], inner_lr=0.1, inner_steps=3, outer_lr=0.0)
    d = rnd(3, seed=5)
    fd = (outer(phi + 1e-6 * d) - outer(phi - 1e-6 * d)) / 2e-6
    assert float(fd) == pytest.approx(float(g @ d), rel=1e-6)


def test_generation_of_weights_and_of_context() -> None:
    h, c, x = rnd(12, 2).requires_grad_(), rnd(2, seed=1), rnd(3, seed=2)
    (lv.generate_weights(h, c, (4, 3)) @ x).sum().backward()
    torch.testing.assert_close(h.grad, torch.outer(torch.outer(torch.ones(4, dtype=F64), x).reshape(-1), c))
    w = rnd(2, 3).requires_grad_()
    g = lv.generate_context(w, lambda w, d: 0.5 * (w @ d).square().sum(), x)
    torch.testing.assert_close(g, torch.outer(w @ x, x).detach())
    assert not g.requires_grad and w.grad is None


# ---------------------------------------------------------------------------- trace
class Ticker(Writes, nn.Module):
    """A counter that writes every `period` tokens."""

    def __init__(self, period: int):
        super().__init__()
        self.period, self.w, self.calls = period, nn.Parameter(torch.zeros(1)), 0

    def nested_components(self) -> list[Component]:
        return [Component("state", period=self.period, kind="fast state")]

    def wrote(self, *a, **k) -> None:
        self.calls += 1
        super().wrote(*a, **k)

    def forward(self, length: int) -> torch.Tensor:
        state = torch.zeros(1)
        for t in range(1, length + 1):
            if t % self.period == 0:
                state = state + 3
                if self.write_hooks:
                    self.wrote("state", t, state, torch.full((1,), 3.0), f"{self.period} tokens")
        return self.w + state


@pytest.mark.parametrize(("length", "period", "notes"), [(200, 64, 3), (50, 64, 0), (200, 1, 200), (7, 7, 1)])
def test_trace_counts_floor_of_length_over_period(length: int, period: int, notes: int) -> None:
    m = Ticker(period)
    with Trace(m) as trace:
        m(length)
        trace.advance(length)
    assert len(trace.updates["state"]) == notes == length // period and trace.length == length
    assert trace.updates["state"] == list(range(period, length + 1, period))
    assert trace.levels == ["w", "state"] and trace.periods == {"w": math.inf, "state": period}
    row = trace.rows()[1]
    assert row["writes"] == row["expected"] == notes
    assert trace.signal.shape == (2, length + 1)
    if notes:
        held = trace.held("state")[1]
        assert held[0] == 0 and held[period] == 3 and held[period - 1] == 0 and held[-1] == 3 * notes
        assert f"{period} tokens" in trace.as_table()


def test_trace_follows_the_optimizer_and_leaves_nothing_behind() -> None:
    m = Ticker(4)
    opt = torch.optim.SGD(m.parameters(), lr=0.5, momentum=0.9)
    m(8)
    assert m.calls == 0  # off: not even called
    with Trace(
        m,
        opt,
        tokens_per_step=8,
        probes={"value": lambda level, s: float(s[0]) if level == "state" else None},
        signal="value",
    ) as trace:
        for _ in range(3):
            opt.zero_grad()
            m(8).sum().backward()
            opt.step()
    calls = m.calls
    m(8).sum().backward()
    opt.step()
    assert m.calls == calls == 6 and len(trace.events) == 12 and not m.write_hooks
    assert trace.levels == ["w", "momentum_buffer", "state"]
    assert trace.updates == {"w": [8, 16, 24], "momentum_buffer": [8, 16, 24], "state": [4, 8, 12, 16, 20, 24]}
    assert trace.series("state") == [(4, 3.0), (8, 6.0), (12, 3.0), (16, 6.0), (20, 3.0), (24, 6.0)]
    assert [v for _, v in trace.series("w", "change")] == pytest.approx([0.5, 0.95, 1.355])
    assert [v for _, v in trace.series("momentum_buffer", "change")] == pytest.approx([1.0, 0.9, 0.81])
    assert [v for _, v in trace.series("w", "state")] == pytest.approx([0.5, 1.45, 2.805])
    with pytest.raises(NLBookError, match="level: got 'x'"):
        trace.series("x")
    with pytest.raises(NLBookError, match="signal"):
        Trace(m, signal="unheard of")


def test_trace_by_hand_orders_lanes_by_measured_period() -> None:
    trace = Trace()
    for t in range(1, 13):
        trace.note("fast", t, torch.ones(2) * t)
        if t % 4 == 0:
            trace.note("slow", t, {"a": [torch.ones(2)]}, torch.ones(2), "four tokens")
    assert trace.levels == ["slow", "fast"] and trace.periods == {"slow": 4.0, "fast": 1.0}
    assert trace.held("state")[1, 12] == pytest.approx(12 * 2**0.5)
    with pytest.raises(NLBookError, match="the model whose parameters"):
        Trace(optimizer=torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1))


def test_trace_of_linear_attention_replays_the_recurrence() -> None:
    m = lv.LinearAttention(4).double()
    x = rnd(1, 5, 4)
    last = {}
    with Trace(m, probes={"read": lambda level, s: last.setdefault(len(last), s) is None}) as trace:
        y = m(x)
    assert trace.updates["M"] == [1, 2, 3, 4, 5]
    torch.testing.assert_close(y[0, 4], last[4][0] @ (m.W_q @ x[0, 4]))
