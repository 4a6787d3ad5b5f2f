"""Minutes of each section of a chapter, from its front matter and its exercises.

The front matter says how long a chapter is read and how long it is worked on. An exercise says its own minutes; what is
left of the working time is shared by the predictions and questions, and the reading time by the length of the text (a
line of code counts as eight words). So the sections add up to the front matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nlbook.book.chapters import files
from nlbook_tools.course import tasks
from nlbook_tools.notebooks import sync
from nlbook_tools.notebooks.contract import words

OPENING = "Opening"
ASKS = ("predict", "choice", "recall")


@dataclass(frozen=True)
class Section:
    """One section: its heading, whole minutes of reading and of work, and the exercises in it."""

    heading: str
    reading: int
    work: int
    exercises: tuple[str, ...] = ()

    @property
    def minutes(self) -> int:
        return self.reading + self.work


@dataclass(frozen=True)
class Chapter:
    """A chapter as a teacher plans with it."""

    number: str
    stem: str
    title: str
    claim: str
    objectives: dict[str, str]
    prerequisites: tuple[str, ...]
    sections: tuple[Section, ...]

    @property
    def minutes(self) -> int:
        return sum(s.minutes for s in self.sections)

    def of(self, headings: tuple[str, ...]) -> int:
        """Minutes of some sections."""
        return sum(s.minutes for s in self.sections if s.heading in headings)


@cache
def read(source: Path) -> Chapter:
    """The chapter of a text source."""
    nb = sync.read_text(source)
    tasks.apart(nb)
    front = nb.metadata["nlbook"]
    found = tasks.tasks(nb)
    at: dict[int, str] = {t.cell: t.item.id for t in found}
    minutes = {t.cell: t.item.minutes for t in found}
    headings, load, work, asks, ids = [OPENING], [0.0], [0.0], [0], [[]]  # type: ignore[var-annotated]
    for i, cell in enumerate(nb.cells):
        heading = re.search(r"^## (.+)$", cell.source, re.M) if cell.cell_type == "markdown" else None
        if heading:
            headings.append(heading[1].strip())
            load.append(0.0)
            work.append(0.0)
            asks.append(0)
            ids.append([])
        if i in at:
            ids[-1].append(at[i])
            work[-1] += minutes[i]
        elif cell.cell_type == "code" and any(tasks.calls(cell.source, name) for name in ASKS):
            asks[-1] += 1
        elif not (cell.cell_type == "code" and tasks.calls(cell.source, "exercise")):
            load[-1] += words(cell.source) if cell.cell_type == "markdown" else 8 * len(cell.source.splitlines())
    rest = max(0.0, front["minutes"]["exercises"] - sum(work)) / max(1, sum(asks))
    reading = whole([x * front["minutes"]["reading"] / (sum(load) or 1) for x in load], front["minutes"]["reading"])
    working = whole([w + a * rest for w, a in zip(work, asks)], front["minutes"]["exercises"])
    sections = [Section(h, r, w, tuple(i)) for h, r, w, i in zip(headings, reading, working, ids)]
    return Chapter(
        str(front["number"]),
        source.stem,
        front["title"],
        front["claim"],
        {o["id"]: o["text"] for o in front["objectives"]},
        tuple(front["prerequisites"]),
        tuple(sections),
    )


def whole(parts: list[float], total: int) -> list[int]:
    """Whole numbers near `parts` that add up to `total`: the largest remainders are rounded up."""
    scale = total / (sum(parts) or 1)
    exact = [p * scale for p in parts]
    down = [int(x) for x in exact]
    order = sorted(range(len(parts)), key=lambda i: (down[i] - exact[i], i))
    for i in order[: total - sum(down)]:
        down[i] += 1
    return down


def chapters(folder: Path) -> list[Chapter]:
    """Every chapter of notebooks/, in order."""
    return [read(p) for p in files(folder / "src", ".md")]
