"""The data files that come with the book: where they lie, and whether they are what their checksums say."""

from __future__ import annotations

import hashlib
from pathlib import Path


def _bad(message: str) -> Exception:
    from nlbook.errors import NLBookError  # late: looking a file up must not load torch

    return NLBookError(message)


def folder() -> Path:
    """data/ of the checkout, or nlbook/_data of an installed package."""
    package = Path(__file__).resolve().parents[2]
    for place in (package.parent / "data", package / "_data"):
        if (place / "checksums.txt").is_file():
            return place
    raise _bad("data: neither data/ nor nlbook/_data found beside the package; reinstall nlbook or use a checkout")


def checksums() -> dict[str, str]:
    """File name -> SHA-256, as data/checksums.txt lists them."""
    lines = (folder() / "checksums.txt").read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines if line.strip())}


def path(name: str) -> Path:
    """The path of one data file, checked against its SHA-256; NLBookError if it is unknown, missing or changed."""
    known = checksums()
    if name not in known:
        raise _bad(f"name: got {name!r}, expected one of {', '.join(sorted(known))}")
    file, mend = folder() / name, f"get it back with `git checkout -- data/{name}`, or reinstall nlbook"
    if not file.is_file():
        raise _bad(f"{name}: not found in {folder().name}/; {mend}")
    came = hashlib.sha256(file.read_bytes()).hexdigest()
    if came != known[name]:
        raise _bad(
            f"{name}: got sha256 {came[:12]}..., expected {known[name][:12]}... (checksums.txt): the file was "
            f"changed or cut off; {mend}"
        )
    return file
