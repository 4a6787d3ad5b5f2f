"""What crosses the border between judge and submission: one line of JSON at a time, of bounded size and exact types.

A tensor is its dtype, its shape and its bytes; what is no plain value arrives as an object whose type has the same name
and nothing else. This file imports nothing of nlbook: the worker inside the sandbox reads it too.
"""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

LIMIT, MOST = 1 << 20, 20_000  # bytes of one line, values in it
TEXT = 4_000  # letters of one text
FLOATS = ("float64", "float32", "float16", "bfloat16", "complex128", "complex64")
DTYPES = (*FLOATS, "int64", "int32", "int16", "int8", "uint8", "bool")


class Broken(Exception):
    """The other side sent something that is no answer, or nothing more."""


def pack(value: Any, depth: int = 8) -> Any:
    """A value as JSON."""
    kind = type(value)
    if value is None or kind in (bool, float):
        return value
    if kind is int:
        return value if value.bit_length() < 4096 else {"other": "int of too many digits"}
    if kind is str:
        return value[:TEXT]
    if kind is np.bool_:
        return bool(value)
    if kind in (torch.Tensor, torch.nn.Parameter):
        return _tensor(value)
    if (kind is np.ndarray or isinstance(value, np.generic)) and value.dtype.kind in "fiub":
        return {
            "array": value.dtype.str,
            "shape": value.shape,
            "bytes": _text(value.tobytes()),
            "one": kind is not np.ndarray,
        }
    if depth and isinstance(value, (list, tuple)):
        parts = [pack(v, depth - 1) for v in value]
        return parts if isinstance(value, list) else {"tuple": parts}
    if depth and kind is dict:
        return {"dict": [[k, pack(v, depth - 1)] for k, v in value.items() if type(k) in (str, int)]}
    return {"other": kind.__name__[:80]}


def _tensor(x: torch.Tensor) -> Any:
    try:
        plain = x.detach().cpu().resolve_conj().resolve_neg().contiguous()
        data = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    except (RuntimeError, TypeError, NotImplementedError):  # sparse, meta, nested
        return {"other": "torch.Tensor of an unusual kind"}
    return {"tensor": str(x.dtype).removeprefix("torch."), "shape": list(x.shape), "bytes": _text(data)}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unpack(tree: Any) -> Any:
    """The value that `pack` made JSON of.

    Raises:
        Broken: `pack` makes no such thing.
    """
    try:
        return _unpack(tree)
    except (ValueError, TypeError, KeyError, ArithmeticError, RuntimeError, RecursionError) as error:
        raise Broken(f"an answer that cannot be read ({type(error).__name__})") from None


def _unpack(tree: Any) -> Any:
    if isinstance(tree, str):
        return clean(tree)
    if isinstance(tree, list):
        return [_unpack(part) for part in tree]
    if not isinstance(tree, dict):
        return tree
    if "tuple" in tree:
        return tuple(_unpack(part) for part in tree["tuple"])
    if "dict" in tree:
        return {k if type(k) is int else clean(k): _unpack(v) for k, v in tree["dict"]}
    if "other" in tree:
        return type(clean(tree["other"]), (), {})()
    shape, data = [int(n) for n in tree["shape"]], bytearray(base64.b64decode(tree["bytes"], validate=True))
    if tree.get("tensor") in DTYPES:
        dtype = getattr(torch, tree["tensor"])
        return (torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)).reshape(shape)
    kind = np.dtype(tree["array"])
    if kind.kind not in "fiub":
        raise ValueError(kind)
    array = np.frombuffer(data, dtype=kind).reshape(shape)
    return array[()] if tree["one"] is True else array


def clean(text: Any) -> str:
    """A text that any encoding can write: half characters (`\\ud800`) are replaced."""
    if not isinstance(text, str):
        raise TypeError("not a text")
    return text[:TEXT].encode("utf-8", "replace").decode()


def send(sock: socket.socket, message: dict[str, Any], seconds: float | None = None) -> None:
    """One line. TimeoutError: the other side does not read it."""
    sock.settimeout(seconds)
    sock.sendall(json.dumps(message).encode() + b"\n")


def receive(
    sock: socket.socket, seconds: float | None = None, look: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """The next line, read as JSON. `look` is called ten times a second while waiting and may raise.

    Raises:
        Broken: the other side is gone, or sent what is no answer. TimeoutError: no whole line within `seconds`.
    """
    end, got = None if seconds is None else time.monotonic() + seconds, bytearray()
    while not got.endswith(b"\n"):
        if end is not None and time.monotonic() > end:
            raise TimeoutError
        look()
        sock.settimeout(None if end is None else 0.1)
        try:
            more = sock.recv(1 << 16)
        except TimeoutError:
            continue
        except ConnectionError:
            more = b""
        got += more
        if not more:
            raise Broken("its process has ended before it answered")
        if len(got) > LIMIT or got.count(b",") > MOST:
            raise Broken("an answer that is too large")
    try:
        message = json.loads(got)
    except (ValueError, RecursionError, MemoryError) as error:
        raise Broken(f"an answer that cannot be read ({type(error).__name__})") from None
    if not isinstance(message, dict):
        raise Broken("an answer that cannot be read")
    return message
