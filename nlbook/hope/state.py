"""The state of a whole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nlbook.tree import Tree


@dataclass
class HopeState(Tree):
    """What each block carries, the documents that have ended in each sequence (batch,), the number of tokens read; of
    several blocks, the tokens (batch, rows - 1) after all waiting rows but the last.
    """

    blocks: list[Any]
    documents: Tensor
    position: int = 0
    unheard: Tensor | None = None
