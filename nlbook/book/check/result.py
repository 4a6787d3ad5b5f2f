"""What `check.exercise` and `check.choice` hand back and show."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from nlbook.book.check.define import Exercise
from nlbook.book.check.questions import Question
from nlbook.book.check.show import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Note,
    Shown,
    box,
    fold,
    form,
    inline,
    prose,
    rows_html,
    rows_text,
)
from nlbook.book.check.verdict import Verdict

COLORS = {"passed": GREEN, "failed": ORANGE, "not tried": GREY}
WORDS = {"passed": "Passed", "failed": "Not yet", "not tried": "Not tried yet"}
KEPT = "Your teacher keeps the solutions of this set."
_course = {"in_class": False}


def in_class(yes: bool = True) -> None:
    """In a set for a class: checks and hints as ever, but solutions and the answers of questions are not shown.

    A switch for the eye only: this book's solutions are public.
    """
    _course["in_class"] = bool(yes)


class Result(Shown):
    """The verdict on one exercise, with its hints and its solution folded below."""

    def __init__(self, item: Exercise, verdict: Verdict) -> None:
        self.id, self.item, self.verdict = item.id, item, verdict

    @property
    def status(self) -> str:
        """passed, failed or not tried"""
        return self.verdict.status

    @property
    def passed(self) -> bool:
        return self.verdict.status == "passed"

    @property
    def reason(self) -> str:
        """The reason why it failed, one of nlbook.book.check.verdict.REASONS; empty when it did not."""
        return self.verdict.reason

    @property
    def message(self) -> str:
        return self.verdict.message

    def __bool__(self) -> bool:
        return self.passed

    def text(self) -> str:
        head = f"{self.id} {self.item.title}: {WORDS[self.status].lower()}"
        if self.status == "not tried" and not self.reason and not self.verdict.rows:
            return f"{head} ({self.item.minutes} min; hints: check.hint({self.id!r}, 1))"
        case = f"\n  smallest failing case{f' ({self.verdict.case})' if self.verdict.case else ''}:"
        numbers = f"{'' if self.passed or self.item.kind == 'explain' else case}\n{rows_text(self.verdict.rows)}"
        return f"{head}\n  {self.message}{numbers if self.verdict.rows else ''}"

    def html(self) -> str:
        item, v = self.item, self.verdict
        stars = f"difficulty {item.difficulty} of 3"
        head = (
            f"<strong>{WORDS[v.status]}</strong> · {inline(item.title)} "
            f"<small>({escape(item.id)}, {item.kind}, about {item.minutes} min, {stars})</small>"
        )
        told = prose(v.message) if v.reason or self.passed else prose(item.prompt)
        if v.rows and self.item.kind != "explain":
            case = "Counts" if self.passed else f"Smallest failing case{f' ({v.case})' if v.case else ''}"
            told += f"<small>{escape(case)}:</small>{rows_html(v.rows)}"
        elif v.rows:
            told += rows_html(v.rows)
        hints = "".join(fold(f"Hint {n}", prose(h)) for n, h in enumerate(item.hints, 1))
        answer = "" if _course["in_class"] else fold("Solution", f"<pre>{escape(item.solution_source())}</pre>")
        return box(COLORS[v.status], head + told + hints + answer, f"Exercise {item.id}")


class Solution(Note):
    """A solution that is text, and, for functions, runs: `check.solution("01-delta")(M, k, v, eta)`."""

    def __init__(self, item: Exercise) -> None:
        self.item = item
        kept = _course["in_class"]
        self.source = KEPT if kept else item.solution_source()
        code = item.kind != "explain" and not kept
        super().__init__(f"{item.id} {item.title}: a solution", self.source, code)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _course["in_class"]:
            raise TypeError(KEPT)
        if not hasattr(self.item, "solution"):
            raise TypeError(f"{self.item.id} is of kind {self.item.kind!r}: its solution is no function")
        return self.item.solution(*args, **kwargs)


class Stub(Note):
    """What the exercise cell holds at the start."""

    def __init__(self, item: Exercise) -> None:
        self.source = item.stub_source()
        super().__init__("", self.source, True)


class Answered(Shown):
    """A question with its choices; once answered, the explanation of the chosen one."""

    def __init__(self, item: Question, answer: Any = None, note: Callable[[Answered], None] = lambda _: None) -> None:
        self.id, self.item, self._note = item.id, item, note
        self.chosen = item.chosen(answer)
        self.fault = "" if self.chosen else fault_of(item, answer)

    @property
    def passed(self) -> bool:
        return self.chosen is not None and self.chosen.right

    @property
    def status(self) -> str:
        return "not tried" if self.chosen is None else "passed" if self.chosen.right else "failed"

    @property
    def reason(self) -> str:
        return "choice" if self.status == "failed" else ""

    @property
    def message(self) -> str:
        if self.chosen is None:
            return self.fault or "Not answered yet."
        return f"{'Right' if self.chosen.right else 'Not quite'}: {self.chosen.why}"

    def __bool__(self) -> bool:
        return self.passed

    def _origin(self) -> str:
        return f" (from chapter {self.item.recalls})" if self.item.recalls else ""

    def text(self) -> str:
        lines = [f"{self.id}{self._origin()} {self.item.text}"]
        lines += [f"  {'>' if o is self.chosen else ' '} {letter}) {o.text}" for letter, o in self.item.lettered()]
        if self.chosen is not None or self.fault:
            lines.append(f"  {self.message}")
        return "\n".join(lines)

    def html(self) -> str:
        choices = "".join(
            f"<li>{inline(o.text)}{' <em>(your choice)</em>' if o is self.chosen else ''}</li>"
            for o in self.item.options
        )
        head = f"<strong>{inline(self.item.text)}</strong> <small>{escape(self.id + self._origin())}</small>"
        body = f'<ol type="a">{choices}</ol>'
        if self.chosen is not None or self.fault:
            body += prose(self.message)
        if not self.passed and not _course["in_class"]:
            why = "".join(
                f"<li>{inline(o.text)} — <em>{'right' if o.right else 'not quite'}:</em> {inline(o.why)}</li>"
                for o in self.item.options
            )
            body += fold("Answer", f'<ol type="a">{why}</ol>')
        color = {"passed": GREEN, "failed": ORANGE}.get(self.status, BLUE)
        return box(color, head + body, f"Question {self.id}")

    @property
    def widget(self) -> Any:
        """Buttons for the options; what is said is about the one that was chosen, and about no other."""
        import ipywidgets as widgets  # half a second: only where something is shown

        texts, wide = [o.text for o in self.item.options], widgets.Layout(width="auto")
        field = widgets.RadioButtons(options=texts, value=None, layout=wide)
        question = f"<strong>{inline(self.item.text)}</strong> <small>{escape(self.id + self._origin())}</small>"
        return form(question, field, "Answer", self._press, "")

    def _press(self, field: Any) -> str:
        if field.value is None:
            return "Choose one first."
        answered = Answered(self.item, field.value)
        self._note(answered)
        return answered.message

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        live = (self.widget._repr_mimebundle_() or {}) if self.chosen is None else {}
        return {**live, **super()._repr_mimebundle_()}


def fault_of(item: Question, answer: Any) -> str:
    """Nothing was chosen: a sentence that says what would have been understood."""
    if answer is None or answer is Ellipsis:
        return ""
    letters = ", ".join(letter for letter, _ in item.lettered())
    came = repr(answer) if type(answer) in (str, int, float) else f"a {type(answer).__name__}"
    return f"answer: got {came}, expected one of the letters {letters}."
