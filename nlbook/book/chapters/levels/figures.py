"""Figures of chapter 04: parts on an axis of update frequency, state, start and outer weights, and learned starts."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from nlbook.book.chapters.levels.detective import KIND_COLORS
from nlbook.book.chapters.levels.starts import KEYS, Reading
from nlbook.book.viz.style import COLORS, book_style, figure
from nlbook.levels import NestedSystem
from nlbook.levels.order import INF

Frequency = int | float | Fraction


def column(frequency: Frequency) -> int:
    """Where a part stands: never, once a sequence or more seldom, every token, nothing fitted."""
    return 0 if frequency == 0 else 3 if frequency == INF else 1 if frequency < 1 else 2


COLUMNS = ("never written", "once a document", "once a token", "nothing fitted,\ncomputed anew at each token")


def empty(system: NestedSystem) -> bool:
    """Whether nothing stands between the two ends."""
    return all(column(c.frequency) in (0, 3) for c in system.components if c.frequency is not None)


def axis(systems: Mapping[str, NestedSystem]) -> Figure:
    """One row a model: its parts from slow to fast, and the gap where a model has nothing between the two ends."""
    fig = figure(9.2, 1.0 * len(systems) + 0.8)
    with book_style():
        ax = fig.subplots()
    for row, (name, system) in enumerate(systems.items()):
        y = len(systems) - 1 - row
        ax.axhspan(y - 0.47, y + 0.47, facecolor="#F4F4F4", zorder=0)
        ax.text(-0.62, y, name, ha="right", va="center", fontsize=9.5)
        for at in range(4):
            kinds: dict[str, list[str]] = {}
            for c in system.components:
                if c.frequency is not None and column(c.frequency) == at:
                    kinds.setdefault(c.kind, []).append(c.name)
            for i, (kind, names) in enumerate(kinds.items()):
                middle = y + 0.155 * (len(kinds) - 1) - 0.31 * i
                box(ax, at, middle, ", ".join(names), KIND_COLORS.get(kind, COLORS["baseline"]))
        if empty(system):
            ax.add_patch(
                FancyBboxPatch(
                    (0.62, y - 0.3),
                    1.76,
                    0.6,
                    boxstyle="round,pad=0,rounding_size=0.1",
                    facecolor="white",
                    edgecolor=COLORS["error"],
                    ls="--",
                    hatch="///",
                    alpha=0.45,
                )
            )
            ax.text(1.5, y, "nothing in between", ha="center", va="center", color=COLORS["error"], weight="bold")
    ax.set(xlim=(-0.6, 3.6), ylim=(-0.5, len(systems) - 0.4), yticks=[], xticks=range(4), xticklabels=COLUMNS)
    ax.set_xlabel("slow  →  fast: how often a part is written", fontsize=10)
    ax.grid(False)
    ax.spines["left"].set_visible(False)
    return fig


def box(
    ax: Axes, x: float, y: float, text: str, color: str, width: float = 0.9, height: float = 0.26, size: float = 9.5
) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.02",
            facecolor="white",
            edgecolor=color,
            lw=1.8,
            zorder=3,
        )
    )
    ax.text(x, y, text, ha="center", va="center", color=color, weight="bold", fontsize=size, zorder=4)


def axis_alt(systems: Mapping[str, NestedSystem]) -> str:
    def told(system: NestedSystem) -> str:
        parts = [(column(c.frequency), c.name) for c in system.components if c.frequency is not None]
        words = [f"{COLUMNS[at].split(',')[0]}: {', '.join(n for a, n in parts if a == at)}" for at in range(4)]
        return "; ".join(w for w in words if not w.endswith(": ")) + ("; nothing in between" if empty(system) else "")

    rows = ". ".join(f"{name}: {told(s)}" for name, s in systems.items())
    return f"Parts of {len(systems)} models on an axis of how often they are written, from slow to fast. {rows}."


ARROWS = (  # from, to, bend, words, where the words stand
    ("pair", "state", 0.0, "every token:\none write", (0.265, 0.79)),
    ("start", "state", 0.0, "begin of a document:\na copy", (0.635, 0.51)),
    ("outer", "pair", 0.0, "make keys\nand the rate", (0.19, 0.45)),
    ("state", "loss", 0.0, "asked", (0.75, 0.76)),
    ("loss", "start", -0.35, "once a document: the gradient,\nback through all writes", (0.95, 0.24)),
    ("loss", "outer", -0.42, "", (0.6, 0.1)),
)
BOXES = {
    "pair": ((0.11, 0.72), "token\nkey, value", "#555555"),
    "state": ((0.52, 0.72), "state $M_t$\none for each document", COLORS["value"]),
    "loss": ((0.93, 0.72), "outer\nloss", COLORS["error"]),
    "start": ((0.52, 0.3), "start $M_0$\none for all documents", KIND_COLORS["initial state"]),
    "outer": ((0.11, 0.18), "outer weights\none set for all", KIND_COLORS["weights"]),
}
HALF = {"state": 0.145, "start": 0.145, "outer": 0.125, "pair": 0.075, "loss": 0.075}  # widths
BOXES_ALT = (
    "Three boxes and who writes whom. Each token writes the state, which belongs to one document. The start is copied "
    "into the state when a document begins. Outer weights make the keys and the rate. The gradient of the outer loss "
    "runs back through all writes and moves the start and the outer weights, once a document."
)


def boxes() -> Figure:
    """State, start and outer weights: three boxes, and an arrow for each time that one writes another."""
    fig = figure(8.4, 3.6)
    with book_style():
        ax = fig.subplots()
    for name, ((x, y), text, color) in BOXES.items():
        box(ax, x, y, text, color, width=2 * HALF[name], height=0.2, size=10)
    for a, b, bend, words, (x, y) in ARROWS:
        (x0, y0), (x1, y1) = BOXES[a][0], BOXES[b][0]
        if y0 == y1:
            ends = ((x0 + HALF[a], y0), (x1 - HALF[b], y1))
        elif x0 == x1:
            ends = ((x0, y0 + 0.1), (x1, y1 - 0.1))
        else:
            ends = ((x0, y0 - 0.1), (x1 + HALF[b], y1))
        gradient = a == "loss"
        color = COLORS["error"] if gradient else "#444444"
        ax.add_patch(
            FancyArrowPatch(
                *ends,
                arrowstyle="-|>",
                mutation_scale=14,
                lw=1.6,
                ls="--" if gradient else "-",
                color=color,
                connectionstyle=f"arc3,rad={bend}",
                zorder=2,
            )
        )
        ax.text(x, y, words, ha="center", va="center", fontsize=9, color=color)
    ax.set(xlim=(-0.03, 1.03), ylim=(0.0, 0.9))
    ax.set_axis_off()
    return fig


STYLE = {"zero start": (COLORS["baseline"], 3.0), "learned start": (COLORS["objective"], 2.0)}


def curves(found: Mapping[str, Reading]) -> Figure:
    """Right answers along a document, one panel a kind of key, one y-axis; bands span the seeds."""
    fig = figure(9, 3)
    with book_style():
        axes = fig.subplots(1, 3, sharey=True)
    for i, (ax, keys, hold) in enumerate(zip(axes, KEYS, ("for ever", "for a document", "for a moment"), strict=True)):
        for name, reading in found.items():
            color, width = STYLE[name]
            rows = reading.right[:, i]
            place = range(1, rows.shape[1] + 1)
            ax.plot(place, rows.mean(0), color=color, lw=width, label=name)
            ax.fill_between(place, rows.min(0).values, rows.max(0).values, color=color, alpha=0.2, lw=0)
        ax.axhline(1 / 8, color=COLORS["truth"], lw=1, ls=":")
        ax.set(title=f"{keys}: hold {hold}", xlabel="pair of the document", xticks=[1, 4, 8, 12, 16], ylim=(0, 1))
    axes[0].set_ylabel("right answers (dotted: chance)")
    axes[-1].legend(loc="upper left", title="bands: all streams")
    return fig


def curves_alt(found: Mapping[str, Reading]) -> str:
    said = "; ".join(
        f"{name} " + ", ".join(f"{keys} {float(r.first[:, i].mean()):.2f}" for i, keys in enumerate(KEYS))
        for name, r in found.items()
    )
    return f"Share of right answers along a document in three panels. At the first use of a key in a document: {said}."


def tables(start: Tensor, state: Tensor) -> Figure:
    """What the start and one state answer under each key: a column a key, a row a value."""
    fig = figure(7.2, 3.1)
    with book_style():
        axes = fig.subplots(1, 2, sharey=True)
    for ax, M, title in zip(axes, (start, state), ("the start, learned", "the state after one document"), strict=True):
        ax.imshow(M.numpy(), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", origin="lower")
        ax.set(title=title, xticks=range(6), xticklabels=[*"ABdexy"], yticks=range(8), yticklabels=range(1, 9))
        ax.grid(False)
        ax.set_xlabel("key")
    axes[0].set_ylabel("value")
    return fig


def known(M: Tensor) -> dict[str, float]:
    """How strongly a memory stands by its best answer under each key: its largest number in each column."""
    return {key: float(M[:, i].max()) for i, key in enumerate("ABdexy")}


def tables_alt(start: Tensor, state: Tensor) -> str:
    one, other = (", ".join(f"{key} {x:.2f}" for key, x in known(M).items()) for M in (start, state))
    return f"Two tables of numbers, a column a key. Largest number of each column in the learned start: {one}; in the state after one document: {other}."
