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
from torch.nn.functional import logsigmoid, pad

from nlkernels.linear_memory.chunked import decay
from nlkernels.selfref_memory.reference import unit


def chunked(
    x: Tensor,
    q: Tensor,
    memories: tuple[Tensor, ...],
    b_eta: Tensor,
    b_alpha: Tensor,
    *,
    chunk: int,
    objective: str,
    eta_max: float,
    unit_values: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Shapes as in `reference`.  eq. 86-88, eq. 90, eq. 92-93"""
    d = x.shape[-1]
    Sk, Sv, Sm = (M.mT for M in memories[:3])
    S = torch.cat([Sk, Sv, Sm, *(m[..., None] for m in memories[3:])], -1)  # (batch, head, d, 3 d + 2)
    sizes = [d, d, d, 1, 1]
    eye = torch.eye(d, dtype=x.dtype, device=x.device)
    ys = []
    for X, Q in zip(x.split(chunk, 2), q.split(chunk, 2), strict=True):
        _, _, Sm, _, _ = S.split(sizes, -1)
        ys.append(Q @ Sm)
        K, V, _, z_eta, z_alpha = (X @ S).split(sizes, -1)  # one product makes them all
        K, V = unit(K), unit(V) if unit_values else V
        eta = eta_max * torch.sigmoid(z_eta[..., 0] + b_eta[..., None])
        g = logsigmoid(z_alpha[..., 0] + b_alpha[..., None]).cumsum(-1)
        g_before, g_end = pad(g, (1, -1)), g[..., -1:]
        s = eta * g_before.exp() + (eta if objective == "l2" else 0)
        L = eta[..., None] * decay(g_before, g, -1) * (K @ K.mT)
        right = eta[..., None] * V - s[..., None] * K
        Z = torch.linalg.solve_triangular(L, right, upper=False, unitriangular=True)  # of I + L's lower triangle
        S = (g_end.exp()[..., None] * eye + ((g_end - g).exp()[..., None] * K).mT @ Z) @ S
    Sk, Sv, Sm, e, a = S.split(sizes, -1)
    return torch.cat(ys, 2), (Sk.mT, Sv.mT, Sm.mT, e[..., 0], a[..., 0])
