"""Sets with the marks of nbgrader, and a course folder around them.

The source notebook of an assignment holds the solutions between `# BEGIN SOLUTION` and `# END SOLUTION` and the private
check between `# BEGIN HIDDEN TESTS` and `# END HIDDEN TESTS`. The folder's nbgrader_config.py says that a stub
is cut as
this book cuts it (a function to be mended keeps its bug), and that submissions are judged in processes of their own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from nlbook.book.check.define import Explain
from nlbook.book.check.source import BEGIN, END, source_of
from nlbook_tools.course import release, tasks
from nlbook_tools.course.release import Sheet
from nlbook_tools.course.tasks import Task

SCHEMA = 3  # of nbgrader's cell metadata
HIDDEN, HIDDEN_END = "# BEGIN HIDDEN TESTS", "# END HIDDEN TESTS"
CONFIG = '''"""Made by `nlbook release`. nbgrader reads it when it is called in this folder."""
from nlbook_tools.course.graders import assignment_steps, autograde_steps

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "nlbook"
c.GenerateAssignment.preprocessors = assignment_steps()      # stubs as the book cuts them
c.Autograde.autograde_preprocessors = autograde_steps()      # each submission judged from outside its process
c.OverwriteCells.add_missing_cells = True                    # a deleted test is put back
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError"}
'''


def marks(kind: str, id: str, points: int = 0) -> dict[str, Any]:
    """nbgrader's metadata of a cell: kind is answer, test, essay (an answer marked by hand) or locked."""
    own: dict[str, Any] = {
        "schema_version": SCHEMA,
        "grade": kind in ("test", "essay"),
        "locked": kind in ("test", "locked"),
        "solution": kind in ("answer", "essay"),
        "task": False,
        "grade_id": {"answer": id, "essay": id, "test": f"{id}-test", "locked": id}[kind],
    }
    return {**own, "points": points} if own["grade"] else own


def mark(made: Sheet) -> None:
    """Give the cells of a set nbgrader's metadata; the cells themselves stay."""
    for task, answer, check in zip(made.tasks, made.answers, made.checks):
        essay = isinstance(task.item, Explain)
        answer.metadata["nbgrader"] = marks("essay" if essay else "answer", task.item.id, task.item.points)
        check.metadata["nbgrader"] = (
            marks("locked", f"{task.item.id}-test") if essay else marks("test", task.item.id, task.item.points)
        )
    for cell in made.nb.cells:
        if cell.id == "course-switch":
            cell.metadata["nbgrader"] = marks("locked", "course-switch")


def student(made: Sheet) -> NotebookNode:
    """The student's notebook with nbgrader's metadata: what `nbgrader generate_assignment` makes of the source."""
    nb = release.student(made)
    mark(made)
    return nb


def source(made: Sheet) -> NotebookNode:
    """The teacher's source notebook: solutions and private checks between their marks."""
    nb = release.student(made)
    for task, answer, check in zip(made.tasks, made.answers, made.checks):
        answer.source = with_markers(task, answer.source, made)
        check.source = f"{check.source}\n{hidden(task, made.seed)}"
    mark(made)
    return nb


def with_markers(task: Task, stub: str, made: Sheet) -> str:
    """The answer cell with its solution between the markers."""
    item = made.item(task)
    if tasks.is_function(item):
        text = source_of(item.solution)  # type: ignore[attr-defined]  # the markers stand in it
        return tasks.with_definition(stub, text, task.name)
    return f"{BEGIN}\n{release.solved(task, stub, item)}\n{END}"


def hidden(task: Task, seed: int) -> str:
    """The lines that the student does not get: the private cases, and the points."""
    if isinstance(task.item, Explain):
        return f"{HIDDEN}\n# marked by hand: {'; '.join(task.item.rubric)}\n{HIDDEN_END}"
    call = f"graded({task.item.id!r}, {task.name}, seed={seed})"
    return f"{HIDDEN}\nfrom nlbook_tools.course import graded\n\n{call}\n{HIDDEN_END}"


def cut_hidden(text: str) -> str:
    """A test cell as the student gets it."""
    kept, inside = [], False
    for line in text.splitlines():
        inside = line.strip() == HIDDEN or inside
        if not inside:
            kept.append(line)
        inside = inside and line.strip() != HIDDEN_END
    return "\n".join(kept)


def folder(out: Path, seeds: dict[str, int]) -> list[Path]:
    """The course folder's own files: nbgrader's settings, and the seed of each assignment."""
    out.mkdir(parents=True, exist_ok=True)
    config, course = out / "nbgrader_config.py", out / "course.json"
    config.write_text(CONFIG, encoding="utf-8", newline="\n")
    kept = json.loads(course.read_text(encoding="utf-8"))["seeds"] if course.exists() else {}
    text = json.dumps({"made_by": "nlbook release", "seeds": {**kept, **seeds}}, indent=1, sort_keys=True)
    course.write_text(text + "\n", encoding="utf-8", newline="\n")
    return [config, course]


def write(path: Path, nb: NotebookNode, kind: str, **facts: Any) -> Path:
    """Write one notebook of a set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(release.finish(nb, kind, **facts), encoding="utf-8", newline="\n")
    return path


__all__ = ["CONFIG", "cut_hidden", "folder", "hidden", "mark", "marks", "source", "student", "write"]
