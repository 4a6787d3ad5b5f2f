"""The small functions that several rooms need, once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from nlbook.errors import need, need_shape


def rms(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-6) over the last dimension: no learned gain."""
    return rms_norm(x, x.shape[-1:], eps=1e-6)


def unit(x: Tensor) -> Tensor:
    """x at length 1 along the last dimension; a zero row stays zero and has a finite slope, in half precision too."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * (wide.square().sum(-1, keepdim=True) + 1e-12).rsqrt()).to(x.dtype)


def silu_slope(s: Tensor, a: Tensor) -> Tensor:
    """The derivative of silu at z, from s = sigmoid(z) and a = silu(z) = z s, which its users have at hand."""
    return s + a * (1 - s)


def causal_conv(x: Tensor, taps: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """Depthwise causal convolution with its past carried along.

    x (..., length, dim), taps (..., width, dim), the last one for the present token; tail (..., width - 1, dim): the
    raw rows before x. Returns the filtered rows and the new tail.
    """
    width = taps.shape[-2]
    need_shape("tail", tail, width - 1, x.shape[-1])
    z = torch.cat([tail, x], -2)
    y = taps[..., -1:, :] * x
    for i in range(width - 1):
        y = y + taps[..., i : i + 1, :] * z[..., i : i + x.shape[-2], :]
    return y, z[..., z.shape[-2] - (width - 1) :, :]


def identity_taps(*shape: int, width: int, noise: float, g: torch.Generator) -> Tensor:
    """Taps (*shape[:-1], width, dim) that pass the present token through, with uniform noise in [-noise, noise]."""
    need(width >= 1, "conv", width, "an int >= 1 (taps)")
    taps = noise * (2 * torch.rand(*shape[:-1], width, shape[-1], generator=g) - 1)
    taps[..., -1, :] += 1
    return taps
