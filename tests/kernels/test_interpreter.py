"""The Triton kernels themselves, run in the interpreter, against the float64 token loop."""

from __future__ import annotations

import itertools

import pytest
import torch
from nlkernels import linear_memory, newton_schulz

pytest.importorskip("triton", reason="Triton exists for Linux only")

import triton
import triton.language as tl
from nlkernels.checker import OutOfBounds, Race, checked, poisoned
from nlkernels.interpret import InterpreterWarning, interpret

pytestmark = pytest.mark.filterwarnings("ignore::nlkernels.interpret.InterpreterWarning")


def both(inputs, options, *, dtype=torch.float64, seed=0):
    """Outputs and gradients of the kernel (in `dtype`) and of the float64 token loop on the same, rounded, inputs."""
    found = []
    g = torch.Generator().manual_seed(seed)
    weights = None
    for impl, to in (("reference", torch.float64), ("triton", dtype)):
        leaves = [x if x is None else x.to(dtype).to(to).requires_grad_() for x in inputs]
        y, M = linear_memory(*leaves, impl=impl, **options)
        if weights is None:
            weights = [torch.randn(x.shape, generator=g, dtype=torch.float64).to(dtype).double() for x in (y, M)]
        loss = (y.double() * weights[0]).sum() + (M.double() * weights[1]).sum()
        found.append([y, M, *torch.autograd.grad(loss, [x for x in leaves if x is not None])])
    return found


CASES = list(itertools.product(("dot", "l2"), ("start", "before", "after"), (True, False)))


@pytest.mark.eq(90, 92, 93)
@pytest.mark.parametrize(("objective", "read", "erases"), CASES)
def test_forward_and_backward_are_the_token_loop(inputs, rel, objective, read, erases):
    """Ragged length and head sizes, several chunks; every output and every gradient."""
    x = inputs.linear(1, 2, 37, 12, 20)
    x[4] = x[4] if erases else None
    want, got = both(x, {"chunk": 16, "objective": objective, "read": read})
    assert max(map(rel, got, want)) < 1e-12


@pytest.mark.eq(87)
@pytest.mark.parametrize(
    ("objective", "read", "erases", "decays"),
    [
        ("l2", "start", True, True),
        ("dot", "after", True, False),
        ("dot", "before", False, True),
        ("l2", "before", False, False),
    ],
)
def test_with_self_generated_values(inputs, rel, objective, read, erases, decays):
    x = inputs.linear(1, 2, 21, 12, 20, self_values=True)
    x[4] = x[4] if erases else None
    x[3] = x[3] if decays else None
    want, got = both(x, {"chunk": 8, "objective": objective, "read": read, "self_values": True})
    assert max(map(rel, got, want)) < 1e-12


@pytest.mark.parametrize("length", [1, 3, 16, 17])
def test_tiny_and_ragged_lengths(inputs, rel, length):
    want, got = both(inputs.linear(2, 1, length, 5, 3), {"chunk": 16, "objective": "l2", "read": "after"})
    assert max(map(rel, got, want)) < 1e-12


@pytest.mark.parametrize("chunk", [1, 5, 24])
def test_a_chunk_of_any_size_keeps_its_meaning(inputs, rel, chunk):
    """The tile has 16, 32, ... rows; the rule's chunk may be any number of tokens."""
    want, got = both(inputs.linear(1, 1, 26, 8, 8), {"chunk": chunk, "objective": "l2", "read": "start"})
    assert max(map(rel, got, want)) < 1e-12


def test_several_value_blocks(inputs, rel):
    """d_v = 72 makes two value blocks of 64: gradients of q, k and the gates sum over them."""
    want, got = both(inputs.linear(1, 1, 20, 16, 72), {"chunk": 16, "objective": "l2", "read": "before"})
    assert max(map(rel, got, want)) < 1e-12


def test_the_size_that_a_gpu_runs(inputs, rel):
    want, got = both(inputs.linear(1, 1, 70, 64, 64), {"chunk": 64, "objective": "l2", "read": "start"})
    assert max(map(rel, got, want)) < 1e-12


def test_repeated_keys(inputs, rel):
    """alpha = 1, eta = 1, one key 64 times in a chunk of 64: forward substitution keeps float32 accurate."""
    x = inputs.linear(1, 1, 64, 16, 16)
    x[1] = x[1][:, :, :1].expand_as(x[1])
    x[3] = x[4] = x[5] = torch.ones(1, 1, 64, dtype=torch.float64)
    want, got = both(x, {"chunk": 64, "read": "after"}, dtype=torch.float32)
    assert max(map(rel, got[:2], want[:2])) < 1e-5
    assert max(map(rel, got[2:], want[2:])) < 1e-4


def test_alpha_near_zero(inputs, rel):
    """Nothing overflows. d log(alpha) is a difference of sums of order 1: exact to rounding in absolute terms only."""
    x = inputs.linear(1, 1, 32, 8, 8)
    x[3] = torch.full_like(x[3], 1e-6)
    want, got = both(x, {"chunk": 16, "read": "after"})
    alpha = 2 + 3
    assert max(rel(a, b) for i, (a, b) in enumerate(zip(got, want)) if i != alpha) < 1e-12
    assert (1e-6 * (got[alpha] - want[alpha])).abs().max() < 1e-14


@pytest.mark.parametrize(
    ("dtype", "forward", "backward"),
    [(torch.float32, 1e-5, 1e-5), (torch.float16, 3e-3, 1e-2), (torch.bfloat16, 2e-2, 4e-2)],
)
def test_precisions(inputs, rel, dtype, forward, backward):
    """float32 to rounding; half precisions accumulate in float32 (bf16 products are emulated in the interpreter)."""
    want, got = both(inputs.linear(1, 1, 40, 16, 16), {"chunk": 16, "read": "before"}, dtype=dtype)
    assert got[0].dtype == dtype and got[1].dtype == torch.float32
    assert max(map(rel, got[:2], want[:2])) < forward
    assert max(map(rel, got[2:], want[2:])) < backward


def test_non_contiguous_inputs(inputs, rel):
    """Transposed, strided and expanded tensors, as a model hands them over."""
    q, k, v, alpha, erase, write, M0 = inputs.linear(2, 2, 16, 8, 8)
    want = linear_memory(q, k, v, alpha[:, :1].expand_as(alpha), erase, write, M0, impl="reference")
    far = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    wide = torch.stack([erase, write], -1)
    got = linear_memory(
        *far, alpha[:, :1].expand_as(alpha), wide[..., 0], wide[..., 1], M0.mT.contiguous().mT, impl="triton", chunk=16
    )
    assert not far[0].is_contiguous()
    assert max(map(rel, got, want)) < 1e-12


@pytest.mark.parametrize("read", ["start", "before", "after"])
def test_gradcheck_of_the_kernels(inputs, read):
    """Finite differences of the Triton forward against the Triton backward: no other implementation takes part."""
    x = [a.requires_grad_() for a in inputs.linear(1, 1, 5, 2, 2)]
    assert torch.autograd.gradcheck(
        lambda *a: linear_memory(*a, chunk=3, objective="l2", read=read, impl="triton"), x, fast_mode=True
    )


def test_only_one_of_the_two_outputs_is_used(inputs, rel):
    x = inputs.linear(1, 1, 12, 4, 4)
    for pick in (0, 1):
        grads = []
        for impl in ("chunked", "triton"):
            leaves = [a.clone().requires_grad_() for a in x]
            linear_memory(*leaves, chunk=8, impl=impl)[pick].square().sum().backward()
            grads.append([a.grad if a.grad is not None else torch.zeros_like(a) for a in leaves])
        assert max(rel(a, b) if b.any() else a.abs().max().item() for a, b in zip(grads[1], grads[0])) < 1e-12


def test_nothing_is_read_that_was_not_written_and_no_program_meets_another(inputs, rel):
    """Fresh buffers hold NaN, every access is inside a tensor, and no two programs touch one element."""
    for self_values, read, objective in ((False, "after", "l2"), (True, "start", "dot")):
        x = inputs.linear(1, 2, 37, 12, 72, self_values=self_values)
        options = {"chunk": 16, "objective": objective, "read": read, "self_values": self_values}
        with checked() as check, poisoned():
            want, got = both(x, options)
        assert check.launches == 3
        assert max(map(rel, got, want)) < 1e-12


# -------------------------------------------------------------------------------------------- the tools themselves
@triton.jit
def unmasked(x, y, BLOCK: tl.constexpr):
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + o, tl.load(x + o))


@triton.jit
def add_one(y, BLOCK: tl.constexpr):
    o = tl.arange(0, BLOCK)
    tl.store(y + o, tl.load(y + o) + 1.0)


@triton.jit
def shift(x, n, BLOCK: tl.constexpr):
    """Writes where the next program reads."""
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + o + 1, mask=o + 1 < n, other=0.0)
    tl.store(x + o, v, mask=o < n)


@triton.jit
def halve_to(x, y, n, BLOCK: tl.constexpr):
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + o, tl.load(x + o, mask=o < n) * 0.5, mask=o < n)


def test_the_checker_sees_an_unmasked_tail():
    with checked(), pytest.raises(OutOfBounds, match=r"unmasked: program \(3, 0, 0\) would load 28 element"):
        interpret(unmasked)[(4,)](torch.ones(100), torch.zeros(100), 32)


def test_the_checker_sees_races():
    with checked(), pytest.raises(Race, match=r"add_one: program 1 loads element 0 of y, which program 0 stored"):
        interpret(add_one)[(3,)](torch.zeros(16), 16)
    with checked(), pytest.raises(Race, match=r"shift: program 1 stores element 16 of x, which program 0 loaded"):
        interpret(shift)[(2,)](torch.zeros(32), 32, 16)


def test_the_checker_passes_a_right_kernel_and_records_it():
    x, y = torch.arange(100.0), torch.full((100,), float("nan"))
    with checked(record=True) as check:
        interpret(halve_to)[(4,)](x, y, 100, 32)
    assert torch.equal(y, x / 2)
    assert [(a.program[0], a.kind, a.argument, len(a.elements)) for a in check.accesses[-2:]] == [
        (3, "load", "x", 4),
        (3, "store", "y", 4),
    ]


def test_interpreting_does_not_disturb_triton():
    """The patches live for one launch: afterwards a jit function is a jit function again."""
    before = triton.runtime.jit.JITFunction.__call__
    with pytest.raises(OutOfBounds), checked():
        interpret(unmasked)[(4,)](torch.ones(100), torch.zeros(100), 32)
    assert triton.runtime.jit.JITFunction.__call__ is before
    with pytest.raises(RuntimeError):
        tl.sum(torch.ones(3), 0)


def test_the_first_interpreted_launch_warns_once(inputs, monkeypatch):
    import warnings

    import nlkernels.interpret as room

    monkeypatch.setattr(room, "_told", False)
    q, k, v, *_ = inputs.linear(1, 1, 2, 2, 2)
    with pytest.warns(InterpreterWarning, match="for learning and testing only"):
        linear_memory(q, k, v, impl="triton")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        linear_memory(q, k, v, impl="triton")


# -------------------------------------------------------------------------------------------- newton_schulz
@pytest.mark.eq(44)
@pytest.mark.parametrize(
    ("shape", "coefficients", "steps"),
    [
        ((3, 24, 40), "quintic", 5),
        ((2, 40, 24), "quintic", 5),
        ((5, 9), "cubic", 12),
        ((2, 1, 3), "cubic", 3),
        ((1, 7, 7), "quintic", 0),
    ],
)
def test_fused_newton_schulz_is_the_loop(rel, shape, coefficients, steps):
    G = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    want = newton_schulz(G, steps, coefficients, impl="reference")
    with checked(), poisoned():
        got = newton_schulz(G, steps, coefficients, impl="triton")
    assert rel(got, want) < 1e-12
    assert rel(newton_schulz(G.float(), steps, coefficients, impl="triton"), want) < 1e-5
    assert rel(newton_schulz(G.mT.contiguous().mT, steps, coefficients, impl="triton"), want) < 1e-12


def test_fused_newton_schulz_has_a_gradient(rel):
    G = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grads = []
    for impl in ("reference", "triton"):
        leaf = G.clone().requires_grad_()
        grads.append(torch.autograd.grad(newton_schulz(leaf, impl=impl).pow(3).sum(), leaf)[0])
    assert rel(grads[1], grads[0]) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fused_newton_schulz_in_half_precision(rel, dtype):
    """Rounded products blur the iteration by a few of the dtype's last places; the result stays near orthogonal."""
    G = torch.randn(2, 16, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    got = newton_schulz(G, impl="triton")
    assert got.dtype == dtype
    assert rel(got, newton_schulz(G.double(), impl="reference")) < (1e-2 if dtype == torch.float16 else 6e-2)
