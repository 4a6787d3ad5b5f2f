"""Predictions: written down before the result is shown, and set beside it afterwards.

A prediction is never graded and never demanded. In a notebook the result is folded until a prediction is recorded, and
opens then. One that is changed after the reveal is kept, marked as such, and left out of the calibration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from nlbook.book.check import registry, store
from nlbook.book.check.questions import Prediction
from nlbook.book.check.show import (
    BLUE,
    GREEN,
    GREY,
    Shown,
    Table,
    announce,
    box,
    fold,
    form,
    in_notebook,
    inline,
    prose,
)
from nlbook.book.check.values import digits
from nlbook.errors import NLBookError, need

if TYPE_CHECKING:
    import ipywidgets as widgets

FILE = "predictions"
_waiting: dict[str, list[widgets.HTML]] = {}  # id -> results on the page that open when a prediction is recorded


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

    def record(self, answer: Any) -> None:
        """Write a prediction down (an option's text or letter, a number, a list of numbers for points); refuses
        what is no option, or outside the range."""
        item = self.item
        low, high = item.range
        if item.options:
            chosen = item.chosen(answer)
            if chosen is None:
                need(False, "answer", repr(answer), f"one of {[o.text for o in item.options]}, or its letter")
            else:
                answer = chosen.text
        else:
            numbers = list(answer) if isinstance(answer, (list, tuple)) else [answer]
            many = isinstance(answer, (list, tuple)) == bool(item.points) and len(numbers) == (len(item.points) or 1)
            want = f"{len(item.points)} numbers" if item.points else "a number"
            good = many and all(is_number(x) and low <= x <= high for x in numbers)
            need(good, "answer", repr(answer), f"{want} from {self._range()}")
            answer = numbers if item.points else answer
        records = store.load(FILE)
        record = records.setdefault(self.id, {"entries": []})
        record.update(question=item.question, unit=item.unit)
        if record["entries"] and record["entries"][-1]["answer"] == answer:
            return  # the cell was run again
        record["entries"].append({"answer": answer, "time": store.now(), "after_reveal": "revealed" in record})
        store.save(FILE, records)

    @property
    def _last(self) -> Mapping[str, Any]:
        return (store.load(FILE).get(self.id, {}).get("entries") or [{}])[-1]

    @property
    def recorded(self) -> Any:
        """The latest prediction, or None."""
        return self._last.get("answer")

    @property
    def status_line(self) -> str:
        if not self._last:
            return "Not recorded yet. You can go on without it."
        late = " (after the reveal: kept, not counted)" if self._last["after_reveal"] else ""
        return f"Recorded: {said(self.recorded, self.item.unit)}{late}"

    @property
    def widget(self) -> widgets.VBox:
        """Radio buttons or a bounded number, and a button; Tab, arrows and Space reach all of it."""
        if self._widget is None:
            question = f"<strong>Predict.</strong> {inline(self.item.question)}"
            self._widget = form(question, self._field(), "Record", self._press, self.status_line)
        return self._widget

    def _press(self, field: Any) -> str:
        chosen = [s.value for s in field.children] if self.item.points else field.value
        if chosen is None:
            return "Choose one first."
        self.record(chosen)
        for folded in _waiting.pop(self.id, []):
            folded.value = compared(self.id, store.load(FILE)[self.id]["measured"]).html()
        return self.status_line

    def _field(self) -> Any:
        import ipywidgets as widgets  # half a second: only where something is shown

        item, earlier = self.item, self.recorded
        low, high = item.range
        step = 10.0 ** math.floor(math.log10(high - low) - 1)
        style: dict[str, Any] = {"style": {"description_width": "initial"}}
        if item.options:
            texts = [o.text for o in item.options]
            wide = widgets.Layout(width="auto")
            value = earlier if earlier in texts else None
            return widgets.RadioButtons(
                options=texts, value=value, description="Your prediction:", layout=wide, **style
            )
        if item.points:
            same = isinstance(earlier, list) and len(earlier) == len(item.points)
            start = earlier if same else [low] * len(item.points)
            style |= {"min": low, "max": high, "step": step / 10}
            return widgets.VBox(
                [widgets.FloatSlider(description=f"{p}:", value=x, **style) for p, x in zip(item.points, start)]
            )
        text = f"Your prediction{f' ({item.unit})' if item.unit else ''}, {self._range()}:"
        value, wide = earlier if is_number(earlier) else low, widgets.Layout(width="28em")
        return widgets.BoundedFloatText(
            value=value, min=low, max=high, step=step, description=text, layout=wide, **style
        )

    def _range(self) -> str:
        return " to ".join(map(digits, self.item.range))

    def _choices(self) -> list[str]:
        number = f"a number from {self._range()}{f' ({self.item.unit})' if self.item.unit else ''}"
        return [o.text for o in self.item.options] or [f"{p}: {number}" for p in self.item.points] or [number]

    def text(self) -> str:
        choices = [f"{letter}) {o.text}" for letter, o in self.item.lettered()] or self._choices()
        lines = [f"Predict ({self.id}). {self.item.question}", *(f"  {c}" for c in choices), f"  {self.status_line}"]
        return "\n".join(lines)

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
        return {**(self.widget._repr_mimebundle_() or {}), **super()._repr_mimebundle_()}


def predict(id: str, answer: Any = None) -> Predict:
    """Ask for a prediction of the chapter; with `answer` it is recorded straight away.

    An unanswered prediction never fails anything.
    """
    shown = Predict(registry.find(id, Prediction))
    if answer is not None:
        shown.record(answer)
    return announce(shown)


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
        beside = f"<br>{escape(self._compared())}" if self.prediction else ""
        return box(
            GREEN if self.right else GREY,
            f"<strong>Measured: {escape(self.measured)}</strong>{beside}" + prose(self.explanation),
            f"Result of prediction {self.id}",
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        if self.prediction:
            return super()._repr_mimebundle_()
        import ipywidgets as widgets  # half a second: only where something is shown

        folded = widgets.HTML(fold(f"Record your prediction ({self.id}), or open the result", self.html()))
        _waiting.setdefault(self.id, []).append(folded)
        return {**(folded._repr_mimebundle_() or {}), **super()._repr_mimebundle_()}


def reveal(id: str, measured: Any = None) -> Revealed:
    """Show what came out beside what was predicted; what to say about it stands with the chapter's definitions.

    measured   what the page has measured: an option's text, a number, or a list of numbers for points; without it,
               the right option, or the number that the definition knows
    """
    return announce(compared(id, measured))


def compared(id: str, measured: Any) -> Revealed:
    """What came out beside what was predicted; without a prediction a notebook folds it, and it is not revealed yet."""
    item = registry.find(id, Prediction)
    if measured is None:
        measured = next((o.text for o in item.options if o.right), item.answer)
    need(measured is not None, "measured", "None", f"the number that answers {id!r}")
    several = bool(getattr(measured, "ndim", 0)) or isinstance(measured, (list, tuple))
    plain: Any = [float(x) for x in measured] if several else measured if isinstance(measured, str) else float(measured)
    records = store.load(FILE)
    record = records.setdefault(id, {"entries": []})
    choice = counted(record)
    if choice is not None or not in_notebook():
        record.setdefault("revealed", store.now())
    late = choice is None and bool(record["entries"])
    mine = record["entries"][-1]["answer"] if late else choice
    hit = None if mine is None else agrees(item, mine, plain)
    record.update(measured=plain, right=None if late else hit)
    store.save(FILE, records)
    why = {o.text: o.why for o in item.options}
    if why and plain not in why:
        raise NLBookError(f"measured: got {plain!r}, expected one of the options {list(why)}")
    told = [why[o] for o in dict.fromkeys((mine, plain)) if o in why] if isinstance(plain, str) else [item.why]
    unit = "" if isinstance(plain, str) else item.unit
    mine_said = "" if mine is None else said(mine, item.unit)
    return Revealed(id, said(plain, unit), mine_said, hit, "\n\n".join(told), late)


def agrees(item: Prediction, mine: Any, measured: Any) -> bool:
    """Whether a prediction was right: the same option, or near enough to the number or the interval."""
    if isinstance(measured, str) or isinstance(mine, str):
        return str(mine) == str(measured)
    mine, measured = (x if isinstance(x, Sequence) else [x] for x in (mine, measured))
    if len(mine) != len(measured):
        return False
    reach = item.within * max(*map(abs, measured), 1e-12)
    low, high = item.between or (min(measured), max(measured))
    if item.between:
        return all(low - reach <= m <= high + reach for m in mine)
    return all(abs(m - x) <= reach for m, x in zip(mine, measured))


def predictions() -> Table:
    """Every prediction beside what was measured, and how many were right, by chapter."""
    rows = []
    tally: dict[str, list[bool]] = {}
    for id, r in sorted(store.load(FILE).items()):
        if not r.get("entries"):
            continue
        mine, unit = counted(r), r.get("unit", "")
        verdict = (
            {True: "right", False: "not so"}.get(r.get("right"), "open") if mine is not None else "after the reveal"
        )  # type: ignore[arg-type]
        if verdict in ("right", "not so"):
            tally.setdefault(id.split("-")[0], []).append(r["right"])
        predicted = said(r["entries"][-1]["answer"] if mine is None else mine, unit)
        rows.append(
            [id, r.get("question", ""), predicted, said(r["measured"], unit) if "measured" in r else "", verdict]
        )
    by_chapter = "; ".join(f"chapter {c}: {sum(t)} of {len(t)} right" for c, t in sorted(tally.items()))
    note = by_chapter or "No prediction has been compared yet."
    return Table("Predictions", ["id", "question", "predicted", "measured", "verdict"], rows, note)
