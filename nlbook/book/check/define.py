"""The words in which a chapter defines its exercises (see chapters/README.md).

Everything here is data: what is asked, what is right, what is a known way to be wrong. How an answer is judged
stands in `judge.py` and `diagnose.py`, so an exercise never holds checking code of its own.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from nlbook.book.check.draw import Draw
from nlbook.book.check.questions import ID, Prediction, Question
from nlbook.book.check.source import compile_source, cut, drift, shown, solution_problems, source_of
from nlbook.errors import NLBookError

__all__ = [
    "Case",
    "Derive",
    "Draw",
    "Estimate",
    "Exercise",
    "Explain",
    "FixTheBug",
    "Implement",
    "KernelPuzzle",
    "Misconception",
    "Order",
    "Property",
    "ReadPicture",
]


class Case(NamedTuple):
    """One fixed call of the learner's function; `label` says in words what is special about it."""

    args: tuple[Any, ...]
    label: str = ""


@dataclass(frozen=True)
class Misconception:
    """A named misconception: a function that computes the wrong thing in a known way, and what to tell its author."""

    name: str
    function: Callable[..., Any]
    message: str


@dataclass(frozen=True)
class Property:
    """A law that the answer must keep: `law(answer, draw)` returns None, or a sentence that says what broke."""

    name: str
    law: Callable[[Callable[..., Any], Draw], str | None]


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """What every exercise has. `points` are for a course; `hints` go from a nudge to nearly the answer."""

    kind: ClassVar[str] = "exercise"
    id: str
    title: str
    prompt: str
    minutes: int
    difficulty: int
    objective: str
    hints: tuple[str, ...]
    points: int = 1

    @property
    def chapter(self) -> str:
        return self.id.split("-")[0]

    def stub_source(self) -> str:
        """What the notebook's exercise cell holds before the learner starts."""
        return "answer = None"

    def solution_source(self) -> str:
        """The solution as text; code runs, prose is prose."""
        raise NotImplementedError

    def problems(self) -> list[str]:
        """Everything that is wrong with the definition, in words; empty when it is sound."""
        faults = {
            f"id {self.id!r} is not like '01-delta'": not ID.fullmatch(self.id),
            f"has {len(self.hints)} hints, needs 3": len(self.hints) != 3 or not all(h.strip() for h in self.hints),
            f"difficulty {self.difficulty!r} is not 1, 2 or 3": self.difficulty not in (1, 2, 3),
            f"minutes {self.minutes!r} is not in 1..60": not 1 <= self.minutes <= 60,
            f"objective {self.objective!r} is not like '01.1'": not re.fullmatch(r"(\d\d|[A-Z])\.\d+", self.objective),
            "points are negative": self.points < 0,
            "title or prompt is empty": not self.title.strip() or not self.prompt.strip(),
        }
        return [fault for fault, holds in faults.items() if holds]


@dataclass(frozen=True, kw_only=True)
class Implement(Exercise):
    """The learner writes a function; it is compared with `reference` (by default the solution) on seeded cases.

    solution       a module-level function; its body stands between the two markers, the stub is cut from it
    draw           `draw(d: Draw) -> tuple of arguments`; called for `samples` growing cases in float64
    cases          fixed cases beside the drawn ones (edge cases, the example of the text)
    misconceptions  when all cases agree with one of them, its message is the feedback
    properties     laws that must hold besides
    time_dim       the dimension of the output that runs over tokens: "one step late" is then recognised
    differentiable the gradient through the answer must equal finite differences of the reference
    in_place       the arguments named here may be changed in place
    first_seed     the drawn cases have the seeds first_seed, first_seed + 1, ...; a course draws its own
    """

    kind: ClassVar[str] = "implement"
    solution: Callable[..., Any]
    draw: Callable[[Draw], tuple[Any, ...]] | None = None
    cases: Sequence[Case] = ()
    reference: Callable[..., Any] | None = None
    misconceptions: Sequence[Misconception] = ()
    properties: Sequence[Property] = ()
    time_dim: int | None = None
    differentiable: bool = False
    in_place: tuple[str, ...] = ()
    samples: int = 20
    first_seed: int = 0
    rtol: float = 1e-9
    atol: float = 1e-10
    seconds: float = 10.0

    @property
    def truth(self) -> Callable[..., Any]:
        """The function that answers are compared with."""
        return self.reference or self.solution

    @property
    def names(self) -> tuple[str, ...]:
        """The argument names that the learner sees."""
        return tuple(inspect.signature(self.solution).parameters)

    def all_cases(self) -> list[Case]:
        """Fixed cases first, then the drawn ones; made afresh each time, so nobody can spoil them.

        A quarter of the drawn cases, the smallest, hold whole numbers and halves.
        """
        draws = [
            Draw(self.first_seed + i, (i + 1) / self.samples, halves=4 * i < self.samples) for i in range(self.samples)
        ]
        return [*self.cases, *([] if self.draw is None else [Case(tuple(self.draw(d))) for d in draws])]

    def stub(self) -> Callable[..., Any]:
        """The stub as a function."""
        return compile_source(self.stub_source(), self.solution)

    def stub_source(self) -> str:
        return cut(source_of(self.solution), "raise NotImplementedError")

    def solution_source(self) -> str:
        return shown(source_of(self.solution))

    def problems(self) -> list[str]:
        found = [*super().problems(), *solution_problems(self.solution)]
        try:
            if not self.all_cases():
                found.append("has neither draw nor cases")
        except Exception as error:
            found.append(f"draw fails: {type(error).__name__}: {error}")
        names = [m.name for m in self.misconceptions]
        if len(set(names)) < len(names):
            found.append("two misconceptions share a name")
        return found


@dataclass(frozen=True, kw_only=True)
class FixTheBug(Implement):
    """The learner is given `broken`, a function with a real misconception in it, and mends it."""

    kind: ClassVar[str] = "fix the bug"
    broken: Callable[..., Any]

    def stub(self) -> Callable[..., Any]:
        return self.broken

    def stub_source(self) -> str:
        return source_of(self.broken).replace(self.broken.__name__, self.solution.__name__, 1)

    def problems(self) -> list[str]:
        return [*super().problems(), *drift(self.broken, self.solution)]


@dataclass(frozen=True, kw_only=True)
class Derive(Implement):
    """The learner derives a gradient by hand; the truth is autograd of `objective` in the argument `wrt`.

    The solution takes the same arguments as the objective and returns d objective / d wrt.
    """

    kind: ClassVar[str] = "derive"
    objective_fn: Callable[..., Tensor]
    wrt: str

    @property
    def truth(self) -> Callable[..., Any]:
        def autograd(*args: Any) -> Tensor:
            at = self.names.index(self.wrt)
            x = args[at].detach().clone().requires_grad_()
            with torch.enable_grad():
                value = self.objective_fn(*args[:at], x, *args[at + 1 :])
                return torch.autograd.grad(value, x)[0]

        return autograd

    def problems(self) -> list[str]:
        found = super().problems()
        if self.wrt not in self.names:
            found.append(f"wrt {self.wrt!r} is not an argument of the solution")
        return found


@dataclass(frozen=True, kw_only=True)
class KernelPuzzle(Implement):
    """Implement, and then beat `par`: `counter(answer)` returns counts such as {"loads": 12, "stores": 4}.

    launch   for an answer that must be launched (a GPU kernel): makes a function of the same arguments that runs it
             and returns what it wrote; the misconceptions and the solution are then kernels too
    package  a package without which nothing can be run: where it is missing, the exercise says so and stays untried
    """

    kind: ClassVar[str] = "kernel puzzle"
    counter: Callable[[Callable[..., Any]], Mapping[str, int]]
    par: Mapping[str, int] = field(default_factory=dict)
    launch: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
    package: str = ""

    def problems(self) -> list[str]:
        return super().problems() + ([] if self.par else ["has no par to beat"])


@dataclass(frozen=True, kw_only=True)
class Estimate(Exercise):
    """A number with a unit. Right means within `within` (a relative share) of what `solution()` computes,
    or in [low, high] where those are given. `units` maps other units to this one: {"KB": 1e-3} for unit "MB".
    `wrong` maps a known wrong number to what to tell its author."""

    kind: ClassVar[str] = "estimate"
    solution: Callable[[], float]
    unit: str = ""
    within: float = 0.25
    low: float | None = None
    high: float | None = None
    units: Mapping[str, float] = field(default_factory=dict)
    wrong: Mapping[float, str] = field(default_factory=dict)

    def interval(self) -> tuple[float, float]:
        value = float(self.solution())
        reach = abs(value) * self.within
        return (value - reach if self.low is None else self.low, value + reach if self.high is None else self.high)

    def solution_source(self) -> str:
        return shown(source_of(self.solution))

    def problems(self) -> list[str]:
        # The number itself is worked out only by testing.check_definition: it may be read off a picture.
        return [*super().problems(), *solution_problems(self.solution)]


@dataclass(frozen=True, kw_only=True)
class ReadPicture(Estimate):
    """A number read off a picture; `view` is the state string to look at, such as "interference:n=32,rho=0.5"."""

    kind: ClassVar[str] = "read the picture"
    view: str
    within: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Order(Exercise):
    """Put `steps` in order. Only `before` binds: pairs (earlier, later, why); any order that keeps them is right."""

    kind: ClassVar[str] = "order the steps"
    steps: tuple[str, ...]
    before: tuple[tuple[str, str, str], ...]

    def one_order(self) -> list[str]:
        """The first right order, taking the steps as listed where nothing binds."""
        left, order = list(self.steps), []
        while left:
            free = [s for s in left if not any(a in left and b == s for a, b, _ in self.before)]
            if not free:
                raise NLBookError(f"before: got a circle among {left}, expected a partial order")
            order.append(free[0])
            left.remove(free[0])
        return order

    def stub_source(self) -> str:
        return "answer = [\n" + "".join(f"    {s!r},\n" for s in self.steps) + "]"

    def solution_source(self) -> str:
        return "answer = [\n" + "".join(f"    {s!r},\n" for s in self.one_order()) + "]\n"

    def problems(self) -> list[str]:
        found = super().problems()
        named = [s for a, b, _ in self.before for s in (a, b)]
        found += [f"before names an unknown step {s!r}" for s in named if s not in self.steps]
        try:
            if self.one_order() == list(self.steps):
                found.append("the steps are listed in a right order already")
        except NLBookError as error:
            found.append(str(error))
        return found


@dataclass(frozen=True, kw_only=True)
class Explain(Exercise):
    """Free text. The learner writes, then sees `model` and scores himself on `rubric` (one point each)."""

    kind: ClassVar[str] = "explain"
    model: str
    rubric: tuple[str, ...]
    words: int = 15

    def stub_source(self) -> str:
        return 'answer = """ """'

    def solution_source(self) -> str:
        return textwrap.dedent(self.model).strip() + "\n"

    def problems(self) -> list[str]:
        return super().problems() + ([] if self.rubric else ["has no rubric"])


Item = Exercise | Question | Prediction
