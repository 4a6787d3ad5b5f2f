"""The kernels of nlkernels in the configurations in which they are launched by default, for compile_check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from nlkernels.blocks import block
from nlkernels.linear_memory import backward as linear_backward
from nlkernels.linear_memory import triton as linear
from nlkernels.linear_memory import wy
from nlkernels.linear_memory.forward import linear_memory_forward
from nlkernels.linear_memory.split import one_spills
from nlkernels.mlp_memory import triton as mlp
from nlkernels.newton_schulz import triton as newton
from nlkernels.newton_schulz.backward import newton_schulz_backward
from nlkernels.selfref_memory import backward as selfref_backward
from nlkernels.selfref_memory import forward as selfref_forward
from nlkernels.selfref_memory import triton as selfref
from nlkernels.titans_memory import triton as titans

TORCH = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
ONE = (linear_memory_forward, linear_backward.linear_memory_backward_chain)
WY = (
    wy.linear_memory_wy_prepare,
    wy.linear_memory_wy_chain,
    wy.linear_memory_wy_read,
    wy.linear_memory_wy_backward_prepare,
    wy.linear_memory_wy_backward_chain,
)
TOKENS = ("x", "q", "y", "dy", "dx", "dq", "states", "keys", "values", "zs", "gs", "phis", "dphis")  # their dtype


@dataclass(frozen=True)
class Case:
    """A kernel in a configuration that `launch` would use."""

    kernel: Any
    signature: dict[str, str]  # runtime argument -> "*bf16", "*fp32", "i32", ...
    constexprs: dict[str, Any]
    num_warps: int = 4
    num_stages: int = 2
    label: str = ""

    @property
    def name(self) -> str:
        return f"{self.kernel.fn.__name__} {self.label}".strip()


def linear_memory(cc: int, dtype: str, d: int = 64) -> list[Case]:
    """All kernels as gated_delta_rule (the chunk is free) and as hope_memory (chunk 64 at the user's word) launch
    them."""
    found, on = [], (cc // 10, cc % 10)
    for objective, read in (("dot", "before"), ("l2", "start")):
        _, meta, options = linear.plan(TORCH[dtype], on, d, d, 64, objective == "dot")
        meta |= {
            "DX": d,
            "DECAY": True,
            "ERASE": True,
            "L2": objective == "l2",
            "SELF": False,
            "READ": read,
            "PREC": "tf32" if dtype == "fp32" else dtype,
            "ACC": tl.float32,
        }
        tokens = {"q", "k", "v", "y", "e", "dy", "dr", "dq", "dk", "dv", "us", "ws", "hs", "gs"}
        one = () if one_spills(64, d, dtype != "fp32", objective == "dot") else ONE
        for kernel in (*one, linear_backward.linear_memory_backward_rest, *WY):
            own = {**meta, "R": linear.slice_of(meta, on), "BW": block(d), "BC": linear.columns(meta)}
            own = {n: x for n, x in own.items() if n in kernel.arg_names}
            signature = {
                n: "i32" if n in ("L", "N", "CHUNK", "BHL") else f"*{dtype}" if n in tokens else "*fp32"
                for n in kernel.arg_names
                if n not in own
            }
            found.append(Case(kernel, signature, own, **options, label=f"{dtype} d{d} C{meta['C']} {objective} {read}"))
    return found


def mlp_memory(cc: int, dtype: str, d: int = 64, hidden: int | None = None, chunk: int = 64) -> list[Case]:
    """The forward for h = d, chunk 64, read start."""
    if d > 64:
        return []
    hidden = hidden or d
    meta = mlp.plan(d, hidden, chunk)
    warps, stages = meta.pop("num_warps"), meta.pop("num_stages")
    meta |= {
        "ERASE": True,
        "L2": True,
        "READ": "start",
        "PREC": "tf32" if dtype == "fp32" else dtype,
        "ACC": tl.float32,
    }
    tokens = {"q", "k", "v", "y", "scratch", "copies"}
    signature = {
        n: "i32" if n in ("L", "N", "CHUNK") else f"*{dtype}" if n in tokens else "*fp32"
        for n in mlp.mlp_memory_forward.arg_names
        if n not in meta
    }
    return [Case(mlp.mlp_memory_forward, signature, meta, warps, stages, label=f"{dtype} d{d} h{hidden} C{chunk}")]


def newton_schulz(cc: int, dtype: str, d: int = 64) -> list[Case]:
    """A square and a wide matrix with d rows, five steps; none where "auto" does not take the kernel."""
    found: list[Case] = []
    if cc >= 90 and dtype == "fp32" and d > 64:
        return found
    for M, N in sorted({(d, d), (d, min(2 * d, 128))}):
        options = newton.plan(M, N)
        warps = options.pop("num_warps")
        meta = {
            "M": M,
            "N": N,
            "TALL": False,
            **options,
            "STEPS": 5,
            "PREC": "tf32" if dtype == "fp32" else dtype,
            "ACC": tl.float32,
        }
        signature = {"g": f"*{dtype}", "out": f"*{dtype}", **dict.fromkeys(("a", "b", "c", "eps"), "fp32")}
        found.append(Case(newton.newton_schulz_kernel, signature, meta, warps, label=f"{dtype} {M}x{N}"))
        signature = {
            n: "fp32" if n in ("a", "b", "c", "eps") else f"*{dtype}" if n in ("g", "dout", "dg") else "*fp32"
            for n in newton_schulz_backward.arg_names
            if n not in meta and n != "R"
        }
        found.append(
            Case(
                newton_schulz_backward,
                signature,
                {**meta, "R": 32},
                newton.backward_plan(M, N, (cc // 10, cc % 10))["num_warps"],
                1,
                label=f"{dtype} {M}x{N}",
            )
        )
    return found


def selfref_memory(cc: int, dtype: str, d: int = 64, chunk: int = 64) -> list[Case]:
    """Forward and backward of Hope's setting."""
    found = []
    meta, options = selfref.plan(d, chunk, (cc // 10, cc % 10))
    meta |= {"L2": True, "ETA_MAX": 0.5, "UNIT": True, "PREC": "tf32" if dtype == "fp32" else dtype, "ACC": tl.float32}
    for kernel in (
        selfref_forward.selfref_memory_forward,
        selfref_forward.selfref_memory_backward_prepare,
        selfref_backward.selfref_memory_backward_chain,
        selfref_backward.selfref_memory_backward_rest,
    ):
        signature = {
            n: "i32" if n in ("L", "N", "CHUNK") else f"*{dtype}" if n in TOKENS else "*fp32"
            for n in kernel.arg_names
            if n not in meta
        }
        found.append(Case(kernel, signature, meta, **options, label=f"{dtype} d{d} C{chunk}"))
    return found


def titans_memory(cc: int, dtype: str, d: int = 64, chunk: int = 64) -> list[Case]:
    """Forward and backward as they are launched by default: chunk 64, read after."""
    found, on = [], (cc // 10, cc % 10)
    tiles, options = titans.plan(TORCH[dtype], on, d, d, chunk)
    prec = "tf32" if dtype == "fp32" else dtype
    cut = titans.slices(TORCH[dtype], d, d, on)
    every = {**tiles, **cut, "READ": "after", "PREC": prec, "MASK_PREC": "tf32", "ACC": tl.float32}
    tokens = ("q", "k", "v", "y", "us", "hs", "du", "dy", "dq", "dk", "dv")
    for kernel in titans.KERNELS:
        meta = {n: x for n, x in every.items() if n in kernel.arg_names}
        signature = {
            n: "i32" if n in ("L", "N", "CHUNK", "BHN") else f"*{dtype}" if n in tokens else "*fp32"
            for n in kernel.arg_names
            if n not in meta
        }
        found.append(Case(kernel, signature, meta, **options, label=f"{dtype} d{d} C{chunk}"))
    return found
