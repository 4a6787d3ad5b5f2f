"""Figures of chapter 05: what each level of a stream knows of the task before and of the task now, with its writes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from nlbook.book.chapters.clocks.levels_alone import Knowledge, at
from nlbook.book.viz.style import COLORS, book_style, figure


def per_level(levels: Sequence[Knowledge], switch: int) -> Figure:
    """One panel a level: its writes as notes on top, its error on tasks A and B below; bands span the streams."""
    fig = figure(9.4, 3.3)
    with book_style():
        axes = fig.subplots(1, len(levels), sharey=True, squeeze=False)[0]
        for i, (ax, k) in enumerate(zip(axes, levels, strict=True)):
            for error, color in ((k.a, COLORS["memory"]), (k.b, COLORS["value"])):
                ax.fill_between(k.times, error.amin(1), error.amax(1), color=color, alpha=0.15, lw=0, step="post")
                ax.plot(k.times, error.mean(1), color=color, lw=1.8, drawstyle="steps-post")
            end = int(k.times[-1])
            ax.plot(
                range(k.period, end + 1, k.period),
                [2.3] * (end // k.period),
                "|",
                ms=8,
                mew=0.8,
                color=COLORS[f"level{2 * i + 1}"],
            )
            ax.axhline(1, color=COLORS["control"], lw=1, ls="--")
            ax.axvline(switch, color="black", lw=1, ls=":")
            ax.set(
                title=f"period {k.period}: {k.updates} writes",
                xlabel="tokens read",
                ylim=(0, 2.42),
                xlim=(0, end),
                yticks=[0, 0.5, 1, 1.5, 2],
                xticks=[0, switch, end],
            )
            ax.grid(False)
            if i == 0:
                ax.set_ylabel("relative error")
                ax.text(switch * 0.97, 0.33, "on task A", color=COLORS["memory"], ha="right", fontsize=9)
                ax.text(switch * 0.97, 1.7, "on task B", color=COLORS["value"], ha="right", fontsize=9)
                ax.text(end * 0.98, 1.03, "knows nothing", color="#555555", fontsize=8, ha="right", va="bottom")
    return fig


def per_level_alt(levels: Sequence[Knowledge], switch: int, after: int = 64) -> str:
    def on_a(k: Knowledge, token: int) -> float:
        return float(k.a[at(k, token)].mean())

    said = "; ".join(
        f"period {k.period} wrote {k.updates} times, error on A {on_a(k, switch):.2f} at the switch and "
        f"{on_a(k, switch + after):.2f} after {after} tokens of B"
        for k in levels
    )
    return (
        f"One panel for each of {len(levels)} levels, errors on tasks A and B against tokens read, switch at "
        f"{switch}. {said}."
    )
