"""The worked examples and running boxes of chapter 04, the transfer of knowledge of chapter E."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from kit import F64, close, rand, refuses

from nlbook.attention import AdaTransformerBlock
from nlbook.book.chapters.levels import boxes, examples
from nlbook.book.chapters.starts import transfer
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


@pytest.mark.eq(19)
def test_proximal_step_descends_and_the_printed_sign_ascends() -> None:
    theta, x, y, lr = rand(4, 3), rand(3, seed=1), rand(4, seed=2), 0.2

    def loss(w: torch.Tensor) -> torch.Tensor:
        return 0.5 * (w @ x - y).square().sum()

    u = theta @ x - y
    new = boxes.proximal_step(theta, x, u, lr)
    torch.testing.assert_close(new, boxes.explicit_step(theta, loss, lr=lr), atol=1e-14, rtol=0)
    for sign, point in ((1, new), (-1, theta + lr * torch.outer(u, x))):  # stationary points of both problems
        phi = point.clone().requires_grad_()
        ((phi @ x) @ (sign * u) + (phi - theta).square().sum() / (2 * lr)).backward()
        assert phi.grad is not None and phi.grad.abs().max() < 1e-13
    assert loss(new) < loss(theta) < loss(theta + lr * torch.outer(u, x))


@pytest.mark.eq(20, 98, 99)
def test_implicit_steps() -> None:
    theta, lr = rand(5), 0.2
    a = rand(5, 5, seed=1)
    a = a @ a.mT
    new = boxes.implicit_step(theta, lambda t: 0.5 * t @ a @ t, lr=lr)
    torch.testing.assert_close(new, torch.linalg.solve(torch.eye(5, dtype=F64) + lr * a, theta), atol=1e-10, rtol=0)
    torch.testing.assert_close(new, theta - lr * a @ new, atol=1e-10, rtol=0)  # the gradient at the new point
    gaps = [
        (boxes.implicit_step(theta, lambda t: 0.5 * t @ a @ t, lr=e) - (theta - e * a @ theta)).norm()
        for e in (1e-3, 1e-4)
    ]
    assert abs(gaps[0] / gaps[1] - 100) < 5  # second order: not "equivalent" to explicit descent
    memory, k, v = rand(4, 3, seed=2), rand(3, seed=3), rand(4, seed=4)

    def l2(m: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return 0.5 * (m @ k - v).square().sum()

    def dot(m: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return -(m @ k) @ v

    new = boxes.implicit_step(memory, l2, k, v, lr=3.0)
    torch.testing.assert_close(new, boxes.implicit_delta(memory, k, v, 3.0), atol=1e-9, rtol=0)
    # a linear loss: explicit (eq. 20) and implicit (eq. 99) agree, and are the Hebbian write
    hebb = memory + lr * torch.outer(v, k)
    torch.testing.assert_close(boxes.explicit_step(memory, dot, k, v, lr=lr), hebb, atol=1e-14, rtol=0)
    torch.testing.assert_close(boxes.implicit_step(memory, dot, k, v, lr=lr), hebb, atol=1e-10, rtol=0)
    with refuses("implicit_step"):
        boxes.implicit_step(theta, lambda t: (10 * t).sin().sum(), lr=5.0, most=1)


@pytest.mark.eq(10, 11, 19, 20)
def test_momentum_as_two_boxes() -> None:
    """Eq. 10-13 as a nested system: the momentum is a box whose context is the gradient that the weights' box
    generates."""
    x, y, lr = rand(3), rand(4, seed=1), 0.05

    def gradient(w: torch.Tensor) -> torch.Tensor:
        return torch.outer(w @ x - y, x)

    w0 = rand(4, 3, seed=2)
    m0 = torch.zeros(4, 3, dtype=F64)
    m = boxes.Box("m", m0, lambda m, o, g: -(m * g).sum(), lambda t, o: (gradient(o["W"]),), lr=lr)
    w = boxes.Box("W", w0, lambda w, o: (w * o["m"]).sum(), lambda t, o: (), lr=1.0, needs=frozenset({"m"}))
    assert boxes.system_of([w, m]).levels == [["W"], ["m"]]
    boxes.run([w, m], 5)
    ww, mm = w0, m0
    for _ in range(5):
        mm = mm + lr * gradient(ww)
        ww = ww - mm
    torch.testing.assert_close(w.theta, ww, atol=1e-13, rtol=0)
    torch.testing.assert_close(m.theta, mm, atol=1e-13, rtol=0)


def test_boxes_of_two_periods_and_an_implicit_one() -> None:
    target = rand(3)

    def near(t: torch.Tensor, o: dict) -> torch.Tensor:
        return 0.5 * (t - target).square().sum()

    slow = boxes.Box("slow", torch.zeros(3, dtype=F64), near, lambda t, o: (), lr=0.5, period=4)
    fast = boxes.Box("fast", torch.zeros(3, dtype=F64), near, lambda t, o: (), lr=0.5, implicit=True)
    boxes.run([slow, fast], 6)
    assert (slow.updates, fast.updates) == (1, 6)
    torch.testing.assert_close(slow.theta, target * 0.5)
    torch.testing.assert_close(fast.theta, target * (1 - 1.5**-6))


@pytest.mark.eq(24, 25, 26)
def test_direct_connection_has_no_gradient_across() -> None:
    w, m, x = rand(3, 5).requires_grad_(), rand(4, 3, seed=1).requires_grad_(), rand(5, seed=2)
    torch.testing.assert_close(transfer.direct(w, m, x), m @ (w @ x))
    gw, gm = torch.autograd.grad(transfer.direct(w, m, x).sum(), (w, m), allow_unused=True)
    assert gw.abs().max() > 0 and gm is None
    assert (transfer.direct(w, m + 1, x) - transfer.direct(w, m, x)).abs().max() > 0.1  # yet the knowledge passes


@pytest.mark.eq(27)
def test_direct_nonparametric_reads_a_set() -> None:
    w, k, v, x = rand(3, 5), rand(7, 3, seed=1).requires_grad_(), rand(7, 2, seed=2), rand(5, seed=3)
    y = transfer.direct_nonparametric(w.requires_grad_(), k, v, x)
    p = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(y, transfer.direct_nonparametric(w, k[p], v[p], x))
    assert torch.autograd.grad(y.sum(), k, allow_unused=True) == (None,)


def test_backpropagation_is_one_flow_with_two_rates() -> None:
    a, b, x, y = rand(4, 5), rand(3, 4, seed=1), rand(5, seed=2), rand(3, seed=3)
    ga, gb = torch.autograd.functional.jacobian(lambda a, b: 0.5 * (b @ torch.tanh(a @ x) - y).square().sum(), (a, b))
    a1, b1 = transfer.backpropagate(a, b, x, y, 0.1, 0.3)
    torch.testing.assert_close(a1, a - 0.1 * ga)
    torch.testing.assert_close(b1, b - 0.3 * gb)
    a2, b2 = transfer.backpropagate(a, b, x, y, 0.1, 0.3, move0=False)
    assert torch.equal(a2, a) and torch.equal(b2, b1)
    # printed: Theta1 after its own update. That is not the gradient.
    wrong = torch.outer((1 - torch.tanh(a @ x) ** 2) * (b1.mT @ (b @ torch.tanh(a @ x) - y)), x)
    assert (wrong - ga).abs().max() > 1e-3


def test_generation_of_weights_and_of_context() -> None:
    h, c, x = rand(12, 2).requires_grad_(), rand(2, seed=1), rand(3, seed=2)
    (transfer.generate_weights(h, c, (4, 3)) @ x).sum().backward()
    torch.testing.assert_close(h.grad, torch.outer(torch.outer(torch.ones(4, dtype=F64), x).reshape(-1), c))
    w = rand(2, 3).requires_grad_()
    g = transfer.generate_context(w, lambda w, d: 0.5 * (w @ d).square().sum(), x)
    torch.testing.assert_close(g, torch.outer(w @ x, x).detach())
    assert not g.requires_grad and w.grad is None


def test_trace_of_linear_attention_replays_the_recurrence() -> None:
    m = examples.LinearAttention(4).double()
    x = rand(1, 5, 4)
    last = {}
    with Trace(m, probes={"read": lambda level, s: last.setdefault(len(last), s) is None}) as trace:
        y = m(x)
    assert trace.updates["M"] == [1, 2, 3, 4, 5]
    torch.testing.assert_close(y[0, 4], last[4][0] @ (m.W_q @ x[0, 4]))
