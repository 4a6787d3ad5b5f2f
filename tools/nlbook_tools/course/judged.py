"""What each exercise of a submission earns. The student's cells run in the box, one exercise after the other; the
judging is done here, on the private cases of the set's seed.

Run are the imports of the book's own notebook, the answers, and cells that the student added; the book's demonstrations
are not run again. What hangs or ends its process costs its own exercise: the others go on in a new box.
"""

from __future__ import annotations

import ast
import contextlib
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nbformat import NotebookNode

from nlbook.book.check.call import OutOfTime, RemoteError
from nlbook.book.check.define import Exercise, Implement, KernelPuzzle
from nlbook.book.check.judge import judge
from nlbook.errors import NLBookError
from nlbook_tools.course.box import Box, Function
from nlbook_tools.course.exam import find
from nlbook_tools.course.handed import Part, defines

PATIENCE = float(os.environ.get("NLBOOK_PATIENCE") or 1)
CALL_SECONDS, CELL_SECONDS, ALL_SECONDS = 5 * PATIENCE, 10 * PATIENCE, 60 * PATIENCE
ROOMS = "memory|optim|levels|cms|titans|hope|attention|nlkernels"


@dataclass(frozen=True)
class Mark:
    """What one exercise earned: points, of how many, the feedback, and what was noticed."""

    id: str
    points: float
    most: float
    message: str
    notes: tuple[str, ...] = ()


@dataclass
class Marking:
    """One submission being judged. `ran` are the cells that a new box runs first."""

    start: Callable[[], Box]
    ran: list[str]
    box: Box | None = None
    end: float = math.inf

    def open(self) -> Box:
        """The box; a new one where the last has ended. A cell that ends it is not run again.

        Raises:
            OutOfTime: the submission has used up its time. NLBookError: there is no box to be had.
        """
        while self.box is None or self.box.fault:
            if self.box is not None:
                self.box.close()  # again: the judge's alarm may have come in between
            self.box = self.start()
            try:
                self.box.ask("run", source="")  # it is there: now the time counts
            except RemoteError as error:
                raise NLBookError(f"sandbox: got {error}, expected it to start") from None
            self.end = min(self.end, time.monotonic() + ALL_SECONDS)
            self.box.seconds, self.box.end = CELL_SECONDS, self.end
            for source in [*self.ran]:
                with contextlib.suppress(RemoteError):
                    self.box.ask("run", source=source)
                if self.box.fault:
                    self.ran.remove(source)
                    break
            if time.monotonic() > self.end:
                raise OutOfTime("")
        return self.box

    def run(self, source: str, name: str = "") -> str:
        """Run a cell that is to make `name`; what went wrong, in words."""
        box = self.open()
        box.seconds = CELL_SECONDS
        try:
            box.ask("run", source=source, fresh=name)
            fault = ""
        except RemoteError as told:
            fault = in_words(told)
        if not box.fault:
            self.ran.append(source)
        return fault

    def mark(self, part: Part) -> Mark:
        """The mark of one exercise."""
        item, notes = find(part.id, part.seed), [*part.notes, *used(part.answer)]
        points, late = 0.0, f"Not judged: the submission took more than {ALL_SECONDS:.0f} s."
        try:
            points, message = self._judged(item, part, notes)
        except OutOfTime:
            message = late
        except RemoteError as told:
            message = f"Your code {in_words(told)}."
        except NLBookError:
            raise
        except Exception as error:  # whatever came out of the box, it costs this exercise alone
            message = f"Your answer could not be judged ({type(error).__name__})."
        if not points and time.monotonic() > self.end:
            message = late
        if self.box is not None:
            notes += self.box.notes
            self.box.notes.clear()
        return Mark(part.id, points, item.points, message, tuple(dict.fromkeys(notes)))

    def _judged(self, item: Exercise, part: Part, notes: list[str]) -> tuple[float, str]:
        around = [f"a cell of your own {fault}" for source in part.before if (fault := self.run(source))]
        if not part.answer and not any(defines(source, part.name) for source in part.after):
            return 0.0, "Not tried: there is no answer."
        fault = self.run(part.answer, part.name)
        if self.box is not None and self.box.fault:
            return 0.0, f"The answer cell {fault}."
        around += [f"a cell of your own {said}" for source in part.after if (said := self.run(source))]
        box, item = self.open(), launched(item)
        box.seconds = CALL_SECONDS
        answer = box.answer(part.name)
        if answer is None and fault:
            return 0.0, f"The answer cell {fault}."
        notes += [f"the answer cell {fault}"] if fault else []
        verdict = judge(item, answer)
        if verdict.status != "passed":
            notes += around
        return float(item.points) if verdict.status == "passed" else 0.0, verdict.message


def in_words(told: RemoteError) -> str:
    return f"was {told}" if told.fault == "time" else f"raised {told}"


def marks(found: list[Part], out: NotebookNode, start: Callable[[], Box]) -> list[Mark]:
    """The marks of a submission."""
    marking = Marking(start, imports(out))
    try:
        return [marking.mark(part) for part in found]
    finally:
        if marking.box is not None:
            marking.box.close()


def imports(out: NotebookNode) -> list[str]:
    """The imports and settings of the notebook that was handed out, a line each; the sandbox lacks some of them."""
    lines = []
    for cell in out.cells:
        if cell.cell_type != "code" or cell.metadata.get("nbgrader", {}).get("solution"):
            continue
        for node in ast.parse(cell.source).body:
            setting = isinstance(node, ast.Expr) and ast.unparse(node).startswith("torch.set_default_dtype(")
            parameter = isinstance(node, ast.Assign) and "parameters" in cell.metadata.get("tags", [])
            if isinstance(node, (ast.Import, ast.ImportFrom)) or setting or parameter:
                lines.append(ast.unparse(node))
    return list(dict.fromkeys(lines))


def used(source: str) -> list[str]:
    """Notes on what an answer uses: the library, which is allowed, or the book's solution, which is not there."""
    rooms = re.findall(rf"\b(?:{ROOMS})\.\w+|\bfrom (?:nlbook|nlkernels)\b(?!\.book)[\w.]* import (?!check)\w+", source)
    asks = re.findall(r"\bcheck\.solution\b|\bnlbook\.book\.check\b|\bnlbook\.book import check\b", source)
    found = {"uses the library": rooms, "asks for the solution": asks}
    return [f"{what}: {', '.join(dict.fromkeys(words))}" for what, words in found.items() if words]


def launched(item: Exercise) -> Exercise:
    """The exercise with twice its time (a call to another process costs some), and a kernel puzzle with its launch and
    its counts over there."""
    if isinstance(item, Implement):
        item = replace(item, seconds=2 * item.seconds * PATIENCE)
    if not isinstance(item, KernelPuzzle) or item.launch is None:
        return item
    puzzle: Any = item.launch.__self__  # type: ignore[attr-defined]
    example: Any = item.counter.args  # type: ignore[attr-defined]

    def play(answer: Any, args: tuple[Any, ...]) -> Any:
        return answer.play(puzzle.grid(dict(zip(puzzle.names, args))), args, puzzle.names.index(puzzle.out))

    def launch(answer: Any) -> Any:
        return (lambda *args: play(answer, args)[0]) if isinstance(answer, Function) else puzzle.launch(answer)

    def counter(answer: Any) -> Any:
        return play(answer, example)[1] if isinstance(answer, Function) else puzzle.record(answer, *example).counts

    return replace(item, launch=launch, counter=counter)
