"""Titans' linear memory by definition: momentum and forgetting (Behrouz et al. 2025; sections 8.1-8.2 of this paper).

    S_t = mu_t S_{t-1} - eta_t (M_c k_t - v_t) k_t^T    momentum of the surprise, the gradient of 1/2 |M k - v|^2 at M_c
    M_t = alpha_t M_{t-1} + S_t                         M_c: the memory at the start of the token's chunk

Titans writes 1 - alpha for this alpha, theta for this eta and eta for this mu.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reference(q, k, v, alpha, mu, eta, M0, S0, *, chunk, read) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes as in `titans_memory`; one floating-point dtype. Returns (y, last memory, last momentum)."""
    M, S = M0, S0
    start, ys = M0, []
    for t in range(k.shape[2]):
        if t % chunk == 0:
            start = M
        qt, kt, vt = (x[:, :, t, :, None] for x in (q, k, v))
        a, m, h = (x[:, :, t, None, None] for x in (alpha, mu, eta))
        if read != "after":
            ys.append((start if read == "start" else M) @ qt)
        S = m * S - h * (start @ kt - vt) @ kt.mT
        M = a * M + S
        if read == "after":
            ys.append(M @ qt)
    return torch.cat(ys, -1).mT, M, S
