"""Titans' linear memory as an operator of torch: one forward kernel, four backward (forward.py, backward.py)."""

from __future__ import annotations

from typing import Any

import torch

from nlkernels.blocks import block, settings
from nlkernels.dispatch import capability
from nlkernels.gates import log_gate
from nlkernels.interpret import launch
from nlkernels.operator import Fused, Given, empty
from nlkernels.titans_memory.backward import (
    titans_memory_backward_chain,
    titans_memory_backward_gates,
    titans_memory_backward_prepare,
    titans_memory_backward_rest,
)
from nlkernels.titans_memory.forward import titans_memory_forward


def plan(
    dtype: torch.dtype, cc: tuple[int, int], dk: int, dv: int, chunk: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Tile sizes and launch options; value blocks as wide as registers allow (a spill check chose).

    R: dimensions that `blocks.product` sums at a time. BC: columns of dQ and dK in registers. BW: holds all values.
    """
    C, BK, single = block(chunk), block(dk), dtype == torch.float32
    wide = 64 if cc == (0, 0) else 16 if single else 32
    tiles = {"DK": dk, "DV": dv, "BK": BK, "BV": min(block(dv), wide), "BW": block(dv), "C": C}
    tiles["R"] = max(BK, block(dv)) if cc == (0, 0) else 32
    tiles["BC"] = min(BK, 32 if single and cc > (0, 0) else 64)
    return tiles, {"num_warps": 8 if max(C, BK) > 32 else 4}


def sized(given: Given, chunk: int, read: str) -> tuple[Given, tuple[int, int, int], dict[str, int]]:
    """What the launches share beside tensors; chunks, value blocks and sequences; launch options."""
    q, (B, H, L, DK), DV = given["q"], given["k"].shape, given["v"].shape[-1]
    tiles, options = plan(q.dtype, capability(q.device), DK, DV, chunk)
    N = -(-L // chunk)
    shared = {**tiles, **settings(q), "READ": read, "L": L, "N": N, "CHUNK": chunk, "BHN": B * H * N}
    return shared, (N, -(-DV // tiles["BV"]), B * H), options


def outputs(given: Given, chunk, read) -> Given:
    """y, last memory and momentum; for the backward chunk-start states and the rows that are written."""
    v, M0, (B, H, L, DK) = given["v"], given["M0"], given["k"].shape
    states = empty(M0, B, H, -(-L // chunk), 2, DK, v.shape[-1])
    y, us, mT, sT = (empty(x, *x.shape) for x in (v, v, M0, M0))
    return {"y": y, "mT": mT, "sT": sT, "states": states, "us": us}


def forward(given: Given, chunk, read) -> None:
    shared, (_, NV, BH), options = sized(given, chunk, read)
    launch(titans_memory_forward, (NV, BH), {**given, **shared, "m0": given["M0"], "s0": given["S0"]}, **options)


def backward(given: Given, chunk, read) -> Given:
    """Gradients of the inputs."""
    shared, (N, NV, BH), options = sized(given, chunk, read)
    given = {**given, **shared}
    made = {"hs": "us", "du": "us", "dstates": "states", "dm0": "M0", "ds0": "S0"}
    made |= {f"d{n}": n for n in ("q", "k", "v", "la", "lu", "wr")}
    given |= {n: torch.empty_like(given[like]) for n, like in made.items()}
    if read != "start":
        launch(titans_memory_backward_prepare, (N, NV, BH), given, **options)
    launch(titans_memory_backward_chain, (NV, BH), given, **options)
    parts = -(-shared["DK"] // shared["BC"])
    given["rows"] = empty(given["wr"], parts, BH, N, 5, shared["C"])
    launch(titans_memory_backward_rest, (N, parts, BH), given, **options)
    given["rows"] = given["rows"].sum(0)
    launch(titans_memory_backward_gates, (N, BH), given, **options)
    names = {n: f"d{n}" for n in ("q", "k", "v", "la", "lu", "wr")} | {"M0": "dm0", "S0": "ds0"}
    return {n: given[d] for n, d in names.items()}


FUSED = Fused(
    "titans_memory",
    "q k v la lu wr M0 S0",
    "int chunk, str read",
    returned="y mT sT",
    kept="states us",
    outputs=outputs,
    forward=forward,
    backward=backward,
)


def fused(q, k, v, alpha, mu, eta, M0, S0, *, chunk, read) -> tuple[Any, ...]:
    """Shapes as in `titans_memory`; gates and states in float32 (float64 for float64).  eq. 90"""
    return FUSED(q, k, v, log_gate(alpha), log_gate(mu), eta, M0, S0, chunk, read)
