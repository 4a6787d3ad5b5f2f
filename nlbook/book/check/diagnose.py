"""The diagnosis: from what the answer returned to one sentence that helps.

A sentence about *how* an answer is wrong ("2 times too large") is only said when it explains every case, so one
case with a single number never passes a coincidence off as a cause. The numbers shown are those of the smallest
case that fails, and of one in whole numbers or halves where there is one: it can be worked by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from torch import Tensor

from nlbook.book.check.values import Leaf, Tree, brief, close, digits, leaves, problem, same, snapshot, wrong_leaves
from nlbook.book.check.verdict import Verdict, failed

Pair = tuple[np.ndarray, np.ndarray, dict[str, Any]]
"""One output in one case: expected, got, and the arguments."""


@dataclass(frozen=True)
class Run:
    """One case: what went in, what should come out, what came out."""

    label: str
    args: dict[str, Any]
    expected: Tree
    got: Tree
    printed: str = ""

    @property
    def size(self) -> tuple[bool, int]:
        """How hard it is to work by hand: not in whole numbers or halves, then the elements of all arguments."""
        numbers = [_array(x) if isinstance(x, Tensor) else np.asarray(x) for x in _flat(self.args.values())]
        plain = all(np.array_equal(2 * n, np.round(2 * n)) for n in numbers if n.dtype.kind in "fiu")
        return not plain, sum(n.size for n in numbers)

    def numbers(self, path: str = "") -> list[tuple[str, str]]:
        """The rows shown to the learner, with as many digits as tell what is expected from what came."""
        rows = [(name, brief(value)) for name, value in self.args.items()]
        both = [(p, e, g) for (p, e), (_, g) in zip(leaves(self.expected), leaves(self.got)) if path in ("", p)]
        for p, e, g in sorted(both, key=lambda b: brief(b[1], n=17) == brief(b[2], n=17))[:1]:  # one that differs
            what = "" if p == "the output" else f" ({p})"
            shown = [(brief(e, n=n), brief(g, n=n) if g.value is not None else g.type) for n in (4, 7, 10, 17)]
            expected, yours = next((pair for pair in shown if pair[0] != pair[1]), shown[0])
            rows += [(f"expected{what}", expected), (f"yours{what}", yours)]
        return rows + ([("your code printed", self.printed.strip()[:300])] if self.printed.strip() else [])

    def failed(self, reason: str, message: str, path: str = "") -> Verdict:
        """The verdict that this case shows."""
        return failed(reason, message, self.numbers(path), self.label)


def _flat(values: Any) -> list[Any]:
    return [y for x in values for y in (_flat(x) if isinstance(x, (list, tuple)) else [x])]


def diagnose(
    runs: Sequence[Run],
    misconceptions: Sequence[tuple[str, Sequence[Tree | None]]] = (),
    time_dim: int | None = None,
    rtol: float = 1e-9,
    atol: float = 1e-10,
) -> Verdict | None:
    """The first reason to fail, or None when every case agrees.

    misconceptions: what to say, and what each gives on every case (None where it cannot run).
    """
    failing = sorted((r for r in runs if not same(r.expected, r.got, rtol, atol)), key=lambda r: r.size)
    if not failing:
        return None
    for message, outputs in misconceptions:
        if all(m is not None and same(m, r.got, rtol, atol) for m, r in zip(outputs, runs)):
            e, g = failing[0].expected, failing[0].got
            path = "" if problem(e, g) else wrong_leaves(e, g, rtol, atol)[0][0]
            return failing[0].failed("misconception", message, path)
    for r in failing:
        if (found := problem(r.expected, r.got)) is not None:
            return r.failed(found[0], sentence(found[1]))
    path, e, g = wrong_leaves(failing[0].expected, failing[0].got, rtol, atol)[0]
    if not isinstance(e.value, np.ndarray):
        return failing[0].failed("value", sentence(f"{path} is {brief(g)}; expected {brief(e)}."), path)
    pairs = [
        (ee.value, gg.value, r.args)
        for r in runs
        for (p, ee), (_, gg) in zip(leaves(r.expected), leaves(r.got))
        if p == path and ee.value is not None
    ]
    said = _changed(pairs, rtol, atol) or _late(pairs, time_dim, rtol, atol)
    if said is not None:
        return failing[0].failed(said[0], sentence(f"{path} {said[1]}"), path)
    return failing[0].failed("value", _difference(path, e, g, len(failing), len(runs), time_dim, rtol), path)


def sentence(text: str) -> str:
    """With a capital at the start."""
    return text[:1].upper() + text[1:]


Said = tuple[str, str] | None


def _explains(pairs: Sequence[Pair], guess: Callable[..., np.ndarray | None], rtol: float, atol: float) -> bool:
    """Whether `guess(expected, args)` gives what came in every case, and that says something."""
    told = 0
    for e, g, args in pairs:
        made = guess(e, args)
        if made is None or not close(made, g, rtol * 100, atol * 100):
            return False
        told += int(np.count_nonzero(made))
    return told > 1


def _changed(pairs: Sequence[Pair], rtol: float, atol: float) -> Said:
    """Sign, factor and transpose of the output itself, then of the change that it makes to an argument."""
    names = [n for n, x in pairs[0][2].items() if isinstance(x, Tensor)]
    for name in ["", *(n for n in names if all(tuple(a[n].shape) == e.shape for e, _, a in pairs))]:

        def base(args: dict[str, Any], name: str = name) -> Any:
            return _array(args[name]) if name else 0.0

        def turned(e: np.ndarray, args: dict[str, Any]) -> np.ndarray | None:
            square = e.ndim > 1 and e.shape[-1] == e.shape[-2]
            return base(args) + (e - base(args)).mT if square else None

        if name and _explains(pairs, lambda e, a: base(a), rtol, atol):
            return "unchanged", f"is {name}, just as it came in."
        if _explains(pairs, lambda e, a: 2 * base(a) - e, rtol, atol):
            way = f"moves {name} the wrong way: the change made to it has the wrong sign."
            return "sign", way if name else "has the wrong sign."
        wide = 100 if name else 1
        if (how := _factor([(e - base(a), g - base(a), a) for e, g, a in pairs], rtol * wide, atol * wide)) is not None:
            return "factor", f"moves {name} the right way, but the change is {how}." if name else f"is {how}."
        if _explains(pairs, turned, rtol, atol):
            way = f"changes {name} by the transpose of what is expected: swap the two vectors."
            return "transpose", way if name else "is the transpose of what is expected: rows and columns are swapped."
    return None


def _late(pairs: Sequence[Pair], time_dim: int | None, rtol: float, atol: float) -> Said:
    """The reference one step late, early or backwards along the tokens."""
    if time_dim is None or any(e.ndim == 0 for e, _, _ in pairs):
        return None
    long = [(np.moveaxis(e, time_dim, 0), np.moveaxis(g, time_dim, 0), a) for e, g, a in pairs]
    long = [p for p in long if len(p[0]) > 1]
    if not long:
        return None
    if _explains([(e[:-1], g[1:], a) for e, g, a in long], lambda e, a: e, rtol, atol):
        return "off by one", "equals the reference one step late: is the read before a write that should come first?"
    if _explains([(e[1:], g[:-1], a) for e, g, a in long], lambda e, a: e, rtol, atol):
        return "off by one", "equals the reference one step early: does token t read what it has written itself?"
    if _explains(long, lambda e, a: e[::-1], rtol, atol):
        return "off by one", "equals the reference backwards in time."
    return None


def _factor(moves: Sequence[Pair], rtol: float, atol: float) -> str | None:
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


def _array(x: Tensor) -> np.ndarray:
    leaf = snapshot(x)
    return leaf.value if isinstance(leaf, Leaf) else np.empty(0)


def _difference(path: str, e: Leaf, g: Leaf, wrong: int, total: int, time_dim: int | None, rtol: float) -> str:
    gap = np.abs(e.value - g.value)
    scale = max(float(np.max(np.abs(e.value))), 1e-300)
    told = f"{sentence(path)} differs in {wrong} of {total} cases; largest difference {digits(float(np.max(gap)))}"
    if float(np.max(gap)) < 1e-4 * scale:
        return f"{told}: approximately right, not exactly. A float32 step, or an epsilon that the formula has not?"
    if time_dim is not None and e.value.ndim and gap.shape[time_dim] > 1:
        by_step = np.moveaxis(gap, time_dim, 0).reshape(gap.shape[time_dim], -1).max(axis=1)
        first = int(np.argmax(by_step > 1e-8))
        return f"{told}. Step {first} is the first that is wrong; compare the numbers there."
    bad = gap > rtol * 100 * scale
    if gap.size > 1 and 0 < bad.sum() < gap.size:
        at = [int(i) for i in np.argwhere(bad)[0]]
        return f"{told}. {int(bad.sum())} of {gap.size} entries are wrong, the first at {at}."
    return f"{told}. Work the smallest failing case by hand."
