"""Four submissions to try the grading with: one right, one with an answer missing and a wrong number, one that hangs,
and one that cheats.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from nlbook_tools.course.bank import Choice
from nlbook_tools.course.exam import find
from nlbook_tools.course.grade import Course
from nlbook_tools.course.handed import parts
from nlbook_tools.course.release import solved
from nlbook_tools.course.tasks import is_function

NAMES = ("ada", "ben", "cem", "dan")
STOLEN = "from nlbook.book import check\n    return check.solution({id!r})(*arguments)"


def answers(nb: NotebookNode) -> dict[str, NotebookNode]:
    """The answer cells of a notebook by exercise."""
    return {c.metadata.nbgrader.grade_id: c for c in nb.cells if c.metadata.get("nbgrader", {}).get("solution")}


def make(folder: Path, assignment: str) -> dict[str, float]:
    """Write submitted/ada, ben, cem and dan, and say how many points each should get.

    ada has everything right; ben left the first function as it was handed out and answers the first number
    wrongly; cem's first function never returns; dan's asks the book for its solution, and he gives himself points.

    Raises:
        NLBookError: no such assignment in the folder.
    """
    course = Course(folder)
    (assignment,) = course.chosen([assignment])
    seed, points = course.seed(assignment), dict.fromkeys(NAMES, 0.0)
    function_seen = number_seen = False
    for file in course.released(assignment):
        sheets = {name: course.released(assignment)[file] for name in NAMES}
        for part in parts(sheets["ada"], seed):
            item = find(part.id, seed)
            function = is_function(item)
            first = function and not function_seen
            wrong = not function and not isinstance(item, Choice) and not number_seen
            function_seen, number_seen = function_seen or function, number_seen or wrong
            for name, nb in sheets.items():
                mine = answers(nb)[part.id]
                right = not ((name == "ben" and (wrong or first)) or (name in ("cem", "dan") and first))
                points[name] += item.points * right
                if right:
                    mine.source = solved(item, mine.source, part.name)
                elif name in ("cem", "dan"):
                    body = "while True:\n        pass" if name == "cem" else STOLEN.format(id=part.id)
                    mine.source = f"def {part.name}(*arguments):\n    {body}"
                elif wrong:
                    mine.source = "answer = -123456.0"
        for cell in sheets["dan"].cells:
            if cell.metadata.get("nbgrader", {}).get("grade"):
                cell.source, cell.metadata.nbgrader["points"] = "100.0", 100
        for name, nb in sheets.items():
            place = folder / "submitted" / name / assignment
            place.mkdir(parents=True, exist_ok=True)
            nbformat.write(nb, place / file)
    return points
