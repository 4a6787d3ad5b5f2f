"""Figures of chapter 03: the temperature's ends, recall for the floats kept, and facts that change or resemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nlbook.book.chapters.attention.frontier import LABELS, Point
from nlbook.book.viz.style import COLORS, end_label, figure

# one look a memory; those of chapter 01 keep theirs
STYLE: dict[str, dict[str, Any]] = {
    "softmax": {"color": COLORS["objective"], "marker": "*", "ms": 14, "zorder": 5},
    "window": {"color": COLORS["objective"], "ls": "--", "marker": "."},
    "recency": {"color": COLORS["rate"], "ls": "--"},
    "hebbian": {"color": COLORS["value"], "marker": "."},
    "features": {"color": COLORS["value"], "ls": "--", "marker": "."},
    "delta": {"color": COLORS["memory"], "marker": "."},
    "gated_delta": {"color": COLORS["memory"], "ls": ":", "marker": "."},
    "rls": {"color": COLORS["baseline"], "marker": "."},
    "mlp": {"color": COLORS["error"], "marker": "."},
}


TITLE: dict[str, Any] = {"loc": "left", "fontsize": 11}


def curve(ax: Axes, x: Sequence[float], shares: Sequence[Tensor], **style: Any) -> None:
    """Mean share against x; the band spans the lowest and the highest world."""
    ax.fill_between(
        x, [float(s.min()) for s in shares], [float(s.max()) for s in shares], color=style["color"], alpha=0.15, lw=0
    )
    ax.plot(x, [float(s.mean()) for s in shares], **style)


def temperature_curve(
    plain: Mapping[float, Tensor], centred: Mapping[float, Tensor], hebbian: float, default: float
) -> Figure:
    """Recall of softmax attention at each temperature (evenly spaced, not to scale), with and without its mean."""
    fig = figure(7.5, 3.2)
    ax = fig.subplots()
    at = range(len(plain))
    ax.axhline(hebbian, color=COLORS["value"], lw=1.2, ls="--")
    ax.text(0, hebbian - 0.02, f"Hebbian memory {hebbian:.2f}", color=COLORS["value"], va="top", fontsize=9)
    style = {"color": COLORS["control"], "marker": ".", "lw": 1.5}
    curve(ax, at, list(centred.values()), **style)
    curve(ax, at, list(plain.values()), color=COLORS["objective"], marker="o", ms=4)
    names = [f"√d = {tau:.2f}" if tau == default else f"{tau:g}" for tau in plain]
    ax.set_xticks(at, names)
    middle = [*plain].index(default)
    ax.text(middle, 0.98, "the same, without the mean value", color=COLORS["baseline"], fontsize=9)
    ax.text(middle, 0.05, "softmax attention as it answers", color=COLORS["objective"], fontsize=9)
    ax.set(xlabel="temperature", ylabel="share identified", ylim=(0, 1.08))
    return fig


def temperature_alt(plain: Mapping[float, Tensor], centred: Mapping[float, Tensor], hebbian: float) -> str:
    said = ", ".join(f"{float(plain[t].mean()):.2f} at {t:g} ({float(centred[t].mean()):.2f})" for t in plain)
    return (
        "Share of pairs that softmax attention identifies against its temperature, in brackets when the mean value "
        f"is taken off: {said}. The Hebbian memory identifies {hebbian:.2f}."
    )


def frontier_curves(found: Mapping[int, Mapping[str, Sequence[Point]]]) -> Figure:
    """Share identified against floats of state, a panel for each number of pairs; bands span the worlds."""
    fig = figure(9.5, 3.8)
    axes = fig.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for ax, (n, members) in zip(axes, found.items(), strict=True):
        for name, points in members.items():
            curve(ax, [p.floats for p in points], [p.recall for p in points], label=LABELS[name], **STYLE[name])
        ax.axhline(1 / n, color=COLORS["control"], lw=1, ls=":")
        ax.set_xscale("log", base=2)
        floats = [p.floats for points in members.values() for p in points]
        ticks = [4**i for i in range(3, 10) if 0.9 * min(floats) <= 4**i <= max(floats)]
        ax.set_xticks(ticks, [f"{t:,}" for t in ticks])
        ax.minorticks_off()
        ax.set_title(f"{n} pairs", **TITLE)
        ax.set(xlabel="floats of state for one sequence", ylim=(0, 1.06))
    axes[0].set_ylabel("share identified")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside right center", fontsize=9, frameon=False)
    return fig


def frontier_alt(found: Mapping[int, Mapping[str, Sequence[Point]]]) -> str:
    said = ""
    for n, members in found.items():
        best = "; ".join(
            f"{LABELS[name]} {points[-1].mean:.2f} with {points[-1].floats:,} floats"
            for name, points in members.items()
        )
        said += f" {n} pairs, each at its largest size: {best}."
    return f"Share of pairs identified against the floats of state, on a logarithmic axis.{said}"


def changes(rewriting: Mapping[str, Mapping[int, Tensor]], overlapping: Mapping[str, Mapping[float, Tensor]]) -> Figure:
    """Left: keys written again and again. Right: keys that resemble each other. Bands span the worlds."""
    fig = figure(9.5, 3.5)
    left, right = fig.subplots(1, 2, sharey=True)
    for ax, found in ((left, rewriting), (right, overlapping)):
        for name, by_x in found.items():
            under = {"lw": 5, "alpha": 0.55} if name in ("delta", "rls") else {"zorder": 4}  # else they hide others
            style = STYLE[name] | {"marker": ".", "ms": 6} | under
            curve(ax, list(by_x), list(by_x.values()), label=LABELS[name], **style)
    left.set_xscale("log", base=2)
    left.set_xticks(list(rewriting["delta"]), [str(t) for t in rewriting["delta"]])
    left.minorticks_off()
    left.axhline(1 / 8, color=COLORS["control"], lw=1, ls=":")
    end_label(left, 1, 1 / 8, "chance", COLORS["baseline"], dx=0, dy=6)
    left.set_title("the latest of several values", **TITLE)
    right.set_title("one value each, similar keys", **TITLE)
    left.set(xlabel="times that each of 8 keys was written", ylabel="share identified", ylim=(0, 1.06))
    right.set(xlabel="overlap of the 32 keys")
    drawn = {str(line.get_label()): line for ax in (right, left) for line in ax.get_lines() if line.get_marker() == "."}
    fig.legend(list(drawn.values()), list(drawn), loc="outside right center", fontsize=9, frameon=False)
    return fig


def changes_alt(
    rewriting: Mapping[str, Mapping[int, Tensor]], overlapping: Mapping[str, Mapping[float, Tensor]]
) -> str:
    most = max(rewriting["delta"])
    again = ", ".join(f"{LABELS[m]} {float(by[most].mean()):.2f}" for m, by in rewriting.items())
    rho = 0.6
    alike = ", ".join(f"{LABELS[m]} {float(by[rho].mean()):.2f}" for m, by in overlapping.items())
    return (
        f"Two line plots of the share identified. After {most} rewritings of each key: {again}. At key overlap "
        f"{rho:g}: {alike}."
    )
