"""The state of a whole model, and three things that one does with any state: map it, count it, restart some of its
rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor


def tree_map(fn: Callable[[Tensor], Tensor], s: Any) -> Any:
    """`fn` on every tensor of nested dataclasses, dictionaries and lists; everything else as it is."""
    if isinstance(s, Tensor):
        return fn(s)
    if isinstance(s, dict):
        return {k: tree_map(fn, v) for k, v in s.items()}
    if isinstance(s, list | tuple):
        return type(s)(tree_map(fn, v) for v in s)
    if is_dataclass(s) and not isinstance(s, type):
        return replace(s, **{f.name: tree_map(fn, getattr(s, f.name)) for f in fields(s)})
    return s


def tree_tensors(s: Any) -> list[Tensor]:
    """Every tensor of a state."""
    found: list[Tensor] = []
    tree_map(lambda t: found.append(t) or t, s)  # type: ignore[func-returns-value]
    return found


def restart_rows(rows: Tensor, s: Any, fresh: Any) -> Any:
    """`s` with the sequences where `rows` (batch,) is true taken from `fresh`. Clocks are shared and run on.

    A tensor that `fresh` does not have yet (a gradient buffer) restarts at zero; one without rows (a step count) stays.
    A state with a `restart(rows)` of its own is asked for it.
    """
    if hasattr(s, "restart"):
        return s.restart(rows)
    if isinstance(s, Tensor):
        if s.ndim == 0 or s.shape[0] != len(rows):
            return s
        new = fresh if isinstance(fresh, Tensor) else torch.zeros_like(s)
        return torch.where(rows.reshape(-1, *[1] * (s.ndim - 1)), new.to(s.dtype), s)
    if isinstance(s, dict):
        return {k: restart_rows(rows, v, (fresh or {}).get(k)) for k, v in s.items()}
    if isinstance(s, list | tuple):
        return type(s)(restart_rows(rows, v, f) for v, f in zip(s, fresh))
    if is_dataclass(s) and not isinstance(s, type):
        return replace(s, **{f.name: restart_rows(rows, getattr(s, f.name), getattr(fresh, f.name)) for f in fields(s)})
    return s


@dataclass
class HopeState:
    """One (mixer state, CMS state or None) per block, and the number of tokens read."""

    blocks: list[tuple[Any, Any]]
    position: int = 0

    def map(self, fn: Callable[[Tensor], Tensor]) -> HopeState:
        return tree_map(fn, self)

    def detach(self) -> HopeState:
        """Cut the graph: truncated backpropagation through time."""
        return self.map(torch.Tensor.detach)

    def clone(self) -> HopeState:
        return self.map(lambda t: t.detach().clone())

    def numel(self) -> int:
        """Numbers that must be kept to go on reading."""
        return sum(t.numel() for t in tree_tensors(self))
