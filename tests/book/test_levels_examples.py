"""The worked examples of chapter 04."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from kit import close, rand, refuses

from nlbook.attention import AdaTransformerBlock
from nlbook.book.chapters.levels import examples
from nlbook.levels import Component, NestedSystem, Trace, levels_of
from nlbook.levels.order import INF


def part(name: str, frequency: int | float | Fraction = 1, *needs: str) -> Component:
    return Component(name, frequency, needs=frozenset(needs))


HOPE = [part("slow", 1, "CMS3"), *(part(f"CMS{i}", 4096 // p) for i, p in enumerate((256, 1024, 4096), 1))]
HOPE += [part("M_mem", 64), *(part(f"M_{n}", 256) for n in ("k", "v", "eta", "alpha"))]
ATTENTION = part("attention", INF)


@pytest.mark.parametrize(
    ("parts", "order"),
    [
        ([part("W")], "{W}"),
        ([part("W", 1, "m"), part("m")], "{W}  <  {m}"),
        ([part("W", 1, "m", "v"), part("m"), part("v")], "{W}  <  {m, v}"),
        ([part("W_kvq", 1, "m"), part("m"), part("M_t", 512)], "{W_kvq}  <  {m}  <  {M_t}"),
        ([part("W_kvq"), part("W_MLP"), ATTENTION], "{W_MLP, W_kvq}  <  {attention}"),
        (
            [part("W_kvq"), part("W_init"), part("W_LinAttn", 512), ATTENTION],
            "{W_init, W_kvq}  <  {W_LinAttn}  <  {attention}",
        ),
        ([part("W", 1, "m", "O"), part("m"), part("O", 5, "m")], "{W}  <  {m}  <  {O}"),
        ([part("W", 1, "M1", "V"), part("M1"), part("V"), part("M2", Fraction(1, 8))], "{M2}  <  {W}  <  {M1, V}"),
        (HOPE, "{slow}  <  {CMS3}  <  {CMS2}  <  {CMS1}  <  {M_mem}  <  {M_alpha, M_eta, M_k, M_v}"),
    ],
)
def test_worked_examples(parts: list[Component], order: str) -> None:
    """SGD, momentum and Adam on a layer, linear attention, a Transformer, AdaTransformer, Muon, M3, Hope."""
    assert NestedSystem(parts, "step").order() == order


def test_the_models_of_the_chapter() -> None:
    a = examples.LinearAttention(4)
    s = levels_of(a, torch.optim.SGD(a.parameters(), lr=0.1, momentum=0.9), tokens_per_step=8)
    assert s.levels == [["W_k", "W_v", "W_q"], ["momentum_buffer"], ["M"]]
    a = examples.AdaTransformerLayer(4)
    s = levels_of(a, torch.optim.SGD(a.parameters(), lr=0.1), tokens_per_step=8, depth=0)
    assert s.order() == "{W_init, weights}  <  {W_LinAttn}  <  {attention}" and s["W_init"].kind == "initial state"
    assert s["weights"].size == 48 and s["W_init"].size == 16
    with refuses("tokens_per_step"):
        levels_of(a, torch.optim.SGD(a.parameters(), lr=0.1))
    # a state that is written once per step is read by the outer gradient of that step: it is faster than all slow parts
    s = levels_of(a, torch.optim.AdamW(a.parameters()), tokens_per_step=1, depth=0)
    assert s.order() == "{W_init, weights}  <  {exp_avg, exp_avg_sq}  <  {W_LinAttn}  <  {attention}"


@pytest.mark.eq(21, 69)
def test_the_ada_transformer_of_the_chapter_is_the_librarys() -> None:
    m = examples.AdaTransformerLayer(4, seed=1).double()
    x = rand(2, 6, 4)
    y = m(x)
    block = AdaTransformerBlock(4).double()
    with torch.no_grad():
        for mine, own in ((block.k, m.W_k), (block.v, m.W_v), (block.q, m.W_q), (block.start, m.W_init)):
            mine.weight.copy_(own)
    close(y, block.by_token(x), 1e-13)


def test_trace_of_linear_attention_replays_the_recurrence() -> None:
    m = examples.LinearAttention(4).double()
    x = rand(1, 5, 4)
    states = []
    m.register_write_hook(lambda module, level, time, state, change, reason: states.append(state))
    with Trace(m) as trace:
        y = m(x)
    assert trace.updates["M"] == [1, 2, 3, 4, 5]
    torch.testing.assert_close(y[0, 4], states[4][0] @ (m.W_q @ x[0, 4]))
