"""Tokens on disk: a folder of memory-mapped shards with a card, read in windows without loading the text.

    write(folder, documents, vocabulary=257, document=256)     once
    tokens = Tokens(folder)                                    a mapping: opening costs nothing, whatever the size
    batch = windows(tokens, batch=8, length=256, seed=0)       batch(step) -> Windows, the same each time it is asked

Every document begins with the token `document`, so a window knows where a new one starts (`reset`), and a model can be
told to forget there (`Hope(..., reset=)`, or `HopeConfig.reset_token`).

A shard is 16 bytes (the word NLTOKENS, format, bytes per token) and then little-endian unsigned integers. card.json
names the shards in order, with their lengths and SHA-256, the vocabulary, the document token, and whatever the maker
says of the source.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlbook.errors import NLBookError, generator, need

CARD, MAGIC, FORMAT = "card.json", b"NLTOKENS", 1
HEADER = struct.Struct("<8sII")  # magic, format, bytes per token


class Windows(NamedTuple):
    """tokens (batch, length), int64; reset (batch, length), bool: a document begins here."""

    tokens: Tensor
    reset: Tensor


# ---- writing ---------------------------------------------------------------------------------------------------------
def write(
    folder: str | Path,
    documents: Iterable[Sequence[int]],
    *,
    vocabulary: int,
    document: int,
    shard_tokens: int = 1 << 22,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write documents (each a sequence of token ids, without the document token) as shards; returns the folder.

    Args:
        vocabulary: number of ids, the document token included; up to 65 536 take two bytes a token, more take four.
        shard_tokens: most tokens in one file; a document may go on in the next.
        about: plain values for the card's "about": the source, its hash, the tokenizer.

    The card is written last and at once, so a folder without one is one that was not finished. A folder that has a card
    is refused.
    """
    need(isinstance(vocabulary, int) and 1 < vocabulary <= 1 << 32, "vocabulary", vocabulary, "an int in 2 .. 2**32")
    need(0 <= document < vocabulary, "document", document, f"a token below vocabulary = {vocabulary}")
    need(isinstance(shard_tokens, int) and shard_tokens >= 1, "shard_tokens", shard_tokens, "an int >= 1")
    folder = Path(folder)
    need(not (folder / CARD).exists(), "folder", folder.name, "a folder without a card.json: this one is finished")
    folder.mkdir(parents=True, exist_ok=True)
    kind = np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")
    held: list[np.ndarray] = []
    shards: list[dict[str, Any]] = []
    count = waiting = 0
    for ids in documents:
        raw = np.asarray(ids, dtype=np.int64).reshape(-1)
        if raw.size and not 0 <= raw.min() <= raw.max() < vocabulary:
            raise NLBookError(
                f"documents: got ids in {raw.min()} .. {raw.max()} in document {count}, expected 0 .. {vocabulary - 1}"
            )
        need(
            not (raw == document).any(),
            "documents",
            f"the document token {document} inside document {count}",
            "ids other than it: it is put before each document",
        )
        held += [np.array([document], kind), raw.astype(kind)]
        count, waiting = count + 1, waiting + 1 + len(raw)
        if waiting >= shard_tokens:
            whole = np.concatenate(held)
            full = waiting - waiting % shard_tokens
            shards += [
                _shard(folder, len(shards) + i, whole[i * shard_tokens : (i + 1) * shard_tokens])
                for i in range(full // shard_tokens)
            ]
            held, waiting = [whole[full:]], waiting - full
    if waiting:
        shards.append(_shard(folder, len(shards), np.concatenate(held)))
    need(count > 0, "documents", "none", "at least one")
    card = {
        "format": FORMAT,
        "dtype": kind.name,
        "vocabulary": vocabulary,
        "document": document,
        "documents": count,
        "tokens": sum(s["tokens"] for s in shards),
        "shards": shards,
        "about": dict(about or {}),
    }
    unfinished = folder / f"{CARD}.part"
    unfinished.write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(unfinished, folder / CARD)
    return folder


def _shard(folder: Path, number: int, ids: np.ndarray) -> dict[str, Any]:
    raw = HEADER.pack(MAGIC, FORMAT, ids.dtype.itemsize) + ids.tobytes()
    name = f"tokens-{number:05}.bin"
    (folder / name).write_bytes(raw)
    return {"file": name, "tokens": len(ids), "sha256": hashlib.sha256(raw).hexdigest()}


# ---- reading ---------------------------------------------------------------------------------------------------------
class Tokens(Sequence[Any]):
    """The tokens of a folder that `write` made, mapped into memory: `len(tokens)`, `tokens[5]`, `tokens[5:9]`.

    Sizes and headers are checked when it is opened. verify: read every shard once and compare it with its SHA-256.
    """

    def __init__(self, folder: str | Path, *, verify: bool = False) -> None:
        self.folder = Path(folder)
        try:
            card = json.loads((self.folder / CARD).read_text(encoding="utf-8"))
            self.vocabulary, self.document = int(card["vocabulary"]), int(card["document"])
            self.documents, self.about = int(card["documents"]), dict(card["about"])
            kind, listed, made = np.dtype(card["dtype"]).newbyteorder("<"), card["shards"], card["format"]
        except FileNotFoundError:
            raise NLBookError(
                f"folder: got {self.folder.name!r} without a {CARD}, expected a folder that "
                f"nlbook.book.data.shards.write has finished"
            ) from None
        except (KeyError, TypeError, ValueError) as e:
            raise NLBookError(
                f"{CARD}: got something that cannot be read ({e!r}), expected the card that write made"
            ) from None
        need(made == FORMAT, f"{CARD}: format", made, f"{FORMAT}, which this nlbook reads")
        need(len(listed) > 0, f"{CARD}: shards", "none", "at least one")
        self.maps = [_open(self.folder / s["file"], s, kind, verify) for s in listed]
        self.starts = [0, *accumulate(len(m) for m in self.maps)]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, at: int | slice) -> Any:  # type: ignore[override]
        """One id, or a slice of step 1 as an int64 tensor; only the pages that it touches are read."""
        if isinstance(at, slice):
            first, last, step = at.indices(len(self))
            need(step == 1, "slice", f"step {step}", "step 1")
            return torch.from_numpy(self._read(first, max(first, last)))
        index = at + len(self) if at < 0 else at
        if not 0 <= index < len(self):
            raise IndexError(f"token: got {at}, expected -{len(self)} .. {len(self) - 1}")
        return int(self._read(index, index + 1)[0])

    def _read(self, first: int, last: int) -> np.ndarray:
        parts, i = [], bisect.bisect_right(self.starts, first) - 1
        while first < last:
            part = self.maps[i][first - self.starts[i] : last - self.starts[i]]
            parts.append(part.astype(np.int64))
            first, i = first + len(part), i + 1
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def take(self, starts: Iterable[int], length: int) -> Windows:
        """The windows of `length` tokens that begin at `starts`."""
        rows = torch.stack([self[s : s + length] for s in starts])
        return Windows(rows, rows == self.document)

    def __repr__(self) -> str:
        return (
            f"Tokens({self.folder.name}: {len(self):,} tokens, {self.documents:,} documents, {len(self.maps)} "
            f"shards, vocabulary {self.vocabulary:,})"
        )


def _open(path: Path, said: Mapping[str, Any], kind: np.dtype, verify: bool) -> np.ndarray:
    need(path.is_file(), path.name, "no such file", f"the shard that {CARD} names")
    want = HEADER.size + kind.itemsize * said["tokens"]
    need(path.stat().st_size == want, path.name, f"{path.stat().st_size} bytes", f"{want}: the file was cut or changed")
    with path.open("rb") as f:
        head = f.read(HEADER.size)
    need(head == HEADER.pack(MAGIC, FORMAT, kind.itemsize), path.name, repr(head), "the header of a shard of this card")
    if verify:
        came = hashlib.sha256(path.read_bytes()).hexdigest()
        need(came == said["sha256"], path.name, f"sha256 {came[:12]}...", f"{said['sha256'][:12]}... as {CARD} says")
    return np.memmap(path, dtype=kind, mode="r", offset=HEADER.size, shape=(said["tokens"],))


# ---- batches ---------------------------------------------------------------------------------------------------------
def _room(tokens: Tokens, batch: int, length: int) -> None:
    need(isinstance(batch, int) and batch >= 1, "batch", batch, "an int >= 1")
    need(isinstance(length, int) and 2 <= length <= len(tokens), "length", length, f"an int in 2 .. {len(tokens)}")


def windows(tokens: Tokens, *, batch: int, length: int, seed: int) -> Callable[[int], Windows]:
    """step -> `batch` windows that begin anywhere, a pure function of (seed, step): what `nlbook.train.train` asks for.

    Windows are drawn with replacement. They carry no state from one step to the next; `stream` does.
    """
    _room(tokens, batch, length)

    def at(step: int) -> Windows:
        g = generator(seed * 1_000_003 + step)
        return tokens.take(torch.randint(len(tokens) - length + 1, (batch,), generator=g).tolist(), length)

    return at


def stream(tokens: Tokens, *, batch: int, length: int) -> Callable[[int], Windows]:
    """step -> the next `length` tokens of `batch` readers that go through the text side by side, each through its own
    part, so that a state can be carried from step to step. Windows of one reader overlap by one token: a model that
    predicts the next token misses none. After its part a reader begins it again.
    """
    _room(tokens, batch, length)
    part = len(tokens) // batch
    steps = (part - 1) // (length - 1)
    need(steps >= 1, "batch, length", (batch, length), f"batch * length of at most {len(tokens)}")

    def at(step: int) -> Windows:
        here = (step % steps) * (length - 1)
        return tokens.take([r * part + here for r in range(batch)], length)

    return at


def in_order(tokens: Tokens, *, length: int, most: int | None = None, batch: int = 16) -> Iterable[Windows]:
    """Windows one after the other over the whole text, for an evaluation that is the same each time. They overlap by
    one token; the rest that fills no window is left out. most: at most so many windows, spread evenly.
    """
    _room(tokens, batch, length)
    need(most is None or most >= 1, "most", most, "an int >= 1, or None")
    starts = list(range(0, len(tokens) - length + 1, length - 1))
    if most is not None and most < len(starts):
        starts = [starts[i * len(starts) // most] for i in range(most)]
    for i in range(0, len(starts), batch):
        yield tokens.take(starts[i : i + batch], length)
