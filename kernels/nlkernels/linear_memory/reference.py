"""The linear memory by definition: a loop over tokens.

    M_t = alpha_t M_{t-1} - erase_t (M_{t-1} k_t) k_t^T + write_t w_t k_t^T           M: (d_v, d_k)

    w_t = v^_t               objective "dot": descends -<M k, v^>                      (eq. 92, the sign that descends)
    w_t = v^_t - M_c k_t     objective "l2":  descends 1/2 |M k - v^|^2, taken at M_c  (eq. 93)
    v^_t = v_t, or M_c v_t when the memory makes its own values                             (eq. 87, 90)
    M_c = the memory at the start of the token's chunk
    y_t = M_c q_t ("start", eq. 90) | M_{t-1} q_t ("before", eq. 86) | M_t q_t ("after", eq. 78)

Settings of it:

    linear attention (eq. 15-16)   erase = 0, alpha = 1; with decay (eq. 64) alpha < 1
    delta rule (eq. 65)            erase = write = beta, alpha = 1
    gated delta rule               erase = alpha beta, write = beta
    Hope (eq. 92-93)               erase = write = eta
    TTT-linear                     erase = 0, "l2"
"""

from __future__ import annotations

import torch
from torch import Tensor


def reference(q, k, v, alpha, erase, write, M0, *, chunk, objective, read, self_values) -> tuple[Tensor, Tensor]:
    """Shapes as in `linear_memory`; everything already in one floating-point dtype. Returns (y, last state)."""
    M = start = M0
    ys = []
    for t in range(k.shape[2]):
        if t % chunk == 0:
            start = M
        qt, kt, vt = (x[:, :, t, :, None] for x in (q, k, v))  # columns: (batch, head, dim, 1)
        h = write[:, :, t, None, None]
        if self_values:
            vt = start @ vt
        w = vt - start @ kt if objective == "l2" else vt
        if read != "after":
            ys.append((start if read == "start" else M) @ qt)
        new = M if alpha is None else alpha[:, :, t, None, None] * M
        if erase is not None:
            new = new - erase[:, :, t, None, None] * (M @ kt) @ kt.mT
        M = new + h * w @ kt.mT
        if read == "after":
            ys.append(M @ qt)
    return torch.cat(ys, -1).mT, M
