"""Figures of chapter 04: level diagrams, slow below and fast above, as in figures 2 and 3 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from nlbook.book.chapters.levels.detective import KIND_COLORS, pretty
from nlbook.book.viz.style import COLORS, book_style, figure
from nlbook.levels.order import INF, NestedSystem


def tempo(system: NestedSystem, name: str) -> str:
    """How often, in the system's unit, short enough for a box."""
    c = system[name]
    assert c.frequency is not None
    if c.frequency == INF:
        return "no state"
    return "frozen" if c.frequency == 0 else str(c.frequency)


def sketch(ax: Axes, system: NestedSystem, claimed: Sequence[Sequence[str]] | None = None) -> None:
    """One diagram; `claimed` draws other levels than the true ones, with the arrows that they break in red."""
    groups = [list(g) for g in (claimed or system.levels)]
    wrong = system.violations(groups) if claimed else []
    broken = {(v.slow, v.fast) for v in wrong if v.kind in ("arrow", "together")}
    wide = max([3, *(len(g) for g in groups)])
    spot = {n: (x - (len(g) - 1) / 2, y) for y, g in enumerate(groups) for x, n in enumerate(g)}
    for y in range(len(groups)):
        ax.axhspan(y - 0.42, y + 0.42, facecolor="#F4F4F4", zorder=0)
        ax.text(-wide / 2, y, f"{y + 1}", va="center", ha="left", fontsize=9, color="#555555")
    for n, (x, y) in spot.items():
        bad = any(n in pair for pair in broken)
        color = KIND_COLORS.get(system[n].kind, COLORS["baseline"])
        ax.add_patch(
            FancyBboxPatch(
                (x - 0.44, y - 0.3),
                0.88,
                0.6,
                boxstyle="round,pad=0,rounding_size=0.1",
                facecolor="white",
                edgecolor=COLORS["error"] if bad else color,
                lw=2,
                zorder=2,
            )
        )
        small = 8 if len(n) > 6 else 10.5
        ax.text(x, y + 0.1, pretty(n), ha="center", va="center", fontsize=small, color=color, weight="bold", zorder=3)
        ax.text(x, y - 0.17, tempo(system, n), ha="center", va="center", fontsize=8, color="#333333", zorder=3)
    for slow, fast in broken if claimed else system.arrows():
        (x0, y0), (x1, y1) = spot[slow], spot[fast]
        gap = 0.3 if y1 >= y0 else -0.3
        ax.add_patch(
            FancyArrowPatch(
                (x0, y0 + gap),
                (x1, y1 - (gap if y1 != y0 else -gap)),
                arrowstyle="-|>",
                mutation_scale=9,
                lw=1.1,
                zorder=4,
                color=COLORS["error"] if broken else "#777777",
                connectionstyle=f"arc3,rad={-0.35 if y0 == y1 else 0.08}",
            )
        )
    ax.set(xlim=(-wide / 2 - 0.1, wide / 2 + 0.1), ylim=(-0.5, len(groups) - 0.5))
    ax.set_axis_off()


def diagrams(systems: Mapping[str, NestedSystem]) -> Figure:
    """Level diagrams side by side, level 1 (slowest) at the bottom; an arrow goes from slow to fast."""
    fig = figure(9.6, 3.4)
    most = max(len(s.levels) for s in systems.values())
    with book_style():
        for ax, (name, system) in zip(fig.subplots(1, len(systems)), systems.items(), strict=True):
            sketch(ax, system)
            ax.set_ylim(-0.5, most - 0.5)
            ax.set_title(f"{name.replace(', ', chr(10))}\nper {system.unit}", fontsize=9, loc="center")
    return fig


def diagrams_alt(systems: Mapping[str, NestedSystem]) -> str:
    said = "; ".join(f"{name}, per {s.unit}: {s.order()}" for name, s in systems.items())
    return f"Level diagrams of {len(systems)} models, from the slowest level to the fastest. {said}."


def right_and_wrong(system: NestedSystem, claimed: Sequence[Sequence[str]]) -> Figure:
    """The true diagram beside a claimed one, whose broken arrows are red."""
    fig = figure(7, 2.9)
    with book_style():
        for ax, groups, title in zip(fig.subplots(1, 2), (None, claimed), ("by Definition 2", "claimed"), strict=True):
            sketch(ax, system, groups)
            ax.set_title(f"{title} (per {system.unit})", fontsize=10, loc="center")
    return fig


def right_and_wrong_alt(system: NestedSystem, claimed: Sequence[Sequence[str]]) -> str:
    groups = "  <  ".join("{" + ", ".join(g) + "}" for g in claimed)
    wrong = system.violations([list(g) for g in claimed])
    return (
        f"Two level diagrams side by side. By Definition 2: {system.order()}. Claimed: {groups}, "
        f"which breaks {len(wrong)} arrows; the first: {wrong[0] if wrong else 'none'}."
    )
