"""The linear memory split over chunks (linear_memory/wy.py), in the interpreter, against the float64 token loop."""

from __future__ import annotations

import itertools

import pytest
import torch
from nlkernels import KernelError, linear_memory, titans_memory
from nlkernels.linear_memory.split import split_pays, times

pytest.importorskip("triton", reason="Triton exists for Linux only")

from nlkernels.checker import checked, poisoned

pytestmark = pytest.mark.filterwarnings("ignore::nlkernels.interpret.InterpreterWarning")


def both(inputs, *, dtype=torch.float64, form="triton_wy", **options):
    """Outputs and gradients of the split in `dtype` and of the float64 loop on the same, rounded, inputs."""
    found = []
    for impl, to in (("reference", torch.float64), (form, dtype)):
        leaves = [x if x is None else x.to(dtype).to(to).requires_grad_() for x in inputs]
        y, M = linear_memory(*leaves, impl=impl, **options)
        loss = sum(
            (o.double() * torch.linspace(-1, 1, o.numel(), dtype=torch.float64).reshape(o.shape)).sum() for o in (y, M)
        )
        found.append([y, M, *torch.autograd.grad(loss, [x for x in leaves if x is not None])])
    return found


@pytest.mark.eq(90, 92, 93)
@pytest.mark.parametrize(
    ("objective", "read", "erases", "self_values"),
    list(itertools.product(("dot", "l2"), ("start", "before", "after"), (True, False), (False, True))),
)
def test_forward_and_backward_are_the_token_loop(inputs, rel, objective, read, erases, self_values):
    """Ragged length and head sizes, several chunks; every output and every gradient; with and without decay."""
    x = inputs.linear(1, 1, 21, 12, 20, self_values=self_values)
    x[4] = x[4] if erases else None
    x[3] = x[3] if erases or objective == "dot" else None
    want, got = both(x, chunk=8, objective=objective, read=read, self_values=self_values)
    assert max(map(rel, got, want)) < 1e-12


@pytest.mark.parametrize(
    ("length", "chunk", "dk", "dv"),
    [(1, 16, 5, 3), (3, 1, 4, 4), (17, 16, 5, 3), (20, 16, 16, 72), (20, 16, 72, 5), (70, 64, 40, 64)],
)
def test_any_length_chunk_and_head_size(inputs, rel, length, chunk, dk, dv):
    """More than 64 values or keys make several blocks of columns, whose sums must meet."""
    want, got = both(inputs.linear(1, 2, length, dk, dv), chunk=chunk, objective="l2", read="after")
    assert max(map(rel, got, want)) < 1e-12


def test_repeated_keys_in_float32(inputs, rel):
    """alpha = 1, eta = 1, one key 64 times in a chunk of 64."""
    x = inputs.linear(1, 1, 64, 16, 16)
    x[1] = x[1][:, :, :1].expand_as(x[1])
    x[3] = x[4] = x[5] = torch.ones(1, 1, 64, dtype=torch.float64)
    want, got = both(x, dtype=torch.float32, chunk=64, read="after")
    assert max(map(rel, got[:2], want[:2])) < 1e-5
    assert max(map(rel, got[2:], want[2:])) < 1e-4


@pytest.mark.parametrize(
    ("dtype", "forward", "backward"),
    [(torch.float32, 1e-5, 1e-5), (torch.float16, 3e-3, 1e-2), (torch.bfloat16, 2e-2, 4e-2)],
)
def test_precisions(inputs, rel, dtype, forward, backward):
    want, got = both(inputs.linear(1, 1, 40, 16, 16), dtype=dtype, chunk=16, read="before")
    assert got[0].dtype == dtype and got[1].dtype == torch.float32
    assert max(map(rel, got[:2], want[:2])) < forward
    assert max(map(rel, got[2:], want[2:])) < backward


@pytest.mark.parametrize("read", ["start", "before"])  # "after": test_operators.py
def test_gradcheck_of_the_kernels(inputs, read):
    x = [a.requires_grad_() for a in inputs.linear(1, 1, 5, 2, 2)]
    assert torch.autograd.gradcheck(
        lambda *a: linear_memory(*a, chunk=3, objective="l2", read=read, impl="triton_wy"), x, fast_mode=True
    )


def test_bounds_races_and_unwritten_elements(inputs, rel):
    for self_values, read, objective in ((False, "after", "l2"), (True, "start", "dot")):
        x = inputs.linear(1, 2, 21, 12, 72, self_values=self_values)
        with checked() as check, poisoned():
            want, got = both(x, chunk=8, objective=objective, read=read, self_values=self_values)
        assert check.launches == 6  # three forward, three backward
        assert max(map(rel, got, want)) < 1e-12


def test_what_a_state_is_cut_from_it_goes_on_with(inputs, rel):
    *x, M0 = inputs.linear(1, 1, 20, 6, 6)
    whole = linear_memory(*x, M0, chunk=8, read="after", impl="triton_wy")
    y1, M1 = linear_memory(*(a[:, :, :13] for a in x), M0, chunk=8, read="after", impl="triton_wy")
    y2, M2 = linear_memory(*(a[:, :, 13:] for a in x), M1, chunk=8, read="after", impl="triton_wy")
    assert max(map(rel, (torch.cat([y1, y2], 2), M2), whole)) < 1e-13


def test_the_rule_is_a_model_of_bytes_and_of_the_longest_chain():
    """Few long sequences wait for their rows, many short ones for memory."""
    on = {"erases": True, "half": True, "free": True, "gpu": True}
    assert split_pays(128, 4096, 64, 64, 64, **on)[0] and split_pays(1, 65536, 64, 64, 64, **on)[0]
    assert not split_pays(4096, 128, 64, 64, 64, **on)[0]
    assert not split_pays(1, 16, 16, 64, 64, **on)[0]  # one chunk: three launches for nothing
    assert not split_pays(128, 4096, 64, 64, 64, **{**on, "gpu": False})[0]
    assert split_pays(4096, 128, 64, 128, 128, **{**on, "half": False, "free": False})[0]  # one kernel would spill
    one, split = times(128, 4096, 64, 64, 64, True, True)
    assert 1.2 < one / split < 1.5  # 779 against 591 us
    one, split = times(4, 4096, 64, 64, 64, True, True)
    assert one / split > 8  # few heads: all chunks at once fill the chip


def test_explain_names_the_form_and_why(inputs, capsys):
    x = inputs.linear(1, 1, 3, 2, 2)
    linear_memory(*x, impl="triton", explain=True)
    assert capsys.readouterr().out == (
        "nlkernels.linear_memory: triton (asked for; in Triton's interpreter, since the tensors lie on the CPU; one "
        "kernel a direction: the interpreter runs programs one after another)\n"
    )
    linear_memory(*x, impl="triton_wy", explain=True)
    assert capsys.readouterr().out.endswith("since the tensors lie on the CPU; triton_wy)\n")
    assert "split over chunks: " in split_pays(8, 4096, 64, 64, 64, erases=True, half=True, free=True, gpu=True)[1]
    with pytest.raises(KernelError, match="impl is 'triton_wy', needed: one of"):
        titans_memory(*x[:3], *x[3:6], impl="triton_wy")
