"""What every operator promises: its token loop in every form, one graph, autocast, precisions, clean memory, edges."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from nlkernels import (
    KernelError,
    SelfRefState,
    dispatch,
    linear_memory,
    mlp_memory,
    newton_schulz,
    selfref_memory,
    titans_memory,
)

triton = pytest.mark.skipif(not dispatch.have_triton(), reason="Triton exists for Linux only")
pytestmark = pytest.mark.filterwarnings("ignore::nlkernels.interpret.InterpreterWarning")
parallel = pytest.mark.parametrize("impl", ["chunked", pytest.param("triton", marks=triton)])
each = pytest.mark.parametrize("impl", ["reference", "chunked", pytest.param("triton", marks=triton)])


# ---- values and gradients (the linear memory: test_linear.py) --------------------------------------------------------
@parallel
@pytest.mark.parametrize("read", ["start", "before", "after"])
@pytest.mark.parametrize(
    ("length", "chunk", "dk", "dv"), [(37, 16, 8, 12), (5, 1, 8, 12), (3, 8, 8, 12), (9, 4, 72, 5), (9, 4, 5, 72)]
)
def test_titans_memory(draw, apart, impl, read, length, chunk, dk, dv):
    """More than 64 keys or values make several blocks whose sums meet."""
    assert apart(titans_memory, draw(length, dk, dv, head=2).titans(), impl, read=read, chunk=chunk) < 1e-12


@pytest.mark.eq(89, 90, 91)
@parallel
@pytest.mark.parametrize(
    ("read", "objective", "erase", "chunk"),
    [
        ("start", "l2", True, 8),
        ("before", "dot", True, 5),
        ("after", "l2", True, 8),
        ("after", "l2", False, 16),
        ("start", "l2", True, 1),
    ],
)
def test_mlp_memory(draw, apart, impl, read, objective, erase, chunk):
    x = draw(5 if chunk == 1 else 21, 6, 10, head=2).mlp()
    assert apart(mlp_memory, x, impl, read=read, objective=objective, erase=erase, chunk=chunk) < 1e-12


@pytest.mark.eq(86, 87, 88, 90)
@parallel
@pytest.mark.parametrize(
    ("length", "d", "chunk", "objective", "unit_values"),
    [
        (23, 6, 8, "l2", True),
        (17, 12, 5, "dot", False),
        (5, 4, 1, "l2", True),
        (3, 5, 16, "dot", True),
        (70, 32, 32, "l2", True),
    ],
)
def test_selfref_memory(draw, apart, impl, length, d, chunk, objective, unit_values):
    def call(x, q, *rest, **options):
        y, last = selfref_memory(x, q, SelfRefState(*rest[:5]), b_eta=rest[5], b_alpha=rest[6], **options)
        return [y, *last]

    x = draw(length, d, head=2 if length < 70 else 1).selfref()
    options = {"chunk": chunk, "objective": objective, "unit_values": unit_values}
    assert apart(call, x, impl, **options) < (1e-12 if length < 70 else 1e-11)


@pytest.mark.eq(44)
@parallel
@pytest.mark.parametrize(
    ("shape", "coefficients", "steps"),
    [
        ((3, 24, 40), "quintic", 5),
        ((3, 5, 40, 24), "quintic", 5),
        ((5, 9), "cubic", 12),
        ((2, 1, 3), "cubic", 3),
        ((1, 7, 7), "quintic", 0),
        ((0, 4, 4), "cubic", 2),
    ],
)
def test_newton_schulz(apart, rel, impl, shape, coefficients, steps):
    G = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    run = partial(newton_schulz, steps=steps, coefficients=coefficients)
    assert apart(lambda G, **o: [run(G, **o)], [G], impl) < 1e-12
    want = run(G, impl="reference")
    assert rel(run(G.float(), impl=impl), want) < 1e-5
    assert rel(run(G.mT.contiguous().mT, impl=impl), want) < 1e-12


@triton
def test_head_sizes(op, draw, rel):
    for d in op.sizes:
        x = op.draw(draw(5, d))
        got, want = (op.call(*x, impl=impl, **op.options) for impl in ("triton", "reference"))
        assert max(map(rel, got, want)) < 1e-12, d


@triton
def test_finite_differences_of_the_kernel_are_its_backward(op, draw):
    x = [a.requires_grad_() for a in op.draw(draw(3, 2))]
    assert torch.autograd.gradcheck(lambda *a: tuple(op.call(*a, impl="triton", **op.options)), x, fast_mode=True)


@triton
def test_forward_and_backward_touch_what_is_theirs_and_write_all_of_it(op, draw, apart):
    """Fresh buffers hold NaN; no access out of bounds; no two programs touch one element. Ragged in every way."""
    from nlkernels.checker import checked, poisoned

    x = op.draw(draw(7, 5, 9 if op.name == "mlp_memory" else None, head=2))
    with checked() as check, poisoned():
        assert apart(op.call, x, **op.options) < 1e-12
    assert check.launches >= 1


@each
def test_streaming_at_chunk_boundaries_is_one_call(memory, draw, rel, impl):
    x = memory.draw(draw(20, 4))
    call, n = partial(memory.call, chunk=4, impl=impl), len(memory.call(*x, chunk=4))
    states = [i for i, a in enumerate(x) if 20 not in a.shape][: n - 1]
    first = call(*(a[:, :, :8] if 20 in a.shape else a for a in x))
    rest = [a[:, :, 8:] if 20 in a.shape else a for a in x]
    for i, state in zip(states, first[1:], strict=True):
        rest[i] = state
    second, whole = call(*rest), call(*x)
    assert max(map(rel, (torch.cat([first[0], second[0]], 2), *second[1:]), whole)) < 1e-13


@parallel
def test_one_sequence_does_not_see_another(memory, draw, rel, impl):
    x = memory.draw(draw(9, 4, batch=2))
    alone, both = (memory.call(*a, chunk=4, impl=impl) for a in ([a[:1] for a in x], x))
    assert max(map(rel, (o[:1] for o in both), alone)) < 1e-14


# ---- what PyTorch sees -----------------------------------------------------------------------------------------------
@parallel
def test_torch_compile_makes_one_graph(op, draw, rel, impl):
    """fullgraph=True, forward and backward: no break, and the same numbers."""
    x = op.draw(draw(5, 3))
    torch._dynamo.reset()

    def fn(*a):
        return sum(o.sin().sum() for o in op.call(*a, impl=impl, **op.options)).reshape(1)

    found = []
    for f in (fn, torch.compile(fn, fullgraph=True, backend="aot_eager")):
        leaves = [a.clone().requires_grad_() for a in x]
        out = f(*leaves)
        found.append([out, *torch.autograd.grad(out.sum(), leaves)])
    assert max(map(rel, found[1], found[0])) < 1e-12


@triton
@pytest.mark.parametrize("absent", [False, True])
def test_opcheck(op, draw, absent):
    """Schema, fake tensors (shapes, strides, dtypes), autograd registration and AOT dispatch."""
    import importlib

    fused = importlib.import_module(f"nlkernels.{op.name}.triton").FUSED
    x = [a.requires_grad_() for a in op.draw(draw(4, 2))]
    options = {
        "linear_memory": (4, "dot", "after", False),
        "selfref_memory": (3, True, 0.5, True),
        "titans_memory": (2, "after"),
        "mlp_memory": (2, True, "start", True),
        "newton_schulz": (2, 1.5, -0.5, 0.0, 1e-7),
    }
    if absent and op.name == "linear_memory":  # its gates may be absent
        x[3] = x[4] = None
    torch.library.opcheck(fused.op, (*x, *options[op.name]))


@triton
@pytest.mark.parametrize(
    ("dtype", "forward", "backward"),
    [(torch.float32, 1e-5, 1e-4), (torch.float16, 4e-3, 1e-2), (torch.bfloat16, 3e-2, 5e-2)],
)
def test_precisions(op, draw, rel, both, dtype, forward, backward):
    """Against the float64 definition on the same rounded inputs; states and sums stay in float32."""
    x = [a.to(dtype) if i < op.tokens else a.float() for i, a in enumerate(op.draw(draw(20, 8)))]
    got = both(op.call, x, impl="triton", **op.options)
    want = both(op.call, [a.double() for a in x], impl="reference", **op.options)
    n = len(got) - len(x)
    assert got[0].dtype == dtype and all(o.dtype == torch.float32 for o in got[1:n])
    blur = 2 if op.name in ("newton_schulz", "selfref_memory") else 1  # products of what products rounded
    assert max(map(rel, got[:n], want[:n])) < forward * blur
    assert op.name == "newton_schulz" or max(map(rel, got[n:], want[n:])) < backward * blur


@each
def test_autocast(op, draw, rel, impl):
    """Tokens are cast as a product would cast them, states are not, and gradients come back in their leaves' dtype.
    Newton-Schulz is an optimizer's: it stays in its own dtype."""
    x = [a.float() for a in op.draw(draw(9, 8))]
    want = op.call(*x, impl="chunked", **op.options)
    leaves = [a.clone().requires_grad_() for a in x]
    with torch.autocast("cpu", torch.bfloat16):
        got = op.call(*leaves, impl=impl, **op.options)
    cast = op.name != "newton_schulz"
    assert got[0].dtype == (torch.bfloat16 if cast else torch.float32)
    assert all(o.dtype == torch.float32 for o in got[1:])
    assert max(map(rel, got, want)) < (3e-2 if cast else 1e-5)
    sum(o.float().sum() for o in got).backward()
    assert all(a.grad is not None and a.grad.dtype == torch.float32 for a in leaves)


def test_explain(op, draw, capsys):
    x = op.draw(draw(2, 2))
    op.call(*x, impl="auto", explain=True)
    name = f"nlkernels.{op.name}"
    said = f"{name}: chunked (the tensors lie on the CPU, where Triton could only interpret)\n"
    assert not dispatch.have_triton() or capsys.readouterr().out == said
    op.call(*x, impl="reference", explain=True)
    assert capsys.readouterr().out == f"{name}: reference (asked for)\n"


@triton
def test_the_warning_comes_once_and_names_the_cost(op, draw, monkeypatch):
    import nlkernels.interpret as room

    monkeypatch.setattr(room, "_told", False)
    x = op.draw(draw(2, 2))
    with pytest.warns(room.InterpreterWarning, match=r"0\.1 s a chunk and head, for learning and testing only"):
        op.call(*x, impl="triton")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        op.call(*x, impl="triton")


# ---- edges -----------------------------------------------------------------------------------------------------------
@each
@pytest.mark.parametrize(("batch", "length"), [(1, 0), (0, 3), (1, 1)])
def test_no_token_no_sequence_and_one_token(memory, draw, rel, both, impl, batch, length):
    """The states come back, with their gradients."""
    x = memory.draw(draw(length, 3, batch=batch))
    got = both(memory.call, x, impl=impl, chunk=4)
    assert got[0].shape[:3] == (batch, 1, length)
    if length == 1:
        assert max(map(rel, got, both(memory.call, x, impl="reference", chunk=4))) < 1e-12
    elif batch:
        states = [a for a in x if a.ndim > 2 and length not in a.shape][: len(got) - len(x) - 1]
        assert all(torch.equal(a, b) for a, b in zip(got[1:], states))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused_by_the_name_of_the_argument(op, draw, bad):
    good = op.draw(draw(3, 2))
    for i in range(len(good)):
        x = [a.clone() for a in good]
        x[i].view(-1)[-1] = bad
        with pytest.raises(KernelError, match=r"^[\w.]+ of \w+: got a tensor with NaN or infinite elements"):
            op.call(*x)


def test_shapes_and_dtypes_are_refused_by_the_name_of_the_argument(memory, draw):
    good = memory.draw(draw(3, 2))
    for i in range(len(good)):
        for spoil in (lambda a: a[..., None], lambda a: torch.cat([a, a]), lambda a: a.long(), lambda a: "text"):
            with pytest.raises(KernelError, match=r"^[\w.]+ of \w+: got "):
                memory.call(*(spoil(a) if i == j else a for j, a in enumerate(good)))
    for options in ({"chunk": 0}, {"chunk": True}, {"chunk": 2.0}, {"impl": "cuda"}, {"impl": None}):
        name = next(iter(options))
        with pytest.raises(KernelError, match=rf"^{name} of \w+: got "):
            memory.call(*good, **options)


def test_each_refusal_names_its_argument(draw):
    q, k, v, alpha, _, _, M0 = draw(4, 3).linear()
    x, s = draw(4, 3).selfref(), draw(4, 3).mlp()
    state = SelfRefState(*x[2:7])
    for call, argument in (
        (lambda: linear_memory(q[..., :2], k, v), "q of linear_memory: got shape"),
        (lambda: linear_memory(q, k, v, alpha[:, 0]), r"alpha of linear_memory: got shape .*= \(batch, head, length\)"),
        (lambda: linear_memory(q, k, v, alpha - 2), "alpha of linear_memory: got the value -1"),
        (lambda: linear_memory(q, k, v, M0=M0[..., :2]), "M0 of linear_memory: got shape"),
        (lambda: linear_memory(q, k.float(), v), "q, k, v of linear_memory: .*float64.*float32"),
        (lambda: linear_memory(q, k, v, read="later"), "read of linear_memory: got 'later'"),
        (lambda: linear_memory(q, k, v, self_values=1), "self_values of linear_memory: got 1"),
        (
            lambda: linear_memory(q, k, v[..., :2], self_values=True),
            r"v of linear_memory: .*length, d_k\)",
        ),
        (lambda: linear_memory(q, k[0], v), "k of linear_memory: got shape"),
        (lambda: linear_memory(q[..., :0], k[..., :0], v), "k of linear_memory: got shape .* at least one feature"),
        (lambda: titans_memory(q, k, v, alpha, alpha - 2, alpha), "mu of titans_memory: got the value"),
        (lambda: titans_memory(q, k, v, alpha, alpha, alpha, impl="fast"), "impl of titans_memory"),
        (lambda: mlp_memory(*s[:5], s[5].mT[..., :1], s[6]), "W1 of mlp_memory: got shape"),
        (lambda: selfref_memory(*x[:2], state._replace(eta=state.key)), r"state.eta of selfref_memory: got shape"),
        (lambda: selfref_memory(*x[:2], state[:3]), "state of selfref_memory: got tuple"),
        (lambda: selfref_memory(*x[:2], state, b_eta=torch.zeros(2)), "b_eta of selfref_memory: got shape"),
        (lambda: selfref_memory(*x[:2], state, eta_max=-1), "eta_max of selfref_memory: got -1"),
        (lambda: newton_schulz(torch.ones(3)), "G of newton_schulz: got shape"),
        (lambda: newton_schulz(torch.ones(3, 3), coefficients="septic"), "coefficients of newton_schulz: got 'septic'"),
        (lambda: newton_schulz(torch.ones(3, 3), -1), "steps of newton_schulz: got -1"),
        (lambda: newton_schulz([torch.ones(3, 3), 1]), r"G\[1\] of newton_schulz: got int"),
    ):
        with pytest.raises(KernelError, match=f"^{argument}"):
            call()


@parallel
def test_rates_beyond_the_limit_are_refused_and_never_silently_infinite(draw, impl):
    q, k, v, alpha, eta, W1, W2 = draw(200, 4).mlp()
    y, *_ = mlp_memory(q, k, v, alpha, eta, W1, W2, impl=impl)
    assert torch.isfinite(y).all()
    with pytest.raises(KernelError, match=r"^eta of mlp_memory: got rates with which the memory diverges"):
        mlp_memory(q, k, v, alpha, 100 + eta, W1, W2, impl=impl)


# ---- small gates -----------------------------------------------------------------------------------------------------
GATED = {"linear_memory": 3, "titans_memory": 3, "mlp_memory": 3, "selfref_memory": 8}


@parallel
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-11), (torch.float32, 2e-3)])
@pytest.mark.parametrize("gate", [0.9, 1e-3, 1e-7, 1e-12, 0.0])
@pytest.mark.parametrize("all_of_them", [True, False])
def test_values_and_gradients_however_small_a_gate_is(memory, draw, rel, both, impl, dtype, limit, gate, all_of_them):
    """All retentions at `gate`, or a single one; every gradient on its own, the gates' token by token."""
    x = [a.to(dtype) for a in memory.draw(draw(12, 6))]
    which = [GATED[memory.name], *([4] if memory.name == "titans_memory" else [])]
    for i in which:
        if memory.name == "selfref_memory":
            x[i] = torch.full_like(x[i], float(torch.logit(torch.tensor(max(gate, 1e-30), dtype=torch.float64))))
        elif all_of_them:
            x[i] = torch.full_like(x[i], gate)
        else:
            x[i][..., 5] = gate
    options = {**memory.options, "chunk": 8}
    got = both(memory.call, x, impl=impl, **options)
    want = both(memory.call, [a.double() for a in x], impl="reference", **options)
    assert max(map(rel, got, want)) < limit
    n = len(got) - len(x)
    for i in which:
        error = (got[n + i] - want[n + i]).abs() / want[n + i].abs().clamp_min(1e-6 * want[n + i].abs().max())
        assert error.max() < 100 * limit, i
