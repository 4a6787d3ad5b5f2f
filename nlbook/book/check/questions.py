"""Definitions of what is asked without a function: choices with an explanation each, and predictions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

ID = re.compile(r"(\d\d|[A-Z])-[a-z0-9]+(-[a-z0-9]+)*")
LETTERS = "abcdefghijkl"


class Option(NamedTuple):
    """One choice, and what to say to whoever takes it."""

    text: str
    why: str
    right: bool = False


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a question and a prediction have in common: an id, and options with an explanation each."""

    id: str
    options: tuple[Option, ...] = ()
    objective: str = ""

    @property
    def chapter(self) -> str:
        return self.id.split("-")[0]

    def lettered(self) -> list[tuple[str, Option]]:
        """a, b, c ... with the options."""
        return list(zip(LETTERS, self.options))

    def chosen(self, answer: Any) -> Option | None:
        """The option meant by a letter or by its text."""
        wanted = answer.strip() if type(answer) is str else None
        return next((o for letter, o in self.lettered() if wanted in (letter, letter.upper(), o.text)), None)

    def problems(self) -> list[str]:
        found = [] if ID.fullmatch(self.id) else [f"id {self.id!r} is not like '01-q1'"]
        if self.options and (len(self.options) < 2 or sum(o.right for o in self.options) != 1):
            found.append("needs two or more options, exactly one of them right")
        if len({o.text for o in self.options}) < len(self.options):
            found.append("two options read the same")
        return found + [f"option {o.text!r} has no explanation" for o in self.options if not o.why.strip()]


@dataclass(frozen=True, kw_only=True)
class Question(Choices):
    """A question with choices; `recalls` names the chapter whose matter it asks for ("" = this one)."""

    kind: ClassVar[str] = "choice"
    text: str
    recalls: str = ""

    def problems(self) -> list[str]:
        return super().problems() + ([] if self.options else ["needs options"])


@dataclass(frozen=True, kw_only=True)
class Prediction(Choices):
    """A prediction: options, or a number with a unit in [low, high], or with `points` (labels) a number for each,
    which sketches a curve. `check.predict(id)` asks it and `check.reveal(id)` answers it; neither needs more.

    answer   the number that comes out, where the page does not measure it
    why      what to say about the number
    within   a number is right within this share of the measured one (of the largest, for points)
    between  an interval where the truth lies, if it is only known to lie in one: right is then near to the interval
    """

    kind: ClassVar[str] = "predict"
    question: str
    answer: float | None = None
    why: str = ""
    within: float = 0.1
    between: tuple[float, float] | None = None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    points: tuple[str, ...] = ()

    @property
    def range(self) -> tuple[float, float]:
        """Where the number lies (of no meaning with options)."""
        return (0.0 if self.low is None else self.low, 1.0 if self.high is None else self.high)

    def problems(self) -> list[str]:
        found = super().problems()
        if bool(self.options) == (self.low is not None and self.high is not None):
            found.append("needs either options or both low and high")
        if self.low is not None and self.high is not None and not self.low < self.high:
            found.append(f"low {self.low} is not below high {self.high}")
        if len(set(self.points)) < len(self.points):
            found.append("two points read the same")
        return found + ([] if self.options or self.why.strip() else ["has no explanation"])
