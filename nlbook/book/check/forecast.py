"""Predictions: written down before the result is shown, and set beside it afterwards.

A prediction is never graded and never demanded. One that is changed after the reveal is kept, marked as such, and
left out of the calibration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from nlbook.book.check import registry, store
from nlbook.book.check.questions import ID, Prediction
from nlbook.book.check.show import BLUE, GREEN, GREY, Shown, Table, box, inline, prose
from nlbook.book.check.values import digits
from nlbook.errors import NLBookError, need

if TYPE_CHECKING:
    import ipywidgets as widgets

FILE = "predictions"
_asked: dict[str, Prediction] = {}  # asked in this session with the question written in the notebook


def said(value: Any, unit: str = "") -> str:
    """A prediction or a measured value in words."""
    if isinstance(value, list):
        return f"{', '.join(map(digits, value))} {unit}".strip()
    return f"{digits(value) if is_number(value) else value} {unit}".strip()


def is_number(x: Any) -> bool:
    """A finite number that is no truth value."""
    return isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)


def counted(record: Mapping[str, Any]) -> Any:
    """The prediction that counts: the last one before the reveal; None when there is none."""
    before = [e["answer"] for e in record.get("entries", []) if not e["after_reveal"]]
    return before[-1] if before else None


class Predict(Shown):
    """A prediction to be made: a widget where there is a kernel and a browser, a plain question elsewhere."""

    def __init__(self, item: Prediction) -> None:
        self.item = item
        self.id = item.id
        self._widget: widgets.VBox | None = None

    # -- recording

    def record(self, answer: Any) -> None:
        """Write a prediction down (an option's text or letter, a number, a list of numbers for points); refuses
        what is no option, or outside the range."""
        item = self.item
        low, high = item.range
        if item.options:
            lettered = dict(zip("abcdefghijkl", item.options))
            answer = lettered.get(answer, answer) if isinstance(answer, str) and answer not in item.options else answer
            known = isinstance(answer, str) and answer in item.options
            need(known, "answer", repr(answer), f"one of {list(item.options)}, or its letter")
        elif item.points:
            several = isinstance(answer, (list, tuple)) and len(answer) == len(item.points)
            need(
                several and all(is_number(x) and low <= x <= high for x in answer),
                "answer",
                repr(answer),
                f"{len(item.points)} numbers from {self._range()}",
            )
            answer = list(answer)
        else:
            need(is_number(answer) and low <= answer <= high, "answer", repr(answer), f"a number from {self._range()}")
        records = store.load(FILE)
        record = records.setdefault(self.id, {"entries": []})
        record.update(question=item.question, unit=item.unit)
        if record["entries"] and record["entries"][-1]["answer"] == answer:
            return  # the cell was run again
        record["entries"].append({"answer": answer, "time": store.now(), "after_reveal": "revealed" in record})
        store.save(FILE, records)

    @property
    def recorded(self) -> Any:
        """The latest prediction, or None."""
        entries = store.load(FILE).get(self.id, {}).get("entries", [])
        return entries[-1]["answer"] if entries else None

    @property
    def status_line(self) -> str:
        entries = store.load(FILE).get(self.id, {}).get("entries", [])
        if not entries:
            return "Not recorded yet. You can go on without it."
        late = " (after the reveal: kept, not counted)" if entries[-1]["after_reveal"] else ""
        return f"Recorded: {said(entries[-1]['answer'], self.item.unit)}{late}"

    # -- display

    @property
    def widget(self) -> widgets.VBox:
        """Radio buttons or a bounded number, and a button; Tab, arrows and Space reach all of it."""
        if self._widget is None:
            self._widget = self._build()
        return self._widget

    def _build(self) -> widgets.VBox:
        import ipywidgets as widgets  # half a second: only where something is shown

        item, earlier = self.item, self.recorded
        style = {"description_width": "initial"}
        field: Any
        low, high = item.range
        step = 10.0 ** math.floor(math.log10(high - low) - 1)
        if item.options:
            field = widgets.RadioButtons(
                options=item.options,
                value=earlier if earlier in item.options else None,
                description="Your prediction:",
                style=style,
                layout=widgets.Layout(width="auto"),
            )
        elif item.points:
            many = len(item.points)
            start = earlier if isinstance(earlier, list) and len(earlier) == many else [low] * many
            field = widgets.VBox(
                [
                    widgets.FloatSlider(
                        description=f"{label}:", value=x, min=low, max=high, step=step / 10, style=style
                    )
                    for label, x in zip(item.points, start)
                ]
            )
        else:
            field = widgets.BoundedFloatText(
                value=earlier if is_number(earlier) else low,
                min=low,
                max=high,
                style=style,
                step=step,
                description=f"Your prediction{f' ({item.unit})' if item.unit else ''}, {self._range()}:",
                layout=widgets.Layout(width="28em"),
            )
        button = widgets.Button(description="Record", tooltip=f"Record the prediction {item.id}")
        line = widgets.HTML(self._status_html())

        def press(_: Any) -> None:
            chosen = [s.value for s in field.children] if item.points else field.value
            if chosen is None:
                line.value = self._status_html("Choose one first.")
                return
            self.record(chosen)
            line.value = self._status_html()

        button.on_click(press)
        question = widgets.HTML(f"<strong>Predict.</strong> {inline(item.question)}")
        return widgets.VBox([question, field, button, line])

    def _status_html(self, text: str = "") -> str:
        return f'<span role="status" aria-live="polite">{escape(text or self.status_line)}</span>'

    def _range(self) -> str:
        return " to ".join(map(digits, self.item.range))

    def _choices(self) -> list[str]:
        unit = f" ({self.item.unit})" if self.item.unit else ""
        number = f"a number from {self._range()}{unit}"
        return list(self.item.options) or [f"{p}: {number}" for p in self.item.points] or [number]

    def _lettered(self) -> list[str]:
        return [f"{letter}) {o}" for letter, o in zip("abcdefghijkl", self.item.options)] or self._choices()

    def text(self) -> str:
        return "\n".join(
            [
                f"Predict ({self.id}). {self.item.question}",
                *(f"  {c}" for c in self._lettered()),
                f"  {self.status_line}",
            ]
        )

    def html(self) -> str:
        choices = "".join(f"<li>{inline(c)}</li>" for c in self._choices())
        kind = 'ol type="a"' if self.item.options else "ul"
        example = '"a"' if self.item.options else "[...]" if self.item.points else "..."
        return box(
            BLUE,
            f"<strong>Predict.</strong> {inline(self.item.question)}<{kind}>{choices}</{kind[:2]}>"
            f"<small>{escape(self.status_line)} Without the buttons: "
            f"<code>check.predict({self.id!r}, answer={escape(example)})</code></small>",
            f"Prediction {self.id}",
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        live = self.widget._repr_mimebundle_()
        return {**(live or {}), "text/plain": self.text(), "text/html": self.html()}


def predict(
    id: str,
    question: str | None = None,
    *,
    options: Sequence[str] | None = None,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    points: Sequence[str] | None = None,
    answer: Any = None,
) -> Predict:
    """Ask for a prediction; with `answer` it is recorded straight away.

    Without a question the chapter's definitions are searched for `id`; with one, the definition stands here.
    An unanswered prediction never fails anything.

    >>> check.predict("01-p1", "How many of 32 pairs come back?", unit="pairs", low=0, high=32)  # doctest: +SKIP
    """
    need(isinstance(id, str) and bool(ID.fullmatch(id)), "id", repr(id), "an id such as '01-p1'")
    if question is None:
        item = _asked.get(id) or registry.find(id, Prediction)
    else:
        item = Prediction(
            id=id,
            question=question,
            options=tuple(options or ()),
            unit=unit,
            low=low,
            high=high,
            points=tuple(points or ()),
        )
        if faults := item.problems():
            raise NLBookError(f"predict({id!r}): {'; '.join(faults)}")
        _asked[id] = item
    shown = Predict(item)
    if answer is not None:
        shown.record(answer)
    return shown


class Revealed(Shown):
    """The measured value, and the prediction beside it."""

    def __init__(
        self, id: str, measured: str, prediction: str, right: bool | None, explanation: str, late: bool
    ) -> None:
        self.id, self.measured, self.prediction, self.right = id, measured, prediction, right
        self.explanation, self.late = explanation, late

    def _compared(self) -> str:
        if not self.prediction:
            return ""
        if self.late:
            return f"Your prediction, made after the reveal: {self.prediction}"
        return f"Your prediction: {self.prediction}" + (f" ({'as measured' if self.right else 'not so'})")

    def text(self) -> str:
        return "\n".join(x for x in (f"Measured ({self.id}): {self.measured}", self._compared(), self.explanation) if x)

    def html(self) -> str:
        compared = f"<br>{escape(self._compared())}" if self.prediction else ""
        return box(
            GREEN if self.right else GREY,
            f"<strong>Measured: {escape(self.measured)}</strong>{compared}" + prose(self.explanation),
            f"Result of prediction {self.id}",
        )


def reveal(
    id: str, measured: Any, explanation: str | Mapping[str, str] = "", *, right: str | None = None, within: float = 0.1
) -> Revealed:
    """Show what was measured beside what was predicted.

    measured     an option's text, a number, or a list of numbers for points
    explanation  a text, or option -> text: then the chosen option's is shown (and the right one's)
    right        the right option, where `measured` is a number that speaks for it
    within       a number counts as right within this share of the measured one (of the largest, for points)
    """
    need(isinstance(id, str) and bool(ID.fullmatch(id)), "id", repr(id), "an id such as '01-p1'")
    plain = (
        measured
        if isinstance(measured, (str, bool))
        else (
            [float(x) for x in measured]
            if getattr(measured, "ndim", 0) or isinstance(measured, (list, tuple))
            else float(measured)
        )
    )
    goal = right if right is not None else plain
    records = store.load(FILE)
    record = records.setdefault(id, {"entries": []})
    record.setdefault("revealed", store.now())
    choice = counted(record)
    late = choice is None and bool(record["entries"])
    mine = record["entries"][-1]["answer"] if late else choice
    hit = None if mine is None else judge_prediction(mine, goal, within)
    record.update(measured=plain, right=None if late else hit)
    store.save(FILE, records)
    if isinstance(explanation, str):
        told = explanation
    else:
        parts = [explanation.get(str(mine), "")] if mine is not None else []
        parts += [explanation.get(str(goal), "")] if hit is not True else []
        told = "\n\n".join(dict.fromkeys(p for p in parts if p))
    known = _asked.get(id) or registry.get(id, Prediction)
    unit = record.get("unit", known.unit if known else "")
    return Revealed(
        id,
        said(plain, "" if isinstance(plain, str) else unit),
        "" if mine is None else said(mine, unit),
        hit,
        told,
        late,
    )


def judge_prediction(mine: Any, goal: Any, within: float) -> bool:
    """Whether a prediction was right: the same option, or near enough."""
    if isinstance(mine, str) or isinstance(goal, str):
        return str(mine) == str(goal)
    if isinstance(mine, list) or isinstance(goal, list):
        if not (isinstance(mine, list) and isinstance(goal, list) and len(mine) == len(goal)):
            return False
        return max(abs(m - g) for m, g in zip(mine, goal)) <= within * max(max(map(abs, goal)), 1e-12)
    return abs(float(mine) - float(goal)) <= within * max(abs(float(goal)), 1e-12)


def predictions() -> Table:
    """Every prediction beside what was measured, and how many were right, by chapter."""
    records = store.load(FILE)
    rows = []
    tally: dict[str, list[bool]] = {}
    for id, r in sorted(records.items()):
        entries = r.get("entries", [])
        if not entries:
            continue
        mine = counted(r)
        late = mine is None
        if isinstance(r.get("right"), bool) and not late:
            tally.setdefault(id[:2], []).append(r["right"])
        verdict = "after the reveal" if late else {True: "right", False: "not so"}.get(r.get("right"), "open")  # type: ignore[arg-type]
        rows.append(
            [
                id,
                r.get("question", ""),
                said(entries[-1]["answer"] if late else mine, r.get("unit", "")),
                said(r["measured"], r.get("unit", "")) if "measured" in r else "",
                verdict,
            ]
        )
    by_chapter = "; ".join(f"chapter {c}: {sum(t)} of {len(t)} right" for c, t in sorted(tally.items()))
    note = by_chapter or "No prediction has been compared yet."
    return Table("Predictions", ["id", "question", "predicted", "measured", "verdict"], rows, note)
