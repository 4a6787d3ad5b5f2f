"""The fast scans are the slow ones: outputs, states and gradients in float64, from any state, cut anywhere."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import F64, close
from torch import Tensor

from nlbook import memory
from nlbook.errors import NLBookError
from nlbook.memory.core import Memory

FAST = {
    "hebbian": {},
    "linear_attention": {},
    "decay": {},
    "delta": {},
    "gated_delta": {},
    "implicit": {},
    "dgd": {"form": "printed"},
    "dgd-l2": {"objective": "l2", "keep": 0.9},
    "delta-old": {"keep": 0.8},
    "implicit-dot": {"objective": "dot"},
    "softmax": {},
    "softmax-recency": {"keep": 0.7, "kernel": "gaussian"},
    "softmax-nearest": {"temperature": 0.0},
    "sliding_window": {"window": 3},
    "sliding_window-recency": {"window": 2, "keep": 0.7, "temperature": 0.3},
}


def make(name: str) -> Memory:
    return memory.make(name.split("-")[0], **FAST[name])


def data(T: int, batch: tuple[int, ...], seed: int) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    k, v, q = (torch.randn(*batch, T, d, generator=g, dtype=F64) for d in (4, 3, 4))
    lr, keep = (torch.rand(*batch, T, generator=g, dtype=F64) * 0.8 + 0.1 for _ in range(2))
    return k / 2, v, q, lr, keep


@pytest.mark.eq(5, 15, 16, 57, 62, 63, 64, 65)
@pytest.mark.parametrize("name", FAST)
@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 9),
    st.integers(0, 5),
    st.sampled_from([(), (3,), (2, 2)]),
    st.sampled_from(["before", "after"]),
    st.booleans(),
    st.integers(0, 1000),
)
def test_chunked_is_the_loop(name, T, before, batch, read, rates, seed):
    """From an empty memory or from one that `before` tokens went into, with rates as numbers or one per token."""
    mem = make(name)
    k0, v0, _, lr0, keep0 = data(before, batch, seed)
    k, v, q, lr, keep = data(T, batch, seed + 1)
    options = {"lr": lr, "keep": keep} if rates else {}
    start = mem.write_all(k0, v0, lr=lr0, keep=keep0)
    (y, end), (y2, end2) = (mem.scan(k, v, q, start, read, impl=impl, **options) for impl in ("loop", "chunked"))
    close(y2, y)
    close(end2.M, end.M)
    for part in end.extra:
        close(end2.extra[part], end.extra[part])


@pytest.mark.parametrize("read", ["before", "after"])
@pytest.mark.parametrize("name", ["gated_delta", "dgd-l2", "linear_attention", "softmax-recency"])
def test_chunked_gradients_are_the_loop_s(name, read):
    mem, inputs = make(name), [x.requires_grad_() for x in data(6, (2,), 0)]
    grads = []
    for impl in ("loop", "chunked"):
        y, end = mem.scan(*inputs[:3], lr=inputs[3], keep=inputs[4], read=read, impl=impl)
        grads.append(torch.autograd.grad((y * y.detach().cos()).sum() + end.M.sum(), inputs))
    for a, b in zip(*grads):
        close(a, b)


@pytest.mark.parametrize("name", ["oja", "omega", "lp", "rls", "mlp"])
def test_memories_without_a_chunked_form_say_so(name):
    k = torch.zeros(2, 3)
    with pytest.raises(NLBookError, match="impl: got 'chunked'"):
        memory.make(name).scan(k, k, k, impl="chunked")
    with pytest.raises(NLBookError, match="impl: got 'fused'"):
        memory.make(name).scan(k, k, k, impl="fused")


def test_a_pull_to_the_start_has_no_chunked_form():
    k = torch.zeros(2, 3)
    with pytest.raises(NLBookError, match="towards initial"):
        memory.make("delta", towards="initial", keep=0.9).scan(k, k, k, impl="chunked")
