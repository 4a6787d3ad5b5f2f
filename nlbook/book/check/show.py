"""How answers, questions and tables look: every object has a plain text and an accessible HTML form without scripts.

State is told in words, never by colour alone; hints and solutions are folded with <details>, which needs no script
and works in a notebook without a kernel.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import ipywidgets as widgets

BLUE, GREEN, ORANGE, GREY = "#0072B2", "#009E73", "#D55E00", "#777777"


class Shown:
    """Something with a text and an HTML form."""

    def text(self) -> str:
        raise NotImplementedError

    def html(self) -> str:
        return f"<pre>{escape(self.text())}</pre>"

    _seen = False

    def __repr__(self) -> str:
        self._seen = True
        return self.text()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        self._seen = True
        return {"text/plain": self.text(), "text/html": self.html()}


def in_notebook() -> bool:
    """Whether IPython runs this, so that what a cell ends with is shown as HTML."""
    return "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None


S = TypeVar("S", bound=Shown)


def announce(shown: S) -> S:
    """`shown`, which will be seen wherever the call stands: after its cell where that did not show it as its last
    line, at once in a plain script."""
    if not in_notebook():
        if not hasattr(sys, "ps1"):
            print(shown)
        return shown
    shell = sys.modules["IPython"].get_ipython()

    def after(*_: Any) -> None:
        shell.events.unregister("post_run_cell", after)
        if not shown._seen:
            sys.modules["IPython.display"].display(shown)

    shell.events.register("post_run_cell", after)
    return shown


class Note(Shown):
    """A titled piece of text; code is shown as code."""

    def __init__(self, title: str, body: str, code: bool = False) -> None:
        self.title, self.body, self.code = title, body, code

    def text(self) -> str:
        return f"{self.title}\n{self.body}" if self.title else self.body

    def html(self) -> str:
        inner = f"<pre>{escape(self.body)}</pre>" if self.code else prose(self.body)
        return box(GREY, f"<strong>{escape(self.title)}</strong>{inner}")


class Table(Shown):
    """A table with a caption; `rows` hold texts."""

    def __init__(self, caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> None:
        self.caption, self.head, self.rows, self.note = caption, head, rows, note

    def text(self) -> str:
        lines = [self.head, *self.rows]
        wide = [max(len(str(r[i])) for r in lines) for i in range(len(self.head))]
        body = ["  ".join(str(c).ljust(w) for c, w in zip(r, wide)).rstrip() for r in lines]
        return "\n".join([self.caption, *body, *([self.note] if self.note else [])])

    def html(self) -> str:
        head = "".join(f'<th scope="col" style="text-align:left">{escape(h)}</th>' for h in self.head)
        body = "".join(
            "<tr>" + "".join(f'<td style="text-align:left">{escape(str(c))}</td>' for c in r) + "</tr>"
            for r in self.rows
        )
        return (
            f'<table><caption style="text-align:left;font-weight:bold">{escape(self.caption)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{prose(self.note)}"
        )


EMPHASIS = re.compile(r"(?<![\w*])\*([^\s*](?:[^*\n]*[^\s*])?)\*(?![\w*])")


def inline(text: str) -> str:
    """One line of HTML: `code` in backticks becomes code, *words* in asterisks are emphasised; 2 * 3 * 4 stays."""
    parts = re.split("`([^`]+)`", escape(text))  # every second one stood in backticks
    return "".join(f"<code>{p}</code>" if i % 2 else EMPHASIS.sub(r"<em>\1</em>", p) for i, p in enumerate(parts))


def prose(text: str) -> str:
    """Paragraphs of `inline` text."""
    if not text:
        return ""
    return "".join(f'<p style="margin:.3em 0">{p}</p>' for p in inline(text).split("\n\n"))


def box(color: str, inner: str, label: str = "") -> str:
    """A block with a coloured edge."""
    role = f' role="group" aria-label="{escape(label)}"' if label else ""
    return f'<div{role} style="border-left:4px solid {color};padding:.2em .8em;margin:.4em 0">{inner}</div>'


def fold(summary: str, inner: str) -> str:
    """Closed until the reader opens it; works with the keyboard."""
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>"


def rows_html(rows: Iterable[tuple[str, str]]) -> str:
    """Name and value, a line each."""
    body = "".join(
        f'<tr><th scope="row" style="text-align:left">{escape(k)}</th>'
        f'<td style="text-align:left"><code>{escape(v)}</code></td></tr>'
        for k, v in rows
    )
    return f"<table><tbody>{body}</tbody></table>" if body else ""


def rows_text(rows: Iterable[tuple[str, str]]) -> str:
    """The same in plain text."""
    return "\n".join(f"    {k}: {v}" for k, v in rows)


def form(question: str, field: Any, button: str, press: Callable[[Any], str], status: str) -> widgets.VBox:
    """A question, a field and a button. `press(field)` does the work and returns what the line below then says."""
    import ipywidgets as widgets

    def told(text: str) -> str:
        return f'<span role="status" aria-live="polite">{inline(text)}</span>'

    pressed, line = widgets.Button(description=button), widgets.HTML(told(status))
    pressed.on_click(lambda _: line.set_trait("value", told(press(field))))
    return widgets.VBox([widgets.HTML(question), field, pressed, line])
