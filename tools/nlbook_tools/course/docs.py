"""The made parts of notebooks/teaching: tables that are written by a command and kept in step by a test.

A file holds prose by hand and blocks between `<!-- made by nlbook course: NAME -->` and `<!-- end -->`;
`write` renews the
blocks, `stale` names the files whose blocks are old.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from nlbook.book.check import registry
from nlbook.book.check.define import Exercise
from nlbook.errors import NLBookError
from nlbook_tools.course import bank, minutes, notes, plans

BLOCK = re.compile(r"(<!-- made by nlbook course: (.+?) -->\n).*?(<!-- end -->)", re.S)
COSTS = "costs.json"  # seconds, processor time and memory of each notebook, measured by `nlbook course measure`


@cache
def book(folder: Path) -> tuple[minutes.Chapter, ...]:
    return tuple(minutes.chapters(folder))


def written(folder: Path, path: Path) -> str:
    """The text of a file of notebooks/teaching with its blocks renewed."""

    def renew(match: re.Match[str]) -> str:
        name, _, argument = match[2].partition(" ")
        if name not in BLOCKS:
            raise NLBookError(f"{path.name}: got a block {name!r}, expected one of {sorted(BLOCKS)}")
        return f"{match[1]}{BLOCKS[name](folder, argument).strip()}\n{match[3]}"

    return BLOCK.sub(renew, path.read_text(encoding="utf-8"))


def files(folder: Path) -> list[Path]:
    return sorted((folder / "teaching").rglob("*.md"))


def stale(folder: Path) -> list[Path]:
    """The files whose made blocks are not what would be made now."""
    return [p for p in files(folder) if written(folder, p) != p.read_text(encoding="utf-8")]


def write(folder: Path) -> list[Path]:
    """Renew every block; the files that changed."""
    changed = stale(folder)
    for path in changed:
        path.write_text(written(folder, path), encoding="utf-8", newline="\n")
    return changed


# -- the blocks


def syllabi(folder: Path, _: str) -> str:
    """Every syllabus: a table of its sessions with what is met in class and what is left for home."""
    parts = []
    for syllabus in plans.syllabi():
        parts.append(
            f"### {syllabus.title}\n\n{syllabus.about}\n\n"
            "| session | in class | minutes | exercises in class | at home |\n|---|---|---|---|---|"
        )
        for session in syllabus.sessions:
            here, done, home = [], [], []
            for part in session.parts:
                chapter = next(c for c in book(folder) if c.number == part.chapter)
                gone = part.dropped(chapter)
                met = [s for s in chapter.sections if s.heading not in gone]
                whole = not gone
                here.append(
                    f"**{chapter.number}** {chapter.title}"
                    + ("" if whole else ": " + ", ".join(s.heading for s in met if s.heading != minutes.OPENING))
                )
                done += [i for s in met for i in s.exercises]
                if gone and not part.take:
                    home.append(f"{chapter.number}: {', '.join(gone)}")
                elif gone:
                    home.append(f"the rest of {chapter.number}")
            took = plans.in_class(session, folder)
            parts[-1] += (
                f"\n| `{session.name}` {session.title} | {'<br>'.join(here)} | {took} of {session.minutes} | "
                f"{', '.join(done) or 'none'} | {'<br>'.join(home) or 'nothing'} |"
            )
    return "\n\n".join(parts)


def chapter_minutes(folder: Path, _: str) -> str:
    """Minutes of every section of every chapter."""
    parts = []
    for c in book(folder):
        parts.append(f"### {c.number} · {c.title}\n\n{notes.sections(c)}")
    return "\n\n".join(parts)


def objectives(folder: Path, _: str) -> str:
    """Objective by objective: the exercises, questions and exam items that test it."""
    exam: dict[str, list[str]] = {}
    for n, e in enumerate(bank.entries(), 1):
        exam.setdefault(e["objective"], []).append(f"exam-{n:02d}")
    lines = ["| objective | the learner can | exercises | questions | exam |", "|---|---|---|---|---|"]
    for c in book(folder):
        listed = registry.chapter(c.number).values()
        for id, text in c.objectives.items():
            mine = [i.id for i in listed if isinstance(i, Exercise) and i.objective == id]
            asked = [i.id for i in listed if not isinstance(i, Exercise) and getattr(i, "objective", "") == id]
            lines.append(f"| {id} | {text} | {', '.join(mine)} | {', '.join(asked)} | {', '.join(exam.get(id, []))} |")
    return "\n".join(lines)


def exam_items(folder: Path, _: str) -> str:
    """The exam's items without their answers."""
    lines = ["| item | title | objective | points | minutes | kind |", "|---|---|---|---|---|---|"]
    for item in bank.items(1):
        kind = "choice" if isinstance(item, bank.Choice) else "function" if hasattr(item, "draw") else "number"
        lines.append(f"| {item.id} | {item.title} | {item.objective} | {item.points} | {item.minutes} | {kind} |")
    made = bank.items(1)
    return "\n".join(
        [*lines, f"| **together** | | | **{sum(i.points for i in made)}** | **{sum(i.minutes for i in made)}** | |"]
    )


def misconceptions(folder: Path, number: str) -> str:
    """One chapter: expected wrong answers and what the student is told."""
    listed = [i for i in registry.chapter(number).values() if isinstance(i, Exercise)]
    return "\n\n".join(notes.of_exercise(i) for i in listed)


def section_minutes(folder: Path, number: str) -> str:
    """One chapter: the minutes of its sections."""
    return notes.sections(next(c for c in book(folder) if c.number == number))


def costs(folder: Path, _: str) -> str:
    """Seconds and memory of each notebook, as measured last."""
    path = folder / "teaching" / COSTS
    if not path.exists():
        return "Not measured yet: run `nlbook course measure`."
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"Measured {found['when']} on {found['machine']}, with the quick parameters. Processor time is the "
        f"kernel's, on one core; the clock ran longer because the machine was shared (load {found['load']:g})."
        if found["load"] > 1.5
        else f"Measured {found['when']} on {found['machine']}, with the quick parameters.",
        "",
        "| notebook | seconds of processor time | seconds by the clock | peak MB |",
        "|---|---|---|---|",
    ]
    rows = [(r["notebook"], r["cpu_seconds"], r["seconds"], r["peak_mb"]) for r in found["notebooks"]]
    total = sum(r[1] for r in rows), sum(r[2] for r in rows), max(r[3] for r in rows)
    for name, *numbers in (*rows, ("**all**, and the largest peak", *total)):
        lines.append(f"| {name} | " + " | ".join(f"{x:.0f}" for x in numbers) + " |")
    return "\n".join(lines)


BLOCKS: dict[str, Callable[[Path, str], str]] = {
    "syllabi": syllabi,
    "minutes": chapter_minutes,
    "objectives": objectives,
    "exam": exam_items,
    "misconceptions": misconceptions,
    "sections": section_minutes,
    "costs": costs,
    "demo": lambda _, number: notes.demonstrations(number),
}
