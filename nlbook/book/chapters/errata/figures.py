"""The figure of appendix C: ten slips, printed and mended."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from nlbook.book.chapters.errata.ten_equations import Slip
from nlbook.book.viz.style import COLORS, book_style, figure

FLOOR = 1e-17


def slip_dots(slips: Sequence[Slip]) -> Figure:
    """Distance from the truth, printed and mended, for each equation; a logarithmic scale."""
    fig = figure(8.8, 0.33 * len(slips) + 0.9)
    with book_style():
        ax = fig.subplots()
        for y, s in enumerate(reversed(slips)):
            holds = max(s.holds, FLOOR)
            ax.plot([holds, s.printed], [y, y], color=COLORS["grid"], lw=2, zorder=1)
            ax.plot([s.printed], [y], "s", color=COLORS["error"], ms=7)
            ax.plot([holds], [y], "o", color=COLORS["value"], ms=7)
        ax.set(xscale="log", xlim=(FLOOR / 3, 60), yticks=range(len(slips)), xlabel="distance from the truth, relative")
        ax.set_yticklabels([f"{s.label}: {s.asked}" for s in reversed(slips)], fontsize=9)
        ax.set_title("orange squares: as printed    green dots: what holds", fontsize=9)
    return fig


def slip_alt(slips: Sequence[Slip]) -> str:
    worst = max(s.holds for s in slips)
    least, most = (f(s.printed for s in slips) for f in (min, max))
    return (
        f"Ten equations: the printed forms are off by {least:.0%} to {most:.0%} of the truth, what holds in their "
        f"place by {worst:.0e} at most."
    )
