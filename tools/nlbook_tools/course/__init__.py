"""A course from one source: the chapters and their exercises become sets for students, solutions and teacher's notes.

tasks.py      the exercises of a notebook: which cell is answered, which cell checks
variants.py   another instance of a question that ends in a number, from a seed
release.py    student, solution and instructor notebooks from notebooks/src/*.md
marked.py     the same with the marks of nbgrader, and a course folder around it
otter.py      the same with the cells of otter-grader
notes.py      what a teacher reads: minutes, misconceptions, expected wrong answers and what the book says to them
apart.py      a submission is run in processes of its own (worker.py) and judged here
grade.py      a whole folder of submissions, through nbgrader
plans.py      syllabi and sessions; docs.py makes the tables of notebooks/teaching
bank.py       the twenty items of the exam, made from a seed; exam.py its notebook and its key
"""

from __future__ import annotations

import os
from typing import Any

from nlbook.errors import NLBookError

__all__ = ["graded"]


def graded(id: str, answer: Any = None, *, seed: int = 0, score: int | None = None) -> float:
    """The points that an answer earns on the private cases of `seed`; what a hidden test calls.

    Raises:
        AssertionError: it earns none; the text is the feedback.
    """
    from nlbook.book.check.judge import judge
    from nlbook_tools.course.exam import find

    item = find(id, seed)
    verdict = judge(item, answer, score)
    if verdict.status != "passed":
        raise AssertionError(f"{id}: {verdict.message}")
    return float(item.points)


def need_posix() -> None:
    """Grading forks processes and limits them: Linux and macOS can, Windows cannot."""
    if os.name != "posix":
        raise NLBookError("grading: got a Windows machine, expected Linux or macOS (WSL and a container do)")
