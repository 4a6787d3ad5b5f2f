"""Titans' linear memory, one chunk at a time: two scans become one product of two decay masks.

With b_t = prod_{j<=t} alpha_j, m_t = prod_{j<=t} mu_j inside the chunk, and the frozen errors U = eta (V - K M^T),

    S_t = m_t S + sum_{i<=t} (m_t / m_i) u_i k_i^T
    M_t = b_t M + sum_{j<=t} (b_t / b_j) S_j = b_t M + f_t S + sum_{i<=t} G_ti u_i k_i^T
    G = tril(b_t / b_j) tril(m_j / m_i),    f = tril(b_t / b_j) m

One C x C product makes G, where the double sum over i <= j <= t would take C^3 exponentials. Ratios are exponentials of
differences.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from nlkernels.gates import decay, log_gate, since_start, until_end


def chunked(q, k, v, alpha, mu, eta, M0, S0, *, chunk, read) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes as in `titans_memory`; one floating-point dtype. Returns (y, last memory, last momentum).  eq. 90"""
    length = k.shape[2]
    C = min(chunk, length)
    N = -(-length // C)

    def cut(x: Tensor) -> Tensor:
        fill = N * C - length
        return (pad(x, (0, fill)) if x.ndim == 3 else pad(x, (0, 0, 0, fill))).unflatten(2, (N, C))

    Q, K, V, h = cut(q), cut(k), cut(v), cut(eta)
    a, u = cut(log_gate(alpha)), cut(log_gate(mu))  # tokens that pad: alpha = mu = 1, eta = 0
    real = (torch.arange(N * C, device=q.device) < length).to(q.dtype).view(N, 1, C)
    B, W, m = decay(a).tril() * real, decay(u).tril(), since_start(u)  # and their momentum adds nothing to M
    G, f = B @ W, B @ m
    ends = [x.unbind(2) for x in (until_end(a)[1], f[..., -1:, :], until_end(u)[1])]
    into_M, into_S = ((w[..., -1, :, None] * K).mT.unbind(2) for w in (G, W))  # (d_k, C) of every chunk
    M, S = M0.mT, S0.mT  # transposed: (d_k, d_v)
    starts, written = [], []
    for n, (Kn, Vn, hn) in enumerate(zip(K.unbind(2), V.unbind(2), h.unbind(2), strict=True)):
        U = hn[..., None] * (Vn - Kn @ M)
        starts.append((M, S))
        written.append(U)
        M, S = (ends[0][n] * M + ends[1][n] * S + into_M[n] @ U, ends[2][n] * S + into_S[n] @ U)
    QM = Q @ torch.stack([M_ for M_, _ in starts], 2)
    if read == "start":
        return QM.flatten(2, 3)[:, :, :length], M.mT, S.mT
    if read == "before":  # the row of the token before; the first reads M
        f, G = pad(f, (0, 0, 1, -1)), pad(G, (0, 0, 1, -1))
    QS = Q @ torch.stack([S_ for _, S_ in starts], 2)
    Y = since_start(a, read == "before") * QM + f * QS + (G * (Q @ K.mT)) @ torch.stack(written, 2)
    return Y.flatten(2, 3)[:, :, :length], M.mT, S.mT
