"""Figures of chapter F: the ablation as dots, and the saw-tooth of knowledge that comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from nlbook.book.chapters.forgetting.ablation import WORDS
from nlbook.book.chapters.forgetting.continual_methods import Score
from nlbook.book.viz.style import COLORS, book_style, end_label, figure

CONTROLS = ("lr split (1, 1/8, 1/64)", "only block 0 learns", "MLP head-wise", "all periods 64, sum")


def color_of(name: str) -> str:
    if name.startswith("CMS"):
        return COLORS["level3"]
    if name == "MLP":
        return COLORS["truth"]
    return COLORS["rate"] if name in CONTROLS else COLORS["baseline"]


def dots(scores: Mapping[str, Score]) -> Figure:
    """Final average accuracy per method: a dot a seed, a bar at the mean; sorted."""
    order = sorted(scores, key=lambda n: float(scores[n].average.mean()))
    fig = figure(8.4, 0.34 * len(order) + 0.9)
    with book_style():
        ax = fig.subplots()
        for y, n in enumerate(order):
            a, color = scores[n].average, color_of(n)
            ax.plot(a, [y] * len(a), "o", ms=5, color=color, alpha=0.45, mew=0)
            ax.plot([a.mean()] * 2, [y - 0.34, y + 0.34], color=color, lw=3)
            ax.annotate(
                f"{float(a.mean()):.3f}",
                (float(a.max()), y),
                (8, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=color,
            )
        base = float(scores["MLP"].average.mean()) if "MLP" in scores else None
        if base is not None:
            ax.axvline(base, color=COLORS["truth"], lw=1, ls=":")
        ax.set(yticks=range(len(order)), ylim=(-0.6, len(order) - 0.4), xlabel="accuracy on all tasks at the end")
        ax.set_yticklabels([WORDS.get(n, n) for n in order])
        for label, n in zip(ax.get_yticklabels(), order, strict=True):
            label.set_color(color_of(n))
        ax.set_title("pink: CMS    orange: controls with no periods, or all equal    grey: other methods", fontsize=9)
    return fig


def dots_alt(scores: Mapping[str, Score]) -> str:
    order = sorted(scores, key=lambda n: -float(scores[n].average.mean()))
    said = ", ".join(f"{WORDS.get(n, n)} {float(scores[n].average.mean()):.3f}" for n in order)
    return f"Accuracy on all tasks at the end, a dot a seed, methods sorted from best to worst by mean: {said}."


def sawtooth(runs: Mapping[str, Mapping[str, Any]], every: int = 8, reset: int = 64) -> Figure:
    """Accuracy on A while only B is trained; dotted lines are the resets of the nested variant."""
    fig = figure(8.4, 3.2)
    with book_style():
        ax = fig.subplots()
        for (name, r), color in zip(runs.items(), (COLORS["truth"], COLORS["level5"], COLORS["level2"]), strict=True):
            x = [every * i for i in range(len(r["curve"]))]
            ax.plot(x, r["curve"], color=color, marker=".", ms=4, lw=1.8)
            end_label(ax, x[-1], float(r["curve"][-1]), f"{name}: {r['final']:.2f}", color)
        for t in range(reset, x[-1] + 1, reset):
            ax.axvline(t, color=COLORS["control"], lw=1, ls=":")
        ax.set(xlim=(0, x[-1]), ylim=(0.4, 1.03), xlabel="steps on task B (A is never shown)", ylabel="accuracy on A")
    return fig


def sawtooth_alt(runs: Mapping[str, Mapping[str, Any]]) -> str:
    said = "; ".join(
        f"{n} falls to {r['lowest']:.2f}, its largest rise is {r['jump']:.2f}, it ends at {r['final']:.2f}"
        for n, r in runs.items()
    )
    return f"Accuracy on task A while only task B is trained. {said}. The nested variant jumps up at each reset."
