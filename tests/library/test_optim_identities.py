"""Optimizers as memories: each equation of chapter 3 and of appendix B, printed and corrected, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from kit import F64, apart, argmin, close, draws, grad, refuses
from nlkernels import newton_schulz
from torch import nn

from nlbook.errors import NLBookError
from nlbook.memory.rules import dgd_rate
from nlbook.optim import (
    DGD,
    M3,
    AdamMemory,
    DeepMomentum,
    DeltaMomentum,
    Momentum,
    Muon,
    momentum_horizon,
    momentum_weights,
)
from nlbook.optim import adam_memory as am
from nlbook.optim import muon as mu
from nlbook.optim.deep import memory_gradient, memory_loss, read_memory
from nlbook.optim.delta import VARIANTS, delta_momentum_loss, delta_write
from nlbook.optim.dgd import dgd_step
from nlbook.optim.m3 import m3_reference
from nlbook.optim.momentum import (
    key_value_momentum_loss,
    mix,
    momentum_objective,
    momentum_write,
    odd_powers,
    preconditioned_step,
    preconditioner_write,
)

eq = pytest.mark.eq


@pytest.fixture
def rand():
    return draws()


def follow(optimizer_of, W0, gradients):
    """Feed a fixed sequence of gradients to an optimizer and return the weights after each step."""
    W = W0.clone().requires_grad_()
    optimizer, path = optimizer_of([W]), []
    for g in gradients:
        W.grad = g.clone()
        optimizer.step()
        path.append(W.detach().clone())
    return torch.stack(path)


# --- momentum ---


@eq(45)
def test_momentum_remembers_7_gradients_to_half_and_44_to_99_percent():
    assert (momentum_horizon(0.9, 0.5), momentum_horizon(0.9, 0.99)) == (7, 44)
    assert momentum_weights(0.9, 6).sum() < 0.5 and momentum_weights(0.9, 43).sum() < 0.99  # as printed: not enough
    assert momentum_horizon(0.9, 0.99, period=10) == 440
    close(momentum_weights(0.8, 3), torch.tensor([0.2, 0.16, 0.128], dtype=F64))
    grid = itertools.product((0.0, 0.3, 0.5, 0.9, 0.99, 0.999), (0.01, 0.5, 0.75, 0.9, 0.99))
    for beta, share in [*grid, (0.46, 0.54), (0.33, 0.67)]:  # the last two: a quotient of logarithms off by a hair
        n = momentum_horizon(beta, share)
        assert 1 - beta**n >= share and (n == 1 or 1 - beta ** (n - 1) < share)
    for bad in ((1.0, 0.5), (0.9, 1.0), (0.9, 0.0), (-0.1, 0.5)):
        with pytest.raises(NLBookError):
            momentum_horizon(*bad)


@eq(10, 11, 12, 13)
def test_momentum_solves_its_inner_problem(rand):
    m, x, u = rand(4, 3), rand(3), rand(4)
    g = torch.outer(u, x)
    close(argmin(lambda z: momentum_objective(z, m, g, 0.1), m), momentum_write(m, g, 0.1))
    close(argmin(lambda z: -(z @ x) @ u + (z - m).square().sum() / 0.2, m), m + 0.1 * g)  # x -> local surprise
    close(argmin(lambda z: momentum_objective(z, m, g, 0.1, keep=0.9), m), 0.9 * m + 0.1 * g)


@eq(10, 11)
@pytest.mark.parametrize("curvature", [0.3, 1.0, 3.0])
def test_momentum_without_decay_never_converges(curvature):
    lr = 0.1
    step = torch.tensor([[1 - lr * curvature, -1.0], [lr * curvature, 1.0]], dtype=F64)
    close(torch.linalg.eigvals(step).abs(), torch.ones(2, dtype=F64), 1e-9)  # both on the unit circle
    last = {}
    for keep in (1.0, 0.9):
        w, m, tail = 1.0, 0.0, []
        for t in range(2000):
            m = keep * m + lr * curvature * w
            w -= m
            tail.append(abs(w)) if t > 1500 else None
        last[keep] = max(tail)
    assert last[1.0] > 0.9 and last[0.9] < 1e-6


@eq(32, 33, 100)
def test_momentum_is_torch_sgd_and_the_moving_average_is_a_tenth_of_it(rand):
    W0, gs = rand(4, 3), rand(6, 4, 3)
    close(follow(lambda p: Momentum(p, 0.1, keep=0.0), W0, gs), W0 - 0.1 * gs.cumsum(0))
    sgd = follow(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), W0, gs)
    close(follow(lambda p: Momentum(p, 0.1), W0, gs), sgd)
    close(follow(lambda p: Momentum(p, 0.1, lr_at="write"), W0, gs), sgd)  # a constant rate may stand on either side
    average = momentum_weights(0.9, 6).flip(0)
    close(sgd[-2] - sgd[-1], 0.1 * (average[:, None, None] * gs).sum(0) / (1 - 0.9))


@eq(33)
def test_a_schedule_tells_the_two_places_of_the_rate_apart(rand):
    W, gs = {}, rand(3, 2, 2)
    for place in ("read", "write"):
        p = torch.zeros(2, 2, dtype=F64, requires_grad=True)
        optimizer = Momentum([p], 1.0, keep=0.5, lr_at=place)
        for lr, g in zip((1.0, 1.0, 0.0), gs, strict=True):
            optimizer.param_groups[0]["lr"] = lr
            p.grad = g.clone()
            before = p.detach().clone()
            optimizer.step()
        W[place] = p.detach() - before
    close(W["read"], torch.zeros(2, 2, dtype=F64))
    close(W["write"], -0.25 * gs[0] - 0.5 * gs[1])  # eq. 33 to the letter keeps rolling at rate 0


@eq(34, 35, 36, 37)
def test_one_inner_step_on_the_key_value_loss_is_momentum(rand):
    m, x, delta, lr, keep = rand(4, 3), rand(3), rand(4), 0.1, 0.9
    G = torch.outer(delta, x)
    close(m - lr * grad(lambda z: key_value_momentum_loss(z, x, -delta), m), m - lr * G)
    ridge = (1 - keep) / lr  # the weight that "plus an l2 regularisation" needs
    close(m - lr * grad(lambda z: key_value_momentum_loss(z, x, -delta, ridge=ridge), m), keep * m - lr * G)
    close(
        m - lr * grad(lambda z: key_value_momentum_loss(z, x, -delta, "l2"), m),
        m @ (torch.eye(3, dtype=F64) - lr * torch.outer(x, x)) - lr * G,
    )


@eq(38, 39, 40, 41)
def test_a_preconditioner_is_a_memory(rand):
    n = 5
    A = rand(n, n)
    P, b, w = A @ A.mT + torch.eye(n, dtype=F64), rand(n), rand(n)
    C = torch.linalg.cholesky(P)
    f = lambda w: w @ P @ w / 2 + b @ w  # noqa: E731
    inner = grad(lambda v: f(torch.linalg.solve(C.mT, v)), C.mT @ w)
    close(preconditioned_step(w, grad(f, w), P, 0.1), torch.linalg.solve(C.mT, C.mT @ w - 0.1 * inner), 1e-11)
    M, target, g = rand(n, n), rand(n), rand(n)
    loss = lambda M: (M @ target - g).square().sum() / 2  # noqa: E731
    close(preconditioner_write(M, target, g, 0.1), M - 0.1 * grad(loss, M))
    for _ in range(200):  # a memory: written often enough, it maps the key to the value
        M = preconditioner_write(M, target, g, 0.5 / float(target @ target))
    close(M @ target, g, 1e-9)


@eq(46, 47)
def test_a_value_other_than_the_identity_preconditions(rand):
    G, m, P = rand(4, 3), rand(4, 3), rand(4, 4)
    close(((m @ G.mT) * P).sum(), (m * (P @ G)).sum(), 1e-11)
    close(grad(lambda m: ((m @ G.mT) * P).sum(), m), P @ G)
    gs = rand(5, 4, 3)
    close(
        follow(lambda p: Momentum(p, 0.1, value=lambda G: P @ G), m, gs),
        follow(lambda p: Momentum(p, 0.1), m, torch.einsum("ab,tbc->tac", P, gs)),
    )


@eq(51)
def test_a_feature_map_lifts_the_key(rand):
    G, m = rand(4, 3), rand(4, 3)
    P = torch.cat([torch.eye(4, dtype=F64), 0.5 * torch.eye(4, dtype=F64)], 1)  # (p, p')
    close(grad(lambda m: ((m @ odd_powers(G).mT) * P).sum(), m), P @ odd_powers(G))
    close(mix((1.0, 0.5))(odd_powers(G)), P @ odd_powers(G))
    gs = rand(5, 4, 3)
    close(
        follow(lambda p: Momentum(p, 0.1, feature=odd_powers, value=mix((1.0, 0.5))), m, gs),
        follow(lambda p: Momentum(p, 0.1), m, gs + 0.5 * gs**3),
    )
    with pytest.raises(NLBookError, match=r"value\(feature\(gradient\)\): got shape \(8, 3\), expected 12 elements"):
        follow(lambda p: Momentum(p, 0.1, feature=odd_powers), m, gs)


@eq(42, 52)
def test_newton_schulz_as_read_out_is_muon_and_erases_a_rate_inside(rand):
    W0, gs = rand(4, 6), rand(5, 4, 6)
    ns = lambda m: newton_schulz(m, 30, "cubic", eps=0.0)  # noqa: E731
    plain = {"nesterov": False, "polynomial": "cubic", "ns_steps": 30, "scale": "none", "keep": 0.9}
    muon = follow(lambda p: Muon(p, 0.2, **plain), W0, gs)
    close(follow(lambda p: Momentum(p, 0.2, output=ns), W0, gs), muon)
    close(muon - W0, 2 * (follow(lambda p: Muon(p, 0.1, **plain), W0, gs) - W0))
    printed = [follow(lambda p, lr=lr: Momentum(p, lr, output=ns, lr_at="write"), W0, gs) for lr in (1e-3, 10.0)]
    close(printed[0], printed[1], 1e-9)  # eq. 42 as printed: the learning rate has no effect
    close(printed[0] - W0, 5 * (muon - W0), 1e-9)


# --- delta and deep momentum ---


@eq(48, 49)
def test_delta_momentum_is_one_step_on_the_squared_loss(rand):
    m, G, P, lr, keep = rand(4, 3), rand(4, 3), rand(4, 4), 0.05, 0.9
    I = torch.eye(3, dtype=F64)
    step = keep * m - lr * grad(lambda m: delta_momentum_loss(m, G, P), m)
    close(step, m @ (keep * I - lr * G.mT @ G) - lr * P @ G)
    close(delta_write(m, G, lr, keep, variant="corrected", value=P), step)
    apart(delta_write(m, G, lr, keep, variant="printed", value=P), step)
    uphill = keep * m - lr * grad(lambda m: (m @ G.mT - P).square().sum() / 2, m)  # the loss in the text
    close(uphill - m @ (keep * I - lr * G.mT @ G), lr * P @ G)
    row, g = rand(5), rand(5)
    close(delta_write(row, g, lr, keep, variant="corrected"), keep * row - lr * (row @ g) * g - lr * g)
    for variant, brake in (("clipped", max(0.0, keep - lr * g @ g)), ("bounded", keep * torch.exp(-lr * g @ g))):
        close(delta_write(row, g, lr, keep, variant=variant), brake * row - lr * g)
    close(delta_write(row, g, lr, keep, variant="implicit"), (keep * row - lr * g) / (1 + lr * g @ g))


@eq(48, 49)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", [(5,), (4, 3), (3, 2, 2)])
def test_the_optimizer_equals_the_definition(variant, shape, rand):
    W0, gs = rand(*shape), rand(6, *shape)
    W, m, expected = W0, torch.zeros(shape, dtype=F64), []
    for g in gs:
        m = delta_write(m, g, 0.05, 0.8, 0.02, variant)
        W = W + m
        expected.append(W)
    close(follow(lambda p: DeltaMomentum(p, 0.05, 0.8, 0.02, variant), W0, gs), torch.stack(expected), 1e-9)
    close(
        follow(lambda p: DeltaMomentum(p, 0.05, 0.8, 0.0, "bounded"), W0, gs),
        follow(lambda p: Momentum(p, 0.05, 0.8), W0, gs),
    )


@eq(49)
def test_only_the_printed_recursion_diverges_on_large_gradients(rand):
    G = 3 * rand(4, 3)
    sizes = {}
    for variant in VARIANTS:
        m = torch.zeros(4, 3, dtype=F64)
        for _ in range(60):
            m = delta_write(m, G, 0.01, 0.9, variant=variant)
        sizes[variant] = float(m.norm())
    assert sizes.pop("printed") > 1e20
    assert max(sizes.values()) < 10 * 0.01 * float(G.norm())
    m = torch.zeros(4, 3, dtype=F64)  # corrected, it is stable only while eta |G|^2 < 1 + keep
    for _ in range(60):
        m = delta_write(m, 10 * G, 0.01, 0.9, variant="corrected")
    assert float(m.norm()) > 1e20


@eq(50)
@pytest.mark.parametrize("objective", ["dot", "l2"])
@pytest.mark.parametrize("hidden", [0, 5])
def test_the_memory_gradient_by_hand_is_autograd(objective, hidden, rand):
    weights = [rand(hidden, 4), rand(3, hidden)] if hidden else [rand(3, 4)]
    keys, values = rand(4, 6), rand(3, 6)
    live = [w.clone().requires_grad_() for w in weights]
    expected = torch.autograd.grad(memory_loss(live, keys, values, objective), live)
    for a, b in zip(memory_gradient(weights, keys, values, objective), expected, strict=True):
        close(a, b)
    assert read_memory(weights, keys).shape == (3, 6)


@eq(50)
@pytest.mark.parametrize("hidden", [0, 5])
def test_every_weight_of_the_memory_decays_and_steps(hidden, rand):
    """Two steps of DeepMomentum against autograd of the inner loss, with keep < 1."""
    options = {"inner_lr": 0.3, "keep": 0.7, "hidden": hidden, "normalise": False}
    W, gs = rand(4, 3), rand(2, 4, 3)
    (p := W.clone()).requires_grad_()
    optimizer = DeepMomentum([p], lr=1.0, **options)
    weights = None
    for g in gs:
        p.grad = g.clone()
        if weights is None:
            start = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
            weights = [start, torch.zeros(4, 5, dtype=F64)] if hidden else [torch.zeros(4, 4, dtype=F64)]
        leaves = [w.requires_grad_() for w in weights]
        slopes = torch.autograd.grad(memory_loss(leaves, g, -g, "l2"), leaves)
        weights = [(0.7 * w - 0.3 * s).detach() for w, s in zip(leaves, slopes)]
        W = W + read_memory(weights, g)
        optimizer.step()
        close(p.detach(), W)


@eq(50)
def test_deep_momentum_contains_heavy_ball_but_not_as_printed(rand):
    W0, gs = rand(4, 3), rand(6, 4, 3)
    literal = {"lr": 0.1, "inner_lr": 1.0, "keep": 0.9, "hidden": 0, "objective": "dot", "normalise": False}
    close(
        follow(lambda p: DeepMomentum(p, key="constant", **literal), W0, gs), follow(lambda p: Momentum(p, 0.1), W0, gs)
    )
    ones = follow(lambda p: DeepMomentum(p, value="ones", **literal), W0, gs)
    steps = torch.diff(torch.cat([W0[None], ones]), dim=0)
    close(steps, steps[:, :1].expand_as(steps))  # every column a multiple of the ones vector: no momentum
    self_map = follow(lambda p: DeepMomentum(p, **literal), W0, gs)
    covariance = sum(0.9 ** (5 - i) * g @ g.mT for i, g in enumerate(gs)) / 3
    close(self_map[-1] - self_map[-2], -0.1 * covariance @ gs[-1])


@eq(50)
def test_deep_momentum_passes_what_keeps_coming_back(rand):
    """A filter: along a recurring direction nearly the whole gradient, along a fresh one hardly any."""
    p = torch.zeros(32, dtype=F64, requires_grad=True)
    optimizer = DeepMomentum([p], lr=1.0, hidden=16)
    signal = torch.zeros(32, dtype=F64)
    signal[0] = 1.0
    for _ in range(100):
        noise = rand(32) / 32**0.5
        noise[0] = 0
        p.grad = signal + noise
        before = p.detach().clone()
        optimizer.step()
    step = before - p.detach()
    assert step[0] > 0.7 and float(step[1:].norm() / noise.norm()) < 0.5 * float(step[0])


# --- DGD ---


def layer_case(rand, n):
    layer = nn.Linear(3, 4).double()
    with torch.no_grad():
        layer.weight.copy_(rand(4, 3))
        layer.bias.copy_(rand(4))
    return layer, rand(n, 3), rand(n, 4)


@eq(54, 55, 56, 57, 113, 121)
def test_dgd_is_the_argmin_with_the_corrected_rate(rand):
    W, x, y, lr = rand(4, 3), rand(3), rand(4), 0.37
    loss = lambda out: nn.functional.huber_loss(out, y, reduction="sum") + out.sin().sum()  # noqa: E731
    gy = grad(loss, W @ x)
    best = argmin(lambda Z: (Z @ x + gy).square().sum() / 2 + (Z - W).square().sum() / (2 * lr), W)
    rate = dgd_rate(x, lr)
    close(rate, torch.tensor(lr / (1 + lr * float(x @ x)), dtype=F64))
    closed = W @ (torch.eye(3, dtype=F64) - rate * torch.outer(x, x)) - rate * torch.outer(gy, x)
    close(closed, best)
    for batch in ("joint", "mean"):
        close(dgd_step(W, x[None], gy[None], lr, batch), best)
    printed = lr / (1 + lr)
    apart(W - printed * torch.outer(W @ x + gy, x), best, 1e-2)
    xn = x / x.norm()
    close(W - printed * torch.outer(W @ xn + gy, xn), dgd_step(W, xn[None], gy[None], lr))  # right for |x| = 1
    close(W - rate * grad(lambda Z: loss(Z @ x) + (Z @ x).square().sum() / 2, W), best)  # SGD on a penalised loss
    z = rand(3)
    z = z - (z @ x) / (x @ x) * x
    close(best @ z, W @ z)  # orthogonal directions stay
    gd = argmin(lambda Z: (Z @ x) @ gy + (Z - W).square().sum() / (2 * lr), W)
    close(gd, W - lr * torch.outer(gy, x))  # eq. 55: the dot product instead is gradient descent


@eq(57)
@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_optimizer_solves_the_batch_problem_it_names(n, reduction, rand):
    layer, x, y = layer_case(rand, n)
    W, b, lr, w = layer.weight.detach().clone(), layer.bias.detach().clone(), 0.3, 1 / n if reduction == "mean" else 1.0
    for batch in ("joint", "mean"):
        with torch.no_grad():
            layer.weight.copy_(W)
            layer.bias.copy_(b)
        optimizer = DGD(layer.parameters(), lr, batch, reduction).attach(layer)
        optimizer.zero_grad()
        layer(x + 1)  # a forward pass without backward leaves no trace
        with torch.no_grad():
            layer(x - 1)
        (w * (layer(x) - y).square().sum() / 2).backward()
        bias_grad = layer.bias.grad.clone()
        optimizer.step()
        optimizer.detach()
        u = -(x @ W.mT + b - y)
        if batch == "joint":
            expected = argmin(
                lambda Z, u=u: w * (x @ Z.mT - u).square().sum() / 2 + (Z - W).square().sum() / (2 * lr), W
            )
        else:
            one = torch.stack([dgd_step(W, x[i : i + 1], -u[i : i + 1], lr) - W for i in range(n)])
            expected = W + w * one.sum(0)
        close(layer.weight.detach(), expected)
        close(dgd_step(W, x, -w * u, lr, batch, reduction == "mean"), expected)
        close(layer.bias.detach(), b - lr * bias_grad)


@eq(57)
def test_dgd_on_a_noiseless_regression_finds_half_the_map(rand):
    layer = nn.Linear(3, 4, bias=False).double()
    optimizer = DGD(layer.parameters(), 0.3).attach(layer)
    X, target = rand(40, 3), rand(4, 3)
    for _ in range(600):
        optimizer.zero_grad()
        ((layer(X) - X @ target.mT).square().sum() / 80).backward()
        optimizer.step()
    close(layer.weight.detach(), target / 2, 1e-9)


def test_dgd_gathers_every_call_of_a_layer_and_every_leading_dimension(rand):
    layer, x, y = layer_case(rand, 6)
    W = layer.weight.detach().clone()
    one = DGD(layer.parameters(), 0.3).attach(layer)
    out = torch.cat([layer(x[:2].reshape(1, 2, 3)).reshape(2, 4), layer(x[2:])])  # used twice, once with a length
    ((out - y).square().sum() / 12).backward()
    one.step()
    first = layer.weight.detach().clone()
    one.detach()
    other, _, _ = layer_case(rand, 6)
    with torch.no_grad():
        other.weight.copy_(W)
        other.bias.copy_(layer.bias + 0.3 * layer.bias.grad)
    two = DGD(other.parameters(), 0.3).attach(other)
    for part in (slice(0, 2), slice(2, 6)):  # accumulated over two backward passes
        ((other(x[part]) - y[part]).square().sum() / 12).backward()
    two.step()
    close(other.weight.detach(), first)
    u = -(x @ W.mT + (layer.bias + 0.3 * layer.bias.grad).detach() - y)
    expected = argmin(lambda Z: (x @ Z.mT - u).square().sum() / 12 + (Z - W).square().sum() / 0.6, W)
    close(first, expected)


def test_dgd_says_what_is_missing(rand):
    layer, x, _ = layer_case(rand, 2)
    optimizer = DGD(layer.parameters())
    layer(x).sum().backward()
    with refuses("step"):  # no layer is attached
        optimizer.step()
    with refuses("model"):
        optimizer.attach(nn.Linear(3, 4))
    optimizer.attach(layer)
    with refuses("step"):  # the backward pass came before
        optimizer.step()


# --- Newton-Schulz and Muon ---


@eq(43, 44)
def test_newton_schulz_is_gradient_descent_without_the_proximity_term(rand):
    O, g = rand(6, 4), rand(6, 4)
    I = torch.eye(4, dtype=F64)
    close(grad(mu.orthogonality_loss, O), 4 * O @ (O.mT @ O - I), 1e-11)
    apart(mu.orthogonality_step(O, g, 0.1), O - 0.1 * grad(mu.orthogonality_loss, O))  # eq. 44 is no step on eq. 43
    close(mu.orthogonality_step(O, g, 0.1), O - 0.1 * grad(lambda O: mu.proximal_orthogonality_loss(O, g), O), 1e-11)
    cubic = 1.5 * g - 0.5 * g @ g.mT @ g
    close(mu.orthogonality_step(g, g, 0.25), cubic, 1e-11)
    close(mu.orthogonality_step(g, None, 0.25), cubic, 1e-11)
    close(g - 0.125 * grad(mu.orthogonality_loss, g), cubic, 1e-11)  # the printed objective needs 1/8
    g = 0.9 * g / torch.linalg.matrix_norm(g, 2)
    U, s0, Vh = torch.linalg.svd(g, full_matrices=False)
    O = free = g
    for _ in range(400):
        O, free = mu.orthogonality_step(O, g, 0.1), mu.orthogonality_step(free, None, 0.25)
    s = torch.diagonal(U.mT @ O @ Vh.mT)
    close(2 * s**3 - s - s0, torch.zeros(4, dtype=F64), 1e-8)
    assert ((s > 0.7071) & (s < 0.999)).all()  # with the pull to g it does not orthogonalise
    close(free, U @ Vh, 1e-9)


@eq(44)
def test_the_quintic_is_no_step_of_that_form():
    a, b, c = 3.4445, -4.7750, 2.0315
    s = torch.linspace(0.01, 0.99, 200, dtype=F64)
    implied = (s - (a * s + b * s**3 + c * s**5)) / (4 * s * (s**2 - 1))
    assert implied.max() - implied.min() > 0.3


@eq(42)
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_muon_equals_a_plain_one_and_torchs(nesterov, shape, rand):
    W0, gs, keep = rand(*shape), rand(6, *shape), 0.95
    W, m, expected = W0, torch.zeros(shape, dtype=F64), []
    for g in gs:
        m = keep * m + g
        X = g + keep * m if nesterov else m
        X = X / X.norm()
        X = X.mT if shape[0] > shape[1] else X
        for _ in range(5):
            A = X @ X.mT
            X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
        X = X.mT if shape[0] > shape[1] else X
        W = W * (1 - 0.02 * 0.1) - 0.02 * math.sqrt(max(1, shape[0] / shape[1])) * X
        expected.append(W)
    options = {"lr": 0.02, "weight_decay": 0.1, "nesterov": nesterov}
    ours = follow(lambda p: Muon(p, scale="spectral", **options), W0, gs)
    close(ours, torch.stack(expected), 1e-11)
    theirs = follow(lambda p: torch.optim.Muon(p, momentum=keep, **options), W0, gs)
    close(ours, theirs, 6 * 0.02 * 0.05)  # torch orthogonalises in bfloat16


@eq(42)
def test_muon_reads_every_direction_with_about_the_same_strength(rand):
    G = rand(8, 6) @ torch.diag(torch.logspace(0, -2, 6, dtype=F64))
    step = -follow(lambda p: Muon(p, 1.0, scale="none"), torch.zeros(8, 6, dtype=F64), G[None])[0]
    s = torch.linalg.svdvals(step)
    assert float(s.min()) > 0.5 and float(s.max()) < 1.3
    rms = -follow(lambda p: Muon(p, 1.0), torch.zeros(8, 6, dtype=F64), G[None])[0]
    assert 0.12 < float(rms.square().mean().sqrt()) < 0.25  # AdamW's size


def test_convolutions_and_batches_of_equal_shapes_step_one_by_one(rand):
    shapes = [(4, 2, 3), (4, 6), (4, 6), (6, 4)]
    params = [rand(*s).requires_grad_() for s in shapes]
    alone = [p.detach().clone().requires_grad_() for p in params]
    for p, q in zip(params, alone, strict=True):
        p.grad = rand(*p.shape)
        q.grad = p.grad.clone()
    Muon(params).step()
    for q in alone:
        Muon([q]).step()
    for p, q in zip(params, alone, strict=True):
        close(p.detach(), q.detach())


# --- M3 ---


@pytest.fixture
def quadratic(rand):
    A = rand(6, 6)
    A = A @ A.mT / 6 + 0.1 * torch.eye(6, dtype=F64)
    T = rand(4, 6)
    return lambda W: (W - T) @ A, T


def m3_path(gradient, steps, **options):
    W = torch.zeros(4, 6, dtype=F64, requires_grad=True)
    optimizer = M3([W], **options)
    for _ in range(steps):
        W.grad = gradient(W.detach())
        optimizer.step()
    return W.detach(), optimizer.state[W]


@eq(75)
@pytest.mark.parametrize("second", ["update", "grad", "none"])
@pytest.mark.parametrize("period", [1, 4, 7])
def test_streaming_m3_equals_the_block_layout_of_algorithm_1(second, period, quadratic):
    options = {"lr": 0.01, "period": period, "second": second, "alpha": 0.4, "betas": (0.8, 0.9, 0.7)}
    expected = m3_reference(torch.zeros(4, 6, dtype=F64), quadratic[0], 17, **options)
    close(m3_path(quadratic[0], 17, **options)[0], expected, 1e-11)


@eq(75)
def test_what_is_printed_of_m3_ignores_its_factors(quadratic):
    run = lambda lr=0.05, alpha=0.5, **b: m3_reference(  # noqa: E731
        torch.zeros(4, 6, dtype=F64),
        quadratic[0],
        24,
        lr=lr,
        alpha=alpha,
        period=4,
        eps=0.0,
        printed=True,
        betas=(b.get("b1", 0.9), b.get("b2", 0.5), b.get("b3", 0.9)),
    )
    close(run(b1=1e-3), run(), 1e-9)  # Newton-Schulz is scale-free, sums do not decay
    close(run(b3=1e-3), run(), 1e-9)
    close(run(b2=0.125, lr=0.025), run(), 1e-9)  # beta_2 only rescales the step
    apart(run(alpha=0.0), run(), 1e-4)


@eq(75)
def test_m3_steps_depend_on_the_gradients_scale_only_as_printed(quadratic):
    one = lambda c, second: m3_path(lambda W: c * quadratic[0](W), 3, lr=0.01, second=second, period=2)[0]  # noqa: E731
    for second in ("update", "none"):
        close(one(1e-4, second), one(1e4, second), 1e-6)
    g = quadratic[0](torch.zeros(4, 6, dtype=F64))
    a, b = (follow(lambda p: M3(p, 0.01, second="grad"), torch.zeros_like(g), (c * g)[None]) for c in (1.0, 10.0))
    close(b, a / 10, 1e-7)  # ten times the loss, a tenth of the step
    O = newton_schulz(g, 40, "cubic")
    D = O / g.abs()
    gram = D @ D.mT
    assert float((gram / gram.trace() * 4 - torch.eye(4, dtype=F64)).abs().max()) > 0.05  # and no longer orthogonal


@eq(75)
def test_limits_of_m3(quadratic):
    identity = m3_reference(
        torch.zeros(4, 6, dtype=F64),
        quadratic[0],
        12,
        lr=0.02,
        betas=(0.9, 0.99, 0.9),
        alpha=0.0,
        second="grad",
        orthogonal=lambda m: m,
    )
    W, M, V = torch.zeros(4, 6, dtype=F64), 0.0, 0.0
    for t in range(1, 13):  # NS = identity, alpha = 0: Adam without the correction of its first moment
        g = quadratic[0](W)
        M, V = 0.9 * M + 0.1 * g, 0.99 * V + 0.01 * g * g
        W = W - 0.02 * M / ((V / (1 - 0.99**t)).sqrt() + 1e-8)
    close(identity, W)
    fast, state = m3_path(quadratic[0], 12, lr=0.02, alpha=0.0, second="none", betas=(0.95, 0.9, 0.9))
    W = torch.zeros(4, 6, dtype=F64, requires_grad=True)
    muon = Muon([W], 0.02, keep=0.95, nesterov=False)
    for _ in range(12):
        W.grad = quadratic[0](W.detach())
        muon.step()
    close(fast, W.detach(), 1e-11)  # alpha = 0 without V: Muon
    assert set(state) == {"step", "fast"}


@eq(75)
def test_the_slow_memory_moves_once_a_period_and_is_read_from_the_next_step_on(quadratic):
    W = torch.zeros(4, 6, dtype=F64, requires_grad=True)
    optimizer, reads = M3([W], lr=0.01, period=4), []
    for _ in range(12):
        W.grad = quadratic[0](W.detach())
        optimizer.step()
        reads.append(optimizer.state[W]["slow_read"].clone())
    changed = [t + 1 for t in range(12) if not torch.equal(reads[t], reads[t - 1] if t else torch.zeros_like(W))]
    assert changed == [4, 8, 12]
    first = m3_path(quadratic[0], 4, lr=0.01, period=4)[0]
    close(first, m3_path(quadratic[0], 4, lr=0.01, alpha=0.0)[0])  # nothing to read in the first period
    close(optimizer.state[W]["block"], torch.zeros(4, 6, dtype=F64))


@eq(75)
@pytest.mark.parametrize("second", ["update", "grad", "none"])
def test_m3_reduces_a_quadratic_by_more_than_999_in_1000(second, quadratic):
    W = torch.zeros(4, 6, dtype=F64, requires_grad=True)
    optimizer = M3([W], lr=0.02 if second == "update" else 0.05, betas=(0.9, 0.999, 0.9), second=second, period=8)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, 600)
    error = lambda: float(((W.detach() - quadratic[1]) * quadratic[0](W.detach())).sum())  # noqa: E731
    start = error()
    for _ in range(600):
        W.grad = quadratic[0](W.detach())
        optimizer.step()
        schedule.step()
    assert error() < 1e-3 * start


def test_a_frozen_matrix_keeps_its_own_clock(quadratic):
    a, b = (torch.zeros(4, 6, dtype=F64, requires_grad=True) for _ in range(2))
    optimizer = M3([a, b], lr=0.01, period=3)
    for t in range(6):
        a.grad = quadratic[0](a.detach())
        b.grad = None if t < 2 else quadratic[0](b.detach())
        optimizer.step()
    assert (optimizer.state[a]["step"], optimizer.state[b]["step"]) == (6, 4)
    close(b.detach(), m3_path(quadratic[0], 4, lr=0.01, period=3)[0])


# --- Adam and AdaGrad ---


@eq(101, 102, 105)
@pytest.mark.parametrize("correct", [True, False])
def test_adam_with_equal_betas_is_the_least_squares_optimum(correct, rand):
    beta, gs = 0.9, rand(9, 6)
    w = am.discount(beta, 9, normalised=correct)
    P = (w @ gs.square()).sqrt()
    best = argmin(lambda m: am.elementwise_loss(m, -gs, P, w), rand(6))
    close(am.elementwise_optimum(-gs, P, w), best)
    ours = follow(lambda p: AdamMemory(p, 0.1, beta, eps=0.0, bias_correction=correct), torch.zeros(6, dtype=F64), gs)
    close(ours[-1] - ours[-2], 0.1 * best)
    if correct:
        adam = follow(lambda p: torch.optim.Adam(p, lr=0.1, betas=(beta, beta), eps=0.0), torch.zeros(6, dtype=F64), gs)
        close(ours, adam)


@eq(102)
def test_adams_usual_betas_minimise_neither_weighted_objective(rand):
    gs, P = rand(9, 6), rand(6).abs() + 0.5
    w1, w2 = am.discount(0.9, 9), am.discount(0.999, 9)
    adam = w1 @ gs * P / (w2 @ gs.square())
    for w in (w1, w2):
        best = am.elementwise_optimum(gs, P, w)
        apart(adam, best, 1e-2)
        loss = lambda m, w=w: float(am.elementwise_loss(m, gs, P, w))  # noqa: E731
        assert loss(best) < loss(adam)
        assert min(loss(c * adam) for c in torch.linspace(0, 2, 201)) > loss(best) * (1 + 1e-6)  # nor a rescaled one


@eq(101, 102)
def test_the_elementwise_optimum_and_the_slips_around_it(rand):
    gs, P, ridge = rand(9, 6), rand(6).abs() + 0.5, 0.3
    best = argmin(lambda m: am.elementwise_loss(m, gs, P, ridge=ridge), rand(6))
    close(am.elementwise_optimum(gs, P, ridge=ridge), best)
    M = Mt = printed = torch.zeros(6, dtype=F64)
    for g in gs:
        printed, Mt, M = M + g, Mt + g, M + g * P
    close(M, Mt * P)
    apart(M, printed * P)  # M-tilde must be built from M-tilde, not from M
    H = rand(3, 3).square() + 1
    apart(torch.linalg.inv(H + ridge * torch.eye(3, dtype=F64)), 1 / (H + ridge), 1e-2)  # no matrix inverse


@eq(103)
def test_the_step_of_the_memory_is_added(rand):
    W, A = rand(6), torch.diag(rand(6).abs() + 0.5)
    loss = lambda W: float(W @ A @ W / 2)  # noqa: E731
    m = am.elementwise_optimum(-(A @ W)[None], torch.ones(6, dtype=F64), ridge=0.3)
    assert loss(W - 1e-3 * m) > loss(W) > loss(W + 1e-3 * m)


@eq(104)
def test_the_target_square_is_momentum_with_one_over_beta(rand):
    gs, b2 = rand(9, 6), 0.25
    P, H = gs.square().sum(0), b2 * gs.square().sum(0)
    close(gs.sum(0) * P / H, gs.sum(0) / b2)
    apart(gs.sum(0) * P / H, gs.sum(0) * b2)  # as printed
    W0 = rand(6)
    ours = follow(lambda p: AdamMemory(p, 1.0, 0.9, target="square", bias_correction=False), W0, gs)
    close(ours, follow(lambda p: Momentum(p, 0.1, 0.9), W0, gs))


@eq(105)
def test_printed_sums_give_adagrad_with_summed_momentum_not_adam(rand):
    gs, b2 = rand(9, 6), 0.25
    P, H = gs.square().sum(0).sqrt(), b2 * gs.square().sum(0)
    close(gs.sum(0) * P / H, gs.sum(0) / H.sqrt() / b2**0.5)  # the algebra is right
    ridge = 0.3
    close(gs.sum(0) * P / (H + ridge), gs.sum(0) * H.sqrt() / (H + ridge) / b2**0.5)  # the exact factor with a ridge
    w1, w2 = am.discount(0.9, 9, True), am.discount(0.999, 9, True)
    adam, sums = w1 @ gs / (w2 @ gs.square()).sqrt(), gs.sum(0) / P
    apart(adam / adam.norm(), sums / sums.norm(), 1e-2)
    apart(P.square() / 9, gs.var(0, unbiased=False))  # P^2 is an uncentred second moment, no variance
    g = gs[:1]
    close(am.elementwise_optimum(g, g[0].abs()), g[0].sign())  # one sample: sign descent


@eq(101)
def test_ridge_and_unit_target_of_the_optimizer(rand):
    gs, beta = rand(5, 6), 0.8
    w = am.discount(beta, 5)
    H = w @ gs.square()
    for target, P in (("root", H.sqrt()), ("square", H), ("one", torch.ones_like(H))):
        path = follow(lambda p, t=target: AdamMemory(p, 1.0, beta, t, ridge=0.2, bias_correction=False), rand(6), gs)
        close(path[-1] - path[-2], am.elementwise_optimum(-gs, P, w, ridge=0.2))


@eq(101)
@pytest.mark.parametrize("target", ["root", "square", "one"])
def test_the_bias_correction_divides_both_moments(target, rand):
    """With a ridge, or another target than the root: m* of weights that sum to one."""
    gs, beta, ridge = rand(5, 6), 0.8, 0.2
    w = am.discount(beta, 5, normalised=True)
    H = w @ gs.square()
    P = {"root": H.sqrt(), "square": H, "one": torch.ones_like(H)}[target]
    path = follow(lambda p: AdamMemory(p, 1.0, beta, target, ridge=ridge), rand(6), gs)
    close(path[-1] - path[-2], am.elementwise_optimum(-gs, P, w, ridge=ridge))


@eq(106, 107, 108, 109, 110)
def test_the_outer_product_memory_has_its_inverse_on_the_right(rand):
    gs, P, ridge = rand(9, 6), rand(4), 0.3
    best = argmin(lambda m: am.outer_loss(m, gs, P, ridge), rand(4, 6))
    close(am.outer_optimum(gs, P, ridge), best, 1e-11)
    H, M = gs.mT @ gs, torch.outer(P, gs.sum(0))
    close(M @ torch.linalg.inv(H + ridge * torch.eye(6, dtype=F64)), best, 1e-11)
    with pytest.raises(RuntimeError):
        torch.linalg.inv(H) @ M  # (N, N) times (n, N), the printed order
    with refuses("target"):
        am.outer_loss(rand(6, 6), gs, rand(6, 6))  # eq. 111's matrix target does not fit eq. 106


@eq(111)
def test_the_inverse_root_is_full_matrix_adagrad(rand):
    gs = rand(9, 6)
    values, U = torch.linalg.eigh(gs.mT @ gs)
    root = U @ torch.diag(values**-0.5) @ U.mT
    close(am.inverse_root(gs.mT @ gs, 1e-14, gs[-1]), root @ gs[-1], 1e-9)
    H, b2 = 0.25 * gs.mT @ gs, 0.25
    close(torch.linalg.inv(H) @ (U @ torch.diag(values**0.5) @ U.mT) @ gs.sum(0), root @ gs.sum(0) / b2, 1e-9)
    axes = torch.diag(rand(6))[torch.arange(9) % 6]  # gradients along the axes: H is diagonal
    adagrad = follow(lambda p: torch.optim.Adagrad(p, lr=1.0, eps=1e-30), torch.zeros(6, dtype=F64), axes)
    close(am.inverse_root(axes.mT @ axes, 1e-14, axes[-1]), adagrad[-2] - adagrad[-1], 1e-9)
    close(am.inverse_root(torch.zeros(6, 6, dtype=F64), 1e-14, gs[0]), torch.zeros(6, dtype=F64))


@eq(109, 111)
def test_beta_1_gives_adagrad_only_with_a_decay_that_is_not_printed(rand):
    gs = rand(9, 6)
    decayed = summed = torch.zeros(6, dtype=F64)
    for g in gs:
        decayed, summed = (1 - 1.0) * decayed + 1.0 * g, summed + 1.0 * g
    close(decayed, gs[-1])
    apart(summed, gs[-1])
