"""A GGUF file, the form of llama.cpp, with numpy alone: its metadata, and its tensors as float32.

Four kinds of tensors are known: F32, F16, and two in which 32 numbers share a scale, Q8_0 (a signed byte for each) and
Q4_1 (four bits for each, and a minimum for all).
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np

from nlbook.errors import NLBookError, need

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
F32, F16, Q4_1, Q8_0 = 0, 1, 3, 8
BLOCK = 32  # numbers that share a scale


class GGUF:
    """meta: name -> value. tensors: name -> (shape as in torch, kind, where it begins). tensor(name): its numbers."""

    def __init__(self, path: str | Path) -> None:
        try:
            with Path(path).open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._at = 0
            magic, version, tensors, fields = self._take("4sIQQ")
            need(magic == b"GGUF" and version in (2, 3), "path", f"{path}", "a GGUF file of version 2 or 3")
            self.meta: dict[str, Any] = {}
            for _ in range(fields):
                name = self._string()
                self.meta[name] = self._value(*self._take("I"))
            heads = [(self._string(), self._take(f"{self._take('I')[0]}Q"), self._take("IQ")) for _ in range(tensors)]
        except (OSError, ValueError, struct.error, KeyError) as e:
            raise (
                e if isinstance(e, NLBookError) else NLBookError(f"path: got {path} ({e}), expected a GGUF file")
            ) from e
        align = self.meta.get("general.alignment", 32)
        start = -(-self._at // align) * align
        self.tensors = {name: (shape[::-1], kind, start + offset) for name, shape, (kind, offset) in heads}

    def _take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + form, self._bytes, self._at)
        self._at += struct.calcsize("<" + form)
        return values

    def _string(self) -> str:
        (n,) = self._take("Q")
        return self._take(f"{n}s")[0].decode()

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            return self._take(SCALARS[kind])[0]
        inner, n = self._take("IQ")
        return [self._string() for _ in range(n)] if inner == STRING else list(self._take(f"{n}{SCALARS[inner]}"))

    def tensor(self, name: str) -> np.ndarray:
        """A tensor's numbers in float32."""
        shape, kind, at = self.tensors[name]
        forms: dict[int, Any] = {
            F32: "<f4",
            F16: "<f2",
            Q8_0: [("d", "<f2"), ("q", "i1", 32)],
            Q4_1: [("d", "<f2", 2), ("q", "u1", 16)],
        }
        need(kind in forms, name, f"a tensor of kind {kind}", f"one of {sorted(forms)}")
        n = math.prod(shape)
        raw: Any = np.frombuffer(self._bytes, forms[kind], n if kind in (F32, F16) else n // BLOCK, at)
        if kind in (F32, F16):
            return raw.astype(np.float32).reshape(shape)
        if kind == Q8_0:
            return (raw["q"] * raw["d"].astype(np.float32)[:, None]).reshape(shape)
        scale, least = raw["d"].astype(np.float32).T[:, :, None]
        q = np.concatenate([raw["q"] & 15, raw["q"] >> 4], 1)  # the low halves of the bytes are the first 16
        return (q * scale + least).reshape(shape)
