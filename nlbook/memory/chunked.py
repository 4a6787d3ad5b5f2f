"""The same scans many tokens at once: nlkernels' chunk form of the linear rules.

Every rule whose step is linear in M is a setting of one recurrence, M_t = a M_{t-1} - e (M_{t-1} k) k^T + w v k^T, and
so of `nlkernels.linear_memory`. Oja looks at M from the other side, Omega at a window, L_p bends the error: they have
no such form and stay loops.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nlbook.errors import NLBookError
from nlbook.memory.core import MatrixMemory, State
from nlbook.memory.rules import Rate, dgd_rate

# rule, objective -> how often the step erases what the key recalls (0: Hebb; 2: DGD on l2, once too often)
ERASES = {
    ("gd", "dot"): 0,
    ("gd", "l2"): 1,
    ("implicit", "dot"): 0,
    ("implicit", "l2"): 1,
    ("dgd", "dot"): 1,
    ("dgd", "l2"): 2,
}


def coefficients(memory: MatrixMemory, k: Tensor, lr: Rate, keep: Rate) -> tuple[Tensor, Tensor, Tensor]:
    """alpha, erase, write (*batch, length) of this memory in the one recurrence; k (*batch, length, d_k) after phi."""
    kind = (memory.rule.name, memory.objective.name)
    if kind not in ERASES or memory.retention.towards != "zero":
        raise NLBookError(
            f"impl: got 'chunked' for {memory.name}, expected 'loop': {kind[0]} on {kind[1]} with a pull "
            f"towards {memory.retention.towards} is not linear in the state"
        )
    write, alpha = (torch.as_tensor(r, dtype=k.dtype, device=k.device).expand(k.shape[:-1]) for r in (lr, keep))
    if memory.rule.name == "dgd":
        write = dgd_rate(k, write, getattr(memory.rule, "form", "exact"))
    elif kind == ("implicit", "l2"):
        write = dgd_rate(k, write)
    at = alpha if memory.retention.gradient_at == "kept" else 1
    return alpha, ERASES[kind] * write * at, write


def scan(
    memory: MatrixMemory, k: Tensor, v: Tensor, q: Tensor, state: State, read: str, lr: Rate, keep: Rate
) -> tuple[Tensor, State]:
    """`memory.scan` through nlkernels. Arguments are checked; shapes as there."""
    from nlkernels.linear_memory import linear_memory

    if memory.phi is not None:
        k, q = memory.phi(k), memory.phi(q)
    alpha, erase, write = coefficients(memory, k, lr, keep)

    def rows(x: Tensor, dims: int) -> Tensor:  # (*batch, ...) -> (sequences, 1 head, ...)
        return x.reshape(torch.Size(state.batch).numel(), 1, *x.shape[x.ndim - dims :])

    y, M = linear_memory(
        rows(q, 2),
        rows(k, 2),
        rows(v, 2),
        rows(alpha, 1),
        rows(erase, 1),
        rows(write, 1),
        rows(state.M, 2),
        read=read,
        impl="auto",
    )
    return y.reshape(v.shape), replace(state, M=M.to(v.dtype).reshape(state.M.shape))
