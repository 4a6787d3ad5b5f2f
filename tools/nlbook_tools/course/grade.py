"""A folder of submissions: each is read, judged in a sandbox, rebuilt for nbgrader, and a row of grades.csv."""

from __future__ import annotations

import contextlib
import copy
import csv
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_output

from nlbook.errors import NLBookError
from nlbook_tools.course import fence, handed
from nlbook_tools.course.box import Box, boxes
from nlbook_tools.course.handed import Part, Refused
from nlbook_tools.course.judged import Mark, marks
from nlbook_tools.course.marked import put

LETTERS = 20_000  # of an answer that nbgrader and its pages get to see


@dataclass
class Row:
    """One student in one assignment. `state` is "graded", or why there is no grade."""

    assignment: str
    student: str
    of: float
    marks: list[Mark] = field(default_factory=list)
    state: str = "graded"

    @property
    def points(self) -> float:
        return sum(m.points for m in self.marks)


@dataclass(frozen=True)
class Course:
    """A course folder made by `nlbook release`."""

    folder: Path

    def assignments(self) -> list[str]:
        found = sorted(p.name for p in (self.folder / "release").glob("*") if p.is_dir())
        if not (self.folder / "nbgrader_config.py").is_file() or not found:
            raise NLBookError(
                f"course: got {self.folder}, expected a folder made by `nlbook release ... --out {self.folder}`"
            )
        return found

    def chosen(self, only: Sequence[str] = ()) -> list[str]:
        """The assignments named, or all."""
        every = self.assignments()
        if unknown := [a for a in only if a not in every]:
            raise NLBookError(f"assignment: got {unknown[0]!r}, expected one of {', '.join(every)}")
        return list(only) or every

    def seed(self, assignment: str) -> int:
        return json.loads((self.folder / "course.json").read_text(encoding="utf-8"))["seeds"][assignment]

    def released(self, assignment: str) -> dict[str, NotebookNode]:
        """The notebooks that were handed out, by file name."""
        paths = sorted((self.folder / "release" / assignment).glob("*.ipynb"))
        return {p.name: nbformat.read(p, 4) for p in paths}

    def students(self, assignment: str) -> list[str]:
        """Who handed in: submitted/STUDENT/ASSIGNMENT is there, whatever it is."""
        return sorted(p.parent.name for p in (self.folder / "submitted").glob(f"*/{assignment}"))

    def nbgrader(self, *words: str) -> str:
        """Call nbgrader in the folder; what it said where it failed. It looks for `alembic` on PATH: so this Python's
        folder comes first there."""
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
        done = subprocess.run(
            [sys.executable, "-c", "from nbgrader.apps.nbgraderapp import main; main()", *words, "--force"],
            cwd=self.folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stderr if done.returncode else ""


def grade(
    course: Path,
    only: Sequence[str] = (),
    *,
    feedback: bool = False,
    trusted: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Grade every submission of every assignment (or of `only`), and write grades.csv into the folder.

    Raises:
        NLBookError: nbgrader or the sandbox is missing, or the folder is no course. A submission that cannot be graded
        is a row with its reason and no points; the others go on.
    """
    if os.name != "posix":
        raise NLBookError("grading: got a Windows machine, expected Linux or macOS (WSL and a container do)")
    if importlib.util.find_spec("nbgrader") is None:
        raise NLBookError(
            "nbgrader: got no such package, expected the extra for teachers: pip install 'nlbook[course]' "
            "(in a clone: make course)"
        )
    mine, rows = Course(course), list[Row]()
    wanted = [a for a in mine.chosen(only) if mine.students(a)]
    if not wanted:
        raise NLBookError(
            f"submissions: got none in {course / 'submitted'}, expected submitted/STUDENT/ASSIGNMENT/NOTEBOOK.ipynb"
        )
    (course / "grades.csv").unlink(missing_ok=True)  # an old mark is never shown as a new one
    with fence.shelf() as room:
        if not trusted:
            fence.need_walls(room, course)
        with boxes(room, trusted) as start:
            for assignment in wanted:
                rows += batch(mine, assignment, start, say)
    for assignment in wanted:
        record(mine, assignment, [r for r in rows if r.assignment == assignment], feedback, say)
    put(course / "grades.csv", table(rows))
    return rows


def batch(course: Course, assignment: str, start: Callable[[], Box], say: Callable[[str], None]) -> list[Row]:
    """The rows of one assignment; what an earlier run left is removed first."""
    for name in ("judged", "autograded", "feedback"):
        for old in (course.folder / name).glob(f"*/{assignment}"):
            shutil.rmtree(old)
    rows = []
    for student in course.students(assignment):
        rows.append(one(course, assignment, student, start))
        say(told(rows[-1]))
    return rows


def one(course: Course, assignment: str, student: str, start: Callable[[], Box]) -> Row:
    """One student's row; the rebuilt notebooks lie in judged/ then."""
    out, seed = course.released(assignment), course.seed(assignment)
    most = [c.metadata.get("nbgrader", {}).get("points", 0) for nb in out.values() for c in nb.cells]
    row = Row(assignment, student, sum(most))
    rebuilt = {}
    try:
        found = handed.notebooks(course.folder / "submitted" / student / assignment, list(out))
        if not found:
            raise Refused("there is no notebook in the folder")
        for name, nb in out.items():
            path, notes = found.get(name, (None, [f"{name} was not handed in"]))
            parts = handed.match(nb, handed.read(path), seed) if path else handed.parts(nb, seed)
            for part in parts[:1]:
                part.notes += notes
            got = marks(parts, nb, start)
            row.marks += got
            rebuilt[name] = nbformat.writes(rebuild(nb, parts, got), 4)
    except Exception as reason:  # whatever is wrong with it, the others go on
        row.state, row.marks = f"not graded: {reason or type(reason).__name__}", []
        return row
    for name, text in rebuilt.items():
        put(course.folder / "judged" / known_as(student) / assignment / name, text)
    return row


def known_as(student: str) -> str:
    """A student's name where nbgrader sees it: of letters that mean nothing to a pattern, a page or a sheet."""
    plain = re.sub(r"[^A-Za-z0-9_@-]+", "-", student)
    return plain if plain == student else f"{plain[:60]}.{hashlib.sha256(os.fsencode(student)).hexdigest()[:8]}"


def rebuild(out: NotebookNode, parts: list[Part], got: list[Mark]) -> NotebookNode:
    """The notebook that was handed out, with the answers in their places and the points under each test: nbgrader reads
    a number as points and an error as none."""
    nb, marked = copy.deepcopy(out), {f"{m.id}-test": m for m in got}
    answers = {p.id: p.answer[:LETTERS] for p in parts if p.answer.strip()}
    for cell in nb.cells:
        id = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        cell.source = answers.get(id, cell.source)
        if mark := marked.get(id):
            text = printable("\n".join([mark.message, *(f"Note: {n}" for n in mark.notes)]))
            points = {"data": {"text/plain": repr(mark.points)}, "execution_count": 1}
            cell.outputs = [
                new_output("stream", name="stdout", text=f"{text}\n"),
                new_output("execute_result", **points),
            ]
    return nb


def record(course: Course, assignment: str, rows: list[Row], feedback: bool, say: Callable[[str], None]) -> None:
    """Tell nbgrader: the assignment, the points, and that a submission that was not graded has none."""
    refused = [known_as(r.student) for r in rows if r.state != "graded"]
    said = course.nbgrader("generate_assignment", assignment)
    if len(refused) < len(rows):
        said += course.nbgrader("autograde", assignment)
        said += course.nbgrader("generate_feedback", assignment) if feedback else ""
    if said:
        say(printable(f"nbgrader did not keep all of this in its gradebook: {said.strip().splitlines()[-1]}"))
    if refused:
        from nbgrader.api import Gradebook, MissingEntry

        with Gradebook(f"sqlite:///{course.folder / 'gradebook.db'}", "nlbook") as book:
            for student in refused:
                with contextlib.suppress(MissingEntry):
                    book.remove_submission(assignment, student)
    for row in rows:
        if feedback and row.state != "graded":
            put(
                course.folder / "feedback" / known_as(row.student) / assignment / "not_graded.txt",
                f"{printable(row.state)}\n",
            )


# -- what the teacher reads


def printable(text: str) -> str:
    """A text without what a terminal would obey: escapes, and marks that turn the direction of writing."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def told(row: Row) -> str:
    """A row as text, with the reason for each lost point."""
    lines = [
        f"{row.assignment}  {row.student}  {row.points:g} of {row.of:g}"
        + (f"  ({row.state})" if row.state != "graded" else "")
    ]
    lines += [f"    {m.id}: {m.message}" for m in row.marks if not m.points]
    lines += [f"    look at {m.id}: {n}" for m in row.marks for n in m.notes]
    return "\n".join(printable(line.replace("\n", " ")) for line in lines)


def table(rows: list[Row]) -> str:
    """grades.csv: a line a student and assignment, a column an exercise, what to look at, and why points were lost."""
    ids, text = list(dict.fromkeys(m.id for r in rows for m in r.marks)), io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["assignment", "student", "points", "of", *ids, "state", "look at", "lost"])
    for r in rows:
        points = {m.id: f"{m.points:g}" for m in r.marks}
        noted = "; ".join(f"{m.id}: {n}" for m in r.marks for n in m.notes)
        lost = "; ".join(f"{m.id}: {m.message}" for m in r.marks if not m.points)
        total = f"{r.points:g}" if r.state == "graded" else ""
        each = [points.get(i, "") for i in ids]
        out.writerow(
            [r.assignment, harmless(r.student), total, f"{r.of:g}", *each, *map(harmless, (r.state, noted, lost))]
        )
    return text.getvalue()


def harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = printable(" ".join(text.split()))
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
