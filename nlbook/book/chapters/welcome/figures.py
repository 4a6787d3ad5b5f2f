"""The axis of update frequency: which part of a model is written how often, while it is in use."""

from __future__ import annotations

from math import log10

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from nlbook.book.chapters.hope.talker import CONFIG
from nlbook.book.viz import COLORS, figure

NEVER = -4.6  # where "never" stands on an axis of powers of ten


def places() -> dict[str, list[tuple[str, float]]]:
    """Model -> its parts, each with how many times a token it is written while the model is used (0: never)."""
    return {
        "Transformer": [("all weights", 0.0), ("context", 1.0)],
        "small Hope": [
            ("other weights", 0.0),
            *((f"level, once in {p} tokens", 1 / p) for p in CONFIG.periods),
            ("fast memories", 1.0),
        ],
    }


def at(frequency: float) -> float:
    """Where an update frequency stands on the axis."""
    return log10(frequency) if frequency else NEVER


def frequency_axis() -> Figure:
    """One line a model, its parts placed by how often they are written; the gap of the Transformer is hatched."""
    fig = figure(7, 3.1)
    ax = fig.subplots()
    for y, (model, parts) in zip((1.0, 0.0), places().items(), strict=True):
        ax.plot([NEVER, 0], [y, y], color=COLORS["grid"], lw=6, zorder=0, solid_capstyle="round")
        ax.text(NEVER - 0.75, y, model, ha="right", va="center", weight="bold")
        for name, frequency in parts:
            color = COLORS["frozen"] if not frequency else COLORS["level1" if frequency == 1 else "level3"]
            ax.plot(at(frequency), y, "o", ms=13, color=color)
            ax.annotate(name, (at(frequency), y), (0, 12), textcoords="offset points", ha="center", fontsize=9)
    gap = FancyBboxPatch(
        (-3.7, 0.84), 3.2, 0.32, boxstyle="round,pad=0.02", fc="white", ec=COLORS["error"], hatch="///"
    )
    ax.add_patch(gap)
    ax.text(
        -2.1,
        1.0,
        "nothing in between",
        ha="center",
        va="center",
        color=COLORS["error"],
        bbox={"fc": "white", "ec": "none", "pad": 2},
    )
    words = {
        NEVER: "never",
        -3.0: "once in\n1,000 tokens",
        -2.0: "once in\n100",
        -1.0: "once in\n10",
        0.0: "every\ntoken",
    }
    ax.set_xticks(list(words), list(words.values()))
    ax.set(
        xlim=(NEVER - 0.7, 0.7),
        ylim=(-0.35, 1.5),
        yticks=[],
        xlabel="how often a part is written while the model is used",
    )
    ax.grid(False)
    ax.spines["left"].set_visible(False)
    return fig


def frequency_axis_alt() -> str:
    said = []
    for model, parts in places().items():
        said += [
            f"{model}: " + ", ".join(f"{name} {'never' if not f else f'{f:.2g} times a token'}" for name, f in parts)
        ]
    return "An axis of how often the parts of a model are written in use. " + ". ".join(said) + "."
