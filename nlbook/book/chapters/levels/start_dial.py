"""The start dial: a memory of one number, two documents, and the best place to start from.

A document asks for the number a under keys of length |k|: loss 1/2 c (M - a)^2 with c = |k|^2, and n gradient steps of
rate eta from the start phi leave M - a = (1 - eta c)^n (phi - a). The loud document (large c) wants +1, the quiet one
-1. All minima are weighted means of the two wishes:

    printed form of eq. 28 (no writes)       weights c
    first order                              weights c (1 - eta c)^n
    eq. 28 completed, through the writes     weights c (1 - eta c)^2n
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from nlbook.book.viz.spec import Facts, view
from nlbook.book.viz.state import Float, Int, State
from nlbook.book.viz.style import COLORS, end_label, figure

WISHES = torch.tensor([1.0, -1.0], dtype=torch.float64)  # loud, quiet
LABELS = {
    "printed": ("as printed", COLORS["baseline"]),
    "first": ("first order", COLORS["rate"]),
    "meta": ("through the writes", COLORS["objective"]),
}


def left_over(state: Any) -> Tensor:
    """1 - eta c of both documents: the share of the distance that one write leaves, (2,)."""
    return 1 - state.eta * torch.tensor([state.loud, state.quiet], dtype=torch.float64)


def loss(state: Any, start: Tensor, writes: int) -> Tensor:
    """Mean over both documents of 1/2 c (M - a)^2 after `writes` writes from each start, shape of `start`."""
    c = torch.tensor([state.loud, state.quiet], dtype=torch.float64)
    gap = left_over(state) ** writes * (start[..., None] - WISHES)
    return (0.5 * c * gap**2).mean(-1)


def best(state: Any) -> dict[str, float]:
    """The start that each of the three objectives prefers."""
    c = torch.tensor([state.loud, state.quiet], dtype=torch.float64)
    left = left_over(state) ** state.writes
    weights = {"printed": c, "first": c * left, "meta": c * left**2}
    return {name: round(float((w * WISHES).sum() / w.sum()), 12) + 0.0 for name, w in weights.items()}


def facts(state: Any) -> dict[str, float]:
    """best_*: the start that each objective prefers; loss_*: the outer loss after the writes from there."""
    starts = best(state)
    found = {f"best_{n}": s for n, s in starts.items()}
    for n, s in starts.items():
        found[f"loss_{n}"] = float(loss(state, torch.tensor(s, dtype=torch.float64), state.writes))
    return found | {"left_loud": float(left_over(state)[0]), "left_quiet": float(left_over(state)[1])}


def alt(state: Any, f: Facts) -> str:
    starts = ", ".join(f"{LABELS[n][0]} {f[f'best_{n}']:+.2f}" for n in LABELS)
    return (
        f"Outer loss against the start of a one-number memory, two documents that want +1 (loud) and -1 (quiet), "
        f"{state.writes} write{'s' * (state.writes != 1)}. Best start: {starts}."
    )


@view(
    "start",
    title="Where should a memory start?",
    task="The loud document wants +1, the quiet one -1. Where is the best start without any writes, and where once each "
    "document may write once? Then make both equally loud.",
    answer="Without writes the loud document wins: +0.78. One write of rate 0.5 brings it four fifths of its way, "
    "wherever it started; so the best start moves over to the quiet document, -0.43. The first-order short cut stays on "
    "the loud side, +0.28. With equal loudness all three agree on 0.",
    params=[
        Int("writes", 1, 0, 6, label="writes n"),
        Float("eta", 0.5, 0.0, 0.5, step=0.05, label="rate"),
        Float("loud", 1.6, 0.2, 1.9, step=0.1, label="loudness c of +1"),
        Float("quiet", 0.2, 0.1, 1.9, step=0.1, label="loudness c of -1"),
    ],
    landmarks={
        "no writes": "writes=0",
        "one write": "writes=1",
        "six writes": "writes=6",
        "equally loud": "loud=1.0,quiet=1.0",
    },
    alt=alt,
    facts=facts,
)
def draw(state: State) -> Figure:
    """Left: outer loss against the start, and the three minima. Right: both documents writing from the best start."""
    f = facts(state)
    fig = figure(8.4, 3.2)
    left, right = fig.subplots(1, 2, width_ratios=(1.5, 1))
    start = torch.linspace(-1.25, 1.25, 201, dtype=torch.float64)
    before, after = loss(state, start, 0), loss(state, start, state.writes)
    left.plot(start, before / before.max(), color=COLORS["baseline"], ls="--", lw=1.5)
    left.plot(start, after / after.max(), color=COLORS["objective"])
    top = 1.5
    for i, (name, (label, color)) in enumerate(LABELS.items()):
        x = f[f"best_{name}"]
        left.plot([x, x], [0, top * 0.62], color=color, lw=1.5, ls=":" if name != "meta" else "-")
        left.plot([x], [top * (0.64 + 0.1 * i)], marker="v", color=color)
        left.text(x, top * (0.68 + 0.1 * i), f"{label} {x:+.2f}", ha="center", fontsize=9, color=color)
    left.set(
        xlabel="start φ",
        ylabel="outer loss / its largest",
        xlim=(-1.6, 1.6),
        ylim=(0, top),
        yticks=[0, 0.5, 1],
        xticks=[-1, -0.5, 0, 0.5, 1],
        title="dashed: before any write, full: after them",
    )
    steps = torch.arange(state.writes + 1)
    for i, (name, color) in enumerate((("loud", COLORS["key"]), ("quiet", COLORS["value"]))):
        path = WISHES[i] + left_over(state)[i] ** steps * (f["best_meta"] - WISHES[i])
        right.plot(steps, path, color=color, marker="o", ms=4)
        end_label(right, float(steps[-1]), float(path[-1]), name, color, dy=(7, -7)[i])
        right.axhline(float(WISHES[i]), color=color, lw=1, ls=":")
    right.set(
        xlabel="writes",
        ylabel="memory M",
        ylim=(-1.25, 1.25),
        xlim=(-0.2, 7.7),
        title="from the best start",
        xticks=list(range(0, max(1, state.writes) + 1)),
    )
    return fig
