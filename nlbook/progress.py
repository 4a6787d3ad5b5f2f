"""One progress bar for all long work: visible to a person, silent in everything that is kept.

A bar shows times, and times differ from run to run, so a committed notebook must not contain one. NLBOOK_QUIET=1 turns
it off, and so does tqdm's own TQDM_DISABLE=1, which the notebook runner sets for its kernels.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def quiet() -> bool:
    """Whether progress is silent here: it was turned off, or there is no terminal and no notebook to show it."""
    if any(os.environ.get(name, "") not in ("", "0") for name in ("NLBOOK_QUIET", "TQDM_DISABLE")):
        return True
    return not (_in_notebook() or sys.stderr.isatty())


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")


def progress(iterable: Iterable[T], total: int | None = None, label: str = "") -> Iterator[T]:
    """Iterate with a bar. `total` is needed only where `iterable` has no length; `label` stands before the bar.

    >>> list(progress(range(3), label="training"))
    [0, 1, 2]
    """
    if quiet():
        yield from iterable
        return
    from tqdm.auto import tqdm

    yield from tqdm(iterable, total=total, desc=label or None, leave=False, dynamic_ncols=True)
