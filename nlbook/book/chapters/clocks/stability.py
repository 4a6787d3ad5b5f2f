"""The stability map: period against step. Where does a level that sums C gradients blow up?

A linear level (d = 16, keys of length one) descends the summed squared error of C keys. Its largest stable step is
2 / lambda_max of the sum of k k^T. Every cell of the map is a run of 30 updates; choose one to see it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import anywidget
import numpy as np
import traitlets as tr
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nlbook.book.chapters.clocks.timescales import period_run, stability_border, stability_map
from nlbook.book.viz.picture import JS
from nlbook.book.viz.spec import Facts, view
from nlbook.book.viz.state import Choice, Int, State
from nlbook.book.viz.style import COLORS, book_style, css_size, figure, png

PERIODS = (1, 2, 4, 8, 16, 32, 64, 128)
STEPS = (0.03, 0.06, 0.12, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
UPDATES, SEEDS = 30, 8
CMAP = LinearSegmentedColormap.from_list("stability", [COLORS["value"], "#FFFFFF", COLORS["error"]])
SCALE = Normalize(-2, 2)  # log10 of the error at the end, relative to the start


@lru_cache(maxsize=4)
def grid(seed: int) -> np.ndarray:
    """(periods, steps): log10 of the relative error after the run."""
    return stability_map(PERIODS, STEPS, updates=UPDATES, seeds=SEEDS, seed=seed).log10().numpy()


@lru_cache(maxsize=4)
def borders(seed: int) -> tuple[float, ...]:
    return tuple(stability_border(c, seed=seed) for c in PERIODS)


def facts(state: Any) -> dict[str, float]:
    """border_C: 2 / lambda_max for each period (mean of 200 chunks). border, ratio (step / border), final: of the run.

    final: error after 30 updates, relative to the start (mean of 8 chunks). stable_cells: cells that end below 1.
    """
    edge = dict(zip(PERIODS, borders(state.seed), strict=True))
    run = period_run(state.period, state.step, updates=UPDATES, seeds=SEEDS, seed=state.seed)
    return {
        **{f"border_{c}": b for c, b in edge.items()},
        "border": edge[state.period],
        "ratio": state.step / edge[state.period],
        "final": float(run[-1]),
        "stable_cells": float((grid(state.seed) < 0).sum()),
        "cells": float(grid(state.seed).size),
    }


def verdict(f: Facts) -> str:
    if f["final"] < 0.5:
        return f"it learns: {f['final']:.2g} of the error is left"
    return "it stands still" if f["final"] < 1.5 else f"it diverges: the error has grown {f['final']:.1e} times"


def alt(state: Any, f: Facts) -> str:
    edge = ", ".join(f"{f[f'border_{c}']:.2f} at {c}" for c in (1, 4, 16, 64, 128))
    return (
        f"Map of periods against steps, learning below a border that falls with the period: {edge}. The chosen "
        f"run, period {state.period} and step {state.step:g}, is at {f['ratio']:.2f} of its border; after "
        f"{UPDATES} updates {verdict(f)}."
    )


def paint_run(ax: Axes, state: Any, f: Facts) -> None:
    """Error against updates of the chosen run."""
    run = period_run(state.period, state.step, updates=UPDATES, seeds=SEEDS, seed=state.seed).clamp(1e-6, 1e6)
    good = f["final"] < 1
    ax.axhline(1, color=COLORS["control"], lw=1, ls="--")
    ax.plot(range(UPDATES + 1), run, color=COLORS["value" if good else "error"], marker=".")
    ax.set(yscale="log", ylim=(5e-4, 2e3), xlim=(0, UPDATES), xlabel="updates", ylabel="error, relative to the start")
    ax.set_title(f"C = {state.period}, step {state.step:g}: {f['ratio']:.2f} of the border", fontsize=10)


def run_figure(state: Any, f: Facts) -> Figure:
    fig = figure(4.1, 3.4, layout=None)
    paint_run(fig.add_axes((0.17, 0.15, 0.79, 0.74)), state, f)
    return fig


class Grid(anywidget.AnyWidget):
    """The map as a table of buttons, and the run of the chosen cell; the browser's half is js/grid.js.

    The browser sets `chosen`: a running number, then row and column. The largest step is the top row.
    """

    _esm = JS / "grid.js"
    _css = JS / "grid.css"
    rows: tr.List[Any] = tr.List().tag(sync=True)
    columns: tr.List[Any] = tr.List().tag(sync=True)
    cells: tr.List[Any] = tr.List().tag(sync=True)  # rows of {color, text, label, edge}
    at: tr.List[Any] = tr.List([0, 0]).tag(sync=True)
    row_name = tr.Unicode("step").tag(sync=True)
    column_name = tr.Unicode("period C (tokens per update)").tag(sync=True)
    png = tr.Bytes().tag(sync=True)
    alt = tr.Unicode().tag(sync=True)
    width = tr.Int(410).tag(sync=True)
    chosen: tr.List[Any] = tr.List(tr.Int()).tag(sync=True)

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.show_state(state)

    def show_state(self, state: Any) -> None:
        """Show a state: its map, its cell, its run."""
        f, ends, edge = facts(state), grid(state.seed), borders(state.seed)
        up = list(reversed(STEPS))

        def cell(step: float, i: int) -> dict[str, Any]:
            e = float(ends[i, STEPS.index(step)])
            stable = e < 0
            above = [s for s in STEPS if s <= edge[i]]
            text = "learns" if e < -0.3 else "" if abs(e) <= 0.3 else "diverges"
            return {
                "color": to_hex(CMAP(SCALE(e))),
                "text": "✓" if stable and text else "✗" if text else "",
                "label": f"period {PERIODS[i]}, step {step:g}: {text or 'stands still'}",
                "edge": step == above[-1],
            }

        with book_style():
            fig = run_figure(state, f)
            data = png(fig, small=False)
        with self.hold_sync():
            self.set_trait("rows", [f"{s:g}" for s in up])
            self.set_trait("columns", [str(c) for c in PERIODS])
            self.set_trait("cells", [[cell(s, i) for i in range(len(PERIODS))] for s in up])
            self.set_trait("at", [up.index(state.step), PERIODS.index(state.period)])
            self.set_trait("png", data)
            self.set_trait("width", css_size(fig)[0])
            self.set_trait("alt", f"Error of the chosen run over {UPDATES} updates: {verdict(f)}.")

    def picked(self, state: State) -> State:
        """The state that the browser's last click asks for."""
        _, row, column = self.chosen
        up = list(reversed(STEPS))
        inside = 0 <= row < len(up) and 0 <= column < len(PERIODS)
        return state.replace(step=up[row], period=PERIODS[column]) if inside else state


@view(
    "stability",
    title="Stability map: how large a step does a slow level bear?",
    task="A level of period C adds up the gradients of C tokens and then moves once. At C = 1 its border is a step of "
    "2.0. Where is it at C = 16? Choose cells and watch their runs.",
    answer="At 0.64: 2 / lambda_max of the summed key products. Random keys point partly the same way, so the border "
    "is 2.00, 1.29, 0.64, 0.41, 0.26, 0.15 for C = 1, 4, 16, 32, 64, 128 (d = 16); for long chunks it falls as "
    "2d/C. So with the sum of eq. 71 a slower level needs a smaller step. With the mean of the chunk the border "
    "rises instead, from 2.0 to 19: which of the two is meant matters once a rate is fixed.",
    params=[
        Choice("period", 16, PERIODS, label="period C", slider=True),
        Choice("step", 0.5, STEPS, label="step η", slider=True),
        Int("seed", 0, 0, 9, more=True),
    ],
    landmarks={
        "the same step at C = 1": "period=1,step=0.5",
        "at C = 16": "period=16,step=0.5",
        "at C = 64": "period=64,step=0.5",
        "C = 64, a step that it bears": "period=64,step=0.12",
    },
    alt=alt,
    facts=facts,
    live=lambda state: Grid(state),
)
def draw(state: State) -> Figure:
    """The map with its border, and the run of the chosen cell."""
    f, ends = facts(state), grid(state.seed)
    fig = figure(9, 3.5, layout=None)
    ax = fig.add_axes((0.07, 0.15, 0.42, 0.73))
    ax.imshow(
        ends.T,
        origin="lower",
        aspect="auto",
        cmap=CMAP,
        norm=SCALE,
        extent=(-0.5, len(PERIODS) - 0.5, -0.5, len(STEPS) - 0.5),
    )
    edge = np.interp(np.log(borders(state.seed)), np.log(STEPS), range(len(STEPS)))
    ax.plot(range(len(PERIODS)), edge, color="black", lw=2)
    ax.annotate(
        r"border $2/\lambda_{\max}$",
        (3.2, float(np.interp(3.2, range(8), edge))),
        (4, 6),
        textcoords="offset points",
        fontsize=9,
    )
    x, y = PERIODS.index(state.period), STEPS.index(state.step)
    ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="black", lw=2.4))
    ax.set(xticks=range(len(PERIODS)), yticks=range(len(STEPS)), xlabel="period C (tokens per update)", ylabel="step η")
    ax.set_xticklabels(list(map(str, PERIODS)))
    ax.set_yticklabels([f"{s:g}" for s in STEPS])
    ax.grid(False)
    ax.set_title("green: learns    orange: diverges", fontsize=10)
    paint_run(fig.add_axes((0.6, 0.15, 0.38, 0.73)), state, f)
    return fig


def long_chunk_border(c: int, d: int = 16) -> float:
    """The border for very many random keys of length one: lambda_max is about C/d (1 + sqrt(d/C))^2."""
    return 2 * d / c / (1 + math.sqrt(d / c)) ** 2
