"""Answers as plain bytes between two processes of which one is not trusted: no pickle, no code, exact types only.

A value becomes a tree (JSON) and a list of blocks (the numbers of its tensors). What is no plain value arrives as an
object whose type has the same name and nothing else. This file imports nothing of nlbook: the worker reads it too.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

LIMIT = 64 << 20  # bytes of one message
TEXT = 20_000  # letters of one text
DTYPES = {
    str(d).removeprefix("torch."): d
    for d in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.complex128,
        torch.complex64,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
}


class Broken(Exception):
    """The other side sent something that is no message, or nothing more."""


def pack(value: Any, blocks: list[bytes], depth: int = 8) -> Any:
    """The tree of a value; its numbers are appended to `blocks`."""
    kind = type(value)
    if kind in (torch.Tensor, torch.nn.Parameter):
        return _pack_tensor(value, blocks)
    if kind is bool or kind is np.bool_:
        return ["b", bool(value)]
    if kind is int:
        return ["i", hex(value)] if value.bit_length() < 4096 else ["o", "int of too many digits"]
    if kind is float:
        return ["f", value.hex()]
    if kind is str:
        return ["s", value[:TEXT]]
    if value is None:
        return ["0"]
    if kind is np.ndarray and value.dtype.kind in "fiub":
        blocks.append(np.ascontiguousarray(value).tobytes())
        return ["a", value.dtype.str, list(value.shape), len(blocks) - 1]
    if isinstance(value, np.generic) and value.dtype.kind in "fiu":
        blocks.append(value.tobytes())
        return ["g", value.dtype.str, len(blocks) - 1]
    if depth and issubclass(kind, (tuple, list)):
        parts = tuple.__iter__(value) if issubclass(kind, tuple) else list.__iter__(value)
        return ["T" if issubclass(kind, tuple) else "L", [pack(p, blocks, depth - 1) for p in parts]]
    if depth and kind is dict:
        return ["D", [[k, pack(v, blocks, depth - 1)] for k, v in value.items() if type(k) in (str, int)]]
    return ["o", kind.__name__[:80]]


def _pack_tensor(x: torch.Tensor, blocks: list[bytes]) -> Any:
    name = str(x.dtype).removeprefix("torch.")
    try:
        y = x.detach().cpu().resolve_conj().resolve_neg().contiguous()
        blocks.append(y.reshape(-1).view(torch.uint8).numpy().tobytes())
    except (RuntimeError, TypeError, NotImplementedError):  # sparse, meta, nested
        return ["o", "torch.Tensor of an unusual kind"]
    return ["t", name, list(x.shape), len(blocks) - 1, bool(x.requires_grad)]


def unpack(tree: Any, blocks: list[bytes], depth: int = 10) -> Any:
    """The value of a tree.

    Raises:
        Broken: the tree is not one that `pack` makes.
    """
    try:
        return _unpack(tree, blocks, depth)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RuntimeError) as error:
        raise Broken(f"an answer that cannot be read ({type(error).__name__})") from None


def _unpack(tree: Any, blocks: list[bytes], depth: int) -> Any:
    kind = tree[0]
    if kind == "t":
        dtype, shape = DTYPES[tree[1]], [int(n) for n in tree[2]]
        flat = (
            torch.frombuffer(bytearray(blocks[tree[3]]), dtype=dtype)
            if blocks[tree[3]]
            else torch.empty(0, dtype=dtype)
        )
        return flat.reshape(shape).requires_grad_(bool(tree[4]) and dtype.is_floating_point)
    if kind in ("a", "g"):
        dtype_np = np.dtype(str(tree[1]))
        if dtype_np.kind not in "fiub":
            raise ValueError(tree[1])
        flat_np = np.frombuffer(blocks[tree[-1]], dtype=dtype_np)
        return flat_np[0] if kind == "g" else flat_np.reshape([int(n) for n in tree[2]]).copy()
    if kind == "b":
        return bool(tree[1])
    if kind == "i":
        return int(tree[1], 16)
    if kind == "f":
        return float.fromhex(tree[1])
    if kind == "s":
        return str(tree[1])
    if kind == "0":
        return None
    if kind in ("T", "L") and depth:
        parts = [_unpack(p, blocks, depth - 1) for p in tree[1]]
        return tuple(parts) if kind == "T" else parts
    if kind == "D" and depth:
        return {k: _unpack(v, blocks, depth - 1) for k, v in tree[1]}
    if kind == "o":
        return type(str(tree[1]), (), {})()
    raise ValueError(kind)


def send(sock: socket.socket, message: dict[str, Any]) -> None:
    """One message: `message["values"]` may hold any values, the rest is JSON."""
    blocks: list[bytes] = []
    values = [pack(v, blocks) for v in message.get("values", [])]
    head = json.dumps({**message, "values": values, "sizes": [len(b) for b in blocks]}).encode()
    sock.sendall(struct.pack(">QQ", len(head), sum(map(len, blocks))) + head + b"".join(blocks))


def receive(
    sock: socket.socket, seconds: float | None = None, look: Callable[[], None] | None = None
) -> dict[str, Any]:
    """The next message. `look` is called ten times a second while waiting and may raise.

    Raises:
        Broken: the other side is gone, or sent what is no message. TimeoutError: nothing complete within `seconds`.
    """
    end = None if seconds is None else time.monotonic() + seconds
    head_size, block_size = struct.unpack(">QQ", exactly(sock, 16, end, look))
    if head_size + block_size > LIMIT:
        raise Broken("an answer that is too large")
    try:
        message = json.loads(exactly(sock, head_size, end, look))
        blocks, rest = [], exactly(sock, block_size, end, look)
        for size in message["sizes"]:
            blocks.append(rest[: int(size)])
            rest = rest[int(size) :]
        message["values"] = [unpack(v, blocks) for v in message["values"]]
        return message
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Broken(f"an answer that cannot be read ({type(error).__name__})") from None


def exactly(sock: socket.socket, size: int, end: float | None, look: Callable[[], None] | None) -> bytes:
    got = bytearray()
    while len(got) < size:
        if end is not None or look is not None:
            ready, _, _ = select.select(
                [sock], [], [], 0.1 if end is None else max(0.0, min(0.1, end - time.monotonic()))
            )
            if look is not None:
                look()
            if not ready:
                if end is not None and time.monotonic() >= end:
                    raise TimeoutError
                continue
        try:
            more = sock.recv(min(1 << 20, size - len(got)))
        except ConnectionError:
            more = b""
        if not more:
            raise Broken("its process has ended before it answered")
        got += more
    return bytes(got)
