"""Figures of chapter 02: an answer taken apart into training digits, and how far frozen surprises go astray."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nlbook.book.chapters.writing.written_layer import Divergence, WrittenLayer, support
from nlbook.book.viz.style import COLORS, end_label, figure


def digit(ax: Axes, pixels: Tensor, title: str, color: str = "black") -> None:
    """One 8 x 8 digit; `pixels` may carry the constant input at its end."""
    ax.imshow(pixels[:64].view(8, 8), cmap="gray_r", vmin=0, vmax=1)
    ax.set_title(title, color=color, fontsize=9, loc="center")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)


def made_of(layer: WrittenLayer, i: int, shown: int = 5) -> Figure:
    """Test digit i, the training steps that speak most for its class, and those that speak most against it."""
    s = support(layer, i)
    order = s.argsort(descending=True)
    fig = figure(9, 3.0)
    axes = fig.subplots(2, shown + 1, width_ratios=[1.4, *([1] * shown)])
    for ax in axes[:, 0]:
        ax.remove()
    big = fig.add_subplot(axes[0, 0].get_gridspec()[:, 0])
    digit(big, layer.x_test[i], f"asked: a {int(layer.y_test[i])}")
    speaks_for, against = (axes[0], order[:shown], COLORS["value"]), (axes[1], order.flip(0)[:shown], COLORS["error"])
    for row, steps, color in (speaks_for, against):
        for ax, t in zip(row[1:], steps.tolist()):
            digit(ax, layer.trace.keys[t], f"step {t + 1}: {float(s[t]):+.2f}", color)
    return fig


def made_of_alt(layer: WrittenLayer, i: int, shown: int = 5) -> str:
    s = support(layer, i)
    order = s.argsort(descending=True)
    most, least = (layer.labels[o[:shown]].tolist() for o in (order, order.flip(0)))
    return (
        f"A test digit {int(layer.y_test[i])} beside the training digits whose writes speak most for its class, "
        f"labels {most}, and those that speak most against it, labels {least}."
    )


def divergence_curves(d: Divergence) -> Figure:
    """Relative distance from the trained layer's scores against the number of steps; bands span the seeds."""
    fig = figure(7, 3.6)
    ax = fig.subplots()
    for shade, dy, (lr, gaps) in zip((0.45, 0.7, 1.0), (0, -3, 3), d.frozen.items()):
        mean = gaps.mean(0)
        low, high = gaps.amin(0).numpy(), gaps.amax(0).numpy()
        ax.fill_between(d.checkpoints, low, high, color=COLORS["error"], alpha=0.12, lw=0)
        ax.plot(d.checkpoints, mean, color=COLORS["error"], alpha=shade, marker=".")
        end_label(ax, d.checkpoints[-1], float(mean[-1]), f"frozen, rate {lr:g}", COLORS["error"], dy=dy)
    exact = max(float(g.max()) for g in d.dual.values())
    ax.axhline(exact, color=COLORS["memory"])
    said: dict[str, Any] = {"xytext": (2, 4), "textcoords": "offset points", "fontsize": 9}
    ax.annotate("dual form, all rates: at most this", (d.checkpoints[0], exact), color=COLORS["memory"], **said)
    ax.axhline(1, color=COLORS["control"], lw=1, ls="--")
    ax.annotate("as far off as no training at all", (d.checkpoints[0], 2.5), **said)
    ax.set(xscale="log", yscale="log", xlabel="training steps (digits seen)", ylabel="distance from the trained layer")
    return fig


def divergence_alt(d: Divergence) -> str:
    ends = ", ".join(f"{float(g.mean(0)[-1]):.2g} at rate {lr:g}" for lr, g in d.frozen.items())
    return (
        f"Log-log curves of the distance from the trained layer's scores against training steps. The dual form "
        f"stays below 1e-12; with frozen surprises the distance grows to {ends} after {d.checkpoints[-1]} steps."
    )
