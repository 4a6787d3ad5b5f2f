"""Judging an answer that is a function: it is run on every case, and what came is handed to the ladder."""

from __future__ import annotations

import importlib.util
import inspect
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nlbook.book.check.define import Case, Draw, Implement, KernelPuzzle
from nlbook.book.check.guard import Call, call
from nlbook.book.check.ladder import Finding, Miss, Outcome, diagnose
from nlbook.book.check.values import copy_args, digits, largest_gap, same, snapshot
from nlbook.book.check.verdict import UNTRIED, Verdict, untouched


def judge_function(item: Implement, answer: Any) -> Verdict:
    """The whole ladder for an answer that is a function."""
    if untouched(answer):
        return UNTRIED
    launch: Callable[[Callable[..., Any]], Callable[..., Any]] = _as_it_is
    if isinstance(item, KernelPuzzle):
        if item.package and not _installed(item.package):
            return Verdict(
                "not tried",
                message=f"This cannot be checked here: {item.package} is not installed. "
                "The hints and the solution can be read all the same.",
            )
        launch = item.launch or _as_it_is
    cases = item.all_cases()
    if (found := _signature(item, answer, cases[0])) is not None:
        return found
    # What is expected is worked out before any code of the learner runs.
    truth = item.truth if item.reference else launch(item.truth)
    expected = [snapshot(truth(*copy_args(c.args))) for c in cases]
    misses = [Miss(m.message, [_tried(launch(m.function), c.args) for c in cases]) for m in item.near_misses]
    verdict = _run(item, launch(answer), cases, expected, misses)
    if verdict.status == "passed" and isinstance(item, KernelPuzzle):
        return _counts(item, answer)
    return verdict


def _as_it_is(answer: Callable[..., Any]) -> Callable[..., Any]:
    return answer


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _tried(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    try:
        return snapshot(function(*copy_args(args)))
    except Exception:
        return None


def _signature(item: Implement, answer: Any, case: Case) -> Verdict | None:
    want = f"{item.solution.__name__}({', '.join(item.names)})"
    if isinstance(answer, type) or not callable(answer):
        kind = "a class" if isinstance(answer, type) else f"of type {type(answer).__name__}"
        return Verdict(
            "failed", "signature", f"The answer is {kind}; expected the function {want} itself, without calling it."
        )
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
        return Verdict(
            "failed", "signature", f"Your function takes ({', '.join(signature.parameters)}); it is called as {want}."
        )
    return None


def _run(
    item: Implement, answer: Any, cases: Sequence[Case], expected: Sequence[Any], misses: Sequence[Miss]
) -> Verdict:
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
            changed = [
                n
                for n, now, then in zip(item.names, args, case.args)
                if n not in item.in_place and not same(snapshot(then), snapshot(now), 0.0, 0.0)
            ]
            spoiled = (changed[0], outcome) if changed else None
    if faults:
        outcome, came = min(faults, key=lambda f: (f[1].fault != "time", f[0].size))
        rung = "time" if came.fault == "time" else "runs"
        return Verdict("failed", rung, f"Your code {came.told}.", tuple(outcome.numbers()), outcome.label)
    finding = diagnose(outcomes, misses, item.time_dim, item.rtol, item.atol)
    if finding is None and spoiled is not None:
        finding = Finding(
            "mutation",
            f"The values are right, but your function changes its argument {spoiled[0]} in "
            "place, which its caller does not expect. Make a new tensor, or `.clone()` it first.",
            spoiled[1],
        )
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
                return Finding(
                    "gradient",
                    f"The values are right, but the gradient with respect to {item.names[i]} is "
                    f"off by {digits(gap)}{why}.",
                    outcome,
                )
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
            came = call(
                lambda f, s=seed, p=law: p.law(f, Draw(item.first_seed + s, (s + 1) / 8)),
                (answer,),  # type: ignore[misc]
                max(0.05, end - time.monotonic()),
                seed,
            )
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
