"""Real text with no download: the source of the reader's own Python, byte by byte, in two mapped files and a card.

    parts = prepare(folder)                                        # {"train": ..., "valid": ...}, uint16 memmaps
    batch = windows(parts["train"], batch=8, length=256, seed=0)   # batch(step), the same each time it is asked

Tokens are bytes 0 .. 255, and DOCUMENT before each file. The text is the standard library of the running Python (its
own licence; it is read where it lies and not passed on). So its bytes depend on the Python version: card.json holds the
version and a hash, and a result must quote them.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nlbook.errors import generator, need

DOCUMENT, VOCABULARY = 256, 257
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3", "pydoc_data"}


def standard_library(root: str | Path | None = None) -> Iterator[tuple[str, bytes | None]]:
    """(name, UTF-8 text) of the .py files of the running Python's standard library, by name, tests and tables left out.

    root: another folder of .py files. The text of a file that is not UTF-8 is None.
    """
    folder = Path(root if root is not None else sysconfig.get_path("stdlib"))
    need(folder.is_dir(), "root", folder.name, "a folder of .py files")
    for path in sorted(folder.rglob("*.py"), key=lambda p: p.relative_to(folder).as_posix()):
        inside = path.relative_to(folder)
        if LEFT_OUT.isdisjoint(inside.parts[:-1]):
            try:
                text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").encode()
            except (UnicodeDecodeError, OSError):
                text = None
            yield inside.as_posix(), text


def is_valid(name: str) -> bool:
    """Whether a file is one of the tenth to be graded on: by a hash of its name, the same in every Python version."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 10 == 0


def prepare(folder: Path, *, most: int | None = None, root: str | Path | None = None) -> dict[str, np.memmap]:
    """Write train.bin, valid.bin and card.json to `folder`, and map the first two: tokens of every file, in order.

    most: stop each part after the file with which it passes so many bytes (train) or a tenth of it (valid). card.json
    says where the text comes from and how many files were left out because they are not UTF-8.
    """
    texts: dict[str, list[bytes]] = {"train": [], "valid": []}
    room = {"train": most, "valid": None if most is None else most // 10}
    left_out = 0
    for name, text in standard_library(root):
        part = "valid" if is_valid(name) else "train"
        limit = room[part]
        if text is None:
            left_out += 1
        elif limit is None or sum(map(len, texts[part])) < limit:
            texts[part].append(text)
    folder.mkdir(parents=True, exist_ok=True)
    source = "Python standard library" if root is None else Path(root).name
    card: dict[str, object] = {"source": source, "python": platform.python_version(), "left_out": left_out}
    for part, files in texts.items():
        need(len(files) > 0, "root", f"no file for {part}", "enough .py files that each part has one")
        ids = np.array([i for text in files for i in (DOCUMENT, *text)], np.uint16)
        ids.tofile(folder / f"{part}.bin")
        card[part] = {"files": len(files), "tokens": len(ids), "sha256": hashlib.sha256(ids.tobytes()).hexdigest()}
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return {part: np.memmap(folder / f"{part}.bin", np.uint16, mode="r") for part in texts}


def _take(tokens: np.ndarray, starts: list[int], length: int) -> Tensor:
    return torch.from_numpy(np.stack([tokens[s : s + length] for s in starts]).astype(np.int64))


def windows(tokens: np.ndarray, *, batch: int, length: int, seed: int) -> Callable[[int], Tensor]:
    """step -> (batch, length) int64: windows that begin anywhere, a pure function of (seed, step)."""
    need(2 <= length <= len(tokens), "length", length, f"an int in 2 .. {len(tokens)}")

    def at(step: int) -> Tensor:
        g = generator(seed * 1_000_003 + step)
        return _take(tokens, torch.randint(len(tokens) - length + 1, (batch,), generator=g).tolist(), length)

    return at


def in_order(tokens: np.ndarray, *, length: int, most: int) -> Tensor:
    """(most or fewer, length) windows spread evenly over the whole text, for an evaluation that is the same each time.

    Neighbours overlap by one token, so no prediction is graded twice.
    """
    need(2 <= length <= len(tokens), "length", length, f"an int in 2 .. {len(tokens)}")
    starts = list(range(0, len(tokens) - length + 1, length - 1))
    if most < len(starts):
        starts = [starts[i * len(starts) // most] for i in range(most)]
    return _take(tokens, starts, length)
