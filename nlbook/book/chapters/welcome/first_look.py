"""The first plot: one pair is written, then many others, and after each the first key is asked again.

Twenty independent Hebbian memories of width 32. Two things happen to the first pair: `keep` shrinks it, and the pairs
that follow add noise to its answer.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from nlbook import memory
from nlbook.book.data import recall
from nlbook.book.viz.spec import Facts, view
from nlbook.book.viz.state import Float, Int, State
from nlbook.book.viz.style import COLORS, end_label, figure

MEMORIES, WIDTH = 20, 32


@lru_cache(maxsize=64)
def ask_again(keep: float, writes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Signal and noise of the first key's answer after 0 ... `writes` further writes: two tensors (20, writes + 1).

    signal: the part of the answer that lies along the first value. noise: the length of the rest.
    """
    data = recall.pairs(writes + 1, WIDTH, batch=MEMORIES, seed=seed)
    first_key = data.k[:, :1].expand_as(data.k)
    y, _ = memory.make("hebbian", lr=1.0, keep=keep).scan(data.k, data.v, first_key, read="after")
    v = data.v[:, :1]
    signal = (y * v).sum(-1)
    return signal, (y - signal[..., None] * v).norm(dim=-1)


def facts(state: Any) -> dict[str, float]:
    """left_7, left_end: share of the first pair's weight after 7 and after all further writes (keep to that power).

    signal_end, noise_end: mean over the memories of the answer's part along the first value, and of the rest.
    half: writes until the weight is halved (infinite for keep = 1). drowned: first write at which the noise is larger
    than the signal (infinite if it never is).
    """
    signal, noise = (x.mean(0) for x in ask_again(state.keep, state.writes, state.seed))
    below = (noise > signal).nonzero().flatten()
    return {
        "left_7": state.keep**7,
        "left_end": state.keep**state.writes,
        "signal_end": float(signal[-1]),
        "noise_end": float(noise[-1]),
        "half": math.log(0.5) / math.log(state.keep) if state.keep < 1 else math.inf,
        "drowned": float(below[0]) if len(below) else math.inf,
    }


def alt(state: Any, f: Facts) -> str:
    drowned = (
        f"overtakes the signal after {f['drowned']:.0f} writes"
        if math.isfinite(f["drowned"])
        else "stays below the signal"
    )
    return (
        f"Two curves over {state.writes} further writes with keep {state.keep:g}: the part of the answer along the "
        f"first value ends at {f['signal_end']:.2f}; the noise from the other pairs ends at {f['noise_end']:.2f} "
        f"and {drowned}."
    )


@view(
    "first_look",
    title="A memory that remembers, and then forgets",
    task="Find the keep at which the first pair is half gone after seven further writes. Then set keep to 1: nothing "
    "shrinks any more. Is the first pair safe now?",
    answer="keep = 0.91 leaves 0.91^7 = 0.52 and 0.90 leaves 0.48. With keep = 1 the signal stays at 1, but the noise "
    "of the other pairs grows without end and passes it after some 30 writes, near the width of the keys.",
    params=[
        Float("keep", 0.99, 0.5, 1.0, step=0.01, label="keep"),
        Int("writes", 60, 10, 200, step=10, label="further writes"),
        Int("seed", 0, 0, 9),
    ],
    landmarks={"fast, 0.90": "keep=0.9", "slow, 0.99": "keep=0.99", "never shrink": "keep=1.0"},
    twin=["fast, 0.90", "never shrink"],
    alt=alt,
    facts=facts,
)
def draw(state: State) -> Figure:
    """Signal and noise of the first key's answer against the number of further writes; bands hold 20 memories."""
    f = facts(state)
    signal, noise = ask_again(state.keep, state.writes, state.seed)
    t = torch.arange(state.writes + 1)
    fig = figure(7, 3.1)
    ax = fig.subplots()
    top = max(1.25, float(noise.max()) * 1.05)
    last_signal, last_noise = float(signal.mean(0)[-1]), float(noise.mean(0)[-1])
    near = abs(last_signal - last_noise) < 0.12 * top
    push = 0 if not near else 8 if last_signal > last_noise else -8  # keeps the two labels apart
    for series, color, label, dy in (
        (signal, COLORS["value"], "the first value", push),
        (noise, COLORS["error"], "noise of the others", -push),
    ):
        ax.fill_between(t, series.amin(0).numpy(), series.amax(0).numpy(), color=color, alpha=0.18, lw=0)
        ax.plot(t, series.mean(0), color=color)
        end_label(ax, state.writes, float(series.mean(0)[-1]), label, color, dy=dy)
    if f["half"] <= state.writes:
        ax.plot([0, f["half"], f["half"]], [0.5, 0.5, 0], color=COLORS["control"], lw=1, ls=":")
        ax.annotate(f"half after {f['half']:.0f}", (f["half"], 0), (4, 4), textcoords="offset points", fontsize=9)
    ax.set(
        xlim=(0, state.writes),
        ylim=(min(0.0, float(signal.min())), top),
        title=f"keep = {state.keep:g}",
        xlabel="further writes since the first pair",
        ylabel="what the first key returns",
    )
    return fig
