"""nlbook: an executable companion to the paper Nested Learning (Behrouz et al., NeurIPS 2025).

Begin with `nlbook/hope/plain.py`: all of Hope in one file, one token at a time. Every fast form is tested to equal it.
One room holds one idea, and a chapter maps to a room:

    memory      associative memories: objective x learning rule x retention        chapters 01 02 03
    attention   softmax attention and its relatives as memories                    chapter 03
    optim       optimizers as memories of gradients                                chapter 02, appendix A
    levels      update frequency, the faster-than order, traces                    chapter 04
    cms         the continuum memory system                                        chapter 05
    titans      neural memories and self-modifying Titans                          chapter 06
    hope        Hope, Hope-Attention and their baselines; train: one training loop  chapter 07
    paper       the index of the paper's 121 equations, with errata                all chapters
    book        what only the chapters import: pictures, exercises, data, the ledger

Rooms are imported on first use, so that `import nlbook` is fast.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "1.0.0"
__all__ = ["attention", "cms", "errors", "hope", "levels", "memory", "optim", "paper", "titans", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"nlbook.{name}")
    raise AttributeError(f"module 'nlbook' has no attribute {name!r}; its rooms are: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
