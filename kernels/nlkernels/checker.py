"""What the interpreter hides: reads and writes out of bounds, and races between programs.

The interpreter dereferences raw addresses and runs programs one after another, so an unmasked tail reads (or corrupts)
foreign memory in silence, and two programs that write one element look as if they agreed. Inside `with checked():`

  * every load and store must fall inside one of the kernel's tensor arguments                 -> OutOfBounds
  * an element that one program stored may not be loaded or stored by another (atomics may)    -> Race

at no measurable cost. `poisoned()` fills fresh buffers with NaN, and so an element that no program wrote is seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import triton.runtime.interpreter as _interpreter


class OutOfBounds(IndexError):
    """A program touched memory outside every tensor argument of its kernel."""


class Race(RuntimeError):
    """Two programs of one launch touched the same element, and at least one of them stored it."""


@dataclass(frozen=True)
class Access:
    """One load or store of one program, as `checked(record=True)` keeps it: what a picture of the kernel needs."""

    kernel: str  # the kernel's name
    launch: int  # 0 for the first launch inside the block
    program: tuple[int, int, int]
    kind: str  # "load" | "store"
    argument: str  # the name of the kernel's argument
    elements: np.ndarray = field(repr=False)  # flat indices into that argument


class Checker:
    """Watches launches. `launches` counts them; `accesses` holds every load and store when recording."""

    def __init__(self, record: bool = False) -> None:
        self.launches = 0
        self.record = record
        self.accesses: list[Access] = []
        self._kernel = ""
        self._ranges: list[tuple[int, int, int, np.ndarray, np.ndarray, str]] = []

    def begin(self, kernel: str, tensors: list[tuple[str, torch.Tensor]]) -> None:
        self.launches += 1
        self._kernel = kernel
        self._ranges = [
            (
                t.data_ptr(),
                t.data_ptr() + t.numel() * t.element_size(),
                t.element_size(),
                np.full(t.numel(), -1, np.int32),
                np.full(t.numel(), -1, np.int32),
                name,
            )
            for name, t in tensors
            if t.numel()
        ]

    def visit(self, pointers: Any, mask: Any, kind: str) -> None:
        b = _interpreter.interpreter_builder
        program = b.grid_idx[0] + b.grid_dim[0] * (b.grid_idx[1] + b.grid_dim[1] * b.grid_idx[2])
        at = pointers.data.ravel()
        if mask is not None:  # a mask mixed with a scalar condition comes as int32
            at = np.broadcast_to(pointers.data, mask.data.shape)[mask.data.astype(bool)].ravel()
        outside = np.ones(at.shape, bool)
        for base, end, size, stored_by, read_by, argument in self._ranges:
            inside = (at >= base) & (at < end)
            if not inside.any():
                continue
            i = ((at[inside] - np.uint64(base)) // np.uint64(size)).astype(np.int64)
            for other, did in ((stored_by[i], "stored"), *([(read_by[i], "loaded")] if kind == "store" else [])):
                if (clash := (other != -1) & (other != program)).any():
                    raise Race(
                        f"{self._kernel}: program {program} {kind}s element {i[clash][0]} of {argument}, which "
                        f"program {other[clash][0]} {did}: their order is not defined"
                    )
            (stored_by if kind == "store" else read_by)[i] = program
            if self.record:
                self.accesses.append(Access(self._kernel, self.launches - 1, tuple(b.grid_idx), kind, argument, i))
            outside &= ~inside
        if outside.any():
            raise OutOfBounds(
                f"{self._kernel}: program {tuple(b.grid_idx)} would {kind} {int(outside.sum())} "
                "element(s) outside every tensor argument: a mask is missing, or an offset is wrong"
            )


@contextlib.contextmanager
def checked(record: bool = False) -> Iterator[Checker]:
    """Check every interpreted launch inside the block; `record=True` also keeps what each program read and wrote.

    A store to an element that *several* programs load is a race too, but only the last reader is remembered.
    """
    checker, Builder, Grid = Checker(record), _interpreter.InterpreterBuilder, _interpreter.GridExecutor
    load, store, begin = Builder.create_masked_load, Builder.create_masked_store, Grid._init_args_hst

    def _load(self: Any, pointers: Any, mask: Any, *a: Any, **k: Any) -> Any:
        checker.visit(pointers, mask, "load")
        return load(self, pointers, mask, *a, **k)

    def _store(self: Any, pointers: Any, value: Any, mask: Any, *a: Any, **k: Any) -> Any:
        checker.visit(pointers, mask, "store")
        return store(self, pointers, value, mask, *a, **k)

    def _begin(self: Any, args: Any, kwargs: Any) -> Any:
        out = begin(self, args, kwargs)
        named = [*zip(self.arg_names, out[0], strict=False), *out[1].items()]
        checker.begin(self.fn.__name__, [(name, t) for name, t in named if isinstance(t, torch.Tensor)])
        return out

    Builder.create_masked_load, Builder.create_masked_store, Grid._init_args_hst = _load, _store, _begin
    try:
        yield checker
    finally:
        Builder.create_masked_load, Builder.create_masked_store, Grid._init_args_hst = load, store, begin


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """torch.empty and torch.empty_like return NaN inside the block (integer buffers: the largest value)."""
    saved = torch.empty, torch.empty_like

    def poison(make: Any) -> Any:
        def made(*a: Any, **k: Any) -> torch.Tensor:
            x = make(*a, **k)
            return x.fill_(float("nan") if x.is_floating_point() else torch.iinfo(x.dtype).max) if x.numel() else x

        return made

    torch.empty, torch.empty_like = poison(saved[0]), poison(saved[1])  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.empty, torch.empty_like = saved  # type: ignore[assignment]
