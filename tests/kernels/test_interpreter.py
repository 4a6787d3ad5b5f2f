"""The interpreter and its checker, on kernels that are wrong on purpose."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

import triton
import triton.language as tl
from nlkernels.checker import OutOfBounds, Race, checked
from nlkernels.interpret import interpret


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
