"""One error class for bad input. A message says which argument, what came and what was expected."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class KernelError(ValueError):
    """Bad input to an operator of nlkernels."""


def need(condition: bool, argument: str, came: Any, expected: str) -> None:
    """Raise KernelError unless `condition` holds.

    >>> need(64 > 0, "chunk of linear_memory", 64, "a positive int")
    """
    if not condition:
        raise KernelError(f"{argument}: got {came}, expected {expected}")


def need_int(argument: str, x: Any, least: int) -> None:
    """Raise unless `x` is an int (no bool) of at least `least`."""
    need(isinstance(x, int) and not isinstance(x, bool) and x >= least, argument, repr(x), f"an int >= {least}")


def need_number(argument: str, x: Any, least: float) -> None:
    """Raise unless `x` is a finite number of at least `least`."""
    number = isinstance(x, int | float) and not isinstance(x, bool)
    need(number and math.isfinite(x) and x >= least, argument, repr(x), f"a number >= {least}")


def need_choice(argument: str, x: Any, choices: Iterable[Any]) -> None:
    """Raise unless `x` is one of `choices`."""
    choices = tuple(choices)
    need(any(x is c or (isinstance(x, str) and x == c) for c in choices), argument, repr(x), f"one of {choices}")


def need_float(argument: str, x: Any, dims: str = "") -> None:
    """Raise unless `x` is a real floating-point tensor; `dims` says in a message which dimensions it should have."""
    need(isinstance(x, Tensor), argument, type(x).__name__, f"a tensor {dims}".strip())
    known = x.dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    need(known, argument, f"dtype {x.dtype}", "float32, float64, float16 or bfloat16")


def visible(x: Tensor) -> bool:
    """Whether the values of `x` may be looked at: not inside torch.compile or a function transform, where there are
    none yet, and not on a GPU, which would have to be waited for."""
    plain = type(x) in (Tensor, torch.nn.Parameter) and x.device.type == "cpu" and not torch.compiler.is_compiling()
    return plain and torch._C._functorch.peek_interpreter_stack() is None


def finite(x: Tensor) -> bool:
    """Whether no element is NaN or infinite. A sum tells so in one fast pass, unless it overflows."""
    return math.isfinite(x.detach().sum().item()) or bool(x.isfinite().all())


def need_finite(argument: str, x: Tensor) -> None:
    """Raise if an element of `x` is NaN or infinite, where its values are `visible`."""
    if visible(x):
        need(finite(x), argument, "a tensor with NaN or infinite elements", "finite numbers")
