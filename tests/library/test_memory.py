"""Every learning rule against autograd of its stated objective in float64, and the printed forms that fail."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import F64, apart, argmin, close, grad, rand
from torch import Tensor

from nlbook import memory
from nlbook.errors import NLBookError
from nlbook.memory import MatrixMemory, objectives, rules
from nlbook.memory.matrix import FEATURES
from nlbook.memory.objectives import outer, recall

Dot, L2, Lp, Oja = objectives.Dot, objectives.L2, objectives.Lp, objectives.Oja
OBJECTIVES = [Dot(), L2(), Lp(1.0), Lp(1.5), Lp(3.0), Oja()]
# Shapes and seeds of one case. Few examples each: a case is random in every entry anyway.
case = st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([(), (3,), (2, 2)]), st.integers(0, 10_000))
few = settings(max_examples=15, deadline=None)


def gd(objective: objectives.Objective, M: Tensor, k: Tensor, v: Tensor, lr: float = 1.0) -> Tensor:
    return M + rules.GD().step(objective, M, k, v, lr, 1.0, {})[0]


def triple(d_k: int, d_v: int, batch: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    return rand(*batch, d_v, d_k, seed=seed), rand(*batch, d_k, seed=seed + 1), rand(*batch, d_v, seed=seed + 2)


# ---- objectives ----


@pytest.mark.eq(6, 8, 17, 64, 65, 67)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.name}{getattr(o, 'p', '')}")
@few
@given(case)
def test_gradient_is_autograd_of_the_stated_objective(objective, c):
    M, k, v = triple(*c)
    close(objective.grad(M, k, v), grad(lambda M: objective.value(M, k, v), M))
    if objective.through_answer:
        y = recall(M, k)
        s = objective.surprise(M, k, v)
        close(s, grad(lambda y: objective.value(y.unsqueeze(-1), torch.ones_like(y[..., :1]), v), y))
        close(objective.grad(M, k, v), outer(s, k))  # rank one: surprise times key


@pytest.mark.parametrize("p", [1.0, 1.3, 2.0, 2.5, 4.0])
@few
@given(case, st.floats(0.01, 5.0))
def test_implicit_surprise_solves_its_own_equation(p, c, lr):
    """s(y') = gradient at y' = y - c s: checked as a fixed point, and differentiable where the root is smooth."""
    M, k, v = triple(*c)
    objective, y = Lp(p), recall(M, k)
    c_ = (lr * k.square().sum(-1)).unsqueeze(-1)
    s = objective.implicit_surprise(y, v, c_)
    after = y - c_ * s
    if p == 1:  # the subgradient of |r| at 0 is any number in [-1, 1]
        assert (s.abs() <= 1 + 1e-12).all()
        moved = (after - v).abs() > 1e-9
        close(s[moved], (after - v)[moved].sign(), 1e-9) if moved.any() else None
    else:  # compared as residuals |s|^(1 / (p - 1)): below p = 2 the surprise itself is infinitely steep at the root

        def residual(s):
            return s.sign() * s.abs() ** max(1.0, 1 / (p - 1))

        close(residual(s), residual(objective.surprise_at(after, v)), 1e-7)
    if p == 2:
        close(s, L2().implicit_surprise(y, v, c_), 1e-9)


@pytest.mark.parametrize("p", [1.5, 3.0])
def test_implicit_surprise_is_differentiable(p):
    y, v = rand(2, 3, seed=0).requires_grad_(), rand(2, 3, seed=1).requires_grad_()
    c = torch.tensor([[0.3], [2.0]], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(Lp(p).implicit_surprise, (y, v, c))


def test_l2_is_lp_with_p_2_and_bad_names_are_refused():
    M, k, v = triple(3, 4, (2,), 0)
    close(Lp(2.0).value(M, k, v), L2().value(M, k, v))
    close(Lp(2.0).grad(M, k, v), L2().grad(M, k, v))
    with pytest.raises(NLBookError, match=r"p: got 0\.5"):
        Lp(0.5)
    with pytest.raises(NLBookError, match="objective: got 'l3'"):
        objectives.get_objective("l3")
    with pytest.raises(NLBookError, match="objective: got oja"):
        Oja().surprise(M, k, v)


# ---- learning rules ----


@pytest.mark.eq(1, 15, 16, 18, 54, 64, 65, 66, 67)
@few
@given(case, st.floats(0.0, 2.0))
def test_named_rules_are_one_gradient_step(c, lr):
    M, k, v = triple(*c)
    written = {
        Dot(): M + lr * outer(v, k),
        L2(): M - lr * outer(recall(M, k) - v, k),
        Oja(): M + lr * outer(v, k - recall(M.mT, v)),
    }
    for objective, rule in written.items():
        close(rule, M - lr * grad(lambda M, o=objective: o.value(M, k, v), M))
        close(gd(objective, M, k, v, lr), rule)


@pytest.mark.eq(5, 14, 15, 16)
@few
@given(st.integers(1, 7), st.integers(0, 10_000))
def test_linear_attention_recurrence_is_the_masked_matrix_form(T, seed):
    d, d_k, d_v = 5, 4, 3
    x, Wk, Wv, Wq = rand(T, d, seed=seed), rand(d_k, d, seed=1), rand(d_v, d, seed=2), rand(d_k, d, seed=3)
    k, v, q = x @ Wk.T, x @ Wv.T, x @ Wq.T  # eq. 14 in rows
    y, _ = memory.make("hebbian").scan(k, v, q, read="after")
    close(y, torch.tril(q @ k.T) @ v)
    keep = torch.rand(T, generator=torch.Generator().manual_seed(seed), dtype=F64) * 0.9 + 0.1
    phi = FEATURES["elu1"]
    close(phi(torch.tensor([-1.0, 0.0, 2.0])), torch.tensor([math.exp(-1), 1.0, 3.0]), 1e-6)
    y, _ = memory.make("linear_attention").scan(k, v, q, read="after", keep=keep)
    log = keep.log().cumsum(0)
    close(y, (torch.tril((log[:, None] - log[None, :]).exp()) * (phi(q) @ phi(k).T)) @ v)


@pytest.mark.eq(17, 18)
def test_hebbian_write_is_the_proximal_step_on_the_dot_product():
    M, k, v = triple(4, 3, (), 7)
    best = argmin(lambda W: -(W @ k) @ v + 0.5 * (W - M).square().sum(), torch.zeros_like(M))
    close(best, gd(Dot(), M, k, v), 1e-9)
    # The short version of the paper printed + and no 1/2: another point.
    apart(argmin(lambda W: (W @ k) @ v + (W - M).square().sum(), torch.zeros_like(M)), gd(Dot(), M, k, v))


@pytest.mark.eq(68)
@pytest.mark.parametrize("window", [1, 2, 5])
@few
@given(case, st.integers(1, 7))
def test_omega_is_gd_on_the_window(window, c, T):
    """The state after T tokens against autograd of the summed loss at M_{t-1}, token by token."""
    d_k, d_v, batch, seed = c
    k, v = rand(*batch, T, d_k, seed=seed), rand(*batch, T, d_v, seed=seed + 1)
    for objective in (L2(), Oja()):
        mem = MatrixMemory(objective, rules.Omega(window=window), rules.Retention(0.9), lr=0.05)
        M = torch.zeros(*batch, d_v, d_k, dtype=F64)
        for t in range(T):
            pairs = [(k[..., i, :], v[..., i, :]) for i in range(max(0, t - window + 1), t + 1)]
            M = 0.9 * M - 0.05 * grad(lambda M, o=objective, ps=pairs: sum(o.value(M, *p) for p in ps), M)
        close(mem.write_all(k, v).M, M)


@pytest.mark.eq(56, 57, 113, 121)
@pytest.mark.parametrize("objective", [Dot(), L2(), Lp(3.0)], ids=lambda o: o.name)
@few
@given(case, st.floats(0.05, 3.0))
def test_dgd_is_the_exact_minimiser(objective, c, lr):
    """The gradient of 1/2 |Mk - u|^2 + 1/(2 lr) |M - M_t|^2, u = -surprise held fixed, vanishes at the step."""
    M, k, v = triple(*c)
    u = -objective.surprise(M, k, v)
    new = M + rules.DGD().step(objective, M, k, v, lr, 1.0, {})[0]
    fit = lambda W: 0.5 * (recall(W, k) - u).square().sum(-1) + (W - M).square().sum((-1, -2)) / (2 * lr)  # noqa: E731
    close(grad(fit, new), torch.zeros_like(M), 1e-10 * (1 + u.abs().max() + M.abs().max()))
    close(new, M - outer(rules.dgd_rate(k, lr)[..., None] * (recall(M, k) - u), k))


@pytest.mark.eq(57)
def test_printed_dgd_rate_holds_for_unit_keys_only():
    M, k, v = triple(3, 4, (), 3)
    u, lr = v, 0.37
    for key, holds in ((k / k.norm(), True), (2.3 * k / k.norm(), False)):
        best = argmin(lambda W, x=key: 0.5 * (W @ x - u).square().sum() + (W - M).square().sum() / (2 * lr), M)
        printed = M + rules.DGD(form="printed").step(Dot(), M, key, v, lr, 1.0, {})[0]
        close(M + rules.DGD().step(Dot(), M, key, v, lr, 1.0, {})[0], best, 1e-8)
        close(printed, best, 1e-8) if holds else apart(printed, best, 0.05)


@pytest.mark.eq(56, 57)
def test_dgd_fixed_points():
    """On dot the memory comes to hold v; on l2 the old content is taken off twice and it comes to hold v/2."""
    k, v = rand(400, 4, seed=0), rand(3, 4, seed=1)
    for objective, held in (("dot", 1.0), ("l2", 0.5)):
        state = memory.make("dgd", objective=objective, lr=0.5).write_all(k, k @ v.T)
        close(state.M, held * v, 1e-9)


@pytest.mark.parametrize("objective", [Dot(), L2(), Lp(1.5), Lp(3.0)], ids=lambda o: f"{o.name}{getattr(o, 'p', '')}")
@few
@given(case, st.floats(0.05, 3.0))
def test_implicit_is_the_proximal_point(objective, c, lr):
    M, k, v = triple(*c)
    new = M + rules.Implicit().step(objective, M, k, v, lr, 1.0, {})[0]
    total = lambda W: objective.value(W, k, v) + (W - M).square().sum((-1, -2)) / (2 * lr)  # noqa: E731
    size = 1 + objective.grad(M, k, v).abs().max() + M.abs().max() / lr
    close(grad(total, new), torch.zeros_like(M), float(1e-7 * size))


@pytest.mark.eq(57, 65)
@few
@given(case, st.floats(0.05, 3.0))
def test_implicit_delta_is_dgd_on_dot(c, lr):
    """Two roads to Longhorn: squared error solved exactly, or DGD of the dot product."""
    M, k, v = triple(*c)
    a = rules.Implicit().step(L2(), M, k, v, lr, 1.0, {})[0]
    close(a, rules.DGD().step(Dot(), M, k, v, lr, 1.0, {})[0])


@pytest.mark.eq(6, 68, 117)
@few
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 9), st.floats(0.5, 1.0), st.integers(0, 1000))
def test_rls_is_discounted_ridge_regression(d_k, d_v, T, keep, seed):
    k, v, M0 = rand(T, d_k, seed=seed), rand(T, d_v, seed=seed + 1), rand(d_v, d_k, seed=seed + 2)
    weight = torch.rand(T, generator=torch.Generator().manual_seed(seed), dtype=F64) + 0.1
    mem = memory.make("rls", ridge=0.5)
    state = mem.write_all(k, v, mem.init(d_k, d_v, M0=M0, dtype=F64), lr=weight, keep=keep)
    w = weight * keep ** torch.arange(T - 1, -1, -1, dtype=F64)
    ridge = 0.5 * keep**T
    G = (w[:, None] * k).T @ k + ridge * torch.eye(d_k, dtype=F64)
    close(state.M, torch.linalg.solve(G, ((w[:, None] * k).T @ v + ridge * M0.T)).T, 1e-9)


def test_rls_without_ridge_tends_to_the_pseudo_inverse():
    k, v = rand(8, 3, seed=0), rand(8, 4, seed=1)
    close(memory.make("rls", ridge=1e-9).write_all(k, v).M, v.T @ torch.linalg.pinv(k.T), 1e-6)


# ---- printed forms that fail (the corrected ones are tested above) ----


@pytest.mark.eq(64, 65, 66, 67, 68)
def test_printed_forms_of_the_sequence_rules_fail():
    M, k, v = triple(4, 4, (), 5)
    eye, lr = torch.eye(4, dtype=F64), 0.1
    # 64: the printed loss has a factor 2 that the printed gradient lacks.
    printed = grad(lambda M: -2 * (M @ k) @ v, M)
    close(printed, -2 * torch.outer(v, k))
    apart(printed, -torch.outer(v, k))
    # 65: the erasing factor on the left is wrong even where the shapes allow it; it fits the transposed state.
    left = (eye - lr * torch.outer(k, k)) @ M + lr * torch.outer(v, k)
    apart(left, gd(L2(), M, k, v, lr))
    close(((eye - lr * torch.outer(k, k)) @ M.T + lr * torch.outer(k, v)).T, gd(L2(), M, k, v, lr))
    N, j, _ = triple(3, 5, (), 6)
    with pytest.raises(RuntimeError):
        (torch.eye(3, dtype=F64) - torch.outer(j, j)) @ N
    # 66-67: a row minus a column broadcasts to a matrix, a vector minus a matrix too; neither is the gradient.
    apart(M + lr * v @ (k[None, :] - (M.T @ v)[:, None]), gd(Oja(), M, k, v, lr))
    apart((M.T @ v) - torch.outer(v, k), Oja().grad(M, k, v))
    # 68: losses subtracted from a matrix.
    apart(M - lr * L2().value(M, k, v), gd(L2(), M, k, v, lr))


@pytest.mark.eq(66, 67)
def test_oja_neuron_finds_the_principal_direction():
    """v = y = M k (Oja 1982): the row comes to length 1 along the direction of largest variance."""
    x = rand(6000, 4, seed=0) * torch.tensor([2.0, 1.0, 0.5, 0.2], dtype=F64)
    w = rand(1, 4, seed=1)
    for k in x:
        w = gd(Oja(), w, k, w @ k, 0.004)
    assert abs(float(w.norm()) - 1) < 0.06 and abs(float(w[0, 0])) > 0.97


# ---- retention ----


@few
@given(case, st.floats(0.1, 1.0), st.floats(0.0, 1.0))
def test_retention_is_the_proximal_centre(c, keep, lr):
    """The decay gives the centre that the step starts from; 'old' and 'kept' differ in where the gradient is taken."""
    M, k, v = triple(*c)
    d_k, d_v, batch, seed = c
    start = rand(*batch, d_v, d_k, seed=seed + 3)
    for towards, centre in (("zero", keep * M), ("initial", keep * M + (1 - keep) * start)):
        for at in ("old", "kept"):
            mem = MatrixMemory("l2", rules.GD(), rules.Retention(keep, towards, at), lr=lr)
            state = mem.init(d_k, d_v, batch, M0=start, dtype=F64)
            state = type(state)(M, start, state.batch, d_k, d_v, {})
            place = M if at == "old" else centre
            close(mem.write(state, k, v).M, centre - lr * L2().grad(place, k, v))


@pytest.mark.eq(65)
def test_gated_delta_decays_before_it_erases():
    M, k, v = triple(4, 3, (), 0)
    mem = memory.make("gated_delta", keep=0.8, lr=0.5)
    state = mem.init(4, 3, M0=M, dtype=F64)
    erase = torch.eye(4, dtype=F64) - 0.5 * torch.outer(k, k)
    close(mem.write(state, k, v).M, 0.8 * M @ erase + 0.5 * torch.outer(v, k))


def test_pull_towards_the_initial_state_forgets_to_it():
    M0 = rand(3, 4, seed=9)
    mem = memory.make("delta", keep=0.5, towards="initial")
    state = mem.write(mem.init(4, 3, M0=M0, dtype=F64), rand(4, seed=1), rand(3, seed=2))
    state = mem.write_all(torch.zeros(60, 4, dtype=F64), torch.zeros(60, 3, dtype=F64), state)
    close(state.M, M0, 1e-12)


@pytest.mark.eq(68)
def test_omega_weights_go_by_age_newest_first():
    k, v = rand(4, 3, seed=0), rand(4, 2, seed=1)
    weights = (1.0, 0.5, 0.25)
    M = torch.zeros(2, 3, dtype=F64)
    for t in range(4):
        grads = [w * L2().grad(M, k[t - age], v[t - age]) for age, w in enumerate(weights) if t >= age]
        M = M - 0.1 * sum(grads)
    close(memory.make("omega", window=3, weights=weights, lr=0.1).write_all(k, v).M, M)


# ---- defaults that hold ----


@pytest.mark.parametrize("name", memory.names())
@pytest.mark.parametrize("d", [2, 8, 32])
def test_every_memory_stays_bounded_at_its_defaults(name, d):
    """Unit keys and normal values, 200 tokens of 6 sequences: answers of the size of sums of values at most."""
    k, v = rand(6, 200, d, dtype=torch.float32), rand(6, 200, d, seed=1, dtype=torch.float32)
    k = torch.nn.functional.normalize(k, dim=-1)
    y, _ = memory.make(name).scan(k, v, k)
    features = d + 3 if name == "linear_attention" else 1  # the squared length of elu(k) + 1
    assert torch.isfinite(y).all() and y.norm(dim=-1).max() < 200 * features * v.norm(dim=-1).max()


@few
@given(case, st.floats(0.01, 100.0), st.floats(0.01, 100.0))
def test_a_capped_write_never_expands(c, lr, size):
    """l2: what two states differ by; oja: too, for |v|^2; lp: no entry of the error grows or changes its sign."""
    M, k, v = triple(*c)
    other, rule = rand(*M.shape, seed=c[3] + 9), rules.GD(capped=True)
    for objective in (L2(), Oja()):
        a, b = (X + rule.step(objective, X, size * k, size * v, lr, 1.0, {})[0] for X in (M, other))
        grown = torch.linalg.matrix_norm(a - b) / torch.linalg.matrix_norm(M - other)
        assert (grown <= 1 + 1e-9).all()
    for p in (1.0, 1.5, 3.0, 5.0):
        before = recall(M, size * k) - v
        after = recall(M + rule.step(Lp(p), M, size * k, v, lr, 1.0, {})[0], size * k) - v
        assert (after.abs() <= before.abs() * (1 + 1e-9)).all() and (after * before >= -1e-9 * before.square()).all()
    free = rules.GD().step(L2(), M, k, v, 0.1 / (1 + k.square().sum(-1)), 1.0, {})[0]
    close(rule.step(L2(), M, k, v, 0.1 / (1 + k.square().sum(-1)), 1.0, {})[0], free)  # small rates are not touched
    close(rule.step(Dot(), M, k, v, lr, 1.0, {})[0], rules.GD().step(Dot(), M, k, v, lr, 1.0, {})[0])


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.97])
def test_rls_with_one_key_for_ever_neither_winds_up_nor_stops_learning(keep):
    k = torch.eye(4)[:1].expand(3000, 4)
    v = torch.cat([torch.ones(1500, 4), 2 * torch.ones(1500, 4)])
    state = memory.make("rls", keep=keep).write_all(k[:1500], v[:1500])
    close(state.M[:, 0], torch.ones(4), 1e-3)
    state = memory.make("rls", keep=keep).write_all(k[1500:], v[1500:], state)
    close(state.M[:, 0], 2 * torch.ones(4), 1e-3)
    assert torch.isfinite(state.extra["P"]).all() and torch.linalg.eigvalsh(state.extra["P"]).min() > 0


@pytest.mark.parametrize("impl", ["loop", "chunked"])
@pytest.mark.parametrize("temperature", [None, 0.0])
def test_pairs_of_weight_0_do_not_count(impl, temperature):
    k, v, q = (rand(4, 3, seed=s) for s in range(3))
    mem, lr = memory.make("softmax", temperature=temperature), torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=F64)
    y, _ = mem.scan(k, v, q, None, "after", lr=lr.requires_grad_(), impl=impl)
    close(y[:2], torch.zeros(2, 3, dtype=F64))
    close(y[2], v[2])
    y.sum().backward()
    assert torch.isfinite(lr.grad).all()


def test_the_first_layer_of_an_mlp_is_pulled_to_its_start_too():
    """eq. M0 + keep (M - M0) for both layers, one gradient step on top."""
    mem = memory.make("mlp", keep=0.6, lr=0.2, hidden=5, towards="initial")
    state = mem.write_all(rand(3, 4), rand(3, 4, seed=1))
    k, v = rand(4, seed=2), rand(4, seed=3)
    g1, g2 = mem.grads(state, k, v)
    new = mem.write(state, k, v)
    start = mem.init(4, 4, dtype=F64)
    close(new.M, start.M + 0.6 * (state.M - start.M) - 0.2 * g1)
    W2, W2_start = state.extra["W2"], start.extra["W2"]
    close(new.extra["W2"], W2_start + 0.6 * (W2 - W2_start) - 0.2 * g2)
    apart(W2, W2_start)
