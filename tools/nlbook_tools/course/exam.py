"""The exam as notebooks, and finding an item of a set by its id."""

from __future__ import annotations

from functools import cache

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

from nlbook.book.check.define import Estimate, Exercise
from nlbook.book.check.values import digits
from nlbook.errors import NLBookError
from nlbook_tools.course.bank import Choice, items
from nlbook_tools.course.release import Sheet
from nlbook_tools.course.tasks import Task, is_function
from nlbook_tools.course.variants import private
from nlbook_tools.notebooks.sync import KERNELSPEC

NAME = "exam"
RULES = """# Exam

Twenty items, {points} points, {minutes} minutes. Each answer goes into the cell below its item: a letter
(`answer = "b"`), a number (`answer = 3.2`) or the body of a function. Use the book and the library if your teacher
allows it. How many points an answer earned is found after you have handed in this file."""


@cache
def _items(seed: int) -> dict[str, Exercise]:
    return {e.id: e for e in items(seed)}


def find(id: str, seed: int) -> Exercise:
    """The item with this id as the set of `seed` asks it: an exercise of a chapter, or an item of the exam."""
    if not id.startswith("exam-"):
        return private(id, seed)
    if id not in _items(seed):
        raise NLBookError(f"id: got {id!r}, expected exam-01 to exam-{len(_items(seed)):02d}")
    return _items(seed)[id]


def sheet(seed: int) -> Sheet:
    """The exam as a notebook without answers."""
    listed = list(_items(seed).values())
    total, minutes = sum(e.points for e in listed), sum(e.minutes for e in listed)
    nb = nbformat.v4.new_notebook(
        metadata={
            "kernelspec": KERNELSPEC,
            "language_info": {"name": "python"},
            "nlbook": {"title": "Exam", "run": {"quick": {"seconds": 60, "memory_mb": 1500}}},
        }
    )
    nb.cells = [
        new_markdown_cell(RULES.format(points=total, minutes=minutes), id="exam-rules"),
        new_code_cell("seed = 0", id="exam-parameters", metadata={"tags": ["parameters"]}),
        new_code_cell("import torch\n\nfrom nlbook.book import check", id="exam-imports"),
    ]
    tasks, answers, checks = [], [], []
    for number, item in enumerate(listed, 1):
        asked = item.asked() if isinstance(item, Choice) else item.prompt
        unit = f" *(unit: {item.unit})*" if isinstance(item, Estimate) and item.unit else ""
        points = f"{item.points} point{'s' * (item.points != 1)}"
        nb.cells.append(
            new_markdown_cell(f"**{number} · {item.title}** ({points})\n\n{asked}{unit}", id=f"{item.id}-asked")
        )
        name = item.solution.__name__ if is_function(item) else "answer"  # type: ignore[attr-defined]
        nb.cells.append(new_code_cell(item.stub_source().rstrip("\n"), id=item.id, metadata={"tags": ["exercise"]}))
        nb.cells.append(
            new_code_cell(
                f'print("Handed in:", {name})' if name == "answer" else f'print("Handed in:", {name}.__name__)',
                id=f"{item.id}-check",
            )
        )
        tasks.append(Task(item, len(nb.cells) - 2, len(nb.cells) - 1, name))
        answers.append(nb.cells[-2])
        checks.append(nb.cells[-1])
    return Sheet(NAME, nb, tasks, seed, answers, checks, exam=True)


def key(seed: int) -> str:
    """The key in Markdown: every answer, and how it comes about."""
    lines = [
        f"# Key of the exam with seed {seed}",
        "",
        "Keep it out of the students' folder. The same seed gives the same exam.",
        "",
        "| item | points | objective | answer |",
        "|---|---|---|---|",
    ]
    code = []
    for item in _items(seed).values():
        if isinstance(item, Choice):
            answer = f"**{item.letter()}** {item.right} ({item.why})"
        elif isinstance(item, Estimate):
            answer = f"**{digits(float(item.solution()))}** {item.unit}".strip()
        else:
            answer = "a function, below"
            code.append(f"**{item.id} {item.title}**\n\n```python\n{item.solution_source()}```\n")
        lines.append(
            f"| {item.id} {item.title} | {item.points} | {item.objective} | {answer.replace('|', chr(92) + '|')} |"
        )
    return "\n".join([*lines, "", *code]) + "\n"
