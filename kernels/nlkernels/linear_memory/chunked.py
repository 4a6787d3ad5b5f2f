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

Two decisions keep it accurate. Ratios of decays are formed as exp(difference), masked before exp: nothing overflows.
And (I + L)^-1 is applied by forward substitution; the doubling product (I-L)(I+L^2)(I+L^4)... is exact on paper and
wrong by a factor of 1e8 in float32 when keys repeat.

Two make it fast. E = U + R S with U, R independent of the state, so that the solve, Q K^T and K K^T are done for many
chunks side by side, and what remains sequential is two products a chunk (the WY form of the delta rule). And on a CPU
"many" means as many as stay in the cache: all chunks of a small input, one chunk of all heads of a large one. There
exp(-inf) and masked_fill cost ten times an exp of numbers, which is why the masks are triangles.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

CACHED = 1 << 17  # elements of one (head, chunk, C, d) tensor: a dozen such stay in a core's cache


def decay(to: Tensor, frm: Tensor, diagonal: int = 0) -> Tensor:
    """exp(to_t - from_i) on and below `diagonal` (-1: i < t, 0: i <= t), else 1. (..., C), (..., C) -> (..., C, C).

    Whoever needs zeros masks the ones away; a triangular solve never looks at them.
    """
    return torch.exp((to[..., :, None] - frm[..., None, :]).tril_(diagonal))


def cutting(
    sequences: int,
    length: int,
    chunk: int,
    width: int,
    free: bool,
    device: torch.device,
) -> tuple[int, int, int]:
    """(tokens a chunk, chunks, chunks that are worked on side by side).

    All side by side where there is no cache to stay in (a GPU, a compiler that fuses) or where they fit it, else one;
    then, if the rule leaves the chunk `free`, 32 tokens: half the score matrices for the price of more, smaller calls.
    """
    C = min(chunk, length)
    N = -(-length // C)
    if sequences * N * C * max(C, width) <= CACHED or device.type != "cpu" or torch.compiler.is_compiling():
        return C, N, N
    C = min(C, 32) if free else C
    return C, -(-length // C), 1


def chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor | None,
    erase: Tensor | None,
    write: Tensor,
    M0: Tensor,
    *,
    chunk: int,
    objective: str,
    read: str,
    self_values: bool,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `linear_memory`; everything already in one floating-point dtype. Returns (y, last state).

    eq. 90, eq. 92-93
    """
    batch, head, length, dk = k.shape
    dv = M0.shape[2]
    rows, free = batch * head, objective == "dot" and read != "start" and not self_values
    C, N, m = cutting(rows, length, chunk, max(dk, dv), free, q.device)

    def cut(x: Tensor) -> Tensor:  # (rows, N, C, ...); tokens that pad neither write nor erase
        if fill := N * C - length:
            x = pad(x, (0, fill)) if x.ndim == 3 else pad(x, (0, 0, 0, fill))
        return x.reshape(rows, N, C, *x.shape[3:])

    def slabs(x: Tensor | None) -> tuple:  # m chunks each: (rows * m, C, ...)
        return (None,) * (N // m) if x is None else x.unbind(1) if m == 1 else (x.flatten(0, 1),)

    def single(x: Tensor | None) -> tuple:  # the chunks of a slab: (rows, C, ...)
        return (None,) * m if x is None else (x,) if m == 1 else x.unflatten(0, (rows, m)).unbind(1)

    def together(xs: list[Tensor]) -> Tensor:
        return xs[0] if m == 1 else torch.stack(xs, 1).flatten(0, 1)

    h = cut(write)
    a = torch.zeros_like(h) if alpha is None else cut(alpha.log())
    g = a.cumsum(-1)
    before, end = pad(g, (1, -1)), g[..., -1:]
    er = None if erase is None else cut(erase)
    s = None if er is None else er * before.exp()
    if objective == "l2":
        s = h if s is None else s + h
    reads, diagonal = (g, 0) if read == "after" else (before, -1)
    columns = (
        None if x is None else x[..., None]
        for x in (h, er, None if s is None else -s, (end - g).exp(), reads.exp(), end.exp())
    )
    S = M0.mT.reshape(rows, dk, dv)
    ys = []
    for Q, K, V, to_end, to_before, to_read, hn, ern, minus_s, w, lam, shrink in zip(
        *map(slabs, (cut(q), cut(k), cut(v), g, before, reads, *columns)), strict=True
    ):
        # E = U + R S: the rows that are written, as a function of the chunk-start state S; a self-made value is one too
        value, recall = hn * V, None if minus_s is None else minus_s * K
        U, R = (value, recall) if not self_values else (None, value if recall is None else value + recall)
        if R is not None and m == 1:  # one chunk: S is known, and the solve is for E alone
            U, R = torch.bmm(R, S) if U is None else U.baddbmm_(R, S), None
        if ern is not None:
            L = decay(to_before, to_end, -1) * torch.bmm(ern * K, K.mT)  # its lower triangle; the solve adds I
            U, R = (
                x if x is None else torch.linalg.solve_triangular(L, x, upper=False, unitriangular=True) for x in (U, R)
            )
        # the chain: two products a chunk
        states, written = [], []
        for Un, Rn, Kw, rate in zip(*map(single, (U, R, (w * K).mT, shrink)), strict=True):
            states.append(S)
            written.append(Un if Rn is None else torch.bmm(Rn, S) if Un is None else torch.baddbmm(Un, Rn, S))
            S = (rate * S).baddbmm_(Kw, written[-1])
        Y = torch.bmm(Q, together(states))
        if read != "start":
            A = (decay(to_read, to_end, diagonal) * torch.bmm(Q, K.mT)).tril_(diagonal)
            Y = (lam * Y).baddbmm_(A, together(written))
        ys.append(Y.unflatten(0, (rows, m)))
    return torch.cat(ys, 1).view(batch, head, N * C, dv)[:, :, :length], S.view(batch, head, dk, dv).mT
