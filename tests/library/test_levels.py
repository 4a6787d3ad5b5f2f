"""nlbook.levels: the order of Definition 2, levels_of on real models, the trace."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import rand, refuses
from torch import nn

from nlbook import optim
from nlbook.errors import NLBookError
from nlbook.levels import Component, NestedSystem, OrderError, Trace, Writes, levels_of
from nlbook.levels.order import INF

# ---------------------------------------------------------------------------- the order


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


def test_a_need_through_another_clock_counts() -> None:
    """b needs c, c needs a; c is slower, yet a stands above b: equal clocks, and b at time t needs a at time t."""
    parts = [Component("a", 2), Component("b", 2, needs={"c"}), Component("c", 1, needs={"a"})]
    s = NestedSystem(parts, "step")
    assert s.needs("b") == {"a", "c"} and s.faster("a", "b") and s.levels == [["c"], ["b"], ["a"]]


def test_a_circle_of_same_time_needs_is_refused() -> None:
    with pytest.raises(NLBookError, match="M_k needs M_v and M_v needs M_k at the same time"):
        NestedSystem([Component("M_k", 1, needs={"M_v"}), Component("M_v", 1, needs={"M_k"})], unit="token")
    with pytest.raises(NLBookError, match="W needs W"):
        NestedSystem([Component("W", 1, needs={"W"})], unit="token")


def test_wrong_orders_name_the_arrow() -> None:
    parts = [Component("W_kvq", 1), Component("W_init", 1), Component("W_LinAttn", 8), Component("attention", INF)]
    s = NestedSystem(parts, "sequence of 8 tokens")
    s.check_order([["W_kvq", "W_init"], ["W_LinAttn"], ["attention"]])
    why = "attention is updated inf times per sequence of 8 tokens and W_LinAttn 8 times"
    with pytest.raises(OrderError, match=f"attention > W_LinAttn is violated: {why}"):
        s.check_order("W_kvq, W_init < attention < W_LinAttn")
    with pytest.raises(OrderError, match="not of one level; got both in level 2"):
        s.check_order("W_kvq, W_init < attention, W_LinAttn")
    m = NestedSystem([Component("W", 1, needs={"m"}), Component("m", 1)], "optimizer step")
    with pytest.raises(OrderError, match="both are updated once per optimizer step and W at time t needs m"):
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


def test_units_are_explicit_and_convert() -> None:
    s = NestedSystem([Component("M", period=16), Component("W", period=4096), Component("a", INF)], unit="token")
    assert s["M"].frequency == Fraction(1, 16) and s["M"].period == 16 and s["a"].period == 0
    seq = s.in_unit("sequence of 4096 tokens", 4096)
    assert seq["M"].frequency == 256 and seq["W"].frequency == 1 and seq["a"].frequency == INF
    assert "updates per sequence of 4096 tokens" in seq.text() and "1/16 (every 16)" in s.markdown()
    assert [line.split()[:2] for line in seq.text().splitlines()[2:]] == [["1", "W"], ["2", "M"], ["3", "a"]]
    assert seq.levels == s.levels and s.arrows() == [("M", "a"), ("W", "M")]


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: Component("x"), "x: frequency"),
        (lambda: Component("x", -1), "frequency"),
        (lambda: Component("x", "often"), "frequency"),
        (lambda: Component("x", 1, 2), "x: frequency and period"),
        (lambda: NestedSystem([Component("x", 1)] * 2, "token"), "components"),
        (lambda: NestedSystem([Component("x", 1, needs={"y"})], "token"), "x.needs"),
        (lambda: NestedSystem([Component("x", 1)], ""), "unit"),
        (lambda: NestedSystem([Component("x", 1)], "token")["y"], "name"),
        (lambda: levels_of(torch.zeros(1)), "model"),
        (lambda: levels_of(nn.Linear(1, 1), 3), "optimizer"),
        (lambda: levels_of(nn.Linear(1, 1), tokens_per_step=0), "tokens_per_step"),
    ],
)
def test_bad_input_is_refused_by_name(make, argument: str) -> None:
    with refuses(argument):
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
            layer(rand(5, 3, seed=i).float()).square().sum().backward()
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
    assert {r["period"]: r["reason"] for r in Trace(m).rows()} == {0.0: "no state to write", INF: "never written"}


def test_groups_frozen_parts_rnns_and_batch_norm() -> None:
    m = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LSTM(4, 4), nn.Linear(4, 4))
    opt = torch.optim.SGD([{"params": m[0].parameters(), "momentum": 0.9}, {"params": m[2].parameters()}], lr=0.1)
    s = levels_of(m, opt, tokens_per_step=5)
    assert s["3"].frequency == 0 and s["3"].kind == "frozen" and s["2.hidden state"].frequency == 1
    assert s["1.running statistics"].frequency == Fraction(1, 5) and s.faster("momentum_buffer", "0")
    assert s.same("2", "momentum_buffer") and not s["momentum_buffer"].needs
    assert levels_of(m.eval(), opt, tokens_per_step=5)["1.running statistics"].frequency == 0
    two = torch.optim.SGD([{"params": [m[0].weight], "momentum": 0.9}, {"params": [m[0].bias]}], lr=0.1)
    names = {c.name for c in levels_of(m, two, tokens_per_step=5).components}
    assert {"0 [1]", "0 [2]", "momentum_buffer"} <= names
    assert levels_of(m[:2], torch.optim.SGD(m[0].parameters(), lr=0.1)).unit == "optimizer step"
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

    with refuses("optimizer"):
        levels_of(m, Odd(m.parameters()))


# ---------------------------------------------------------------------------- boxes
# ---------------------------------------------------------------------------- knowledge transfer
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
    assert len(trace.updates["state"]) == notes == length // period and trace.length == notes * period
    assert trace.updates["state"] == list(range(period, length + 1, period))
    assert trace.levels == ["w", "state"] and trace.periods == {"w": math.inf, "state": period}
    row = trace.rows()[1]
    assert row["writes"] == row["expected"] == notes
    if notes:
        assert [(e.state, e.change) for e in trace.events] == [(3.0 * (i + 1), 3.0) for i in range(notes)]
        assert f"{period} tokens" in trace.as_table()


def test_a_step_that_changes_nothing_is_a_write_too() -> None:
    m = Ticker(8)
    opt = torch.optim.SGD(m.parameters(), lr=0.5, momentum=0.9)
    s = levels_of(m, opt, tokens_per_step=8)
    assert s["momentum_buffer"].needs == {"state"} and s["w"].needs == {"momentum_buffer"}
    with Trace(m, opt, tokens_per_step=8) as trace:
        for _ in range(2):
            m.w.grad = torch.zeros(1)
            opt.step()
    assert trace.updates["momentum_buffer"] == [8, 16] == trace.updates["w"]


def test_trace_follows_the_optimizer_and_leaves_nothing_behind() -> None:
    m = Ticker(4)
    opt = torch.optim.SGD(m.parameters(), lr=0.5, momentum=0.9)
    m(8)
    assert m.calls == 0  # off: not even called
    with Trace(m, opt, tokens_per_step=8) as trace:
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
    seen = {n: [(e.state, e.change) for e in trace.events if e.level == n] for n in trace.levels}
    assert seen["state"] == [(3.0, 3.0), (6.0, 3.0)] * 3
    assert [x for _, x in seen["w"]] == pytest.approx([0.5, 0.95, 1.355])
    assert [x for _, x in seen["momentum_buffer"]] == pytest.approx([1.0, 0.9, 0.81])
    assert [x for x, _ in seen["w"]] == pytest.approx([0.5, 1.45, 2.805])


def test_what_a_model_did_not_declare_becomes_a_lane_by_its_measured_period() -> None:
    m = Ticker(2)
    with Trace(m) as trace:
        for t in range(1, 13):
            m.wrote("odd", t, torch.ones(2) * t)
            if t % 4 == 0:
                m.wrote("rare", t, {"a": [torch.ones(2)]}, torch.ones(2), "four tokens")
    assert trace.levels == ["w", "rare", "state", "odd"]
    assert trace.periods == {"w": math.inf, "rare": 4.0, "state": 2.0, "odd": 1.0}
    assert trace.events[-2].state == pytest.approx(12 * 2**0.5) and trace.events[-2].change is None
