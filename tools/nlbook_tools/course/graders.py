"""nbgrader's steps, as this book takes them: stubs as the book cuts them, submissions judged from outside.

Imported by a course folder's nbgrader_config.py; needs nbgrader (`pip install nbgrader`, or the extra `course`).
"""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader import preprocessors as steps
from nbgrader.preprocessors import NbGraderPreprocessor

from nlbook.errors import NLBookError
from nlbook_tools.course import tasks
from nlbook_tools.course.apart import Mould
from nlbook_tools.course.exam import find
from nlbook_tools.course.marked import cut_hidden
from nlbook_tools.course.submission import Mark, asked, grade

KEPT = "nlbook_marks"  # where the marks lie in a judged notebook's metadata
_mould: list[Mould] = []


def mould() -> Mould:
    """One worker for all submissions of a run."""
    if not _mould:
        _mould.append(Mould())
        atexit.register(_mould[0].close)
    return _mould[0]


class Stubs(NbGraderPreprocessor):
    """Replace each solution by the exercise's stub. nbgrader's own step knows one stub for all; a function to be mended
    must keep its bug, and an answer that is a number starts as None."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        seeds = {test.id: test.seed for test in asked(nb)}
        for cell in nb.cells:
            meta = cell.metadata.get("nbgrader", {})
            if meta.get("solution"):
                item = find(meta["grade_id"], seeds.get(meta["grade_id"], 0))
                stub = item.stub_source()
                if tasks.is_function(item):
                    stub = tasks.with_definition(cell.source, stub, item.solution.__name__)  # type: ignore[attr-defined]
                cell.source = stub.rstrip("\n")
        return nb, resources


class Judge(NbGraderPreprocessor):
    """Instead of running the submission here: judge it apart, and leave points or feedback under each test."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        told = resources["nbgrader"]
        root = Path(os.environ.get("NLBOOK_COURSE") or ".")
        source = root / "source" / told["assignment"] / f"{told['notebook']}.ipynb"
        if not source.is_file():
            raise NLBookError(
                f"grading: got no {source}, expected the course folder's source notebook; start nbgrader there"
            )
        book = nbformat.read(source, 4)
        book.cells = [*book.cells]
        for cell in list(book.cells):  # the student's copies have no hidden lines
            if cell.cell_type == "code" and (short := cut_hidden(cell.source)) != cell.source:
                book.cells.append(nbformat.v4.new_code_cell(short))
        marks = grade(nb, book, mould())
        show(nb, {f"{m.id}-test": m for m in marks})
        nb.metadata[KEPT] = [
            {"id": m.id, "points": m.points, "of": m.most, "feedback": m.message, "notes": list(m.notes)} for m in marks
        ]
        return nb, resources


def show(nb: NotebookNode, marks: dict[str, Mark]) -> None:
    """The outputs from which nbgrader reads points (a number) and feedback (an error)."""
    for cell in nb.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        mark = marks.get(cell.metadata.get("nbgrader", {}).get("grade_id", ""))
        if mark is None:
            continue
        if mark.points > 0:
            cell.outputs = [
                new_output("stream", name="stdout", text=f"{mark.message}\n"),
                new_output("execute_result", data={"text/plain": repr(mark.points)}, execution_count=1),
            ]
        else:
            cell.outputs = [new_output("error", ename="NotYet", evalue=mark.message, traceback=[mark.message])]


def assignment_steps() -> list[type]:
    """What `nbgrader generate_assignment` does to a source notebook."""
    return [
        steps.IncludeHeaderFooter,
        steps.LockCells,
        Stubs,
        steps.ClearOutput,
        steps.CheckCellMetadata,
        steps.ComputeChecksums,
        steps.SaveCells,
        steps.ClearHiddenTests,
        steps.ClearMarkScheme,
        steps.ComputeChecksums,
        steps.CheckCellMetadata,
    ]


def autograde_steps() -> list[type]:
    """What `nbgrader autograde` does to a submission whose test cells were put back."""
    return [
        Judge,
        steps.IgnorePattern,
        steps.LimitOutput,
        steps.SaveAutoGrades,
        steps.AssignLatePenalties,
        steps.CheckCellMetadata,
    ]
