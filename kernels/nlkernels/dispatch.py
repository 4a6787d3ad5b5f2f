"""Which implementation runs, and in which precision.

Three implementations of every operator compute the same thing:

    reference   the definition: a loop over tokens (or matrices), no tricks
    chunked     the exact parallel form in plain PyTorch; the fast one on a CPU, and what torch.compile sees through
    triton      one fused kernel, forward and backward; on CPU tensors it runs in Triton's interpreter (slow, exact)

`impl="auto"` takes triton on a CUDA GPU of compute capability >= 8.0 for a supported dtype and size, and chunked
everywhere else. It never takes the interpreter: that is for reading, stepping through and testing.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch
from torch import Tensor

from nlkernels.errors import need, need_choice

IMPLS = ("auto", "reference", "chunked", "triton")
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Choice:
    """An implementation and the reason for it: what `explain=True` prints."""

    impl: str
    why: str


def _look_for_triton() -> bool:
    try:
        return importlib.util.find_spec("triton") is not None  # looked up, not imported
    except (ImportError, ValueError):
        return False


_HAVE_TRITON = _look_for_triton()


def have_triton() -> bool:
    """Whether triton can be imported here."""
    return _HAVE_TRITON


def capability(device: torch.device) -> tuple[int, int]:
    """The compute capability of a CUDA device, (0, 0) elsewhere."""
    if device.type != "cuda":
        return 0, 0
    found = torch.cuda.get_device_properties(device)  # torch.compile folds this call to a constant
    return found.major, found.minor


def available() -> dict[str, bool]:
    """What this machine can run: {"reference", "chunked", "triton", "interpreter"} -> bool.

    >>> available()["chunked"]
    True
    """
    gpu = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    return {"reference": True, "chunked": True, "triton": have_triton() and gpu, "interpreter": have_triton()}


def choose(op: str, impl: str, like: Tensor, sizes: dict[str, int], limits: dict[str, int]) -> Choice:
    """Resolve `impl` for tensors that lie where `like` lies.

    Args:
        sizes: the dimensions by name. limits: the largest that the fused kernel takes of some of them.
    Raises:
        KernelError: `impl` is unknown, or "triton" was asked for and cannot run here (the message says what can).
    """
    need_choice(f"impl of {op}", impl, IMPLS)
    if impl in ("reference", "chunked"):
        return Choice(impl, "asked for")
    gpu = like.device.type == "cuda"
    why_not = not_fused(like, sizes, limits)
    if impl == "triton":
        need(not why_not, f"impl of {op}", "'triton'", f"one that can run, as 'chunked': {why_not}")
        where = "compiled for this GPU" if gpu else "in Triton's interpreter, since the tensors lie on the CPU"
        return Choice("triton", f"asked for; {where}")
    if why_not:
        return Choice("chunked", why_not)
    if not gpu:
        return Choice("chunked", "the tensors lie on the CPU, where Triton could only interpret")
    return Choice("triton", "a CUDA GPU of compute capability >= 8.0, a supported dtype and size")


def not_fused(like: Tensor, sizes: dict[str, int], limits: dict[str, int]) -> str:
    """Why the fused kernel cannot run for tensors like this one; empty where it can."""
    if not have_triton():
        return "triton is not installed (it exists for Linux only)"
    for name, largest in limits.items():
        if sizes.get(name, 0) > largest:
            return f"the fused kernel takes {name} up to {largest}, not {sizes[name]}"
    if like.device.type not in ("cuda", "cpu"):
        return f"the fused kernel runs on cuda and cpu tensors, not on {like.device.type}"
    if like.device.type == "cuda" and like.dtype == torch.float64:
        return "float64 runs fused only in the interpreter, on cpu tensors"
    if like.device.type == "cuda" and capability(like.device) < (8, 0):
        has = f"{'.'.join(map(str, capability(like.device)))} ({torch.cuda.get_device_name(like.device)})"
        return f"the fused kernel needs tensor cores of compute capability 8.0, and this GPU has {has}"
    return ""


def explain_choice(op: str, choice: Choice) -> None:
    """Print one line: what was chosen and why."""
    print(f"nlkernels.{op}: {choice.impl} ({choice.why})")


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of states and accumulators: float64 for float64, float32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def autocast_inputs(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under torch.autocast, cast to its dtype as a matrix product would (float64 is left alone)."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)


def no_autocast(like: Tensor) -> torch.autocast:
    """A context in which nothing is cast: states and sums stay in `compute_dtype`."""
    return torch.autocast(like.device.type, enabled=False)
