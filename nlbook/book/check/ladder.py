"""The ladder of diagnoses: from what the answer returned to one sentence that helps.

A sentence about *how* an answer is wrong ("2 times too large") is only said when it explains every case, so one
case with a single number never passes a coincidence off as a cause. The numbers shown are those of the smallest
case that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from torch import Tensor

from nlbook.book.check.values import Leaf, Tree, brief, close, digits, leaves, problem, same, snapshot, wrong_leaves

RUNGS = (
    "signature",
    "runs",
    "time",
    "near miss",
    "type",
    "structure",
    "shape",
    "dtype",
    "finite",
    "sign",
    "factor",
    "transpose",
    "off by one",
    "unchanged",
    "value",
    "mutation",
    "gradient",
    "property",
    "counts",
    "unit",
    "order",
    "choice",
    "self-score",
)


@dataclass(frozen=True)
class Outcome:
    """One case: what went in, what should come out, what came out."""

    label: str
    args: dict[str, Any]
    expected: Tree
    got: Tree
    printed: str = ""

    @property
    def size(self) -> int:
        """How much there is to read: the elements of all arguments."""
        return sum(x.numel() if isinstance(x, Tensor) else 1 for x in self.args.values())

    def numbers(self, path: str = "") -> list[tuple[str, str]]:
        """The rows shown to the learner."""
        rows = [(name, brief(value)) for name, value in self.args.items()]
        shown = [(p, e, g) for (p, e), (_, g) in zip(leaves(self.expected), leaves(self.got)) if path in ("", p)]
        for p, e, g in shown[:1]:
            what = "" if p == "the output" else f" ({p})"
            rows += [(f"expected{what}", brief(e)), (f"yours{what}", brief(g) if g.value is not None else g.type)]
        return rows + ([("your code printed", self.printed.strip()[:300])] if self.printed.strip() else [])


@dataclass(frozen=True)
class Finding:
    """The first rung that failed."""

    rung: str
    message: str
    outcome: Outcome | None = None
    path: str = ""


@dataclass(frozen=True)
class Miss:
    """A near miss with what it gives on each case (None where it cannot run)."""

    message: str
    outputs: Sequence[Tree | None]


def diagnose(
    outcomes: Sequence[Outcome],
    misses: Sequence[Miss] = (),
    time_dim: int | None = None,
    rtol: float = 1e-9,
    atol: float = 1e-10,
) -> Finding | None:
    """The first failing rung, or None when every case agrees."""
    failing = sorted((o for o in outcomes if not same(o.expected, o.got, rtol, atol)), key=lambda o: o.size)
    if not failing:
        return None
    for miss in misses:
        if all(m is not None and same(m, o.got, rtol, atol) for m, o in zip(miss.outputs, outcomes)):
            return Finding("near miss", miss.message, failing[0])
    for o in failing:
        if (found := problem(o.expected, o.got)) is not None:
            return Finding(found[0], sentence(found[1]), o)
    path, e, g = wrong_leaves(failing[0].expected, failing[0].got, rtol, atol)[0]
    if not isinstance(e.value, np.ndarray):
        return Finding("value", sentence(f"{path} is {brief(g)}; expected {brief(e)}."), failing[0], path)
    pairs = [
        Pair(ee.value, gg.value, o.args)
        for o in outcomes
        for (p, ee), (_, gg) in zip(leaves(o.expected), leaves(o.got))
        if p == path and ee.value is not None
    ]
    for guess in (_whole, _change, _late):
        if (said := guess(pairs, time_dim, rtol, atol)) is not None:
            return Finding(said[0], sentence(f"{path} {said[1]}"), failing[0], path)
    return Finding("value", _difference(path, e, g, failing, len(outcomes), time_dim, rtol), failing[0], path)


@dataclass(frozen=True)
class Pair:
    """The same output in one case: expected, got, and the arguments."""

    e: np.ndarray
    g: np.ndarray
    args: dict[str, Any]


Said = tuple[str, str] | None


def _explains(pairs: Sequence[Pair], guess: Callable[[Pair], np.ndarray | None], rtol: float, atol: float) -> bool:
    """Whether `guess` of the expected value gives what came in every case, and that says something."""
    told = 0
    for p in pairs:
        made = guess(p)
        if made is None or not close(made, p.g, rtol * 100, atol * 100):
            return False
        told += int(np.count_nonzero(made))
    return told > 1


def _whole(pairs: Sequence[Pair], time_dim: int | None, rtol: float, atol: float) -> Said:
    """Sign, factor and transpose of the output itself."""
    if _explains(pairs, lambda p: -p.e, rtol, atol):
        return "sign", "has the wrong sign."
    if (how := _factor([(p.e, p.g, p.args) for p in pairs], rtol, atol)) is not None:
        return "factor", f"is {how}."
    if _explains(pairs, lambda p: p.e.mT if p.e.ndim > 1 else None, rtol, atol):
        return "transpose", "is the transpose of what is expected: rows and columns are swapped."
    return None


def _change(pairs: Sequence[Pair], time_dim: int | None, rtol: float, atol: float) -> Said:
    """Unchanged input, and sign, factor and transpose of the change made to an input."""
    for name, value in pairs[0].args.items():
        if not isinstance(value, Tensor) or not all(tuple(p.args[name].shape) == p.e.shape for p in pairs):
            continue
        if _explains(pairs, lambda p, n=name: _array(p.args[n]), rtol, atol):  # type: ignore[misc]
            return "unchanged", f"is {name}, just as it came in."
        if _explains(pairs, lambda p, n=name: 2 * _array(p.args[n]) - p.e, rtol, atol):  # type: ignore[misc]
            return "sign", f"moves {name} the wrong way: the change made to it has the wrong sign."
        moves = [(p.e - _array(p.args[name]), p.g - _array(p.args[name]), p.args) for p in pairs]
        if (how := _factor(moves, rtol * 100, atol * 100)) is not None:
            return "factor", f"moves {name} the right way, but the change is {how}."
        if _explains(
            pairs,
            lambda p, n=name: (
                _array(p.args[n]) + (p.e - _array(p.args[n])).mT  # type: ignore[misc]
                if p.e.ndim > 1 and p.e.shape[-1] == p.e.shape[-2]
                else None
            ),
            rtol,
            atol,
        ):
            return "transpose", f"changes {name} by the transpose of what is expected: swap the two vectors."
    return None


def _late(pairs: Sequence[Pair], time_dim: int | None, rtol: float, atol: float) -> Said:
    """The reference one step late, early or backwards along the tokens."""
    if time_dim is None or any(p.e.ndim == 0 for p in pairs):
        return None
    long = [Pair(np.moveaxis(p.e, time_dim, 0), np.moveaxis(p.g, time_dim, 0), p.args) for p in pairs]
    long = [p for p in long if len(p.e) > 1]
    if not long:
        return None
    if _explains([Pair(p.e[:-1], p.g[1:], p.args) for p in long], lambda p: p.e, rtol, atol):
        return "off by one", "equals the reference one step late: is the read before a write that should come first?"
    if _explains([Pair(p.e[1:], p.g[:-1], p.args) for p in long], lambda p: p.e, rtol, atol):
        return "off by one", "equals the reference one step early: does token t read what it has written itself?"
    if _explains(long, lambda p: p.e[::-1], rtol, atol):
        return "off by one", "equals the reference backwards in time."
    return None


def _factor(moves: Sequence[tuple[np.ndarray, np.ndarray, dict[str, Any]]], rtol: float, atol: float) -> str | None:
    """How `got = c * expected`, where c is one number, a size of an argument, or an argument; in words."""
    ratios = []
    for e, g, args in moves:
        power = float(np.sum(np.abs(e) ** 2))
        if power < 1e-20:
            if not close(e, g, rtol, atol):
                return None
            continue
        c = float(np.real(np.sum(np.conj(e) * g))) / power
        if abs(c) < 1e-8 or not close(c * e, g, rtol * 100, atol * 100):
            return None
        ratios.append((c, e.size, args))
    if sum(n for _, n, _ in ratios) < 2 or all(abs(c - 1) < 1e-4 for c, _, _ in ratios):
        return None  # one number proves no factor, and a factor of one is rounding

    def every(value: Callable[[dict[str, Any]], float | None]) -> bool:
        made = [(c, value(args)) for c, _, args in ratios]
        return all(v is not None and abs(c - v) <= 1e-6 * abs(v) for c, v in made) and len({c for c, _ in made}) > 1

    first = ratios[0][0]
    if all(abs(c - first) <= 1e-6 * abs(first) for c, _, _ in ratios):
        return _times(first)
    for name, value in ratios[0][2].items():
        if isinstance(value, float):
            if every(lambda a, n=name: a[n]):  # type: ignore[misc]
                return f"multiplied by {name} once too often"
            if every(lambda a, n=name: 1 / a[n] if a[n] else None):  # type: ignore[misc]
                return f"not multiplied by {name}"
        for d in range(value.ndim if isinstance(value, Tensor) else 0):
            if every(lambda a, n=name, d=d: a[n].shape[d]):  # type: ignore[misc]
                return f"too large by the size {d} of {name}: a sum where a mean is meant?"
            if every(lambda a, n=name, d=d: 1 / a[n].shape[d]):  # type: ignore[misc]
                return f"too small by the size {d} of {name}: a mean where a sum is meant?"
    return None


def _times(c: float) -> str:
    turn = "of the wrong sign and " if c < 0 else ""
    c = abs(c)
    near = Fraction(c).limit_denominator(100)
    exact = abs(float(near) - c) <= 1e-6 * c
    if c >= 1:
        return f"{turn}{near if exact else digits(c)} times too large"
    return f"{turn}{1 / near if exact and near else digits(1 / c)} times too small"


def sentence(text: str) -> str:
    """With a capital at the start."""
    return text[:1].upper() + text[1:]


def _array(x: Tensor) -> np.ndarray:
    leaf = snapshot(x)
    return leaf.value if isinstance(leaf, Leaf) else np.empty(0)


def _difference(
    path: str, e: Leaf, g: Leaf, failing: Sequence[Outcome], total: int, time_dim: int | None, rtol: float
) -> str:
    gap = np.abs(e.value - g.value)
    share = float(np.max(gap)) / max(float(np.max(np.abs(e.value))), 1e-300)
    told = (
        f"{sentence(path)} differs in {len(failing)} of {total} cases; largest difference {digits(float(np.max(gap)))}"
    )
    if share < 1e-4:
        return f"{told}: approximately right, not exactly. A float32 step, or an epsilon that the formula has not?"
    if time_dim is not None and e.value.ndim and np.moveaxis(gap, time_dim, 0).shape[0] > 1:
        by_step = np.moveaxis(gap, time_dim, 0).reshape(gap.shape[time_dim], -1).max(axis=1)
        first = int(np.argmax(by_step > 1e-8))
        return f"{told}. Step {first} is the first that is wrong; compare the numbers there."
    bad = gap > rtol * 100 * max(float(np.max(np.abs(e.value))), 1e-300)
    if gap.size > 1 and 0 < bad.sum() < gap.size:
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        return f"{told}. {int(bad.sum())} of {gap.size} entries are wrong, the first at {list(at)}."
    return f"{told}. Work the smallest failing case by hand."
