"""Figures of appendix D: factors on a line, counting on lengths never trained, the sign that flips, chunks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from nlbook.book.chapters.counting.parity import Counted
from nlbook.book.viz.style import COLORS, book_style, end_label, figure

FACTORS = {  # memory -> (least, largest) factor of one write along its key, without decay
    "linear attention": (1.0, 1.0),
    "delta rule, rate below 1": (0.0, 1.0),
    "delta rule, rate to 2": (-1.0, 1.0),
    "DGD, given value, rate below 1": (-1.0, 1.0),
    "DGD, own value, rate below 1": (-2.0, 1.0),
}


def factors() -> Figure:
    """By what one write can multiply a memory of one number: the interval of each rule, and the -1 that counts."""
    fig = figure(8.5, 2.4)
    with book_style():
        ax = fig.subplots()
        for row, (name, (low, high)) in enumerate(FACTORS.items()):
            color = COLORS["memory" if low <= -1 else "value"]
            ax.plot([low, high], [-row, -row], color=color, lw=7, solid_capstyle="butt")
            ax.plot([high], [-row], "o", color=color, ms=7)
            ax.text(-2.25, -row, name, ha="right", va="center", fontsize=10)
        ax.axvline(-1, color=COLORS["error"], lw=1.6, ls="--")
        ax.text(-0.97, 0.75, "-1 counts", color=COLORS["error"], fontsize=10)
        ax.axvline(0, color="#555555", lw=0.8)
        ax.set(xlim=(-2.1, 1.15), ylim=(-len(FACTORS) + 0.5, 1.2), yticks=[], xticks=[-2, -1, 0, 1])
        ax.set_xlabel("factor of one write")
        ax.grid(False)
        ax.spines["left"].set_visible(False)
    return fig


FACTORS_ALT = (
    "A number line with the factors that one write can have, one bar a rule: "
    + "; ".join(f"{name} from {low:g} to {high:g}" for name, (low, high) in FACTORS.items())
    + ". A dashed line marks -1."
)


def chunks(states: Sequence[tuple[int, Sequence[float]]], bits: Sequence[int]) -> Figure:
    """The one number after each symbol, one row a chunk size; boundaries dotted; full dots where the sign is wrong."""
    fig = figure(9, 0.5 + 1.1 * len(states))
    truth = [1 - 2 * (sum(bits[: t + 1]) % 2) for t in range(len(bits))]
    with book_style():
        for ax, (size, line) in zip(fig.subplots(len(states), 1, sharex=True, sharey=True), states, strict=True):
            x = range(1, len(bits) + 1)
            ax.axhline(0, color="#555555", lw=0.8)
            ax.plot(x, line, color=COLORS["memory"], lw=1, drawstyle="steps-post")
            for t, w, want in zip(x, line, truth, strict=True):
                wrong = w * want <= 0
                ax.plot(
                    [t],
                    [w],
                    "o",
                    ms=7,
                    mec=COLORS["error" if wrong else "memory"],
                    mfc=COLORS["error"] if wrong else "white",
                )
            for edge in range(size, len(bits), size):
                ax.axvline(edge + 0.5, color="#999999", lw=0.8, ls=":")
            ax.set(xticks=list(x), xlim=(0.5, len(bits) + 0.5), ylim=(-1.6, 1.6), yticks=[-1, 1])
            ax.set_ylabel(f"chunks\nof {size}" if size > 1 else "each\ntoken")
            ax.set_xticklabels(["b" if b else "a" for b in bits])
            ax.grid(False)
    return fig


def chunks_alt(states: Sequence[tuple[int, Sequence[float]]], bits: Sequence[int]) -> str:
    truth = [1 - 2 * (sum(bits[: t + 1]) % 2) for t in range(len(bits))]
    said = "; ".join(
        f"chunk size {size}: {sum(w * want > 0 for w, want in zip(line, truth, strict=True))} of {len(bits)}"
        for size, line in states
    )
    return f"The number after each symbol of a word, a row for each chunk size. Its sign tells the parity at: {said}."


def counting(runs: Sequence[Counted]) -> Figure:
    """Share of words with every prefix right, by length; one line a memory."""
    fig = figure(7, 3)
    with book_style():
        ax = fig.subplots()
        lengths = runs[0].lengths
        used: list[float] = []
        for run, color in zip(
            runs, (COLORS["memory"], COLORS["value"], COLORS["baseline"], COLORS["control"]), strict=False
        ):
            ax.plot(range(len(lengths)), run.bins, color=color, marker="o")
            used.append(max([run.bins[-1], *(u + 0.1 for u in used if abs(u - run.bins[-1]) < 0.1)]))
            end_label(ax, len(lengths) - 1, used[-1], run.kind, color)
        ax.axvspan(-0.3, 0.5, color=COLORS["grid"], alpha=0.6, lw=0)
        ax.text(0.1, 0.5, "trained", fontsize=9, color="#555555", ha="center")
        ax.set(
            xticks=range(len(lengths)),
            ylim=(-0.03, 1.05),
            xlim=(-0.3, len(lengths) - 1),
            xlabel="length of the word",
            ylabel="every prefix right",
        )
        ax.set_xticklabels([f"{low}-{high}" for low, high in lengths])
    return fig


def counting_alt(runs: Sequence[Counted]) -> str:
    said = "; ".join(
        f"{r.kind} "
        + ", ".join(f"{100 * b:.0f} % at {low} to {high}" for b, (low, high) in zip(r.bins, r.lengths, strict=True))
        for r in runs
    )
    return f"Share of parity words with every prefix right, by length, trained on the shortest lengths only: {said}."


def sign_of(states: Tensor) -> Tensor:
    """The memory along the direction in which it moves most while it reads, (length,); states (length + 1, n)."""
    moved = states[1:] - states[1:].mean(0)
    u, s, _ = torch.linalg.svd(moved, full_matrices=False)
    return u[:, 0] * s[0]


def flips(states: Tensor, bits: Sequence[int]) -> Figure:
    """The trained memory's main direction, symbol by symbol; full dots where the count of b so far is odd."""
    line, odd = sign_of(states), torch.tensor(bits).cumsum(0) % 2
    fig = figure(9, 2.6)
    with book_style():
        ax = fig.subplots()
        x = torch.arange(1, len(bits) + 1)
        ax.axhline(0, color="#555555", lw=0.8)
        ax.plot(x, line, color=COLORS["memory"], lw=1, drawstyle="steps-post")
        for parity, face in ((1, COLORS["memory"]), (0, "white")):
            ax.plot(x[odd == parity], line[odd == parity], "o", ms=5, mec=COLORS["memory"], mfc=face)
        ax.set(xticks=x, xlim=(0.5, len(bits) + 0.5), ylabel="memory,\nmain direction", yticks=[0])
        ax.set_xticklabels(["b" if b else "a" for b in bits], fontsize=8)
        ax.grid(False)
        ax.set_title("the trained memory while it reads one word; full dots: an odd number of b so far", fontsize=10)
    return fig


def flips_alt(states: Tensor, bits: Sequence[int]) -> str:
    line, odd = sign_of(states), torch.tensor(bits).cumsum(0) % 2
    agree = max(float(((line > 0) == (odd == p)).double().mean()) for p in (0, 1))
    return (
        f"The memory along its main direction while a word of {len(bits)} symbols is read: "
        f"its sign flips at each b and stays at each a; "
        f"it tells the parity at {100 * agree:.0f} % of the symbols."
    )
