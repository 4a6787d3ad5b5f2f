"""Notebooks as tests and as built images of their text sources.

run.py        one notebook through papermill, in a kernel of this interpreter, within its own budgets; failures in a
few lines kernel.py     that kernel: its environment, its guard against the network, and the watch over its time and
memory contract.py   what a chapter must be: metadata, tags in order, limits, alt texts, a clean committed form
sync.py       notebooks/src/*.md  <->  notebooks/*.ipynb
pool.py       many notebooks, in parallel processes
"""

from __future__ import annotations

import sys
from pathlib import Path

# jsonschema imports rfc3987_syntax, which builds a grammar that nobody here uses: 2 s of CPU in every process.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def book_root(start: Path | None = None) -> Path | None:
    """The folder that holds `notebooks/src`, at `start` (default: the working directory) or above it; None if there
    is none."""
    here = (start or Path.cwd()).resolve()
    return next((p for p in (here, *here.parents) if (p / "notebooks" / "src").is_dir()), None)
