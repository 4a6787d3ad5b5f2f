"""Update frequency and the faster-than order (Definition 2 of the paper), and the levels that follow from them.

    A is faster than B, written A > B, if  (1) f_A > f_B,  or
                                           (2) f_A = f_B and B's state at time t needs A's state at time t.

Rule 2 uses the transitive closure of "needs". Only same-time needs count: a momentum that reads last step's weights
does not need them. "Neither is faster" is not transitive, so levels need a tie rule: a component sits in the outermost
(slowest) level that the order admits. Level 1 is the slowest; "higher level" in the paper's words means slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from nlbook.errors import NLBookError, need

INF = math.inf
Rate = Fraction | float  # a Fraction wherever it is finite, so that 1/512 equals 1/512; math.inf otherwise


def rate(value: Any, argument: str = "frequency") -> Rate:
    """A non-negative exact number: int, Fraction, float or str; `inf` stays a float."""
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction | str):
        raise NLBookError(f"{argument}: got {value!r}, expected a number >= 0, or math.inf")
    try:
        if float(Fraction(value) if isinstance(value, str) and "/" in value else value) == INF:
            return INF
        exact = Fraction(value).limit_denominator(10**12)
    except (ValueError, ZeroDivisionError) as e:
        raise NLBookError(f"{argument}: got {value!r}, expected a number >= 0, or math.inf") from e
    need(exact >= 0, argument, value, "a number >= 0, or math.inf")
    return exact


def inverse(r: Rate) -> Rate:
    """1 / r with 1 / 0 = inf and 1 / inf = 0."""
    return INF if r == 0 else Fraction(0) if r == INF else 1 / Fraction(r)


@dataclass(frozen=True)
class Component:
    """One thing that changes: weights, a momentum buffer, a fast state, an attention block.

    Give `frequency` (updates per unit of time) or `period` (units between two updates); the other one follows.
    Frequency 0 is frozen; frequency inf is non-parametric: no state is carried, the answer is computed anew.

    Args:
        name: unique in its system.
        needs: names whose state *at the same time* is needed to compute this one's (rule 2).
        kind: "weights", "initial state", "optimizer state", "fast state", "non-parametric" or "frozen".
        size: how many numbers it holds (0 when not counted).

    >>> Component("M", period=16).frequency
    Fraction(1, 16)
    """

    name: str
    frequency: Rate | None = None
    period: Rate | None = None
    needs: frozenset[str] = frozenset()
    kind: str = "weights"
    size: int = 0
    note: str = ""

    def __post_init__(self) -> None:
        put = object.__setattr__
        need(isinstance(self.name, str) and bool(self.name), "name", repr(self.name), "a non-empty string")
        given = (self.frequency is not None) + (self.period is not None)
        if given == 2:  # dataclasses.replace passes both
            need(
                rate(self.frequency) == inverse(rate(self.period, "period")),
                f"{self.name}: frequency and period",
                f"{self.frequency} and {self.period}",
                "one of them, or two that agree (frequency = 1 / period)",
            )
        need(given > 0, f"{self.name}: frequency", "neither frequency nor period", "one of them")
        f = rate(self.frequency) if self.frequency is not None else inverse(rate(self.period, "period"))
        put(self, "frequency", f)
        put(self, "period", inverse(f))
        put(self, "needs", frozenset([self.needs] if isinstance(self.needs, str) else self.needs))

    def scaled(self, factor: int | Fraction) -> Component:
        """The same component with its frequency multiplied: per token -> per sequence of `factor` tokens."""
        f = self.frequency
        assert f is not None
        return replace(self, frequency=f if f in (0, INF) else f * Fraction(factor), period=None)

    def renamed(self, names: dict[str, str]) -> Component:
        return replace(self, name=names.get(self.name, self.name), needs=frozenset(names.get(n, n) for n in self.needs))


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong with a claimed order. `kind`: arrow | together | tie | unknown | missing | twice."""

    kind: str
    slow: str
    fast: str
    message: str

    def __str__(self) -> str:
        return self.message


class OrderError(NLBookError):
    """A claimed order contradicts Definition 2; `.violations` lists every broken arrow, the message names the first."""

    def __init__(self, violations: Sequence[Violation]):
        self.violations = list(violations)
        more = len(violations) - 1
        super().__init__(str(violations[0]) + (f" ({more} more)" if more else ""))


def _show(r: Rate) -> str:
    return "inf" if r == INF else str(r)


def _times(r: Rate) -> str:
    return "once" if r == 1 else f"{_show(r)} times"


@dataclass(frozen=True)
class NestedSystem:
    """Components with their update frequencies, and the ordered levels that Definition 2 makes of them (Def. 3-4).

    Args:
        components: names must be unique and every need must name a component.
        unit: what the frequencies are counted in, in words ("token", "optimizer step", "sequence of 512 tokens").

    >>> s = NestedSystem([Component("W", 1, needs={"m"}), Component("m", 1)], unit="optimizer step")
    >>> s.levels
    [['W'], ['m']]
    """

    components: Sequence[Component]
    unit: str
    _closure: dict[str, frozenset[str]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "components", tuple(self.components))
        names = [c.name for c in self.components]
        need(isinstance(self.unit, str) and bool(self.unit), "unit", repr(self.unit), "words for the unit of time")
        twice = sorted({n for n in names if names.count(n) > 1})
        need(not twice, "components", f"the name(s) {', '.join(twice)} twice", "unique names")
        for c in self.components:
            lost = sorted(c.needs - set(names))
            need(not lost, f"{c.name}.needs", ", ".join(lost), f"names of components ({', '.join(sorted(names))})")
        self._closure.update(_transitive({c.name: set(c.needs) for c in self.components}))
        for c in self.components:
            if c.name in self._closure[c.name]:
                circle = [n for n in sorted(self._closure[c.name]) if n != c.name and c.name in self._closure[n]]
                other = circle[0] if circle else c.name
                raise NLBookError(
                    f"needs: got a circle, {c.name} needs {other} and {other} needs {c.name} at the same time (a read-"
                    "after-write design makes each faster than the other), expected a partial order: let one of them "
                    "read the state before the write"
                )

    def __getitem__(self, name: str) -> Component:
        for c in self.components:
            if c.name == name:
                return c
        raise NLBookError(f"name: got {name!r}, expected one of {', '.join(c.name for c in self.components)}")

    def needs(self, name: str) -> frozenset[str]:
        """Everything that `name` needs at the same time, directly or through others."""
        self[name]
        return self._closure[name]

    def faster(self, a: str, b: str) -> bool:
        """Is a > b: faster than, by Definition 2?"""
        fa, fb = self[a].frequency, self[b].frequency
        assert fa is not None and fb is not None
        return fa > fb or (fa == fb and a in self._closure[b])

    def why_faster(self, a: str, b: str) -> str:
        """The reason of a > b in words; an error if it does not hold."""
        need(self.faster(a, b), "a > b", f"{a} > {b}", "a pair where the first is faster")
        fa, fb = self[a].frequency, self[b].frequency
        assert fa is not None and fb is not None
        if fa > fb:
            return f"{a} is updated {_times(fa)} per {self.unit} and {b} {_times(fb)}"
        through = "" if a in self[b].needs else " (through others)"
        return f"both are updated {_times(fa)} per {self.unit} and {b} at time t needs {a} at time t{through}"

    def same(self, a: str, b: str) -> bool:
        """a =f b: neither is faster. Not transitive."""
        return not self.faster(a, b) and not self.faster(b, a)

    @property
    def levels(self) -> list[list[str]]:
        """Names per level, level 1 (slowest, outermost) first. Tie rule: the outermost admissible level."""
        out: list[list[str]] = []
        for f in sorted({c.frequency for c in self.components}):  # type: ignore[type-var]
            group = [c.name for c in self.components if c.frequency == f]
            depth: dict[str, int] = {}

            def deep(a: str, group: list[str] = group, depth: dict[str, int] = depth) -> int:
                if a not in depth:
                    depth[a] = max((1 + deep(b) for b in group if a in self._closure[b]), default=0)
                return depth[a]

            for k in sorted({deep(a) for a in group}):
                out.append([a for a in group if depth[a] == k])
        return out

    def level(self, name: str) -> int:
        """The level of a component; 1 is the slowest."""
        self[name]
        return next(i for i, names in enumerate(self.levels, 1) if name in names)

    def arrows(self) -> list[tuple[str, str]]:
        """All pairs (slow, fast) of the order that no third component lies between (the Hasse diagram)."""
        names = [c.name for c in self.components]
        up = {(b, a) for a in names for b in names if self.faster(a, b)}
        return sorted((b, a) for b, a in up if not any((b, c) in up and (c, a) in up for c in names))

    # ------------------------------------------------------------------ claims
    def violations(self, claimed: str | Sequence[Iterable[str]], ties: bool = True) -> list[Violation]:
        """Everything that is wrong with a claimed order, slowest level first: a list of lists, or "W < m, v < M".

        `ties=False` also accepts levels that break only the tie rule (each arrow holds, but a component sits deeper
        than it has to).
        """
        place: dict[str, int] = {}
        out = []
        for i, group in enumerate(_parse(claimed), 1):
            for n in group:
                if n in place:
                    out.append(
                        Violation("twice", n, n, f"{n}: got it in level {place[n]} and in level {i}, expected once")
                    )
                place.setdefault(n, i)
        names = [c.name for c in self.components]
        every, one = ", ".join(names), "expected every component in one level"
        out += [
            Violation("unknown", n, n, f"{n}: got an unknown name, expected one of {every}")
            for n in place
            if n not in names
        ]
        out += [Violation("missing", n, n, f"{n}: got no level for it, {one}") for n in names if n not in place]
        known = [n for n in names if n in place]
        out += [self._broken(a, b, place) for a in known for b in known if self.faster(a, b) and place[a] <= place[b]]
        if ties and not out:
            out = [self._tie(n, i) for n, i in place.items() if self.level(n) != i]
        return out

    def _broken(self, a: str, b: str, place: dict[str, int]) -> Violation:
        why = f"{a} > {b} is violated: {self.why_faster(a, b)}, so"
        if place[a] == place[b]:
            return Violation("together", b, a, f"{why} they are not of one level; got both in level {place[a]}")
        got = f"got {a} in level {place[a]}, {b} in level {place[b]}"
        return Violation("arrow", b, a, f"{why} {a} belongs in a faster level than {b}; {got}")

    def _tie(self, name: str, claimed: int) -> Violation:
        why = "no arrow is broken, but by the tie rule a component sits in the outermost level that is admissible"
        return Violation("tie", name, name, f"{name}: got level {claimed}, expected level {self.level(name)}: {why}")

    def check_order(self, claimed: str | Sequence[Iterable[str]], ties: bool = True) -> None:
        """Raise OrderError, naming the violated arrow, unless `claimed` (slow -> fast) is the order of Definition 2."""
        wrong = self.violations(claimed, ties)
        if wrong:
            raise OrderError(wrong)

    # ------------------------------------------------------------------ other forms
    def in_unit(self, unit: str, size: int | Fraction) -> NestedSystem:
        """The same system counted in another unit of `size` present units: token -> "sequence of 512 tokens", 512."""
        need(size > 0, "size", size, f"how many of the present unit ({self.unit}) make one {unit}")
        return NestedSystem([c.scaled(size) for c in self.components], unit)

    def order(self) -> str:
        """One line, slow -> fast: "{W} < {m} < {M_t}"."""
        return "  <  ".join("{" + ", ".join(sorted(x)) + "}" for x in self.levels)

    def text(self) -> str:
        """The level diagram in plain text, slowest level first, with the unit in its head."""
        rows = [(i, self[n]) for i, names in enumerate(self.levels, 1) for n in names]
        wide = max([len("component"), *(len(c.name) for _, c in rows)])
        head = f"level  {'component':{wide}}  {'kind':15}  updates per {self.unit}"
        lines = [head, "-" * len(head)]
        last = 0
        for i, c in rows:
            mark = f"{i:>5}" if i != last else " " * 5
            lines.append(f"{mark}  {c.name:{wide}}  {c.kind:15}  {self._tempo(c)}{self._reads(c)}")
            last = i
        return "\n".join(lines)

    def markdown(self) -> str:
        """The level diagram as a Markdown table."""
        lines = [
            f"| level | component | kind | updates per {self.unit} | needs at the same time |",
            "|---|---|---|---|---|",
        ]
        for i, c in ((i, self[n]) for i, names in enumerate(self.levels, 1) for n in names):
            needs = ", ".join(f"`{x}`" for x in sorted(c.needs))
            lines.append(f"| {i} | `{c.name}` | {c.kind} | {self._tempo(c)} | {needs} |")
        return "\n".join(lines)

    def _tempo(self, c: Component) -> str:
        assert c.frequency is not None and c.period is not None
        if c.frequency == INF:
            return "inf (no state)"
        if c.frequency == 0:
            return "0 (frozen)"
        every = f" (every {_show(c.period)})" if c.period not in (1, INF) and c.frequency < 1 else ""
        return _show(c.frequency) + every

    @staticmethod
    def _reads(c: Component) -> str:
        return f"  needs {', '.join(sorted(c.needs))}" if c.needs else ""

    def __str__(self) -> str:
        return self.text()

    def _repr_markdown_(self) -> str:
        return self.markdown()


def _transitive(direct: dict[str, set[str]]) -> dict[str, frozenset[str]]:
    """Everything reachable through `needs`."""
    out = {}
    for n in direct:
        seen: set[str] = set()
        stack = list(direct[n])
        while stack:
            a = stack.pop()
            if a not in seen:
                seen.add(a)
                stack.extend(direct[a])
        out[n] = frozenset(seen)
    return out


def _parse(claimed: str | Sequence[Iterable[str]]) -> list[list[str]]:
    if isinstance(claimed, str):
        return [[n.strip() for n in part.strip(" {}").split(",") if n.strip()] for part in claimed.split("<")]
    return [[g] if isinstance(g, str) else list(g) for g in claimed]
