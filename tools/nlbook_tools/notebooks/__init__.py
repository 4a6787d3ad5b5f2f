"""Notebooks as tests and as built images of their text sources.

run.py       notebooks through papermill, each in a kernel of this interpreter, within its own budgets
kernel.py    that kernel: its environment and the watch over its time and memory; guard/ what its cells may not do
contract.py  what a chapter must be: metadata, tags in order, limits, alt texts, a clean committed form
sync.py      notebooks/src/*.md  <->  notebooks/*.ipynb
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# jsonschema imports rfc3987_syntax, which builds a grammar that nobody here uses: importing nbformat then takes 1.6 s
# of CPU in every process instead of 0.2.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def book_root(start: Path | None = None) -> Path | None:
    """The folder that holds `notebooks/src`, at `start` (default: the working directory) or above it; None if there
    is none."""
    here = (start or Path.cwd()).resolve()
    return next((p for p in (here, *here.parents) if (p / "notebooks" / "src").is_dir()), None)


def write_whole(path: Path, text: str) -> None:
    """Write a file beside itself and rename it: whoever reads it, or stops us, finds the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(aside, path)
