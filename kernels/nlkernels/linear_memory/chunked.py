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

Two decisions keep it accurate. Decays are exponentials of sums of logarithms, with a gradient of their own (gates.py).
And (I + L)^-1 is applied by forward substitution; the doubling product (I-L)(I+L^2)(I+L^4)... is exact on paper and
wrong by a factor of 1e8 in float32 when keys repeat.

Two make it fast. E = U + R S with U, R independent of the state, so that the solve, Q K^T and K K^T are done for many
chunks side by side, and what remains sequential is two products a chunk (the WY form of the delta rule). And on a CPU
"many" means as many as stay in the cache: all chunks of a small input, one chunk of all heads of a large one. There
exp(-inf) and masked_fill cost ten times an exp of numbers, which is why the masks are triangles.
"""

from __future__ import annotations

from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from nlkernels.gates import decay, log_gate, since_start, until_end

CACHED = 1 << 17  # elements of one (head, chunk, C, d) tensor: a dozen such stay in a core's cache


class Rule(NamedTuple):
    """The options of the rule."""

    objective: str
    read: str
    self_values: bool

    @property
    def free(self) -> bool:
        """Whether the result does not depend on the size of a chunk."""
        return self.objective == "dot" and self.read != "start" and not self.self_values


def cutting(sequences: int, length: int, chunk: int, width: int, free: bool, device: torch.device) -> tuple[int, bool]:
    """(tokens a chunk, whether all chunks are worked on side by side).

    They are where there is no cache to stay in (a GPU, a compiler that fuses) or where they fit it. Else, if
    the rule leaves the chunk `free`, it has 32 tokens: half the score matrices for the price of more, smaller calls.
    """
    C = min(chunk, length)
    N = -(-length // C)
    if sequences * N * C * max(C, width) <= CACHED or device.type != "cpu" or torch.compiler.is_compiling():
        return C, True
    return (min(C, 32) if free else C), False


class Chunks(NamedTuple):
    """What is known of chunks before their states: rows of tokens (..., C, d) and factors (..., C, 1), (..., C, C)."""

    Q: Tensor
    K: Tensor
    V: Tensor
    write: Tensor
    s: Tensor | None  # how often K S is taken away
    L: Tensor | None  # the system's lower triangle but for K K^T; None: nothing is erased
    w: Tensor  # e^{g_C - g}
    keep: Tensor  # e^{g_C}
    lam: Tensor | None  # the read's row factor and its decays; None: read "start"
    D: Tensor | None


def chunked(q, k, v, alpha, erase, write, M0, *, chunk, objective, read, self_values) -> tuple[Tensor, Tensor]:
    """Shapes as in `linear_memory`; everything already in one floating-point dtype. Returns (y, last state).

    eq. 90, eq. 92-93
    """
    batch, head, length, dk = k.shape
    dv, rule = M0.shape[2], Rule(objective, read, self_values)
    C, together = cutting(batch * head, length, chunk, max(dk, dv), rule.free, q.device)
    whole = prepared(q, k, v, alpha, erase, write, C, rule)
    slabs = [whole]
    if not together:
        each = (repeat(None) if x is None else x.unbind(1) for x in whole)
        slabs = [Chunks(*parts) for parts in zip(*each)]
    S = M0.mT.reshape(batch * head, dk, dv)
    ys = []
    for c in slabs:
        U, R = written(c, None if together else S, self_values)
        states, E, S = chain(c, U, R, S) if together else (S, U, plus(c.keep * S, (c.w * c.K).mT, U))
        Y = c.Q @ states
        if c.D is not None and c.lam is not None:
            Y = plus(c.lam * Y, (c.D * (c.Q @ c.K.mT)).tril_(-(read == "before")), E)
        ys.append(Y.reshape(batch, head, -1, dv))
    return torch.cat(ys, 2)[:, :, :length], S.view(batch, head, dk, dv).mT


def prepared(q, k, v, alpha, erase, write, C: int, rule: Rule) -> Chunks:
    """All chunks of C tokens, (batch x head, chunk, C, ...)."""
    fill = -q.shape[2] % C  # tokens that pad neither write nor erase

    def cut(x: Tensor) -> Tensor:
        x = pad(x, (0, fill)) if x.ndim == 3 else pad(x, (0, 0, 0, fill))
        return x.reshape(x.shape[0] * x.shape[1], -1, C, *x.shape[3:])

    a = cut(torch.zeros_like(write) if alpha is None else log_gate(alpha))
    h = cut(write)[..., None]
    s = L = lam = D = None
    if erase is not None:
        e = cut(erase)[..., None]
        s, L = e * since_start(a, before=True), e * decay(a, before=True)
    if rule.objective == "l2":
        s = h if s is None else s + h
    if rule.read != "start":
        before = rule.read == "before"
        lam, D = since_start(a, before), decay(a, before)
    return Chunks(cut(q), cut(k), cut(v), h, s, L, *until_end(a), lam, D)


def written(c: Chunks, S: Tensor | None, self_values: bool) -> tuple[Any, Any]:
    """(U, R) of E = U + R S, None for zero; with a known S all of E is U, and the solve has half the right sides."""
    value, recall = c.write * c.V, None if c.s is None else -c.s * c.K
    U, R = (None, value if recall is None else value + recall) if self_values else (value, recall)
    if S is not None and R is not None:
        U, R = R @ S if U is None else plus(U, R, S), None
    if c.L is None:
        return U, R
    L = c.L * (c.K @ c.K.mT)  # its lower triangle; the solve adds I
    U, R = (x if x is None else torch.linalg.solve_triangular(L, x, upper=False, unitriangular=True) for x in (U, R))
    return U, R


def chain(c: Chunks, U, R, S: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The states at the chunks' starts, the rows that the chunks write, (rows, N, ...) both, and the last state."""
    states, written = [], []
    each = (repeat(None) if x is None else x.unbind(1) for x in (U, R))
    for Kw, keep, E, Rn in zip((c.w * c.K).mT.unbind(1), c.keep.unbind(1), *each):
        states.append(S)
        if Rn is not None:
            E = Rn @ S if E is None else torch.baddbmm(E, Rn, S)
        written.append(E)
        S = plus(keep * S, Kw, E)
    return torch.stack(states, 1), torch.stack(written, 1), S


def plus(x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """x + A B, into x, which nobody else may hold: the sum rides along in the product."""
    x.flatten(0, -3).baddbmm_(A.flatten(0, -3), B.flatten(0, -3))
    return x
