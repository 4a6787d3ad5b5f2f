"""The self-referential memory: five memories that make their own keys, values and gates."""

from __future__ import annotations

import pytest
import torch
from nlkernels import KernelError, SelfRefState, dispatch, selfref_memory
from torch import Tensor

triton = pytest.mark.skipif(not dispatch.have_triton(), reason="Triton exists for Linux only")
pytestmark = pytest.mark.filterwarnings("ignore::nlkernels.interpret.InterpreterWarning")


def draw(batch: int = 1, head: int = 2, length: int = 23, d: int = 6, seed: int = 0) -> list[Tensor]:
    """x, q, three matrices, two gate vectors, two biases."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    matrices = [normal(batch, head, d, d) / d**0.5 + 0.5 * torch.eye(d, dtype=torch.float64) for _ in range(3)]
    gates = [normal(batch, head, d) / d**0.5 for _ in range(2)]
    return [
        normal(batch, head, length, d),
        normal(batch, head, length, d),
        *matrices,
        *gates,
        0.3 * normal(batch, head),
        0.3 * normal(batch, head) + 2,
    ]


def run(inputs: list[Tensor], **options) -> list[Tensor]:
    x, q, *memories, b_eta, b_alpha = inputs
    y, last = selfref_memory(x, q, SelfRefState(*memories), b_eta=b_eta, b_alpha=b_alpha, **options)
    return [y, *last]


def gradients(inputs: list[Tensor], **options) -> list[Tensor]:
    leaves = [a.clone().requires_grad_() for a in inputs]
    out = run(leaves, **options)
    return out + list(torch.autograd.grad(sum((o.double() ** 2).sin().sum() for o in out), leaves))


def test_the_reference_is_the_printed_rule():
    """eq. 86-88 written out for one sequence, chunk 1, with the gradient of 1/2 |M k - v^|^2 taken by autograd."""
    x, q, Mk, Mv, Mm, me, ma, b_eta, b_alpha = (a[0, 0] for a in draw(1, 1, 5, 4))
    got = run(
        [a[None, None] for a in (x, q, Mk, Mv, Mm, me, ma)] + [b_eta[None, None], b_alpha[None, None]],
        chunk=1,
        impl="reference",
    )
    memories = [Mk, Mv, Mm, me[None], ma[None]]
    for t in range(5):
        k, v = memories[0] @ x[t], memories[1] @ x[t]
        k, v = k / k.norm(), v / v.norm()
        eta = 0.5 * torch.sigmoid(memories[3] @ x[t] + b_eta)
        alpha = torch.sigmoid(memories[4] @ x[t] + b_alpha)
        assert torch.allclose(got[0][0, 0, t], memories[2] @ q[t], atol=1e-11)
        new = []
        for M in memories:
            leaf = M.clone().requires_grad_()
            target = (M @ v).detach()
            (slope,) = torch.autograd.grad(0.5 * (leaf @ k - target).square().sum(), leaf)
            new.append(M @ (alpha * torch.eye(4, dtype=torch.float64) - eta * torch.outer(k, k)) - eta * slope)
        memories = new
    for end, M in zip(got[1:], memories):
        assert torch.allclose(end[0, 0], M.reshape(end[0, 0].shape), atol=1e-11)


@pytest.mark.eq(86, 87, 88, 90)
@pytest.mark.parametrize("impl", ["chunked", pytest.param("triton", marks=triton)])
@pytest.mark.parametrize(
    ("length", "d", "chunk", "objective", "unit_values"),
    [(23, 6, 8, "l2", True), (17, 12, 5, "dot", False), (5, 4, 1, "l2", True), (3, 5, 16, "dot", True)],
)
def test_values_and_gradients_are_those_of_the_token_loop(rel, impl, length, d, chunk, objective, unit_values):
    x = draw(1, 2, length, d)
    options = {"chunk": chunk, "objective": objective, "unit_values": unit_values}
    want, got = gradients(x, impl="reference", **options), gradients(x, impl=impl, **options)
    assert max(map(rel, got, want)) < 1e-12


@triton
def test_the_size_that_a_gpu_runs(rel):
    x = draw(1, 1, 70, 32)
    want, got = gradients(x, chunk=32, impl="chunked"), gradients(x, chunk=32, impl="triton")
    assert max(map(rel, got, want)) < 1e-11


@triton
@pytest.mark.parametrize(("dtype", "forward", "backward"), [(torch.float32, 1e-5, 1e-4), (torch.bfloat16, 3e-2, 8e-2)])
def test_precisions(rel, dtype, forward, backward):
    x = draw(1, 1, 20, 8)
    x[:2] = [a.to(dtype).double() for a in x[:2]]
    want = gradients(x, chunk=8, impl="reference")
    got = gradients([*(a.to(dtype) for a in x[:2]), *(a.float() for a in x[2:])], chunk=8, impl="triton")
    assert got[0].dtype == dtype and got[1].dtype == torch.float32
    assert max(map(rel, got[:6], want[:6])) < forward
    assert max(map(rel, got[6:], want[6:])) < backward


@triton
def test_every_element_is_written_and_no_program_meets_another(rel):
    from nlkernels.checker import checked, poisoned

    x = draw(1, 2, 13, 5)
    with checked() as check, poisoned():
        got = gradients(x, chunk=4, impl="triton")
    assert check.launches == 4
    assert max(map(rel, got, gradients(x, chunk=4, impl="reference"))) < 1e-12


@triton
def test_opcheck_and_one_graph(rel):
    from nlkernels.selfref_memory.triton import selfref_memory_op

    x = [a.requires_grad_() for a in draw(1, 1, 4, 2)]
    torch.library.opcheck(selfref_memory_op, (*x, 3, True, 0.5, True))


@pytest.mark.parametrize("impl", ["reference", "chunked"])
def test_streaming_at_chunk_boundaries_is_one_call(rel, impl):
    x, q, *memories, b_eta, b_alpha = draw(2, 1, 20, 4)
    whole = run([x, q, *memories, b_eta, b_alpha], chunk=4, impl=impl)
    first = run([x[:, :, :8], q[:, :, :8], *memories, b_eta, b_alpha], chunk=4, impl=impl)
    second = run([x[:, :, 8:], q[:, :, 8:], *first[1:], b_eta, b_alpha], chunk=4, impl=impl)
    assert rel(torch.cat([first[0], second[0]], 2), whole[0]) < 1e-13
    assert max(map(rel, second[1:], whole[1:])) < 1e-13


@pytest.mark.eq(87)
def test_linear_self_referential_memories_keep_their_rank_and_stay_at_zero():
    x = draw(1, 1, 40, 8)
    x[4] = x[4][..., :2] @ torch.randn(2, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.linalg.matrix_rank(run(x, chunk=8)[3], rtol=1e-10).item() == 2
    x[4] = torch.zeros_like(x[4])
    assert not run(x, chunk=8)[3].any()


def test_one_sequence_does_not_see_another(rel):
    both = draw(2, 1, 9, 4)
    alone = run([a[:1] for a in both], chunk=4)
    assert max(map(rel, (o[:1] for o in run(both, chunk=4)), alone)) < 1e-14


def test_errors():
    x, q, *memories, _, _ = draw()
    state = SelfRefState(*memories)
    for call, message in (
        (lambda: selfref_memory(x, q[..., :3], state), r"q has shape \(1, 2, 23, 3\), needed: \(1, 2, 23, 6\)"),
        (lambda: selfref_memory(x, q, state._replace(eta=state.key)), r"state.eta has shape .*= \(batch, head, d\)"),
        (lambda: selfref_memory(x, q, state[:3]), r"state is tuple, needed: a SelfRefState"),
        (lambda: selfref_memory(x, q, state, b_eta=torch.zeros(2)), r"b_eta has shape \(2,\), needed: \(1, 2\)"),
        (lambda: selfref_memory(x, q, state, chunk=0), r"chunk is 0"),
    ):
        with pytest.raises(KernelError, match=message):
            call()
