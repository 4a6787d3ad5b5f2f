"""Judging an answer that is a function: it is run on every case, and what came is diagnosed."""

from __future__ import annotations

import importlib.util
import inspect
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nlbook.book.check.call import Call, call
from nlbook.book.check.define import Case, Draw, Implement, KernelPuzzle
from nlbook.book.check.diagnose import Run, diagnose
from nlbook.book.check.values import copy_args, digits, largest_gap, same, snapshot
from nlbook.book.check.verdict import UNTRIED, Verdict, failed, untouched


def judge_function(item: Implement, answer: Any) -> Verdict:
    """The verdict on an answer that is a function."""
    if untouched(answer):
        return UNTRIED
    launch = item.launch if isinstance(item, KernelPuzzle) and item.launch else lambda function: function
    if isinstance(item, KernelPuzzle) and item.package and not _installed(item.package):
        told = f"This cannot be checked here: {item.package} is not installed. "
        return replace(UNTRIED, message=told + "The hints and the solution can be read all the same.")
    cases = item.all_cases()
    if (found := _signature(item, answer, cases[0])) is not None:
        return found
    # What is expected is worked out before any code of the learner runs.
    truth = item.truth if item.reference else launch(item.truth)
    expected = [snapshot(truth(*copy_args(c.args))) for c in cases]
    known = [(m.message, [_tried(launch(m.function), c.args) for c in cases]) for m in item.misconceptions]
    verdict = _run(item, launch(answer), cases, expected, known)
    if verdict.status == "passed" and isinstance(item, KernelPuzzle):
        return _counts(item, answer)
    return verdict


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
        return failed("signature", f"The answer is {kind}; expected the function {want} itself, without calling it.")
    try:
        signature = inspect.signature(answer)
    except (TypeError, ValueError):
        return None  # a builtin: the call will tell
    except KeyboardInterrupt:
        raise
    except BaseException:
        return failed("signature", f"The answer cannot be inspected; expected a plain function {want}.")
    try:
        signature.bind(*case.args)
    except TypeError:
        return failed("signature", f"Your function takes ({', '.join(signature.parameters)}); it is called as {want}.")
    return None


def _run(item: Implement, answer: Any, cases: Sequence[Case], expected: Sequence[Any], known: Sequence[Any]) -> Verdict:
    end = time.monotonic() + item.seconds
    runs: list[Run] = []
    faults: list[tuple[Run, Call]] = []
    changed: list[tuple[str, Run]] = []
    for number, (case, want) in enumerate(zip(cases, expected)):
        args = copy_args(case.args)
        came = call(answer, args, max(0.05, end - time.monotonic()), seed=number)
        if came.fault == "untried":
            return UNTRIED
        run = Run(case.label, dict(zip(item.names, case.args)), want, snapshot(came.value), came.printed)
        if came.fault:
            faults.append((replace(run, expected=(), got=()), came))
            if came.fault == "time":
                break
            continue
        runs.append(run)
        now = [(n, x, y) for n, x, y in zip(item.names, args, case.args) if n not in item.in_place]
        changed += [(n, run) for n, x, y in now if not same(snapshot(y), snapshot(x), 0.0, 0.0)]
    if faults:
        run, came = min(faults, key=lambda f: (f[1].fault != "time", f[0].size))
        return run.failed("time" if came.fault == "time" else "runs", f"Your code {came.words}.")
    wrong = diagnose(runs, known, item.time_dim, item.rtol, item.atol)
    if wrong is None and changed:
        name, run = changed[0]
        told = f"The values are right, but your function changes its argument {name} in place, which its caller "
        wrong = run.failed("mutation", told + "does not expect. Make a new tensor, or `.clone()` it first.")
    wrong = wrong or _gradient(item, answer, cases, end) or _properties(item, answer, end)
    if wrong is not None:
        return wrong
    gap = largest_gap([(r.expected, r.got) for r in runs])
    exact = "exact" if gap == 0 else f"equal up to rounding, largest difference {gap:.1e}"
    return Verdict("passed", message=f"Passed: {len(cases)} cases, {exact}{_extras(item)}.")


def _extras(item: Implement) -> str:
    told = [f"law: {p.name}" for p in item.properties]
    told += ["gradients by finite differences"] if item.differentiable else []
    return f"; {'; '.join(told)}" if told else ""


def _gradient(item: Implement, answer: Any, cases: Sequence[Case], end: float) -> Verdict | None:
    """Autograd through the answer against central differences of the reference, on the three smallest cases."""
    if not item.differentiable:
        return None

    for case in sorted(cases, key=lambda c: sum(a.numel() for a in c.args if isinstance(a, Tensor)))[:3]:
        at = [i for i, a in enumerate(case.args) if isinstance(a, Tensor) and a.is_floating_point()]

        def grads(*args: Any, at: Sequence[int] = at) -> Sequence[Tensor | None]:
            return gradient_of(answer, args, at)

        came = call(grads, copy_args(case.args), max(0.05, end - time.monotonic()))
        if "modified by an inplace operation" in came.message:  # in place on what the answer made itself: that is right
            with torch.autograd.graph.allow_mutation_on_saved_tensors():  # takes seconds to load, so not for everybody
                came = call(grads, copy_args(case.args), item.seconds)
        if came.fault:
            return failed("gradient", f"With inputs that require a gradient your code {came.words}.")
        for i, grad in zip(at, came.value):
            numeric = central_differences(item.truth, case.args, i)
            got = torch.zeros_like(numeric) if grad is None else grad
            if not numeric.numel() or (gap := float((numeric - got).abs().max())) <= 1e-5 * max(
                1.0, float(numeric.abs().max())
            ):
                continue
            cut = grad is None or not bool(got.any())
            why = ": it is cut (a `.detach()`, `.data`, `.item()` or `no_grad`?)" if cut else ""
            run = Run(case.label, dict(zip(item.names, case.args)), snapshot(numeric), snapshot(got))
            right = snapshot(item.truth(*copy_args(case.args)))
            for m in item.misconceptions:  # one that is right in its values too
                value = _tried(m.function, case.args)
                known = _tried(lambda *a, f=m.function, i=i: gradient_of(f, a, [i])[0], case.args)
                if value and known and same(value, right, 1e-9, 1e-10) and same(known, run.got, 1e-9, 1e-10):
                    return run.failed("misconception", m.message)
            told = f"The values are right, but the gradient with respect to {item.names[i]} is off by "
            return run.failed("gradient", f"{told}{digits(gap)}{why}.")
    return None


def gradient_of(answer: Any, args: Sequence[Any], at: Sequence[int]) -> Sequence[Tensor | None]:
    """The gradient of the weighted output in the arguments at the places `at`; None where it does not arrive.

    An answer that runs in another process brings a `gradient(args, at)` of its own.
    """
    if hasattr(answer, "gradient"):
        return answer.gradient(args, at)
    leaves = [args[i].requires_grad_() for i in at]
    with torch.enable_grad():
        total = _total(answer(*args))
    if not isinstance(total, Tensor) or not total.requires_grad:
        return [None] * len(leaves)
    return torch.autograd.grad(total, leaves, allow_unused=True)


def floats(out: Any) -> list[Tensor]:
    """The parts of an output that have a gradient."""
    parts = out if isinstance(out, (tuple, list)) else [out]
    return [p for p in parts if isinstance(p, Tensor) and p.is_floating_point()]


def weights(part: Tensor) -> Tensor:
    """The weights with which the numbers of an output are added up: uneven, so that no gradient cancels."""
    return torch.linspace(1.0, 2.0, part.numel(), dtype=part.dtype).reshape(part.shape)


def _total(out: Any) -> Any:
    return sum((p * weights(p)).sum() for p in floats(out))


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


def _properties(item: Implement, answer: Any, end: float) -> Verdict | None:
    for law in item.properties:
        for seed in range(min(8, item.samples)):
            draw = Draw(item.first_seed + seed, (seed + 1) / 8)
            came = call(law.law, (answer, draw), max(0.05, end - time.monotonic()), seed)
            if came.fault:
                return failed("property", f"While the law “{law.name}” was tried, your code {came.words}.")
            if came.value is not None:
                return failed("property", f"The law “{law.name}” is broken: {came.value}")
    return None


def _counts(item: KernelPuzzle, answer: Any) -> Verdict:
    came = call(item.counter, (answer,), item.seconds)
    if came.fault:
        return failed("runs", f"While its loads and stores were counted, your code {came.words}.")
    counts = dict(came.value)
    over = {k: v for k, v in counts.items() if v > item.par.get(k, math.inf)}
    rows = tuple((k, f"{v} (to beat: {item.par[k]})" if k in item.par else str(v)) for k, v in counts.items())
    if over:
        what = ", ".join(f"{v} {k} (at most {item.par[k]})" for k, v in over.items())
        return failed("counts", f"Right, but it still takes {what}.", rows)
    return Verdict("passed", message="Right, and within the counts.", rows=rows)
