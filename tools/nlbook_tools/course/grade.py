"""A folder of submissions through nbgrader, and the grades as a table.

nbgrader keeps the gradebook, the history and the feedback pages; what an answer is worth is found by this book's judge,
outside the submission's process (apart.py).
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from nlbook.errors import NLBookError
from nlbook_tools.course import need_posix

KEPT = "nlbook_marks"


@dataclass
class Row:
    """One student in one assignment. `state` is "graded", or why there is no grade."""

    assignment: str
    student: str
    points: float = 0.0
    of: float = 0.0
    state: str = "graded"
    by_exercise: dict[str, float] = field(default_factory=dict)
    feedback: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def need_nbgrader() -> None:
    if importlib.util.find_spec("nbgrader") is None:
        raise NLBookError(
            "nbgrader: got no such package, expected the extra for teachers: pip install 'nlbook[course]' "
            "(in a clone: make course)"
        )


def assignments(course: Path) -> list[str]:
    """The assignments of a course folder, by name."""
    found = sorted(p.name for p in (course / "source").glob("*") if p.is_dir())
    if not (course / "nbgrader_config.py").is_file() or not found:
        raise NLBookError(f"course: got {course}, expected a folder made by `nlbook release ... --out {course}`")
    return found


def students(course: Path, assignment: str) -> list[str]:
    """Who handed in: submitted/STUDENT/ASSIGNMENT/ is there."""
    return sorted(p.parent.name for p in (course / "submitted").glob(f"*/{assignment}") if p.is_dir())


def nbgrader(course: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Call nbgrader in the course folder. It looks for `alembic` on PATH, so this Python's folder comes first there."""
    here = os.path.dirname(sys.executable)
    env = {
        **os.environ,
        "PATH": os.pathsep.join([here, os.environ.get("PATH", "")]),
        "NLBOOK_COURSE": str(course.resolve()),
    }
    return subprocess.run(
        [sys.executable, "-c", "from nbgrader.apps.nbgraderapp import main; main()", *words],
        cwd=course,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def register(course: Path, assignment: str) -> None:
    """Tell the gradebook what the assignment is. The copies for students stay as `nlbook release` wrote them."""
    done = nbgrader(
        course, "generate_assignment", assignment, "--force", "--CourseDirectory.release_directory=registered"
    )
    if done.returncode:
        raise NLBookError(
            f"nbgrader: generate_assignment failed for {assignment!r}, expected it to take the source notebook:\n"
            f"{done.stderr[-1500:]}"
        )


def grade(course: Path, only: list[str] | None = None, feedback: bool = False) -> list[Row]:
    """Grade every submission of every assignment (or of `only`), and write grades.csv into the folder.

    Raises:
        NLBookError: nbgrader is missing, or the folder is no course. A submission that cannot be graded is a row with
        its reason and no points; the others go on.
    """
    need_posix()
    need_nbgrader()
    rows = []
    for assignment in only or assignments(course):
        if assignment not in assignments(course):
            raise NLBookError(f"assignment: got {assignment!r}, expected one of {', '.join(assignments(course))}")
        register(course, assignment)
        if not students(course, assignment):
            continue
        said = nbgrader(course, "autograde", assignment, "--force")
        if feedback:
            nbgrader(course, "generate_feedback", assignment, "--force")
        rows += [row(course, assignment, student, said.stderr) for student in students(course, assignment)]
    if not rows:
        raise NLBookError(
            f"submissions: got none in {course / 'submitted'}, expected submitted/STUDENT/ASSIGNMENT/NOTEBOOK.ipynb"
        )
    write(rows, course / "grades.csv")
    return rows


def row(course: Path, assignment: str, student: str, said: str) -> Row:
    """One student's marks, from the judged copy."""
    most = {
        id: of
        for notebook in sorted((course / "source" / assignment).glob("*.ipynb"))
        for id, of in worth(notebook).items()
    }
    made = Row(assignment, student, of=sum(most.values()), by_exercise=dict.fromkeys(most, 0.0))
    found = sorted((course / "autograded" / student / assignment).glob("*.ipynb"))
    if not found:
        reason = [line for line in said.splitlines() if "ERROR" in line and student in line]
        made.state = (
            f"not graded: {reason[0].split('] ')[-1].strip()[:200]}"
            if reason
            else "not graded: it cannot be read as a notebook"
        )
        return made
    for path in found:
        for mark in json.loads(path.read_text(encoding="utf-8"))["metadata"].get(KEPT, []):
            made.by_exercise[mark["id"]] = mark["points"]
            made.feedback[mark["id"]] = mark["feedback"]
            made.notes += [f"{mark['id']}: {n}" for n in mark["notes"]]
    made.points = sum(made.by_exercise.values())
    return made


def worth(notebook: Path) -> dict[str, float]:
    """Points by exercise of a source notebook; an essay, which a person marks, is not among them."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    marks = [c["metadata"]["nbgrader"] for c in cells if "nbgrader" in c["metadata"]]
    return {m["grade_id"].removesuffix("-test"): float(m["points"]) for m in marks if m["grade"] and not m["solution"]}


def write(rows: list[Row], path: Path) -> None:
    """grades.csv: a line a student and assignment, a column an exercise, and what to look at."""
    ids = list(dict.fromkeys(id for r in rows for id in r.by_exercise))
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["assignment", "student", "points", "of", *ids, "state", "look at"])
        for r in rows:
            each = [f"{r.by_exercise[i]:g}" if i in r.by_exercise else "" for i in ids]
            out.writerow([r.assignment, r.student, f"{r.points:g}", f"{r.of:g}", *each, r.state, "; ".join(r.notes)])


def told(rows: list[Row]) -> str:
    """The grades as text, with the feedback on what earned nothing."""
    lines = []
    for r in rows:
        lines.append(
            f"{r.assignment}  {r.student}  {r.points:g} of {r.of:g}" + (f"  ({r.state})" if r.state != "graded" else "")
        )
        lines += [
            f"    {id}: {r.feedback.get(id, 'no answer found')}"
            for id, points in r.by_exercise.items()
            if not points and r.state == "graded"
        ]
        lines += [f"    look at {n}" for n in r.notes]
    return "\n".join(lines)
