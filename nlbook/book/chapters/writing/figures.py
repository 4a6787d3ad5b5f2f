"""Figures of chapter 02: the two diagrams, how far frozen surprises go astray and why, what a momentum still holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from torch import Tensor

from nlbook.book.chapters.writing.written_layer import Divergence, FrozenSum
from nlbook.book.viz.style import COLORS, end_label, figure

# --- the two diagrams ---

Place = tuple[float, float]


def box(ax: Axes, at: Place, text: str, color: str) -> None:
    """A word in a frame."""
    frame = {"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": color, "lw": 1.6}
    ax.text(*at, text, ha="center", va="center", color=color, fontsize=10, bbox=frame)


def arrow(ax: Axes, start: Place, end: Place, said: str = "", at: Place = (0, 0), bend: float = 0.0) -> None:
    """An arrow between two places, with a word beside its middle, moved by `at` points."""
    style = {"arrowstyle": "-|>", "color": "#444444", "lw": 1.4, "connectionstyle": f"arc3,rad={bend}"}
    ax.annotate("", end, start, arrowprops=style)
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    ax.annotate(said, middle, at, textcoords="offset points", ha="center", va="center", fontsize=9, color="#444444")


def stage(ax: Axes, title: str) -> None:
    ax.set(xlim=(0, 10), ylim=(0, 6), xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)
    ax.grid(False)


def loop_and_line() -> Figure:
    """Values that are given go in a straight line; values that the weight makes itself go round in a loop."""
    fig = figure(6, 4.4)
    line, loop = fig.subplots(2, 1, height_ratios=(1, 2.6))
    stage(line, "attention: the values are given")
    line.set(ylim=(2, 4))
    for at, text, color in (((1.6, 3), "data: key, value", "value"), ((5.2, 3), "memory", "memory")):
        box(line, at, text, COLORS[color])
    box(line, (8.6, 3), "answer", COLORS["query"])
    arrow(line, (3.3, 3), (4.1, 3), "write", (0, 10))
    arrow(line, (6.2, 3), (7.6, 3), "read", (0, 10))
    stage(loop, "training: the weight makes its values")
    box(loop, (1.5, 3), "weight W", COLORS["memory"])
    box(loop, (5.2, 5.1), "answer W x", COLORS["query"])
    box(loop, (8.5, 3), "error δ", COLORS["error"])
    box(loop, (5.2, 0.9), "pair (x, −δ)", COLORS["value"])
    arrow(loop, (1.8, 3.6), (3.8, 5.1), "read with x", (-42, 16), -0.2)
    arrow(loop, (6.6, 5.1), (8.4, 3.6), "compare with\nthe label", (56, 12), -0.2)
    arrow(loop, (8.4, 2.4), (6.7, 0.9), "", (0, 0), -0.2)
    arrow(loop, (3.7, 0.9), (1.8, 2.4), "write", (-26, -16), -0.2)
    return fig


LOOP_ALT = (
    "Two diagrams. Attention: given keys and values are written to a memory, and an answer is read, in a straight line. "
    "Training: the weight answers, the error of the answer becomes the value, and it is written to the weight: a loop."
)


def nested_loops() -> Figure:
    """The momentum's loop inside the weight's loop."""
    fig = figure(6, 3.3)
    ax = fig.subplots()
    stage(ax, "")
    ax.set(xlim=(0, 11.2), ylim=(0, 7))
    for at, size, color in (((5.6, 3.5), (11, 6.8), "memory"), ((5.6, 2.3), (5.4, 3.6), "level1")):
        ax.add_patch(Ellipse(at, *size, facecolor=COLORS[color], alpha=0.07))
    box(ax, (2.0, 4.6), "weight W", COLORS["memory"])
    box(ax, (9.0, 4.6), "push v = −gradient", COLORS["value"])
    box(ax, (5.6, 2.7), "momentum m", COLORS["level1"])
    arrow(ax, (2.6, 5.3), (8.2, 5.3), "answer, error", (0, 31), -0.25)
    arrow(ax, (8.3, 3.9), (7.2, 3.0), "write", (26, -8), -0.2)
    arrow(ax, (4.0, 3.0), (2.6, 3.9), "move", (-26, -8), -0.2)
    arrow(ax, (4.8, 2.1), (6.4, 2.1), "keep β of itself", (0, -37), 1.0)
    return fig


NESTED_ALT = (
    "Two nested loops. The weight answers, and its error makes a push. The push is written to the momentum inside, which "
    "keeps a share of itself, and the weight moves by it."
)

# --- frozen surprises ---


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


def class_sums(sums: Mapping[str, FrozenSum]) -> Figure:
    """What frozen surprises wrote into each class altogether, and how often each class is then answered."""
    fig = figure(9, 3.0)
    axes = fig.subplots(1, len(sums), sharey=True)
    for ax, (name, found) in zip(axes, sums.items()):
        ax.bar(range(10), found.written.numpy(), color=COLORS["error"], width=0.7)
        for digit_, (y, n) in enumerate(zip(found.written.tolist(), found.answered.tolist())):
            ax.annotate(str(n), (digit_, max(y, 0)), (0, 3), textcoords="offset points", ha="center", fontsize=9)
        ax.axhline(0, color="#555555", lw=0.8)
        ax.margins(y=0.15)
        if float(found.written.abs().max()) < 1e-9:
            ax.annotate("all ten sums are 0: no bars", (0.5, 0.72), xycoords="axes fraction", ha="center", fontsize=9)
        ax.set(title=f"{name}: {found.accuracy:.0%} right", xlabel="class", xticks=range(10))
    axes[0].set(ylabel="sum of −δ")
    axes[-1].annotate("numbers: test digits answered so", (0.03, 0.92), xycoords="axes fraction", fontsize=9)
    return fig


def class_sums_alt(sums: Mapping[str, FrozenSum]) -> str:
    said = "; ".join(
        f"{name}: the sums go from {float(f.written.min()):.0f} to {float(f.written.max()):.0f}, the class answered most "
        f"often is named {int(f.answered.max())} times, {f.accuracy:.0%} are right"
        for name, f in sums.items()
    )
    return f"Bars of what frozen surprises wrote into each of ten classes altogether. {said}."


# --- what a momentum still holds of an old task ---

STYLES = {
    "momentum 0.9": "memory",
    "momentum 0.99": "key",
    "fast + slow": "level3",
}


def predicted_share(beta: float, steps: int) -> Tensor:
    """The old task's share of a momentum after 0 .. steps steps, from the horizon alone: beta^k against 1 - beta^k."""
    old = beta ** torch.arange(steps + 1, dtype=torch.float64)
    return old**2 / (old**2 + (1 - old) ** 2)


def forgetting_curves(shares: Mapping[str, Tensor]) -> Figure:
    """Share of each memory (seeds, steps + 1) in the old subspace after the switch; bands span the seeds."""
    fig = figure(8, 3.6)
    ax = fig.subplots()
    steps = next(iter(shares.values())).shape[1] - 1
    for name, share in shares.items():
        color = COLORS[STYLES[name]]
        ax.fill_between(range(steps + 1), share.amin(0), share.amax(0), color=color, alpha=0.12, lw=0)
        ax.plot(share.mean(0), color=color)
        dy = {"momentum 0.9": -4, "momentum 0.99": 5}.get(name, 0)
        end_label(ax, steps, float(share[:, -1].mean()), name, color, dy=dy)
    at = [k for k in (0, 2, 4, 6, 8, 10, 13, 16, 20, 30, 44) if k <= steps]
    ax.plot(at, predicted_share(0.9, steps)[at], "o", mfc="none", mec=COLORS["truth"], ms=6, ls="")
    ax.annotate("circles: 0.9, from its β alone", (26, 0.05), fontsize=9)
    ax.set(
        xlabel="steps since the switch to task 2", ylabel="share held of task 1", ylim=(-0.03, 1.05), xlim=(-1, steps)
    )
    return fig


def forgetting_alt(shares: Mapping[str, Tensor]) -> str:
    said = "; ".join(
        f"{name}: {float(s[:, 7].mean()):.2f} after 7 steps, {float(s[:, 44].mean()):.2f} after 44"
        for name, s in shares.items()
    )
    return f"Curves of the share of a momentum that still lies in the old task's subspace after a switch. {said}."
