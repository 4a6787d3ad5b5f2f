"""Which implementation runs; what torch.compile, autocast and a machine without triton see."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from functools import partial

import nlkernels
import pytest
import torch
from nlkernels import KernelError, dispatch, linear_memory, mlp_memory

triton = pytest.mark.skipif(not dispatch.have_triton(), reason="Triton exists for Linux only")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_works_where_triton_cannot_be_imported():
    out = run("""
        import sys
        sys.modules["triton"] = None                      # `import triton` raises ImportError from here on
        import torch, nlkernels
        k = torch.randn(1, 1, 9, 4)
        y, M = nlkernels.linear_memory(k, k, k)
        X = nlkernels.newton_schulz([k[0, 0]])
        print(nlkernels.available(), tuple(y.shape))
        try:
            nlkernels.linear_memory(k, k, k, impl="triton")
        except nlkernels.KernelError as e:
            print(e)
        """)
    assert "'triton': False, 'interpreter': False" in out and "(1, 1, 9, 4)" in out
    assert "triton is not installed" in out


def test_importing_the_package_does_not_import_triton():
    assert run("import sys, nlkernels; print({'triton', 'nlbook', 'torch._dynamo'} & set(sys.modules))") == "set()\n"


class OnGPU:
    """Enough of a CUDA tensor for `choose`."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.device = dtype, torch.device("cuda", 0)


@triton
@pytest.mark.parametrize(
    ("capability", "dtype", "size", "impl", "why"),
    [
        ((9, 0), torch.bfloat16, 128, "triton", "compute capability >= 8.0"),
        ((8, 0), torch.float32, 64, "triton", "compute capability >= 8.0"),
        ((7, 5), torch.float16, 64, "chunked", "this GPU has .*T4"),
        ((9, 0), torch.bfloat16, 192, "chunked", "d_k up to 128, not 192"),
        ((9, 0), torch.float64, 64, "chunked", "float64 runs fused only in the interpreter"),
    ],
)
def test_auto_on_a_gpu(monkeypatch, capability, dtype, size, impl, why):
    monkeypatch.setattr(dispatch, "capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla T4")
    choose = partial(dispatch.choose, "linear_memory", like=OnGPU(dtype), sizes={"d_k": size}, limits={"d_k": 128})
    choice = choose("auto")
    assert choice.impl == impl
    assert re.search(why, choice.why)
    if impl == "chunked":
        with pytest.raises(KernelError, match=r"^impl of linear_memory: got 'triton'"):
            choose("triton")


@triton
def test_newton_schulz_avoids_the_one_size_that_spills(monkeypatch):
    from nlkernels.newton_schulz import fits_registers

    for capability, dtype, shape, fits in (
        ((9, 0), torch.float32, (128, 128), False),
        ((9, 0), torch.float32, (64, 128), True),
        ((9, 0), torch.bfloat16, (128, 128), True),
        ((8, 0), torch.float32, (128, 128), True),
    ):
        monkeypatch.setattr(dispatch, "capability", lambda _, c=capability: c)
        assert fits_registers(torch.empty(2, *shape, dtype=dtype)) == fits


@triton
def test_what_the_kernel_cannot_take_is_refused_with_a_way_out():
    wide, k = torch.zeros(1, 1, 2, 192), torch.zeros(1, 1, 2, 4)
    with pytest.raises(KernelError, match=r"^impl of linear_memory: .*as 'chunked': .*d_k up to 128, not 192"):
        linear_memory(wide, wide, wide, impl="triton")
    with pytest.raises(KernelError, match=r"^chunk of linear_memory: got 200"):
        linear_memory(k, k, k, impl="triton", chunk=200, read="start")
    W = torch.zeros(1, 1, 4, 4)
    with pytest.raises(KernelError, match=r"^impl of mlp_memory: .*chunk up to 64, not 100"):
        mlp_memory(k, k, k, k[..., 0], k[..., 0], W, W, chunk=100, impl="triton")


def test_available_names_this_machine():
    found = nlkernels.available()
    assert found["reference"] and found["chunked"] and found["interpreter"] == dispatch.have_triton()
