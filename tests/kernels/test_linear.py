"""The linear memory in all its forms against the token loop: values and every gradient, in float64."""

from __future__ import annotations

import importlib
import itertools
from functools import partial

import pytest
import torch
from nlkernels import dispatch, linear_memory

CHUNKED = importlib.import_module("nlkernels.linear_memory.chunked")  # the module; the package shows its function
triton = pytest.mark.skipif(not dispatch.have_triton(), reason="Triton exists for Linux only")
pytestmark = pytest.mark.filterwarnings("ignore::nlkernels.interpret.InterpreterWarning")


@pytest.fixture(params=["chunked", "one chunk at a time", pytest.param("triton", marks=triton)])
def form(request, monkeypatch):
    """The `impl` of each form."""
    if request.param == "one chunk at a time":
        monkeypatch.setattr(CHUNKED, "CACHED", 0)
        return "chunked"
    return request.param


@pytest.mark.eq(87, 90, 92, 93)
@pytest.mark.parametrize(
    ("objective", "read", "self_values"), itertools.product(("dot", "l2"), ("start", "before", "after"), (False, True))
)
def test_every_setting(draw, apart, form, objective, read, self_values):
    """Ragged length and head sizes, several chunks; with and without forgetting and erasing."""
    absences = (
        itertools.product((True, False), repeat=2) if form == "chunked" else ((True, True), (False, objective == "dot"))
    )
    for erases, decays in absences:
        x = draw(21, 12, 20).linear(self_values)
        x[3], x[4] = x[3] if decays else None, x[4] if erases else None
        options = {"chunk": 8, "objective": objective, "read": read, "self_values": self_values}
        assert apart(linear_memory, x, form, **options) < 1e-12, (erases, decays)


@pytest.mark.parametrize(
    ("length", "chunk", "dk", "dv"),
    [
        (1, 16, 5, 3),
        (3, 1, 4, 4),
        (16, 5, 5, 3),
        (17, 16, 5, 3),
        (26, 24, 8, 8),
        (20, 16, 16, 72),
        (20, 16, 72, 5),
        (70, 64, 40, 64),
    ],
)
def test_any_length_chunk_and_head_size(draw, apart, form, length, chunk, dk, dv):
    """More than 64 values or keys make several blocks of columns, whose sums must meet."""
    x = draw(length, dk, dv, head=2 if length < 20 else 1).linear()
    assert apart(linear_memory, x, form, chunk=chunk, objective="l2", read="after" if length < 70 else "start") < 1e-12


def test_repeated_keys_in_float32(draw, rel, both, form):
    """alpha = 1, eta = 1, one key 64 times in a chunk of 64: forward substitution keeps float32 accurate."""
    x = draw(64, 16).linear()
    x[1] = x[1][:, :, :1].expand_as(x[1])
    x[3] = x[4] = x[5] = torch.ones(1, 1, 64, dtype=torch.float64)
    x = [a.float() for a in x]
    got = both(linear_memory, x, impl=form, chunk=64, read="after")
    want = both(linear_memory, [a.double() for a in x], impl="reference", chunk=64, read="after")
    assert max(map(rel, got[:2], want[:2])) < 1e-5
    assert max(map(rel, got[2:], want[2:])) < 1e-4


@triton
@pytest.mark.parametrize("read", ["start", "before"])  # "after": test_operators.py
def test_gradcheck_of_the_kernels(draw, read):
    """Finite differences of the Triton forward against the Triton backward: no other implementation takes part."""
    x = [a.requires_grad_() for a in draw(5, 2).linear()]
    run = partial(linear_memory, chunk=3, objective="l2", read=read, impl="triton")
    assert torch.autograd.gradcheck(run, x, fast_mode=True)


@triton
def test_bounds_races_and_unwritten_elements_of_several_value_blocks(draw, apart):
    from nlkernels.checker import checked, poisoned

    for self_values, read, objective in ((False, "after", "l2"), (True, "start", "dot")):
        x = draw(21, 12, 72, head=2).linear(self_values)
        with checked() as check, poisoned():
            error = apart(linear_memory, x, chunk=8, objective=objective, read=read, self_values=self_values)
        assert check.launches == 6 and error < 1e-12  # three forward, three backward


@triton
def test_non_contiguous_inputs(draw, rel):
    """Transposed, strided and expanded tensors, as a model hands them over."""
    q, k, v, alpha, erase, write, M0 = draw(16, 8, batch=2, head=2).linear()
    want = linear_memory(q, k, v, alpha[:, :1].expand_as(alpha), erase, write, M0, impl="reference")
    far = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    wide = torch.stack([erase, write], -1)
    rest = alpha[:, :1].expand_as(alpha), wide[..., 0], wide[..., 1], M0.mT.contiguous().mT
    assert not far[0].is_contiguous()
    assert max(map(rel, linear_memory(*far, *rest, impl="triton", chunk=16), want)) < 1e-12


@triton
def test_only_one_of_the_two_outputs_is_used(draw, rel):
    x = draw(12, 4).linear()
    for pick in (0, 1):
        grads = []
        for impl in ("chunked", "triton"):
            leaves = [a.clone().requires_grad_() for a in x]
            linear_memory(*leaves, chunk=8, impl=impl)[pick].square().sum().backward()
            grads.append([a.grad if a.grad is not None else torch.zeros_like(a) for a in leaves])
        assert max(rel(a, b) if b.any() else a.abs().max().item() for a, b in zip(grads[1], grads[0])) < 1e-12


@pytest.mark.parametrize("impl", ["reference", "chunked", pytest.param("triton", marks=triton)])
def test_state_in_state_out_is_one_call(draw, rel, impl):
    *x, M0 = draw(40, 8, batch=2).linear()
    for read, objective, cut in (("before", "dot", 13), ("after", "dot", 1), ("start", "l2", 16)):
        run = partial(linear_memory, chunk=8, read=read, objective=objective, impl=impl)
        y1, M1 = run(*(a[:, :, :cut] for a in x), M0)
        y2, M2 = run(*(a[:, :, cut:] for a in x), M1)
        assert max(map(rel, (torch.cat([y1, y2], 2), M2), run(*x, M0))) < 1e-13
