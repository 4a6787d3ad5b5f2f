"""The first plot: a fact is told, many others are told, and half-way the fact changes. What does its key return?

Sixty independent Hebbian memories of width 32. `keep` is the share of the old state that survives a write: it lets go
of what is out of date, and of what is still true.
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

MEMORIES, WIDTH, WRITES, CHANGE = 60, 32, 80, 40


@lru_cache(maxsize=64)
def ask_again(keep: float, seed: int) -> dict[str, Tensor]:
    """What the first key returns after 0 ... 80 further writes, the 40th of which gives it a new value: (60, 81) each.

    old, new: the part of the answer along its first and its second value. noise: the length of the rest.
    """
    data = recall.pairs(WRITES + 1, WIDTH, batch=MEMORIES, seed=seed)
    k = data.k.clone()
    k[:, CHANGE] = k[:, 0]
    y, _ = memory.make("hebbian", lr=1.0, keep=keep).scan(k, data.v, k[:, :1].expand_as(k), read="after")
    both = torch.stack([data.v[:, 0], data.v[:, CHANGE]], -1)  # (60, width, 2)
    parts = y @ torch.linalg.pinv(both).mT  # the two values overlap a little: the answer as a mixture of them
    rest = y - parts @ both.mT
    return {"old": parts[..., 0], "new": parts[..., 1], "noise": rest.norm(dim=-1)}


def facts(state: Any) -> dict[str, float]:
    """half: writes until the first pair's weight is halved (infinite for keep = 1).

    old_before: the old value's part just before the fact changes. old_change, new_change: both parts when it has just
    changed. old_end, new_end, noise_end: at the end. All are means over the memories.
    """
    at = {name: x.mean(0) for name, x in ask_again(state.keep, state.seed).items()}
    return {
        "half": math.log(0.5) / math.log(state.keep) if state.keep < 1 else math.inf,
        "old_before": float(at["old"][CHANGE - 1]),
        "old_change": float(at["old"][CHANGE]),
        "new_change": float(at["new"][CHANGE]),
        "old_end": float(at["old"][-1]),
        "new_end": float(at["new"][-1]),
        "noise_end": float(at["noise"][-1]),
    }


def alt(state: Any, f: Facts) -> str:
    return (
        f"Three curves over {WRITES} writes with keep {state.keep:g}, and a change of the fact at write {CHANGE}. Just "
        f"before it the key returns {f['old_before']:.2f} of the old value; just after it {f['old_change']:.2f} of the "
        f"old and {f['new_change']:.2f} of the new one; at the end {f['old_end']:.2f}, {f['new_end']:.2f}, and noise of "
        f"length {f['noise_end']:.2f} from the other pairs."
    )


@view(
    "first_look",
    title="What is kept, and what is let go",
    task="Find the keep at which the old value is half gone after fourteen writes. Then set keep to 1: nothing is let go. "
    "What does the key answer after the fact has changed?",
    answer="keep = 0.95: 0.95^13 = 0.51 and 0.95^14 = 0.49. With keep = 1 the old value stays, and after the "
    "change the key returns both values, each nearly whole. With 0.90 the new value stands alone when it has just been "
    "told, and forty writes later it has faded as well.",
    params=[Float("keep", 0.97, 0.5, 1.0, step=0.01, label="keep"), Int("seed", 0, 0, 9)],
    landmarks={"let go, 0.90": "keep=0.9", "slowly, 0.97": "keep=0.97", "never, 1.00": "keep=1.0"},
    alt=alt,
    facts=facts,
)
def draw(state: State) -> Figure:
    """What the first key returns against the number of writes; bands hold 60 memories, and the axis never changes."""
    parts = ask_again(state.keep, state.seed)
    t = torch.arange(WRITES + 1)
    fig = figure(7, 3.1)
    ax = fig.subplots()
    lines = [
        ("noise", COLORS["error"], "noise of the others"),
        ("old", COLORS["baseline"], "old value"),
        ("new", COLORS["value"], "new value"),
    ]
    place = -1.0
    for name, color, label in sorted(lines, key=lambda line: float(parts[line[0]].mean(0)[-1])):
        x, start = parts[name], CHANGE if name == "new" else 0
        ax.fill_between(t[start:], x.amin(0)[start:].numpy(), x.amax(0)[start:].numpy(), color=color, alpha=0.15, lw=0)
        ax.plot(t[start:], x.mean(0)[start:], color=color, ls="--" if name == "old" else "-")
        place = max(float(x.mean(0)[-1]), place + 0.17)  # keeps the labels apart
        end_label(ax, WRITES, place, label, color)
    ax.axvline(CHANGE, color=COLORS["truth"], lw=1, ls=":")
    ax.annotate("the fact changes", (CHANGE, 1.85), (-5, 0), textcoords="offset points", fontsize=9, ha="right")
    ax.axhline(0.5, color=COLORS["rate"], lw=1, ls=":")  # half of a value
    ax.set(
        xlim=(0, WRITES),
        ylim=(-0.45, 2.05),
        title=f"keep = {state.keep:g}",
        xlabel="writes since the fact was first told",
        ylabel="part of the answer (1 = whole value)",
    )
    return fig
