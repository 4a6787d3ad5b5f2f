"""What every operator promises: one graph, autocast, gradients, precisions, clean memory, and a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from nlkernels import SelfRefState, dispatch, linear_memory, mlp_memory, newton_schulz, selfref_memory, titans_memory
from torch import Tensor
from torch.nn.functional import normalize

pytestmark = [
    pytest.mark.skipif(not dispatch.have_triton(), reason="Triton exists for Linux only"),
    pytest.mark.filterwarnings("ignore::nlkernels.interpret.InterpreterWarning"),
]


class Operator(NamedTuple):
    call: Callable[..., Any]  # call(*inputs, impl=..., explain=...) -> tensors
    draw: Callable[..., list[Tensor]]  # draw(length, d) -> float64 inputs
    tokens: int  # how many of the first inputs are tokens, which are cast


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


def _tokens(length: int, d: int) -> list[Tensor]:
    return [normalize(_normal(1, 1, length, d, seed=s), dim=-1) for s in range(3)]


def _gates(length: int) -> list[Tensor]:
    return [torch.sigmoid(_normal(1, 1, length, seed=s) + shift) for s, shift in ((5, 3), (6, 1), (7, -1))]


def _matrix(d: int, seed: int) -> Tensor:
    return 0.5 * torch.eye(d, dtype=torch.float64)[None, None] + _normal(1, 1, d, d, seed=seed) / (2 * d**0.5)


def _selfref(x: Tensor, q: Tensor, *memories: Tensor, **options: Any) -> list[Tensor]:
    y, last = selfref_memory(x, q, SelfRefState(*memories), chunk=4, **options)
    return [y, *last]


def _linear(form: str) -> Callable[..., Any]:
    def call(*a: Tensor, impl: str, **options: Any) -> Any:
        impl = form if impl == "triton" else impl
        return linear_memory(*a, chunk=4, objective="l2", read="after", impl=impl, **options)

    return call


def _draw_linear(length: int, d: int) -> list[Tensor]:
    alpha, erase, write = _gates(length)
    return [*_tokens(length, d), alpha, erase, write, _matrix(d, 1)]


OPERATORS = {
    "linear_memory": Operator(_linear("triton_fused"), _draw_linear, 3),
    "linear_memory split": Operator(_linear("triton_wy"), _draw_linear, 3),
    "selfref_memory": Operator(
        _selfref,
        lambda n, d: [
            *_tokens(n, d)[:2],
            *(_matrix(d, s) for s in range(3)),
            *(_normal(1, 1, d, seed=s) / d for s in (3, 4)),
        ],
        2,
    ),
    "titans_memory": Operator(
        lambda *a, **o: titans_memory(*a, chunk=4, **o),
        lambda n, d: [*_tokens(n, d), *_gates(n), _matrix(d, 1), _matrix(d, 2)],
        3,
    ),
    "mlp_memory": Operator(
        lambda *a, **o: mlp_memory(*a, chunk=4, read="before", **o),
        lambda n, d: [*_tokens(n, d), _gates(n)[0], 0.5 * _gates(n)[2], _matrix(d, 1), _matrix(d, 2)],
        3,
    ),
    "newton_schulz": Operator(lambda G, **o: [newton_schulz(G, 3, **o)], lambda n, d: [_normal(2, n, d)], 1),
}
every = pytest.mark.parametrize("name", list(OPERATORS))


def run(op: Operator, inputs: list[Tensor], impl: str) -> list[Tensor]:
    """Outputs and gradients."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = [*op.call(*leaves, impl=impl)]
    loss = sum((o.double() * torch.linspace(-1, 1, o.numel(), dtype=torch.float64).reshape(o.shape)).sum() for o in out)
    return [*out, *torch.autograd.grad(loss, leaves)]


@every
def test_torch_compile_makes_one_graph(rel, name):
    """fullgraph=True, forward and backward: no break, and the same numbers."""
    op = OPERATORS[name]
    x = op.draw(5, 3)
    torch._dynamo.reset()

    def fn(*a: Tensor) -> Tensor:
        return sum(o.sin().sum() for o in op.call(*a, impl="triton")).reshape(1)

    found = []
    for f in (fn, torch.compile(fn, fullgraph=True, backend="aot_eager")):
        leaves = [a.clone().requires_grad_() for a in x]
        out = f(*leaves)
        found.append([out, *torch.autograd.grad(out.sum(), leaves)])
    assert max(map(rel, found[1], found[0])) < 1e-12


@every
def test_finite_differences_of_the_kernel_are_its_backward(name):
    op = OPERATORS[name]
    x = [a.requires_grad_() for a in op.draw(3, 2)]
    assert torch.autograd.gradcheck(lambda *a: tuple(op.call(*a, impl="triton")), x, fast_mode=True)


@every
def test_forward_and_backward_touch_what_is_theirs_and_write_all_of_it(rel, name):
    """Fresh buffers hold NaN; no access out of bounds; no two programs touch one element. Ragged in every way."""
    from nlkernels.checker import checked, poisoned

    op = OPERATORS[name]
    x = op.draw(7, 5)
    with checked() as check, poisoned():
        got = run(op, x, "triton")
    assert check.launches >= 1
    assert max(map(rel, got, run(op, x, "reference"))) < 1e-12


@every
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
def test_precisions_of_values(rel, name, dtype, limit):
    """Against the float64 definition on the same rounded inputs; states stay in float32."""
    op = OPERATORS[name]
    x = [a.to(dtype) if i < op.tokens else a.float() for i, a in enumerate(op.draw(9, 8))]
    got, want = op.call(*x, impl="triton"), op.call(*(a.double() for a in x), impl="reference")
    assert got[0].dtype == dtype and all(o.dtype == torch.float32 for o in got[1:])
    assert max(map(rel, got, want)) < (limit if name != "newton_schulz" else 2 * limit)


@every
@pytest.mark.parametrize("impl", ["chunked", "triton"])
def test_autocast(rel, name, impl):
    """Tokens are cast as a product would cast them, states are not, and gradients come back in their leaves' dtype.
    Newton-Schulz is an optimizer's: it stays in its own dtype."""
    op = OPERATORS[name]
    x = [a.float() for a in op.draw(9, 8)]
    want = op.call(*x, impl="chunked")
    leaves = [a.clone().requires_grad_() for a in x]
    with torch.autocast("cpu", torch.bfloat16):
        got = op.call(*leaves, impl=impl)
    cast = name != "newton_schulz"
    assert got[0].dtype == (torch.bfloat16 if cast else torch.float32)
    assert all(o.dtype == torch.float32 for o in got[1:])
    assert max(map(rel, got, want)) < (3e-2 if cast else 1e-5)
    sum(o.float().sum() for o in got).backward()
    assert all(a.grad is not None and a.grad.dtype == torch.float32 for a in leaves)


@every
def test_explain(capsys, name):
    op = OPERATORS[name]
    x = op.draw(2, 2)
    op.call(*x, impl="triton", explain=True)
    said = capsys.readouterr().out
    assert said.startswith(
        f"nlkernels.{name.split()[0]}: triton (asked for; in Triton's interpreter, since the tensors lie on the CPU"
    )
    op.call(*x, impl="auto", explain=True)
    assert capsys.readouterr().out == (
        f"nlkernels.{name.split()[0]}: chunked (the tensors lie on the CPU, where Triton could only interpret)\n"
    )


@pytest.mark.parametrize("d", [16, 24, 64, 100, 128])
@pytest.mark.parametrize("name", [n for n in OPERATORS if n != "mlp_memory"])
def test_head_sizes(rel, name, d):
    op = OPERATORS[name]
    x = op.draw(5, d)
    assert max(map(rel, op.call(*x, impl="triton"), op.call(*x, impl="reference"))) < 1e-12


@pytest.mark.parametrize("d", [16, 24, 64])
def test_head_sizes_of_the_mlp_memory(rel, d):
    """Its two weight matrices limit it to 64."""
    op = OPERATORS["mlp_memory"]
    x = op.draw(5, d)
    assert max(map(rel, op.call(*x, impl="triton"), op.call(*x, impl="reference"))) < 1e-12


def test_the_warning_comes_once_and_names_the_cost(monkeypatch):
    import warnings

    import nlkernels.interpret as room

    for op in OPERATORS.values():
        monkeypatch.setattr(room, "_told", False)
        x = op.draw(2, 2)
        with pytest.warns(room.InterpreterWarning, match=r"0\.1 s a chunk and head, for learning and testing only"):
            op.call(*x, impl="triton")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            op.call(*x, impl="triton")
