"""One submitted notebook: what of it is run, and what each exercise earns.

Run are, from top to bottom: the imports of the book's own notebook, every answer cell, and every cell that is not the
book's (a helper that a student put in). Demonstrations of the book are not run again. Each exercise has a
process of its
own, so that an answer that hangs or ends its process costs that exercise only.
"""

from __future__ import annotations

import ast
import os
import time
from dataclasses import dataclass, replace
from typing import Any

from nbformat import NotebookNode

from nlbook.book.check.call import OutOfTime, RemoteError
from nlbook.book.check.define import Exercise, FixTheBug, Implement, KernelPuzzle
from nlbook.book.check.judge import judge
from nlbook.book.check.testing import stub_drift
from nlbook.errors import NLBookError
from nlbook_tools.course.apart import Function, Mould, Session
from nlbook_tools.course.exam import find

CELL_SECONDS, IMPORT_SECONDS, ALL_SECONDS = 20.0, 120.0, 600.0
SILENT = {"check", "viz"}  # they draw and praise; an answer does not need them


@dataclass(frozen=True)
class Mark:
    """What one exercise earned: points, of how many, the feedback, and what the teacher should look at."""

    id: str
    points: float
    most: float
    message: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A hidden test: which exercise, which name, which seed; `cell` is its place in the submission."""

    id: str
    name: str
    seed: int
    cell: int


def asked(nb: NotebookNode) -> list[Asked]:
    """The hidden tests of a notebook whose test cells nbgrader has put back."""
    found = []
    for i, cell in enumerate(nb.cells):
        meta = cell.metadata.get("nbgrader", {})
        if cell.cell_type != "code" or not meta.get("grade") or meta.get("solution"):
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "graded":
                seed = next((ast.literal_eval(k.value) for k in node.keywords if k.arg == "seed"), 0)
                found.append(Asked(ast.literal_eval(node.args[0]), ast.unparse(node.args[1]), seed, i))
    return found


def prelude(book: NotebookNode) -> tuple[str, list[str]]:
    """(the book's own imports and settings, the names of what is replaced by a silent stand-in)."""
    lines, silent = [], []
    for cell in book.cells:
        if cell.cell_type != "code" or cell.metadata.get("nbgrader", {}).get("solution"):
            continue
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nlbook":
                rooms = (node.module or "").split(".")[1:2]
                for name in node.names:
                    mute = (rooms[0] if rooms else name.name) in SILENT
                    if mute:
                        silent.append(name.asname or name.name)
                    elif rooms != ["course"]:
                        lines.append(ast.unparse(ast.ImportFrom(node.module, [name], node.level)))
            elif (
                isinstance(node, (ast.Import, ast.ImportFrom))
                or (isinstance(node, ast.Expr) and ast.unparse(node).startswith("torch.set_default_dtype("))
                or (isinstance(node, ast.Assign) and "parameters" in cell.metadata.get("tags", []))
            ):
                lines.append(ast.unparse(node))
    return "\n".join(dict.fromkeys(lines)), silent


def to_run(nb: NotebookNode, book: NotebookNode) -> list[int]:
    """The cells of the submission that are run: answers, and what is not the book's."""
    own = {c.source.strip() for c in book.cells if c.cell_type == "code"}
    return [
        i
        for i, c in enumerate(nb.cells)
        if c.cell_type == "code"
        and c.source.strip()
        and (
            c.metadata.get("nbgrader", {}).get("solution")
            or (c.source.strip() not in own and not c.metadata.get("nbgrader", {}).get("locked"))
        )
    ]


def grade(nb: NotebookNode, book: NotebookNode, mould: Mould) -> list[Mark]:
    """The marks of a submission whose test cells are the book's."""
    setup, silent = prelude(book)
    cells, blamed, marks = to_run(nb, book), dict[int, str](), []
    end = time.monotonic() + ALL_SECONDS
    for test in asked(nb):
        item = find(test.id, test.seed)
        if time.monotonic() > end:
            marks.append(
                Mark(test.id, 0, item.points, f"Not judged: the submission took more than {ALL_SECONDS:.0f} s.")
            )
            continue
        marks.append(one(nb, test, item, [i for i in cells if i < test.cell], setup, silent, blamed, mould))
    return marks


def one(
    nb: NotebookNode,
    test: Asked,
    item: Exercise,
    cells: list[int],
    setup: str,
    silent: list[str],
    blamed: dict[int, str],
    mould: Mould,
) -> Mark:
    """One exercise, in a process of its own."""
    mine = next(
        (
            i
            for i, c in enumerate(nb.cells)
            if c.metadata.get("nbgrader", {}).get("grade_id") == test.id and c.cell_type == "code"
        ),
        None,
    )
    notes = [] if mine is not None else ["the answer cell is gone"]
    sources = [nb.cells[i].source for i in cells]
    notes += library_calls(nb.cells[mine].source if mine is not None else "\n".join(sources), setup)

    def mark(points: float, message: str, seen: list[str]) -> Mark:
        return Mark(test.id, points, item.points, message, tuple(dict.fromkeys([*notes, *seen])))

    if mine is not None and isinstance(item, FixTheBug) and unchanged(item, nb.cells[mine].source):
        return mark(0, "Not tried: the function is as it was handed out.", [])
    while True:
        if mine in blamed:
            return mark(0, f"The answer cell {blamed[mine]}.", [])
        with mould.session() as session:
            session.seconds = IMPORT_SECONDS
            session.ask("run", source=setup)
            session.ask("silence", names=silent)
            fault = run_cells(session, nb, [i for i in cells if i not in blamed], mine, blamed)
            if fault is None:
                continue  # a cell was blamed: once more without it
            if fault:
                return mark(0, f"The answer cell {fault}.", session.notes)
            here = launched(item)
            session.seconds = 1.0 + getattr(here, "seconds", 10.0)
            try:
                verdict = judge(here, session.answer(test.name))
            except RemoteError as told:
                return mark(0, f"Your code raised {told}.", session.notes)
            except OutOfTime:
                return mark(0, "Your code did not answer in time.", session.notes)
            if verdict.status == "not tried" and not verdict.reason:
                return mark(0, verdict.message, session.notes)
            return mark(float(item.points) if verdict.status == "passed" else 0.0, verdict.message, session.notes)


def run_cells(
    session: Session, nb: NotebookNode, cells: list[int], mine: int | None, blamed: dict[int, str]
) -> str | None:
    """Run the cells: "" when all is well, a text when the answer cell fails, None when another one spoiled the
    process.
    """
    session.seconds = CELL_SECONDS
    for i in cells:
        try:
            session.ask("run", source=nb.cells[i].source)
        except OutOfTime:
            blamed[i] = f"was stopped after {CELL_SECONDS:.0f} s"
        except RemoteError as told:
            if i == mine:
                return f"raised {told}" if told.fault != "untried" else "raised NotImplementedError"
            if session._broken:
                blamed[i] = f"raised {told}"
        if i in blamed:
            return None
        if i != mine and nb.cells[i].metadata.get("nbgrader", {}).get("solution"):
            session.notes.clear()  # they belong to the exercise of that cell
    return ""


def unchanged(item: Exercise, source: str) -> bool:
    try:
        return stub_drift(item.id, source) is None
    except (NLBookError, SyntaxError):
        return False


def library_calls(source: str, setup: str) -> list[str]:
    """A note for each thing of the library that an answer uses: allowed, but a teacher may want to see it."""
    rooms = {
        (a.asname or a.name)
        for n in ast.walk(ast.parse(setup))
        if isinstance(n, (ast.Import, ast.ImportFrom))
        for a in n.names
        if (getattr(n, "module", None) or a.name).split(".")[0] in ("nlbook", "nlkernels")
    }
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    used = [
        ast.unparse(n)
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id in rooms
    ]
    used += [
        f"import {getattr(n, 'module', None) or a.name}"
        for n in ast.walk(tree)
        if isinstance(n, (ast.Import, ast.ImportFrom))
        for a in n.names
        if (getattr(n, "module", None) or a.name).split(".")[0] in ("nlbook", "nlkernels")
    ]
    return [f"uses the library: {', '.join(dict.fromkeys(used))}"] if used else []


def launched(item: Exercise) -> Exercise:
    """The exercise with twice its time (a call to another process costs some), and a kernel puzzle with its launch and
    counts over there."""
    if isinstance(item, Implement):
        item = replace(item, seconds=2 * item.seconds * float(os.environ.get("NLBOOK_PATIENCE") or 1))
    if not isinstance(item, KernelPuzzle) or item.launch is None:
        return item
    puzzle: Any = item.launch.__self__  # type: ignore[attr-defined]
    example: Any = item.counter.args  # type: ignore[attr-defined]

    def play(answer: Any, args: tuple[Any, ...]) -> Any:
        return answer.play(puzzle.grid(dict(zip(puzzle.names, args))), args, puzzle.names.index(puzzle.out))

    def launch(answer: Any) -> Any:
        return (lambda *args: play(answer, args)[0]) if isinstance(answer, Function) else puzzle.launch(answer)

    def counter(answer: Any) -> Any:
        return play(answer, example)[1] if isinstance(answer, Function) else puzzle.record(answer, *example).counts

    return replace(item, launch=launch, counter=counter)
