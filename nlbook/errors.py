"""One error class for bad input, and the few checks that every room shares.

A message always says three things: which argument, what came, what was expected.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class NLBookError(ValueError):
    """Bad input to nlbook. The message names the argument, what came and what was expected."""


def need(condition: bool, argument: str, came: Any, expected: str) -> None:
    """Raise NLBookError unless `condition` holds.

    >>> need(0.5 <= 1, "keep", 0.5, "a number in (0, 1]")
    """
    if not condition:
        raise NLBookError(f"{argument}: got {came}, expected {expected}")


def need_float(argument: str, x: Any) -> None:
    """Raise unless `x` is a real floating-point tensor."""
    if not isinstance(x, Tensor):
        raise NLBookError(f"{argument}: got {type(x).__name__}, expected a torch.Tensor")
    if not x.is_floating_point():
        raise NLBookError(f"{argument}: got dtype {x.dtype}, expected a floating-point dtype (float32, float64, ...)")


def need_shape(argument: str, x: Tensor, *shape: int | str | None) -> None:
    """Raise unless the last dimensions of `x` match `shape`; a name or None stands for any size.

    The same name used twice in one call must mean the same size; a leading `...` is implied.

    >>> need_shape("k", torch.zeros(2, 5, 3), "length", 3)
    """
    if not isinstance(x, Tensor):
        raise NLBookError(f"{argument}: got {type(x).__name__}, expected a torch.Tensor")
    want = ", ".join("?" if s is None else str(s) for s in shape)
    if x.ndim < len(shape):
        raise NLBookError(f"{argument}: got shape {tuple(x.shape)}, expected (..., {want})")
    seen: dict[str, int] = {}
    for size, s in zip(x.shape[x.ndim - len(shape) :], shape, strict=True):
        wanted = seen.setdefault(s, size) if isinstance(s, str) else s
        if wanted is not None and size != wanted:
            raise NLBookError(f"{argument}: got shape {tuple(x.shape)}, expected (..., {want})")


def need_same(name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    """Raise unless two tensors agree in dtype and device (nothing is cast or moved silently)."""
    if a.dtype != b.dtype or a.device != b.device:
        raise NLBookError(f"{name_b}: got {b.dtype} on {b.device}, expected {a.dtype} on {a.device}, as {name_a} has")


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A local random generator: nlbook never draws from the global one."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise NLBookError(f"seed: got {seed!r}, expected an int")
    return torch.Generator(device).manual_seed(seed)
