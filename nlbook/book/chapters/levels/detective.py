"""The level detective: put the parts of a model into lanes; the order of Definition 2 says which arrow breaks.

Each part has a clue: how often it is updated, and whose state of the same time it needs. Lanes go from slow (below) to
fast (above). The verdict is `nlbook.levels.NestedSystem.violations` on what lies in the lanes; nothing is looked up.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import anywidget
import traitlets as tr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from nlbook.book.viz.picture import JS
from nlbook.book.viz.spec import Facts, view
from nlbook.book.viz.state import Choice, Ints, State
from nlbook.book.viz.style import COLORS, figure
from nlbook.levels.order import INF, Component, NestedSystem, Violation

LANES, PARTS, L = 5, 7, 512
SEQUENCE = f"sequence of {L} tokens"
KIND_COLORS = {
    "weights": COLORS["memory"],
    "initial state": COLORS["objective"],
    "optimizer state": COLORS["rate"],
    "fast state": COLORS["value"],
    "non-parametric": COLORS["query"],
    "frozen": COLORS["baseline"],
}


def part(name: str, frequency: int | float | Fraction, kind: str, clue: str, needs: str = "") -> Component:
    return Component(name, frequency, needs=frozenset(needs.split()), kind=kind, note=clue)


@lru_cache
def system(name: str) -> NestedSystem:
    """The model of this name; each component's note is its clue."""
    step = "moved once per optimizer step, by this step's m_t and v_t"
    held = "an outer weight like W_k, " + step
    tokens = part("M_t", L, "fast state", "written by every token; starts again from W_init in each sequence")
    seen = part(
        "attention",
        INF,
        "non-parametric",
        "keeps the pairs themselves, which are data, and fits nothing: computed anew from them at each token",
    )
    moments = [
        part("m_t", 1, "optimizer state", "mean of gradients, renewed once per step, before the weights move"),
        part("v_t", 1, "optimizer state", "mean of squared gradients, renewed once per step; ignores m_t"),
    ]
    if name == "pair":
        return NestedSystem([part("W_k", 1, "weights", "moved once per optimizer step"), tokens], SEQUENCE)
    if name == "layer":
        both = "m_t v_t"
        return NestedSystem(
            [
                part("W_k", 1, "weights", step, both),
                tokens,
                *moments,
                seen,
                part("MLP", 1, "weights", step, both),
                part("W_init", 1, "initial state", held, both),
            ],
            SEQUENCE,
        )
    if name == "deployed":  # the same layer after pre-training: no optimizer any more
        still = "no optimizer any more: never moved"
        return NestedSystem(
            [
                part("W_k", 0, "frozen", still),
                tokens,
                seen,
                part("MLP", 0, "frozen", still),
                part("W_init", 0, "frozen", still),
            ],
            SEQUENCE,
        )
    if name == "momentum":
        return NestedSystem(
            [
                part("W", 1, "weights", "moved once per step, by this step's m_t", "m_t"),
                part("m_t", 1, "optimizer state", "renewed once per step from the gradient at the old W"),
                part("b", 1, "weights", "moved once per step by plain SGD, without momentum"),
            ],
            "optimizer step",
        )
    return NestedSystem(
        [  # "M3": eq. 75
            part("W", 1, "weights", "moved once per step, by this step's m1 and v, and by m2 as it was left", "m1 v"),
            part("m1", 1, "optimizer state", "fast momentum, renewed once per step"),
            part("v", 1, "optimizer state", "second moment, renewed once per step"),
            part("m2", Fraction(1, 8), "optimizer state", "slow momentum, renewed once in 8 steps"),
        ],
        "optimizer step",
    )


SYSTEMS = {
    "pair": "1. two parts",
    "momentum": "2. a momentum",
    "layer": "3. a whole layer",
    "deployed": "4. after pre-training",
    "M3": "5. a slow momentum",
}
"""The steps of the game: model -> its button."""


@dataclass(frozen=True)
class Case:
    """A claimed order of the model `name`, judged. `lanes[part]` is 0 for a part that lies in the tray; `levels` are the lanes in use."""

    name: str
    system: NestedSystem
    lanes: dict[str, int]
    levels: list[list[str]]
    violations: list[Violation]

    @property
    def tray(self) -> list[str]:
        return [n for n, lane in self.lanes.items() if not lane]

    @property
    def solved(self) -> bool:
        return not self.violations and not self.tray

    @property
    def names_in_trouble(self) -> set[str]:
        return {n for v in self.violations for n in (v.slow, v.fast)}

    def label(self, lane: int) -> str:
        """Empty lanes do not count: level 1 is the slowest lane in use."""
        used = sorted({x for x in self.lanes.values() if x})
        return f"level {used.index(lane) + 1}" if lane in used else "empty lane"

    def verdict(self) -> str:
        """One sentence: solved, what is missing, or how much is broken."""
        if self.solved:
            steps = [*SYSTEMS.values(), ""]
            following = steps[steps.index(SYSTEMS[self.name]) + 1]
            done = f"Solved: {len(self.levels)} levels, no arrow broken."
            return f"{done} Go on with {following}." if following else done
        broken = len(self.violations)
        said = (
            f"{broken} arrow{'s' * (broken != 1)} broken."
            if any(v.kind != "tie" for v in self.violations)
            else ("No arrow is broken, but a part sits deeper than it has to." if broken else "")
        )
        left = f"{len(self.tray)} part{'s' * (len(self.tray) != 1)} still in the tray." if self.tray else ""
        return " ".join(x for x in (said, left) if x)

    def messages(self, most: int = 3) -> list[str]:
        """What breaks, in words, the first `most` of them."""
        more = len(self.violations) - most
        return [str(v) for v in self.violations[:most]] + ([f"... and {more} more."] if more > 0 else [])


def judge(state: Any) -> Case:
    """The order that the lanes claim, judged by Definition 2. A list that does not fit the model: all in the tray."""
    s = system(state.system)
    names = [c.name for c in s.components]
    lanes = dict(zip(names, state.lanes if len(state.lanes) == len(names) else [0] * len(names)))
    levels = [group for i in range(1, LANES + 1) if (group := [n for n in names if lanes[n] == i])]
    wrong = [v for v in s.violations(levels) if v.kind != "missing"]
    return Case(state.system, s, lanes, levels, wrong)


def solution(name: str) -> tuple[int, ...]:
    """The lane of each part in the true order."""
    s = system(name)
    return tuple(s.level(c.name) for c in s.components)


def often(c: Component, unit: str) -> str:
    assert c.frequency is not None
    short = "sequence" if unit == SEQUENCE else unit.removeprefix("optimizer ")
    if c.frequency == INF:
        return "nothing fitted"
    if c.frequency == 0:
        return "never updated"
    return f"{c.frequency} per {short}" if c.frequency >= 1 else f"once in {1 / Fraction(c.frequency)} {short}s"


def facts(state: Any) -> dict[str, float]:
    """arrows: pairs that the order ranks; broken and ties: what is wrong; levels: of the claim; true_levels."""
    case = judge(state)
    names = [c.name for c in case.system.components]
    return {
        "parts": len(names),
        "placed": len(names) - len(case.tray),
        "arrows": sum(case.system.faster(a, b) for a in names for b in names),
        "broken": sum(v.kind != "tie" for v in case.violations),
        "ties": sum(v.kind == "tie" for v in case.violations),
        "levels": len(case.levels),
        "true_levels": len(case.system.levels),
        "solved": float(case.solved),
    }


def alt(state: Any, f: Facts) -> str:
    case = judge(state)
    lanes = "; ".join(f"level {i}: {', '.join(g)}" for i, g in enumerate(case.levels, 1)) or "nothing placed yet"
    first = f" {case.messages(1)[0]}." if case.violations else ""
    tray = f" In the tray: {', '.join(case.tray)}." if case.tray else ""
    return f"Level detective, lanes from slow to fast: {lanes}.{tray} {case.verdict()}{first}"


def describe(state: Any, f: Facts) -> str:
    case = judge(state)
    clues = " ".join(f"{c.name} ({often(c, case.system.unit)}): {c.note}." for c in case.system.components)
    return f"{alt(state, f)} Clues: {clues} All that breaks: {' '.join(map(str, case.violations)) or 'nothing'}."


# ---- the still picture ----------------------------------------------------------------------------------------------
def pretty(name: str) -> str:
    """W_k as mathematics; a word stays a word."""
    head, low, tail = name.partition("_")
    return rf"${head}_{{\mathrm{{{tail}}}}}$" if low and len(head) == 1 else name


def chip(ax: Axes, x: float, y: float, c: Component, unit: str, trouble: bool) -> None:
    color = KIND_COLORS[c.kind]
    ax.add_patch(
        FancyBboxPatch(
            (x - 0.54, y - 0.3),
            1.08,
            0.6,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor="white",
            edgecolor=COLORS["error"] if trouble else color,
            lw=2.6 if trouble else 1.6,
            zorder=3,
        )
    )
    ax.text(x, y + 0.09, pretty(c.name), ha="center", va="center", color=color, weight="bold", fontsize=11, zorder=4)
    ax.text(x, y - 0.17, often(c, unit), ha="center", va="center", color="#333333", fontsize=8, zorder=4)


def paint(case: Case) -> Figure:
    """Lanes with their parts, the broken arrows in red, the tray below, the verdict and its reasons at the foot."""
    lines = [line for m in case.messages(2) for line in wrapped(m)]
    rows, foot = LANES + 1, 0.35 + 0.19 * (1 + len(lines))
    high = 0.62 * rows + foot
    fig = figure(9, high, layout=None)
    ax = fig.add_axes((0.0, foot / high, 1.0, 1 - foot / high))
    by_name = {c.name: c for c in case.system.components}
    spot: dict[str, tuple[float, float]] = {}
    for lane in range(LANES, -1, -1):
        group = [n for n, at in case.lanes.items() if at == lane]
        shade = "#F4F4F4" if lane == 0 else "white"
        ax.axhspan(lane - 0.48, lane + 0.48, xmin=0.01, xmax=0.99, facecolor=shade, edgecolor=COLORS["grid"], zorder=0)
        label = "tray" if lane == 0 else case.label(lane)
        ax.text(0.2, lane, label, va="center", fontsize=10, color="#333333", weight="bold" if group else "normal")
        for i, n in enumerate(group):
            spot[n] = (1.75 + 1.14 * i, lane)
            chip(ax, *spot[n], by_name[n], case.system.unit, n in case.names_in_trouble)
    for v in case.violations:
        if v.kind in ("arrow", "together"):
            (x0, y0), (x1, y1) = spot[v.slow], spot[v.fast]
            bend = 0.35 if y0 == y1 else 0.0
            ax.add_patch(
                FancyArrowPatch(
                    (x0, y0 + (0.3 if y1 >= y0 else -0.3)),
                    (x1, y1 + (0.3 if y0 == y1 else -0.3 if y1 > y0 else 0.3)),
                    arrowstyle="-|>",
                    mutation_scale=11,
                    lw=1.3,
                    color=COLORS["error"],
                    connectionstyle=f"arc3,rad={bend}",
                    zorder=5,
                    alpha=0.8,
                )
            )
    ax.text(9.15, LANES + 0.3, "fast", ha="right", va="center", fontsize=9, color="#555555")
    ax.text(9.15, 0.68, f"slow (unit: one {case.system.unit})", ha="right", va="center", fontsize=9, color="#555555")
    ax.set(xlim=(0, 9.3), ylim=(-0.55, LANES + 0.55))
    ax.set_axis_off()
    good = COLORS["value"] if case.solved else COLORS["error"] if case.violations else "#333333"
    y = (foot - 0.16) / high
    fig.text(0.02, y, case.verdict() or "Put the parts into lanes.", fontsize=10.5, weight="bold", color=good, va="top")
    fig.text(0.02, y - 0.24 / high, "\n".join(lines), fontsize=9, color="#333333", va="top", linespacing=1.35)
    return fig


def wrapped(text: str, width: int = 118) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, subsequent_indent="   ")


# ---- the live board -------------------------------------------------------------------------------------------------
class Board(anywidget.AnyWidget):
    """Parts to drag into lanes, or to move with the arrow keys; the browser's half is js/detective.js.

    The browser sets `chosen`, a running number and then a lane a part; the picture redraws, and the verdict comes back
    in the other traits.
    """

    _esm = JS / "detective.js"
    _css = JS / "detective.css"
    parts: tr.List[Any] = tr.List().tag(sync=True)  # name, kind, color, often, clue, lane, trouble
    labels: tr.List[Any] = tr.List().tag(sync=True)  # of lanes 1 ... LANES
    verdict = tr.Unicode().tag(sync=True)
    messages: tr.List[Any] = tr.List().tag(sync=True)
    arrows: tr.List[Any] = tr.List().tag(sync=True)  # broken ones: [slow, fast]
    solved = tr.Bool(False).tag(sync=True)
    unit = tr.Unicode().tag(sync=True)
    chosen: tr.List[Any] = tr.List(tr.Int()).tag(sync=True)

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.show_state(state)

    def show_state(self, state: Any) -> None:
        """Show a state and what Definition 2 says about it."""
        case = judge(state)
        with self.hold_sync():
            self.set_trait(
                "parts",
                [
                    {
                        "name": c.name,
                        "kind": c.kind,
                        "color": KIND_COLORS[c.kind],
                        "often": often(c, case.system.unit),
                        "clue": c.note,
                        "lane": case.lanes[c.name],
                        "trouble": c.name in case.names_in_trouble,
                    }
                    for c in case.system.components
                ],
            )
            self.set_trait("labels", [case.label(i) for i in range(1, LANES + 1)])
            self.set_trait("verdict", case.verdict())
            self.set_trait("messages", case.messages())
            self.set_trait("arrows", [[v.slow, v.fast] for v in case.violations if v.kind in ("arrow", "together")])
            self.set_trait("solved", case.solved)
            self.set_trait("unit", case.system.unit)

    def picked(self, state: State) -> State:
        """The state that the browser's last move asks for."""
        return state.replace(lanes=tuple(self.chosen[1:]))


@view(
    "detective",
    title="Level detective: who is faster than whom?",
    task="Take the steps in turn. Put every part into a lane, the slowest at the bottom, until no arrow is broken.",
    answer="A whole layer has four levels: {W_k, MLP, W_init} < {m_t, v_t} < {M_t} < {attention}. The moments are updated as often as "
    "the weights, but the new weights need this step's moments: rule 2 puts both one level faster. m_t and v_t "
    "do not need each other, so they share a level. After pre-training ('deployed') the optimizer is gone and "
    "three levels are left; without M_t only the two ends would be. In M3 the slow momentum m2 is slower than "
    "the weights.",
    params=[
        Choice("system", "layer", list(SYSTEMS), label="model", more=True),
        Ints("lanes", (0,) * PARTS, 0, LANES, least=1, most=PARTS, label="lanes (0: tray)", more=True),
    ],
    landmarks={
        **{step: f"system={name}" for name, step in SYSTEMS.items()},
        "momentum below the weights": "lanes=2,3,1,1,4,2,2",
        "the layer, solved": "lanes=1,3,2,2,4,1,1",
    },
    alt=alt,
    facts=facts,
    describe=describe,
    live=lambda state: Board(state),
)
def draw(state: State) -> Figure:
    """Lanes, parts, broken arrows, verdict."""
    return paint(judge(state))
