"""Four submissions to try the grading with: one right, one with an answer missing and a wrong number, one that hangs,
and one that cheats.
"""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from nlbook.book.check.source import BEGIN, END
from nlbook.errors import NLBookError
from nlbook_tools.course.bank import Choice
from nlbook_tools.course.exam import find
from nlbook_tools.course.grade import assignments
from nlbook_tools.course.tasks import is_function

NAMES = ("ada", "ben", "cem", "dan")

STOLEN = "from nlbook.book import check\n    return check.solution({id!r})(*arguments)"


def answers(nb: NotebookNode) -> dict[str, NotebookNode]:
    """The answer cells of a notebook by exercise."""
    return {c.metadata.nbgrader.grade_id: c for c in nb.cells if c.metadata.get("nbgrader", {}).get("solution")}


def make(course: Path, assignment: str) -> dict[str, float]:
    """Write submitted/ada, ben, cem and dan, and say how many points each should get.

    ada has everything right; ben left the first function as it was handed out and answers the first number
    wrongly; cem's first function never returns; dan's asks the book for its solution, and he gives himself points.

    Raises:
        NLBookError: no such assignment in the folder.
    """
    if assignment not in assignments(course):
        raise NLBookError(f"assignment: got {assignment!r}, expected one of {', '.join(assignments(course))}")
    seed = json.loads((course / "course.json").read_text(encoding="utf-8"))["seeds"][assignment]
    points = dict.fromkeys(NAMES, 0.0)
    function_seen = number_seen = False
    for path in sorted((course / "source" / assignment).glob("*.ipynb")):
        solved = answers(nbformat.read(path, 4))
        sheets = {name: nbformat.read(course / "release" / assignment / path.name, 4) for name in NAMES}
        for id, cell in solved.items():
            item = find(id, seed)
            function = is_function(item)
            first = function and not function_seen
            wrong = not function and not isinstance(item, Choice) and not number_seen
            function_seen, number_seen = function_seen or function, number_seen or wrong
            for name, nb in sheets.items():
                mine = answers(nb)[id]
                if name == "ben" and first:
                    continue
                right = not ((name == "ben" and wrong) or (name in ("cem", "dan") and first))
                points[name] += item.points * right
                mine.source = unmarked(cell.source)
                if name == "ben" and wrong:
                    mine.source = "answer = -123456.0"
                if name in ("cem", "dan") and first:
                    body = "while True:\n        pass" if name == "cem" else STOLEN.format(id=id)
                    name_of = item.solution.__name__  # type: ignore[attr-defined]
                    mine.source = f"def {name_of}(*arguments):\n    {body}"
        for cell in sheets["dan"].cells:
            if cell.metadata.get("nbgrader", {}).get("grade"):
                cell.source, cell.metadata.nbgrader["points"] = "100.0", 100
        for name, nb in sheets.items():
            place = course / "submitted" / name / assignment
            place.mkdir(parents=True, exist_ok=True)
            nbformat.write(nb, place / path.name)
    return points


def unmarked(source: str) -> str:
    """A solved cell without the marks."""
    return "\n".join(line for line in source.splitlines() if line.strip() not in (BEGIN, END))
