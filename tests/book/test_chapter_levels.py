"""Every claim of chapter 04 that stands under a figure or in a sentence with a number."""

from __future__ import annotations

import pytest
import torch

from nlbook import levels
from nlbook.book import viz
from nlbook.book.chapters.levels import boxes, diagrams, examples
from nlbook.book.chapters.levels import figures as ch05
from nlbook.errors import NLBookError
from nlbook.levels import Component, NestedSystem, levels_of

FIVE = {
    "linear layer, momentum": "{W}  <  {m}",
    "linear layer, AdamW": "{W}  <  {m, v}",
    "linear attention, momentum": "{W}  <  {m}  <  {M}",
    "Transformer, SGD": "{W}  <  {attention}",
    "AdaTransformer, AdamW": "{W, W_init}  <  {m, v}  <  {M}  <  {attention}",
}


def test_a_model_of_256_parameters_changes_832_numbers():
    model = examples.AdaTransformerLayer(8)
    system = levels_of(model, torch.optim.AdamW(model.parameters()), tokens_per_step=64, depth=0)
    held = sum(c.size for c in system.components)
    assert sum(p.numel() for p in model.parameters()) == 256 and held == 832
    assert abs((held - 256) / held - 2 / 3) < 0.03  # "two thirds"
    assert system.in_unit("sequence of 64 tokens", 64).levels == system.levels  # the unit does not matter


@pytest.mark.parametrize("length", [2, 64, 4096])
def test_the_five_diagrams(length):
    """Read off the live models, whatever the length of a sequence; of length 1 the memory still is the faster one."""
    assert {n: s.order() for n, s in diagrams.five_systems(length).items()} == FIVE
    assert diagrams.five_systems(1)["AdaTransformer, AdamW"].order() == FIVE["AdaTransformer, AdamW"]


def test_of_all_diagrams_one_is_accepted_and_frequency_alone_fails_four_times():
    five = diagrams.five_systems()
    every = {n: diagrams.judge_all(s) for n, s in five.items()}
    assert [e.total for e in every.values()] == [3, 13, 13, 3, 4683]
    for name, e in every.items():
        assert [sorted(map(sorted, e.accepted))] == [sorted([sorted(map(sorted, five[name].levels))])]
        assert sum(e.reasons.values()) == e.total - 1
    refused = [n for n, s in five.items() if s.violations(diagrams.by_frequency(s))]
    assert refused == [n for n in FIVE if n != "Transformer, SGD"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_systems_and_the_run_that_ticks(seed):
    found = diagrams.sweep(20, seed=seed)
    assert found.accepted == [1] * 20 and 0.3 < found.by_frequency < 0.8
    trace = diagrams.ticking(seed=seed)
    assert diagrams.measured_periods(trace) == trace.periods
    lanes = diagrams.lanes(trace)
    assert {n: len(u) for n, u in lanes.updates.items()} == {
        "C2": 96,
        "C8": 24,
        "C32": 6,
        "exp_avg, exp_avg_sq": 3,
        "6 initial states": 3,
    }
    assert len(lanes.updates["C32"]) == 192 // 32 and "| C8 | 8 | 24 | 192 |" in lanes.as_table()


def test_fast_levels_fall_back_at_the_end_of_a_sequence():
    lanes = diagrams.lanes(diagrams.ticking())
    size = lanes.signal[lanes.levels.index("C8")]
    first = float(size[0])
    assert all(abs(float(size[64 * i + 8]) - first) < 0.5 * abs(float(size[64 * i]) - first) for i in (1, 2))


@pytest.mark.parametrize("periods", [(1,), (3, 64), (1, 5, 64)])
def test_ticking_at_its_extremes(periods):
    trace = diagrams.ticking(periods, length=64, sequences=2)
    assert {f"C{c}": len(trace.updates[f"C{c}"]) for c in periods} == {f"C{c}": 2 * (64 // c) for c in periods}


def test_a_measured_period_is_not_a_guess():
    trace = diagrams.ticking((3,), sequences=2)  # 64 is no multiple of 3: gaps of 3 and of 4
    with pytest.raises(NLBookError, match=r"C3: got gaps \[3.0, 4.0\]|C3: got gaps \[3, 4\]"):
        diagrams.measured_periods(trace)


def test_the_control_is_refused_with_the_arrow():
    ada = diagrams.five_systems()["AdaTransformer, AdamW"]
    with pytest.raises(levels.OrderError) as error:
        ada.check_order([["m", "v"], ["W", "W_init"], ["M", "attention"]])
    assert len(error.value.violations) == 5
    assert {(v.slow, v.fast) for v in error.value.violations} == {
        ("M", "attention"),
        ("W", "m"),
        ("W", "v"),
        ("W_init", "m"),
        ("W_init", "v"),
    }
    ada.check_order([["W", "W_init"], ["m", "v"], ["M"], ["attention"]])


def test_a_transformer_keeps_the_two_ends():
    block = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    after = levels_of(block, depth=0)
    assert len(after.levels) == 2 and {float(c.frequency) for c in after.components} == {0.0, float("inf")}
    score = viz.find("score").facts("C=none;T=128")
    assert score["writes_per_token"] == 0


def test_same_is_not_an_equality():
    s = NestedSystem([Component("W", 1, needs={"m"}), Component("m", 1), Component("b", 1)], unit="step")
    assert s.same("b", "W") and s.same("b", "m") and not s.same("W", "m") and s.levels == [["W", "b"], ["m"]]


@pytest.mark.eq(19)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_printed_sign_climbs(seed):
    g = torch.Generator().manual_seed(seed)
    W, x, y = (torch.randn(*n, generator=g, dtype=torch.float64) for n in ((3, 4), (4,), (3,)))
    loss = {sign: float((boxes.proximal_step(W, x, sign * (W @ x - y), lr=0.1) @ x - y).norm()) for sign in (-1, 1)}
    assert loss[1] < float((W @ x - y).norm()) < loss[-1]


@pytest.mark.eq(20, 99)
@pytest.mark.parametrize("lr", [2.5, 3.0, 10.0])
def test_beyond_a_rate_of_2_the_explicit_step_diverges_and_the_implicit_one_settles(lr):
    k = torch.tensor([0.6, 0.8], dtype=torch.float64)
    target = torch.tensor([1.0, -1.0], dtype=torch.float64)
    explicit = implicit = torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(4):
        explicit = explicit - lr * torch.outer(explicit @ k - target, k)
        implicit = boxes.implicit_delta(implicit, k, target, lr)
    start = float(target.norm())
    assert float((explicit @ k - target).norm()) > start > 10 * float((implicit @ k - target).norm())


def test_diagrams_count_like_fubini():
    assert [sum(1 for _ in diagrams.all_diagrams("abcdef"[:n])) for n in range(1, 6)] == [1, 3, 13, 75, 541]
    with pytest.raises(NLBookError, match="at most 6"):
        diagrams.judge_all(NestedSystem([Component(str(i), 1) for i in range(7)], "step"))


def test_figures_say_what_they_show():
    five = diagrams.five_systems()
    assert len(ch05.diagrams(five).axes) == 5 and all(n in ch05.diagrams_alt(five) for n in five)
    ada = five["AdaTransformer, AdamW"]
    alt = ch05.right_and_wrong_alt(ada, [["m", "v"], ["W", "W_init"], ["M", "attention"]])
    assert "breaks 5 arrows" in alt and "attention > M is violated" in alt
    for claimed in ([["m", "v", "W", "W_init", "M", "attention"]], [[n] for g in reversed(ada.levels) for n in g]):
        assert ch05.right_and_wrong(ada, claimed).axes
