"""Figures of chapter 01: what a matrix memory still knows, by the age of a pair and by their number."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from nlbook.book.viz import COLORS, end_label, figure

STYLE = {
    "hebbian": (COLORS["value"], "Hebbian"),
    "delta": (COLORS["memory"], "delta"),
    "omega": (COLORS["query"], "Omega"),
    "rls": (COLORS["baseline"], "best linear"),
}


def age_curve(found: Mapping[str, Tensor]) -> Figure:
    """Share identified against the age of a pair. `found[rule]`: (worlds, n) of 0 and 1, column 0 the newest pair."""
    fig = figure(7, 3)
    ax = fig.subplots()
    for rule, hits in found.items():
        color, label = STYLE[rule]
        mean = hits.mean(0)
        ax.plot(mean, color=color, lw=2)
        end_label(ax, len(mean) - 1, float(mean[-3:].mean()), label, color)
    ax.set(xlabel="age of the pair (writes since)", ylabel="share identified", ylim=(0, 1.04))
    ax.margins(x=0.02)
    return fig


def age_curve_alt(found: Mapping[str, Tensor]) -> str:
    ends = {rule: (float(hits.mean(0)[:3].mean()), float(hits.mean(0)[-3:].mean())) for rule, hits in found.items()}
    said = "; ".join(
        f"{STYLE[rule][1]} {new:.2f} for the newest three pairs and {old:.2f} for the oldest three"
        for rule, (new, old) in ends.items()
    )
    return f"Line plot of the share of pairs identified against their age. {said}."


def capacity_curves(capacity: Mapping[float, Mapping[str, Mapping[int, Tensor]]]) -> Figure:
    """Share of pairs identified against their number, one panel for each overlap of the keys.

    `capacity[rho][rule][n]`: (seeds,) shares. Bands span the lowest and the highest seed.
    """
    fig = figure(9, 3.4)
    axes = fig.subplots(1, len(capacity), sharey=True, squeeze=False)[0]
    for ax, (rho, rules) in zip(axes, capacity.items(), strict=True):
        for rule, by_n in rules.items():
            color, label = STYLE[rule]
            n = list(by_n)
            ax.plot(n, [float(a.mean()) for a in by_n.values()], color=color, lw=2, label=label)
            low, high = ([float(end(a)) for a in by_n.values()] for end in (torch.min, torch.max))
            ax.fill_between(n, low, high, color=color, alpha=0.2, lw=0)
        ax.set_xscale("log", base=2)
        ax.set_xticks(n, [str(i) if i & (i - 1) == 0 else "" for i in n])
        ax.minorticks_off()
        ax.set(title=f"overlap of keys {rho:g}", xlabel="pairs written (width 32)", ylim=(0, 1.03))
    axes[0].set_ylabel("share identified")
    axes[0].legend(loc="lower left", frameon=False)
    return fig


def capacity_alt(capacity: Mapping[float, Mapping[str, Mapping[int, Tensor]]], n: int = 32) -> str:
    said = ""
    for rho, rules in capacity.items():
        shares = ", ".join(f"{STYLE[rule][1]} {float(by_n[n].mean()):.2f}" for rule, by_n in rules.items())
        said += f" Key overlap {rho:g}, {n} pairs: {shares}."
    return f"Share of pairs identified against the number of pairs written, for several rules.{said}"
