"""Syllabi (syllabi.yaml): which chapters and sections are met in class, in how many minutes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from nlbook.errors import NLBookError
from nlbook_tools.course import minutes
from nlbook_tools.course.release import sources


@dataclass(frozen=True)
class Part:
    """Sections of one chapter: those in `take` (empty: all) but those in `home`."""

    chapter: str
    take: tuple[str, ...] = ()
    home: tuple[str, ...] = ()

    def dropped(self, chapter: minutes.Chapter) -> tuple[str, ...]:
        """The headings that are left for home.

        Raises:
            NLBookError: a heading that the chapter does not have.
        """
        every = [s.heading for s in chapter.sections]
        if unknown := [h for h in (*self.take, *self.home) if h not in every]:
            raise NLBookError(f"chapter {self.chapter}: got the headings {unknown}, expected some of {every}")
        kept = [h for h in self.take or every if h not in self.home]
        return tuple(h for h in every if h not in (*kept, minutes.OPENING))


@dataclass(frozen=True)
class Session:
    """One meeting."""

    name: str
    title: str
    minutes: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Syllabus:
    """A way to teach the book."""

    title: str
    about: str
    sessions: tuple[Session, ...]


@cache
def syllabi() -> tuple[Syllabus, ...]:
    """Every syllabus."""
    found = []
    for y in yaml.safe_load(Path(__file__).with_name("syllabi.yaml").read_text(encoding="utf-8")):
        sessions = []
        for s in y["sessions"]:
            parts = [Part(p["chapter"], tuple(p.get("take", ())), tuple(p.get("home", ()))) for p in s["parts"]]
            sessions.append(Session(s["name"], s["title"], s["minutes"], tuple(parts)))
        found.append(Syllabus(y["title"], y["about"], tuple(sessions)))
    return tuple(found)


def sessions() -> dict[str, Session]:
    """Every session by its name."""
    return {s.name: s for y in syllabi() for s in y.sessions}


def session(folder: Path, name: str) -> list[tuple[Path, tuple[str, ...]]]:
    """(text source, headings to leave out) for a chapter, or for each chapter of a named session."""
    if name not in sessions():
        return [(source, ()) for source in sources(folder, [name])]
    found = []
    for part in sessions()[name].parts:
        source = sources(folder, [part.chapter])[0]
        found.append((source, part.dropped(minutes.read(source))))
    return found


def in_class(session: Session, folder: Path) -> int:
    """Minutes that a session takes, from its sections."""
    total = 0
    for part in session.parts:
        chapter = minutes.read(sources(folder, [part.chapter])[0])
        total += sum(s.minutes for s in chapter.sections if s.heading not in part.dropped(chapter))
    return total
