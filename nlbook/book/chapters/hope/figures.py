"""Figures of chapter 07: the race to the optimum, the ablation seed by seed, and how long a told fact lasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from torch import Tensor

from nlbook.book.chapters.hope.capstone import Run, verdict
from nlbook.book.viz.style import COLORS, book_style, end_label, figure

WHO = {
    "Hope": COLORS["memory"],
    "gated delta": COLORS["key"],
    "Transformer + conv": COLORS["baseline"],
    "Hope-Attention": COLORS["level3"],
}
VERDICT = {"worse": COLORS["error"], "better": COLORS["value"], "cannot tell": COLORS["baseline"]}


def plain(axis: Axis) -> None:
    """Ticks of a log scale as plain numbers."""
    axis.set_major_locator(FixedLocator([0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_locator(NullLocator())


def race(runs: Sequence[Run]) -> Figure:
    """Nats above the optimum while training, a line a run; log scale."""
    fig = figure(8.4, 3.2)
    with book_style():
        ax = fig.subplots()
        ends = []
        for r in runs:
            steps, over = list(r.curve), list(r.curve.values())
            color = WHO.get(r.name, COLORS["control"])
            ax.plot(steps, over, color=color, marker=".", ms=4, lw=1.8)
            ends.append((float(over[-1]), f"{r.name}: {r.excess['all']:.3f}", color))
        place = 9.0
        for y, words, color in sorted(ends, reverse=True):  # from the top, none over another
            place = min(y * 1.1, place / 1.28)
            end_label(ax, steps[-1], place, words, color)
        ax.set(yscale="log", xlabel="training steps", ylabel="nats above\nthe optimum", xlim=(0, None))
        plain(ax.yaxis)
    return fig


def race_alt(runs: Sequence[Run]) -> str:
    said = ", ".join(f"{r.name} {r.excess['all']:.3f}" for r in sorted(runs, key=lambda r: r.excess["all"]))
    return (
        "Nats above the optimum against training steps, log scale, one line a model. At the end, from best to "
        f"worst: {said}."
    )


def ablation(table: Mapping[str, Mapping[str, Tensor]], base: str = "Hope", kind: str = "all") -> Figure:
    """A dot a seed, a bar at the mean, sorted; the dotted line is the whole Hope. Colour: the verdict seed by seed."""
    order = sorted(table, key=lambda n: -float(table[n][kind].mean()))
    fig = figure(8.4, 0.36 * len(order) + 1.0)
    with book_style():
        ax = fig.subplots()
        for y, n in enumerate(order):
            x = table[n][kind]
            color = WHO.get(n) or VERDICT[verdict(table[base][kind], x)]
            ax.plot(x, [y] * len(x), "o", ms=5, color=color, alpha=0.5, mew=0)
            ax.plot([x.mean()] * 2, [y - 0.32, y + 0.32], color=color, lw=3)
            ax.annotate(
                f"{float(x.mean()):.3f}",
                (float(x.max()), y),
                (8, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=color,
            )
        ax.axvline(float(table[base][kind].mean()), color=COLORS["memory"], lw=1, ls=":")
        ax.set(
            yticks=range(len(order)),
            ylim=(-0.6, len(order) - 0.4),
            xscale="log",
            xlabel="nats above the optimum at the end (log scale; less is better)",
        )
        plain(ax.xaxis)
        ax.set_yticklabels(order)
        for label, n in zip(ax.get_yticklabels(), order, strict=True):
            label.set_color(WHO.get(n) or VERDICT[verdict(table[base][kind], table[n][kind])])
        ax.set_title("red: worse on every seed    green: better on every seed    grey: cannot tell", fontsize=9)
    return fig


def ablation_alt(table: Mapping[str, Mapping[str, Tensor]], base: str = "Hope", kind: str = "all") -> str:
    whole = table[base][kind]
    said = ", ".join(
        f"{n} {float(x.mean()):.3f} ({'whole' if n == base else verdict(whole, x)})"
        for n, x in sorted(((n, row[kind]) for n, row in table.items()), key=lambda p: float(p[1].mean()))
    )
    return (
        "Nats above the optimum at the end, a dot a seed, models sorted from best to worst by mean, with the "
        f"verdict: {said}."
    )


def lasting(distances: Sequence[int], recall: Mapping[str, Tensor], chance: float, trained: int) -> Figure:
    """Probability of a fact told once against the pairs read since, a line a model."""
    fig = figure(8.4, 3.2)
    colors = (COLORS["memory"], COLORS["key"], COLORS["rate"], COLORS["level1"], COLORS["baseline"], COLORS["control"])
    with book_style():
        ax = fig.subplots()
        x = range(len(distances))
        ends = []
        for (name, p), color in zip(recall.items(), colors, strict=False):
            ax.plot(x, p, color=color, marker="o", ms=4, lw=1.8)
            ends.append((float(p[-1]), f"{name}: {float(p[-1]):.2f}", color))
        place = 1.2
        for y, words, color in sorted(ends, reverse=True):  # from the top, none over another
            place = min(y + 0.04, place - 0.08)
            end_label(ax, len(distances) - 1, place, words, color, dx=8)
        ax.axhline(chance, color=COLORS["control"], lw=1, ls="--")
        edge = sum(d < trained for d in distances) - 0.5
        ax.axvline(edge, color="black", lw=1, ls=":")
        ax.text(edge + 0.05, 0.55, "longer than any\ntraining document", fontsize=9, va="top")
        ax.set(
            xlim=(0, len(distances) - 1),
            ylim=(0, 1.05),
            xticks=list(x),
            ylabel="probability of the fact",
            xlabel="pairs about other things read since",
        )
        ax.set_xticklabels([str(d) for d in distances])
    return fig


def lasting_alt(distances: Sequence[int], recall: Mapping[str, Tensor], chance: float, trained: int) -> str:
    said = "; ".join(f"{n} from {float(p[0]):.2f} to {float(p[-1]):.2f}" for n, p in recall.items())
    return (
        f"Probability of a fact that was told once, right after it and up to {distances[-1]} pairs later. {said}. "
        f"Chance is {chance:.2f}; training documents had {trained} pairs."
    )
