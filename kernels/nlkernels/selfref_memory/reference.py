"""Self-modifying Titans with linear memories, by definition: five memories make the keys, values and gates of their own
learning.

Read at the start of the token's chunk (eq. 90),

    k_t = unit(M_k x_t)        eta_t = eta_max sigmoid(m_eta . x_t + b_eta)
    v_t = unit(M_v x_t)        alpha_t = sigmoid(m_alpha . x_t + b_alpha)
    y_t = M_mem q_t

and each M of {M_k, M_v, M_mem, m_eta, m_alpha} learns towards a value that it makes itself, v^_t = M_c v_t (eq. 87):

    M_t = M_{t-1} (alpha_t I - eta_t k_t k_t^T) - eta_t (M_c k_t - M_c v_t) k_t^T    "l2"   (eq. 93; eq. 88: chunk 1)
    M_t = M_{t-1} (alpha_t I - eta_t k_t k_t^T) + eta_t (M_c v_t) k_t^T              "dot"  (eq. 92, its sign turned)

M_c is the memory at the start of the chunk, and unit(z) = z / sqrt(|z|^2 + 1e-12).
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-12


def unit(z: Tensor, dim: int = -1) -> Tensor:
    """z / |z|, smooth at 0."""
    return z * torch.rsqrt((z * z).sum(dim, keepdim=True) + TINY)


def reference(
    x, q, key, value, memory, m_eta, m_alpha, b_eta, b_alpha, *, chunk, objective, eta_max, unit_values
) -> tuple[Tensor, ...]:
    """Shapes as in `selfref_memory`, the memories in SelfRefState's order. Returns y and the five last memories."""
    now = [key, value, memory, m_eta[..., None, :], m_alpha[..., None, :]]  # the gates' memories have one row
    start, ys = now, []
    for t in range(x.shape[2]):
        if t % chunk == 0:
            start = now
        xt, qt = x[:, :, t, :, None], q[:, :, t, :, None]
        k, v = unit(start[0] @ xt, -2), start[1] @ xt
        v = unit(v, -2) if unit_values else v
        eta = eta_max * torch.sigmoid(start[3] @ xt + b_eta[..., None, None])
        alpha = torch.sigmoid(start[4] @ xt + b_alpha[..., None, None])
        ys.append(start[2] @ qt)
        error = [(c @ k if objective == "l2" else 0) - c @ v for c in start]
        now = [alpha * M - eta * (M @ k) @ k.mT - eta * e @ k.mT for M, e in zip(now, error, strict=True)]
    return torch.cat(ys, -1).mT, *now[:3], now[3][..., 0, :], now[4][..., 0, :]
