"""Syllabi: which chapters and sections are met in class, in how many minutes. The tables in notebooks/teaching are made
from this, and `nlbook release session-50` cuts the notebooks of a session.

A session names for each chapter the sections that are met in class; what is not named is read at home. The opening of a
chapter (title, claim, imports) always comes along.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nlbook.errors import NLBookError
from nlbook_tools.course import minutes
from nlbook_tools.course.release import sources

ALL = ("*",)


@dataclass(frozen=True)
class Part:
    """Sections of one chapter: those named, or all but `home`."""

    chapter: str
    take: tuple[str, ...] = ALL
    home: tuple[str, ...] = ()

    def dropped(self, chapter: minutes.Chapter) -> tuple[str, ...]:
        """The headings that are left for home.

        Raises:
            NLBookError: a heading that the chapter does not have.
        """
        every = [s.heading for s in chapter.sections]
        if unknown := [h for h in (*self.take, *self.home) if h not in (*every, *ALL)]:
            raise NLBookError(f"chapter {self.chapter}: got the headings {unknown}, expected some of {every}")
        kept = [h for h in every if (self.take == ALL or h in self.take) and h not in self.home]
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


HOME = ("Without looking back", "Key points")
SYLLABI = (
    Syllabus(
        "One lecture, 75 minutes",
        "The thread of the book with the teacher at the keyboard: four chapters, one idea from "
        "each. The room predicts; nobody codes. Exercises are set as homework.",
        (
            Session(
                "lecture-75",
                "Memories, and how often they are written",
                75,
                (
                    Part("00", ("A memory in two lines", "The first plot: it remembers, then it forgets")),
                    Part(
                        "01",
                        (
                            "A dictionary in 1024 numbers",
                            "By hand: two pairs in six numbers",
                            "The same key, twice",
                            "The interference bench",
                            "Signature result: how much does it hold?",
                            "Negative control",
                        ),
                    ),
                    Part(
                        "05",
                        (
                            "A model of 256 numbers?",
                            "Definition 2: count, and say the unit",
                            "The level detective",
                            "The two extremes",
                        ),
                    ),
                    Part(
                        "07",
                        (
                            "Ten prompts, and nothing learned",
                            "The score of updates",
                            "Signature result: who knows what, when",
                            "Negative control: all periods equal",
                        ),
                    ),
                ),
            ),
        ),
    ),
    Syllabus(
        "One session, 50 minutes",
        "A single hour with people at keyboards: two learning rules for one memory, written, broken and compared.",
        (
            Session(
                "session-50",
                "A memory you can hold",
                50,
                (
                    Part(
                        "01",
                        home=(
                            "Third part: retention",
                            "The same thing in the library",
                            "What this does not show",
                            *HOME,
                        ),
                    ),
                ),
            ),
        ),
    ),
    Syllabus(
        "One week, 3 x 50 minutes",
        "From a memory to levels to the question of what protects an old task. Chapters 02 and "
        "04 are read at home, between the first and the second meeting.",
        (
            Session(
                "week-1",
                "A memory you can hold",
                50,
                (
                    Part(
                        "01",
                        home=(
                            "Third part: retention",
                            "The same thing in the library",
                            "What this does not show",
                            *HOME,
                        ),
                    ),
                ),
            ),
            Session(
                "week-2",
                "Momentum is a level",
                50,
                (
                    Part("03", ("One push, then silence", "The horizon", "How far back?")),
                    Part(
                        "05",
                        (
                            "A model of 256 numbers?",
                            "Definition 2: count, and say the unit",
                            "A tie",
                            "The level detective",
                            "The two extremes",
                        ),
                    ),
                ),
            ),
            Session(
                "week-3",
                "Many rates, honestly",
                50,
                (
                    Part("07", ("Ten prompts, and nothing learned", "One level has a clock", "The score of updates")),
                    Part(
                        "08",
                        (
                            "Here one could stop",
                            "Two tasks and a clock",
                            "Signature result: the fair ablation",
                            "The verdict",
                        ),
                    ),
                ),
            ),
        ),
    ),
    Syllabus(
        "One module, six weeks, 12 meetings of 75 minutes (the sixth is one of 60)",
        "The whole book: module-N meets chapter N. Chapter 00 is read at home before the first meeting. For four "
        "weeks, take the meetings 1 to 5 and 7 to 9.",
        (
            Session("module-1", "A memory you can hold", 75, (Part("01"),)),
            Session("module-2", "Training is writing", 75, (Part("02"),)),
            Session(
                "module-3",
                "Optimizers remember too",
                75,
                (Part("03", home=("The same sweep, tuned harder", "The control that spoils the story", *HOME)),),
            ),
            Session("module-4", "Attention is a memory", 75, (Part("04"),)),
            Session("module-5", "The level lens", 75, (Part("05"),)),
            Session("module-6", "Where you start matters", 60, (Part("06"),)),
            Session("module-7", "Memory at many rates", 75, (Part("07"),)),
            Session("module-8", "Rate, step or forgetting?", 75, (Part("08"),)),
            Session(
                "module-9",
                "A memory that teaches itself",
                75,
                (
                    Part(
                        "09",
                        home=(
                            "The same thing in the library",
                            "Counting with one number",
                            "Is it the self-reference, or the sign?",
                            "What this does not show",
                            *HOME,
                        ),
                    ),
                ),
            ),
            Session(
                "module-10",
                "Hope, whole",
                75,
                (Part("10", home=("The same thing in the library", "How long does a fact last?", *HOME)),),
            ),
            Session(
                "module-11",
                "Make it fast",
                75,
                (
                    Part(
                        "11",
                        home=(
                            "Two ways to invert, one of them a trap",
                            "The same thing in the library",
                            "A roofline",
                            "What this does not show",
                            *HOME,
                        ),
                    ),
                ),
            ),
            Session("module-12", "Read like a referee", 75, (Part("12", home=("How many seeds?", *HOME)),)),
        ),
    ),
    Syllabus(
        "A reading group, 9 x 60 minutes",
        "The paper beside the book: each meeting a part of the paper, a chapter, and the "
        "errata of its equations (`nlbook paper --errata`).",
        (
            Session(
                "group-1",
                "Section 3.1: associative memory",
                60,
                (Part("01", home=("Third part: retention", "The same thing in the library", "Without looking back")),),
            ),
            Session(
                "group-2",
                "Section 4.1: training is writing",
                60,
                (
                    Part(
                        "02",
                        home=("Inside a network", "The same thing in the library", "What this does not show", *HOME),
                    ),
                ),
            ),
            Session(
                "group-3",
                "Section 4: momentum and M3",
                60,
                (
                    Part(
                        "03",
                        home=(
                            "Adam asks another question",
                            "But does the *model* remember?",
                            "The same sweep, tuned harder",
                            "One picture",
                            "How far back?",
                            "The control that spoils the story",
                            "What this does not show",
                            *HOME,
                        ),
                    ),
                ),
            ),
            Session("group-4", "Section 3.2: levels", 60, (Part("05", home=("The same thing in the library", *HOME)),)),
            Session(
                "group-5",
                "Section 7.1: the continuum memory system",
                60,
                (
                    Part(
                        "07", home=("What it costs", "The same thing in the library", "What this does not show", *HOME)
                    ),
                ),
            ),
            Session(
                "group-6",
                "Section 7.1, again: what protects an old task?",
                60,
                (Part("08", home=("How the field counts", *HOME)),),
            ),
            Session(
                "group-7",
                "Sections 4.5 and 8.1: a memory that teaches itself",
                60,
                (
                    Part(
                        "09",
                        home=(
                            "Where it comes from: Titans",
                            "The same thing in the library",
                            "A rule switch, by hand",
                            "Counting with one number",
                            "Is it the self-reference, or the sign?",
                            "What this does not show",
                            *HOME,
                        ),
                    ),
                ),
            ),
            Session(
                "group-8",
                "Section 8.3 and Table 6: Hope, whole",
                60,
                (
                    Part(
                        "10",
                        home=(
                            "By hand: two tokens through a block of one number",
                            "The same thing in the library",
                            "How long does a fact last?",
                            "What this does not show",
                            *HOME,
                        ),
                    ),
                ),
            ),
            Session(
                "group-9",
                "Section 9: read like a referee",
                60,
                (Part("12", home=("By hand: a factor that does nothing", "How many seeds?", *HOME)),),
            ),
        ),
    ),
)


def sessions() -> dict[str, Session]:
    """Every session by its name."""
    return {s.name: s for y in SYLLABI for s in y.sessions}


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
