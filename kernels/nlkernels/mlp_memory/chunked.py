"""The residual two-layer memory, one chunk at a time.

Errors are frozen at the chunk's start, so inside a chunk each weight matrix is a linear memory of its own
(linear_memory/chunked.py), both with erase = write = eta:

    W2   keys k,               values -e2,   a triangular solve with the Gram matrix K K^T
    W1   keys a = silu(W2 k),  values -e1,   a triangular solve with the Gram matrix A A^T

A read inside the chunk goes through both: first the hidden layer as W2 stands at the token, then the output as W1
stands there (the dual form of TTT, with DGD's factor).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu

from nlkernels.gates import decay, log_gate, since_start, until_end
from nlkernels.mlp_memory.reference import silu_slope


def chunked(q, k, v, alpha, eta, W1, W2, **options) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes as in `mlp_memory`; one floating-point dtype. Returns (y, last W1, last W2).  eq. 89-91"""
    return of_log_gate(q, k, v, log_gate(alpha), eta, W1, W2, **options)


def of_log_gate(q, k, v, la, eta, W1, W2, *, chunk, objective, read, erase) -> tuple[Tensor, Tensor, Tensor]:
    """The same with log alpha."""
    S1, S2 = W1.mT, W2.mT  # (h, d), (d, h)
    ys = []
    for Q, K, V, a, h in zip(*(x.split(chunk, 2) for x in (q, k, v, la, eta)), strict=True):
        z = K @ S2
        A = silu(z)
        AS = A @ S1
        e1 = (K + AS if objective == "l2" else 0) - V
        e2 = (e1 @ S1.mT) * silu_slope(z)
        E1, E2 = -h[..., None] * e1, -h[..., None] * e2
        if erase:
            s = h[..., None] * since_start(a, before=True)
            D = h[..., None] * decay(a, before=True)  # the solves look below the diagonal only
            E1 = torch.linalg.solve_triangular(D * (A @ A.mT), E1 - s * AS, upper=False, unitriangular=True)
            E2 = torch.linalg.solve_triangular(D * (K @ K.mT), E2 - s * z, upper=False, unitriangular=True)
        if read == "start":
            ys.append(Q + silu(Q @ S2) @ S1)
        else:
            before = read == "before"
            D, lam, i = decay(a, before), since_start(a, before), -int(before)
            hidden = silu(lam * (Q @ S2) + (D * (Q @ K.mT)).tril_(i) @ E2)
            ys.append(Q + lam * (hidden @ S1) + (D * (hidden @ A.mT)).tril_(i) @ E1)
        w, keep = until_end(a)
        S1, S2 = keep * S1 + (w * A).mT @ E1, keep * S2 + (w * K).mT @ E2
    return torch.cat(ys, 2), S1.mT, S2.mT
