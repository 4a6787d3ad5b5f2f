"""The linear memory, one chunk at a time: exact, and all matrix products.

Rows of Q, K, V are the C tokens of a chunk, S = M^T (d_k, d_v) is the memory at its start. With
    g_t = sum_{j<=t} log alpha_j,   g'_t = g_{t-1},   g_C the sum over the chunk,
write the state inside the chunk as S_t = e^{g_t} S + sum_{i<=t} e^{g_t-g_i} k_i e_i^T, where e_i is the row that
token i really writes (its value minus what it erases). Putting this into the recurrence gives a triangular system for
the rows e_i:

    (I + L) E = write * V - s * (K S),    L_ti = erase_t e^{g'_t - g_i} (k_t . k_i)  for i < t
    s = erase * e^{g'}  + write [only for the objective "l2": this is all that the chunk-start gradient costs]
    Y  = Q S                                                       read "start"
       = e^{g'} * Q S + (e^{g'_t - g_i}[i<t]  * Q K^T) E           read "before"   ("after": g and i<=t)
    S <- e^{g_C} S + (e^{g_C - g} * K)^T E

Two decisions keep it accurate and fast. Ratios of decays are formed as exp(difference), masked before exp: nothing
overflows. And (I + L)^-1 is applied by forward substitution; the doubling product (I-L)(I+L^2)(I+L^4)... is exact on
paper and wrong by a factor of 1e8 in float32 when keys repeat. Since E = U + R S with U, R independent of the state,
the solve, Q K^T and K K^T are done for all chunks at once, and what remains sequential is two products a chunk (the
WY form of the delta rule).
"""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def decay(to: Tensor, frm: Tensor, keep: Tensor) -> Tensor:
    """exp(to_t - from_i) where `keep`, else 0. (..., C), (..., C), (C, C) -> (..., C, C)."""
    return torch.exp((to[..., :, None] - frm[..., None, :]).masked_fill(~keep, float("-inf")))


def chunked(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor | None, erase: Tensor | None, write: Tensor, M0: Tensor, *,
            chunk: int, objective: str, read: str, self_values: bool) -> tuple[Tensor, Tensor]:
    """Shapes as in `linear_memory`; everything already in one floating-point dtype. Returns (y, last state).

    eq. 90, eq. 92-93
    """
    length, dk, dv = k.shape[2], k.shape[3], M0.shape[2]
    C = min(chunk, length)
    N = -(-length // C)

    def cut(x: Tensor) -> Tensor:  # length -> N, C; the tokens that pad the last chunk neither write nor erase
        if fill := N * C - length:
            x = pad(x, (0, fill)) if x.ndim == 3 else pad(x, (0, 0, 0, fill))
        return x.unflatten(2, (N, C))

    Q, K, V, h = cut(q), cut(k), cut(v), cut(write)
    a = torch.zeros_like(h) if alpha is None else cut(alpha.log())
    g = a.cumsum(-1)
    g_before, g_end = pad(g, (1, -1)), g[..., -1:]
    t, eye = torch.arange(C, device=q.device), torch.eye(C, dtype=q.dtype, device=q.device)
    D = decay(g_before, g, t[:, None] > t)              # e^{g'_t - g_i} for i < t

    # E = U + R S: the rows that are written, as a function of the chunk-start state S
    s = h if objective == "l2" else None
    if erase is not None:
        er = cut(erase)
        s = er * g_before.exp() + (0 if s is None else s)
    value, recall = h[..., None] * V, None if s is None else -s[..., None] * K
    U: Tensor | None = value
    R: Tensor | None = recall
    if self_values:                                     # v^ = M v: the value itself is read from S
        U, R = None, value if recall is None else value + recall
    if erase is not None:
        system = eye + er[..., None] * D * (K @ K.mT)
        sides = torch.cat([x for x in (U, R) if x is not None], -1)
        solved = torch.linalg.solve_triangular(system, sides, upper=False, unitriangular=True)
        U, R = (None, solved) if U is None else solved.split([dv, dk], -1)

    # the chain: two products a chunk
    S = M0.mT
    shrink, Kw = g_end.exp()[..., None].unbind(2), ((g_end - g).exp()[..., None] * K).mT.unbind(2)
    Us, Rs = (None if x is None else x.unbind(2) for x in (U, R))
    states, written = [], []
    for n in range(N):
        E = S.new_zeros(()) if Us is None else Us[n]
        E = E if Rs is None else E + Rs[n] @ S
        states.append(S)
        written.append(E)
        S = shrink[n] * S + Kw[n] @ E

    Y = Q @ torch.stack(states, 2)
    if read != "start":
        if read == "after":                             # one step further: e^{g_t - g_i}, and 1 at i = t
            g_before, D = g, a.exp()[..., None] * D + eye
        Y = g_before.exp()[..., None] * Y + (D * (Q @ K.mT)) @ torch.stack(written, 2)
    return Y.flatten(2, 3)[:, :, :length], S.mT
