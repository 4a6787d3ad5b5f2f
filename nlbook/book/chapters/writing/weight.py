"""What is this weight made of? The answer W q of a trained weight, taken apart into one bar for each training step.

Gradient descent on ½|W x − y|² is a memory being written: after t steps W q = W₀ q − η Σᵢ δᵢ ⟨xᵢ, q⟩ with the surprise
δᵢ = Wᵢ₋₁ xᵢ − yᵢ (eq. 8, 58). Surprises frozen at the start make the sum linear attention, whose values do not
depend on the state, and give another answer. The bars come from nlbook.memory.dual, the weight from the delta rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import cos, pi, sin
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nlbook import memory
from nlbook.book.viz.spec import Facts, view
from nlbook.book.viz.state import Bool, Choice, Int, State
from nlbook.book.viz.style import COLORS, figure
from nlbook.errors import generator
from nlbook.memory.dual import TrainingTrace, squared_loss, train_linear

STEPS = 24


@dataclass(frozen=True)
class Training:
    """One run: x (STEPS, 2), the true weight (1, 2), W before step i (STEPS + 1, 1, 2), and both ways to sum it up."""

    x: Tensor
    truth: Tensor
    W: Tensor
    real: TrainingTrace
    frozen: TrainingTrace


@lru_cache(maxsize=64)
def train(lr: float, seed: int) -> Training:
    """STEPS pairs (x, truth x), |x| in [0.6, 1.2], all directions, written into a weight that starts at random."""
    g = generator(seed)
    angle = torch.rand(STEPS, generator=g, dtype=torch.float64) * 2 * pi
    length = 0.6 + 0.6 * torch.rand(STEPS, generator=g, dtype=torch.float64)
    x = length[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    truth, start = torch.randn(2, 1, 2, generator=g, dtype=torch.float64)
    y = x @ truth.mT
    rule = memory.make("delta", lr=lr)
    state = rule.init(2, 1, dtype=torch.float64, M0=start)
    weights = [state.M]
    for k, v in zip(x, y, strict=True):
        state = rule.write(state, k, v)
        weights.append(state.M)
    real, frozen = (train_linear(start, x, squared_loss(y), lr, frozen_surprises=f) for f in (False, True))
    return Training(x, truth, torch.stack(weights), real, frozen)


def query(state: Any) -> Tensor:
    a = state.angle * pi / 180
    return torch.tensor([cos(a), sin(a)], dtype=torch.float64)


def bars(trace: TrainingTrace, q: Tensor) -> Tensor:
    """What each part puts into W q: the start weight first, then every step: (STEPS + 1,)."""
    return torch.cat([trace.start @ q, trace.contributions(q)[:, 0]])


def facts(state: Any) -> dict[str, float]:
    """answer: W q after `step` steps. sum_of_bars: of the real bars. gap: |answer - sum_of_bars|. truth: true weight q.

    error: |answer - truth|. frozen_answer: sum of the frozen bars. frozen_gap: |frozen_answer - answer|. *_rms: the
    same over all directions of a unit query; start_error_rms: what there was to learn; ratio: frozen_gap_rms over it.
    """
    run, q, t = train(state.lr, state.seed), query(state), state.step
    real, frozen = (float(bars(trace, q)[: t + 1].sum()) for trace in (run.real, run.frozen))
    answer, truth = float(run.W[t] @ q), float(run.truth @ q)

    def rms(w: Tensor) -> float:  # of w q over unit q in the plane
        return float(w.norm()) / 2**0.5

    start, apart = rms(run.W[0] - run.truth), rms(run.frozen.weight(t) - run.W[t])
    return {
        "answer": answer,
        "sum_of_bars": real,
        "gap": abs(answer - real),
        "truth": truth,
        "error": abs(answer - truth),
        "frozen_answer": frozen,
        "frozen_gap": abs(frozen - answer),
        "error_rms": rms(run.W[t] - run.truth),
        "start_error_rms": start,
        "frozen_gap_rms": apart,
        "ratio": apart / start,
    }


def alt(state: Any, f: Facts) -> str:
    shown = "frozen at the start" if state.freeze else "as they came"
    return (
        f"One bar for each of {state.step} training steps, with surprises {shown}. The bars of real training sum "
        f"to the answer {f['answer']:.2f} (truth {f['truth']:.2f}); with frozen surprises they sum to "
        f"{f['frozen_answer']:.2f}."
    )


def plane(ax: Axes, run: Training, q: Tensor, state: Any) -> None:
    """The inputs as dots, larger where the weight was more surprised, and the query as an arrow."""
    size, t = (run.frozen if state.freeze else run.real).surprises[:, 0].abs(), state.step
    ax.axhline(0, color=COLORS["grid"], lw=0.8)
    ax.axvline(0, color=COLORS["grid"], lw=0.8)
    ax.scatter(run.x[t:, 0], run.x[t:, 1], s=14, facecolor="none", edgecolor=COLORS["control"])
    ax.scatter(run.x[:t, 0], run.x[:t, 1], s=12 + 160 * size[:t], color=COLORS["key"], alpha=0.55, lw=0)
    ax.quiver(0, 0, *q.tolist(), color=COLORS["query"], angles="xy", scale_units="xy", scale=1, width=0.025)
    x, y = (1.2 * q).tolist()
    ax.text(x, y, "q", color="black", weight="bold", ha="center", va="center", fontsize=11)
    ax.set(xlim=(-1.35, 1.35), ylim=(-1.35, 1.35), xticks=[], yticks=[], aspect="equal", title="inputs xᵢ and query q")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    when = "at the start" if state.freeze else "when it came"
    ax.text(0, -1.4, f"dot size: surprise |δᵢ| {when}", ha="center", va="top", fontsize=9, color=COLORS["key"])


def ends(ax: Axes, marks: list[tuple[float, str, str]]) -> None:
    """Texts beside the right end of the axes at these heights, moved apart where they would overlap."""
    low, high = ax.get_ylim()
    ax.set_ylim(low, high)
    apart, at = 0.19 * (high - low), -float("inf")
    for y, text, color in sorted(marks):
        at = max(y, at + apart)
        ax.text(STEPS + 1.2, at, f"{text} {y:.2f}", color=color, va="center", fontsize=9.5, weight="bold")


@view(
    "weight",
    title="What is this weight made of?",
    task="Every bar is one training step: how like the query its input was, times how surprised the weight was. "
    "Predict: had each step used the surprises of the untrained weight, would the bars add up to the same answer?",
    answer="No. The bars of real training add up to the answer exactly, because each surprise was measured on the "
    "weight of its moment and shrinks as the weight learns. Frozen at the start, every step pays the first "
    "error again and the sum overshoots the truth. Training is a memory whose values depend on its state; it "
    "is not linear attention over the data.",
    params=[
        Int("step", STEPS, 0, STEPS, label="training step"),
        Int("angle", 40, 0, 350, step=10, label="query angle °"),
        Bool("freeze", False, label="freeze surprises at start"),
        Choice("lr", 0.5, [0.1, 0.2, 0.5, 1.0], label="rate η", slider=True),
        Int("seed", 0, 0, 9),
    ],
    landmarks={
        "before training": "step=0",
        "three steps": "step=3",
        "trained": f"step={STEPS}",
        "trained, frozen surprises": "freeze=1",
        "small rate": "lr=0.1",
    },
    alt=alt,
    facts=facts,
)
def draw(state: State) -> Figure:
    """The plane, the bars, and their running sums."""
    f, run, q = facts(state), train(state.lr, state.seed), query(state)
    t, steps = state.step, range(STEPS + 1)
    live, frozen = bars(run.real, q).numpy(), bars(run.frozen, q).numpy()
    fig = figure(9, 3.6, layout=None)
    left = fig.add_axes((0.01, 0.1, 0.32, 0.8))
    top = fig.add_axes((0.4, 0.58, 0.45, 0.33))
    low = fig.add_axes((0.4, 0.13, 0.45, 0.33), sharex=top)
    plane(left, run, q, state)
    shown, other = (frozen, live) if state.freeze else (live, frozen)
    color, ghost = (COLORS["error"], COLORS["memory"]) if state.freeze else (COLORS["memory"], COLORS["error"])
    top.bar(steps[: t + 1], other[: t + 1], facecolor="none", edgecolor=ghost, lw=0.9, width=0.8)
    top.bar(steps[: t + 1], shown[: t + 1], color=color, width=0.6)
    top.axhline(0, color="#555555", lw=0.8)
    top.set(title="what each step puts into the answer", xlim=(-0.8, STEPS + 0.8), ylim=(-0.65, 2.65 * state.lr + 0.1))
    top.tick_params(labelbottom=False)
    low.axhline(f["truth"], color=COLORS["truth"], lw=1, ls="--")
    low.plot(steps[: t + 1], other.cumsum()[: t + 1], color=ghost, lw=1, marker=".", ms=4)
    low.plot(steps[: t + 1], shown.cumsum()[: t + 1], color=color, lw=2, marker=".", ms=6)
    low.set(
        title="running sum: the answer W q",
        ylim=(-1.1 * state.lr - 0.5, 22 * state.lr + 0.5),
        xlabel="training step (0: the start weight)",
    )
    ends(
        low,
        [
            (f["answer"], "real", COLORS["memory"]),
            (f["truth"], "truth", COLORS["truth"]),
            (f["frozen_answer"], "frozen", COLORS["error"]),
        ],
    )
    return fig
