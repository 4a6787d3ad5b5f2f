"""The same kernels compiled, on a real GPU: run where there is one (compute capability 8.0 or more), skipped elsewhere.

`make gpu` runs this file first.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from nlkernels import available, dispatch, linear_memory, newton_schulz, titans_memory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not available()["triton"], reason="no CUDA GPU of capability 8.0, or no triton"),
]
TOLERANCE = {  # forward, backward
    torch.float32: (3e-3, 1e-2),
    torch.float16: (3e-3, 1e-2),
    torch.bfloat16: (2e-2, 4e-2),
}
every_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE))


@pytest.fixture
def compare(rel, both):
    """Outputs and gradients on the GPU against the float64 token loop on the same, rounded, inputs."""

    def check(call, inputs, dtype, tokens, **options):
        x = [a.to(dtype if i < tokens else torch.float32) for i, a in enumerate(inputs)]
        want = both(call, [a.double() for a in x], impl="reference", **options)
        got = [a.cpu() for a in both(call, [a.cuda() for a in x], impl="triton", **options)]
        n, (forward, backward) = len(got) - len(x), TOLERANCE[dtype]
        assert max(map(rel, got[:n], want[:n])) < forward
        assert max(map(rel, got[n:], want[n:])) < backward

    return check


@pytest.mark.parametrize(
    ("dtype", "d"),
    [*((t, 64) for t in TOLERANCE), *((torch.bfloat16, d) for d in (16, 40, 128)), (torch.float32, 128)],
)
def test_every_operator_in_three_precisions_and_at_every_head_size(memory, draw, compare, dtype, d):
    """Several chunks of 64 and a ragged tail."""
    if d > max(memory.sizes):
        pytest.skip(f"the fused {memory.name} takes heads up to {max(memory.sizes)}")
    x = memory.draw(draw(150, d, batch=2, head=2))
    compare(memory.call, x, dtype, memory.tokens, **{**memory.options, "chunk": 64})


@every_dtype
@pytest.mark.parametrize(("objective", "read"), itertools.product(("dot", "l2"), ("start", "before", "after")))
def test_every_setting_of_the_linear_memory(draw, compare, dtype, objective, read):
    x = draw(300, 64, batch=2, head=2).linear()
    compare(linear_memory, x, dtype, 3, chunk=64, objective=objective, read=read)


@every_dtype
@pytest.mark.parametrize("read", ["start", "before"])
def test_titans_memory_reads_at_every_place(draw, compare, dtype, read):
    compare(titans_memory, draw(77, 64, head=2).titans(), dtype, 3, read=read, chunk=64)


@pytest.mark.parametrize("shape", [(8, 64, 64), (3, 128, 128), (2, 128, 40), (50, 24)])
def test_newton_schulz(rel, shape):
    G = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    want = newton_schulz(G.double(), impl="reference")
    assert rel(newton_schulz(G.cuda()).cpu(), want) < 1e-2
    assert rel(newton_schulz(G.cuda().bfloat16()).cpu(), want) < 0.1


def test_auto_takes_triton_and_a_long_sequence_stays_finite():
    assert dispatch.choose("linear_memory", "auto", torch.ones(1, device="cuda"), {}, {}).impl == "triton"
    x = torch.randn(2, 4, 8192, 64, device="cuda", dtype=torch.bfloat16)
    k = torch.nn.functional.normalize(x.float(), dim=-1).bfloat16()
    eta = torch.full((2, 4, 8192), 0.5, device="cuda")
    y, M = linear_memory(k, k, x, torch.full_like(eta, 0.99), eta, eta)
    assert torch.isfinite(y).all() and torch.isfinite(M).all()
