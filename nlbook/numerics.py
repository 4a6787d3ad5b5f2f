"""The three small functions that every room needs, once."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import rms_norm


def rms(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-6) over the last dimension: no learned gain."""
    return rms_norm(x, x.shape[-1:], eps=1e-6)


def unit(x: Tensor) -> Tensor:
    """x at length 1 along the last dimension; a zero row stays zero and has a finite slope."""
    return x * (x.square().sum(-1, keepdim=True) + 1e-12).rsqrt()


def silu_slope(s: Tensor, a: Tensor) -> Tensor:
    """The derivative of silu at z, from s = sigmoid(z) and a = silu(z) = z s, which its users have at hand."""
    return s + a * (1 - s)
