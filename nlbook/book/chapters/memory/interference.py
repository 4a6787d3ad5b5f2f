"""The interference bench: keys as arrows, what comes back for each key, and which rule tells the pairs apart.

Fifty independent memories (other keys, other values) are written once each; shares are means over them, and the recall
matrix is that of the first. Everything is measured with nlbook.memory when the picture is drawn.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nlbook.book.chapters.memory.curves import answers, score
from nlbook.book.data import recall
from nlbook.book.viz.spec import Facts, view
from nlbook.book.viz.state import Bool, Choice, Float, Int, State
from nlbook.book.viz.style import COLORS, figure

MEMORIES = 50
NAMES = {"hebbian": "Hebb", "delta": "delta", "rls": "best linear"}


@lru_cache(maxsize=32)
def stream(n: int, d: int, rho: float, again: bool, seed: int) -> tuple[recall.Recall, Tensor]:
    """n pairs in each of 50 memories; `again` writes key 1 once more with a new value. And key 1's first value."""
    data = recall.pairs(n, d, rho, batch=MEMORIES, seed=seed)
    first = data.v[:, 0]
    if not again:
        return data, first
    new = recall.values(1, d, batch=MEMORIES, seed=seed + 17)
    target = torch.cat([new, data.v[:, 1:]], 1)
    return recall.Recall(torch.cat([data.k, data.k[:, :1]], 1), torch.cat([data.v, new], 1), data.q, target), first


@lru_cache(maxsize=128)
def asked(rule: str, n: int, d: int, rho: float, again: bool, lr: float, seed: int) -> tuple[Tensor, float, float]:
    """The answers (50, n, d) of `rule`, the share identified and the mean squared error."""
    data, _ = stream(n, d, rho, again, seed)
    y = answers(rule, data, **({} if rule == "rls" else {"lr": lr}))
    return y, *score(y, data.target)


def measure(state: Any, rule: str, lr: float) -> tuple[Tensor, float, float]:
    return asked(rule, state.n, state.d, state.rho, state.again, lr, state.seed)


def bars(state: Any) -> dict[str, tuple[str, float]]:
    """What stands in the bars -> rule and rate: the three rules at rate 1, and delta at the rate of the slider."""
    shown = {NAMES[rule]: (rule, 1.0) for rule in NAMES}
    gentle = {"delta": ("delta", 1.0), f"delta, η = {state.lr:g}": ("delta", state.lr)} if state.lr < 1 else {}
    return {"Hebb": shown["Hebb"], "delta": shown["delta"], **gentle, "best linear": shown["best linear"]}


def facts(state: Any) -> dict[str, float]:
    """identified (and per rule at rate 1): share of keys whose answer is nearest to the right value, over 50 memories.

    error: mean |y - v|^2 / |v|^2. chance: 1/n. overlap: mean cosine of two different keys. rewritten_error: mean
    distance of key 1's answer from its latest value; rewritten_sum: from the sum of both values (0 = the rule adds up).
    """
    data, first = stream(state.n, state.d, state.rho, state.again, state.seed)
    y, share, error = measure(state, state.rule, state.lr)
    gram = data.q @ data.q.mT
    off = (gram.sum((-1, -2)) - state.n) / max(1, state.n * (state.n - 1))
    found = {"identified": share, "error": error, "chance": 1 / state.n, "overlap": float(off.mean())}
    found |= {f"identified_{rule}": measure(state, rule, 1.0)[1] for rule in NAMES}
    if state.again:
        found["rewritten_error"] = float((y[:, 0] - data.target[:, 0]).norm(dim=-1).mean())
        found["rewritten_sum"] = float((y[:, 0] - data.target[:, 0] - first).norm(dim=-1).mean())
    return found


def alt(state: Any, f: Facts) -> str:
    said = (
        f"Arrows for {state.n} keys of width {state.d} with mean overlap {f['overlap']:.2f}, the matrix of how "
        "near each answer is to each value, and bars of the share identified: "
    )
    said += ", ".join(f"{name} {measure(state, *what)[1]:.2f}" for name, what in bars(state).items())
    said += f"; chance {f['chance']:.2f}."
    if state.again:
        said += f" Key 1 was written again: its answer is {f['rewritten_error']:.2f} away from the new value."
    return said


def arrows(ax: Axes, k: Tensor) -> None:
    """Keys (n, d) as arrows in the plane that holds most of them; a narrow fan of long arrows shares a direction."""
    plane = torch.linalg.svd(k, full_matrices=False).Vh[:2]  # (2, d)
    xy = k @ plane.mT
    xy = xy if xy.shape[1] == 2 else torch.cat([xy, torch.zeros_like(xy)], 1)  # one key spans only a line
    xy = xy * torch.where(xy.sum(0) < 0, -1.0, 1.0)
    turn = torch.linspace(0, 2 * torch.pi, 90)
    ax.plot(turn.cos(), turn.sin(), color=COLORS["control"], lw=1)
    faint = max(0.25, 0.6 - len(k) / 80)
    strong: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1}
    zero = torch.zeros(len(k))
    ax.quiver(zero[1:], zero[1:], xy[1:, 0], xy[1:, 1], color=COLORS["key"], alpha=faint, width=0.012, **strong)
    ax.quiver(0, 0, *xy[0].tolist(), color=COLORS["key"], width=0.02, **strong)
    ax.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), xticks=[], yticks=[], aspect="equal")
    ax.grid(False)
    ax.spines[:].set_visible(False)


def matrix(ax: Axes, cosines: Tensor, again: bool) -> None:
    """cosines (n, n or n + 1): answer i against value j, and key 1's old value last. A cross marks a mistake."""
    n = cosines.shape[0]
    ax.imshow(cosines.numpy(), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    best = cosines[:, :n].argmax(-1)
    wrong = [i for i in range(n) if int(best[i]) != i]
    ax.plot([int(best[i]) for i in wrong], wrong, "x", color="black", ms=max(3, 8 - n / 10), mew=1.3)
    if again:
        ax.axvline(n - 0.5, color="black", lw=1)
    ticks = {t: str(t + 1) for t in (0, n - 1)}
    ax.set_yticks(list(ticks), list(ticks.values()))
    ticks |= {n: "old"} if again else {}
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.set(xlabel="value   (red: it comes back; × : taken for another)", ylabel="key asked")
    ax.grid(False)


def shares(ax: Axes, state: Any, f: Facts) -> None:
    rows = bars(state)
    for i, (name, what) in enumerate(rows.items()):
        share, chosen = measure(state, *what)[1], what == (state.rule, 1.0 if state.rule != "delta" else state.lr)
        ax.barh(i, share, height=0.52, color=COLORS["memory"] if chosen else COLORS["control"])
        weight = "bold" if chosen else "normal"
        ax.text(-0.04, i, name, va="center", ha="right", fontsize=9, weight=weight)
        ax.text(share + 0.02, i, f"{share:.2f}", va="center", fontsize=9, weight=weight)
    ax.plot([f["chance"]] * 2, [-0.5, len(rows) - 0.4], color="black", lw=1, ls=":")
    ax.text(f["chance"], -0.52, f"chance {f['chance']:.2f}", fontsize=9, ha="right" if f["chance"] > 0.7 else "left")
    ax.set(xlim=(-0.68, 1.24), xticks=[0, 0.5, 1], ylim=(len(rows) - 0.4, -0.8), yticks=[], title="share identified")
    ax.spines["left"].set_visible(False)
    ax.spines["bottom"].set_bounds(0, 1)


@view(
    "interference",
    title="Interference bench: how many pairs does one matrix hold?",
    task="32 random pairs in width 32. Choose delta, then move its rate from 1 down to 0.1. Which rate tells most pairs "
    "apart? Is it still the best when the keys overlap by 0.5, and what does it answer when one key is written twice?",
    answer="With random keys Hebb identifies 0.99, delta 0.81 at rate 1 and 0.99 at rate 0.1: a full write repairs its "
    "own pair and disturbs the older ones, a gentle one hardly does. With overlap 0.5 a rate between is best: delta 0.38 "
    "at 0.3, against 0.31 at 1 and 0.18 for Hebb. But a key written twice is followed at once at rate 1 only. The best "
    "linear memory shows what one matrix could hold: all 32.",
    params=[
        Int("n", 32, 1, 64, label="pairs n"),
        Choice("rule", "hebbian", list(NAMES), label="rule"),
        Choice("lr", 1.0, [0.1, 0.3, 0.5, 1.0], label="rate η", slider=True),
        Float("rho", 0.0, 0.0, 0.95, step=0.05, label="key overlap ρ"),
        Bool("again", False, label="write key 1 again"),
        Choice("d", 32, [2, 8, 16, 32, 64], label="width d", slider=True),
        Int("seed", 0, 0, 9),
    ],
    landmarks={
        "Hebb, n = d": "rule=hebbian",
        "delta, n = d": "rule=delta",
        "delta, small rate": "rule=delta,lr=0.1",
        "keys overlap": "rule=delta,rho=0.5",
        "keys overlap, small rate": "rule=delta,lr=0.3,rho=0.5",
        "Hebb, key written again": "n=4,again=1",
        "delta, key written again": "n=4,again=1,rule=delta",
    },
    alt=alt,
    facts=facts,
)
def draw(state: State) -> Figure:
    """Three panels: keys, cosines of answers and values, share identified by rule."""
    f = facts(state)
    data, first = stream(state.n, state.d, state.rho, state.again, state.seed)
    y = measure(state, state.rule, state.lr)[0][0]
    candidates = torch.cat([data.target[0], first[:1]]) if state.again else data.target[0]
    cosines = recall.unit(torch.nan_to_num(y) + 1e-30) @ candidates.mT
    fig = figure(9, 3.4, layout=None)
    left, middle, right = fig.subplots(
        1,
        3,
        width_ratios=[1, 1.25, 1],
        gridspec_kw={"left": 0.01, "right": 0.985, "bottom": 0.15, "top": 0.91, "wspace": 0.16},
    )
    arrows(left, data.q[0])
    left.set_title("keys" if state.d == 2 else "keys, seen in a plane")
    left.text(0, -1.12, f"mean overlap {f['overlap']:.2f}; the bold one is key 1", ha="center", va="top", fontsize=9)
    matrix(middle, cosines, state.again)
    middle.set_title(f"{NAMES[state.rule]}: which values come back")
    shares(right, state, f)
    if state.again:
        right.set_xlabel(f"key 1 misses its new value by {f['rewritten_error']:.2f}", fontsize=9)
    else:
        right.set_xlabel(f"mean of {MEMORIES} memories; error {f['error']:.2f}", fontsize=9)
    return fig
