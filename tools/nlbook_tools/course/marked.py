"""Sets with the marks of nbgrader, and a course folder around them.

nbgrader keeps the gradebook and writes the pages of feedback. It never opens what students sent: the folder's
nbgrader_config.py points it to judged/, where `nlbook grade` puts notebooks that it has rebuilt, with their points.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from nlbook_tools.course import release
from nlbook_tools.course.release import Sheet

SCHEMA = 3  # of nbgrader's cell metadata
CONFIG = '''"""Made by `nlbook release`. nbgrader reads it when it is called in this folder."""
from nbgrader import preprocessors as steps

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "nlbook"
c.CourseDirectory.source_directory = "release"       # what was handed out: no solutions, no private cases
c.CourseDirectory.release_directory = "registered"
c.CourseDirectory.submitted_directory = "judged"     # rebuilt by `nlbook grade`: never what a student sent
c.GenerateAssignment.preprocessors = [steps.SaveCells]
c.Autograde.sanitize_preprocessors = []
c.Autograde.autograde_preprocessors = [steps.SaveAutoGrades, steps.AssignLatePenalties, steps.CheckCellMetadata]
c.HTMLExporter.sanitize_html = True
'''


def marks(kind: str, id: str, points: int = 0) -> dict[str, Any]:
    """nbgrader's metadata of a cell: kind is answer, test or locked."""
    own: dict[str, Any] = {
        "schema_version": SCHEMA,
        "grade": kind == "test",
        "locked": kind != "answer",
        "solution": kind == "answer",
        "task": False,
        "grade_id": f"{id}-test" if kind == "test" else id,
    }
    return {**own, "points": points} if own["grade"] else own


def student(made: Sheet) -> NotebookNode:
    """The student's notebook with nbgrader's metadata."""
    nb = release.student(made)
    for task, answer, check in zip(made.tasks, made.answers, made.checks):
        answer.metadata["nbgrader"] = marks("answer", task.item.id)
        check.metadata["nbgrader"] = marks("test", task.item.id, task.item.points)
    for cell in made.nb.cells:
        if cell.id == "course-switch":
            cell.metadata["nbgrader"] = marks("locked", "course-switch")
    return nb


def folder(out: Path, seeds: dict[str, int]) -> list[Path]:
    """The course folder's own files: nbgrader's settings, and the seed of each assignment."""
    course = out / "course.json"
    kept = json.loads(course.read_text(encoding="utf-8"))["seeds"] if course.exists() else {}
    text = json.dumps({"made_by": "nlbook release", "seeds": {**kept, **seeds}}, indent=1, sort_keys=True)
    return [put(out / "nbgrader_config.py", CONFIG), put(course, f"{text}\n")]


def put(path: Path, text: str) -> Path:
    """Write a file as a whole: whoever looks sees the old one or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(aside, path)
    return path
