"""Figures of chapter 03: the reader's list, springs, what is kept, the layer and its twin, recall and change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nlbook.book.chapters.attention.dial import feature_map
from nlbook.book.chapters.attention.frontier import LABELS, Point
from nlbook.book.viz.style import COLORS, end_label, figure

# one look a memory; those of chapter 01 keep theirs
STYLE: dict[str, dict[str, Any]] = {
    "softmax": {"color": COLORS["softmax"], "marker": "*", "ms": 14, "zorder": 5},
    "window": {"color": COLORS["softmax"], "ls": "--", "marker": "."},
    "recency": {"color": COLORS["softmax"], "ls": ":"},
    "hebbian": {"color": COLORS["hebbian"], "marker": "."},
    "features": {"color": COLORS["hebbian"], "ls": "--", "marker": "."},
    "delta": {"color": COLORS["delta"], "marker": "."},
    "rls": {"color": COLORS["rls"], "marker": "."},
}


TITLE: dict[str, Any] = {"loc": "left", "fontsize": 11}


def curve(ax: Axes, x: Sequence[float], shares: Sequence[Tensor], **style: Any) -> None:
    """Mean share against x; the band spans the lowest and the highest world."""
    ax.fill_between(
        x, [float(s.min()) for s in shares], [float(s.max()) for s in shares], color=style["color"], alpha=0.15, lw=0
    )
    ax.plot(x, [float(s.mean()) for s in shares], **style)


def cards(story: str, asked: str, weights: Tensor, answer: Tensor) -> Figure:
    """The reader's list, each pair as high as it counts for the question, and the shares of the digits in the answer.

    story: pairs like `x2`, `|` where a document ends. weights (pairs,), answer (10,). Green is true now, red was once.
    """
    fig = figure(9.5, 2.7)
    left, right = fig.subplots(1, 2, width_ratios=(2.4, 1))
    pairs, top = [t for t in story.split() if t != "|"], float(weights.max())
    latest = next(p for p in reversed(pairs) if p[0] == asked)
    left.bar(pairs_at := range(len(pairs)), weights.tolist(), width=0.7, color=[_truth(p == latest) for p in pairs])
    left.set_xticks(pairs_at, pairs)
    for label in left.get_xticklabels():
        label.set_fontweight("bold" if label.get_text()[0] == asked else "normal")
    ended = len(story.split("|")[0].split()) - 0.5
    left.axvline(ended, color=COLORS["truth"], lw=1, ls=":")
    left.text(ended + 0.1, 1.06 * top, "new document", fontsize=8.5, color=COLORS["baseline"])
    left.set(title=f"asked for {asked}: how much each kept pair counts", ylabel="weight", ylim=(0, 1.2 * top))
    right.bar(range(10), answer.tolist(), width=0.7, color=[_truth(i == int(latest[1])) for i in range(10)])
    for digit in (i for i in range(10) if float(answer[i]) > 0.01):
        right.text(digit, float(answer[digit]) + 0.02, f"{float(answer[digit]):.2f}", ha="center", fontsize=9)
    right.set(title="the answer", xlabel="digit", xticks=range(10), ylim=(0, 1.1), ylabel="share")
    return fig


def _truth(now: bool) -> str:
    return COLORS["value"] if now else COLORS["error"]


def cards_alt(story: str, asked: str, weights: Tensor, answer: Tensor) -> str:
    shares = ", ".join(f"{i} with {float(y):.2f}" for i, y in enumerate(answer) if y > 0.01)
    return (
        f"Bars over the pairs {story}: asked for {asked}, only its own pairs count, all alike. The answer is {shares}."
    )


def springs(strengths: Sequence[float], values: Sequence[float]) -> Figure:
    """A bead on a rail, pulled by a spring to each value; it rests where the pulls cancel, at the weighted mean."""
    rest = sum(s * v for s, v in zip(strengths, values)) / sum(strengths)
    fig = figure(8, 2.7)
    ax = fig.subplots()
    for row, (s, v) in enumerate(zip(strengths, values), 1):
        x = np.linspace(v, rest, 200)
        wave = np.sin(np.linspace(0, 20 * np.pi, 200)) * np.clip(
            np.minimum(np.arange(200), 199 - np.arange(200)) / 20, 0, 1
        )
        ax.plot(x, row + 0.22 * wave, color=COLORS["objective"], lw=0.8 + 0.8 * s)
        ax.plot([v], [row], "s", color=COLORS["value"], ms=10)
        pull = s * (v - rest)
        side = 0.45 if v > rest else -0.45
        said = f"value {v:g}, strength {s:g}\npull {s:g} × {abs(v - rest):g} = {abs(pull):g} {'→' if pull > 0 else '←'}"
        ax.text(v + side, row, said, va="center", ha="left" if side > 0 else "right", fontsize=9)
    ax.plot([rest] * 2, [0.5, len(values) + 0.3], color=COLORS["memory"], lw=3)
    ax.text(rest, 0.42, f"the bead rests at {rest:g}", color=COLORS["memory"], ha="center", va="top", weight="bold")
    ax.set(xlim=(min(values) - 5, max(values) + 5), ylim=(-0.1, len(values) + 0.9), yticks=[], xlabel="number line")
    ax.grid(False)
    ax.spines["left"].set_visible(False)
    return fig


def springs_alt(strengths: Sequence[float], values: Sequence[float]) -> str:
    rest = sum(s * v for s, v in zip(strengths, values)) / sum(strengths)
    said = ", ".join(f"to {v:g} with strength {s:g}" for s, v in zip(strengths, values))
    return f"A bead on a number line hangs on springs {said}. The pulls cancel where it rests, at {rest:g}."


def growth(width: int, window: int = 1024) -> Figure:
    """Floats that one head keeps, against the tokens it has read: a cache, a window of it, and a square matrix."""
    fig = figure(7.5, 3.1)
    ax = fig.subplots()
    t = [2**i for i in range(3, 16)]
    for name, y, color in (
        ("cache: all keys and values", [2 * width * x for x in t], COLORS["softmax"]),
        (f"cache of the latest {window:,}", [2 * width * min(x, window) for x in t], COLORS["softmax"]),
        (f"one {width} × {width} matrix", [width * width] * len(t), COLORS["memory"]),
    ):
        ax.plot(t, y, color=color, ls="--" if "latest" in name else "-")
        end_label(ax, t[-1], y[-1], name, color)
    ax.plot([width / 2], [width * width], "o", color=COLORS["truth"], ms=6)
    ax.annotate(f"{width // 2} tokens", (width / 2, width * width), (6, -14), textcoords="offset points", fontsize=9)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_xticks(ticks := [8, 64, 512, 4096, 32768], [f"{x:,}" for x in ticks])
    ax.set_yticks(ticks := [2**i for i in (11, 14, 17, 20, 23)], [f"{x:,}" for x in ticks])
    ax.minorticks_off()
    ax.set(xlabel="tokens read (both axes: equal steps multiply)", ylabel="floats kept by one head")
    return fig


def growth_alt(width: int, window: int = 1024) -> str:
    return (
        f"Floats that one head of width {width} keeps against tokens read, both axes logarithmic. The cache grows without "
        f"end, to {2 * width * 32768:,} after 32,768 tokens; a window of {window:,} stops at {2 * width * window:,}; a matrix "
        f"keeps {width * width:,} from the start, which the cache passes at {width // 2} tokens."
    )


def bumps(asked: float = 0.3, few: int = 4, many: int = 16) -> Figure:
    """Left: `few` bumps, and the numbers that they make of one key. Right: the kernels that bumps multiply out to."""
    x = torch.linspace(-1, 1, 201, dtype=torch.float64)[:, None]
    q = torch.tensor([asked], dtype=torch.float64)
    fig = figure(9.5, 2.9)
    left, right = fig.subplots(1, 2)
    phi = feature_map(f"{few} bumps", 0.01)
    left.plot(x, phi(x), color=COLORS["key"], lw=1.5)
    left.axvline(asked, color=COLORS["query"], lw=1.5)
    left.plot([asked] * few, phi(q), "o", color=COLORS["memory"], ms=6)
    for y in phi(q).tolist():
        if y > 0.01:
            frame = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            left.text(asked + 0.07, y, f"{y:.2f}", fontsize=9, va="center", color=COLORS["memory"], bbox=frame)
    left.set(title=f"{few} bumps: a key becomes {few} numbers", xlabel="key", ylabel="feature")
    styles = ((few, "--", COLORS["baseline"]), (many, "-.", COLORS["control"]), (64, "-", COLORS["hebbian"]))
    for D, ls, color in styles:
        kernel = feature_map(f"{D} bumps", 0.01)
        y = kernel(x) @ kernel(q)
        right.plot(x, y / y.max(), color=color, ls=ls, label=f"{D} bumps")
    right.plot(x, torch.exp(-(x - asked).square() / 0.02), color=COLORS["softmax"], lw=5, alpha=0.35, label="softmax")
    right.set(title=f"how much a key counts for the question {asked:g}", xlabel="key", ylabel="kernel, largest = 1")
    right.legend(loc="upper left")
    return fig


def bumps_alt(asked: float = 0.3, few: int = 4, many: int = 16) -> str:
    made = ", ".join(f"{y:.2f}" for y in feature_map(f"{few} bumps", 0.01)(torch.tensor([asked], dtype=torch.float64)))
    return (
        f"Left, {few} bell curves over a line of keys; of the key {asked:g} they make the numbers {made}. Right, the kernels "
        f"for that question: with 64 bumps the narrow bell of softmax, with {many} wider, with {few} wide as half the line."
    )


def twins(n: int = 5) -> Figure:
    """The same answers in two ways: a triangle of weights, or two sums that are carried from token to token."""
    fig = figure(9.5, 2.9)
    left, right = fig.subplots(1, 2, width_ratios=(1, 1.7))
    left.imshow(np.tril(np.ones((n, n))), cmap="Purples", vmin=0, vmax=2.2)
    for t in range(n):
        for i in range(n):
            left.text(i, t, f"q{t}·k{i}" if i <= t else "–", ha="center", va="center", fontsize=9)
    left.set(title="all at once: every question, every key", xticks=[], yticks=[], xlabel="pairs kept →")
    left.set_ylabel("questions")
    for t in range(n + 1):
        right.text(
            2 * t,
            0,
            f"S, z\nafter {t}",
            ha="center",
            va="center",
            fontsize=8.5,
            bbox={"boxstyle": "round", "fc": "#E8E4F4", "ec": COLORS["memory"]},
        )
        if t < n:
            arrow = {"arrowstyle": "-|>", "lw": 1.4, "shrinkA": 0, "shrinkB": 0}
            right.annotate("", (2 * t + 1.45, 0), (2 * t + 0.5, 0), arrowprops=arrow | {"color": COLORS["memory"]})
            right.annotate("", (2 * t + 1, 0.08), (2 * t + 1, 0.85), arrowprops=arrow | {"color": COLORS["key"]})
            right.text(2 * t + 1, 0.9, f"k{t}, v{t}", ha="center", va="bottom", fontsize=9, color=COLORS["key"])
            right.annotate("", (2 * t + 2, -0.95), (2 * t + 2, -0.35), arrowprops=arrow | {"color": COLORS["query"]})
            right.text(2 * t + 2, -1, f"y{t}", ha="center", va="top", fontsize=9, color=COLORS["truth"])
    right.set(
        title="its twin: two sums, carried along", xlim=(-0.8, 2 * n + 0.8), ylim=(-1.4, 1.3), xticks=[], yticks=[]
    )
    for ax in (left, right):
        ax.grid(False)
        for spine in ax.spines.values():
            spine.set_visible(False)
    return fig


def twins_alt(n: int = 5) -> str:
    return (
        f"Left, a triangle of {n * (n + 1) // 2} weights: each of {n} questions meets its own key and those before it. Right, "
        f"a chain of states S, z: each token writes its key and value into them, and an answer is read off."
    )


def temperature_curve(
    plain: Mapping[float, Tensor], centred: Mapping[float, Tensor], hebbian: float, default: float
) -> Figure:
    """Recall of softmax attention at each temperature (evenly spaced, not to scale), with and without its mean."""
    fig = figure(7.5, 3.2)
    ax = fig.subplots()
    at = range(len(plain))
    ax.axhline(hebbian, color=COLORS["hebbian"], lw=1.2, ls="--")
    ax.text(0, hebbian - 0.02, f"Hebbian memory {hebbian:.2f}", color=COLORS["hebbian"], va="top", fontsize=9)
    style = {"color": COLORS["control"], "marker": ".", "lw": 1.5}
    curve(ax, at, list(centred.values()), **style)
    curve(ax, at, list(plain.values()), color=COLORS["softmax"], marker="o", ms=4)
    names = [f"√d = {tau:.2f}" if tau == default else f"{tau:g}" for tau in plain]
    ax.set_xticks(at, names)
    middle = [*plain].index(default)
    ax.text(middle, 0.98, "the same, without the mean value", color=COLORS["baseline"], fontsize=9)
    ax.text(middle, 0.05, "softmax attention as it answers", color=COLORS["softmax"], fontsize=9)
    ax.set(xlabel="temperature (evenly spaced, not to scale)", ylabel="share identified", ylim=(0, 1.08))
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
    under: dict[str, dict[str, Any]] = {
        "delta": {"lw": 5, "alpha": 0.5, "zorder": 3},
        "rls": {"lw": 8, "alpha": 0.4, "zorder": 2},
    }
    for ax, found in ((left, rewriting), (right, overlapping)):
        for name, by_x in found.items():
            style = STYLE[name] | {"marker": ".", "ms": 6} | under.get(name, {"zorder": 4})
            curve(ax, list(by_x), list(by_x.values()), label=LABELS[name], **style)
    left.set_xscale("log", base=2)
    left.set_xticks(list(rewriting["delta"]), [str(t) for t in rewriting["delta"]])
    left.minorticks_off()
    for ax, x, keys in ((left, 1, 8), (right, 0, 32)):
        ax.axhline(1 / keys, color=COLORS["control"], lw=1, ls=":")
        end_label(ax, x, 1 / keys, "chance", COLORS["baseline"], dx=0, dy=6)
    left.set_title("the latest of several values", **TITLE)
    right.set_title("one value each, similar keys", **TITLE)
    left.set(xlabel="times that each of 8 keys was written", ylabel="share identified", ylim=(0, 1.06))
    right.set(xlabel="overlap of the 32 keys")
    drawn = {str(line.get_label()): line for ax in (right, left) for line in ax.get_lines() if line.get_marker() == "."}
    names = [name for name in LABELS.values() if name in drawn]
    fig.legend([drawn[name] for name in names], names, loc="outside right center", fontsize=9, frameon=False)
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
