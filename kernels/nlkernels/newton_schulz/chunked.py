"""Newton-Schulz, all matrices of one shape at once: a step is three batched products, however many matrices there are.

The Gram matrix is taken on the shorter side (A = X X^T for m <= n, else of the transpose), which is the same
iteration, (X X^T) X = X (X^T X), with smaller products. The norm is summed in float32 at least; the products keep the
dtype of G, as Muon runs them in bf16. The sums b A + c A^2 and a X + B X ride along in the products (baddbmm): as
passes of their own they cost a third of the time on wide matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor


def chunked(G: Tensor, steps: int, abc: tuple[float, float, float], eps: float) -> Tensor:
    """G: (..., m, n). Returns the same shape.  eq. 44"""
    a, b, c = abc
    tall = G.shape[-2] > G.shape[-1]
    X = G.mT if tall else G
    shape = X.shape
    wide = X.double() if X.dtype == torch.float64 else X.float()
    X = (wide / (wide.norm(dim=(-2, -1), keepdim=True) + eps)).to(G.dtype).reshape(-1, *shape[-2:]).contiguous()
    for _ in range(steps):
        A = X @ X.mT
        B = b * A if c == 0 else torch.baddbmm(A, A, A, beta=b, alpha=c)
        X = torch.baddbmm(X, B, X, beta=a)
    X = X.reshape(shape)
    return X.mT if tall else X
