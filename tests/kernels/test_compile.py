"""Every kernel compiles for sm_80 and sm_90 on a machine without a GPU, and stays within what those chips have."""
from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton exists for Linux only")

import triton
import triton.language as tl
from nlkernels import compile_check
from nlkernels.compile_check import Case, Compiled, cases, compile_case

SPILL = 64          # bytes a thread


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    """Compiled kernels stay in a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def default(operator: str, cc: int, dtype: str) -> list:
    return [pytest.param(case, cc, id=f"sm_{cc} {case.name}") for case in cases(operator, cc, dtype)]


def check(found: Compiled, spill: int = SPILL) -> None:
    assert found.fits, found.line()
    assert found.spill_stores <= spill and found.spill_loads <= spill, found.line()
    assert found.tensor_core > 0, found.line()
    assert found.risky_transposes == 0, found.line()


@pytest.mark.parametrize(("case", "cc"), [*default("linear_memory", 80, "bf16"), *default("linear_memory", 90, "bf16"),
                                          *default("linear_memory", 80, "fp32")[:3],
                                          *default("linear_memory", 90, "fp32")[:3]])
def test_linear_memory(case, cc):
    check(compile_case(case, cc))


@pytest.mark.parametrize(("case", "cc"), [c for cc in (80, 90) for c in (*default("newton_schulz", cc, "bf16"),
                                                                         *default("newton_schulz", cc, "fp32")[:2])])
def test_newton_schulz(case, cc):
    check(compile_case(case, cc))


CHAIN = {80: 512, 90: 320}         # the backward's chain of selfref_memory: over the limit, within these bounds


@pytest.mark.parametrize("cc", [80, 90])
@pytest.mark.parametrize("part", range(4), ids=["forward", "prepare", "chain", "rest"])
def test_selfref_memory(part, cc):
    check(compile_case(cases("selfref_memory", cc, "bf16")[part], cc), CHAIN[cc] if part == 2 else SPILL)


@pytest.mark.parametrize("operator", ["titans_memory", "mlp_memory"])
@pytest.mark.parametrize("cc", [80, 90])
def test_titans_and_mlp_memory(operator, cc):
    check(compile_case(cases(operator, cc, "bf16")[0], cc))


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
    from pathlib import Path
    there = {p.parent.name for p in Path(compile_check.__file__).parent.glob("*/triton.py")}
    assert there == set(compile_check.OPERATORS)
