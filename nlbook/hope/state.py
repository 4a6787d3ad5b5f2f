"""The state of a whole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nlbook.tree import Tree


@dataclass
class HopeState(Tree):
    """One (mixer state, CMS state or None) per block, and the number of tokens read."""

    blocks: list[tuple[Any, Any]]
    position: int = 0
