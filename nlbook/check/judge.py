"""Judging an answer: one function a kind of exercise, all giving a Verdict."""
from __future__ import annotations

import inspect
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from nlbook.check.define import Case, Draw, Estimate, Exercise, Explain, Implement, KernelPuzzle, Order
from nlbook.check.guard import Call, call
from nlbook.check.ladder import Finding, Miss, Outcome, diagnose
from nlbook.check.values import Leaf, brief, copy_args, digits, largest_gap, same, snapshot


@dataclass(frozen=True)
class Verdict:
    """`status` is passed, failed or not tried; `rung` is the first that failed; `rows` are numbers to look at."""

    status: str
    rung: str = ""
    message: str = ""
    rows: tuple[tuple[str, str], ...] = ()
    case: str = ""


UNTRIED = Verdict("not tried", message="Not tried yet.")


def untouched(answer: Any) -> bool:
    """Whether the reader has left the answer as it was. Identity only: an answer's `__eq__` is never asked."""
    return answer is None or answer is Ellipsis or (type(answer) is str and not answer.strip())


@singledispatch
def judge(item: Exercise, answer: Any, score: int | None = None) -> Verdict:
    """The verdict on an answer."""
    raise TypeError(f"no judge for {type(item).__name__}")


# -- functions

@judge.register
def _(item: Implement, answer: Any, score: int | None = None) -> Verdict:
    if untouched(answer):
        return UNTRIED
    cases = item.all_cases()
    if (found := _signature(item, answer, cases[0])) is not None:
        return found
    # What is expected is worked out before any code of the learner runs.
    expected = [snapshot(item.truth(*copy_args(c.args))) for c in cases]
    misses = [Miss(m.message, [_tried(m.function, c.args) for c in cases]) for m in item.near_misses]
    verdict = _run(item, answer, cases, expected, misses)
    if verdict.status == "passed" and isinstance(item, KernelPuzzle):
        return _counts(item, answer)
    return verdict


def _tried(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    try:
        return snapshot(function(*copy_args(args)))
    except Exception:
        return None


def _signature(item: Implement, answer: Any, case: Case) -> Verdict | None:
    want = f"{item.solution.__name__}({', '.join(item.names)})"
    if isinstance(answer, type) or not callable(answer):
        kind = "a class" if isinstance(answer, type) else f"of type {type(answer).__name__}"
        return Verdict("failed", "signature",
                       f"The answer is {kind}; expected the function {want} itself, without calling it.")
    try:
        signature = inspect.signature(answer)
    except (TypeError, ValueError):
        return None  # a builtin: the call will tell
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return Verdict("failed", "signature", f"The answer cannot be inspected; expected a plain function {want}.")
    try:
        signature.bind(*case.args)
    except TypeError:
        return Verdict("failed", "signature",
                       f"Your function takes ({', '.join(signature.parameters)}); it is called as {want}.")
    return None


def _run(item: Implement, answer: Any, cases: Sequence[Case], expected: Sequence[Any],
         misses: Sequence[Miss]) -> Verdict:
    end = time.monotonic() + item.seconds
    outcomes: list[Outcome] = []
    faults: list[tuple[Outcome, Call]] = []
    spoiled: tuple[str, Outcome] | None = None
    for number, (case, want) in enumerate(zip(cases, expected)):
        args = copy_args(case.args)
        came = call(answer, args, max(0.05, end - time.monotonic()), seed=number)
        if came.fault == "untried":
            return UNTRIED
        shown = dict(zip(item.names, case.args))
        if came.fault:
            faults.append((Outcome(case.label, shown, (), (), came.printed), came))
            if came.fault == "time":
                break
            continue
        outcome = Outcome(case.label, shown, want, snapshot(came.value), came.printed)
        outcomes.append(outcome)
        if spoiled is None:
            changed = [n for n, now, then in zip(item.names, args, case.args)
                       if n not in item.in_place and not same(snapshot(then), snapshot(now), 0.0, 0.0)]
            spoiled = (changed[0], outcome) if changed else None
    if faults:
        outcome, came = min(faults, key=lambda f: (f[1].fault != "time", f[0].size))
        rung = "time" if came.fault == "time" else "runs"
        return Verdict("failed", rung, f"Your code {came.told}.", tuple(outcome.numbers()), outcome.label)
    finding = diagnose(outcomes, misses, item.time_dim, item.rtol, item.atol)
    if finding is None and spoiled is not None:
        finding = Finding("mutation", f"The values are right, but your function changes its argument {spoiled[0]} in "
                          "place, which its caller does not expect. Make a new tensor, or `.clone()` it first.",
                          spoiled[1])
    if finding is None:
        finding = _gradient(item, answer, cases, end) or _properties(item, answer, end)
    if finding is None:
        gap = largest_gap([(o.expected, o.got) for o in outcomes])
        exact = "exact" if gap == 0 else f"equal up to rounding, largest difference {gap:.1e}"
        return Verdict("passed", message=f"Passed: {len(cases)} cases, {exact}{_extras(item)}.")
    rows = tuple(finding.outcome.numbers(finding.path)) if finding.outcome else ()
    return Verdict("failed", finding.rung, finding.message, rows, finding.outcome.label if finding.outcome else "")


def _extras(item: Implement) -> str:
    told = [f"law: {p.name}" for p in item.properties]
    told += ["gradients by finite differences"] if item.differentiable else []
    return f"; {'; '.join(told)}" if told else ""


def _gradient(item: Implement, answer: Any, cases: Sequence[Case], end: float) -> Finding | None:
    """Autograd through the answer against central differences of the reference, on the three smallest cases."""
    if not item.differentiable:
        return None
    for case in sorted(cases, key=lambda c: sum(a.numel() for a in c.args if isinstance(a, Tensor)))[:3]:
        args = copy_args(case.args)
        at = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.is_floating_point()]
        for i in at:
            args[i].requires_grad_()
        came = call(lambda *a: _total(answer(*a)), args, max(0.05, end - time.monotonic()))
        if came.fault:
            return Finding("gradient", f"With inputs that require a gradient your code {came.told}.")
        grads: Sequence[Tensor | None] = [None] * len(at)
        if isinstance(came.value, Tensor) and came.value.requires_grad:
            grads = torch.autograd.grad(came.value, [args[i] for i in at], allow_unused=True)
        for i, grad in zip(at, grads):
            numeric = central_differences(item.truth, case.args, i)
            got = torch.zeros_like(numeric) if grad is None else grad
            scale = max(1.0, float(numeric.abs().max())) if numeric.numel() else 1.0
            gap = float((numeric - got).abs().max()) if numeric.numel() else 0.0
            if not gap <= 1e-5 * scale:
                cut = grad is None or not bool(got.any())
                why = ": it is cut (a `.detach()`, `.data`, `.item()` or `no_grad`?)" if cut else ""
                outcome = Outcome(case.label, dict(zip(item.names, case.args)), snapshot(numeric), snapshot(got))
                return Finding("gradient", f"The values are right, but the gradient with respect to {item.names[i]} is "
                               f"off by {digits(gap)}{why}.", outcome)
    return None


def _total(out: Any) -> Any:
    """One number from any output: its parts weighted unevenly, so that no gradient cancels."""
    parts = out if isinstance(out, (tuple, list)) else [out]
    floats = [p for p in parts if isinstance(p, Tensor) and p.is_floating_point()]
    return sum((p * torch.linspace(1.0, 2.0, p.numel(), dtype=p.dtype).reshape(p.shape)).sum() for p in floats)


def central_differences(function: Callable[..., Any], args: tuple[Any, ...], at: int, step: float = 1e-6) -> Tensor:
    """Central differences of the weighted output in argument `at`."""
    x = args[at]
    grad = torch.zeros_like(x)
    for j in range(x.numel()):
        ends = []
        for sign in (1, -1):
            moved = list(copy_args(args))
            moved[at].view(-1)[j] += sign * step
            ends.append(float(_total(function(*moved))))
        grad.view(-1)[j] = (ends[0] - ends[1]) / (2 * step)
    return grad


def _properties(item: Implement, answer: Any, end: float) -> Finding | None:
    for law in item.properties:
        for seed in range(min(8, item.samples)):
            came = call(lambda f, s=seed, p=law: p.law(f, Draw(s, (s + 1) / 8)), (answer,),  # type: ignore[misc]
                        max(0.05, end - time.monotonic()), seed)
            if came.fault:
                return Finding("property", f"While the law “{law.name}” was tried, your code {came.told}.")
            if came.value is not None:
                return Finding("property", f"The law “{law.name}” is broken: {came.value}")
    return None


def _counts(item: KernelPuzzle, answer: Any) -> Verdict:
    came = call(item.counter, (answer,), item.seconds)
    if came.fault:
        return Verdict("failed", "runs", f"While its loads and stores were counted, your code {came.told}.")
    counts = dict(came.value)
    over = {k: v for k, v in counts.items() if v > item.par.get(k, math.inf)}
    rows = tuple((k, f"{v} (to beat: {item.par[k]})" if k in item.par else str(v)) for k, v in counts.items())
    if over:
        what = ", ".join(f"{v} {k} (at most {item.par[k]})" for k, v in over.items())
        return Verdict("failed", "counts", f"Right, but it still takes {what}.", rows)
    return Verdict("passed", message="Right, and within the counts.", rows=rows)


# -- numbers

@judge.register
def _(item: Estimate, answer: Any, score: int | None = None) -> Verdict:
    if untouched(answer):
        return UNTRIED
    value, unit, fault = _quantity(answer)
    if fault:
        return Verdict("failed", "type", fault)
    if unit and unit != item.unit and unit not in item.units:
        known = ", ".join([item.unit, *item.units]) if item.unit else "a plain number"
        return Verdict("failed", "unit", f"The unit {unit!r} is not known here; expected {known}.")
    value *= item.units.get(unit, 1.0) if unit != item.unit else 1.0
    low, high = item.interval()
    told = f"{digits(value)} {item.unit}".strip()
    if low <= value <= high:
        exact = float(item.solution())
        return Verdict("passed", message=f"Right: {told} (worked out: {digits(exact)}).")
    for known_wrong, why in item.wrong.items():
        if abs(value - known_wrong) <= 1e-3 * max(abs(known_wrong), 1e-12):
            return Verdict("failed", "near miss", why)
    if low * value < 0 and high * value < 0:
        return Verdict("failed", "sign", f"{told} has the wrong sign.")
    middle = (low + high) / 2
    if value and middle and (value > 0) == (middle > 0):
        for factor, why in ((8, "bits and bytes mixed up?"), (1024, "a unit step (kilo, mega) too far?"),
                            (1000, "a unit step (milli, kilo, mega) too far?"), (100, "percent and share mixed up?")):
            if low <= value / factor <= high or low <= value * factor <= high:
                big = value > middle
                return Verdict("failed", "factor",
                               f"{told} is about {factor} times too {'large' if big else 'small'}: {why}")
    small = "small" if value < low else "large"
    return Verdict("failed", "value", f"{told} is too {small}.")


def _quantity(answer: Any) -> tuple[float, str, str]:
    """A number and its unit from 3.2, (3.2, "MB") or "3.2 MB"; the third part says what is wrong with it."""
    unit = ""
    if type(answer) in (tuple, list) and len(answer) == 2 and type(answer[1]) is str:
        answer, unit = answer[0], answer[1].strip()
    elif type(answer) is str:
        found = re.fullmatch(r"\s*([-+]?[\d_]*\.?\d+(?:[eE][-+]?\d+)?)\s*(\S.*)?", answer)
        if not found:
            return 0.0, "", f"{answer!r} is no number; expected for example 3.2 or '3.2 MB'."
        answer, unit = float(found[1]), (found[2] or "").strip()
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
        return Verdict("failed", "type", "Expected a list of the steps (or of their numbers, from 1) in your order.")
    steps = []
    for s in answer:
        if type(s) is int and 1 <= s <= len(item.steps):
            steps.append(item.steps[s - 1])
        elif s in item.steps:
            steps.append(s)
        else:
            return Verdict("failed", "choice", f"{s!r} is not one of the steps.")
    if len(steps) != len(set(steps)) or len(steps) != len(item.steps):
        missing = [s for s in item.steps if s not in steps]
        what = f"missing: {missing[0]!r}" if missing else "a step stands twice"
        return Verdict("failed", "structure", f"Every step belongs in the list once; {what}.")
    if steps == list(item.steps):
        return UNTRIED  # as the stub listed them, which is never a right order
    conflicts = [(max(steps.index(a), steps.index(b)), a, b, why) for a, b, why in item.before
                 if steps.index(a) > steps.index(b)]
    if not conflicts:
        return Verdict("passed", message="Right: every step finds what it needs.")
    _, first, later, why = min(conflicts)
    return Verdict("failed", "order", f"“{first}” must come before “{later}”: {why}")


@judge.register
def _(item: Explain, answer: Any, score: int | None = None) -> Verdict:
    if untouched(answer):
        return UNTRIED
    if type(answer) is not str:
        return Verdict("failed", "type", f"The answer is a {type(answer).__name__}; expected a text of some sentences.")
    rows = tuple((f"point {i}", r) for i, r in enumerate(item.rubric, 1))
    if len(answer.split()) < item.words:
        return Verdict("failed", "structure",
                       f"Write at least {item.words} words before you compare; there are {len(answer.split())}.")
    full = len(item.rubric)
    if score is None:
        return replace(UNTRIED, rung="self-score", rows=rows, message=(
            f"Written. Compare with the solution below, then score yourself: one for each point, "
            f"`check.exercise({item.id!r}, answer, score=...)` with 0 to {full}."))
    if type(score) is not int or not 0 <= score <= full:
        return Verdict("failed", "self-score",
                       f"score: got {brief(score)}, expected a whole number from 0 to {full}.", rows)
    return Verdict("passed" if 2 * score >= full else "failed", "" if 2 * score >= full else "self-score",
                   f"Self-scored {score} of {full}.", rows)
