"""Training is writing: the dual form, layer surprises, a step as the minimiser of a small problem, DGD line by line."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import F64, apart, argmin, close, draws, grad, rand, refuses
from torch import Tensor, nn
from torch.nn import functional as F

from nlbook.memory import dual, proximal
from nlbook.memory.rules import dgd_rate

few = settings(max_examples=15, deadline=None)
sizes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10_000))


def case(c: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    d_in, d_out, seed = c
    return rand(d_out, d_in, seed=seed), rand(d_in, seed=seed + 1), rand(d_out, seed=seed + 2)


# ---- a step as the minimiser of a small problem ----


@pytest.mark.eq(1, 2, 3)
@few
@given(sizes, st.floats(0.05, 2.0))
def test_gd_is_the_proximal_step_and_ftrl_is_all_steps_at_once(c, lr):
    W, _, _ = case(c)
    g = rand(*W.shape, seed=c[2] + 5)
    best = argmin(lambda X: proximal.gd_objective(X, W, g, lr), torch.zeros_like(W))
    close(best, proximal.gd_step(W, g, lr))
    xs, targets = rand(6, W.shape[1], seed=1), rand(6, W.shape[0], seed=2)
    trace = dual.train_linear(W, xs, dual.squared_loss(targets), lr / 10)
    grads = torch.stack([torch.outer(s, x) for s, x in zip(trace.surprises, xs)])
    leader = argmin(lambda X: proximal.ftrl_objective(X, W, grads, lr / 10), torch.zeros_like(W))
    close(leader, trace.weight())


@pytest.mark.eq(1)
def test_one_gd_step_is_torch_sgd():
    W, x, target = case((4, 3, 0))
    p = nn.Parameter(W.clone())
    optimizer = torch.optim.SGD([p], lr=0.3)
    (0.5 * (p @ x - target).square().sum()).backward()
    optimizer.step()
    # one rounding apart at most: some processors multiply and add in one instruction
    torch.testing.assert_close(p.detach(), proximal.gd_step(W, p.grad, 0.3), atol=0, rtol=4e-16)


@pytest.mark.eq(2)
def test_a_step_with_the_spectral_norm_is_muons_direction():
    """The norm that eq. 2 prints must be Frobenius. Read as the spectral norm its minimiser is W - lr |g|_* U V^T."""
    g, lr = rand(4, 3, seed=1), 0.3
    objective = lambda D: (g * D).sum() + torch.linalg.matrix_norm(D, 2) ** 2 / (2 * lr)  # noqa: E731
    best = proximal.spectral_step(torch.zeros_like(g), g, lr)
    nuclear = torch.linalg.svdvals(g).sum()
    close(objective(best), -lr / 2 * nuclear**2)
    noise = rand(500, 4, 3, seed=2) * torch.logspace(-4, 0, 500, dtype=F64)[:, None, None]
    assert all(objective(best + e) >= objective(best) for e in noise)
    gd = -lr * g.square().sum() ** 2 / (2 * torch.linalg.matrix_norm(g, 2) ** 2)  # the best multiple of -g
    assert objective(best) < gd - 1e-3


@pytest.mark.eq(3)
def test_ftrl_is_not_gd_for_changing_rates_or_on_a_feasible_set():
    W, xs, targets = rand(3, 4), rand(6, 4, seed=1), rand(6, 3, seed=2)
    rates = torch.linspace(0.1, 0.5, 6, dtype=F64)
    trace = dual.train_linear(W, xs, dual.squared_loss(targets), rates)
    grads = torch.stack([torch.outer(s, x) for s, x in zip(trace.surprises, xs)])
    apart(argmin(lambda X: proximal.ftrl_objective(X, W, grads, 0.5), torch.zeros_like(W)), trace.weight())
    w = total = 0.0
    for g in (-3.0, -3.0, 1.0):  # gradients of a scalar weight held to [-1, 1]
        w, total = max(-1.0, min(1.0, w - g)), total + g
    assert w == 0.0
    assert max(-1.0, min(1.0, -total)) == 1.0


@pytest.mark.eq(7)
def test_gd_on_least_squares_ends_at_the_normal_equations():
    x, y = rand(30, 3), rand(30, 4, seed=1)
    W = torch.zeros(4, 3, dtype=F64)
    for _ in range(1500):
        W = proximal.gd_step(W, (x @ W.T - y).T @ x, 0.015)
    close(W, torch.linalg.lstsq(x, y).solution.T, 1e-10)


@pytest.mark.eq(8, 9, 30, 31, 54, 55, 112)
@few
@given(sizes, st.floats(0.05, 2.0))
def test_a_layer_step_is_a_memory_problem(c, lr):
    W, x, target = case(c)
    loss = lambda y: nn.functional.huber_loss(y, target, reduction="sum") + y.sin().sum()  # noqa: E731
    s = grad(loss, W @ x)
    close(grad(lambda W: loss(W @ x), W), torch.outer(s, x))
    step = proximal.layer_step(W, x, s, lr)
    close(step, W - lr * grad(lambda W: loss(W @ x), W))
    close(argmin(lambda X: proximal.layer_objective(X, W, x, s, lr), torch.zeros_like(W)), step)


@pytest.mark.eq(9)
def test_second_form_of_eq_9_and_a_moving_surprise_fail():
    W, x, target = case((4, 3, 0))
    s, old_x = W @ x - target, rand(4, seed=9)
    step = proximal.layer_step(W, x, s, 0.3)
    apart(argmin(lambda X: proximal.layer_objective(X, W, old_x, s, 0.3), W), step)  # printed: x_t for x_{t+1}
    moving = argmin(lambda X: 0.5 * (X @ x - target).square().sum() + proximal.distance(X, W, 0.3), W)
    apart(moving, step)  # u must be held fixed: else it is the implicit step


@pytest.mark.eq(56, 57, 113, 114, 115, 116, 117, 118, 119, 120, 121)
@few
@given(sizes, st.floats(0.05, 3.0))
def test_dgd_derivation_line_by_line(c, lr):
    W, x, s = case(c)
    best = argmin(lambda X: proximal.dgd_objective(X, W, x, s, lr), torch.zeros_like(W))
    close(best, proximal.dgd_step(W, x, s, lr), 1e-10)
    close(proximal.dgd_stationarity(best, W, x, s, lr), torch.zeros_like(W), 1e-9)
    h = 1 / lr
    eye = torch.eye(len(x), dtype=F64)
    close(proximal.sherman_morrison(x, h), torch.linalg.inv(torch.outer(x, x) + h * eye))
    close(best @ (torch.outer(x, x) + h * eye), -torch.outer(s, x) + h * W, 1e-10)  # eq. 115
    lines = proximal.dgd_derivation(W, x, s, lr)
    assert list(lines) == [116, 118, 119, 120, 121]
    for line in lines.values():
        close(line, best, 1e-9)


@pytest.mark.eq(57, 114, 115, 116, 119, 120, 121)
def test_printed_dgd_derivation_fails():
    W, x, s = case((4, 3, 0))
    lr, h, lam = 0.37, 1 / 0.37, x.norm()
    best, xx, write = proximal.dgd_step(W, x, s, lr), torch.outer(x, x), torch.outer(s, x)
    apart(proximal.dgd_stationarity(best, W, x, s, lr, "printed"), torch.zeros_like(W))
    apart((best @ x - s).outer(x) + (best - W) / lr, torch.zeros_like(W))  # the sign alone
    apart((best @ x + s).outer(x) + lr * (best - W), torch.zeros_like(W))  # lr for 1/lr alone
    for eta in (lr, h):
        apart((write + eta * W) @ torch.linalg.inv(xx + eta * torch.eye(4, dtype=F64)), best)  # 115-116: sign
    apart(lam / (lam**2 * h + h**2) * write, write @ xx / (lam**2 * h + h**2))  # 119: lambda for lambda^2
    assert lam / (lam**2 * h + h**2) - 1 / h < 0  # 120-121: beta < 0, ascent
    apart(proximal.dgd_step(W, x, s, lr, form="printed"), best)  # 57: eta / (1 + eta)
    unit = x / lam
    close(proximal.dgd_step(W, unit, s, lr, form="printed"), proximal.dgd_step(W, unit, s, lr))  # right for |x| = 1


@pytest.mark.eq(57)
@few
@given(sizes, st.floats(0.05, 3.0))
def test_dgd_is_sgd_with_an_output_penalty_and_never_overshoots(c, lr):
    W, x, target = case(c)
    loss = lambda y: nn.functional.huber_loss(y, target, reduction="sum") + y.sin().sum()  # noqa: E731
    rate = dgd_rate(x, lr)
    penalised = grad(lambda W: loss(W @ x) + 0.5 * (W @ x).square().sum(), W)
    step = proximal.dgd_step(W, x, grad(loss, W @ x), lr)
    close(step, W - rate * penalised)
    close(1 - rate * (x @ x), 1 / (1 + lr * (x @ x)))
    z = rand(len(x), seed=99)
    z = z - (z @ x) / (x @ x) * x
    close(step @ z, W @ z)  # directions orthogonal to x are untouched


@pytest.mark.eq(57)
def test_dgd_on_regression_stops_at_half_of_the_map():
    """The classical delta rule, whose value is the target and not the error, reaches the map itself."""
    x, true_map = rand(40, 3), rand(4, 3, seed=1)
    half = whole = torch.zeros(4, 3, dtype=F64)
    for i in range(4000):
        k = x[i % 40]
        half = proximal.dgd_step(half, k, half @ k - true_map @ k, 0.05)
        whole = proximal.layer_step(whole, k, whole @ k - true_map @ k, 0.05)
    close(half, true_map / 2, 1e-9)
    close(whole, true_map, 1e-9)


@pytest.mark.eq(58, 59, 60)
@pytest.mark.parametrize("fit", ["dot", "l2"])
@pytest.mark.parametrize("window", [1, 2, 4])
def test_generalised_gd_has_gd_and_dgd_as_instances(fit, window):
    states = list(rand(window, 3, 4, seed=window))
    x, s = rand(4, seed=1), rand(3, seed=2)
    step = proximal.ggd_step(states, x, -s, 0.3, fit)
    best = argmin(lambda W: proximal.ggd_objective(W, states, x, -s, 0.3, fit), torch.zeros(3, 4, dtype=F64))
    close(step, best)
    if window == 1:
        close(step, (proximal.layer_step if fit == "dot" else proximal.dgd_step)(states[0], x, s, 0.3))


# ---- the dual form ----


@pytest.mark.eq(8, 30, 54, 58)
@few
@given(sizes, st.integers(0, 12), st.sampled_from(["squared", "cross entropy"]), st.booleans())
def test_the_trace_is_the_training(c, T, kind, changing):
    """Against autograd on the loss itself: weights after every step, predictions, contributions, values."""
    d_in, d_out, seed = c
    W, xs, q = rand(d_out, d_in, seed=seed), rand(T, d_in, seed=seed + 1), rand(d_in, seed=seed + 3)
    labels = torch.randint(d_out, (T,), generator=torch.Generator().manual_seed(seed))
    targets = rand(T, d_out, seed=seed + 2)
    lr = torch.linspace(0.05, 0.3, T, dtype=F64) if changing else 0.2
    if kind == "squared":
        surprise, loss = dual.squared_loss(targets), lambda y, t: 0.5 * (y - targets[t]).square().sum()
    else:
        surprise, loss = (
            dual.cross_entropy(labels),
            lambda y, t: nn.functional.cross_entropy(y[None], labels[t : t + 1]),
        )
    trace = dual.train_linear(W, xs, surprise, lr)
    assert len(trace) == T
    for t in range(T):
        close(trace.weight(t), W)
        close(trace.predict(q, t), W @ q)
        close(trace.surprises[t], grad(lambda y, t=t: loss(y, t), W @ xs[t]))
        W = W - (lr[t] if changing else lr) * grad(lambda W, t=t: loss(W @ xs[t], t), W)
    close(trace.weight(), W)
    close(trace.predict(q), W @ q)
    close(trace.start @ q + trace.contributions(q).sum(0), W @ q)


@pytest.mark.eq(58)
def test_frozen_surprises_are_another_answer():
    """The control: values taken at the start are linear attention over the data, and not what training wrote."""
    for seed in range(5):
        draw = draws(seed)
        W, xs, targets, q = draw(1, 8), F.normalize(draw(40, 8), dim=-1), draw(40, 1), F.normalize(draw(8), dim=-1)
        frozen = dual.train_linear(W, xs, dual.squared_loss(targets), 0.5, frozen_surprises=True).predict(q)
        close(frozen, W @ q - 0.5 * ((xs @ W.T - targets) * (xs @ q)[:, None]).sum(0))
        apart(frozen, dual.train_linear(W, xs, dual.squared_loss(targets), 0.5).predict(q), 0.1)


@pytest.mark.eq(15, 58)
def test_frozen_training_is_linear_attention():
    """With frozen surprises the trained layer is a Hebbian memory of (x_t, -surprise_t): causal, given from outside."""
    W, xs, targets = rand(3, 4), rand(9, 4, seed=1), rand(9, 3, seed=2)
    trace = dual.train_linear(W, xs, dual.squared_loss(targets), 0.2, frozen_surprises=True)
    close(trace.surprises, xs @ W.T - targets)
    M = W
    for x, s in zip(xs, trace.surprises):
        M = M - 0.2 * torch.outer(s, x)
    close(trace.weight(), M)
    real = dual.train_linear(W, xs, dual.squared_loss(targets), 0.2)
    close(real.surprises[0], trace.surprises[0])  # the first step cannot tell the two apart
    apart(real.surprises[1:], trace.surprises[1:], 0.05)


# ---- any network ----


def network() -> nn.Sequential:
    layers = nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 6, bias=False), nn.Softplus(), nn.Linear(6, 3)
    net = nn.Sequential(*layers).double()
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(rand(*p.shape, seed=i))
    return net


@pytest.mark.eq(22, 23, 29, 30, 31)
def test_layer_surprises_are_autograds_gradients():
    """Every layer's gradient is surprise times input; over a batch their mean is the gradient of the empirical risk."""
    net, x, y = network(), rand(7, 5, seed=1), torch.tensor([0, 1, 2, 0, 1, 2, 1])
    found = dual.layer_surprises(net, lambda: nn.functional.cross_entropy(net(x), y))
    assert list(found) == ["0", "2", "4"]
    assert all(p.grad is None for p in net.parameters())
    nn.functional.cross_entropy(net(x), y).backward()
    one_loss = lambda i: nn.functional.cross_entropy(net(x[i : i + 1]), y[i : i + 1])  # noqa: E731
    each = [dual.layer_surprises(net, lambda i=i: one_loss(i)) for i in range(7)]
    for name, layer in found.items():
        module = net[int(name)]
        close(layer.weight_grad, module.weight.grad)
        if module.bias is not None:
            close(layer.bias_grad, module.bias.grad)
        close(torch.stack([e[name].weight_grad for e in each]).mean(0), module.weight.grad)  # eq. 22-23
        assert all(torch.linalg.matrix_rank(e[name].weight_grad) <= 1 for e in each)  # a write is rank one
        one, W = each[0][name], module.weight.detach()
        problem = lambda X, one=one, W=W: proximal.layer_objective(X, W, one.keys[0], one.surprise[0], 0.1)  # noqa: E731
        close(argmin(problem, torch.zeros_like(W)), one.step(W, 0.1), 1e-10)  # eq. 31


@pytest.mark.eq(29)
def test_local_errors_by_hand():
    """delta_l = J_l^T W_{l+1}^T delta_{l+1}, with a softmax at the top, whose Jacobian is not diagonal."""
    net, x, target = network(), rand(5, seed=1), torch.tensor([0.2, 0.5, 0.3], dtype=F64)
    acts = [torch.tanh, nn.functional.softplus, lambda z: torch.softmax(z, -1)]
    layers, h, slopes = [net[0], net[2], net[4]], x, []
    for layer, act in zip(layers, acts):
        z = layer(h).detach()
        slopes.append(torch.autograd.functional.jacobian(act, z))
        h = act(z)
    deltas = dual.local_errors([m.weight.detach() for m in layers], slopes, -target / h)
    found = dual.layer_surprises(net, lambda: -(target * torch.softmax(net(x), -1).log()).sum())
    for delta, layer in zip(deltas, found.values()):
        close(delta, layer.surprise[0])


def test_layer_surprises_see_shared_and_unused_layers():
    shared, idle = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
    model = nn.ModuleDict({"shared": shared, "idle": idle})
    x = rand(2, 4, 3)
    found = dual.layer_surprises(model, lambda: shared(shared(x)).square().sum() + 0 * idle(x).detach().sum())
    assert found["shared"].keys.shape == (16, 3)  # two calls of 8 tokens
    shared(shared(x)).square().sum().backward()
    close(found["shared"].weight_grad, shared.weight.grad)
    close(found["idle"].surprise, torch.zeros(8, 3, dtype=F64))
    assert not shared._forward_hooks


def test_bad_input_names_the_argument():
    W, xs = rand(3, 4), rand(5, 4)
    net = network()
    for argument, call in (
        ("W0", lambda: dual.train_linear(W[0], xs, dual.squared_loss(rand(5, 3)), 0.1)),
        ("xs", lambda: dual.train_linear(W, xs[:, :3], dual.squared_loss(rand(5, 3)), 0.1)),
        ("xs", lambda: dual.train_linear(W, xs.float(), dual.squared_loss(rand(5, 3)), 0.1)),
        ("lr", lambda: dual.train_linear(W, xs, dual.squared_loss(rand(5, 3)), torch.ones(4))),
        ("surprise(y, t)", lambda: dual.train_linear(W, xs, lambda y, t: y[:2], 0.1)),
        ("labels", lambda: dual.cross_entropy(rand(5))),
        ("t", lambda: dual.train_linear(W, xs, dual.squared_loss(rand(5, 3)), 0.1).weight(6)),
        ("q", lambda: dual.train_linear(W, xs, dual.squared_loss(rand(5, 3)), 0.1).predict(rand(3))),
        ("model", lambda: dual.layer_surprises(nn.ReLU(), lambda: W.sum())),
        ("loss", lambda: dual.layer_surprises(net, lambda: net(xs.new_zeros(2, 5)))),
        ("loss", lambda: dual.layer_surprises(net, lambda: net[0].weight.sum())),
        ("form", lambda: proximal.dgd_stationarity(W, W, xs[0], W[:, 0], 0.1, "paper")),
        ("fit", lambda: proximal.ggd_step([W], xs[0], W[:, 0], 0.1, "l1")),
        ("states", lambda: proximal.ggd_step([], xs[0], W[:, 0], 0.1)),
        ("slopes", lambda: dual.local_errors([W, W], [W], W[0])),
    ):
        with refuses(argument):
            call()
