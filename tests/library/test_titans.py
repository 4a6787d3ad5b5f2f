"""Titans and self-modifying Titans: definition == parallel form, streams, causality, outer gradients, the traps of the
paper.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import close, rand, refuses
from torch import Tensor, nn

from nlbook.hope.block import MEMORY
from nlbook.hope.mixers import arguments, make_mixer
from nlbook.levels import Trace, levels_of
from nlbook.numerics import unit
from nlbook.titans import NeuralMemory, SelfModifyingTitans, neural_memory_reference, self_modifying_reference
from nlbook.titans.chunked import Pace, Piece
from nlbook.titans.rules import layer_io, read, token_write
from nlbook.tree import load, save, tensors

REF = {SelfModifyingTitans: self_modifying_reference, NeuralMemory: neural_memory_reference}
ONE = torch.ones(1, 1, dtype=torch.float64)


def make(cls: type, dim: int = 4, block: int = 64, **flat) -> nn.Module:
    """A layer from flat settings: `read` goes into its Rule, `eta` into its Gates, `mem_std` into its Start."""
    layer = cls(dim, **arguments(cls, flat, "options"))
    layer.block = block
    return layer.double()


def stirred(layer: nn.Module, scale: float = 0.2, seed: int = 1) -> nn.Module:
    """Off its special start (identity convolutions, constant gates)."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(scale * torch.randn(p.shape, generator=g, dtype=torch.float64))
    return layer


def selfmod(dim: int = 4, **flat) -> SelfModifyingTitans:
    return stirred(make(SelfModifyingTitans, dim, **{"hidden": 5, "eta": 0.2, "horizon": 20, **flat}))  # type: ignore[return-value]


def neural(**flat) -> NeuralMemory:
    return stirred(make(NeuralMemory, **{"hidden": 5, "eta": 0.2, "horizon": 20, **flat}))  # type: ignore[return-value]


def gradients(y: Tensor, layer: nn.Module) -> dict[str, Tensor]:
    w = rand(*y.shape, seed=3)
    got = torch.autograd.grad((y * w).sum(), list(layer.parameters()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(layer.named_parameters(), got)}


def agree(layer: nn.Module, length: int, cut: int, tol: float = 1e-10, impl: str = "chunked") -> None:
    """Reference == parallel form == token loop == a stream cut anywhere; final states and outer gradients too."""
    x = rand(2, length, layer.dim)
    ref = [REF[type(layer)](layer, row) for row in x]
    want = torch.stack([y for y, _ in ref])
    y, s = layer(x, impl=impl)
    one, mid = layer(x[:, :cut], impl=impl)
    two, end = layer(x[:, cut:], mid, impl=impl)
    for got in (y, layer(x, impl="tokens")[0], torch.cat([one, two], 1)):
        close(got, want, tol)
    for name, group in layer.groups.items():
        for j, box in enumerate(group.names):
            for weight in s.now[name]:
                final = torch.stack([torch.stack([h[box][weight] for h in heads]) for _, heads in ref])
                for state in (s, end):
                    close(state.now[name][weight][:, :, j], final, tol)
    got, expected = gradients(y, layer), gradients(want, layer)
    for n in got:
        close(got[n], expected[n], tol)


CASES = [
    {"chunk": 1, "other_chunk": 1},
    {"chunk": 4, "other_chunk": 2},
    {"chunk": 4, "other_chunk": 1, "rate": "implicit", "read": "after", "mem_gain": 3.0},
    {"chunk": 3, "other_chunk": 5, "heads": 2, "memory": "linear"},
    {"chunk": 50, "other_chunk": 7, "momentum": True, "read": "after"},
    {"chunk": 8, "other_chunk": 4, "objective": "dot", "read": "before"},
    {"chunk": 4, "other_chunk": 2, "radius": 0.9, "read": "after", "mem_gain": 3.0},
    {"chunk": 8, "other_chunk": 4, "factor": None, "read": "after", "momentum": True},
    {"chunk": 6, "other_chunk": 4, "adaptive_q": True, "read": "before", "momentum": True, "heads": 2},
    {"chunk": 6, "other_chunk": 4, "memory": "linear", "adaptive": ("mem", "k"), "momentum": True},
    {"chunk": 6, "other_chunk": 3, "adaptive": ("k", "eta"), "decay": False, "block": 2, "read": "after"},
    {"chunk": 5, "other_chunk": 5, "self_values": False, "conv": 0, "activation": "none", "normalise_v": False},
]


@pytest.mark.eq(79, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 94, 95, 96)
@pytest.mark.parametrize("options", CASES, ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()))
def test_the_parallel_form_is_the_definition(options):
    agree(selfmod(**options), 9, 5)


@pytest.mark.eq(79, 80, 81, 82)
@pytest.mark.parametrize("box", ["k", "v", "mem", "q"])
def test_shared_values_are_an_option(box):
    """self_values=False, read="after": every memory descends L(M; k_t, v_t) once, and y_t reads the written memory.

    With the shared key (eq. 80 prints the memory's own output); gates excepted, whose values are scalars.
    """
    plain = {"factor": None, "decay": False, "conv": 0, "activation": "none", "normalise_v": False}
    layer = selfmod(self_values=False, read="after", adaptive_q=True, chunk=1, other_chunk=1, **plain)
    x = rand(1, 1, 4)
    y, s = layer(x)
    S = {
        b: {n: w[0, j].detach().requires_grad_() for n, w in layer.initial_weights(g).items()}
        for g, group in layer.groups.items()
        for j, b in enumerate(group.names)
    }
    k, v, q = (read(S[b], x[0], True) for b in "kvq")  # eq. 79
    k, q = unit(k).detach(), unit(q).detach()
    eta = layer.eta_max * torch.sigmoid(read(S["eta"], x[0], False) + layer.b_eta)
    loss = 0.5 * (read(S[box], k, True) - v.detach()).square().sum()  # eq. 80, 81
    slope = torch.autograd.grad(loss, list(S[box].values()))
    new = {n: w - eta * g for (n, w), g in zip(S[box].items(), slope)}
    name, j = {"mem": ("mem", 0), "k": ("proj", 1), "v": ("proj", 2), "q": ("proj", 0)}[box]
    for n, w in new.items():
        close(s.now[name][n][0, 0, j], w, 1e-12)
    if box == "mem":
        close(y[0], read(new, q, True), 1e-12)  # eq. 82: after the write


@pytest.mark.eq(76, 77, 78)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"memory": "linear", "chunk": 1, "heads": 2},
        {"factor": "raw", "read": "before", "chunk": 4},
        {"momentum": False, "read": "start", "chunk": 7, "objective": "dot"},
        {"block": 3, "chunk": 5, "decay": False, "conv": 0},
        {"rate": "implicit", "chunk": 4, "normalise_v": False, "activation": "none"},
        {"momentum": False, "factor": "raw", "chunk": 3},
        {"radius": 0.3, "chunk": 4},
        {"radius": 0.3, "chunk": 4, "rate": "implicit", "factor": "raw", "memory": "linear", "momentum": False},
    ],
    ids=str,
)
def test_the_neural_memory_is_its_definition(options):
    agree(neural(**options), 11, 5)


LINEAR_SELF = {"memory": "linear", "conv": 0, "activation": "none", "chunk": 4, "other_chunk": 4}
OPERATORS = {
    "linear_memory": [
        neural,
        {"memory": "linear", "momentum": False},
        {"factor": ["raw", None], "objective": ["l2", "dot"], "read": ["start", "before", "after"]},
    ],
    "mlp_memory": [
        neural,
        {"memory": "mlp", "momentum": False, "heads": 2},
        {"factor": ["raw", None], "objective": ["l2", "dot"], "read": ["start", "before", "after"]},
    ],
    "titans_memory": [neural, {"memory": "linear"}, {"decay": [True, False], "read": ["start", "before", "after"]}],
    "selfref_memory": [
        selfmod,
        LINEAR_SELF,
        {"objective": ["l2", "dot"], "normalise_v": [True, False], "heads": [1, 2]},
    ],
}


@pytest.mark.eq(77, 88, 90, 92, 93)
@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_of_nlkernels_is_the_layer(name):
    """Each setting that goes through one call to nlkernels: definition, streams, final states and outer gradients."""
    new, fixed, choices = OPERATORS[name]
    for picked in itertools.product(*choices.values()):
        layer = new(**{"chunk": 4, **fixed, **dict(zip(choices, picked))})
        assert layer.operator == name
        agree(layer, 11, 6, impl="operator")
        x = rand(2, 11, 4)
        assert torch.equal(layer(x)[0], layer(x, impl="operator")[0])  # "auto" takes it


@pytest.mark.parametrize(
    ("cls", "flat"),
    [
        (NeuralMemory, {}),
        (NeuralMemory, {"memory": "linear", "rate": "implicit"}),
        (NeuralMemory, {"memory": "linear", "factor": "raw"}),
        (NeuralMemory, {"memory": "linear", "objective": "dot"}),
        (NeuralMemory, {"memory": "linear", "radius": 2.0}),
        *(
            (SelfModifyingTitans, LINEAR_SELF | o)
            for o in (
                {"conv": 4},
                {"other_chunk": 2},
                {"decay": False},
                {"read": "after"},
                {"rate": "implicit"},
                {"radius": 2.0},
                {"memory": "mlp"},
                {"momentum": True},
                {"self_values": False},
                {"adaptive": ("mem",)},
                {"adaptive_q": True},
                {"factor": None},
                {"activation": "silu"},
            )
        ),
    ],
    ids=str,
)
def test_other_rules_have_no_operator(cls, flat):
    layer, x = make(cls, **flat), rand(1, 9, 4)
    assert layer.operator is None
    assert torch.equal(layer(x)[0], layer(x, impl="chunked")[0])
    with refuses("impl"):
        layer(x, impl="operator")


def test_a_trace_is_served_by_the_walk():
    layer, x = make(SelfModifyingTitans, **LINEAR_SELF), rand(1, 9, 4)
    with Trace(layer) as trace:
        layer(x)
        with refuses("impl"):
            layer(x, impl="operator")
    assert trace.updates["M_k"] == [4, 8]


@pytest.mark.parametrize(
    ("cls", "more"),
    [
        (SelfModifyingTitans, {"other_chunk": 8}),
        (SelfModifyingTitans, {"other_chunk": 8, "memory": "linear", "rate": "implicit"}),
        (NeuralMemory, {"momentum": False, "factor": "raw"}),
        (NeuralMemory, {}),
    ],
    ids=str,
)
@settings(max_examples=12, deadline=None)
@given(radius=st.floats(0.05, 20), horizon=st.floats(1.1, 300), seed=st.integers(0, 9))
def test_a_write_never_expands_a_memory_beyond_its_radius(cls, more, radius, horizon, seed):
    """Whatever is read, at rates up to 8; with momentum where the gates are the same for all tokens, as at the start.

    One token again and again is the worst text: within a chunk the same gradient is added up.
    """
    layer = make(cls, chunk=8, eta=7.0, eta_max=8.0, horizon=horizon, radius=radius, **more)
    text = 100 * rand(1, 40, 4, seed=seed) if seed % 2 else rand(1, 1, 4, seed=seed).expand(1, 40, 4)
    state = layer.initial_state(1)
    for part in text.split(5, 1):
        _, new = layer(part, state)
        for name, weights in new.now.items():
            for n in weights:
                size, before = (x[name][n].flatten(3).norm(dim=-1) for x in (new.now, state.now))
                assert (size <= before.clamp_min(radius) * (1 + 1e-9)).all()
        state = new


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 40),
    st.sampled_from(["start", "before", "after"]),
    st.booleans(),
    st.sampled_from(["raw", None]),
    st.integers(1, 16),
)
def test_any_length_chunk_and_cut(length, chunk, other, cut, when, momentum, factor, block):
    """The token loop is the definition (tested above); the parallel form equals it for whatever sizes."""
    layer = selfmod(chunk=chunk, other_chunk=other, read=when, momentum=momentum, factor=factor, block=block)
    x, cut = rand(1, length, 4, seed=length), min(cut, length)
    with torch.no_grad():
        want, _ = layer(x, impl="tokens")
        a, s = layer(x[:, :cut])
        b, s = layer(x[:, cut:], s)
    close(torch.cat([a, b], 1), want, 1e-10)
    assert s.position == length


@pytest.mark.parametrize(
    "options",
    [
        {"chunk": 4, "other_chunk": 2},
        {"chunk": 5, "other_chunk": 3, "read": "after", "momentum": True, "adaptive_q": True},
        {"chunk": 4, "other_chunk": 2, "read": "after", "rate": "implicit"},
    ],
)
def test_gradcheck_through_the_writes(options):
    """Outer gradients against finite differences: inputs and every parameter."""
    layer = selfmod(2, hidden=2, conv=2, gate_std=0.3, **options)
    names = [n for n, _ in layer.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))[0]

    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradcheck(run, (rand(1, 6, 2).requires_grad_(), *values), atol=1e-7)


def test_gradcheck_of_one_piece():
    """The closed form alone: weights, inputs, errors, all gates and the momentum."""
    C, n, m = 5, 3, 2
    args = [rand(*shape, seed=i) for i, shape in enumerate(((m, n), (C, n), (C, m), (C,), (C,), (C,), (m, n), (C, n)))]
    args[3], args[4], args[5] = -args[3].abs(), args[4].sigmoid(), -args[5].abs()

    def run(W, a, e, log_keep, eta, log_mu, S, rows):
        piece = Piece(W, a, e, Pace(log_keep, eta, log_mu), "raw", S)
        return (*piece.end(), piece.read(rows, "before"), piece.read(rows, "after"))

    assert torch.autograd.gradcheck(run, [a.requires_grad_() for a in args], atol=1e-7)


def test_causality():
    for options in ({"read": "start"}, {"read": "after", "momentum": True, "adaptive_q": True}):
        layer, x = selfmod(chunk=4, other_chunk=3, **options), rand(1, 14, 4)
        for t in (5, 9, 13):
            other = x.clone()
            other[:, t:] += 1.0
            same = layer(x)[0] - layer(other)[0]
            assert same[:, :t].abs().max() == 0.0 and same[:, t:].abs().max() > 1e-6


def test_a_sequence_does_not_depend_on_its_neighbours():
    layer, x = selfmod(chunk=4, other_chunk=2), rand(3, 9, 4)
    y, s = layer(x)
    alone, t = layer(x[1:2])
    close(y[1:2], alone, 1e-14)
    for k, v in tensors(t).items():
        close(tensors(s)[k][1:2], v, 1e-14)
    x[0, 3] = 1e6  # not even a loud neighbour
    close(layer(x)[0][1:2], alone, 1e-14)


def test_the_same_cut_at_every_position_and_a_state_on_disk(tmp_path):
    layer, x = selfmod(chunk=4, other_chunk=3, momentum=True, read="after"), rand(2, 9, 4)
    want, _ = layer(x)
    for cut in range(10):
        a, s = layer(x[:, :cut])
        save(tmp_path / "s.safetensors", s)
        again = load(tmp_path / "s.safetensors", layer.initial_state(1))
        assert again.position == cut and all(torch.equal(v, tensors(again)[k]) for k, v in tensors(s).items())
        close(torch.cat([a, layer(x[:, cut:], again)[0]], 1), want, 1e-12)


def test_the_outer_gradient_reaches_every_initial_state():
    """And at the recommended start, where W1 of the gates is zero: W1 at once, W2 as soon as W1 has moved."""
    layer, x = selfmod(chunk=4, other_chunk=2, momentum=True, adaptive_q=True), rand(2, 9, 4)
    layer(x)[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().amax() > 0 for p in layer.parameters())
    for name, p in layer.initial.items():
        assert (p.grad.flatten(2).abs().amax(-1) > 0).all(), name  # each box of each head
    fresh = make(SelfModifyingTitans, hidden=5, chunk=4, other_chunk=2, seed=3)
    opt = torch.optim.SGD(fresh.parameters(), lr=0.1)
    for step in range(2):
        opt.zero_grad()
        (fresh(x)[0] * rand(2, 9, 4, seed=5)).sum().backward()
        dead = {n for n, p in fresh.named_parameters() if p.grad is None or p.grad.abs().amax() == 0}
        assert dead == ({"initial.gate_W2"} if step == 0 else set())
        opt.step()


@pytest.mark.eq(84, 87)
def test_a_detached_value_would_never_train_m_v():
    """The trap: detaching v-hat in the outer graph changes no number of the forward pass, and M_v gets no gradient."""
    S = {"W1": rand(3, 4, seed=1), "W2": rand(4, 3, seed=2)}
    M_v = {"W1": rand(3, 4, seed=3).requires_grad_(), "W2": rand(4, 3, seed=4)}
    x, k, q = unit(rand(1, 3, seed=5)), unit(rand(1, 3, seed=6)), unit(rand(1, 3, seed=7))

    def after(value: Tensor) -> Tensor:
        io = layer_io(S, k, value, "l2", True)
        return read({n: token_write(S[n], *io[n], ONE, 0.3 * ONE, "raw")[0] for n in S}, q, True)

    value = read(S, read(M_v, x, True), True)
    close(after(value), after(value.detach()))
    (g,) = torch.autograd.grad(after(value).sum(), M_v["W1"])
    assert g.abs().max() > 0 and not after(value.detach()).requires_grad


@pytest.mark.eq(88, 92, 93)
def test_reductions_of_one_linear_memory():
    """Given values, one token a chunk: linear attention, the gated delta rule twice, and Hope's rule (recall v/2)."""
    d, C = 4, 40
    k, v = unit(rand(C, d)), rand(C, d, seed=2)
    log_keep, eta = -0.1 * rand(C, seed=3).abs(), 0.5 * rand(C, seed=4).sigmoid()

    def run(objective, factor, keep=log_keep, keys=k, values=v, rates=eta):
        W = torch.zeros(d, d, dtype=torch.float64)
        for t in range(len(keys)):
            a, e = layer_io({"W": W}, keys[t : t + 1], values[t : t + 1], objective, False)["W"]
            W, _ = token_write(W, a, e, keep[t].exp().reshape(1, 1), rates[t].reshape(1, 1), factor)
        return W

    close(run("dot", None, 0 * log_keep), (eta[:, None] * v).mT @ k)  # linear attention
    M = torch.zeros(d, d, dtype=torch.float64)
    for t in range(C):  # gated delta rule
        M = M @ (log_keep[t].exp() * torch.eye(d, dtype=k.dtype) - eta[t] * torch.outer(k[t], k[t])) + eta[
            t
        ] * torch.outer(v[t], k[t])
    close(run("dot", "raw"), M)
    close(run("l2", None), M)
    again = torch.zeros(400, dtype=torch.float64)
    for objective, recalled in (("l2", v[0] / 2), ("dot", v[0])):  # erased twice; eq. 92 with its sign mended
        W = run(objective, "raw", again, k[:1].expand(400, d), v[:1].expand(400, d), again + 0.4)
        close(W @ k[0], recalled, 1e-7)


@pytest.mark.eq(93)
@pytest.mark.parametrize("eta", [0.1, 0.5, 1.0])
def test_one_key_repeated_over_a_chunk_is_what_the_factor_tames(eta):
    """2 (1 - eta)^C - 1 stays in [-1, 1]; plain gradient descent with a frozen error has 1 - C eta."""
    C, one = 64, torch.ones(64, 1, dtype=torch.float64)
    for factor, want in (("raw", 2 * (1 - eta) ** C - 1), (None, 1 - C * eta)):
        end, _ = Piece(ONE, one, one, Pace(torch.zeros(C, dtype=torch.float64), eta * one[:, 0]), factor).end()
        assert float(end) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_repeated_keys_do_not_break_the_solve(dtype):
    """All keys alike, eta = 1, alpha = 1, C = 64: powers of the system overflow here, forward substitution does not."""
    a, e, one = torch.ones(64, 8, dtype=dtype) / 8**0.5, rand(64, 3, dtype=dtype), ONE.to(dtype)
    W = torch.ones(3, 8, dtype=dtype)
    got, _ = Piece(W, a, e, Pace(torch.zeros(64, dtype=dtype), torch.ones(64, dtype=dtype)), "raw").end()
    for t in range(64):
        W, _ = token_write(W, a[t : t + 1], e[t : t + 1], one, one, "raw")
    close(got, W, 1e-6 if dtype == torch.float32 else 1e-13)


def test_forgetting_almost_everything_is_finite():
    """alpha down to exp(-200): ratios are formed as differences of logarithms."""
    x = rand(1, 20, 4)
    layer = selfmod(chunk=8, other_chunk=4, read="after", momentum=True)
    with torch.no_grad():
        layer.b_alpha.fill_(-200.0)
        layer.b_mu.fill_(-300.0)
    y, _ = layer(x)
    y.square().sum().backward()
    assert torch.isfinite(y).all() and all(
        torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None
    )
    close(y, layer(x, impl="tokens")[0], 1e-10)


@pytest.mark.eq(83, 85, 93)
def test_a_linear_memory_with_self_made_values_stays_zero():
    """Its update multiplies the state: zero stays zero, rank cannot grow. The residual MLP memory writes from zero."""
    for kind, zero in (("linear", True), ("mlp", False)):
        layer = make(SelfModifyingTitans, memory=kind, chunk=1, other_chunk=1)
        with torch.no_grad():
            for n in ("mem_W", "mem_W1"):
                if n in layer.initial:
                    layer.initial[n].zero_()
        _, s = layer(rand(1, 30, 4))
        moved = max(float(w.detach().abs().max()) for n, w in s.now["mem"].items() if n != "W2")
        assert (moved == 0.0) is zero
    layer = make(SelfModifyingTitans, 6, memory="linear", chunk=2, other_chunk=2)
    with torch.no_grad():
        layer.initial["mem_W"].copy_(rand(6, 2) @ rand(2, 6, seed=2))
    assert int(torch.linalg.matrix_rank(layer(rand(1, 40, 6))[1].now["mem"]["W"][0, 0, 0], atol=1e-9)) <= 2


def test_keys_and_values_differ_at_the_start_and_gates_start_where_they_should():
    x = rand(1, 200, 16)

    def alike(layer: nn.Module) -> float:
        raw = (read({n: w[0, j] for n, w in layer.initial_weights("proj").items()}, x, True) for j in range(2))
        k, v = (unit(F.silu(r)) for r in raw)
        return float((k * v).sum(-1).mean().detach())

    layer = make(SelfModifyingTitans, 16, eta=0.1, eta_max=0.5, horizon=64)
    assert alike(layer) < 0.8
    assert alike(make(SelfModifyingTitans, 16, proj_std=0.02)) > 0.99  # the trap: k = v, every inner error is zero
    gate = {n: w[None] for n, w in layer.initial_weights("gate").items()}
    pace = layer.gates(read(gate, x[:, None, None], False)[..., 0])
    close(pace.eta, torch.full_like(pace.eta, 0.1), 1e-7)
    close(pace.log_keep.exp(), torch.full_like(pace.eta, 1 - 1 / 64), 1e-7)


@pytest.mark.eq(80, 89)
def test_a_gate_memory_has_no_residual():
    """Eq. 89 with one output would broadcast over the features; here the answer is a number a token, also for dim 1."""
    S = {"W1": rand(1, 5), "W2": rand(5, 4)}
    x = rand(7, 4)
    assert read(S, x, False).shape == (7, 1) and read(S, x, True).shape == (7, 4)  # the trap, spelled out
    y, _ = make(SelfModifyingTitans, 1, hidden=3)(rand(2, 5, 1))
    assert y.shape == (2, 5, 1)


@pytest.mark.eq(88)
def test_the_factor_per_layer_is_sgd_on_a_penalised_loss():
    """'raw' DGD of a two-layer memory descends loss + 1/2 |W2 k|^2 + 1/2 |W1 a|^2 with the input a of W1 held fixed."""
    S = {"W1": rand(3, 5).requires_grad_(), "W2": rand(5, 3, seed=2).requires_grad_()}
    k, v = unit(rand(1, 3, seed=3)), rand(1, 3, seed=4)
    a = F.silu(k @ S["W2"].mT).detach()
    loss = (
        0.5 * (read(S, k, True) - v).square().sum()
        + 0.5 * (k @ S["W2"].mT).square().sum()
        + 0.5 * (a @ S["W1"].mT).square().sum()
    )
    grads = dict(zip(S, torch.autograd.grad(loss, list(S.values()))))
    for n, (rows, e) in layer_io(S, k, v, "l2", True).items():
        close(token_write(S[n], rows, e, ONE, 0.2 * ONE, "raw")[0], S[n] - 0.2 * grads[n])


def test_normalised_values_keep_the_inner_loop_bounded_without_any_outer_training():
    """x of length sqrt(d), no outer training: with |v| free self-made values feed back on themselves; at length 1 they
    cannot.
    """

    def largest(normalise: bool, seed: int, length: int = 256) -> float:
        sizes = {"hidden": 32, "chunk": 8, "other_chunk": 4, "eta": 0.3, "horizon": 64, "proj_std": 1.0, "seed": seed}
        layer = make(SelfModifyingTitans, 16, normalise_v=normalise, **sizes).float()
        words = torch.randn(12, 16, generator=torch.Generator().manual_seed(seed))
        words = words / words.square().mean(-1, keepdim=True).sqrt()
        with torch.no_grad():
            _, s = layer(words[torch.arange(length) % 7][None])
        return max(
            float(w.norm()) if torch.isfinite(w).all() else math.inf for ws in s.now.values() for w in ws.values()
        )

    assert all(largest(True, s) < 100 for s in range(3)) and sum(largest(False, s) > 100 for s in range(3)) >= 2
    assert largest(True, 0, 1500) < 100


def test_queries_may_start_as_keys_do():
    """query="identity": at the start a query shares the features of its token's key; with a random W_q it does not."""
    x = rand(1, 200, 32)
    together = {}
    for query in ("random", "identity"):
        layer = make(SelfModifyingTitans, 32, conv=0, activation="none", query=query)
        q, k = x @ layer.W_q.mT, read(layer.initial_weights("proj"), x[:, None, None], True)[:, 0, 0]
        together[query] = float(F.cosine_similarity(q, k, dim=-1).mean().detach())
    assert abs(together["random"]) < 0.1 < 0.4 < together["identity"]


def test_parity_is_within_reach_of_eta_up_to_one():
    """alpha = 1, eta = the bit, value 0: the squared objective's transition 1 - 2 eta flips a sign per one."""
    bits = (rand(1000) > 0).double()
    W = ONE
    for b in bits:
        a, e = layer_io({"W": W}, ONE, 0 * ONE, "l2", False)["W"]
        W, _ = token_write(W, a, e, ONE, b.reshape(1, 1), "raw")
    assert float(W) == 1 - 2 * (int(bits.sum()) % 2)


def test_after_a_hundred_thousand_tokens_a_memory_learns_as_much_as_at_the_start():
    """With Hope's settings, untrained: what is told changes the answer, the state is finite and of constant size. What
    keeps it alive is that a key begins as the token before; a value that its own key predicts decays with all weights.
    """
    options = {**MEMORY["self_modifying"], "chunk": 64, "other_chunk": 64, "shift": True}
    layer, length, part = make_mixer("self_modifying", 8, options), 100_000, 10_000
    g, fact = torch.Generator().manual_seed(0), rand(1, 1, 8, dtype=torch.float32)

    def learned(state) -> float:
        """How far the answer to a row moves while it is told 64 times."""
        y, _ = layer(fact.expand(1, 64, 8), state)
        return float((y[0, -1] - y[0, 4]).norm())  # the first rows still meet the convolution's past

    with torch.no_grad():
        state = first = layer(torch.randn(1, part, 8, generator=g))[1]
        for _ in range(1, length // part):
            y, state = layer(torch.randn(1, part, 8, generator=g), state)
            assert torch.isfinite(y).all() and state.numel() == first.numel()
        assert state.position == length
        assert max(float(w.abs().max()) for w in tensors(state).values()) < 100
        assert learned(first) > 0.1 and learned(state) > 0.5 * learned(first)


def test_levels_and_trace():
    layer = make(SelfModifyingTitans, chunk=8, other_chunk=2, momentum=True).float()
    periods = {c.name: c.period for c in layer.nested_components()}
    assert (
        periods["M_mem"] == 8
        and {periods[f"M_{b}"] for b in ("k", "v", "eta", "alpha")} == {2}
        and periods["M_k.momentum"] == 1
    )
    opt = torch.optim.SGD(layer.parameters(), lr=0.1)
    system = levels_of(layer, opt, tokens_per_step=64)
    kinds = {c.name: c.kind for c in system.components}
    assert kinds["initial.mem_W1"] == "initial state" and kinds["W_q"] == "weights" and kinds["M_mem"] == "fast state"
    with Trace(layer, opt, tokens_per_step=64) as trace:
        layer(torch.randn(1, 16, 4, generator=torch.Generator().manual_seed(0)))
    assert trace.updates["M_mem"] == [8, 16] and len(trace.updates["M_k"]) == 8


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("chunk", 0),
        ("other_chunk", 2.0),
        ("heads", 3),
        ("objective", "l1"),
        ("read", "later"),
        ("rate", "fast"),
        ("eta", 0.6),
        ("horizon", 1),
        ("memory", "deep"),
        ("adaptive", ("q",)),
        ("factor", "none"),
        ("activation", "relu"),
        ("query", "keys"),
        ("radius", 0.0),
    ],
)
def test_bad_options_are_named(word, value):
    with refuses(word):
        make(SelfModifyingTitans, **{word: value})


def test_bad_input_is_named():
    layer = SelfModifyingTitans(4)
    for x, word in (
        (torch.zeros(2, 3, 5), "x"),
        (torch.zeros(3, 4), "x"),
        (torch.zeros(1, 3, 4, dtype=torch.int64), "x"),
        (torch.zeros(1, 3, 4, dtype=torch.float64), "x"),
    ):
        with refuses(word):
            layer(x)
    with refuses("state"):
        layer(torch.zeros(2, 3, 4), layer.initial_state(1))
    with refuses("state"):
        layer(torch.zeros(2, 3, 4), make(SelfModifyingTitans).initial_state(2))
    with refuses("impl"):
        layer(torch.zeros(2, 3, 4), impl="fast")
    with refuses("radius"):
        make(NeuralMemory, radius=1.0, decay=False)
    assert layer(torch.zeros(2, 0, 4))[0].shape == (2, 0, 4)


def test_how_much_one_write_counts():
    """The lever of a deep memory's write is |silu(W2 k)|^2: mem_gain raises it, and with it what one write recalls."""

    def recalled(gain: float) -> float:
        layer = make(SelfModifyingTitans, 32, mem_gain=gain)
        S = {n: w[0, 0].detach() for n, w in layer.initial_weights("mem").items()}
        k, v = unit(rand(1, 32)), unit(rand(1, 32, seed=1))
        io = layer_io(S, k, v, "l2", True)
        new = {n: token_write(S[n], *io[n], ONE, 0.5 * ONE, "raw")[0] for n in S}
        return float((read(new, k, True) - read(S, k, True)) @ (v - k).mT) / float((v - k).square().sum())

    small, large = recalled(1.0), recalled(2.5)
    assert small < 0.2 < 0.4 < large
