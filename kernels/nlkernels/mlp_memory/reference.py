"""A residual two-layer memory by definition: M(x) = x + W1 silu(W2 x), trained while it is read (eq. 89, 91).

At the start of a chunk the memory is frozen for reading errors; z = W2 k, a = silu(z) are each layer's input and

    e1 = M_c(k) - v  ("l2")  or  -v  ("dot")            the gradient at the output
    e2 = (W1^T e1) * silu'(z)                           the gradient at the hidden layer

are fixed in the chunk. The weights move token by token, each with the DGD factor of its own layer's input (eq. 57):

    W2 <- alpha W2 - eta (W2 k) k^T - eta e2 k^T
    W1 <- alpha W1 - eta (W1 a) a^T - eta e1 a^T

The paper prints k k^T for both; that type-checks for W2 only, and the layer's own input is what its derivation gives.
`erase=False` drops the factor (plain gradient descent, Table 6's ablation).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu


def silu_slope(z: Tensor) -> Tensor:
    """The derivative of silu."""
    s = torch.sigmoid(z)
    return s * (1 + z * (1 - s))


def reference(q, k, v, alpha, eta, W1, W2, *, chunk, objective, read, erase) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes as in `mlp_memory`; one floating-point dtype. Returns (y, last W1, last W2)."""
    c1, c2, ys = W1, W2, []
    for t in range(k.shape[2]):
        if t % chunk == 0:
            c1, c2 = W1, W2
        qt, kt, vt = (x[:, :, t, :, None] for x in (q, k, v))
        al, h = alpha[:, :, t, None, None], eta[:, :, t, None, None]
        if read != "after":
            r1, r2 = (c1, c2) if read == "start" else (W1, W2)
            ys.append(qt + r1 @ silu(r2 @ qt))
        z = c2 @ kt
        a = silu(z)
        e1 = (kt + c1 @ a if objective == "l2" else 0) - vt
        e2 = (c1.mT @ e1) * silu_slope(z)
        old1, old2 = (W1 @ a, W2 @ kt) if erase else (0, 0)
        W1, W2 = al * W1 - h * (old1 + e1) @ a.mT, al * W2 - h * (old2 + e2) @ kt.mT
        if read == "after":
            ys.append(qt + W1 @ silu(W2 @ qt))
    return torch.cat(ys, -1).mT, W1, W2
