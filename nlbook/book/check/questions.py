"""Definitions of what is asked without a function: choices with an explanation each, and predictions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

ID = re.compile(r"\d\d-[a-z0-9]+(-[a-z0-9]+)*")


class Option(NamedTuple):
    """One choice, and what to say to whoever takes it."""

    text: str
    why: str
    right: bool = False


def right(text: str, why: str) -> Option:
    """The right choice and why it is right."""
    return Option(text, why, True)


def wrong(text: str, why: str) -> Option:
    """A wrong choice and what its taker has overlooked."""
    return Option(text, why)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with choices; `recalls` names the chapter whose matter it asks for ("" = this one)."""

    kind: ClassVar[str] = "choice"
    id: str
    text: str
    options: tuple[Option, ...]
    recalls: str = ""
    objective: str = ""

    @property
    def chapter(self) -> str:
        return self.id[:2]

    def problems(self) -> list[str]:
        found = [] if ID.fullmatch(self.id) else [f"id {self.id!r} is not like '01-q1'"]
        if len(self.options) < 2 or sum(o.right for o in self.options) != 1:
            found.append("needs two or more options, exactly one of them right")
        if len({o.text for o in self.options}) < len(self.options):
            found.append("two options read the same")
        return found + [f"option {o.text!r} has no explanation" for o in self.options if not o.why.strip()]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A prediction: options, or a number with a unit in [low, high], or with `points` (labels) a number for each,
    which sketches a curve. Then `check.predict(id)` needs no more."""

    kind: ClassVar[str] = "predict"
    id: str
    question: str
    options: tuple[str, ...] = ()
    unit: str = ""
    low: float | None = None
    high: float | None = None
    points: tuple[str, ...] = ()
    objective: str = ""

    @property
    def chapter(self) -> str:
        return self.id[:2]

    @property
    def range(self) -> tuple[float, float]:
        """Where the number lies (of no meaning with options)."""
        return (0.0 if self.low is None else self.low, 1.0 if self.high is None else self.high)

    def problems(self) -> list[str]:
        found = [] if ID.fullmatch(self.id) else [f"id {self.id!r} is not like '01-p1'"]
        if bool(self.options) == (self.low is not None and self.high is not None):
            found.append("needs either options or both low and high")
        if self.low is not None and self.high is not None and not self.low < self.high:
            found.append(f"low {self.low} is not below high {self.high}")
        if len(set(self.options)) < len(self.options) or len(set(self.points)) < len(self.points):
            found.append("two options or points read the same")
        return found
