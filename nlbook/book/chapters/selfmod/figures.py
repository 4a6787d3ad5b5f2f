"""Figures of chapter 06: adaptation after a rule switch, counting on lengths never trained, the sign that flips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from nlbook.book.chapters.selfmod.parity import Counted
from nlbook.book.viz.style import COLORS, book_style, end_label, figure

LOOK = {
    "self": ("its own value M v", "memory", "-"),
    "fixed": ("the given value v", "value", "-"),
    "random": ("a random map's value", "control", "--"),
    "detached": ("its own value, cut outside", "error", ":"),
    "five": ("all five memories move", "objective", "-"),
}
PANELS = {"facts": "switch to new facts", "references": "switch to references"}


def adaptation(curves: Mapping[str, Mapping[str, Tensor]], switch: int, chance: float) -> Figure:
    """source -> switch -> share right (runs, tokens): one panel for each kind of switch; bands span few runs."""
    fig = figure(9.4, 3.4)
    with book_style():
        axes = fig.subplots(1, 2, sharey=True)
        for ax, (kind, title) in zip(axes, PANELS.items(), strict=True):
            ends: list[float] = []
            for source, by_kind in sorted(curves.items(), key=lambda c: -float(c[1][kind].mean(0)[-3:].mean())):
                words, color, style = LOOK[source]
                right = by_kind[kind].numpy()
                x = range(1, right.shape[1] + 1)
                ax.plot(x, right.mean(0), color=COLORS[color], ls=style)
                if 1 < len(right) < 10:
                    ax.fill_between(x, right.min(0), right.max(0), color=COLORS[color], alpha=0.15, lw=0)
                ends.append(min([float(right.mean(0)[-1]), *(e - 0.09 for e in ends)]))
                end_label(
                    ax,
                    float(x[-1]),
                    ends[-1],
                    words if kind == "references" else f"{float(right.mean(0)[-1]):.2f}",
                    COLORS[color],
                )
            ax.axvline(switch + 0.5, color="black", lw=1, ls=":")
            ax.axhline(chance, color=COLORS["control"], lw=1, ls=":")
            ax.set(title=title, xlabel="tokens read", ylim=(0, 1.03), xlim=(1, x[-1]))
        axes[0].set_ylabel("share of right answers")
        axes[0].text(1.5, chance + 0.01, "guessing", fontsize=8, color="#555555", va="bottom")
    return fig


def adaptation_alt(curves: Mapping[str, Mapping[str, Tensor]], switch: int) -> str:
    said = "; ".join(
        f"{LOOK[s][0]}: {float(c['facts'].mean(0)[switch + 6 :].mean()):.2f} on new facts, "
        f"{float(c['references'].mean(0)[switch + 6 :].mean()):.2f} on references"
        for s, c in curves.items()
    )
    return (
        f"Share of right answers while stories are read, rule switched after token {switch}. "
        f"From six tokens after it on: {said}."
    )


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
