"""A test kit: an exercise check is itself tested, with wrong answers that it must refuse and right ones it must accept.

assert_refuses("01-delta", {"hebb": hebb_write, ...})
assert_accepts("01-delta", {"one line": ..., "einsum": ...})
stub_drift("01-delta", cell_source)      None, or how a notebook's stub differs from the definition
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping
from itertools import islice, permutations
from types import ModuleType
from typing import Any

import torch

from nlbook.book.chapters import FOLDERS
from nlbook.book.check import registry
from nlbook.book.check.define import Derive, Estimate, Exercise, Explain, FixTheBug, Implement, Misconception, Order
from nlbook.book.check.functions import central_differences, judge_function
from nlbook.book.check.judge import judge
from nlbook.book.check.result import Result
from nlbook.book.check.source import body_of, compile_source, definition, drift
from nlbook.book.check.verdict import Verdict

GENERIC = {"value", "runs", "time"}  # reasons that say that something is wrong, not what


def verdict(id: str, answer: Any, score: int | None = None) -> Result:
    """Judge an answer without storing anything; the unchanged broken function of a FixTheBug counts as an answer."""
    item = registry.find(id, Exercise)
    if isinstance(item, FixTheBug):
        return Result(item, judge_function(item, answer))
    return Result(item, judge(item, answer, score))


def assert_refuses(id: str, mutants: Mapping[str, Any]) -> dict[str, Result]:
    """Every mutant fails, with a sentence; returns the results by name."""
    found = {name: verdict(id, answer) for name, answer in mutants.items()}
    slipped = [f"{n} ({r.status})" for n, r in found.items() if not (r.status == "failed" and r.reason and r.message)]
    assert not slipped, f"{id}: these wrong answers were not refused: {', '.join(slipped)}"
    return found


def assert_accepts(id: str, answers: Mapping[str, Any]) -> dict[str, Result]:
    """Every answer passes; returns the results by name."""
    found = {name: verdict(id, answer) for name, answer in answers.items()}
    refused = [f"{name}: {r.reason}: {r.message}" for name, r in found.items() if not r.passed]
    assert not refused, f"{id}: these right answers were refused:\n  " + "\n  ".join(refused)
    return found


def table(chapter: str) -> ModuleType:
    """The module with MUTANTS and ACCEPTED of a chapter."""
    return importlib.import_module(f"nlbook.book.chapters.{FOLDERS[chapter]}.answers")


def needed(item: Exercise) -> tuple[int, int]:
    """How many mutants, besides the misconceptions that the definition names, and accepted answers an exercise needs
    in its chapter's table."""
    if isinstance(item, Explain):
        return 0, 0
    if isinstance(item, Order):
        right = (p for p in permutations(item.steps) if judge(item, p).status == "passed")
        return 5, len(list(islice(right, 3)))
    known = len(item.misconceptions) if isinstance(item, Implement) else len(getattr(item, "wrong", ()))
    return max(0, 5 - known), 3


def check_definition(item: Exercise) -> list[str]:
    """What only running can tell: the solution passes, the stub does not, a misconception gets its message."""
    found = item.problems()
    if isinstance(item, Implement):
        found += _function_faults(item)
    elif isinstance(item, Estimate):
        if (v := judge(item, item.solution())).status != "passed":
            found.append(f"the solution does not pass: {v.message}")
        found += [
            f"the known wrong number {w} is not told by its message"
            for w, why in item.wrong.items()
            if judge(item, w).message != why
        ]
    elif isinstance(item, Order) and judge(item, item.one_order()).status != "passed":
        found.append("its own order does not pass")
    if judge(item, None).status != "not tried":
        found.append("no answer is not 'not tried'")
    return found


def _function_faults(item: Implement) -> list[str]:
    found = []
    if (v := judge(item, item.solution)).status != "passed":
        found.append(f"the solution does not pass: {v.reason}: {v.message}")
    stub = item.stub()
    found += [f"the stub drifts from the solution: {d}" for d in drift(stub, item.solution)]
    if (first := judge(item, stub)).status != "not tried":
        found.append(f"the stub is {first.status!r}, not 'not tried'")
    if isinstance(item, FixTheBug) and (first := judge_function(item, stub)).reason in {"", *GENERIC}:
        found.append(f"the broken function needs a message of its own; got {first.status}: {first.message}")
    cut = judge(item, compile_source(item.solution_source(), item.solution))
    if cut.status != "passed":
        found.append(f"the solution as shown does not run: {cut.message}")
    found += [
        f"the misconception {m.name!r} is not told by its message but: {v.reason}: {v.message}"
        for m in item.misconceptions
        if not _told(v := judge_function(item, m.function), m)
    ]
    if isinstance(item, Derive):
        found += _derivative_faults(item)
    return found


def _derivative_faults(item: Derive) -> list[str]:
    """Autograd of the objective against central differences: an objective that detaches something is found out."""
    found = [] if item.reference is None else ["reference has no effect here: the truth is autograd of objective_fn"]
    at = item.names.index(item.wrt)
    for case in item.all_cases()[:3]:
        numeric = central_differences(lambda *a: item.objective_fn(*a) * torch.ones(()), case.args, at)
        gap = float((numeric - item.truth(*case.args)).abs().max())
        if not gap <= 1e-5 * max(1.0, float(numeric.abs().max())):
            found.append(f"autograd of the objective is {gap:.3g} off finite differences")
    return found


def _told(v: Verdict, miss: Misconception) -> bool:
    return v.status == "failed" and v.message == miss.message


def stub_drift(id: str, cell: str) -> str | None:
    """None when a notebook cell defines the exercise's function as its stub does; otherwise what differs.

    Compared are the signature, the docstring and the body; comments and blank lines do not count.
    """
    item = registry.find(id, Exercise)
    want = definition(item.stub_source())
    if want is None:
        return None  # `answer = ...`: nothing to compare
    got = definition(cell, want.name)
    if got is None:
        return f"the cell does not define {want.name}"
    for part, look in (("signature", _signature), ("docstring", ast.get_docstring), ("body", body_of)):
        if look(want) != look(got):
            return f"the {part} of {want.name} differs from check.stub({id!r})"
    return None


def _signature(node: ast.FunctionDef) -> str:
    return ast.unparse(node.args) + (ast.unparse(node.returns) if node.returns else "")
