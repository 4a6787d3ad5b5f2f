"""Figures of chapter 01: what a delta write does, and what a matrix memory still knows."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nlbook.book.chapters.memory.curves import RULES
from nlbook.book.viz import COLORS, end_label, figure

LOOK: dict[str, dict[str, Any]] = {
    name: {"color": COLORS[rule], "ls": "--" if options.get("lr", 1) < 1 else "-"}
    for name, (rule, options) in RULES.items()
}

KEYS, VALUES = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[5.0, 0.0], [0.0, 5.0]])


def read_again(rate: float) -> Tensor:
    """What both keys return when the Hebbian memory of two pairs gets the first again, by a delta write: row a key."""
    M = VALUES.T @ KEYS
    M = M + rate * torch.outer(VALUES[0] - M @ KEYS[0], KEYS[0])
    return KEYS @ M.T


def arrow(ax: Axes, start: Tensor, end: Tensor, color: str, text: str, **kwargs: object) -> None:
    style = {"arrowstyle": "-|>", "color": color, "lw": 2.2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 14, **kwargs}
    ax.annotate("", tuple(end.tolist()), tuple(start.tolist()), arrowprops=style)
    ax.annotate(text, tuple(end.tolist()), (6, 3), textcoords="offset points", color=color, fontsize=9)


def erase_and_write() -> Figure:
    """Left the key that is written: its answer is moved to the value. Right another key: 0.6 of the same move."""
    before, after, half = read_again(0.0), read_again(1.0), read_again(0.5)
    fig = figure(9, 3.9)
    axes = fig.subplots(1, 2, sharex=True, sharey=True)
    overlap = float(KEYS[0] @ KEYS[1])
    titles = ("the key that is written", f"another key, overlap {overlap:g}")
    for i, (ax, title) in enumerate(zip(axes, titles, strict=True)):
        zero = torch.zeros(2)
        arrow(ax, zero, VALUES[i], COLORS["value"], f"its value {i + 1}")
        arrow(ax, zero, before[i], COLORS["memory"], "answer before")
        arrow(ax, before[i], after[i], COLORS["error"], "", ls="--")
        ax.plot(*half[i], "o", color=COLORS["rate"], ms=7)
        ax.annotate("after a write at rate ½", tuple(half[i].tolist()), (9, -3), textcoords="offset points", fontsize=9)
        if i:
            ax.plot(*after[i], "o", color=COLORS["error"], ms=7)
            ax.annotate("after a full write", tuple(after[i].tolist()), (9, -3), textcoords="offset points", fontsize=9)
        else:
            ax.annotate(
                "a full write\nends here", tuple(after[i].tolist()), (-70, 14), textcoords="offset points", fontsize=9
            )
        ax.set(title=title, xlim=(-0.4, 8.2), ylim=(-0.5, 6), aspect="equal", xlabel="first number of the answer")
    axes[0].set_ylabel("second number")
    return fig


def erase_and_write_alt() -> str:
    before, after = read_again(0.0), read_again(1.0)
    say = [f"from ({b[0]:.1f}, {b[1]:.1f}) to ({a[0]:.1f}, {a[1]:.1f})" for b, a in zip(before, after, strict=True)]
    return (
        f"Two panels of arrows. A full delta write moves the answer of its own key {say[0]}, onto its value, and the "
        f"answer of a second key, which overlaps by 0.6, {say[1]}, in the same direction and 0.6 times as far."
    )


def age_curve(found: Mapping[str, Tensor]) -> Figure:
    """Share identified against the age of a pair. `found[rule]`: (worlds, n) of 0 and 1, column 0 the newest pair."""
    fig = figure(7, 3)
    ax = fig.subplots()
    for i, (rule, hits) in enumerate(found.items()):
        mean = hits.mean(0)
        ax.plot(mean, lw=2, **LOOK[rule])
        end_label(ax, len(mean) - 1, float(mean[-3:].mean()), rule, LOOK[rule]["color"], dy=(6, 0, -6)[i])
    ax.set(xlabel="age of the pair (writes since)", ylabel="share identified", ylim=(0, 1.04))
    ax.margins(x=0.02)
    return fig


def age_curve_alt(found: Mapping[str, Tensor]) -> str:
    ends = {rule: (float(hits.mean(0)[:3].mean()), float(hits.mean(0)[-3:].mean())) for rule, hits in found.items()}
    said = "; ".join(
        f"{rule} {new:.2f} for the newest three pairs and {old:.2f} for the oldest three"
        for rule, (new, old) in ends.items()
    )
    return f"Line plot of the share of pairs identified against their age. {said}."


def capacity_curves(capacity: Mapping[float, Mapping[str, Mapping[int, Tensor]]]) -> Figure:
    """Share of pairs identified against their number, one panel for each overlap of the keys.

    `capacity[rho][rule][n]`: (seeds,) shares. Bands hold the middle half of the seeds.
    """
    fig = figure(9, 3.4)
    axes = fig.subplots(1, len(capacity), sharey=True, squeeze=False)[0]
    for ax, (rho, rules) in zip(axes, capacity.items(), strict=True):
        for rule, by_n in rules.items():
            n = list(by_n)
            ax.plot(n, [float(a.mean()) for a in by_n.values()], lw=2, label=rule, **LOOK[rule])
            low, high = ([float(a.quantile(q)) for a in by_n.values()] for q in (0.25, 0.75))
            ax.fill_between(n, low, high, color=LOOK[rule]["color"], alpha=0.2, lw=0)
        ax.set_xscale("log", base=2)
        ax.set_xticks(n, [str(i) if i & (i - 1) == 0 else "" for i in n])
        ax.minorticks_off()
        title = f"keys that overlap by {rho:g}" if rho else "random keys"
        ax.set(title=title, xlabel="pairs written (width 32)", ylim=(0, 1.03))
    axes[0].set_ylabel("share identified")
    axes[0].legend(loc="lower left", frameon=False)
    return fig


def capacity_alt(capacity: Mapping[float, Mapping[str, Mapping[int, Tensor]]], n: int = 32) -> str:
    said = ""
    for rho, rules in capacity.items():
        shares = ", ".join(f"{rule} {float(by_n[n].mean()):.2f}" for rule, by_n in rules.items())
        said += f" Key overlap {rho:g}, {n} pairs: {shares}."
    return f"Share of pairs identified against the number of pairs written, for several rules.{said}"


def reader_bars(found: Mapping[str, Mapping[str, float]]) -> Figure:
    """Mean squared error of several memories, `found[memory][what is asked]`; 1 is the error of an empty memory."""
    fig = figure(7, 3.6)
    ax = fig.subplots()
    colors = (COLORS["level3"], COLORS["level1"], COLORS["baseline"], COLORS["memory"])
    width = 0.8 / len(found)
    for i, ((memory, errors), color) in enumerate(zip(found.items(), colors, strict=True)):
        x = [j + (i - (len(found) - 1) / 2) * width for j in range(len(errors))]
        ax.bar(x, list(errors.values()), width=0.92 * width, color=color, label=memory)
        for at, e in zip(x, errors.values(), strict=True):
            ax.text(at, e + 0.02, f"{e:.2f}", ha="center", fontsize=8)
    kinds = list(next(iter(found.values())))
    ax.set_xticks(range(len(kinds)), [fill(kind, 16) for kind in kinds])
    ax.axhline(1, color=COLORS["control"], lw=1, ls=":")
    ax.set(ylabel="squared error", ylim=(0, 1.6))
    ax.grid(axis="x", visible=False)
    ax.legend(ncols=2, loc="upper left")
    return fig


def reader_bars_alt(found: Mapping[str, Mapping[str, float]]) -> str:
    said = "; ".join(f"{m}: " + ", ".join(f"{k} {e:.2f}" for k, e in es.items()) for m, es in found.items())
    return f"Bars of the mean squared error of four memories on the reader's stream, by kind of key. {said}."
