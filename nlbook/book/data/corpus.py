"""Real text with no download: the source of the reader's own Python, and the tokenizers for it.

    made = prepare(folder)                    # {"train": Tokens, "valid": Tokens}, written once, then opened
    tokenizer = load_tokenizer(folder)

The corpus is the standard library of the running Python (its own licence; it is read where it lies and not passed on).
So its bytes depend on the Python version: the card holds the version and a hash, and a result must quote them.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from nlbook.book.data import shards
from nlbook.errors import NLBookError, need

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3", "pydoc_data"}
TOKENIZER = "tokenizer.json"


class File(NamedTuple):
    """One document: its path inside the library, with /, and its text."""

    name: str
    text: str


# ---- text ------------------------------------------------------------------------------------------------------------
def standard_library(root: str | Path | None = None) -> Iterator[File]:
    """The .py files of the running Python's standard library in the order of their names, tests and tables left out.

    root: another folder of .py files. Files that are not UTF-8 are passed over.
    """
    folder = Path(root if root is not None else sysconfig.get_path("stdlib"))
    need(folder.is_dir(), "root", folder.name, "a folder of .py files")
    for path in sorted(folder.rglob("*.py"), key=lambda p: p.relative_to(folder).as_posix()):
        inside = path.relative_to(folder)
        if LEFT_OUT.isdisjoint(inside.parts[:-1]):
            try:
                yield File(inside.as_posix(), path.read_bytes().decode("utf-8").replace("\r\n", "\n"))
            except (UnicodeDecodeError, OSError):
                continue


def is_valid(name: str, one_in: int = 10) -> bool:
    """Whether a file belongs to the validation part: by a hash of its name, so the same in every Python version and
    independent of what else is there."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % one_in == 0


def fingerprint(files: Iterable[File]) -> str:
    """SHA-256 over the names and texts of all files, in order."""
    whole = hashlib.sha256()
    for f in files:
        for part in (f.name, f.text):
            raw = part.encode()
            whole.update(len(raw).to_bytes(8, "big") + raw)
    return whole.hexdigest()


# ---- tokenizers ------------------------------------------------------------------------------------------------------
class Tokenizer(Protocol):
    """Ids 0 .. vocabulary - 1; `document` is the token that begins a document and is never made by `encode`."""

    vocabulary: int
    document: int

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def sizes(self) -> Tensor: ...
    def to_json(self) -> str: ...


class Bytes:
    """UTF-8 bytes 0 .. 255, and 256 for the start of a document: no training, no package, nothing lost."""

    vocabulary, document = 257, 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(int(i) for i in ids if i != self.document).decode(errors="replace")

    def sizes(self) -> Tensor:
        """(vocabulary,) int64: how many bytes of text a token stands for."""
        return torch.tensor([1] * 256 + [0])

    def to_json(self) -> str:
        return json.dumps({"nlbook": "bytes"})


class BytePairs:
    """Byte-level BPE of Hugging Face's `tokenizers`: starts from all 256 bytes, so every text can be encoded and comes
    back unchanged. Needs the extra: pip install 'nlbook[text]'.
    """

    def __init__(self, made: Any) -> None:
        self.made = made
        self.vocabulary, self.document = made.get_vocab_size(), made.token_to_id("<document>")

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int = 1024) -> BytePairs:
        """Learn merges from `texts` until there are `vocabulary` tokens (at least 257)."""
        need(vocabulary >= 257, "vocabulary", vocabulary, "an int >= 257: the bytes and the document token")
        lib = _library()
        made = lib.Tokenizer(lib.models.BPE())
        made.pre_tokenizer = lib.pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = lib.decoders.ByteLevel()
        made.train_from_iterator(
            texts,
            lib.trainers.BpeTrainer(
                vocab_size=vocabulary,
                show_progress=False,
                special_tokens=["<document>"],
                initial_alphabet=lib.pre_tokenizers.ByteLevel.alphabet(),
            ),
        )
        return cls(made)

    @classmethod
    def from_json(cls, text: str) -> BytePairs:
        return cls(_library().Tokenizer.from_str(text))

    def encode(self, text: str) -> list[int]:
        self.made.encode_special_tokens = True  # the letters "<document>" in a text are letters
        return self.made.encode(text).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.made.decode([int(i) for i in ids])

    def sizes(self) -> Tensor:
        """(vocabulary,) int64: how many bytes of text a token stands for. (In byte-level BPE a letter is a byte.)"""
        pieces = [self.made.id_to_token(i) for i in range(self.vocabulary)]
        return torch.tensor([0 if i == self.document else len(p) for i, p in enumerate(pieces)])

    def to_json(self) -> str:
        return self.made.to_str()


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise NLBookError(
            "tokenizers: got no such package, expected it for byte pairs: pip install 'nlbook[text]', or "
            "use bytes (kind='bytes'), which need nothing"
        ) from None
    return tokenizers


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer that `prepare` kept in a folder."""
    path = Path(folder) / TOKENIZER
    need(path.is_file(), "folder", Path(folder).name, f"a folder with a {TOKENIZER}, as prepare makes it")
    text = path.read_text(encoding="utf-8")
    return Bytes() if json.loads(text).get("nlbook") == "bytes" else BytePairs.from_json(text)


# ---- together --------------------------------------------------------------------------------------------------------
def prepare(
    folder: str | Path,
    *,
    kind: str = "bytes",
    vocabulary: int = 1024,
    root: str | Path | None = None,
    most: int | None = None,
    shard_tokens: int = 1 << 22,
) -> dict[str, shards.Tokens]:
    """Tokens of the corpus as {"train": ..., "valid": ...}: written below `folder` the first time, then only opened.

    Args:
        kind: "bytes", or "pairs" (byte pairs, `vocabulary` of them, learned from the training files only).
        root: another folder of .py files than the standard library.
        most: stop each part after the file with which it passes so many bytes (train) or a tenth of it (valid).

    Files go to a part by the hash of their name; no file is in both. The card says which Python, how many files and
    bytes, and a SHA-256 of all of them. A folder that was made with other settings or from other text is refused.
    """
    need(kind in ("bytes", "pairs"), "kind", repr(kind), "'bytes' or 'pairs'")
    folder = Path(folder)
    parts: dict[str, list[File]] = {"train": [], "valid": []}
    room = {"train": most, "valid": None if most is None else most // 10}
    for f in standard_library(root):
        part = "valid" if is_valid(f.name) else "train"
        limit = room[part]
        if limit is None or sum(len(g.text) for g in parts[part]) < limit:
            parts[part].append(f)
    for name, files in parts.items():
        need(len(files) > 0, "root", f"no file for {name}", "enough .py files that each part has one")
    wanted = {name: _about(files, kind, vocabulary) for name, files in parts.items()}
    if not (folder / TOKENIZER).is_file():
        made: Tokenizer = Bytes() if kind == "bytes" else BytePairs.train((f.text for f in parts["train"]), vocabulary)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TOKENIZER).write_text(made.to_json(), encoding="utf-8")
    tokenizer = load_tokenizer(folder)
    out = {}
    for name, files in parts.items():
        if not (folder / name / shards.CARD).is_file():
            shards.write(
                folder / name,
                (tokenizer.encode(f.text) for f in files),
                vocabulary=tokenizer.vocabulary,
                document=tokenizer.document,
                shard_tokens=shard_tokens,
                about=wanted[name],
            )
        out[name] = shards.Tokens(folder / name)
        need(
            out[name].about == wanted[name],
            "folder",
            f"{folder.name}/{name} made from {out[name].about}",
            f"one made from {wanted[name]}, or an empty folder",
        )
    return out


def _about(files: Sequence[File], kind: str, vocabulary: int) -> Mapping[str, Any]:
    return {
        "source": "Python standard library",
        "python": platform.python_version(),
        "files": len(files),
        "bytes": sum(len(f.text.encode()) for f in files),
        "sha256": fingerprint(files),
        "tokenizer": kind,
        **({"vocabulary": vocabulary} if kind == "pairs" else {}),
    }
