"""Titans' linear memory with momentum."""

from __future__ import annotations

import pytest
import torch
from nlkernels import KernelError, dispatch, linear_memory, titans_memory
from torch import Tensor
from torch.nn.functional import normalize

triton = pytest.mark.skipif(not dispatch.have_triton(), reason="Triton exists for Linux only")
pytestmark = pytest.mark.filterwarnings("ignore::nlkernels.interpret.InterpreterWarning")


def draw(length: int = 37, dk: int = 8, dv: int = 12, batch: int = 1) -> list[Tensor]:
    """q, k, v, alpha, mu, eta, M0, S0."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    q, k = (normalize(normal(batch, 2, length, dk), dim=-1) for _ in range(2))
    alpha, mu, eta = (torch.sigmoid(normal(batch, 2, length) + shift) for shift in (3, 1, -1))
    return [q, k, normal(batch, 2, length, dv), alpha, mu, eta, normal(batch, 2, dv, dk), normal(batch, 2, dv, dk)]


def gradients(inputs: list[Tensor], **options) -> list[Tensor]:
    leaves = [a.clone().requires_grad_() for a in inputs]
    out = titans_memory(*leaves, **options)
    return [*out, *torch.autograd.grad(sum((o.double() ** 2).sin().sum() for o in out), leaves)]


@pytest.mark.parametrize("impl", ["chunked", pytest.param("triton", marks=triton)])
@pytest.mark.parametrize("read", ["start", "before", "after"])
@pytest.mark.parametrize(("length", "chunk"), [(37, 16), (5, 1), (3, 8)])
def test_values_and_gradients_are_those_of_the_token_loop(rel, impl, read, length, chunk):
    x = draw(length)
    want, got = (gradients(x, impl=i, read=read, chunk=chunk) for i in ("reference", impl))
    assert max(map(rel, got, want)) < 1e-12


@triton
@pytest.mark.parametrize(("dk", "dv"), [(72, 5), (5, 72)])
def test_more_than_64_keys_or_values_make_several_blocks_whose_sums_meet(rel, dk, dv):
    x = draw(9, dk, dv)
    want, got = (gradients(x, impl=i, read="before", chunk=4) for i in ("reference", "triton"))
    assert max(map(rel, got, want)) < 1e-12


def test_without_momentum_it_is_the_linear_memory_with_the_l2_objective(rel):
    q, k, v, alpha, mu, eta, M0, S0 = draw()
    y, M, _ = titans_memory(q, k, v, alpha, 1e-30 * mu, eta, M0, torch.zeros_like(S0), chunk=16)
    want = linear_memory(q, k, v, alpha, None, eta, M0, chunk=16, objective="l2", read="after")
    assert max(map(rel, (y, M), want)) < 1e-12


def test_the_reference_is_the_printed_rule():
    q, k, v, alpha, mu, eta, M0, S0 = (a[0, 0] for a in draw(4, 3, 2))
    y, M, S = titans_memory(*(a[None, None] for a in (q, k, v, alpha, mu, eta, M0, S0)), chunk=1, impl="reference")
    for t in range(4):
        S0 = mu[t] * S0 - eta[t] * torch.outer(M0 @ k[t] - v[t], k[t])
        M0 = alpha[t] * M0 + S0
        assert torch.allclose(y[0, 0, t], M0 @ q[t], atol=1e-13)
    assert torch.allclose(M[0, 0], M0, atol=1e-13) and torch.allclose(S[0, 0], S0, atol=1e-13)


def test_streaming_at_chunk_boundaries_is_one_call(rel):
    *x, M0, S0 = draw(20)
    y, M, S = titans_memory(*x, M0, S0, chunk=4)
    y1, M1, S1 = titans_memory(*(a[:, :, :8] for a in x), M0, S0, chunk=4)
    y2, M2, S2 = titans_memory(*(a[:, :, 8:] for a in x), M1, S1, chunk=4)
    assert max(map(rel, (torch.cat([y1, y2], 2), M2, S2), (y, M, S))) < 1e-13


@triton
def test_bounds_races_and_unwritten_elements(rel):
    from nlkernels.checker import checked, poisoned

    x = draw(13, 5, 70)
    with checked(), poisoned():
        got = titans_memory(*x, chunk=4, impl="triton", read="before")
    assert max(map(rel, got, titans_memory(*x, chunk=4, impl="reference", read="before"))) < 1e-12


@triton
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float16, 3e-3), (torch.bfloat16, 2e-2)])
def test_precisions(rel, dtype, limit):
    x = [a.to(dtype) if i < 3 else a.float() for i, a in enumerate(draw(20, 8, 8))]
    got = titans_memory(*x, chunk=8, impl="triton")
    assert got[0].dtype == dtype
    assert max(map(rel, got, titans_memory(*(a.double() for a in x), chunk=8, impl="reference"))) < limit


@triton
def test_opcheck():
    from nlkernels.titans_memory.triton import titans_memory_op

    torch.library.opcheck(titans_memory_op, (*(a.requires_grad_() for a in draw(3, 2, 2)), 2, "after"))


def test_errors():
    q, k, v, alpha, mu, eta, M0, S0 = draw()
    for call, message in (
        (lambda: titans_memory(q, k, v, alpha, mu[..., 0], eta), "mu has shape"),
        (lambda: titans_memory(q, k, v, alpha, mu - 1, eta), "mu has the value .* needed: positive"),
        (lambda: titans_memory(q, k, v, alpha, mu, eta, M0, S0[0]), "S0 has shape"),
    ):
        with pytest.raises(KernelError, match=message):
            call()
