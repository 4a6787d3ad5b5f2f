"""Figures of chapter 07: Hope as a drawing, how a small one learns, what each part is good for, and its rivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from nlbook.book.viz.style import COLORS, FAMILIES, book_style, end_label, figure

KINDS = {kind: COLORS[kind] for kind in FAMILIES["kinds of facts"]}
NAMES = {"M_mem": "M memory", "M_k": "M k", "M_v": "M v", "M_eta": "M η", "M_alpha": "M α", "level": "level"}
KEYS = {"for ever": "A B", "document": "d e", "moment": "x y"}


def anatomy() -> Figure:
    """One block of Hope: what goes where, and under each part how often it is written and how long it lives."""
    fig = figure(9.2, 4.0, layout=None)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 92), ylim=(0, 40))
    ax.axis("off")

    def box(x: float, y: float, wide: float, high: float, color: str, words: str, below: str = "") -> None:
        style: dict[str, Any] = {"boxstyle": "round,pad=0.3", "facecolor": color + "22", "edgecolor": color, "lw": 1.6}
        ax.add_patch(
            FancyBboxPatch((x, y), wide, high, **style | {"facecolor": "white"})
        )  # what passes behind is hidden
        ax.add_patch(FancyBboxPatch((x, y), wide, high, **style))
        ax.text(x + wide / 2, y + high / 2, words, ha="center", va="center", fontsize=10)
        ax.text(x + wide / 2, y - 1.0, below, ha="center", va="top", fontsize=8.5, color=color)

    def arrow(start: tuple[float, float], end: tuple[float, float], color: str = "black", **more: Any) -> None:
        ax.annotate("", end, start, zorder=0, arrowprops={"arrowstyle": "->", "color": color, "lw": 1.5, **more})

    frozen, memory, level, loss = (COLORS[c] for c in ("frozen", "memory", "level3", "error"))
    box(2, 16, 10, 7, frozen, "token's row\n$x$", "written in training")
    box(17, 14.5, 7, 4.6, frozen, "rms\n$n$")
    box(30, 26, 26, 8, memory, "five memories $M$\nkey value η α answer", "written at every token; live one document")
    box(30, 7, 26, 7, level, "levels: MLPs\n", "each written once in its period; live the stream")
    ax.text(43, 9.2, "said, and scored later", ha="center", fontsize=8.5)
    box(62, 26, 9, 8, frozen, "gate,\n$W_o$")
    for x, words in ((66.5, "h"), (73, "y")):
        ax.text(x, 19.5, "+", ha="center", va="center", fontsize=18)
        ax.text(x + 3, 20.1, f"${words}$", ha="center", va="bottom", fontsize=10)
    box(78.5, 16, 12.5, 7, frozen, "head: the rows\nonce more", "written in training")
    for start, end in (
        ((12.5, 17), (16.5, 17)),
        ((24.5, 17.8), (29.5, 29)),
        ((24.5, 16), (29.5, 11.5)),
        ((56.5, 30), (61.5, 30)),
        ((66.5, 25.5), (66.5, 21.3)),
        ((56.5, 11.5), (72, 18.4)),
        ((67.8, 19.5), (71.8, 19.5)),
        ((74.3, 19.5), (78, 19.5)),
    ):
        arrow(start, end)
    arrow((12.5, 21.3), (65.3, 20), COLORS["control"], ls=":")
    ax.text(43, 19.9, "$x$ goes round both", ha="center", va="top", fontsize=8.5, color=COLORS["control"])
    arrow((84, 12.5), (56.6, 7.5), loss, connectionstyle="arc3,rad=-0.25")
    ax.text(
        78,
        6,
        "one token later: what came next,\nand the loss of what was said",
        fontsize=8.5,
        color=loss,
        ha="center",
        va="top",
    )
    return fig


ANATOMY = (
    "One block of Hope, from left to right. The token's row goes through rms to two places side by side: five memories, "
    "which are written at every token and live one document, and the levels, MLPs that are each written once in their "
    "period and live as long as the stream. The row itself goes round both: with the memories' answer it is h, with what the levels say it is y, and the head reads y. One token "
    "later the next token is known, and its loss goes back to the levels alone."
)


def learning(steps: Sequence[int], curve: Sequence[Mapping[str, float]]) -> Figure:
    """Nats above the optimum while training, a line a kind of key; log scale."""
    fig = figure(8.4, 3.0)
    with book_style():
        ax = fig.subplots()
        place = 9.0
        for kind in sorted(KINDS, key=lambda k: -curve[-1][k]):
            over = [max(e[kind], 1e-3) for e in curve]
            ax.plot(steps, over, color=KINDS[kind], marker=".", ms=4, lw=1.8)
            place = min(over[-1], place / 1.5)
            end_label(ax, steps[-1], place, f"{KEYS[kind]}  {kind}: {curve[-1][kind]:.3f}", KINDS[kind])
        ax.set(yscale="log", xlabel="training steps", ylabel="nats above\nthe optimum", xlim=(0, None))
        ax.set_yticks([0.01, 0.03, 0.1, 0.3, 1], ["0.01", "0.03", "0.1", "0.3", "1"])
    return fig


def learning_alt(steps: Sequence[int], curve: Sequence[Mapping[str, float]]) -> str:
    said = ", ".join(f"{KEYS[k]} from {curve[0][k]:.2f} to {curve[-1][k]:.3f}" for k in KINDS)
    return f"Nats above the optimum while training, steps {steps[0]} to {steps[-1]}, log scale, a line a kind of key: {said}."


def held(costs: Mapping[str, Mapping[str, float]]) -> Figure:
    """What an answer costs more with a part held: a group of bars a part, a bar a kind of key."""
    fig = figure(8.8, 3.2)
    with book_style():
        ax = fig.subplots()
        for i, cost in enumerate(costs.values()):
            for j, (kind, color) in enumerate(KINDS.items()):
                at = i + 0.27 * (j - 1)
                ax.bar(at, cost[kind], width=0.25, color=color)
                ax.text(
                    at,
                    max(cost[kind], 0) + 0.02,
                    f"{round(cost[kind], 2) + 0:.2f}",
                    ha="center",
                    fontsize=8,
                    color=color,
                )
                if i == 0:
                    ax.text(
                        0.99,
                        0.95 - 0.11 * j,
                        f"{KEYS[kind]}  {kind}",
                        color=color,
                        fontsize=10,
                        ha="right",
                        va="top",
                        transform=ax.transAxes,
                    )
        ax.set(ylabel="nats lost a value", xlim=(-0.6, len(costs) - 0.4))
        ax.margins(y=0.1)
        ax.set_xticks(range(len(costs)), [named(words) for words in costs])
        ax.grid(axis="x", visible=False)
    return fig


def named(words: str) -> str:
    """The parts of parts.cost, "M_k and M_v", as the pictures name them."""
    return ", ".join(NAMES[name] for name in words.split(" and "))


def held_alt(costs: Mapping[str, Mapping[str, float]]) -> str:
    said = "; ".join(
        f"{named(n)}: " + ", ".join(f"{KEYS[k]} {round(c[k], 2) + 0:.2f}" for k in KINDS) for n, c in costs.items()
    )
    return f"Nats lost a value, by kind of key, when a part is held at its start. {said}."


def rivals(found: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Nats above the optimum: a row a model, a panel a kind of key, a dot a seed and a bar at the mean."""
    fig = figure(9.2, 0.42 * len(found) + 1.2)
    with book_style():
        axes = fig.subplots(1, len(KINDS), sharey=True, sharex=True)
        for ax, (kind, color) in zip(axes, KINDS.items(), strict=True):
            for y, per_kind in enumerate(found.values()):
                mean = sum(per_kind[kind]) / len(per_kind[kind])
                ax.plot(per_kind[kind], [y] * len(per_kind[kind]), "o", ms=5, color=color, alpha=0.45, mew=0)
                ax.plot([mean, mean], [y - 0.3, y + 0.3], color=color, lw=3)
            ax.set(xscale="log", title=f"{KEYS[kind]}  {kind}", ylim=(len(found) - 0.5, -0.5))
            ax.set_xticks([0.01, 0.1], ["0.01", "0.1"])
            ax.set_xlim(0.001, 1)
        axes[0].set_yticks(range(len(found)), list(found))
        axes[1].set_xlabel("nats above the optimum (log scale; less is better)")
    return fig


def rivals_alt(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    def mean(x: Sequence[float]) -> float:
        return sum(x) / len(x)

    said = "; ".join(f"{n}: " + ", ".join(f"{KEYS[k]} {mean(per[k]):.3f}" for k in KINDS) for n, per in found.items())
    return f"Nats above the optimum, a row a model, a panel a kind of key, a dot a seed. Means: {said}."
