"""One error class for bad input. A message names operator and argument, what came, what is needed, what to do."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class KernelError(ValueError):
    """Bad input to an operator of nlkernels."""


def need(op: str, condition: bool, argument: str, came: Any, needed: str, do: str = "") -> None:
    """Raise KernelError unless `condition` holds.

    >>> need("linear_memory", 64 > 0, "chunk", 64, "a positive int")
    """
    if not condition:
        raise KernelError(f"{op}: {argument} is {came}, needed: {needed}{'. ' + do if do else ''}")


def need_tensor(op: str, argument: str, x: Any, shape: tuple[int, ...], meaning: str) -> None:
    """Raise unless `x` is a floating-point tensor of exactly `shape` (nothing is broadcast silently).

    Args:
        meaning: the names of the dimensions, e.g. "(batch, head, length) of k".
    """
    if not isinstance(x, Tensor):
        raise KernelError(f"{op}: {argument} is {type(x).__name__}, needed: a tensor of shape {shape} = {meaning}")
    if tuple(x.shape) != tuple(shape):
        raise KernelError(f"{op}: {argument} has shape {tuple(x.shape)}, needed: {tuple(shape)} = {meaning}")
    if not x.is_floating_point():
        raise KernelError(f"{op}: {argument} has dtype {x.dtype}, needed: float32, float64, float16 or bfloat16")


def need_device(op: str, **tensors: Tensor | None) -> None:
    """Raise unless all tensors lie on one device."""
    there = {name: x.device for name, x in tensors.items() if x is not None}
    if len(set(there.values())) > 1:
        where = ", ".join(f"{name}: {device}" for name, device in there.items())
        raise KernelError(f"{op}: the arguments lie on several devices ({where}), needed: one. Move them with .to(...)")
