"""Another instance of an exercise from a seed: a function is judged on other cases, a number is asked anew.

Seed 0 is the exercise as it is printed in the book. Any other seed gives, for functions, drawn cases of their own (the
fixed cases and the laws stay), and for the questions listed in variants.yaml other numbers in the question, hence
another answer. A question that is not listed is the same for every seed (`fixed()` names them).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nlbook.book.check import registry
from nlbook.book.check.define import Draw, Estimate, Exercise, Implement, ReadPicture
from nlbook_tools.course.questions import Drawn, number_of, read


def listed() -> dict[str, dict[str, Any]]:
    """The questions that have other numbers for each seed, by exercise."""
    return read("variants.yaml")


def private(id: str, seed: int = 0) -> Exercise:
    """The exercise as the set of `seed` asks it; with seed 0 as the book prints it."""
    item = registry.find(id, Exercise)
    if seed == 0:
        return item
    own = number_of(seed, id)
    if isinstance(item, Implement):
        return replace(item, first_seed=own)
    if not isinstance(item, Estimate) or id not in listed():
        return item
    question = listed()[id]
    drawn = Drawn(question, Draw(own))
    answer = drawn.names["answer"] = drawn.value(question["answer"])
    wrong = {drawn.value(number): drawn.text(why) for number, why in question.get("wrong", {}).items()}
    near = question.get("apart", 0) * max(abs(answer), 1e-12)
    changed: dict[str, Any] = {"prompt": drawn.text(question["ask"]), "solution": lambda: answer}
    changed["wrong"] = {w: why for w, why in wrong.items() if abs(w - answer) > near}
    if isinstance(item, ReadPicture):
        changed["view"] = drawn.names["view"]
    return replace(item, **changed)


def fixed() -> list[str]:
    """The exercises that end in a number and are the same for every seed."""
    return [e.id for e in registry.items(Estimate) if e.id not in listed()]
