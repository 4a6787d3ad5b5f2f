"""What a teacher reads beside a chapter: minutes, and for each exercise the wrong answers to expect and what is told.

Everything here is made from the definitions (misconceptions, known wrong numbers, explanations of options) and from the
wrong answers that the tests try, so it cannot drift from what students are told.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from nbformat.v4 import new_markdown_cell

from nlbook.book import viz
from nlbook.book.check import registry
from nlbook.book.check.define import Estimate, Exercise, Implement, Order
from nlbook.book.check.questions import Question
from nlbook.book.check.testing import table, verdict
from nlbook.book.check.values import digits
from nlbook_tools.course import minutes, tasks
from nlbook_tools.course.release import Sheet, after_title

CLOSED = ("controls", "landmarks", "answer")  # what students do not get of a closed demonstration


def expected(item: Exercise) -> list[tuple[str, str]]:
    """(the wrong answer, what the student is told), from the definition."""
    if isinstance(item, Implement):
        return [(m.name, m.message) for m in item.misconceptions]
    if isinstance(item, Estimate):
        return [(f"{digits(w)} {item.unit}".strip(), why) for w, why in item.wrong.items()]
    return (
        [(f"“{later}” before “{first}”", why) for first, later, why in item.before] if isinstance(item, Order) else []
    )


def tried(item: Exercise) -> list[tuple[str, str]]:
    """(name, feedback) of the wrong answers that the tests try, without those whose feedback stands in `expected`."""
    module = table(item.chapter)
    wrong: dict[str, Any] = getattr(module, "MUTANTS", {}).get(item.id, {}) if module else {}
    told = {why for _, why in expected(item)}
    found = []
    for name, answer in wrong.items():
        said = verdict(item.id, answer).message
        if said not in told:
            told.add(said)
            found.append((name, said))
    return found


def rows(pairs: Iterable[tuple[str, str]], head: tuple[str, str]) -> str:
    """A Markdown table of two columns; empty without rows."""
    lines = [f"| {a} | {b} |".replace("\n", " ") for a, b in ((_cell(x), _cell(y)) for x, y in pairs)]
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *lines]) if lines else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def of_exercise(item: Exercise, mistakes: bool = False) -> str:
    """The note on one exercise, in Markdown; with `mistakes`, the wrong answers that the tests try as well."""
    head = (
        f"**{item.id} · {item.title}** · {item.kind}, {item.minutes} minutes, difficulty {item.difficulty} of 3, "
        f"{item.points} point{'s' * (item.points != 1)}, objective {item.objective}"
    )
    parts = [head, rows(expected(item), ("expect", "the student is told"))]
    if mistakes and (more := tried(item)):
        parts.append(rows(more, ("also tried by the tests", "the student is told")))
    return "\n\n".join(p for p in parts if p)


def of_question(item: Question) -> str:
    """The note on one question: the right choice, and what each wrong one has overlooked."""
    options = [(f"**{o.text}** (right)" if o.right else o.text, o.why) for o in item.options]
    recalls = f", recalls chapter {item.recalls}" if item.recalls else ""
    return f"**{item.id}**{recalls} · {item.text}\n\n{rows(options, ('choice', 'why'))}"


def sections(chapter: minutes.Chapter, drop: Iterable[str] = ()) -> str:
    """The table of minutes: reading, work, exercises of each section."""
    gone = set(drop)
    lines = ["| section | reading | work | exercises |", "|---|---|---|---|"]
    kept = [s for s in chapter.sections if s.heading not in gone]
    lines += [f"| {s.heading} | {s.reading} | {s.work} | {', '.join(s.exercises)} |" for s in kept]
    total = sum(s.minutes for s in kept)
    return "\n".join(
        [*lines, f"| **together: {total} minutes** | {sum(s.reading for s in kept)} | {sum(s.work for s in kept)} | |"]
    )


@cache
def demos() -> dict[str, list[dict[str, Any]]]:
    """The demonstrations of every chapter (demos.yaml)."""
    return yaml.safe_load(Path(__file__).with_name("demos.yaml").read_text(encoding="utf-8"))


def demonstrations(number: str) -> str:
    """The demonstrations of a chapter: what to paste, what to ask, and the numbers that the picture shows then."""
    lines = ["| paste | ask first | then read |", "|---|---|---|"]
    for demo in demos()[number]:
        view = demo["view"]
        facts = viz.find(view.partition(":")[0]).facts(view)
        read = ", ".join(f"{name} {facts[name]:.3g}" for name in demo.get("read", ()))
        hide = f", hide={CLOSED!r}" if demo.get("closed") else ""
        lines.append(f'| `viz.load("{view}"{hide})` | {demo["ask"]} | {read} |')
    return "\n".join(lines)


def by_hand(folder: Path, number: str) -> str:
    """The hand-written part of the notes (board, demonstration, what to skip), from notebooks/teaching/notes."""
    path = folder / "teaching" / "notes" / f"{number}.md"
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8")
    return text.split("## Demonstrations", 1)[0].split("\n", 1)[1].strip()


def annotate(made: Sheet, folder: Path, drop: Iterable[str] = ()) -> None:
    """Put the notes into a solution notebook: an overview behind the title, a note under each check and question."""
    chapter = minutes.read(folder / "src" / f"{made.name}.md")
    for task, check in zip(made.tasks, made.checks):
        _behind(made, check, of_exercise(made.item(task), mistakes=True), f"note-{task.item.id}")
    for cell in [c for c in made.nb.cells if c.cell_type == "code"]:
        for name in ("choice", "recall"):
            for call in tasks.calls(cell.source, name):
                id = tasks.first_text(call)
                _behind(made, cell, of_question(registry.find(id, Question)), f"note-{id}")
    parts = [by_hand(folder, chapter.number), demonstrations(chapter.number), sections(chapter, drop)]
    text = "**Teacher's notes.**\n\n" + "\n\n".join(p for p in parts if p)
    after_title(made.nb, new_markdown_cell(text, id="course-notes"))


def _behind(made: Sheet, cell: Any, text: str, id: str) -> None:
    at = next(i for i, c in enumerate(made.nb.cells) if c is cell)
    made.nb.cells.insert(at + 1, new_markdown_cell(f"> {text}".replace("\n", "\n> "), id=id))
