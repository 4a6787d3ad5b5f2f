"""One error class for bad input, and the few checks that every room shares.

A message always says three things: which argument, what came, what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
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


def need_number(
    argument: str, x: Any, low: float = 0.0, high: float = math.inf, *, open_low: bool = False, open_high: bool = False
) -> None:
    """Raise unless `x` is a finite real number in the interval from `low` to `high`.

    >>> need_number("keep", 0.5, 0, 1, open_low=True)
    """
    real = isinstance(x, Real) and not isinstance(x, bool) and math.isfinite(x)
    if real and (low < x if open_low else low <= x) and (x < high if open_high else x <= high):
        return
    above = "" if low == -math.inf else f" {'>' if open_low else '>='} {low:g}"
    below = "" if high == math.inf else f" and {'<' if open_high else '<='} {high:g}"
    raise NLBookError(f"{argument}: got {x!r}, expected a finite number{above}{below}")


def need_int(argument: str, x: Any, low: int = 1) -> None:
    """Raise unless `x` is an int of at least `low`."""
    if not isinstance(x, Integral) or isinstance(x, bool) or x < low:
        raise NLBookError(f"{argument}: got {x!r}, expected an int >= {low}")


def need_choice(argument: str, x: Any, options: Iterable[Any]) -> None:
    """Raise unless `x` is one of `options`: the same object, or an equal string."""
    options = tuple(options)
    if not any(x is o or (isinstance(x, str) and x == o) for o in options):
        raise NLBookError(f"{argument}: got {x!r}, expected one of {', '.join(map(repr, options))}")


def need_float(argument: str, x: Any) -> None:
    """Raise unless `x` is a real floating-point tensor."""
    if not isinstance(x, Tensor):
        raise NLBookError(f"{argument}: got {type(x).__name__}, expected a torch.Tensor")
    if not x.is_floating_point():
        raise NLBookError(f"{argument}: got dtype {x.dtype}, expected a floating-point dtype (float32, float64, ...)")


def holds(condition: Tensor) -> bool:
    """Whether a condition holds everywhere. True where no value can be read: in compiled graphs, in torch.func.vmap."""
    if torch.compiler.is_compiling():
        return True
    try:
        return bool(condition.all())
    except RuntimeError:
        return True


def need_finite(argument: str, x: Tensor) -> None:
    """Raise if a tensor holds NaN or an infinity. Silent in compiled graphs and in torch.func.vmap."""
    if not torch.compiler.is_compiling() and not holds(x.isfinite()):
        bad = int((~x.isfinite()).sum())
        raise NLBookError(f"{argument}: got {bad} values that are NaN or infinite, expected finite numbers")


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
