"""The same set for otter-grader: raw cells say where a question begins and ends (`otter assign` reads them).

Run `otter assign otter/01/01_a_memory_you_can_hold.ipynb dist`; `dist/student` is handed out, `dist/autograder` grades.
otter runs a submission in one process together with its tests: the fences of `nlbook grade` do not stand there.
"""

from __future__ import annotations

import ast

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_raw_cell

from nlbook.book.check.define import Explain
from nlbook.book.check.source import BEGIN, END
from nlbook_tools.course import marked, release
from nlbook_tools.course.release import Sheet
from nlbook_tools.course.tasks import Task

CONFIG = (
    "# ASSIGNMENT CONFIG\ninit_cell: false\nexport_cell: false\nrun_tests: false\nsolutions_pdf: false\n"
    "generate:\n  show_hidden: false"
)


def assign(made: Sheet) -> NotebookNode:
    """The source notebook that `otter assign` takes."""
    stubs = {t.item.id: release.stub(t, a.source) for t, a in zip(made.tasks, made.answers)}
    nb = release.student(made)
    cells = [new_raw_cell(CONFIG, id="otter-config")]
    answers = {id(a): t for t, a in zip(made.tasks, made.answers)}
    checks = {id(c): t for t, c in zip(made.tasks, made.checks)}
    for cell in nb.cells:
        if task := answers.get(id(cell)):
            cells += _question(task, cell, stubs[task.item.id], made)
        elif task := checks.get(id(cell)):
            cells += [*_tests(task, made.seed), cell]
        else:
            cells.append(cell)
    nb.cells = cells
    return nb


def _raw(id: str, what: str, more: str = "") -> NotebookNode:
    return new_raw_cell(f"# {what}{more}", id=f"otter-{id}-{what.lower().replace(' ', '-')}")


def _question(task: Task, cell: NotebookNode, stub: str, made: Sheet) -> list[NotebookNode]:
    id = task.item.id
    manual = "\nmanual: true" if isinstance(task.item, Explain) else ""
    cell.source = with_prompt(marked.with_markers(task, cell.source, made), stub, task.name)
    return [
        _raw(id, "BEGIN QUESTION", f"\nname: q{id.replace('-', '_')}\npoints: {task.item.points}{manual}"),
        _raw(id, "BEGIN SOLUTION"),
        cell,
        _raw(id, "END SOLUTION"),
    ]


def with_prompt(solved: str, stub: str, name: str) -> str:
    """The solved cell, and behind the solution what the student finds in its place."""
    lines = solved.splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip() == END)
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    begun = next(line for line in lines if line.strip() == BEGIN)
    assert begun.startswith(indent)
    prompt = [f'{indent}""" # BEGIN PROMPT', *_body(stub, name), f'{indent}""" # END PROMPT']
    lines[lines.index(begun)] = f"{begun} NO PROMPT"  # or otter would put an ellipsis there
    return "\n".join([*lines[: at + 1], *prompt, *lines[at + 1 :]])


def _body(stub: str, name: str) -> list[str]:
    """The lines of a stub behind its docstring; all of it where it is no function."""
    node = next((n for n in ast.parse(stub).body if isinstance(n, ast.FunctionDef) and n.name == name), None)
    if node is None:
        return stub.splitlines()
    first = node.body[1] if ast.get_docstring(node) else node.body[0]
    return stub.splitlines()[first.lineno - 1 : node.end_lineno]


def _tests(task: Task, seed: int) -> list[NotebookNode]:
    id = task.item.id
    if isinstance(task.item, Explain):
        return [_raw(id, "END QUESTION")]
    source = (
        f'""" # BEGIN TEST CONFIG\nhidden: true\npoints: {task.item.points}\n""" # END TEST CONFIG\n'
        f"from nlbook_tools.course import graded\nassert graded({id!r}, {task.name}, seed={seed}) > 0"
    )
    return [
        _raw(id, "BEGIN TESTS"),
        new_code_cell(source, id=f"otter-{id}-test"),
        _raw(id, "END TESTS"),
        _raw(id, "END QUESTION"),
    ]


__all__ = ["CONFIG", "assign", "with_prompt"]
