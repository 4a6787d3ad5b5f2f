"""Figures of chapter E: the error of a memory after each write, for several starts."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from nlbook.book.viz.style import COLORS, figure

STYLE = {
    "none": (COLORS["baseline"], "zero start", "-"),
    "meta": (COLORS["objective"], "learned start", "-"),
    "cut": (COLORS["error"], "outer gradient cut", "--"),
    "printed": (COLORS["query"], "eq. 28 as printed", "--"),
    "first order": (COLORS["rate"], "first order", ":"),
}


def curves(found: Mapping[str, Tensor], worth: float | None = None) -> Figure:
    """Error after each write, log scale; bands span the seeds. found[method]: (seeds, length + 1).

    `worth`: an arrow of that many writes at the height of the learned start.
    """
    fig = figure(7, 3.3)
    ax = fig.subplots()
    for method, rows in found.items():
        color, label, style = STYLE[method]
        ax.plot(rows.mean(0), color=color, ls=style, label=label, lw=3 if method == "none" else 2)
        ax.fill_between(range(rows.shape[1]), rows.min(0).values, rows.max(0).values, color=color, alpha=0.2, lw=0)
    ax.set_yscale("log")
    if worth is not None:
        y = float(found["meta"][:, 0].mean())
        ax.annotate("", (0, y), (worth, y), arrowprops={"arrowstyle": "<->", "color": "#333333"})
        ax.text(worth / 2, y * 1.08, f"worth {worth:.0f} writes", ha="center", va="bottom", fontsize=9)
    ax.set(xlabel="pairs written in the new context", ylabel="error of the answers")
    ax.margins(x=0.01)
    ax.legend(loc="lower left")
    return fig


def curves_alt(found: Mapping[str, Tensor], at: int = 8) -> str:
    said = "; ".join(
        f"{STYLE[m][1]} {float(r[:, 0].mean()):.2f} before the first write, {float(r[:, at].mean()):.2f} after {at}"
        for m, r in found.items()
    )
    return f"Error of a linear memory against the number of pairs written, logarithmic scale, by its start. {said}."


def panels(worlds: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """The same curves for several worlds side by side, one panel each, linear scale."""
    fig = figure(9, 3)
    axes = fig.subplots(1, len(worlds), sharey=True, squeeze=False)[0]
    for ax, (title, found) in zip(axes, worlds.items(), strict=True):
        for method, rows in found.items():
            color, label, style = STYLE[method]
            ax.plot(rows.mean(0), color=color, ls=style, label=label, lw=3 if method == "none" else 2)
            ax.fill_between(range(rows.shape[1]), rows.min(0).values, rows.max(0).values, color=color, alpha=0.2, lw=0)
        ax.set(title=title, xlabel="pairs written", ylim=(0, None))
    axes[0].set_ylabel("error of the answers")
    axes[-1].legend(loc="upper right")
    return fig


def panels_alt(worlds: Mapping[str, Mapping[str, Tensor]]) -> str:
    said = [
        f"{title}: " + ", ".join(f"{STYLE[m][1]} {float(r[:, 0].mean()):.2f}" for m, r in found.items())
        for title, found in worlds.items()
    ]
    return f"Error against pairs written, {len(worlds)} worlds side by side. Before the first write: {'; '.join(said)}."
