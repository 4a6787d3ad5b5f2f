"""Predictions, exercises and questions: what a reader does in this book, and what the book says back.

    check.predict("01-p1")                        write down what you expect, before you see it
    check.reveal("01-p1")                         what came out, beside what you expected
    check.exercise("01-delta", delta_write)       is my function right? if not, in which way is it wrong?
    check.hint("01-delta", 1)                     a nudge; 2 and 3 say more
    check.solution("01-delta")                    a solution that runs
    check.choice("01-q1", "b")                    a question; every choice has its explanation
    check.recall("01-r1", "a")                    the same, about an earlier chapter
    check.progress(), check.predictions()         how far, and how well calibrated
    check.in_class()                              a set for a class: solutions are not shown

Chapters define their items in nlbook/book/chapters; see the README there.
"""

from __future__ import annotations

from typing import Any

from nlbook.book.check import registry, store
from nlbook.book.check.define import Exercise
from nlbook.book.check.judge import judge
from nlbook.book.check.prediction import Predict, Revealed, predict, predictions, reveal
from nlbook.book.check.questions import Question
from nlbook.book.check.result import Answered, Result, Solution, Stub, in_class
from nlbook.book.check.show import Note, Table, announce
from nlbook.errors import need

__all__ = [
    "Answered",
    "Predict",
    "Result",
    "Revealed",
    "choice",
    "exercise",
    "forget",
    "hint",
    "in_class",
    "predict",
    "predictions",
    "progress",
    "recall",
    "reveal",
    "solution",
    "stub",
]

FILE = "progress"


def exercise(id: str, answer: Any = None, *, score: int | None = None) -> Result:
    """Check an answer: the first reason to fail is named, with the smallest case where it does.

    `answer` is a function, a number (3.2, (3.2, "MB") or "3.2 MB"), a list of steps or a text, by the kind of
    exercise; `score` is your own score of a free text. A stub that raises NotImplementedError is "not tried".
    """
    item = registry.find(id, Exercise)
    result = Result(item, judge(item, answer, score))
    _note(id, result.status, result.reason)
    return announce(result)


def choice(id: str, answer: Any = None) -> Answered:
    """A question with choices; `answer` is a letter or an option's text."""
    item = registry.find(id, Question)
    result = Answered(item, answer, lambda a: _note(id, a.status, a.reason))
    _note(id, result.status, result.reason)
    return announce(result)


def recall(id: str, answer: Any = None) -> Answered:
    """A retrieval question: answer from memory first, then open the fold."""
    return choice(id, answer)


def hint(id: str, n: int = 1) -> Note:
    """Hint 1, 2 or 3 of an exercise."""
    item = registry.find(id, Exercise)
    need(type(n) is int and 1 <= n <= len(item.hints), "n", repr(n), f"a whole number from 1 to {len(item.hints)}")
    return Note(f"{id} hint {n} of {len(item.hints)}", item.hints[n - 1])


def solution(id: str) -> Solution:
    """A solution: shown as code, `.source`, and callable where it is a function."""
    return Solution(registry.find(id, Exercise))


def stub(id: str) -> Stub:
    """What the exercise cell holds at the start, cut from the solution, so that the two cannot drift."""
    return Stub(registry.find(id, Exercise))


def progress() -> Table:
    """Exercises and questions done, chapter by chapter, with the minutes that are left."""
    records = store.load(FILE)
    rows = []
    for number in registry.chapters():
        listed = [i for i in registry.chapter(number).values() if isinstance(i, Exercise)]
        asked = [i for i in registry.chapter(number).values() if isinstance(i, Question)]
        done = [e for e in listed if records.get(e.id, {}).get("passed")]
        tried = [e for e in listed if e.id in records and e not in done]
        right = sum(bool(records.get(q.id, {}).get("passed")) for q in asked)
        left = sum(e.minutes for e in listed) - sum(e.minutes for e in done)
        rows.append(
            [
                number,
                f"{len(done)} of {len(listed)}",
                str(len(tried)),
                f"{right} of {len(asked)}",
                f"{sum(e.points for e in done)} of {sum(e.points for e in listed)}",
                f"{left} min",
            ]
        )
    return Table("Progress", ["chapter", "exercises passed", "tried", "questions right", "points", "left"], rows)


def forget(id: str) -> None:
    """Start again: drop what is stored under an id ("01-p1") or a chapter ("01")."""
    for name in (FILE, "predictions"):
        kept = {k: v for k, v in store.load(name).items() if k != id and not (len(id) == 2 and k.startswith(f"{id}-"))}
        store.save(name, kept)


def _note(id: str, status: str, reason: str) -> None:
    if status == "not tried":
        return
    records = store.load(FILE)
    record = records.setdefault(id, {"tries": 0, "passed": ""})
    if not record["passed"]:
        record["tries"] += 1
        record["passed"] = store.now() if status == "passed" else ""
    record.update(status=status, reason=reason)
    store.save(FILE, records)
