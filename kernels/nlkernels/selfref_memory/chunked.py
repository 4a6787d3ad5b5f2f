"""Self-modifying Titans, one chunk at a time: all memories share ONE triangular solve and ONE transition.

Values are made by the memory itself, so what a linear memory writes is linear in its own chunk-start state S = M^T:
with the notation of linear_memory/chunked.py, E = (I + L)^-1 (eta V S - s K S) = Z S, where Z knows nothing of S.
Hence every memory moves by the same matrix,

    (I + L) Z = eta V - s K,      Phi = e^{g_C} I + (e^{g_C - g} * K)^T Z,      S <- Phi S for each of them,

and a chunk costs one solve and one Phi, whatever the number of memories. It also says what linear self-referential
memories can never do: gain rank, or leave zero.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from nlkernels.gates import decay, since_start, until_end
from nlkernels.selfref_memory.reference import unit


def chunked(
    x, q, key, value, memory, m_eta, m_alpha, b_eta, b_alpha, *, chunk, objective, eta_max, unit_values
) -> tuple[Tensor, ...]:
    """Shapes as in `selfref_memory`. Returns y and the five last memories.  eq. 86-88, eq. 90, eq. 92-93"""
    d = x.shape[-1]
    S = torch.cat([key.mT, value.mT, memory.mT, m_eta[..., None], m_alpha[..., None]], -1)  # (batch, head, d, 3 d + 2)
    sizes = [d, d, d, 1, 1]
    ys = []
    for X, Q in zip(x.split(chunk, 2), q.split(chunk, 2), strict=True):
        ys.append(Q @ S[..., 2 * d : 3 * d])
        K, V, _, z_eta, z_alpha = (X @ S).split(sizes, -1)  # one product makes them all
        K, V = unit(K), unit(V) if unit_values else V
        eta = eta_max * torch.sigmoid(z_eta + b_eta[..., None, None])
        a = logsigmoid(z_alpha[..., 0] + b_alpha[..., None])
        s = eta * since_start(a, before=True) + (eta if objective == "l2" else 0)
        L = eta * decay(a, before=True) * (K @ K.mT)
        Z = torch.linalg.solve_triangular(L, eta * V - s * K, upper=False, unitriangular=True)  # I + L's lower triangle
        w, keep = until_end(a)
        S = keep * S + ((w * K).mT @ Z) @ S
    Sk, Sv, Sm, e, a = S.split(sizes, -1)
    return torch.cat(ys, 2), Sk.mT, Sv.mT, Sm.mT, e[..., 0], a[..., 0]
