"""The attention dial: pairs on a line, one question, and how sharply the answer looks at the nearest keys.

The exact answer is the weighted mean of eq. 62-63 from nlbook.attention, with the Gaussian kernel that softmax becomes
for unit keys. The blurred one is a linear memory (nlbook.memory) with D features: bumps on a grid, which multiply out
to the same Gaussian as long as it is wider than their spacing, or elu + 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nlbook import attention, memory
from nlbook.book.chapters.attention import costs
from nlbook.book.viz.spec import Facts, view
from nlbook.book.viz.state import Choice, Float, Int, State
from nlbook.book.viz.style import COLORS, end_label, figure
from nlbook.errors import generator
from nlbook.memory.matrix import elu1

LONGEST = 256
FEATURES = {"softmax": 0, "64 bumps": 64, "16 bumps": 16, "4 bumps": 4, "elu+1": 2}  # numbers that a key becomes
WINDOWS = ["all", "64", "16", "4", "1"]


def truth(x: Tensor) -> Tensor:
    """What the values follow: a wave with a step at 0.3."""
    return 0.7 * torch.sin(4 * x) + (x > 0.3).to(x)


@lru_cache(maxsize=32)
def stream(tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    """keys (tokens, 1), anywhere in [-1, 1], in random order; values (tokens, 1), with noise."""
    g = generator(seed)
    k = 2 * torch.rand(LONGEST, 1, generator=g, dtype=torch.float64) - 1
    v = truth(k) + 0.12 * torch.randn(LONGEST, 1, generator=g, dtype=torch.float64)
    return k[:tokens], v[:tokens]


def feature_map(name: str, temperature: float) -> Callable[[Tensor], Tensor]:
    """phi: (..., 1) -> (..., D). Bumps of the temperature's width, but never narrower than their spacing."""
    if name == "elu+1":
        return lambda x: elu1(torch.cat([x, -x], -1))
    centres = torch.linspace(-1, 1, FEATURES[name], dtype=torch.float64)
    width = max(temperature, float(centres[1] - centres[0]) ** 2)
    return lambda x: torch.exp(-(x - centres).square() / width)


@dataclass(frozen=True)
class Reading:
    """What a memory answers along the whole line, and at the query: how much each pair counted there."""

    curve: Tensor
    answer: float
    weights: Tensor
    seen: int
    floats: int


GRID = torch.linspace(-1, 1, 201, dtype=torch.float64)[:, None]


@lru_cache(maxsize=128)
def ask(feature: str, temperature: float, window: str, query: float, tokens: int, seed: int) -> Reading:
    """Everything at one setting. A sum of all pairs cannot let go of one: the window moves the cache alone."""
    k, v = stream(tokens, seed)
    q = torch.cat([GRID, torch.tensor([[query]], dtype=torch.float64)])
    if feature == "softmax":
        c = tokens if window == "all" else min(int(window), tokens)
        w = attention.attention_weights(q, k[-c:], temperature=temperature, kernel="gaussian")
        y, floats = w @ v[-c:], costs.cost("softmax", c, 1).floats
        return Reading(y[:-1, 0], float(y[-1]), w[-1], c, floats)
    phi = feature_map(feature, temperature)
    linear = memory.make("hebbian", phi=phi)  # values and ones: the sum of the weights is kept beside the answer
    state = linear.write_all(k, torch.cat([v, torch.ones_like(v)], -1))
    y = linear.read(state, q)
    w = phi(q[-1]) @ phi(k).mT
    return Reading(y[:-1, 0] / y[:-1, 1], float(y[-1, 0] / y[-1, 1]), w / w.sum(), tokens, state.floats())


def reading(state: Any, **change: Any) -> Reading:
    names = ("feature", "temperature", "window", "query", "tokens", "seed")
    return ask(*(change.get(name, getattr(state, name)) for name in names))


def facts(state: Any) -> dict[str, float]:
    """answer: at the query. nearest: the value of the nearest key in sight. mean: of all values in sight.

    effective: one over the sum of squared weights, "how many pairs answer". seen: pairs in sight. floats: kept after
    these tokens, floats_cache and floats_later: by the full cache, and by this memory after 256. blur: rms distance
    along the line from exact attention at this temperature without a window. error: rms distance from the truth.
    """
    r, exact = reading(state), reading(state, feature="softmax", window="all")
    k, v = stream(state.tokens, state.seed)
    k, v = k[-r.seen :], v[-r.seen :]
    return {
        "answer": r.answer,
        "nearest": float(v[(k - state.query).abs().argmin()]),
        "mean": float(v.mean()),
        "effective": 1 / float(r.weights.square().sum()),
        "seen": r.seen,
        "floats": r.floats,
        "floats_cache": costs.cost("softmax", state.tokens, 1).floats,
        "floats_later": reading(state, tokens=LONGEST).floats,
        "blur": float((r.curve - exact.curve).square().mean().sqrt()),
        "error": float((r.curve - truth(GRID[:, 0])).square().mean().sqrt()),
    }


def alt(state: Any, f: Facts) -> str:
    what = "softmax attention" if state.feature == "softmax" else f"a linear memory with {state.feature}"
    return (
        f"{state.tokens} pairs on a line and the answer of {what} at temperature {state.temperature:g}: at the "
        f"query {f['answer']:.2f}, where the nearest key has {f['nearest']:.2f} and the mean is {f['mean']:.2f}. "
        f"About {f['effective']:.1f} pairs answer. It keeps {f['floats']:.0f} floats, the full cache "
        f"{f['floats_cache']:.0f}."
    )


def line(ax: Axes, state: Any, f: Facts) -> None:
    """The pairs, as large as they count, and the answer for every query."""
    r, (k, v) = reading(state), stream(state.tokens, state.seed)
    gone = state.tokens - r.seen
    ax.plot(GRID, truth(GRID), color=COLORS["truth"], lw=1, ls=":")
    ax.scatter(k[:gone], v[:gone], s=14, facecolor="none", edgecolor=COLORS["control"], lw=0.7)
    share = (r.weights / r.weights.max()).numpy()
    ax.scatter(k[gone:], v[gone:], s=10 + 110 * share, color=COLORS["value"], alpha=0.55, lw=0)
    ax.scatter(
        k[gone:], v[gone:], s=14, facecolor="none", edgecolor=COLORS["value"], lw=0.8, zorder=3
    )  # seen at any weight
    if state.feature != "softmax":
        exact = reading(state, feature="softmax", window="all").curve
        ax.plot(GRID, exact, color=COLORS["softmax"], lw=1, ls="--")
    ax.plot(GRID, r.curve, color=COLORS["memory"], lw=2)
    ax.axvline(state.query, color=COLORS["query"], lw=1.5)
    ax.plot([state.query], [r.answer], "o", color=COLORS["memory"], ms=9, mec="white", mew=1.5, zorder=5)
    ignored = state.feature != "softmax" and state.window != "all"
    ax.set(
        xlim=(-1.02, 1.02),
        ylim=(-1.35, 2.1),
        xticks=[-1, -0.5, 0, 0.5, 1],
        yticks=[-1, 0, 1, 2],
        ylabel="value",
        xlabel="no window here: a sum cannot let go of one pair" if ignored else "key (upright line: the query)",
        title=f"answer {f['answer']:.2f}: about {f['effective']:.1f} of {r.seen} pairs speak",
    )


def counter(ax: Axes, state: Any, f: Facts) -> None:
    """Floats of state against tokens: this memory bold, the others thin."""
    t = [1, LONGEST]
    ax.plot(t, [3 * x for x in t], color=COLORS["softmax"], lw=1.2)
    end_label(ax, LONGEST, 3 * LONGEST, "full cache", COLORS["softmax"])
    chosen, linear = int(f["floats"]), state.feature != "softmax"
    if linear:
        ax.plot(t, [chosen] * 2, color=COLORS["memory"], lw=2.5)
        end_label(ax, LONGEST, chosen, state.feature, COLORS["memory"])
    else:
        most = LONGEST if state.window == "all" else int(state.window)
        ax.plot([1, most, LONGEST], [3, 3 * most, 3 * most], color=COLORS["memory"], lw=2.5)
        if most < LONGEST:
            end_label(ax, LONGEST, 3 * most, f"window {most}", COLORS["memory"])
    ax.plot([state.tokens], [chosen], "o", color=COLORS["memory"], ms=8, mec="white", mew=1.5)
    ax.set(
        xlim=(0, LONGEST),
        ylim=(0, 3.15 * LONGEST),
        xticks=[0, 128, 256],
        yticks=[0, 384, 768],
        xlabel="tokens seen",
        title=f"floats kept: {chosen}",
    )


@view(
    "dial",
    title="Attention dial: how sharply does it look?",
    task="Predict the answer at temperature 0 and at temperature inf, then turn the dial to both ends and back to 0.01. "
    "Raise the number of tokens and watch the counter. The feature maps are for later in the chapter: with 64, 16 and 4 "
    "bumps, what stays, and what is lost?",
    answer="At temperature 0 one pair answers, the nearest key's; at infinity all pairs speak alike and every query "
    "gets the mean. In between the temperature is a trade: too cold repeats the noise, too hot wipes out the "
    "step. The cache grows by 3 floats a token, up to the window if there is one; a linear memory keeps the "
    "same floats for ever, and no temperature makes it sharper than its features: 64 bumps "
    "follow exact attention, 4 blur the step away.",
    params=[
        Choice("temperature", 0.01, [0.0, 0.001, 0.01, 0.03, 0.1, 1.0, 10.0, inf], slider=True),
        Choice("window", "all", WINDOWS),
        Choice("feature", "softmax", list(FEATURES), label="feature map"),
        Float("query", 0.5, -1.0, 1.0, step=0.05),
        Choice("tokens", 64, [4, 16, 64, 128, 256], slider=True),
        Int("seed", 0, 0, 9),
    ],
    landmarks={
        "cold: the nearest key": "temperature=0.0",
        "hot: the mean": "temperature=inf",
        "window of 4": "window=4",
        "16 bumps": "feature=16 bumps",
        "4 bumps": "feature=4 bumps",
        "elu + 1": "feature=elu+1",
        "long": "tokens=256",
    },
    alt=alt,
    facts=facts,
)
def draw(state: State) -> Figure:
    """The line of pairs with the answer for every query, and the counter of floats."""
    f = facts(state)
    fig = figure(9, 3.6, layout=None)
    line(fig.add_axes((0.065, 0.145, 0.54, 0.765)), state, f)
    counter(fig.add_axes((0.68, 0.145, 0.21, 0.765)), state, f)
    return fig
