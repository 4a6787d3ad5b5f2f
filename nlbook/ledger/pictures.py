"""Small pictures of the ledger: pure functions of numbers."""
from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from nlbook.viz.style import COLORS, book_style

LOOK = {"Hope": (COLORS["memory"], "o-"), "Hope-Attention": (COLORS["query"], "s-"),
        "Transformer": (COLORS["error"], "^--"), "linear attention": (COLORS["rate"], "v:"),
        "gated delta": (COLORS["value"], "D-."), "Titans": (COLORS["objective"], "P--"),
        "ideal reader": (COLORS["truth"], "k:")}


def curves(x: Sequence[float], lines: Mapping[str, Sequence[Sequence[float]]], xlabel: str, ylabel: str, title: str, *,
           log: bool = False) -> Figure:
    """Means over seeds with their whole range as a band. lines: name -> for each x the values of the seeds."""
    with book_style():
        picture = Figure(figsize=(5.6, 3.2), layout="constrained")
        axes = picture.subplots()
        spare = iter([COLORS["baseline"], COLORS["key"], COLORS["level2"], COLORS["level3"], COLORS["level4"]] * 2)
        for name, at in lines.items():
            color, form = LOOK.get(name) or (next(spare), "o-")
            marker, line = (form[0], form[1:]) if form[0] != "k" else ("", form[1:])
            axes.plot(x, [statistics.fmean(v) for v in at], marker=marker, linestyle=line, color=color, label=name,
                      markersize=4)
            axes.fill_between(x, [min(v) for v in at], [max(v) for v in at], color=color, alpha=0.15, linewidth=0)
        if log:
            axes.set_xscale("log", base=2)
        axes.set_xticks(list(x), [f"{v:g}" for v in x])
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return picture
