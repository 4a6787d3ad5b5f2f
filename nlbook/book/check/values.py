"""Answers as plain numbers: a returned value is copied into a tree of leaves before anything is compared.

Comparing copies held in NumPy arrays, not the returned objects, means that no `__eq__`, no subclass and no
replaced `torch.allclose` of the learner has a say in the verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

# Bound here, once: code that replaces them later changes nothing.
_detach, _clone, _to, _cpu, _numpy = Tensor.detach, Tensor.clone, Tensor.to, Tensor.cpu, Tensor.numpy
_abs, _max, _isfinite, _isnan, _array_equal = np.abs, np.max, np.isfinite, np.isnan, np.array_equal

TENSORS = (Tensor, torch.nn.Parameter)


@dataclass(frozen=True)
class Leaf:
    """One returned value. `kind` is number, flag, text, none, tensor, array or other."""

    kind: str
    type: str
    value: Any = None
    dtype: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape if isinstance(self.value, np.ndarray) else ()


Tree: TypeAlias = "Leaf | tuple[Any, ...] | dict[Any, Any]"


def snapshot(x: Any, depth: int = 6) -> Tree:
    """Copy an answer into a tree of leaves. Only exact, well-known types count; all else is `other`."""
    kind = type(x)
    if kind in TENSORS:
        return _tensor(x)
    if kind is bool or kind is np.bool_:
        return Leaf("flag", "bool", bool(x))
    if kind in (int, float) or (issubclass(kind, (np.floating, np.integer)) and kind.__module__ == "numpy"):
        return Leaf("number", kind.__name__, np.asarray(float(x)), kind.__name__)
    if kind is str:
        return Leaf("text", "str", x)
    if x is None:
        return Leaf("none", "None")
    if kind is np.ndarray and x.dtype.kind in "fiub":
        return Leaf("array", "numpy.ndarray", np.array(x, dtype=np.float64), str(x.dtype))
    if depth and issubclass(kind, (tuple, list)):
        parts = tuple.__iter__(x) if issubclass(kind, tuple) else list.__iter__(x)  # not a subclass's own
        return tuple(snapshot(part, depth - 1) for part in parts)
    if depth and kind is dict:
        return {k: snapshot(v, depth - 1) for k, v in x.items() if type(k) in (str, int)}
    return Leaf("other", kind.__name__)


def _tensor(x: Tensor) -> Leaf:
    dtype = str(x.dtype).removeprefix("torch.")
    try:
        y = _cpu(_detach(x))
        wide = torch.complex128 if y.is_complex() else torch.float64
        return Leaf("tensor", "torch.Tensor", _numpy(_clone(_to(y.resolve_conj().resolve_neg(), wide))).copy(), dtype)
    except (RuntimeError, TypeError, NotImplementedError):  # sparse, meta, nested
        return Leaf("other", "torch.Tensor of an unusual kind")


def leaves(tree: Tree, path: str = "the output") -> Iterator[tuple[str, Leaf]]:
    """Every leaf with its place in words."""
    if isinstance(tree, Leaf):
        yield path, tree
    elif isinstance(tree, tuple):
        for i, part in enumerate(tree):
            yield from leaves(part, f"output {i + 1}" if path == "the output" else f"{path}[{i}]")
    else:
        for key, part in sorted(tree.items(), key=lambda pair: str(pair[0])):  # whatever order it was filled in
            yield from leaves(part, f"{'output' if path == 'the output' else path}[{key!r}]")


def close(expected: Any, got: Any, rtol: float, atol: float) -> bool:
    """Equal up to rounding: the largest difference against the largest expected magnitude."""
    if expected.shape != got.shape:
        return False
    if expected.size == 0 or _array_equal(expected, got):
        return True
    gaps = _isnan(expected)
    if gaps.any():  # a wrong answer that is known to make nan
        return _array_equal(gaps, _isnan(got)) and close(expected[~gaps], got[~gaps], rtol, atol)
    if not _isfinite(got).all():
        return False
    return bool(_max(_abs(expected - got)) <= atol + rtol * _max(_abs(expected)))


def same(expected: Tree, got: Tree, rtol: float, atol: float) -> bool:
    """Whether two trees agree in structure, types, dtypes and values."""
    return problem(expected, got) is None and not wrong_leaves(expected, got, rtol, atol)


def wrong_leaves(expected: Tree, got: Tree, rtol: float, atol: float) -> list[tuple[str, Leaf, Leaf]]:
    """The leaves whose values differ; the trees must have the same structure."""
    found = []
    for (path, e), (_, g) in zip(leaves(expected), leaves(got)):
        if isinstance(e.value, np.ndarray) and isinstance(g.value, np.ndarray):
            equal = close(e.value, g.value, rtol, atol)
        else:
            equal = e.kind == g.kind and e.value == g.value
        if not equal:
            found.append((path, e, g))
    return found


def largest_gap(pairs: Iterable[tuple[Tree, Tree]]) -> float:
    """The largest difference of any two numbers at the same place."""
    both = [(e.value, g.value) for expected, got in pairs for (_, e), (_, g) in zip(leaves(expected), leaves(got))]
    gaps = [float(_max(_abs(e - g))) for e, g in both if isinstance(e, np.ndarray) and e.size]
    return max((gap for gap in gaps if np.isfinite(gap)), default=0.0)


def problem(expected: Tree, got: Tree, path: str = "the output") -> tuple[str, str] | None:
    """The first difference that is not one of value, as (reason, sentence): type, structure, shape, dtype, finite."""
    if isinstance(got, Leaf) and got.kind == "none" and not (isinstance(expected, Leaf) and expected.kind == "none"):
        return "type", f"{path} is None: is a `return` missing?"
    if isinstance(expected, tuple):
        if not isinstance(got, tuple):
            return "type", f"{path} is {name(got)}; expected {len(expected)} values, as in `return a, b`."
        if len(got) != len(expected):
            return "structure", f"{path} has {len(got)} values; expected {len(expected)}."
        pairs = [
            (e, g, f"output {i + 1}" if path == "the output" else f"{path}[{i}]")
            for i, (e, g) in enumerate(zip(expected, got))
        ]
    elif isinstance(expected, dict):
        if not isinstance(got, dict):
            return "type", f"{path} is {name(got)}; expected a dict with the keys {sorted(map(str, expected))}."
        if set(got) != set(expected):
            return "structure", f"{path} has the keys {sorted(map(str, got))}; expected {sorted(map(str, expected))}."
        pairs = [(e, got[k], f"{path}[{k!r}]") for k, e in expected.items()]
    else:
        return _leaf_problem(expected, got, path)
    return next((p for e, g, where in pairs if (p := problem(e, g, where))), None)


def _leaf_problem(e: Leaf, got: Tree, path: str) -> tuple[str, str] | None:
    scalar = e.kind in ("number", "tensor", "array") and e.shape == ()
    if not isinstance(got, Leaf):
        return "type", f"{path} is {name(got)}; expected {name(e)}."
    if got.kind != e.kind and not (scalar and got.kind in ("number", "tensor", "array")):
        generator = " (a `yield` instead of a `return`?)" if got.type == "generator" else ""
        return "type", f"{path} is {name(got)}; expected {name(e)}{generator}."
    if got.shape != e.shape:
        swapped = got.value.ndim > 1 and got.value.mT.shape == e.shape
        twist = "; rows and columns are swapped" if swapped else ""
        return "shape", f"{path} has shape {got.shape}; expected {e.shape}{twist}."
    if e.kind == got.kind == "tensor" and e.dtype != got.dtype:
        return "dtype", (
            f"{path} has dtype {got.dtype}; expected {e.dtype}, as the inputs have. "
            "A tensor made inside needs `dtype=` of an input (or `torch.zeros_like`)."
        )
    if isinstance(e.value, np.ndarray) and _isfinite(e.value).all() and not _isfinite(got.value).all():
        what = "nan" if np.isnan(got.value).any() else "inf"
        return "finite", f"{path} holds {what}: a division by zero, a log of zero or a step that diverges?"
    return None


def name(tree: Tree) -> str:
    """A value's type in words."""
    if isinstance(tree, tuple):
        return f"a tuple or list of {len(tree)}"
    if isinstance(tree, dict):
        return "a dict"
    return {
        "number": "a number",
        "flag": "True or False",
        "text": "a text",
        "tensor": "a torch.Tensor",
        "array": "a NumPy array",
        "none": "None",
    }.get(tree.kind, f"a {tree.type}")


def copy_args(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Fresh copies of a case's arguments, so that no call sees what another did to them."""

    def one(x: Any) -> Any:
        if isinstance(x, Tensor):
            return _clone(_detach(x)).requires_grad_(x.requires_grad)
        if isinstance(x, (list, tuple)):
            return type(x)(map(one, x))
        return {k: one(v) for k, v in x.items()} if isinstance(x, dict) else x

    return tuple(one(a) for a in args)


def digits(x: float, n: int = 4) -> str:
    """A number as a reader wants it, with `n` digits."""
    return f"{x:.{n}g}" if abs(x) < 1e15 else f"{x:.{n - 1}e}"


def brief(x: Any, limit: int = 12, n: int = 4) -> str:
    """A value in a line: small tensors with their numbers (`n` digits), large ones by shape."""
    if isinstance(x, Leaf):
        x = x.value if x.value is not None else None
    elif isinstance(x, Tensor):
        x = snapshot(x)
        return brief(x, limit, n) if isinstance(x, Leaf) and x.value is not None else "a tensor"
    if isinstance(x, np.ndarray):
        if x.size > limit:
            return f"numbers of shape {x.shape}, first {', '.join(digits(v, n) for v in np.real(x).ravel()[:3])}, ..."
        return _numbers(np.real(x), n) if x.size else f"empty, shape {x.shape}"
    if type(x) is float:
        return digits(x, n)
    if isinstance(x, (tuple, list)):
        return "(" + ", ".join(brief(part, limit, n) for part in x) + ")"
    if isinstance(x, dict):
        if len(x) > limit:
            return f"a dict of {len(x)}, first {', '.join(map(repr, list(x)[:3]))}, ..."
        return "{" + ", ".join(f"{k!r}: {brief(v, limit, n)}" for k, v in x.items()) + "}"
    return scrub(repr(x))[:200] if type(x) in (str, int, bool, type(None)) else f"<{type(x).__name__}>"


def _numbers(a: np.ndarray, n: int) -> str:
    return digits(float(a), n) if a.ndim == 0 else "[" + ", ".join(_numbers(part, n) for part in a) + "]"


def scrub(text: str) -> str:
    """Without memory addresses: committed outputs must not change from run to run."""
    return re.sub(r"\s(at )?0x[0-9a-fA-F]+", "", text)
