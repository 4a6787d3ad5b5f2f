"""Every kernel compiles for sm_80 and sm_90 on a machine without a GPU, and stays within what those chips have."""

from __future__ import annotations

import itertools
from pathlib import Path

import nlkernels
import pytest

pytest.importorskip("triton", reason="Triton exists for Linux only")

import triton
import triton.language as tl
from nlbook_tools import compile_check
from nlbook_tools.compile_cases import Case, cases
from nlbook_tools.compile_check import Compiled, compile_case

SPILL = 64  # bytes a thread
SIZES = (16, 32, 64, 128)
ALWAYS = (64, "bf16")  # what every run compiles; the other settings take many minutes


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    """Compiled kernels stay in a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def check(found: Compiled) -> None:
    assert found.fits, found.line()
    assert found.spill_stores <= SPILL and found.spill_loads <= SPILL, found.line()
    assert found.tensor_core > 0, found.line()
    assert found.risky_transposes == 0, found.line()


# Phases that hand values on through global memory: the compiler must keep their barriers, as barriers for all memory.
ORDERED = {
    "selfref_memory_forward": 4,
    "selfref_memory_backward_prepare": 2,
    "selfref_memory_backward_chain": 6,
    "mlp_memory_forward": 9,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every kernel of every operator as it is launched by default, on both chips: one head size and dtype in every run,
    all of them, 16 to 128 in bf16 and fp32, with --slow.
    """
    if "operator" not in metafunc.fixturenames:
        return
    every = [*itertools.product(SIZES, ("bf16", "fp32"))] if metafunc.config.getoption("--slow") else [ALWAYS]
    found = [
        pytest.param(operator, d, cc, dtype, n, id=f"sm_{cc} {case.name}")
        for operator, cc, (d, dtype) in itertools.product(compile_check.OPERATORS, (80, 90), every)
        for n, case in enumerate(cases(operator, cc, dtype, d))
    ]
    metafunc.parametrize(("operator", "d", "cc", "dtype", "n"), found)


def test_no_default_configuration_spills(operator, d, cc, dtype, n):
    """At most 64 bytes a thread; shared memory fits; tensor cores are used; no known-miscompiled pattern."""
    case = cases(operator, cc, dtype, d)[n]
    found = compile_case(case, cc)
    check(found)
    assert found.barriers >= ORDERED.get(case.kernel.fn.__name__, 0)


@triton.jit
def transposed_accumulator(x, y, S: tl.constexpr):
    """The pattern that Triton 3.4-3.7.0 compiled wrongly on Hopper."""
    i = tl.arange(0, S)
    p = i[:, None] * S + i[None, :]
    a = tl.load(x + p)
    tl.store(y + p, tl.dot(tl.trans(tl.dot(a, a) * 2.0).to(tl.bfloat16), a))


def test_the_check_sees_the_miscompiled_pattern_and_missing_tensor_cores():
    case = Case(transposed_accumulator, {"x": "*bf16", "y": "*fp32"}, {"S": 64})
    assert compile_case(case, 90).risky_transposes == 1
    found = compile_case(case, 75)
    assert found.tensor_core == 0 and "NO TENSOR CORES" in found.line()


def test_the_check_names_what_a_case_forgot():
    with pytest.raises(ValueError, match=r"transposed_accumulator has no type or value for \['S'\]"):
        compile_case(Case(transposed_accumulator, {"x": "*bf16", "y": "*fp32"}, {}), 90)


def test_every_operator_with_a_kernel_is_checked():
    there = {p.parent.name for p in Path(nlkernels.__file__).parent.glob("*/triton.py")}
    assert there == set(compile_check.OPERATORS)
