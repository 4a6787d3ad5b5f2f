"""The exercises of a notebook: where each is answered, and where it is checked."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from nlbook.book.check import registry
from nlbook.book.check.define import Exercise, Implement
from nlbook.errors import NLBookError


@dataclass(frozen=True)
class Task:
    """One exercise in one notebook: cells count from 0; `name` is the variable or function that is judged."""

    item: Exercise
    cell: int
    check: int
    name: str


def calls(source: str, name: str) -> list[ast.Call]:
    """Every call `check.<name>(...)` of a cell."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    return [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Call)
        and isinstance(n.func, ast.Attribute)
        and n.func.attr == name
        and isinstance(n.func.value, ast.Name)
        and n.func.value.id == "check"
    ]


def first_text(call: ast.Call) -> str:
    """The first argument of a call, where it is a text: the id."""
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def apart(nb: NotebookNode) -> None:
    """Cells that answer and check in one become two: a marked answer cell must hold the answer alone."""
    cells = []
    for cell in nb.cells:
        lines = cell.source.splitlines()
        found = calls(cell.source, "exercise") if cell.cell_type == "code" else []
        if found and (at := found[0].lineno - 1) and any(line.strip() for line in lines[:at]):
            answer = new_code_cell("\n".join(lines[:at]).rstrip(), metadata=dict(cell.metadata), id=cell.id)
            answer.metadata["tags"] = sorted({*cell.metadata.get("tags", []), "exercise"})
            cells += [answer, new_code_cell("\n".join(lines[at:]), id=f"{cell.id}-check")]
        else:
            cells.append(cell)
    nb.cells = cells


def tasks(nb: NotebookNode) -> list[Task]:
    """The exercises in the order of the notebook; call `apart` first.

    Raises:
        NLBookError: a check without an answer cell before it.
    """
    found = []
    for i, cell in enumerate(nb.cells):
        for call in calls(cell.source, "exercise") if cell.cell_type == "code" else []:
            item = registry.find(first_text(call), Exercise)
            name = ast.unparse(call.args[1]) if len(call.args) > 1 else "answer"
            answer = next((j for j in range(i - 1, -1, -1) if binds(nb.cells[j], name)), None)
            if answer is None:
                raise NLBookError(f"{item.id}: got no cell that makes {name!r}, expected one before its check")
            found.append(Task(item, answer, i, name))
    return found


def binds(cell: NotebookNode, name: str) -> bool:
    """Whether a code cell defines `name` or assigns it at its top level."""
    if cell.cell_type != "code":
        return False
    try:
        tree = ast.parse(cell.source)
    except SyntaxError:
        return False
    return any(
        (isinstance(n, ast.FunctionDef) and n.name == name)
        or (isinstance(n, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in n.targets))
        for n in tree.body
    )


def with_definition(source: str, text: str, name: str) -> str:
    """A cell whose definition of `name` is replaced by `text`; what stands around it (an import) stays."""
    lines = source.splitlines()
    node = next(n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == name)
    start, end = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1, node.end_lineno or node.lineno
    while end < len(lines) and lines[end].startswith(
        (" ", "\t")
    ):  # a comment at the end of the body is not in the tree
        end += 1
    return "\n".join([*lines[:start], *text.rstrip().splitlines(), *lines[end:]])


def is_function(item: Exercise) -> bool:
    """Whether the answer is a function (and not a number, a list or a text)."""
    return isinstance(item, Implement)
