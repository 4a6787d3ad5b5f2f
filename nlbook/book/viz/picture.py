"""What the reader sees: `load` a live picture, `show` a plain figure, `gallery` of all.

No ipywidgets.Output anywhere: it hides errors from the cell, stalls nbclient now and then (nbclient #312) and leaves
nothing in a saved notebook. Every output here also holds image/png with its alt text in the output's metadata.
"""

from __future__ import annotations

import base64
import html
import os
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as W
import traitlets as tr
from IPython.display import display
from matplotlib.figure import Figure

from nlbook.book.viz import spec as views
from nlbook.book.viz.spec import View, checked_alt
from nlbook.book.viz.state import Bool, Choice, Float, Int, Ints, Param, State
from nlbook.book.viz.style import css_size, png
from nlbook.errors import NLBookError

JS = Path(__file__).parent / "js"
PARTS = ("controls", "landmarks", "task", "answer", "state")
Bundle = tuple[dict[str, Any], dict[str, Any]]


class Screen(anywidget.AnyWidget):
    """The image with its alt text, the state string and the description; the browser's half is js/screen.js."""

    _esm = JS / "screen.js"
    _css = JS / "screen.css"
    png = tr.Bytes().tag(sync=True)
    alt = tr.Unicode().tag(sync=True)
    width = tr.Int(700).tag(sync=True)
    state = tr.Unicode().tag(sync=True)
    show_state = tr.Bool(True).tag(sync=True)
    description = tr.Unicode().tag(sync=True)


def control(param: Param) -> W.ValueWidget:
    """The widget that moves one parameter."""
    style, wide = {"description_width": "initial"}, W.Layout(width="290px", margin="2px 14px 2px 0")
    common: dict[str, Any] = {"description": param.label or param.name, "style": style, "layout": wide}
    if isinstance(param, Int):
        return W.IntSlider(param.default, min=param.low, max=param.high, step=param.step, **common)
    if isinstance(param, Float):
        digits = max(0, len(f"{param.step:.10f}".rstrip("0").partition(".")[2]))
        return W.FloatSlider(
            param.default, min=param.low, max=param.high, step=param.step, readout_format=f".{digits}f", **common
        )
    if isinstance(param, Choice):
        kind = W.SelectionSlider if param.slider else W.Dropdown
        return kind(options=[(param.spell(o), o) for o in param.options], value=param.default, **common)
    if isinstance(param, Bool):
        return W.Checkbox(
            param.default,
            description=common["description"],
            indent=False,
            layout=W.Layout(width="auto", margin="2px 14px 2px 0"),
        )
    if isinstance(param, Ints):  # typed in; taken over with Enter or on leaving the field
        return W.Text(param.spell(param.default), continuous_update=False, **common)
    raise TypeError(f"no control for {type(param).__name__}")


class Picture(W.VBox):
    """A live picture: controls, landmarks, the picture itself, task and folded answer. Made by `viz.load`.

    .figure() .png() .facts .alt .describe() .state .state_string .set(n=8) .controls["n"]
    An error while drawing raises from `load` and `set`; when a control is moved it is shown in `.message`.
    """

    def __init__(self, spec: View, state: State, hide: Iterable[str] = ()) -> None:
        hidden = (hide,) if isinstance(hide, str) else tuple(hide)
        for part in hidden:
            if part not in (*PARTS, *state):
                raise NLBookError(f"hide: got {part!r}, expected some of {', '.join((*PARTS, *state))}")
        self.spec, self.state, self.draws = spec, state, 0
        self._busy = False
        self.controls = {p.name: control(p) for p in spec.params}
        self.message = W.HTML()
        self.screen = Screen(show_state="state" not in hidden)
        self.live = spec.live(state) if spec.live else None
        self._take(state)  # an error here fails the cell
        super().__init__(
            [
                part
                for part in (
                    W.HTML(f"<b>{html.escape(spec.title)}</b>"),
                    None if "controls" in hidden else self._control_box(hidden),
                    None if "landmarks" in hidden else self._landmark_box(),
                    self.message,
                    self.live,
                    self.screen,
                    None if "task" in hidden else self._task_box("answer" in hidden),
                )
                if part is not None
            ]
        )
        self.add_class("nlbook-picture")
        for c in self.controls.values():
            c.observe(self._moved, "value")
        if self.live is not None and hasattr(self.live, "picked"):  # a live part that the reader can move
            self.live.observe(lambda _: self._guarded(lambda: self.live.picked(self.state)), "chosen")  # type: ignore[union-attr]

    # -- the parts ---------------------------------------------------------------------------------------------------
    def _control_box(self, hidden: tuple[str, ...]) -> W.Widget:
        row = W.Layout(flex_flow="row wrap", align_items="center")
        at_first: list[W.Widget] = []
        folded: list[W.Widget] = []
        for i, p in enumerate(self.spec.params):
            if p.name not in hidden:
                more = p.more if p.more is not None else i >= views.AT_FIRST
                (folded if more else at_first).append(self.controls[p.name])
        if not folded:
            return W.HBox(at_first, layout=row)
        fold = W.HBox(folded, layout=W.Layout(flex_flow="row wrap", align_items="center", display="none"))
        button = W.ToggleButton(description="More", tooltip="Show the other controls", layout=W.Layout(width="70px"))

        def toggle(change: dict[str, Any]) -> None:
            fold.layout.display = "flex" if change["new"] else "none"
            button.description = "Less" if change["new"] else "More"

        button.observe(toggle, "value")
        self.more = button
        return W.VBox([W.HBox([*at_first, button], layout=row), fold])

    def _landmark_box(self) -> W.Widget | None:
        if not self.spec.landmarks:
            return None
        buttons = []
        for name, state in self.spec.landmarks.items():
            b = W.Button(description=name, tooltip=str(state), layout=W.Layout(width="auto"))
            b.on_click(self._jump(state))
            b.add_class("nlbook-landmark")
            buttons.append(b)
        self.landmark_buttons = buttons
        return W.HBox([W.HTML("Go to:"), *buttons], layout=W.Layout(flex_flow="row wrap", align_items="center"))

    def _task_box(self, no_answer: bool) -> W.HTML:
        answer = f"<details><summary>Answer</summary>{html.escape(self.spec.answer)}</details>"
        return W.HTML(
            f"<div style='max-width:46em;line-height:1.4'><b>Task.</b> {html.escape(self.spec.task)}"
            f"{'' if no_answer else answer}</div>"
        )

    # -- state changes -----------------------------------------------------------------------------------------------
    def _take(self, state: State) -> None:
        """Draw `state`, then make it the current one; on an error nothing changes."""
        facts = self.spec.facts(state)
        if self.live is None:
            fig = self.spec.figure(state)
            data, width = png(fig, small=False), css_size(fig)[0]
        else:
            self.live.show_state(state)
            data, width = b"", 700
        alt, description = self.spec.alt(state), self.spec.describe(state)
        self.facts, self.alt, self.state, self.draws = facts, alt, state, self.draws + 1
        with self.screen.hold_sync():  # one message for the browser
            self.screen.set_trait("png", data)
            self.screen.set_trait("width", width)
            self.screen.set_trait("alt", alt)
            self.screen.set_trait("state", str(state))
            self.screen.set_trait("description", description)
        self.message.value = ""
        self._busy = True  # the controls follow without drawing again
        try:
            for p in self.spec.params:
                c = self.controls[p.name]
                value = p.spell(state[p.name]) if isinstance(p, Ints) else state[p.name]
                if c.value != value:
                    c.value = value
        finally:
            self._busy = False

    def _guarded(self, new_state: Callable[[], State]) -> None:
        """What the reader did in the browser: an error is shown above the last good picture."""
        try:
            state = new_state()
            if state != self.state or self.message.value:
                self._take(state)
        except Exception as error:
            said = str(error) if isinstance(error, NLBookError) else traceback.format_exc(limit=-3)
            self.message.value = f'<pre class="nlbook-error" role="alert">{html.escape(said)}</pre>'

    def _moved(self, change: dict[str, Any]) -> None:
        if not self._busy:  # the browser merges changes while one is being drawn: only the latest comes here
            self._guarded(self._from_controls)

    def _from_controls(self) -> State:
        values = {}
        for p in self.spec.params:
            v: Any = self.controls[p.name].value
            values[p.name] = p.parse(v) if isinstance(p, Ints) else v
        return self.spec.state(values)

    def _jump(self, state: State) -> Callable[[W.Button], None]:
        return lambda _button: self._guarded(lambda: state)

    def set(self, state: str | None = None, **values: Any) -> Picture:
        """Go to another state from code: `p.set(n=8)`, `p.set("n=8,rho=0.5")` or `p.set("landmark name")`.

        Values not named keep what they are; a string starts from the defaults. Errors raise. Returns the picture.
        """
        base: State = self.state if state is None else self.spec.landmarks.get(state) or self.spec.state(state)
        self._take(base.replace(**values))
        return self

    # -- reading -----------------------------------------------------------------------------------------------------
    @property
    def state_string(self) -> str:
        """The whole state in a short string; `viz.load(it)` shows this picture again."""
        return str(self.state)

    def figure(self) -> Figure:
        """The picture as a matplotlib Figure (for print, or to change it)."""
        return self.spec.figure(self.state)

    def png(self) -> bytes:
        """The picture's PNG bytes; the same state gives the same bytes."""
        return png(self.figure())

    def describe(self) -> str:
        """The long description: what is seen, the settings and every number."""
        return self.spec.describe(self.state)

    def __repr__(self) -> str:
        return f"Picture {self.state_string!r}: {self.alt}"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if os.environ.get("NLBOOK_STATIC") == "html":  # a site build: no kernel, and no widget manager
            picture = img_tag(self.png(), self.alt, css_size(self.figure())[0])
            page = f"<figure class='nlbook-still'>{picture}<figcaption>{html.escape(self.spec.task)}<details><summary>"
            page += f"Answer</summary>{html.escape(self.spec.answer)}</details></figcaption></figure>"
            return {"text/html": page, "text/plain": repr(self)}, {}
        live = super()._repr_mimebundle_(**kwargs)
        data = dict(live[0] if isinstance(live, tuple) else live or {})
        static, metadata = image_bundle(self.png(), self.alt, css_size(self.figure())[0])
        return {**data, **static, "text/plain": repr(self)}, metadata


def img_tag(data: bytes, alt: str, width: int) -> str:
    source = base64.b64encode(data).decode()
    return (
        f'<img src="data:image/png;base64,{source}" alt="{html.escape(alt)}" width="{width}" '
        'style="max-width:100%;background:#fff">'
    )


def image_bundle(data: bytes, alt: str, width: int) -> Bundle:
    """image/png with alt text and page width in its metadata, as nbconvert reads them."""
    return (
        {"image/png": base64.b64encode(data).decode(), "text/plain": alt},
        {"image/png": {"alt": alt, "width": width}},
    )


def show_image(data: bytes, alt: str, width: int) -> None:
    """Display an image, and below it a fold with its description.

    JupyterLab (4.6.6, read in its source) draws image/png with no alt attribute whatever the metadata says; the fold
    gives a screen reader the same words, and the metadata serves nbconvert, Sphinx and the notebook's checker.
    """
    if os.environ.get("NLBOOK_STATIC") == "html":
        display({"text/html": img_tag(data, alt, width), "text/plain": alt}, raw=True)
        return
    bundle, metadata = image_bundle(data, alt, width)
    display(bundle, metadata=metadata, raw=True)
    fold = f"<details><summary>Description of the picture</summary>{html.escape(alt)}</details>"
    display({"text/html": fold, "text/plain": ""}, raw=True)


def load(state: str, hide: Iterable[str] = ()) -> Picture:
    """The picture of a state string, live: `viz.load("interference:n=32,rho=0.5")`.

    hide: any of "controls", "landmarks", "task", "answer", "state", or names of single parameters (for a teacher who
    hands out a state). Raises NLBookError for a string that names no view, no value or a value out of range.
    """
    spec, parsed = views.load_state(state)
    return Picture(spec, parsed, hide)


def show(fig: Figure, alt: str) -> None:
    """Display a plain figure with its alt text (at least 8 words, checked before anything is drawn)."""
    if not isinstance(fig, Figure):
        raise NLBookError(f"fig: got {type(fig).__name__}, expected a matplotlib Figure, such as viz.figure()")
    words = checked_alt(alt)
    show_image(png(fig), words, css_size(fig)[0])


class Gallery:
    """The list of all pictures, as a table in a notebook and as text elsewhere."""

    def __init__(self) -> None:
        self.views = views.all_views()

    def __repr__(self) -> str:
        return "\n".join(f'viz.load("{v.key}")  {v.title}' for v in self.views)

    def _repr_html_(self) -> str:
        rows = [("call", "picture and task", "states to try")]
        for v in self.views:
            states = "<br>".join(f"<code>{html.escape(str(s))}</code>" for s in v.landmarks.values())
            said = f"<b>{html.escape(v.title)}</b><br>{html.escape(v.task)}"
            rows.append((f'<code>viz.load("{v.key}")</code>', said, states))
        cells = ("".join(f"<td style='text-align:left'>{cell}</td>" for cell in row) for row in rows)
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def gallery() -> Gallery:
    """Every picture of the book, with its task and its landmark states."""
    return Gallery()
