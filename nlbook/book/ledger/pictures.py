"""Small pictures of the ledger: pure functions of numbers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from nlbook.book.viz.style import COLORS, book_style

LOOK = {
    "Hope": (COLORS["memory"], "o-"),
    "Hope-Attention": (COLORS["query"], "s-"),
    "Transformer": (COLORS["error"], "^--"),
    "linear attention": (COLORS["rate"], "v:"),
    "gated delta": (COLORS["value"], "D-."),
    "Titans": (COLORS["objective"], "P--"),
    "ideal reader": (COLORS["truth"], "k:"),
}


def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[Sequence[float]]],
    xlabel: str,
    ylabel: str,
    title: str,
    *,
    log: bool = False,
) -> Figure:
    """Means over seeds with their whole range as a band. lines: name -> for each x the values of the seeds."""
    with book_style():
        picture = Figure(figsize=(5.6, 3.2), layout="constrained")
        axes = picture.subplots()
        spare = iter([COLORS["baseline"], COLORS["key"], COLORS["level2"], COLORS["level3"], COLORS["level4"]] * 2)
        for name, at in lines.items():
            color, form = LOOK.get(name) or (next(spare), "o-")
            marker, line = (form[0], form[1:]) if form[0] != "k" else ("", form[1:])
            axes.plot(
                x,
                [statistics.fmean(v) for v in at],
                marker=marker,
                linestyle=line,
                color=color,
                label=name,
                markersize=4,
            )
            axes.fill_between(x, [min(v) for v in at], [max(v) for v in at], color=color, alpha=0.15, linewidth=0)
        if log:
            axes.set_xscale("log", base=2)
        axes.set_xticks(list(x), [f"{v:g}" for v in x])
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return picture


def dots(values: Mapping[str, Sequence[float]], xlabel: str, title: str, ours: Sequence[str] = ()) -> Figure:
    """A line for each name: a dot a seed, a bar at the mean. `ours` stand out."""
    with book_style():
        picture = Figure(figsize=(6.4, 0.3 * len(values) + 1.0), layout="constrained")
        axes = picture.subplots()
        for y, (name, seeds) in enumerate(list(values.items())[::-1]):
            color = COLORS["memory"] if name in ours else COLORS["baseline"]
            axes.plot(seeds, [y] * len(seeds), "o", color=color, markersize=5, alpha=0.5, markeredgewidth=0)
            axes.plot([statistics.fmean(seeds)] * 2, [y - 0.32, y + 0.32], color=color, linewidth=3)
        axes.set(xlabel=xlabel, title=title, yticks=range(len(values)), ylim=(-0.6, len(values) - 0.4))
        axes.set_yticklabels(list(values)[::-1])
        for label, name in zip(axes.get_yticklabels(), list(values)[::-1], strict=True):
            label.set_color(COLORS["memory"] if name in ours else "#333333")
    return picture


def dotted(
    metric: str,
    xlabel: str,
    title: str,
    ours: Sequence[str],
    form: str = ".3g",
) -> Callable[[Mapping[str, Mapping[str, Sequence[float]]]], tuple[Figure, str]]:
    """A row's `figure`: `dots` of one metric of every group that has it."""

    def figure(results: Mapping[str, Mapping[str, Sequence[float]]]) -> tuple[Figure, str]:
        values = {g: m[metric] for g, m in results.items() if metric in m}
        said = ", ".join(f"{g} {statistics.fmean(v):{form}}" for g, v in values.items())
        alt = f"{title}: a dot a seed, a bar at the mean of {xlabel}. Means: {said}."
        return dots(values, xlabel, title, ours), alt

    return figure
