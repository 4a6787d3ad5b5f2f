"""Self-modifying Titans in fused kernels: one forward; a backward in three parts.

    forward           one program per (batch, head) walks the chunks and updates the five memories        forward.py
    backward_prepare  the forward of every chunk again, all chunks at once, from the stored chunk-start memories
    backward_chain    one program per (batch, head), last chunk first: the memories' gradients, and those of
                      K, V, gates                                                                        backward.py
    backward_rest     dX and dQ, all chunks at once

The algebra is that of chunked.py: one solve for Z and one transition a chunk, shared by all memories. The kernels
carry M and not S = M^T; an operand that is needed transposed is read so from memory (`blocks.product`).

Registers are the limit: a chunk and five memories are some twenty tiles of 32 registers a thread, and eight fit. So
everything lives in global memory, which the cache holds, and a phase works through it in slices of `T` tokens or `R`
dimensions; only the triangular solve has a whole chunk in registers. States and their gradients go from one buffer to
another at each chunk and are never updated in place: of two neighbouring phases one writes what the other reads, and
one barrier between them is all the order there is.
"""

from __future__ import annotations

from typing import Any

import torch

from nlkernels.blocks import block, settings
from nlkernels.dispatch import capability
from nlkernels.interpret import launch
from nlkernels.operator import Fused, Given, empty
from nlkernels.selfref_memory.backward import selfref_memory_backward_chain, selfref_memory_backward_rest
from nlkernels.selfref_memory.forward import selfref_memory_backward_prepare, selfref_memory_forward

MATRICES, VECTORS = ("mk", "mv", "mm"), ("me", "ma")
LAST = [f"last_{n}" for n in MATRICES + VECTORS]


def plan(d: int, chunk: int, cc: tuple[int, int]) -> tuple[dict[str, Any], dict[str, int]]:
    """Tile sizes and launch options for compute capability `cc` ((0, 0): the interpreter, which wants few, large
    tiles). One stage: no load is moved before the barrier that it waits for."""
    C, BD = block(chunk), block(d)
    T, R = (C, BD) if cc == (0, 0) else (min(C, 32), min(BD, 32))
    return {"D": d, "BD": BD, "C": C, "T": T, "R": R}, {"num_warps": 8 if max(C, BD) > 64 else 4, "num_stages": 1}


def sized(given: Given, chunk: int, l2: bool, eta_max: float, unit_values: bool) -> tuple[Given, int, dict[str, int]]:
    """What the launches share beside tensors, the number of chunks, launch options."""
    x, (_, _, L, d) = given["x"], given["x"].shape
    tiles, options = plan(d, chunk, capability(x.device))
    N = -(-L // chunk)
    flags = {"L2": l2, "ETA_MAX": eta_max, "UNIT": unit_values}
    return {**tiles, **flags, **settings(x), "L": L, "N": N, "CHUNK": chunk}, N, options


def outputs(given: Given, chunk, l2, eta_max, unit_values) -> Given:
    """y and the five last memories; for the backward chunk-start matrices and vectors."""
    x, me, (B, H, L, d) = given["x"], given["me"], given["x"].shape
    N = -(-L // chunk)
    last = {f"last_{n}": empty(given[n], *given[n].shape) for n in MATRICES + VECTORS}
    return {
        "y": empty(x, B, H, L, d),
        **last,
        "states": empty(x, B, H, N, 3, d, d),
        "vectors": empty(me, B, H, N + 1, 2, d),
    }


def forward(given: Given, **options) -> None:
    shared, N, launched = sized(given, **options)
    x, mk, (B, H, _, d), chunk = given["x"], given["mk"], given["x"].shape, options["chunk"]
    ms = empty(mk, B, H, 2, 3, d, d)
    ms.select(2, 0).copy_(torch.stack([given[n] for n in MATRICES], 2))
    given["states"].select(2, 0).copy_(ms.select(2, 0))
    given["vectors"].select(2, 0).copy_(torch.stack([given[n] for n in VECTORS], 2))
    scratch = {n: empty(x, B, H, chunk, d) for n in ("keys", "values", "zs")}
    scratch |= {"phis": empty(x, B, H, d, d), "gates": empty(mk, B, H, 8, shared["C"]), "ms": ms}
    launch(selfref_memory_forward, (B * H,), {**given, **shared, **scratch}, **launched)
    for n, M in zip(LAST, (*ms.select(2, N % 2).unbind(2), *given["vectors"].select(2, N).unbind(2)), strict=True):
        given[n].copy_(M)


def backward(given: Given, **options) -> Given:
    """Gradients of x, q, the five memories and the two biases."""
    shared, N, launched = sized(given, **options)
    x, mk, (B, H, L, d), chunk, C = given["x"], given["mk"], given["x"].shape, options["chunk"], shared["C"]
    given = {**given, **shared}
    given |= {n: empty(x, *x.shape) for n in ("keys", "values", "zs", "gs", "dx", "dq")}
    given |= {"phis": empty(x, B, H, N, d, d), "dphis": empty(x, B, H, d, d), "gates": empty(mk, B, H, N, 8, C)}
    launch(selfref_memory_backward_prepare, (N, B * H), given, **launched)
    given |= {n: empty(mk, *x.shape) for n in ("dks", "dvs")} | {n: empty(mk, B, H, chunk, d) for n in ("drs", "dk1")}
    given |= {"dms": empty(mk, B, H, 2, 3, d, d), "dvectors": empty(mk, B, H, 2, 2, d)}
    given |= {"dzs": empty(mk, B, H, 2, L), "sums": empty(mk, B, H, 6, C)}
    given["dms"].select(2, 0).copy_(torch.stack([given[f"dlast_{n}"] for n in MATRICES], 2))
    given["dvectors"].select(2, 0).copy_(torch.stack([given[f"dlast_{n}"] for n in VECTORS], 2))
    launch(selfref_memory_backward_chain, (B * H,), given, **launched)
    launch(selfref_memory_backward_rest, (N, B * H), given, **launched)
    first = N % 2
    memories = (*given["dms"].select(2, first).unbind(2), *given["dvectors"].select(2, first).unbind(2))
    found = dict(zip((*MATRICES, *VECTORS, "be", "ba"), (*memories, *given["dzs"].sum(-1).unbind(2)), strict=True))
    return {"x": given["dx"], "q": given["dq"], **{n: g.clone() for n, g in found.items()}}


FUSED = Fused(
    "selfref_memory",
    "x q mk mv mm me ma be ba",
    "int chunk, bool l2, float eta_max, bool unit_values",
    returned=" ".join(["y", *LAST]),
    kept="states vectors",
    outputs=outputs,
    forward=forward,
    backward=backward,
)


def fused(*tensors, chunk, objective, eta_max, unit_values) -> tuple[Any, ...]:
    """Shapes as in `reference`; d and chunk at most 128.  eq. 86-88, eq. 90, eq. 92-93"""
    return FUSED(*tensors, chunk, objective == "l2", eta_max, unit_values)
