"""Questions that are drawn from a seed: reading exam.yaml and variants.yaml. The files say how they are written."""

from __future__ import annotations

import hashlib
import math
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from nlbook.book.check.define import Draw


@cache
def read(name: str) -> Any:
    """One of the two files."""
    return yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def number_of(seed: int, id: str) -> int:
    """A seed for one exercise from the seed of the set: exercises do not share their cases."""
    return int.from_bytes(hashlib.sha256(f"nlbook:{seed}:{id}".encode()).digest()[:4], "big")


def facts(view: str) -> dict[str, float]:
    """The numbers of a picture."""
    from nlbook.book import viz

    return dict(viz.find(view.partition(":")[0]).facts(view))


class Drawn:
    """One instance of a question: what was drawn, and what expressions and texts come to with it."""

    def __init__(self, question: dict[str, Any], d: Draw) -> None:
        self.names: dict[str, Any] = {"d": d, "math": math, "facts": facts}
        for name, expression in question.get("draw", {}).items():
            self.names[name] = self.value(expression)

    def value(self, expression: Any) -> Any:
        """What an expression of these files comes to."""
        return eval(str(expression), self.names)

    def text(self, words: str) -> str:
        return words.format(**self.names)
