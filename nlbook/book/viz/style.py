"""One look for every picture: in a chapter one colour is one meaning, no pyplot, and the same bytes each time.

Colours are Okabe and Ito's eight, which stay apart for colour-blind readers; the levels are a ramp from light to dark
(fast to slow), so that their order can be seen in grey as well.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS: dict[str, str] = {
    "key": "#0072B2",  # blue
    "value": "#009E73",  # green
    "objective": "#CC79A7",  # pink
    "rate": "#E69F00",  # orange
    "query": "#56B4E9",  # sky
    "memory": "#332288",  # indigo
    "error": "#D55E00",  # vermilion
    "truth": "#000000",
    "baseline": "#6E6E6E",
    "control": "#A0A0A0",
    "level1": "#F2844B",  # the fastest level; plasma from light to dark
    "level2": "#D5536F",
    "level3": "#A82296",
    "level4": "#7201A8",
    "level5": "#3E049C",
    "level6": "#0D0887",
    "frozen": "#6E6E6E",
    "grid": "#E4E4E4",
    "hebbian": "#A68A53",  # rules are browns
    "delta": "#591E00",
    "rls": "#4A5900",
    "softmax": "#A3344A",
    "for ever": "#1F593C",  # kinds of facts are greens, from slow to fast
    "document": "#00A600",
    "moment": "#82A000",
    "task A": "#00707F",
    "task B": "#A67C00",
}
"""Meaning -> colour. In one chapter no two meanings look alike; a test sees to it."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "levels": ("level1", "level2", "level3", "level4", "level5", "level6"),
    "rules": ("hebbian", "delta", "rls", "softmax"),
    "kinds of facts": ("for ever", "document", "moment"),
    "tasks": ("task A", "task B"),
}
"""What is drawn in the colours of a family is one of its members, and the members are drawn in nothing else."""

BOOK_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same glyphs on every machine
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.facecolor": "white",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLORS["grid"],
    "grid.linewidth": 0.8,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "image.cmap": "cividis",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.transparent": False,
    "mathtext.fontset": "dejavusans",
}

DPI = 144  # pixels an inch in the file
CSS_PER_INCH = 100  # pixels an inch on the page: 10-point text shows at 14 px


@contextmanager
def book_style() -> Iterator[None]:
    """The book's matplotlib settings, for the time of a `with` block."""
    with matplotlib.rc_context(cast(Any, BOOK_STYLE)):
        yield


class BookFigure(Figure):
    """A Figure whose axes take the book's style also when they are made outside `book_style()`."""

    def add_subplot(self, *args: Any, **kwargs: Any) -> Axes:
        with book_style():
            return super().add_subplot(*args, **kwargs)


def figure(width: float = 7, height: float = 3.2, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure in the book's style: white, constrained layout, not known to pyplot (nothing to close).

    `width` and `height` are in inches; an inch is 100 pixels on the page, so 7 fills a notebook's column. A live
    picture with several axes may take layout=None and place them itself: constrained layout is half of its time.
    """
    with book_style():
        return BookFigure(figsize=(width, height), layout=layout)


def png(fig: Figure, dpi: int = DPI, small: bool = True) -> bytes:
    """The figure as PNG: the same figure gives the same bytes (no software name, no date). small=False is faster."""
    buffer = io.BytesIO()
    with book_style():
        fig.savefig(
            buffer,
            format="png",
            dpi=dpi,
            metadata={"Software": None},
            facecolor="white",
            pil_kwargs={"compress_level": 9 if small else 1},
        )
    return buffer.getvalue()


def css_size(fig: Figure) -> tuple[int, int]:
    """Width and height of the figure on the page, in CSS pixels."""
    width, height = fig.get_size_inches()
    return round(width * CSS_PER_INCH), round(height * CSS_PER_INCH)


def end_label(ax: Axes, x: float, y: float, text: str, color: str, dx: float = 5, dy: float = 0, **kwargs: Any) -> None:
    """A direct label at the end of a line, in the line's colour: the reader need not match a legend."""
    kwargs = {"va": "center", "ha": "left", "fontsize": 9, "annotation_clip": False, **kwargs}
    ax.annotate(text, (x, y), (dx, dy), textcoords="offset points", color=color, **kwargs)
