"""Two tasks and a clock: A for a long time, B for a short one, the end of a context. Who still knows A?

Linear levels that add up, y = sum_l W_l x, learn from one squared error; d = 16, mean of 8 seeds. A toy, and its first
result is negative: several rates alone remember no more than one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from matplotlib.figure import Figure

from nlbook.book.chapters.clocks.timescales import TwoTasks, two_tasks
from nlbook.book.viz.spec import Facts, view
from nlbook.book.viz.state import Bool, Choice, Float, Int, Ints, State
from nlbook.book.viz.style import COLORS, figure

LONG, SEEDS = 4096, 8


@lru_cache(maxsize=24)
def run(C: tuple[int, ...], keep: float, short: int, reset: bool, same_rate: bool, seed: int) -> TwoTasks:
    """The run of a state; `same_rate`: every level moves at every step, with the step per token that it had."""
    C = tuple(sorted(C))
    periods, steps = ((1,) * len(C), [0.5 / c for c in C]) if same_rate else (C, None)
    return two_tasks(periods, steps, keep=keep, long=LONG, short=short, reset=reset, seeds=SEEDS, seed=seed, every=32)


def of_state(state: Any) -> TwoTasks:
    return run(tuple(state.C), state.keep, state.short, state.reset, state.same_rate, state.seed)


def facts(state: Any) -> dict[str, float]:
    """a_learned: error on A when it ends; a, b: when B ends; a_after, b_after: after the end of the context.

    share_l: the part of A that level l (1 is the fastest) holds when A ends. Errors: 1 knows nothing, 2 knows B.
    """
    r = of_state(state)
    return {
        "a_learned": r.a_learned,
        "a": r.a,
        "b": r.b,
        "a_after": r.a_reset,
        "b_after": r.b_reset,
        **{f"share_{i + 1}": s for i, s in enumerate(r.share)},
    }


def alt(state: Any, f: Facts) -> str:
    C = sorted(state.C)
    hold = ", ".join(f"{f[f'share_{i + 1}']:.2f} in level {c}" for i, c in enumerate(C))
    end = "after the fast level's reset" if state.reset else "with no reset"
    return (
        f"Errors over time: A for {LONG} steps, B for {state.short}. When A ends it is held as {hold}. The error "
        f"on A is {f['a']:.2f} when B ends and {f['a_after']:.2f} {end}; on B {f['b']:.2f} and {f['b_after']:.2f}."
    )


@view(
    "two_tasks",
    title="Two tasks and a clock: who still knows A?",
    task="The levels learn A for a long time and B for a short one; then the context ends and the fast level is "
    "emptied. Predict which setting still knows A: three rates, or a fast level that forgets? Start from 'rates "
    "alone'.",
    answer="Rates alone change nothing: the fast level learns A before the slow ones have moved, so nothing is left "
    "for them, and B overwrites it: an error of 1.97 with three levels, 1.96 with one. Only when the fast level "
    "forgets (2 % a step) does A sink into the slow levels. B then covers it (1.03) until the fast level is "
    "emptied: 0.10. A long B erases A anyway. And the same step sizes with every level moving at every step "
    "give 0.09: it is the time scale and the forgetting, not the period. Three rates are drawn and two are used: "
    "the middle level holds 0.91 of A, the slow one 0.06.",
    params=[
        Ints("C", (1, 16, 256), 1, 1024, most=4, label="periods C"),
        Float("keep", 0.98, 0.9, 1.0, step=0.01, label="fast level keeps, per step"),
        Choice("short", 256, (64, 256, 1024, 4096), label="length of B", slider=True),
        Bool("reset", True, label="empty the fast level at the end"),
        Bool("same_rate", False, label="all levels at every step (same step size per token)"),
        Int("seed", 0, 0, 9),
    ],
    landmarks={
        "rates alone": "keep=1",
        "one level": "C=1;keep=1",
        "the fast level forgets": "keep=0.98",
        "same steps, no periods": "keep=0.98,same_rate=1",
        "one level that forgets": "C=1;keep=0.98",
        "a long B": "keep=0.98,short=4096",
    },
    twin=["rates alone", "same steps, no periods"],
    alt=alt,
    facts=facts,
)
def draw(state: State) -> Figure:
    """Errors over the last of A, B and the end of the context; beside it, who holds A."""
    f, r = facts(state), of_state(state)
    end = LONG + state.short
    start = LONG - max(256, state.short)
    fig = figure(9, 3.3, layout=None)
    ax = fig.add_axes((0.07, 0.16, 0.56, 0.72))
    seen = r.times >= start
    gap = (end - start) * 0.12
    for curve, after, name in ((r.curve_a, f["a_after"], "A"), (r.curve_b, f["b_after"], "B")):
        color = COLORS["memory" if name == "A" else "value"]
        ax.plot(r.times[seen], curve[seen], color=color)
        ax.plot([end, end + gap], [float(curve[-1]), after], color=color, lw=1, ls=":")
        ax.plot([end + gap], [after], "o", color=color, ms=7, clip_on=False)
    close = abs(f["a_after"] - f["b_after"]) < 0.16
    above = "A" if f["a_after"] >= f["b_after"] else "B"
    for name, after in (("A", f["a_after"]), ("B", f["b_after"])):
        ax.annotate(
            f"on {name}: {after:.2f}",
            (end + gap, after),
            (8, (8 if name == above else -8) if close else 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
            weight="bold",
            annotation_clip=False,
            color=COLORS["memory" if name == "A" else "value"],
        )
    for t in (LONG, end):
        ax.axvline(t, color="black", lw=1, ls=":")
    for x, words in (((start + LONG) / 2, "task A"), ((LONG + end) / 2, "task B")):
        ax.text(x, 2.36, words, ha="center", fontsize=9)
    ax.text(end + gap, 2.36, "end" if not state.reset else "emptied", ha="center", fontsize=9)
    ax.axhline(1, color=COLORS["control"], lw=1, ls="--")
    ax.set(
        xlim=(start, end + gap),
        ylim=(-0.05, 2.5),
        xlabel="step",
        ylabel="relative error",
        yticks=[0, 0.5, 1, 1.5, 2],
        xticks=[start, LONG, end],
    )
    ax.grid(False)
    side = fig.add_axes((0.8, 0.16, 0.19, 0.72))
    C = sorted(state.C)
    shares = [f[f"share_{i + 1}"] for i in range(len(C))]
    side.bar(range(len(C)), shares, color=[COLORS[f"level{min(2 * i + 1, 6)}"] for i in range(len(C))], width=0.6)
    for i, s in enumerate(shares):
        side.annotate(f"{s:.2f}", (i, max(s, 0)), (0, 3), textcoords="offset points", ha="center", fontsize=9)
    side.set(ylim=(0, 1.15), xticks=range(len(C)), yticks=[0, 1], xlim=(-0.6, len(C) - 0.4))
    side.set_xticklabels([f"{c}" for c in C])
    side.set_title("who holds A\nwhen A ends", fontsize=10)
    side.set_xlabel("level of period" if not state.same_rate else "level of step 1/C, C =", fontsize=9)
    side.grid(False)
    return fig
