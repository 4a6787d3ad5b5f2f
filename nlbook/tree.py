"""Trees of tensors: dataclasses, dictionaries, lists and tuples, with tensors or plain values at the leaves.

What a model carries from call to call is such a tree. `Tree` gives a dataclass the four methods that every state has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from nlbook.errors import NLBookError, need


def parts(tree: Any) -> dict[str, Any] | None:
    """The children of a node by name; None of a leaf."""
    if isinstance(tree, dict):
        return tree
    if isinstance(tree, list | tuple):
        return {str(i): v for i, v in enumerate(tree)}
    if is_dataclass(tree) and not isinstance(tree, type):
        return {f.name: getattr(tree, f.name) for f in fields(tree)}
    return None


def rebuilt(tree: Any, new: dict[str, Any]) -> Any:
    """The node `tree` with other children."""
    if isinstance(tree, dict):
        return new
    return type(tree)(new.values()) if isinstance(tree, list | tuple) else replace(tree, **new)


def tree_map(fn: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """`fn` on every tensor; everything else as it is."""
    children = parts(tree)
    if children is None:
        return fn(tree) if isinstance(tree, Tensor) else tree
    return rebuilt(tree, {k: tree_map(fn, v) for k, v in children.items()})


def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) of everything that is no node, e.g. ("now/mem/W1", tensor)."""
    children = parts(tree)
    if children is None:
        yield name, tree
    else:
        for k, v in children.items():
            yield from leaves(v, f"{name}/{k}" if name else str(k))


def tensors(tree: Any) -> dict[str, Tensor]:
    """Every tensor by its path."""
    return {name: leaf for name, leaf in leaves(tree) if isinstance(leaf, Tensor)}


def restart(rows: Tensor, tree: Any, fresh: Any) -> Any:
    """`tree` with the sequences where `rows` (batch,) is true taken from `fresh`. Clocks are shared and run on.

    A tensor that `fresh` does not have yet (a gradient buffer) restarts at zero; one without rows (a step count) stays.
    A state with a `restart(rows)` of its own is asked for it.
    """
    if hasattr(tree, "restart"):
        return tree.restart(rows)
    children = parts(tree)
    if children is not None:
        new = parts(fresh) or {}
        return rebuilt(tree, {k: restart(rows, v, new.get(k)) for k, v in children.items()})
    if not isinstance(tree, Tensor) or tree.ndim == 0 or tree.shape[0] != len(rows):
        return tree
    start = fresh if isinstance(fresh, Tensor) else torch.zeros_like(tree)
    return torch.where(rows.reshape(-1, *[1] * (tree.ndim - 1)), start.to(tree.dtype), tree)


class Tree:
    """What every state can do."""

    def map(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """The same state with `fn` applied to each tensor."""
        return tree_map(fn, self)

    def detach(self) -> Self:
        """Cut the graph: truncated backpropagation through time."""
        return self.map(Tensor.detach)

    def clone(self) -> Self:
        return self.map(lambda t: t.detach().clone())

    def numel(self) -> int:
        """Numbers that must be kept to go on reading."""
        return sum(t.numel() for t in tensors(self).values())


# ---------------------------------------------------------------------- disk
def digest(flat: dict[str, Tensor]) -> str:
    """One number for the names and bytes of all tensors: a bit that turned changes it."""
    h = hashlib.blake2b(digest_size=16)
    for name in sorted(flat):
        h.update(name.encode() + flat[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()


def write(path: str | Path, kind: str, flat: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Tensors, plain facts and the digest of the tensors as one safetensors file (no pickle) of this kind."""
    from safetensors.torch import save_file

    save_file(flat, str(path), metadata={f"nlbook.{kind}": json.dumps(facts | {"digest": digest(flat)})})


def read(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write` wrote.

    Raises:
        NLBookError: the file cannot be read, is of another kind, or has changed since it was written.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as f:
            meta = (f.metadata() or {}).get(f"nlbook.{kind}")
            flat = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 (safe_open is no dict)
    except (SafetensorError, OSError) as e:
        raise NLBookError(f"path: got {path}, which cannot be read ({e}), expected a {kind} that nlbook wrote") from e
    if meta is None:
        raise NLBookError(f"path: got {path}, which holds no {kind}, expected a {kind} that nlbook wrote")
    facts = json.loads(meta)
    need(facts.pop("digest") == digest(flat), "path", path, f"a {kind} as it was written; this one is damaged")
    return flat, facts


def save(path: str | Path, tree: Any) -> None:
    """Write a state with safetensors. `load` reads it back, bit for bit."""
    flat = {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in tensors(tree).items()}
    plain = {k: v for k, v in leaves(tree) if k not in flat}
    write(path, "state", flat, plain)


def load(path: str | Path, like: Any) -> Any:
    """The state that `save` wrote. like: any state of the same model, such as `model.initial_state(1)`."""
    flat, plain = read(path, "state")
    found: dict[str, Any] = {}
    for name, leaf in (plain | flat).items():
        *path_to, last = name.split("/")
        node = found
        for k in path_to:
            node = node.setdefault(k, {})
        node[last] = leaf
    return _shaped(like, found, str(path))


def _shaped(like: Any, found: Any, path: str) -> Any:
    """Nested dictionaries in the shape of `like`: its dataclasses, lists and tuples; dictionaries as they were kept."""
    children = parts(like)
    if children is None or (isinstance(like, dict) and found is not None):
        return found
    if isinstance(like, dict):  # dictionaries without leaves leave no trace in a file
        return {k: _shaped(v, None, path) for k, v in like.items()}
    if not isinstance(found, dict) or set(found) - set(children):
        raise NLBookError(f"path: got {path}, which holds another kind of state, expected one of {type(like).__name__}")
    return rebuilt(like, {k: _shaped(v, found.get(k), path) for k, v in children.items()})
