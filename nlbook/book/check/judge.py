"""Judging an answer: one function a kind of exercise, all giving a Verdict."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import singledispatch
from typing import Any

from nlbook.book.check.define import Estimate, Exercise, Explain, FixTheBug, Implement, Order
from nlbook.book.check.functions import judge_function
from nlbook.book.check.source import same_body
from nlbook.book.check.values import Leaf, brief, digits, snapshot
from nlbook.book.check.verdict import UNTRIED, Verdict, failed, untouched


@singledispatch
def judge(item: Exercise, answer: Any, score: int | None = None) -> Verdict:
    """The verdict on an answer."""
    raise TypeError(f"no judge for {type(item).__name__}")


# -- functions


@judge.register
def _(item: Implement, answer: Any, score: int | None = None) -> Verdict:
    return judge_function(item, answer)


@judge.register
def _(item: FixTheBug, answer: Any, score: int | None = None) -> Verdict:
    """As it was handed out, the function is shown failing, but not diagnosed: that is the exercise."""
    verdict = judge_function(item, answer)
    if verdict.status == "failed" and same_body(answer, item.broken):
        return replace(verdict, status="not tried", reason="", message="Unchanged so far; this is where it fails.")
    return verdict


# -- numbers


@judge.register
def _(item: Estimate, answer: Any, score: int | None = None) -> Verdict:
    if untouched(answer):
        return UNTRIED
    value, unit, fault = _quantity(answer)
    if fault:
        return failed("type", fault)
    if unit == "%" and item.unit != "%" and "%" not in item.units:
        value, unit = value / 100, ""  # a share, said in percent
    if unit and unit != item.unit and unit not in item.units:
        known = ", ".join([item.unit, *item.units]) if item.unit else "a plain number"
        return failed("unit", f"The unit {unit!r} is not known here; expected {known}.")
    value *= item.units.get(unit, 1.0) if unit != item.unit else 1.0
    low, high = item.interval()
    told = f"{digits(value)} {item.unit}".strip()
    if low <= value <= high:
        exact = float(item.solution())
        return Verdict("passed", message=f"Right: {told} (worked out: {digits(exact)}).")
    for known_wrong, why in item.wrong.items():
        if abs(value - known_wrong) <= 1e-2 * max(abs(known_wrong), 1e-12):
            return failed("misconception", why)
    if low * value < 0 and high * value < 0:
        return failed("sign", f"{told} has the wrong sign.")
    middle = (low + high) / 2
    if value and middle and (value > 0) == (middle > 0):
        for factor, why in (
            (8, "bits and bytes mixed up?"),
            (1024, "a unit step (kilo, mega) too far?"),
            (1000, "a unit step (milli, kilo, mega) too far?"),
            (100, "percent and share mixed up?"),
        ):
            if low <= value / factor <= high or low <= value * factor <= high:
                big = value > middle
                return failed("factor", f"{told} is about {factor} times too {'large' if big else 'small'}: {why}")
    small = "small" if value < low else "large"
    return failed("value", f"{told} is too {small}.")


def _quantity(answer: Any) -> tuple[float, str, str]:
    """A number and its unit from 3.2, (3.2, "MB"), "3.2 MB" or "1/2"; the third part says what is wrong with it."""
    unit = ""
    if type(answer) in (tuple, list) and len(answer) == 2 and type(answer[1]) is str:
        answer, unit = answer[0], answer[1].strip()
    elif type(answer) is str:
        found = re.fullmatch(r"\s*([-+]?[\d_]*\.?\d+(?:[eE][-+]?\d+)?)(?:\s*/\s*([1-9]\d*))?\s*([^\s/].*)?", answer)
        if not found:
            return 0.0, "", f"{answer!r} is no number; expected for example 3.2, '1/2' or '3.2 MB'."
        answer, unit = float(found[1]) / float(found[2] or 1), (found[3] or "").strip()
    leaf = snapshot(answer)
    if not isinstance(leaf, Leaf) or leaf.kind not in ("number", "tensor", "array") or leaf.shape != ():
        return 0.0, "", f"The answer is a {type(answer).__name__}; expected one number."
    value = float(leaf.value)
    return value, unit, "" if math.isfinite(value) else f"The answer is {value}; expected a finite number."


# -- order and text


@judge.register
def _(item: Order, answer: Any, score: int | None = None) -> Verdict:
    if untouched(answer):
        return UNTRIED
    if type(answer) not in (list, tuple) or any(type(s) not in (str, int) for s in answer):
        return failed("type", "Expected a list of the steps (or of their numbers, from 1) in your order.")
    steps = []
    for s in answer:
        if type(s) is int and 1 <= s <= len(item.steps):
            steps.append(item.steps[s - 1])
        elif s in item.steps:
            steps.append(s)
        else:
            return failed("choice", f"{s!r} is not one of the steps.")
    if len(steps) != len(set(steps)) or len(steps) != len(item.steps):
        missing = [s for s in item.steps if s not in steps]
        what = f"missing: {missing[0]!r}" if missing else "a step stands twice"
        return failed("structure", f"Every step belongs in the list once; {what}.")
    if steps == list(item.steps):
        return UNTRIED  # as the stub listed them, which is never a right order
    conflicts = [
        (max(steps.index(a), steps.index(b)), a, b, why) for a, b, why in item.before if steps.index(a) > steps.index(b)
    ]
    if not conflicts:
        return Verdict("passed", message="Right: every step finds what it needs.")
    _, first, later, why = min(conflicts)
    return failed("order", f"“{first}” must come before “{later}”: {why}")


@judge.register
def _(item: Explain, answer: Any, score: int | None = None) -> Verdict:
    if untouched(answer):
        return UNTRIED
    if type(answer) is not str:
        return failed("type", f"The answer is a {type(answer).__name__}; expected a text of some sentences.")
    rows = tuple((f"point {i}", r) for i, r in enumerate(item.rubric, 1))
    if len(answer.split()) < item.words:
        return failed(
            "structure",
            f"Write at least {item.words} words before you compare; there are {len(answer.split())}.",
        )
    full = len(item.rubric)
    if score is None:
        return replace(
            UNTRIED,
            reason="self-score",
            rows=rows,
            message=(
                f"Written. Compare with the solution below, then score yourself: one for each point, "
                f"`check.exercise({item.id!r}, answer, score=...)` with 0 to {full}."
            ),
        )
    if type(score) is not int or not 0 <= score <= full:
        return failed("self-score", f"score: got {brief(score)}, expected a whole number from 0 to {full}.", rows)
    return Verdict(
        "passed" if 2 * score >= full else "failed",
        "" if 2 * score >= full else "self-score",
        f"Self-scored {score} of {full}.",
        rows,
    )
