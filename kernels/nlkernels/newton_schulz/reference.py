"""Newton-Schulz by definition: one matrix after another, in the order in which it is printed.

    X_0 = G / |G|_F,    X <- a X + (b A + c A^2) X   with A = X X^T

starts with all singular values in [0, 1], acts on each of them as s <- a s + b s^3 + c s^5, and leaves the singular
vectors alone: a few steps push every value towards 1, so that X comes near U V^T, the orthogonal factor of G. "cubic"
(3/2, -1/2, 0) is eq. 44 and converges; "quintic" (Jordan et al. 2024, Muon) rises faster from small values and then
wanders in about [0.7, 1.2].
"""

from __future__ import annotations

import torch
from torch import Tensor


def reference(G: Tensor, steps: int, abc: tuple[float, float, float], eps: float) -> Tensor:
    """G: (..., m, n). Returns the same shape."""
    a, b, c = abc
    done = []
    for X in G.reshape(-1, *G.shape[-2:]):
        X = X / (torch.sqrt((X * X).sum()) + eps)
        for _ in range(steps):
            A = X @ X.mT
            X = a * X + (b * A + c * A @ A) @ X
        done.append(X)
    return torch.stack(done).reshape(G.shape) if done else G.clone()
