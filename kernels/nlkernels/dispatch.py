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

from nlkernels.errors import KernelError, need

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


def choose(op: str, impl: str, like: Tensor, *, size: int, largest: int = 128, sized: str = "head dimension") -> Choice:
    """Resolve `impl` for tensors that lie where `like` lies.

    Args:
        size, largest: the dimension that limits the fused kernel, and its limit.
        sized: what `size` is called in messages.
    Raises:
        KernelError: `impl` is unknown, or "triton" was asked for and cannot run here (the message says what can).
    """
    need(op, impl in IMPLS, "impl", repr(impl), f"one of {IMPLS}")
    if impl in ("reference", "chunked"):
        return Choice(impl, "asked for")
    why_not = ""
    if not have_triton():
        why_not = "triton is not installed (it exists for Linux only): impl='chunked' computes the same"
    elif size > largest:
        why_not = f"the fused kernel takes a {sized} up to {largest}, got {size}: use impl='chunked'"
    elif like.device.type not in ("cuda", "cpu"):
        why_not = f"the fused kernel runs on cuda and cpu tensors, got {like.device.type}: use impl='chunked'"
    elif like.device.type == "cuda":
        if like.dtype == torch.float64:
            why_not = "float64 runs fused only in the interpreter (cpu tensors); on a GPU use impl='chunked'"
        elif capability(like.device) < (8, 0):
            has = f"{'.'.join(map(str, capability(like.device)))} ({torch.cuda.get_device_name(like.device)})"
            why_not = (
                f"the fused kernel needs compute capability 8.0, this GPU has {has}, for which Triton emits no "
                "tensor-core code: use impl='chunked'"
            )
    if impl == "triton":
        if why_not:
            raise KernelError(f"{op}: impl='triton' cannot run: {why_not}")
        gpu = like.device.type == "cuda"
        where = "compiled for this GPU" if gpu else "in Triton's interpreter, since the tensors lie on the CPU"
        return Choice("triton", f"asked for; {where}")
    if why_not:
        return Choice("chunked", why_not)
    if like.device.type == "cpu":
        return Choice("chunked", "the tensors lie on the CPU, where Triton could only interpret")
    return Choice("triton", "a CUDA GPU of compute capability >= 8.0, a supported dtype and size")


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


def positive(op: str, argument: str, x: Tensor | None) -> None:
    """Raise unless every element is in (0, inf); looked at on CPU tensors only, and never inside torch.compile."""
    if x is None or x.device.type != "cpu" or torch.compiler.is_compiling() or type(x) is not Tensor or not x.numel():
        return
    low = x.detach().amin().item()
    if not low > 0:
        raise KernelError(
            f"{op}: {argument} has the value {low:.3g}, needed: positive (the chunk form works with its "
            "logarithm). Pass it through a sigmoid"
        )
