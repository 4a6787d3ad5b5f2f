"""The residual two-layer memory."""

from __future__ import annotations

import pytest
import torch
from nlkernels import KernelError, dispatch, mlp_memory
from torch import Tensor
from torch.nn.functional import normalize, silu

triton = pytest.mark.skipif(not dispatch.have_triton(), reason="Triton exists for Linux only")
pytestmark = pytest.mark.filterwarnings("ignore::nlkernels.interpret.InterpreterWarning")


def draw(length: int = 21, d: int = 6, hidden: int = 10) -> list[Tensor]:
    """q, k, v, alpha, eta, W1, W2."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    q, k, v = (normalize(normal(1, 2, length, d), dim=-1) for _ in range(3))
    alpha, eta = torch.sigmoid(normal(1, 2, length) + 3), 0.5 * torch.sigmoid(normal(1, 2, length))
    return [q, k, v, alpha, eta, normal(1, 2, d, hidden) / hidden**0.5, normal(1, 2, hidden, d) / d**0.5]


def gradients(inputs: list[Tensor], **options) -> list[Tensor]:
    leaves = [a.clone().requires_grad_() for a in inputs]
    out = mlp_memory(*leaves, **options)
    return [*out, *torch.autograd.grad(sum((o.double() ** 2).sin().sum() for o in out), leaves)]


@pytest.mark.eq(89, 90, 91)
@pytest.mark.parametrize("impl", ["chunked", pytest.param("triton", marks=triton)])
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
def test_values_and_gradients_are_those_of_the_token_loop(rel, impl, read, objective, erase, chunk):
    x = draw(5 if chunk == 1 else 21)
    options = {"read": read, "objective": objective, "erase": erase, "chunk": chunk}
    want, got = (gradients(x, impl=i, **options) for i in ("reference", impl))
    assert max(map(rel, got, want)) < 1e-12


def test_the_step_is_dgd_a_layer_with_autograd_s_gradient():
    """Each layer: W (alpha I - eta n n^T) - eta dL/dW, n its own input, L = 1/2 |M(k) - v|^2."""
    q, k, v, alpha, eta, W1, W2 = (a[0, 0] for a in draw(1))
    _, got1, got2 = mlp_memory(*(a[None, None] for a in (q, k, v, alpha, eta, W1, W2)), impl="reference")
    l1, l2 = W1.clone().requires_grad_(), W2.clone().requires_grad_()
    a = silu(W2 @ k[0])
    loss = 0.5 * (k[0] + l1 @ silu(l2 @ k[0]) - v[0]).square().sum()
    g1, g2 = torch.autograd.grad(loss, (l1, l2))
    assert torch.allclose(got1[0, 0], alpha[0] * W1 - eta[0] * torch.outer(W1 @ a, a) - eta[0] * g1, atol=1e-13)
    assert torch.allclose(got2[0, 0], alpha[0] * W2 - eta[0] * torch.outer(W2 @ k[0], k[0]) - eta[0] * g2, atol=1e-13)


@triton
def test_bounds_races_and_unwritten_elements(rel):
    from nlkernels.checker import checked, poisoned

    x = draw(11, 5, 9)
    with checked(), poisoned():
        got = mlp_memory(*x, chunk=4, impl="triton", read="after")
    assert max(map(rel, got, mlp_memory(*x, chunk=4, impl="reference", read="after"))) < 1e-12


@triton
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_precisions(rel, dtype, limit):
    x = [a.to(dtype) if i < 3 else a.float() for i, a in enumerate(draw())]
    got = mlp_memory(*x, chunk=8, impl="triton")
    assert got[0].dtype == dtype
    assert max(map(rel, got, mlp_memory(*(a.double() for a in x), chunk=8, impl="reference"))) < limit


@triton
def test_opcheck():
    from nlkernels.mlp_memory.triton import mlp_memory_op

    torch.library.opcheck(mlp_memory_op, (*(a.requires_grad_() for a in draw(2, 2, 3)), 2, True, "start", True))


def test_errors():
    q, k, v, alpha, eta, W1, W2 = draw()
    with pytest.raises(
        KernelError, match=r"W1 has shape \(1, 2, 10, 6\), needed: \(1, 2, 6, 10\) = \(batch, head, d, h\)"
    ):
        mlp_memory(q, k, v, alpha, eta, W1.mT, W2)
    if dispatch.have_triton():
        with pytest.raises(KernelError, match="d, chunk and h / 2 up to 64, got 100"):
            mlp_memory(q, k, v, alpha, eta, W1, W2, chunk=100, impl="triton")
