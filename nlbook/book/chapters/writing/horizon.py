"""How far back? What each past gradient still weighs in a momentum, and how many of them make half of it.

A moving average gives the gradient of i steps ago the weight (1 - beta) beta^i, so the last n make 1 - beta^n (section
4.3, eq. 45). A second, slow momentum that is written once a period with its mean (eq. 75, corrected) adds a tail.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nlbook.book.viz.spec import Facts, view
from nlbook.book.viz.state import Bool, Choice, Float, State
from nlbook.book.viz.style import COLORS, figure
from nlbook.optim import momentum_horizon, momentum_weights

HALF, MOST = 0.5, 0.99
MARKS = {HALF: "50 %", MOST: "99 %"}


@lru_cache(maxsize=64)
def weights(beta: float, slow: bool, period: int, slow_keep: float, alpha: float) -> tuple[Tensor, Tensor]:
    """Weights (n,) of the last n gradients, the newest first, in the fast momentum and in what a step follows.

    With `slow` the step follows (fast + alpha * slow) / (1 + alpha), read just after the slow momentum was written; all
    weights together make 1 (but for what lies beyond n).
    """
    n = 2 * max(momentum_horizon(beta, MOST), momentum_horizon(slow_keep, MOST, period) if slow else 1)
    fast = momentum_weights(beta, n)
    if not slow:
        return fast, fast
    block = momentum_weights(slow_keep, n // period + 1) / period  # a period's mean: all its steps alike
    return fast, (fast + alpha * block.repeat_interleave(period)[:n]) / (1 + alpha)


def of_state(state: Any) -> tuple[Tensor, Tensor]:
    return weights(float(state.beta), bool(state.slow), int(state.period), float(state.slow_keep), float(state.alpha))


def reach(w: Tensor, share: float) -> int:
    """How many of the latest gradients make up at least `share`."""
    return int((w.cumsum(0) < share - 1e-12).sum()) + 1


def facts(state: Any) -> dict[str, float]:
    """n50, n99: gradients that make 50 % and 99 % of the fast momentum. step50, step99: of what the step follows.

    newest: weight of the latest gradient in the step. tail: share of the step that is older than the fast n99.
    """
    step = of_state(state)[1]
    n50, n99 = (momentum_horizon(float(state.beta), share) for share in (HALF, MOST))
    return {
        "n50": n50,
        "n99": n99,
        "step50": reach(step, HALF),
        "step99": reach(step, MOST),
        "newest": float(step[0]),
        "tail": 1 - float(step[:n99].sum()),
    }


def alt(state: Any, f: Facts) -> str:
    text = (
        f"Weights of past pushes in a momentum with beta {state.beta:g}, falling with age: the last "
        f"{f['n50']:.0f} make half of it and the last {f['n99']:.0f} make 99 percent."
    )
    if state.slow:
        text += (
            f" A slow momentum adds a staircase tail: together they need {f['step50']:.0f} for half and "
            f"{f['step99']:.0f} for 99 percent."
        )
    return text


def thin(n: int, log: bool, most: int = 1500) -> Tensor:
    """At most `most` of the places 1 .. n, evenly spaced on the axis that is drawn."""
    if n <= most:
        return torch.arange(1, n + 1)
    ends = torch.logspace(0, torch.log10(torch.tensor(float(n))).item(), most) if log else torch.linspace(1, n, most)
    return ends.round().long().clamp(1, n).unique()


def mark(ax: Axes, n: int, share: float, color: str, before: bool) -> None:
    """The place at which the share is reached, with its number: beside the curve, or above its end."""
    ax.plot([n, n], [0, share], color=color, lw=1, ls=":")
    ax.plot([n], [share], marker="o", ms=6, color=color)
    at, side = ((-8, 5), "right") if before else ((8, -4), "left")
    if share == MOST:
        at, side = (4, 7), "right"
    ax.annotate(
        f"{n} make {MARKS[share]}",
        (n, share),
        at,
        textcoords="offset points",
        ha=side,
        color=color,
        fontsize=9.5,
        weight="bold",
        annotation_clip=False,
    )


@view(
    "horizon",
    title="How far back?",
    task="Predict first: how many past pushes make half of the momentum at β = 0.9, at 0.99, at 0.999? Then set the "
    "slider, turn on the logarithmic axis, and add a second, slow momentum. Which pushes does it bring back?",
    answer="Half of it are the last 7 pushes at 0.9, 69 at 0.99 and 693 at 0.999; 99 % are 44, 459 and 4603. One "
    "more nine is ten times the memory: 0.99 is slow and 0.9 is fast. A slow momentum, written every 10 steps "
    "with the mean of the period, adds a tail: half are then 12 pushes, but 99 % are 333, not 44.",
    params=[
        Choice("beta", 0.9, [0.5, 0.8, 0.9, 0.95, 0.99, 0.999], label="β (keep)", slider=True),
        Bool("slow", False, label="second, slow momentum"),
        Bool("log", False, label="logarithmic axis"),
        Choice("period", 10, [2, 5, 10, 20, 50], label="slow period", slider=True),
        Choice("slow_keep", 0.9, [0.5, 0.9, 0.99], label="slow keep", slider=True),
        Float("alpha", 0.5, 0.1, 1.0, step=0.1, label="weight of the slow one"),
    ],
    landmarks={
        "0.9": "beta=0.9",
        "0.99": "beta=0.99",
        "0.999, log axis": "beta=0.999,log=1",
        "0.9 and a slow one": "beta=0.9,slow=1,log=1",
    },
    alt=alt,
    facts=facts,
)
def draw(state: State) -> Figure:
    """The weight of each past gradient, and the share that the last n make together."""
    f, (fast, step) = facts(state), of_state(state)
    shown = int(1.3 * max(f["n99"], f["step99"]))
    n = thin(min(shown, len(step)), state.log)
    fig = figure(9, 3.4, layout=None)
    left, right = fig.add_axes((0.075, 0.16, 0.39, 0.72)), fig.add_axes((0.57, 0.16, 0.39, 0.72))
    slow, quick = COLORS["level3"], COLORS["memory"]
    main = slow if state.slow else quick
    left.fill_between(n, 100 * step[n - 1], step="mid", color=main, alpha=0.25, lw=0)
    left.step(n, 100 * step[n - 1], where="mid", color=main)
    right.plot(n, step.cumsum(0)[n - 1], color=main)
    if state.slow:
        left.step(n, 100 * fast[n - 1], where="mid", color=quick, lw=1, ls="--")
        right.plot(n, fast.cumsum(0)[n - 1], color=quick, lw=1, ls="--")
        left.text(0.97, 0.95, "fast + slow", color=slow, weight="bold", ha="right", va="top", transform=left.transAxes)
        left.text(0.97, 0.86, "dashed: fast alone", color=quick, ha="right", va="top", transform=left.transAxes)
    for share, key in ((HALF, "step50"), (MOST, "step99")):
        mark(right, int(f[key]), share, main, before=state.log and not state.slow)
    ticks: dict[str, Any] = {"xscale": "log"} if state.log else {}
    left.set(
        title="weight of the n-th latest push",
        xlabel="n (1: the newest)",
        ylabel="% of the momentum",
        ylim=(0, None),
        xlim=(1 if state.log else 0, shown),
        **ticks,
    )
    right.set(
        title="share made by the last n",
        xlabel="n",
        ylim=(0, 1.15),
        xlim=left.get_xlim(),
        yticks=[0, 0.5, 0.99],
        yticklabels=["0", "50 %", "99 %"],
        **ticks,
    )
    for ax in (left, right):
        ax.minorticks_off()
    return fig
