"""The kernels of nlkernels as they are launched by default on a GPU, for compile_check: recorded, so never out of step.

An operator's fused forward and backward run on fake CUDA tensors, which have shapes and dtypes but no memory, and every
launch is kept instead of run. No GPU is needed.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from nlkernels import interpret
from torch import Tensor
from torch._subclasses import FakeTensorMode

TORCH = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
TYPES = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32"}


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


def recorded(run: Callable[[], object], cc: int, label: str) -> list[Case]:
    """The launches of `run`, which works on fake CUDA tensors, on a GPU of compute capability `cc`."""
    found: list[Case] = []

    def keep(kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any], options: dict[str, int]) -> None:
        constant = {p.name for p in kernel.params if p.is_constexpr}
        values = {n: x for n, x in arguments.items() if n in constant}
        types = {n: kind(x) for n, x in arguments.items() if n not in constant}
        found.append(Case(kernel, types, values, **options, label=label))

    gpu = SimpleNamespace(major=cc // 10, minor=cc % 10)
    patches = (
        mock.patch.object(torch.cuda, "get_device_properties", return_value=gpu),
        mock.patch.object(interpret, "_compiled", keep),
        mock.patch.object(Tensor, "copy_", lambda self, other: self),  # torch without CUDA cannot copy even fake ones
    )
    with FakeTensorMode(), contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        run()
    return found


def kind(x: Any) -> str:
    """Triton's name of an argument's type."""
    return TYPES[x.dtype] if isinstance(x, Tensor) else "fp32" if isinstance(x, float) else "i32"


def both_ways(operator: str, tensors: list[Tensor], *options: Any) -> Callable[[], None]:
    """Forward and backward of an operator's kernels."""

    def run() -> None:
        fused = importlib.import_module(f"nlkernels.{operator}.triton").FUSED
        given = [torch.empty(x.shape, dtype=x.dtype, device="cuda") for x in tensors]
        out = fused.run(*given, *options)
        out = out if isinstance(out, tuple) else (out,)
        if fused.back != fused.run_backward:  # else it has no kernels of its own
            n = len(fused.returned)
            fused.run_backward(*out[:n], *given, *out[n:], *options)

    return run


def cases(operator: str, cc: int, dtype: str = "bf16", d: int = 64) -> list[Case]:
    """The kernels of an operator for `dtype` ("bf16" | "fp16" | "fp32") and heads of `d` on sm_<cc>: one sequence of 64
    tokens, chunks of 64. Empty where "auto" does not take the fused form."""
    token, gate = torch.empty(1, 1, 64, d, dtype=TORCH[dtype], device="meta"), torch.empty(1, 1, 64, device="meta")
    M, m, b = (torch.empty(1, 1, *s, device="meta") for s in ((d, d), (d,), ()))
    label = f"{dtype} d{d}"
    if operator == "linear_memory":  # the chunk is free, and it is the user's word
        tensors, rules = [token, token, token, gate, gate, gate, M], (("dot", "before"), ("l2", "start"))
        both = {" ".join(rule): both_ways(operator, tensors, 64, *rule, False) for rule in rules}
        return [c for rule, run in both.items() for c in recorded(run, cc, f"{label} {rule}")]
    if operator == "newton_schulz":
        if cc >= 90 and dtype == "fp32" and d > 64:
            return []
        shapes = sorted({(d, d), (d, min(2 * d, 128))})
        matrices = {s: torch.empty(1, *s, dtype=TORCH[dtype], device="meta") for s in shapes}
        runs = {s: both_ways(operator, [G], 5, 3.4445, -4.775, 2.0315, 1e-7) for s, G in matrices.items()}
        return [c for s, run in runs.items() for c in recorded(run, cc, f"{dtype} {s[0]}x{s[1]}")]
    if operator == "mlp_memory" and d > 64:
        return []
    tensors, options = {
        "mlp_memory": ([token, token, token, gate, gate, M, M], (64, True, "start", True)),
        "selfref_memory": ([token, token, M, M, M, m, m, b, b], (64, True, 0.5, True)),
        "titans_memory": ([token, token, token, gate, gate, gate, M, M], (64, "after")),
    }[operator]
    return recorded(both_ways(operator, tensors, *options), cc, label)
