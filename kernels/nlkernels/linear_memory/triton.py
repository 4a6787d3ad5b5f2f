"""The linear memory as an operator of torch: three kernels forward, three backward (forward.py, backward.py)."""

from __future__ import annotations

from typing import Any

import torch

from nlkernels.blocks import block, settings
from nlkernels.dispatch import HALF, capability
from nlkernels.errors import need
from nlkernels.gates import log_gate
from nlkernels.interpret import launch
from nlkernels.linear_memory.backward import (
    linear_memory_backward_chain,
    linear_memory_backward_prepare,
    linear_memory_backward_rest,
)
from nlkernels.linear_memory.chunked import Rule
from nlkernels.linear_memory.forward import linear_memory_chain, linear_memory_prepare, linear_memory_read
from nlkernels.operator import Fused, Given, empty


def plan(
    dtype: torch.dtype, cc: tuple[int, int], dk: int, dv: int, chunk: int, free: bool
) -> tuple[int, dict[str, int], dict[str, int]]:
    """Tokens a chunk, tile sizes and launch options for compute capability `cc` ((0, 0): the interpreter).

    `free`: the result does not depend on the chunk, so the kernel picks the one that spills nothing: 64 tokens and 8
    warps for half precision on sm_90, 32 and 4 elsewhere and for heads over 64. A chunk of 64 that the rule asks for,
    and large heads, get narrower value blocks. A spill check over a grid of settings chose the numbers. R: dimensions
    that `blocks.product` sums at a time; BC: columns of dQ and dK that the rest has in registers; BW holds all values.
    """
    half, hopper = dtype in HALF, cc >= (9, 0)
    BK = block(dk)
    large = BK > 64
    if free and cc > (0, 0):
        chunk = min(chunk, 64 if half and hopper and not large else 32)
    C = block(chunk)
    wide = (64 if half else 32) // (2 if large or (C > 32 and not hopper) else 1)
    BV = min(block(dv), 64 if cc == (0, 0) else wide)
    tiles = {"DK": dk, "DV": dv, "BK": BK, "BV": BV, "BW": block(dv), "BC": min(BK, 64), "C": C}
    tiles["R"] = max(BK, block(dv)) if cc == (0, 0) else 32
    return chunk, tiles, {"num_warps": 8 if C > 32 or large else 4}


def sized(given: Given, chunk: int, rule: Rule) -> tuple[Given, tuple[int, int, int], dict[str, int]]:
    """What the launches share beside tensors; chunks, value blocks and sequences; launch options."""
    q, (B, H, L, DK), DV = given["q"], given["k"].shape, given["M0"].shape[-2]
    chunk, tiles, options = plan(q.dtype, capability(q.device), DK, DV, chunk, rule.free)
    N = -(-L // chunk)
    absent = {n: given["wr"] for n in ("la", "er") if given[n] is None}  # never read then
    flags: Given = {"DECAY": given["la"] is not None, "ERASE": given["er"] is not None, "L2": rule.objective == "l2"}
    flags |= {"SELF": rule.self_values, "READ": rule.read, "DX": given["v"].shape[-1]}
    shared = {**tiles, **flags, **settings(q), **absent, "L": L, "N": N, "CHUNK": chunk, "BHL": B * H * L}
    return shared, (N, -(-DV // tiles["BV"]), B * H), options


def outputs(given: Given, chunk, objective, read, self_values) -> Given:
    """y and the last memory; for the backward chunk-start states and the rows that are written."""
    q, M0, (B, H, L, DK), DV = given["q"], given["M0"], given["k"].shape, given["M0"].shape[-2]
    _, (N, _, _), _ = sized(given, chunk, Rule(objective, read, self_values))
    y, e = (empty(q, B, H, L, DV) for _ in range(2))
    return {"y": y, "mT": empty(M0, *M0.shape), "states": empty(M0, B, H, N, DK, DV), "e": e}


def forward(given: Given, chunk, objective, read, self_values) -> None:
    shared, (N, NV, BH), options = sized(given, chunk, Rule(objective, read, self_values))
    given = {**given, "m0": given["M0"], **shared}
    recalls = shared["ERASE"] or shared["L2"] or self_values  # without these there is no W, and with self_values no U
    given["us"] = given["e"] if self_values else torch.empty_like(given["e"])
    given["ws"] = torch.empty_like(given["k"]) if recalls else given["k"]
    blocks = NV * (not self_values) + -(-shared["DK"] // shared["BV"]) * recalls
    launch(linear_memory_prepare, (N, blocks, BH), given, **options)
    launch(linear_memory_chain, (NV, BH), given, **options)
    launch(linear_memory_read, (N, NV, BH), given, **options)


def backward(given: Given, chunk, objective, read, self_values) -> Given:
    """Gradients of the inputs."""
    shared, (N, NV, BH), options = sized(given, chunk, Rule(objective, read, self_values))
    q, M0, DK = given["q"], given["M0"], shared["DK"]
    given = {**given, **shared}
    given |= {"dstates": torch.empty_like(given["states"]), "dr": torch.empty_like(given["e"])}
    given |= {f"d{n}": torch.empty_like(given[n]) for n in "qkv"} | {"dm0": torch.empty_like(M0)}
    given["hs"] = given["dr"] if read == "start" else torch.empty_like(given["e"])  # H is 0 for "start"
    given["gs"] = torch.empty_like(given["k"])
    blocks = NV * (read != "start") + -(-DK // shared["BV"])
    launch(linear_memory_backward_prepare, (N, blocks, BH), given, **options)
    launch(linear_memory_backward_chain, (NV, BH), given, **options)
    parts = -(-DK // shared["BC"])
    there = {"dla": shared["DECAY"], "der": shared["ERASE"], "dwr": True}
    given |= {n: empty(M0, parts * has, *q.shape[:3]) for n, has in there.items()}
    launch(linear_memory_backward_rest, (N, parts, BH), given, **options)
    sums = {n: given[n].sum(0) for n in there}
    return {**{n: given[f"d{n}"] for n in "qkv"}, **{n[1:]: x for n, x in sums.items()}, "M0": given["dm0"]}


FUSED = Fused(
    "linear_memory",
    "q k v la? er? wr M0",
    "int chunk, str objective, str read, bool self_values",
    returned="y mT",
    kept="states e",
    outputs=outputs,
    forward=forward,
    backward=backward,
)


def fused(q, k, v, alpha, erase, write, M0, *, chunk, objective, read, self_values) -> tuple[Any, ...]:
    """Shapes as in `linear_memory`; gates and M0 in float32 (float64 for float64). Returns (y, last memory).

    eq. 90, eq. 92-93
    """
    free = Rule(objective, read, self_values).free
    need(chunk <= 128 or free, "chunk of linear_memory", chunk, "at most 128 where it is part of the rule")
    log_alpha = None if alpha is None else log_gate(alpha)
    return FUSED(q, k, v, log_alpha, erase, write, M0, chunk, objective, read, self_values)
