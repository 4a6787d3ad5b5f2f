"""Memories: every rule against autograd of its stated objective, the protocol, the printed forms that fail, measured facts."""
from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nlbook import memory
from nlbook.errors import NLBookError
from nlbook.memory import MatrixMemory, Retention, objectives, rules
from nlbook.tasks import recall as task

F64 = torch.float64
LINEAR = ["hebbian", "linear_attention", "decay", "delta", "gated_delta", "oja", "omega", "implicit", "dgd", "lp", "rls"]
EVERY = memory.names()
OBJECTIVES = [objectives.Dot(), objectives.L2(), objectives.Lp(1.0), objectives.Lp(1.5), objectives.Lp(3.0), objectives.Oja()]
# Shapes and seeds of one case. Few examples each: a case is random in every entry anyway.
case = st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([(), (3,), (2, 2)]), st.integers(0, 10_000))
few = settings(max_examples=15, deadline=None)


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def triple(d_k: int, d_v: int, batch: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    return rand(*batch, d_v, d_k, seed=seed), rand(*batch, d_k, seed=seed + 1), rand(*batch, d_v, seed=seed + 2)


def autograd(fn, M: Tensor) -> Tensor:
    """The gradient that torch computes, of the sum over the batch (sequences do not touch)."""
    M = M.detach().requires_grad_()
    return torch.autograd.grad(fn(M).sum(), M)[0]


def minimise(fn, start: Tensor) -> Tensor:
    """An independent numerical argmin of a convex function: Newton's method on autograd's derivatives."""
    x = start.detach().flatten()
    for _ in range(20):
        flat = lambda z: fn(z.reshape(start.shape)).sum()  # noqa: E731
        gradient = torch.autograd.functional.jacobian(flat, x)
        if gradient.abs().max() < 1e-13:
            break
        x = x - torch.linalg.solve(torch.autograd.functional.hessian(flat, x), gradient)
    return x.reshape(start.shape)


def close(a: Tensor, b: Tensor, tol: float = 1e-11) -> None:
    assert a.shape == b.shape
    assert (a - b).abs().max() <= tol * (1 + b.abs().max()), f"max difference {(a - b).abs().max():.2e}"


def apart(a: Tensor, b: Tensor, at_least: float = 1e-3) -> None:
    assert (a - b).abs().max() >= at_least, "a printed form that should fail holds"


# ---- objectives ----

@pytest.mark.eq(6, 8, 17, 64, 65, 67)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.name}{getattr(o, 'p', '')}")
@few
@given(case)
def test_gradient_is_autograd_of_the_stated_objective(objective, c):
    M, k, v = triple(*c)
    close(objective.grad(M, k, v), autograd(lambda M: objective.value(M, k, v), M))
    if objective.through_answer:
        y = objectives.recall(M, k)
        s = objective.surprise(M, k, v)
        close(s, autograd(lambda y: objective.value(y.unsqueeze(-1), torch.ones_like(y[..., :1]), v), y))
        close(objective.grad(M, k, v), objectives.outer(s, k))  # rank one: surprise times key


@pytest.mark.parametrize("p", [1.0, 1.3, 2.0, 2.5, 4.0])
@few
@given(case, st.floats(0.01, 5.0))
def test_implicit_surprise_solves_its_own_equation(p, c, lr):
    """s(y') = gradient at y' = y - c s: checked as a fixed point, and differentiable where the root is smooth."""
    M, k, v = triple(*c)
    objective, y = objectives.Lp(p), objectives.recall(M, k)
    c_ = (lr * k.square().sum(-1)).unsqueeze(-1)
    s = objective.implicit_surprise(y, v, c_)
    after = y - c_ * s
    if p == 1:  # the subgradient of |r| at 0 is any number in [-1, 1]
        assert (s.abs() <= 1 + 1e-12).all()
        moved = (after - v).abs() > 1e-9
        close(s[moved], (after - v)[moved].sign(), 1e-9) if moved.any() else None
    else:
        close(s, objective.surprise_at(after, v), 1e-7)
    if p == 2:
        close(s, objectives.L2().implicit_surprise(y, v, c_), 1e-9)


def test_l2_is_lp_with_p_2_and_bad_names_are_refused():
    M, k, v = triple(3, 4, (2,), 0)
    close(objectives.Lp(2.0).value(M, k, v), objectives.L2().value(M, k, v))
    close(objectives.Lp(2.0).grad(M, k, v), objectives.L2().grad(M, k, v))
    with pytest.raises(NLBookError, match="p: got 0.5"):
        objectives.Lp(0.5)
    with pytest.raises(NLBookError, match="objective: got 'l3'"):
        objectives.get_objective("l3")
    with pytest.raises(NLBookError, match="objective: got oja"):
        objectives.Oja().surprise(M, k, v)


# ---- learning rules ----

@pytest.mark.eq(1, 15, 16, 18, 54, 64, 65, 66, 67)
@few
@given(case, st.floats(0.0, 2.0))
def test_named_rules_are_one_gradient_step(c, lr):
    M, k, v = triple(*c)
    for rule, objective in ((rules.hebbian, objectives.Dot()), (rules.delta, objectives.L2()), (rules.oja, objectives.Oja())):
        step = M - lr * autograd(lambda M, o=objective: o.value(M, k, v), M)
        close(rule(M, k, v, lr), step)
        close(M + rules.GD().step(objective, M, k, v, lr, 1.0, {})[0], step)


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
    phi = memory.FEATURES["elu1"]
    y, _ = memory.make("linear_attention").scan(k, v, q, read="after", keep=keep)
    log = keep.log().cumsum(0)
    close(y, (torch.tril((log[:, None] - log[None, :]).exp()) * (phi(q) @ phi(k).T)) @ v)


@pytest.mark.eq(17, 18)
def test_hebbian_write_is_the_proximal_step_on_the_dot_product():
    M, k, v = triple(4, 3, (), 7)
    argmin = minimise(lambda W: -(W @ k) @ v + 0.5 * (W - M).square().sum(), torch.zeros_like(M))
    close(argmin, rules.hebbian(M, k, v), 1e-9)
    # The short version of the paper printed + and no 1/2: another point.
    apart(minimise(lambda W: (W @ k) @ v + (W - M).square().sum(), torch.zeros_like(M)), rules.hebbian(M, k, v))


@pytest.mark.eq(68)
@pytest.mark.parametrize("window", [1, 2, 5])
@few
@given(case, st.integers(1, 7))
def test_omega_is_gd_on_the_window(window, c, T):
    """The state after T tokens against autograd of the summed loss at M_{t-1}, token by token."""
    d_k, d_v, batch, seed = c
    k, v = rand(*batch, T, d_k, seed=seed), rand(*batch, T, d_v, seed=seed + 1)
    for objective in (objectives.L2(), objectives.Oja()):
        mem = MatrixMemory(objective, rules.Omega(window=window), Retention(0.9), lr=0.05)
        M = torch.zeros(*batch, d_v, d_k, dtype=F64)
        for t in range(T):
            span = range(max(0, t - window + 1), t + 1)
            M = 0.9 * M - 0.05 * autograd(lambda M: sum(objective.value(M, k[..., i, :], v[..., i, :]) for i in span), M)
        close(mem.write_all(k, v).M, M)
    close(rules.omega(M, k[..., -1:, :], v[..., -1:, :], 0.1), rules.delta(M, k[..., -1, :], v[..., -1, :], 0.1))


@pytest.mark.eq(56, 57, 113, 121)
@pytest.mark.parametrize("objective", [objectives.Dot(), objectives.L2(), objectives.Lp(3.0)], ids=lambda o: o.name)
@few
@given(case, st.floats(0.05, 3.0))
def test_dgd_is_the_exact_minimiser(objective, c, lr):
    """The gradient of 1/2 |Mk - u|^2 + 1/(2 lr) |M - M_t|^2, u = -surprise held fixed, vanishes at the step."""
    M, k, v = triple(*c)
    u = -objective.surprise(M, k, v)
    new = M + rules.DGD().step(objective, M, k, v, lr, 1.0, {})[0]
    fit = lambda W: 0.5 * (objectives.recall(W, k) - u).square().sum(-1) + (W - M).square().sum((-1, -2)) / (2 * lr)  # noqa: E731
    close(autograd(fit, new), torch.zeros_like(M), 1e-10 * (1 + u.abs().max() + M.abs().max()))
    close(new, rules.dgd(M, k, -u, lr))


@pytest.mark.eq(57)
def test_printed_dgd_rate_holds_for_unit_keys_only():
    M, k, v = triple(3, 4, (), 3)
    u, lr = v, 0.37
    for key, holds in ((k / k.norm(), True), (2.3 * k / k.norm(), False)):
        best = minimise(lambda W, x=key: 0.5 * (W @ x - u).square().sum() + (W - M).square().sum() / (2 * lr), M)
        printed = M + rules.DGD(form="printed").step(objectives.Dot(), M, key, v, lr, 1.0, {})[0]
        close(M + rules.DGD().step(objectives.Dot(), M, key, v, lr, 1.0, {})[0], best, 1e-8)
        close(printed, best, 1e-8) if holds else apart(printed, best, 0.05)


@pytest.mark.eq(56, 57)
def test_dgd_fixed_points():
    """On dot the memory comes to hold v; on l2 the old content is taken off twice and it comes to hold v/2."""
    k, v = rand(400, 4, seed=0), rand(3, 4, seed=1)
    for objective, held in (("dot", 1.0), ("l2", 0.5)):
        state = memory.make("dgd", objective=objective, lr=0.5).write_all(k, k @ v.T)
        close(state.M, held * v, 1e-9)


@pytest.mark.parametrize("objective", [objectives.Dot(), objectives.L2(), objectives.Lp(1.5), objectives.Lp(3.0)],
                         ids=lambda o: f"{o.name}{getattr(o, 'p', '')}")
@few
@given(case, st.floats(0.05, 3.0))
def test_implicit_is_the_proximal_point(objective, c, lr):
    M, k, v = triple(*c)
    new = M + rules.Implicit().step(objective, M, k, v, lr, 1.0, {})[0]
    total = lambda W: objective.value(W, k, v) + (W - M).square().sum((-1, -2)) / (2 * lr)  # noqa: E731
    size = 1 + objective.grad(M, k, v).abs().max() + M.abs().max() / lr
    close(autograd(total, new), torch.zeros_like(M), float(1e-7 * size))


@pytest.mark.eq(57, 65)
@few
@given(case, st.floats(0.05, 3.0))
def test_implicit_delta_is_dgd_on_dot(c, lr):
    """Two roads to Longhorn: squared error solved exactly, or DGD of the dot product."""
    M, k, v = triple(*c)
    a = rules.Implicit().step(objectives.L2(), M, k, v, lr, 1.0, {})[0]
    close(a, rules.DGD().step(objectives.Dot(), M, k, v, lr, 1.0, {})[0])


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
    printed = autograd(lambda M: -2 * (M @ k) @ v, M)
    close(printed, -2 * torch.outer(v, k))
    apart(printed, -torch.outer(v, k))
    # 65: the erasing factor on the left is wrong even where the shapes allow it; it fits the transposed state.
    left = (eye - lr * torch.outer(k, k)) @ M + lr * torch.outer(v, k)
    apart(left, rules.delta(M, k, v, lr))
    close(((eye - lr * torch.outer(k, k)) @ M.T + lr * torch.outer(k, v)).T, rules.delta(M, k, v, lr))
    N, j, w = triple(3, 5, (), 6)
    with pytest.raises(RuntimeError):
        (torch.eye(3, dtype=F64) - torch.outer(j, j)) @ N
    # 66-67: a row minus a column broadcasts to a matrix, a vector minus a matrix too; neither is the gradient.
    apart(M + lr * v @ (k[None, :] - (M.T @ v)[:, None]), rules.oja(M, k, v, lr))
    apart((M.T @ v) - torch.outer(v, k), objectives.Oja().grad(M, k, v))
    # 68: losses subtracted from a matrix.
    apart(M - lr * objectives.L2().value(M, k, v), rules.omega(M, k[None], v[None], lr))


@pytest.mark.eq(66, 67)
def test_oja_neuron_finds_the_principal_direction():
    """v = y = M k (Oja 1982): the row comes to length 1 along the direction of largest variance."""
    x = rand(6000, 4, seed=0) * torch.tensor([2.0, 1.0, 0.5, 0.2], dtype=F64)
    w = rand(1, 4, seed=1)
    for k in x:
        w = rules.oja(w, k, w @ k, 0.004)
    assert abs(float(w.norm()) - 1) < 0.06 and abs(float(w[0, 0])) > 0.97


# ---- retention ----

@few
@given(case, st.floats(0.1, 1.0), st.floats(0.0, 1.0))
def test_retention_is_the_proximal_centre(c, keep, lr):
    """keep M (or the pull to the start) is the minimiser of the pull alone; 'old' and 'kept' differ in the gradient's place."""
    M, k, v = triple(*c)
    d_k, d_v, batch, seed = c
    start = rand(*batch, d_v, d_k, seed=seed + 3)
    for towards, centre in (("zero", keep * M), ("initial", keep * M + (1 - keep) * start)):
        for at in ("old", "kept"):
            mem = MatrixMemory("l2", rules.GD(), Retention(keep, towards, at), lr=lr)
            state = mem.init(d_k, d_v, batch, M0=start, dtype=F64)
            state = type(state)(M, start, state.batch, d_k, d_v, {})
            place = M if at == "old" else centre
            close(mem.write(state, k, v).M, centre - lr * objectives.L2().grad(place, k, v))


@pytest.mark.eq(65)
def test_gated_delta_decays_before_it_erases():
    M, k, v = triple(4, 3, (), 0)
    mem = memory.make("gated_delta", keep=0.8, lr=0.5)
    state = mem.init(4, 3, M0=M, dtype=F64)
    close(mem.write(state, k, v).M, 0.8 * M @ (torch.eye(4, dtype=F64) - 0.5 * torch.outer(k, k)) + 0.5 * torch.outer(v, k))


def test_pull_towards_the_initial_state_forgets_to_it():
    M0 = rand(3, 4, seed=9)
    mem = memory.make("delta", keep=0.5, towards="initial")
    state = mem.write(mem.init(4, 3, M0=M0, dtype=F64), rand(4, seed=1), rand(3, seed=2))
    state = mem.write_all(torch.zeros(60, 4, dtype=F64), torch.zeros(60, 3, dtype=F64), state)
    close(state.M, M0, 1e-12)


# ---- the protocol ----

def stream(T: int = 6, d: int = 4, batch: tuple[int, ...] = (3,), seed: int = 0, dtype=F64) -> tuple[Tensor, Tensor, Tensor]:
    return (task.unit(rand(*batch, T, d, seed=seed)).to(dtype), rand(*batch, T, d, seed=seed + 1, dtype=dtype),
            rand(*batch, T, d, seed=seed + 2, dtype=dtype))


@pytest.mark.parametrize("name", EVERY)
def test_scan_is_write_and_read_in_turn(name):
    """read="before" sees tokens < t, "after" tokens <= t; `before` at t is `after` at t - 1 with the same query."""
    mem, (k, v, q) = memory.make(name), stream()
    for read in ("before", "after"):
        y, end = mem.scan(k, v, q, read=read)
        state = mem.init(4, 4, (3,), dtype=F64)
        for t in range(6):
            if read == "before":
                close(y[:, t], mem.read(state, q[:, t]))
            state = mem.write(state, k[:, t], v[:, t])
            if read == "after":
                close(y[:, t], mem.read(state, q[:, t]))
        close(end.M, state.M)
        close(mem.write_all(k, v).M, state.M)
    close(mem.read(state, q)[:, 2], mem.read(state, q[:, 2]))  # many queries at once are many single ones


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("cut", [0, 1, 4, 6])
def test_streaming_cut_anywhere_is_one_call(name, cut):
    mem, (k, v, q) = memory.make(name, **({"window": 3} if name in ("omega", "sliding_window") else {})), stream()
    y, end = mem.scan(k, v, q)
    y1, state = mem.scan(k[:, :cut], v[:, :cut], q[:, :cut])
    y2, state = mem.scan(k[:, cut:], v[:, cut:], q[:, cut:], state)
    close(torch.cat([y1, y2], 1), y)
    close(state.M, end.M)


@pytest.mark.parametrize("name", EVERY)
def test_a_later_token_changes_no_earlier_answer(name):
    mem, (k, v, q) = memory.make(name), stream()
    t = 3
    k2, v2 = k.clone(), v.clone()
    k2[:, t], v2[:, t] = k[:, t].flip(-1), -v[:, t] + 1
    for read, first in (("before", t + 1), ("after", t)):
        a, b = mem.scan(k, v, q, read=read)[0], mem.scan(k2, v2, q, read=read)[0]
        close(a[:, :first], b[:, :first], 0)
        apart(a[:, first:], b[:, first:], 1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_a_sequence_has_its_own_memory(name):
    """Batched equals one by one, and writing to one sequence leaves its neighbours bit for bit alone."""
    mem, (k, v, q) = memory.make(name), stream()
    y, end = mem.scan(k, v, q)
    for b in range(3):
        alone, state = mem.scan(k[b], v[b], q[b])
        close(y[b], alone)
        close(end.M[b], state.M)
    v2 = v.clone()
    v2[1] += 1
    y2, _ = mem.scan(k, v2, q)
    close(y2[[0, 2]], y[[0, 2]], 0)
    apart(y2[1], y[1], 1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_states_are_values_and_dtypes_are_kept(name):
    for dtype in (torch.float32, F64):
        mem, (k, v, q) = memory.make(name), stream(dtype=dtype)
        state = mem.init(4, 4, (3,), dtype=dtype)
        before = state.M.clone()
        after = mem.write(state, k[:, 0], v[:, 0])
        assert state.M.shape == before.shape and (state.M == before).all()
        y, end = mem.scan(k, v, q)
        assert y.dtype == end.M.dtype == after.M.dtype == dtype
        assert all(x.dtype == dtype for x in end.extra.values())
    y32, _ = mem.scan(*(x.float() for x in (k, v, q)))
    close(y32.double(), y, 1e-4)  # float32 agrees with float64


@pytest.mark.parametrize("name", EVERY)
def test_everything_is_differentiable(name):
    """Gradients of a scan with respect to keys, values, queries, rates and retention against finite differences."""
    mem = memory.make(name, **({"hidden": 3} if name == "mlp" else {}))
    k, v, q = (x.requires_grad_() for x in stream(T=3, d=2, batch=(2,)))
    lr = torch.full((2, 3), 0.3, dtype=F64, requires_grad=True)
    keep = torch.full((2, 3), 0.9, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: mem.scan(*a[:3], lr=a[3], keep=a[4], read="after")[0], (k, v, q, lr, keep))


@pytest.mark.parametrize("name", EVERY)
def test_rates_per_token_and_as_numbers_agree(name):
    mem, (k, v, q) = memory.make(name), stream()
    a = mem.scan(k, v, q, lr=0.3, keep=0.9)[0]
    close(mem.scan(k, v, q, lr=torch.full((3, 6), 0.3, dtype=F64), keep=torch.full((3, 6), 0.9, dtype=F64))[0], a)
    close(mem.scan(k, v, q, lr=torch.tensor(0.3, dtype=F64), keep=torch.tensor(0.9, dtype=F64))[0], a)
    lr = torch.full((3, 6), 0.3, dtype=F64)
    lr[1, 2] = 0.0  # a rate of zero writes nothing
    if name not in ("omega", "softmax", "sliding_window"):  # their windows keep the pair: other tokens' rates apply to it
        state = mem.init(4, 4, (3,), dtype=F64)
        wrote = mem.write(state, k[:, 2], v[:, 2], lr=lr[:, 2])
        close(wrote.M[1], state.M[1], 1e-12)
        apart(wrote.M[0], state.M[0], 1e-3)


def test_many_passes_are_many_scans():
    mem, (k, v, _) = memory.make("delta", lr=0.4), stream()
    twice = mem.write_all(k, v, mem.write_all(k, v))
    close(mem.write_all(k, v, passes=2).M, twice.M)


@pytest.mark.parametrize("name", EVERY)
def test_bad_input_names_the_argument(name):
    mem, (k, v, q) = memory.make(name), stream()
    state = mem.init(4, 4, (3,), dtype=F64)
    k0, v0 = k[:, 0], v[:, 0]
    for message, call in {
        r"k: got shape \(4,\)": lambda: mem.write(state, k0[0], v0),
        r"k: got shape \(1, 4\)": lambda: mem.write(state, k0[:1], v0),              # no silent broadcast over the batch
        r"v: got shape \(3, 5\)": lambda: mem.write(state, k0, torch.zeros(3, 5, dtype=F64)),
        r"v: got torch.float32": lambda: mem.write(state, k0, v0.float()),
        r"k: got dtype torch.int64": lambda: mem.write(state, k0.long(), v0),
        r"q: got list": lambda: mem.read(state, [1.0]),
        r"q: got shape \(3, 6, 3\)": lambda: mem.read(state, q[..., :3]),
        r"q: got shape \(3, 5, 4\)": lambda: mem.scan(k, v, q[:, :5]),
        r"v: got shape \(3, 5, 4\)": lambda: mem.scan(k, v[:, :5], q),
        r"k: got shape \(4,\), expected \(\.\.\., length, dim\)": lambda: mem.scan(k[0, 0], v, q),
        r"read: got 'during'": lambda: mem.scan(k, v, q, read="during"),
        r"lr: got -0.1": lambda: mem.write(state, k0, v0, lr=-0.1),
        r"lr: got shape \(6,\)": lambda: mem.scan(k, v, q, lr=torch.ones(6, dtype=F64)),
        r"lr: got torch.float32": lambda: mem.scan(k, v, q, lr=torch.ones(3, 6)),
        r"lr: got str": lambda: mem.write(state, k0, v0, lr="1"),
        r"keep: got 0": lambda: mem.write(state, k0, v0, keep=0),
        r"keep: got 1.1": lambda: mem.write(state, k0, v0, keep=1.1),
        r"keep: got values from 0 to 0": lambda: mem.scan(k, v, q, keep=torch.zeros(3, 6, dtype=F64)),
        r"passes: got 0": lambda: mem.write_all(k, v, passes=0),
        r"lr: got nan": lambda: memory.make(name, lr=float("nan")),
        r"keep: got 2": lambda: memory.make(name, keep=2.0),
    }.items():
        with pytest.raises(NLBookError, match=message):
            call()


def test_bad_parts_name_the_argument():
    for message, call in {
        "name: got 'hopfield'": lambda: memory.make("hopfield"),
        "window: got an argument": lambda: memory.make("delta", window=3),
        "window: got 0": lambda: memory.make("omega", window=0),
        "window: got 0, expected None": lambda: memory.make("sliding_window", window=0),
        "weights: got": lambda: memory.make("omega", window=3, weights=(1.0,)),
        "ridge: got 0": lambda: memory.make("rls", ridge=0.0),
        "form: got 'paper'": lambda: rules.dgd_rate(torch.ones(2), 1.0, "paper"),
        "towards: got 'one'": lambda: Retention(towards="one"),
        "gradient_at: got 'new'": lambda: Retention(gradient_at="new"),
        "objective: got oja": lambda: MatrixMemory("oja", rules.DGD()),
        "objective: got dot, expected l2": lambda: MatrixMemory("dot", rules.RLS()),
        "towards: got 'initial'": lambda: memory.make("rls", towards="initial"),
        "phi: got 'exp'": lambda: memory.make("hebbian", phi="exp"),
        "temperature: got -1": lambda: memory.make("softmax", temperature=-1.0),
        "kernel: got 'laplace'": lambda: memory.make("softmax", kernel="laplace"),
        "hidden: got 0": lambda: memory.make("mlp", hidden=0),
        "d_v: got 3, expected 4": lambda: memory.make("mlp").init(4, 3),
        "d_k: got 0": lambda: memory.make("delta").init(0, 3),
        "M0: got shape": lambda: memory.make("delta").init(4, 3, M0=torch.zeros(4, 3)),
        "M0: got a tensor": lambda: memory.make("softmax").init(4, 3, M0=torch.zeros(3, 4)),
    }.items():
        with pytest.raises(NLBookError, match=message):
            call()


def test_the_three_parts_are_visible():
    text = repr(memory.make("gated_delta", lr=0.5))
    assert all(part in text for part in ("gated_delta(lr=0.5)", "objective  ½|Mk − v|²", "rule       M − η∇L", "retention  αM"))
    rows = memory.table()
    assert [row["memory"] for row in rows] == EVERY
    assert {"memory", "objective", "learning rule", "retention", "source"} == set(rows[0])
    assert len(repr(rows).splitlines()) == len(EVERY) + 2
    markdown = memory.table("delta", "softmax")._repr_markdown_().splitlines()
    assert len(markdown) == 4 and r"½\|Mk − v\|²" in markdown[2]
    assert len({(row["objective"], row["learning rule"], row["retention"], "elu" in row["memory"]) for row in rows}) >= len(EVERY) - 1


def test_state_counts_its_floats():
    d, T = 4, 6
    k, v, _ = stream(T, d)
    sizes = {name: memory.make(name).write_all(k, v).floats() for name in EVERY}
    assert sizes["delta"] == sizes["decay"] == sizes["oja"] == d * d
    assert sizes["rls"] == 2 * d * d
    assert sizes["omega"] == d * d + 8 * (2 * d + 1)
    assert sizes["softmax"] == T * (2 * d + 1)
    assert memory.make("sliding_window", window=2).write_all(k, v).floats() == 2 * (2 * d + 1)
    assert sizes["mlp"] == 2 * d * 64


def test_detach_cuts_the_past():
    mem, (k, v, q) = memory.make("delta"), stream()
    k.requires_grad_()
    state = mem.write(mem.init(4, 4, (3,), dtype=F64), k[:, 0], v[:, 0])
    assert state.M.requires_grad and not state.detach().M.requires_grad


# ---- the deep memory, the cache, a learned start ----

@pytest.mark.eq(29)
@pytest.mark.parametrize("objective", ["dot", "l2", "lp"])
@pytest.mark.parametrize("residual", [True, False])
def test_mlp_gradients_are_autograd(objective, residual):
    mem = memory.make("mlp", objective=objective, residual=residual, hidden=5)
    k, v, _ = stream()
    state = mem.write_all(k, v, lr=0.1)
    W1, W2 = state.M.requires_grad_(), state.extra["W2"].requires_grad_()
    y = (W1 @ torch.nn.functional.silu(W2 @ k[:, 0, :, None]))[..., 0] + (k[:, 0] if residual else 0)
    loss = mem.objective.value(y.unsqueeze(-1), torch.ones_like(y[..., :1]), v[:, 0]).sum()
    for ours, theirs in zip(mem.grads(state, k[:, 0], v[:, 0]), torch.autograd.grad(loss, (W1, W2))):
        close(ours, theirs)
    close(mem.read(state, k[:, 0]), y)


def test_mlp_steps_are_repeated_writes_with_one_decay():
    k, v, _ = stream()
    mem, one = memory.make("mlp", steps=3), memory.make("mlp")
    state = one.init(4, 4, (3,), dtype=F64)
    thrice = state
    for _ in range(3):
        thrice = one.write(thrice, k[:, 0], v[:, 0])
    close(mem.write(state, k[:, 0], v[:, 0]).M, thrice.M)
    assert (mem.init(4, 4).extra["W2"] == mem.init(4, 4).extra["W2"]).all()  # the start comes from the seed
    assert (memory.make("mlp", seed=1).init(4, 4).extra["W2"] != mem.init(4, 4).extra["W2"]).any()


@pytest.mark.eq(4, 28)
def test_a_learned_start_is_learned_after_the_inner_steps():
    """Eq. 28 is printed without the inner adaptation; then it is plain training. With it, tasks are weighed a (1 - lr a)^2."""
    a, b, lr = torch.tensor([1.0, 4.0, 0.5], dtype=F64), torch.tensor([-1.0, 2.0, 5.0], dtype=F64), 0.2
    mem = memory.make("delta", lr=lr)
    k, v = a.sqrt()[:, None], (a.sqrt() * b)[:, None]  # |M k - v|^2 = a (M - b)^2: one scalar memory a task

    def outer_loss(start: Tensor, adapt: bool) -> Tensor:
        state = mem.init(1, 1, (3,), M0=start.reshape(1, 1), dtype=F64)
        return mem.loss(mem.write(state, k, v) if adapt else state, k, v).sum()

    zero = torch.zeros(1, dtype=F64)
    w = a * (1 - lr * a) ** 2
    close(minimise(lambda p: outer_loss(p, True), zero), (w * b).sum()[None] / w.sum())
    close(minimise(lambda p: outer_loss(p, False), zero), (a * b).sum()[None] / a.sum())
    apart((w * b).sum() / w.sum(), (a * b).sum() / a.sum())


@pytest.mark.eq(62, 63)
def test_softmax_memory_is_attention_and_its_window():
    k, v, q = stream(T=7)
    score = q @ k.mT / 2  # sqrt(d_k) = 2
    mask = torch.ones(7, 7).tril().bool()
    close(memory.make("softmax").scan(k, v, q, read="after")[0], score.masked_fill(~mask, -torch.inf).softmax(-1) @ v)
    band = mask & ~torch.ones(7, 7).tril(-3).bool()
    close(memory.make("sliding_window", window=3).scan(k, v, q, read="after")[0], score.masked_fill(~band, -torch.inf).softmax(-1) @ v)
    close(memory.make("softmax").scan(k, v, q)[0][:, 0], torch.zeros(3, 4, dtype=F64), 0)  # nothing is known yet
    age = torch.arange(7.0, dtype=F64)
    recency = score + (age[:, None] - age[None]) * torch.tensor(0.7, dtype=F64).log()
    close(memory.make("softmax", keep=0.7).scan(k, v, q, read="after")[0], recency.masked_fill(~mask, -torch.inf).softmax(-1) @ v)


@pytest.mark.eq(27)
def test_softmax_memory_is_a_function_of_the_set():
    k, v, q = stream()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    mem = memory.make("softmax")
    close(mem.read(mem.write_all(k[:, order], v[:, order]), q), mem.read(mem.write_all(k, v), q))
    delta = memory.make("delta")
    apart(delta.read(delta.write_all(k[:, order], v[:, order]), q), delta.read(delta.write_all(k, v), q))


def test_temperature_runs_from_nearest_neighbour_to_mean():
    k, v, q = stream()
    nearest = v.gather(1, (q @ k.mT).argmax(-1, keepdim=True).expand(-1, -1, 4))
    for tau, want in ((0.0, nearest), (1e-4, nearest), (float("inf"), v.mean(1, keepdim=True).expand(-1, 6, -1))):
        mem = memory.make("softmax", temperature=tau)
        close(mem.read(mem.write_all(k, v), q), want, 1e-9)
    gauss, dot = memory.make("softmax", kernel="gaussian"), memory.make("softmax")  # the same thing for keys of one length
    close(gauss.read(gauss.write_all(k, v), q), dot.read(dot.write_all(k, v), q))
