"""How an entry of the index shows itself: Markdown in a notebook, plain text elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


class Shown:
    """Give a class a notebook display from its `markdown()` and its `__str__`."""

    def markdown(self) -> str:
        raise NotImplementedError

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/markdown": self.markdown(), "text/plain": str(self)}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table. A `|` inside a cell is spelled so that neither the table nor the maths breaks."""

    def cell(x: object) -> str:
        parts = str(x).replace("\n", " ").split("$")
        return "$".join(p.replace("|", r"\vert " if i % 2 else "&#124;") for i, p in enumerate(parts))

    lines = [[cell(h) for h in head], ["---"] * len(head), *([cell(c) for c in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def bad(argument: str, came: object, expected: str) -> Exception:
    """The one error class of nlbook, imported late: looking something up must not load torch."""
    from nlbook.errors import NLBookError

    return NLBookError(f"{argument}: got {came!r}, expected {expected}")
