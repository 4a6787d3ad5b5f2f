"""The same kernels compiled, on a real GPU: run where there is one (compute capability 8.0 or more), skipped
elsewhere."""

from __future__ import annotations

import itertools

import pytest
import torch
from nlkernels import SelfRefState, available, dispatch, linear_memory, newton_schulz, selfref_memory, titans_memory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not available()["triton"], reason="no CUDA GPU of capability 8.0, or no triton"),
]

TOLERANCE = {
    torch.float32: (3e-3, 1e-2),
    torch.float16: (3e-3, 1e-2),
    torch.bfloat16: (2e-2, 4e-2),
}  # forward, backward


def compare(fn, inputs, dtype, tokens: int, rel):
    """Outputs and gradients of the fused form on the GPU against the float64 token loop on the same, rounded,
    inputs."""
    found = []
    for impl, device, to in (("reference", "cpu", torch.float64), ("triton", "cuda", dtype)):
        leaves = [
            x.to(dtype if i < tokens else torch.float32)
            .to(device, to if i < tokens or to == torch.float64 else torch.float32)
            .requires_grad_()
            for i, x in enumerate(inputs)
        ]
        out = fn(*leaves, impl=impl)
        loss = sum(
            (o.double() * torch.linspace(-1, 1, o.numel(), device=device, dtype=torch.float64).reshape(o.shape)).sum()
            for o in out
        )
        found.append([x.cpu() for x in (*out, *torch.autograd.grad(loss, leaves))])
    n = len(out)
    forward, backward = TOLERANCE[dtype]
    assert max(map(rel, found[1][:n], found[0][:n])) < forward
    assert max(map(rel, found[1][n:], found[0][n:])) < backward


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(
    ("objective", "read", "chunk", "length", "d"),
    [
        *((o, r, 64, 300, 64) for o, r in itertools.product(("dot", "l2"), ("start", "before", "after"))),
        ("l2", "start", 16, 77, 40),
        ("dot", "after", 32, 130, 128),
        ("l2", "start", 64, 130, 128),
    ],
)
def test_linear_memory(inputs, rel, dtype, objective, read, chunk, length, d):
    x = inputs.linear(2, 2, length, d, d)

    for form in ("triton_fused", "triton_wy"):

        def fn(*a, impl, form=form):
            return linear_memory(
                *a, objective=objective, read=read, chunk=chunk, impl=form if impl == "triton" else impl
            )

        compare(fn, x, dtype, 3, rel)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("read", "length", "d"), [("start", 150, 64), ("before", 77, 40), ("after", 150, 128)])
def test_titans_memory(inputs, rel, dtype, read, length, d):
    q, k, v, alpha, mu, eta, M0 = inputs.linear(1, 2, length, d, d)

    def fn(*a, impl):
        return titans_memory(*a, read=read, chunk=64, impl=impl)

    compare(fn, [q, k, v, alpha, mu, 0.1 * eta, M0, M0.flip(-1)], dtype, 3, rel)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_selfref_memory(rel, dtype):
    g = torch.Generator().manual_seed(0)
    x, q = (torch.randn(1, 2, 150, 64, generator=g, dtype=torch.float64) for _ in range(2))
    matrices = [
        torch.eye(64, dtype=torch.float64) + torch.randn(1, 2, 64, 64, generator=g, dtype=torch.float64) / 16
        for _ in range(3)
    ]
    gates = [torch.randn(1, 2, 64, generator=g, dtype=torch.float64) / 16 for _ in range(2)]

    def fn(x, q, *memories, impl):
        y, last = selfref_memory(x, q, SelfRefState(*memories), chunk=64, impl=impl)
        return [y, *last]

    compare(fn, [x, q, *matrices, *gates], dtype, 2, rel)


@pytest.mark.parametrize("shape", [(8, 64, 64), (3, 128, 128), (2, 128, 40), (50, 24)])
def test_newton_schulz(rel, shape):
    G = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    want = newton_schulz(G.double(), impl="reference")
    assert rel(newton_schulz(G.cuda()).cpu(), want) < 1e-2
    assert rel(newton_schulz(G.cuda().bfloat16()).cpu(), want) < 0.1


def test_auto_takes_triton_and_a_long_sequence_stays_finite():
    assert dispatch.choose("linear_memory", "auto", torch.ones(1, device="cuda"), size=64).impl == "triton"
    x = torch.randn(2, 4, 8192, 64, device="cuda", dtype=torch.bfloat16)
    k = torch.nn.functional.normalize(x.float(), dim=-1).bfloat16()
    eta = torch.full((2, 4, 8192), 0.5, device="cuda")
    y, M = linear_memory(k, k, x, torch.full_like(eta, 0.99), eta, eta)
    assert torch.isfinite(y).all() and torch.isfinite(M).all()
