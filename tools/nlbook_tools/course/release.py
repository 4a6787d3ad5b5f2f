"""Sets for a class from notebooks/src/*.md: what students get, the same with every exercise solved, and with notes.

A student's notebook has no output, no solution and no private case: its stubs raise NotImplementedError, its checks use
the book's public cases. The same chapters, seed and sessions give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from nlbook.book.chapters import files
from nlbook.book.check.define import Estimate, Exercise
from nlbook.errors import NLBookError
from nlbook_tools.course import tasks as find
from nlbook_tools.course.tasks import Task
from nlbook_tools.course.variants import listed, private
from nlbook_tools.notebooks import sync

LINK = re.compile(r"\[([^\]]+)\]\((\d\d|[A-Z])_[a-z0-9_]+\.ipynb\)")
FRONT = """> **A set for a class.** Write your answers into the exercise cells, and helpers that an answer needs into
> the same cell. Run the check below it as often as you like; hints are in its folds, solutions are with your
> teacher. Leave the other cells as they are, save, and hand this file in under its name. How many points an
> answer earned is found with cases that are not in this file."""
SOLVED = "> **Solutions.** Every exercise of this chapter, solved. Not for handing out before the set is handed in."


@dataclass
class Sheet:
    """One notebook in the making, with its exercises; `answers[i]` and `checks[i]` are the cells of `tasks[i]`."""

    name: str
    nb: NotebookNode
    tasks: list[Task]
    seed: int = 0
    answers: list[NotebookNode] = field(default_factory=list)
    checks: list[NotebookNode] = field(default_factory=list)
    exam: bool = False

    def item(self, task: Task) -> Exercise:
        """The exercise as this set asks it."""
        return task.item if self.exam else private(task.item.id, self.seed)

    def other_numbers(self, task: Task) -> bool:
        """Whether the question has other numbers in this set than in the book."""
        return self.seed != 0 and task.item.id in listed()


def sources(folder: Path, chapters: Iterable[str]) -> list[Path]:
    """The text sources of chapters named 01, 01_a_memory or 01_a_memory.md.

    Raises:
        NLBookError: no such chapter; the text says which there are.
    """
    every = files(folder / "src", ".md")
    found = []
    for name in chapters:
        mine = [p for p in every if p.stem.split("_")[0] == name or p.stem == Path(name).stem]
        if not mine:
            known = ", ".join(p.stem.split("_")[0] for p in every)
            raise NLBookError(f"chapter: got {name!r}, expected one of {known}, or a session of `nlbook course`")
        found += mine
    return list(dict.fromkeys(found))


def sheet(source: Path, seed: int = 0, drop: Iterable[str] = ()) -> Sheet:
    """A fresh copy of a chapter, without outputs and without the sections under the headings in `drop`."""
    nb = nbformat.from_dict(sync.read_text(source))
    without(nb, set(drop))
    find.apart(nb)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = "\n".join(unlinked(line, source.stem.split("_")[0]) for line in cell.source.split("\n"))
        else:
            cell.execution_count, cell.outputs = None, []
    tasks = find.tasks(nb)
    return Sheet(source.stem, nb, tasks, seed, [nb.cells[t.cell] for t in tasks], [nb.cells[t.check] for t in tasks])


def unlinked(line: str, own: str) -> str:
    """A line without links to other chapters, which are not in the set: it names them, unless it did so already."""

    def words(link: re.Match[str]) -> str:
        text, to = link.groups()
        if to == own:
            return link[0]
        named = to.isdigit() and re.search(rf"\b{to}\b", LINK.sub(r"\1", line))
        if named or re.match(rf"(appendix )?{to}\b", text, re.I):
            return text
        return f"{text} ({'chapter' if to.isdigit() else 'appendix'} {to})"

    return LINK.sub(words, line)


def without(nb: NotebookNode, drop: set[str]) -> None:
    """Leave out whole sections (from a `## heading` to the next), by the text of their heading."""
    kept, leaving, seen = [], False, set()
    for cell in nb.cells:
        heading = re.search(r"^## (.+)$", cell.source, re.M) if cell.cell_type == "markdown" else None
        if heading:
            leaving = heading[1].strip() in drop
            seen.add(heading[1].strip())
        if not leaving:
            kept.append(cell)
    if missing := drop - seen:
        raise NLBookError(f"drop: got {sorted(missing)}, expected headings of the chapter: {sorted(seen)}")
    nb.cells = kept


# -- for students


def student(made: Sheet) -> NotebookNode:
    """The student's notebook."""
    for task, answer, check in zip(made.tasks, made.answers, made.checks):
        answer.source = stub(task, answer.source)
        if made.other_numbers(task):
            check.source = f'print("Your answer, judged when it is handed in:", {task.name})'
    asked(made)
    if not made.exam:
        after_title(made.nb, new_markdown_cell(FRONT, id="course-front"))
    at = next((i for i, c in enumerate(made.nb.cells) if imports_check(c)), None)
    if at is not None:
        made.nb.cells.insert(at + 1, new_code_cell("check.in_class()", id="course-switch"))
    return made.nb


def stub(task: Task, source: str) -> str:
    """The answer cell before anybody has answered."""
    text = task.item.stub_source()
    return find.with_definition(source, text, task.name) if find.is_function(task.item) else text


def asked(made: Sheet) -> None:
    """Before each answer whose question has other numbers in this set, the question."""
    for task, answer in zip(made.tasks, made.answers):
        if made.other_numbers(task):
            text = f"> **In this set:** {made.item(task).prompt}"
            at = next(i for i, c in enumerate(made.nb.cells) if c is answer)
            made.nb.cells.insert(at, new_markdown_cell(text, id=f"asked-{task.item.id}"))


def imports_check(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(re.search(r"^from nlbook import .*\bcheck\b", cell.source, re.M))


# -- solved


def solution(made: Sheet) -> NotebookNode:
    """Every exercise filled in."""
    for task, answer, check in zip(made.tasks, made.answers, made.checks):
        answer.source = solved(made.item(task), answer.source, task.name)
        if made.other_numbers(task):
            check.source = f'print("Your answer, judged when it is handed in:", {task.name})'
    asked(made)
    after_title(made.nb, new_markdown_cell(SOLVED, id="course-front"))
    return made.nb


def solved(item: Exercise, source: str, name: str) -> str:
    """The answer cell with the solution in it."""
    if find.is_function(item):
        return find.with_definition(source, item.solution_source(), name)
    if isinstance(item, Estimate):
        value = float(item.solution())
        shown = repr(int(value)) if value == int(value) else repr(float(f"{value:.6g}"))
        how = f"{item.solution_source()}\n" if item.solution.__name__ != "<lambda>" else ""
        return f"{how}answer = {shown}  # {item.unit}".rstrip(" #")
    return item.solution_source().rstrip()


def after_title(nb: NotebookNode, *cells: NotebookNode) -> None:
    """Insert cells behind the first cell, which holds the title."""
    nb.cells[1:1] = list(cells)


def finish(nb: NotebookNode, kind: str, **facts: Any) -> str:
    """The file's text. The front matter is marked as a set, so that the runner does not ask for a chapter's
    contract.
    """
    nb.metadata["nlbook"]["kind"] = "note"
    nb.metadata["nlbook"]["course"] = {"set": kind, **facts}
    nbformat.validate(nb)
    return sync.dumps(nb)
