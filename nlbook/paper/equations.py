"""The 121 numbered equations of the paper, and the errata of their printed forms."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlbook.paper.show import Shown, bad, table

STATUS = {
    "ok": "holds as printed",
    "conv": "holds; notation or convention only",
    "open": "leaves a choice open",
    "text": "holds; the text around it has a slip",
    "slip": "does not hold as printed",
}


@dataclass(frozen=True)
class Equation(Shown):
    """One numbered equation. `latex` is the printed form; `correct_latex` is what to use where that differs.

    In a notebook it shows the form that holds; what is printed, and what to watch for, unfolds on a click.

    `note` says what to watch for and `check` how the equation can be tested; `group` lists the numbers that the
    paper prints as one block. Maths in `meaning`, `shapes`, `note` and `check` stands between `$` signs.
    """

    number: int
    section: str
    name: str
    latex: str
    meaning: str
    shapes: str
    kind: str
    status: str
    note: str
    correct_latex: str
    check: str
    group: tuple[int, ...]
    erratum_test: str = field(default="", repr=False)
    definition_only: str = field(default="", repr=False)

    @property
    def errata(self) -> Erratum | None:
        """The erratum that this equation belongs to, or None if its printed form and text stand."""
        return next((e for e in errata() if self.number in e.numbers), None)

    @property
    def printed(self) -> Printed:
        """Only what the paper prints, for a chapter that asks the reader to find what holds."""
        return Printed(self)

    def markdown(self) -> str:
        slip, fold = self.status == "slip" and bool(self.correct_latex), []
        if slip:
            fold = ["Printed:", display(self.latex)]
        elif self.correct_latex:
            fold = ["To be read as:", display(self.correct_latex)]
        lines = [f"**Eq. {self.number}: {self.name}** (Section {self.section})"]
        lines += [display(self.correct_latex if slip else self.latex), self.meaning]
        lines += [f"*Shapes:* {self.shapes}"] * bool(self.shapes)
        fold += [self.note] * bool(self.note)
        if fold:
            said = STATUS[self.status].capitalize() if self.status != "ok" else "A note"
            lines += [f"<details><summary>{said}</summary>", *fold, "</details>"]
        return "\n\n".join(lines)

    def __str__(self) -> str:
        text = f"Eq. {self.number}: {self.name} ({STATUS[self.status]})\n  {self.latex}"
        return text + (f"\n  to be used: {self.correct_latex}" if self.correct_latex else "") + f"\n  {self.meaning}"


@dataclass(frozen=True)
class Printed(Shown):
    """An equation as the paper prints it: no correction, no note."""

    equation: Equation

    def markdown(self) -> str:
        e = self.equation
        return f"**Eq. {e.number}: {e.name}** (Section {e.section}, as printed)\n\n{display(e.latex)}"

    def __str__(self) -> str:
        return f"Eq. {self.equation.number}: {self.equation.name} (as printed)\n  {self.equation.latex}"


@dataclass(frozen=True)
class Erratum(Shown):
    """One slip: what is printed, what holds, why, and the test that computes both."""

    numbers: tuple[int, ...]
    name: str
    printed: tuple[str, ...]
    holds: tuple[str, ...]
    why: str
    test: str
    in_text: bool  # the formula stands, the sentences around it do not

    @property
    def label(self) -> str:
        """`57`, or `120-121` for a block."""
        runs = len(self.numbers) > 1 and self.numbers[-1] - self.numbers[0] == len(self.numbers) - 1
        return f"{self.numbers[0]}-{self.numbers[-1]}" if runs else ", ".join(map(str, self.numbers))

    def markdown(self) -> str:
        head = f"**Erratum, eq. {self.label}: {self.name}**" + (" (in the text around it)" if self.in_text else "")
        printed, holds = (map(display, forms) for forms in (self.printed, self.holds))
        return "\n\n".join([head, "Printed:", *printed, "What holds:", *holds, self.why, f"*Shown by* `{self.test}`"])

    def __str__(self) -> str:
        printed, holds = "; ".join(self.printed), "; ".join(self.holds)
        return f"Erratum, eq. {self.label}: {self.name}\n  printed: {printed}\n  holds:   {holds}"


class Errata(Shown, tuple[Erratum, ...]):
    """All errata; shows itself as a table of what holds."""

    def markdown(self) -> str:
        rows = ((e.label, e.name, " ".join(f"${h}$" for h in e.holds)) for e in self)
        return table(("Eq.", "What", "What holds"), rows)

    def __str__(self) -> str:
        return "\n".join(map(str, self))


def display(latex: str) -> str:
    """Display maths that JupyterLab and GitHub both render."""
    return f"$$\n{latex}\n$$"


@functools.cache
def equations() -> tuple[Equation, ...]:
    """All 121 equations, in order."""
    rows: list[dict[str, Any]] = json.loads(Path(__file__).with_name("equations.json").read_text(encoding="utf-8"))
    return tuple(Equation(**{**row, "group": tuple(row["group"])}) for row in rows)


def equation(number: int) -> Equation:
    """One equation by its number in the paper.

    >>> equation(57).name
    'Delta Gradient Descent (DGD)'
    """
    known = equations()
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= len(known):
        raise bad("number", number, f"a whole number from 1 to {len(known)}, the paper's numbered equations")
    return known[number - 1]


def _errata() -> Iterator[Erratum]:
    groups: dict[str, list[Equation]] = {}
    for e in equations():
        if e.status in ("slip", "text"):
            groups.setdefault(e.erratum_test, []).append(e)
    for test, es in groups.items():
        holds = tuple(dict.fromkeys(e.correct_latex for e in es))
        yield Erratum(
            tuple(e.number for e in es),
            es[0].name,
            tuple(e.latex for e in es),
            holds,
            es[0].note,
            test,
            es[0].status == "text",
        )


@functools.cache
def errata() -> Errata:
    """Every slip of the printed equations. `paper.errata()[0].test` names the test that shows both forms."""
    return Errata(_errata())
