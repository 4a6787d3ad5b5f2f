"""Figures of chapter C: what an unequal search does to a verdict, how often a rule is fooled, ten slips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from nlbook.book.chapters.referee.referee import OUTCOMES
from nlbook.book.chapters.referee.ten_equations import Slip
from nlbook.book.viz.style import COLORS, book_style, end_label, figure

INK = {"better": COLORS["value"], "level": COLORS["control"], "worse": COLORS["error"]}


def verdict_bars(found: Mapping[str, Mapping[str, float]], ours: str) -> Figure:
    """One bar a comparison: the shares of referees who say better, level, worse of `ours`."""
    fig = figure(8.6, 0.42 * len(found) + 0.95)
    with book_style():
        ax = fig.subplots()
        for y, shares in enumerate(reversed(list(found.values()))):
            left = 0.0
            for word in OUTCOMES:
                share = shares[word]
                ax.barh(y, share, left=left, color=INK[word], height=0.72)
                if share > 0.07:
                    ax.text(
                        left + share / 2,
                        y,
                        f"{100 * share:.0f} % {word}",
                        ha="center",
                        va="center",
                        fontsize=9,
                        color="black" if word == "level" else "white",
                        weight="bold",
                    )
                left += share
        ax.set(xlim=(0, 1), yticks=range(len(found)), xticks=[0, 0.5, 1], xlabel="share of referees")
        ax.set_yticklabels(list(found)[::-1])
        ax.grid(False)
        ax.set_title(f"what referees say of {ours}", fontsize=10)
    return fig


def verdict_alt(found: Mapping[str, Mapping[str, float]], ours: str) -> str:
    said = "; ".join(
        f"{name}: " + ", ".join(f"{100 * s[w]:.0f} % {w}" for w in OUTCOMES if s[w] >= 0.005)
        for name, s in found.items()
    )
    return f"Bars of what referees say of {ours}, one bar for each way to search. {said}."


def power_curves(counts: Sequence[int], fooled: Sequence[float], seen: Mapping[str, Sequence[float]]) -> Figure:
    """Share of comparisons in which two methods "differ", over the number of seeds."""
    fig = figure(8.4, 3.1)
    with book_style():
        ax = fig.subplots()
        ax.plot(counts, fooled, color=COLORS["error"], marker="o", ms=4)
        end_label(ax, counts[-1], fooled[-1], "no difference: fooled", COLORS["error"])
        for (name, ys), color in zip(seen.items(), (COLORS["key"], COLORS["memory"])):
            ax.plot(counts, ys, color=color, marker="o", ms=4)
            end_label(ax, counts[-1], ys[-1], name, color)
        ax.axhline(0.05, color=COLORS["control"], lw=1, ls=":")
        ax.set(
            xscale="log",
            xticks=list(counts),
            ylim=(0, 1.03),
            xlabel="seeds of each method",
            ylabel="share that says 'differ'",
        )
        ax.set_xticklabels([str(c) for c in counts])
        ax.minorticks_off()
    return fig


def power_alt(counts: Sequence[int], fooled: Sequence[float], seen: Mapping[str, Sequence[float]]) -> str:
    said = "; ".join(
        f"{name}: from {100 * ys[0]:.0f} % at {counts[0]} seeds to {100 * ys[-1]:.0f} % at {counts[-1]}"
        for name, ys in {"two equal methods are told apart": fooled, **seen}.items()
    )
    return f"Share of comparisons that find a difference, over the number of seeds. {said}."


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
