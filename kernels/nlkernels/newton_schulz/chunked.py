"""Newton-Schulz, all matrices of one shape at once: three batched products a step, however many matrices.

The Gram matrix is taken on the shorter side (A = X X^T for m <= n, else of the transpose), which is the same
iteration, (X X^T) X = X (X^T X), with smaller products. The norm is summed in float32 at least; the products keep the
dtype of G, as Muon runs them in bf16.
"""
from __future__ import annotations

import torch
from torch import Tensor


def chunked(G: Tensor, steps: int, abc: tuple[float, float, float], eps: float) -> Tensor:
    """G: (..., m, n). Returns the same shape.  eq. 44"""
    a, b, c = abc
    X = G.mT if G.shape[-2] > G.shape[-1] else G
    wide = X.double() if X.dtype == torch.float64 else X.float()
    X = (wide / (wide.norm(dim=(-2, -1), keepdim=True) + eps)).to(G.dtype)
    for _ in range(steps):
        A = X @ X.mT
        X = a * X + (b * A if c == 0 else b * A + c * (A @ A)) @ X
    return X.mT if G.shape[-2] > G.shape[-1] else X
