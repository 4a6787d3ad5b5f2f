"""Which implementation runs; what torch.compile, autocast and a machine without triton see."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap

import nlkernels
import pytest
import torch
from nlkernels import KernelError, dispatch, linear_memory, newton_schulz

triton = pytest.mark.skipif(not dispatch.have_triton(), reason="Triton exists for Linux only")
quiet = pytest.mark.filterwarnings("ignore::nlkernels.interpret.InterpreterWarning")


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
    assert "triton is not installed (it exists for Linux only): impl='chunked' computes the same" in out


def test_importing_the_package_does_not_import_triton():
    assert run("import sys, nlkernels; print({'triton', 'nlbook', 'torch._dynamo'} & set(sys.modules))") == "set()\n"


def test_explain_says_what_was_chosen_and_why(inputs, capsys):
    q, k, v, *_ = inputs.linear(1, 1, 3, 2, 2)
    linear_memory(q, k, v, explain=True)
    assert capsys.readouterr().out == (
        "nlkernels.linear_memory: chunked (the tensors lie on the CPU, where Triton could only interpret)\n"
    )
    newton_schulz(q[0, 0], impl="reference", explain=True)
    assert capsys.readouterr().out == "nlkernels.newton_schulz: reference (asked for)\n"


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
        ((9, 0), torch.bfloat16, 192, "chunked", "head dimension up to 128, got 192"),
        ((9, 0), torch.float64, 64, "chunked", "float64 runs fused only in the interpreter"),
    ],
)
def test_auto_on_a_gpu(monkeypatch, capability, dtype, size, impl, why):
    monkeypatch.setattr(dispatch, "capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla T4")
    choice = dispatch.choose("linear_memory", "auto", OnGPU(dtype), size=size)
    assert choice.impl == impl
    assert re.search(why, choice.why)
    if impl == "chunked":
        with pytest.raises(KernelError, match="impl='triton' cannot run"):
            dispatch.choose("linear_memory", "triton", OnGPU(dtype), size=size)


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
    wide = torch.zeros(1, 1, 2, 192)
    with pytest.raises(KernelError, match=r"head dimension up to 128, got 192: use impl='chunked'"):
        linear_memory(wide, wide, wide, impl="triton")
    k = torch.zeros(1, 1, 2, 4)
    with pytest.raises(KernelError, match=r"chunk is 200, needed: at most 128 for impl='triton'"):
        linear_memory(k, k, k, impl="triton", chunk=200, read="start")


def test_torch_compile_takes_the_chunked_form_as_one_graph(inputs, rel):
    """fullgraph=True: no graph break; forward and backward equal the eager ones. Fused: test_operators.py."""
    x = inputs.linear(1, 1, 10, 4, 4)
    torch._dynamo.reset()

    def loss(*a):
        y, M = linear_memory(*a, chunk=8, objective="l2", read="start", impl="chunked")
        return (torch.sin(y).sum() + M.square().sum()).reshape(1)

    found = []
    for fn in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        leaves = [a.clone().requires_grad_() for a in x]
        out = fn(*leaves)
        found.append([out, *torch.autograd.grad(out.sum(), leaves)])
    assert max(map(rel, found[1], found[0])) < 1e-12


@triton
@quiet
@pytest.mark.parametrize(("absent", "wy"), [(False, False), (True, False), (False, True)])
def test_linear_memory_passes_opcheck(inputs, absent, wy):
    """Schema, fake tensors (shapes, strides, dtypes), autograd registration and AOT dispatch."""
    from nlkernels.linear_memory.triton import linear_memory_op

    q, k, v, alpha, erase, write, M0 = (x.float().requires_grad_() for x in inputs.linear(1, 1, 4, 2, 3))
    la, er = (None, None) if absent else (alpha.detach().log().requires_grad_(), erase)
    torch.library.opcheck(linear_memory_op, (q, k, v, la, er, write, M0, 4, "dot", "after", False, wy))


@triton
@quiet
def test_newton_schulz_passes_opcheck():
    from nlkernels.newton_schulz.triton import newton_schulz_op

    torch.library.opcheck(newton_schulz_op, (torch.eye(3, 5).expand(2, 3, 5).requires_grad_(), 2, 1.5, -0.5, 0.0, 1e-7))


@quiet
@pytest.mark.parametrize("impl", ["reference", "chunked", pytest.param("triton", marks=triton)])
def test_autocast_casts_tokens_and_leaves_the_state_alone(inputs, rel, impl):
    x = inputs.linear(1, 1, 20, 8, 8, dtype=torch.float32)
    want, M0 = linear_memory(*x, chunk=16)
    leaves = [a.clone().requires_grad_() for a in x]
    with torch.autocast("cpu", torch.bfloat16):
        y, M = linear_memory(*leaves, chunk=16, impl=impl)
    assert (y.dtype, M.dtype) == (torch.bfloat16, torch.float32)
    assert 0 < rel(y, want) < 2e-2 and rel(M, M0) < 2e-2
    (y.float().sum() + M.sum()).backward()
    assert all(a.grad.dtype == torch.float32 for a in leaves)


def test_available_names_this_machine():
    found = nlkernels.available()
    assert found["reference"] and found["chunked"] and found["interpreter"] == dispatch.have_triton()
