"""Figures of chapter 06: what a reference writes, one token of five memories, adaptation after a rule switch."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nlbook.book.viz.style import COLORS, book_style, end_label, figure

Curves = Mapping[str, Mapping[str, Tensor]]  # source -> switch -> share right (runs, tokens)

LOOK = {
    "self": ("its own value M v", "memory", "-"),
    "fixed": ("the given value v", "value", "-"),
    "random": ("a random map's value", "control", "--"),
}
PANELS = {"facts": "new facts (x7)", "references": "references (x=d)"}
RULES = {"hebb": "Hebb: only adds", "delta": "delta: erases, then writes"}


def box(ax: Axes, x: float, y: float, text: str, color: str) -> None:
    """A box with words, its middle at (x, y)."""
    ax.text(
        x,
        y,
        text,
        ha="center",
        va="center",
        fontsize=11,
        zorder=5,  # above the arrows
        bbox={"boxstyle": "round,pad=0.35", "fc": "white", "ec": color, "lw": 1.6},
    )


def arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str, style: str = "-", shrink: int = 16
) -> None:
    """An arrow between two boxes."""
    ax.annotate(
        "",
        end,
        start,
        arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.8, "ls": style, "shrinkA": 14, "shrinkB": shrink},
    )


def references() -> Figure:
    """What `x=d` makes of a memory that holds d4 and x2: the word written, and the memory's answer written."""
    fig = figure(9.4, 2.2)
    with book_style():
        for ax, (title, target) in zip(
            fig.subplots(1, 3, sharey=True),
            (("after d4 x2", "2"), ("x=d, the given word is written", "d"), ("x=d, what M says of d is written", "4")),
            strict=True,
        ):
            places = {"d": (0, 1), "x": (0, 0), "4": (2, 1), "2": (2, 0)}
            for word, (x, y) in places.items():
                box(ax, x, y, word, COLORS["key" if x == 0 else "value"])
            arrow(ax, (0, 1), (2, 1), COLORS["memory"])
            wrong = target == "d"
            arrow(ax, (0, 0), places[target], COLORS["error" if wrong else "memory"], "--" if wrong else "-")
            ax.set(xlim=(-0.5, 2.5), ylim=(-0.5, 1.5), xticks=[], yticks=[])
            ax.set_title(title, fontsize=10)
            ax.grid(False)
            for side in ("left", "bottom"):
                ax.spines[side].set_visible(False)
    return fig


REFERENCES_ALT = (
    "Keys d and x on the left, values 4 and 2 on the right, an arrow for what the memory answers. After d4 x2 the arrows "
    "go from d to 4 and from x to 2. With the given word written, x points at d, which is no value. With the memory's "
    "own answer written, x points at 4."
)


def one_token() -> Figure:
    """The four steps of one token, and which state of a memory each of them reads in the Hope of chapter 07."""
    fig = figure(9.4, 4.2)
    five = (r"$M_k$", r"$M_v$", r"$M_\eta$", r"$M_\alpha$", r"$M_{mem}$")
    with book_style():
        ax = fig.subplots()
        box(ax, 0, 2.5, "token $x$", COLORS["baseline"])
        for i, (name, made) in enumerate(zip(five, (r"$k$", r"$v$", r"$\eta$", r"$\alpha$"))):
            y = 4 - i
            box(ax, 1.5, y, name, COLORS["memory"])
            box(ax, 2.6, y, made, COLORS[("key", "value", "rate", "objective")[i]])
            arrow(ax, (0.15, 2.5), (1.5, y), COLORS["baseline"])
            arrow(ax, (1.5, y), (2.6, y), COLORS["baseline"])
        for i, name in enumerate(five):
            y = 4 - i
            box(ax, 4.2, y, name + r"$(v)$", COLORS["value"])
            arrow(ax, (2.6, 3), (4.2, y), COLORS["value"], shrink=30)
            box(ax, 6, y, name, COLORS["memory"])
            arrow(ax, (4.2, y), (6, y), COLORS["memory"], shrink=22)
        box(ax, 7.6, 0, r"$y=M_{mem}(q)$", COLORS["query"])
        arrow(ax, (6, 0), (7.6, 0), COLORS["query"], shrink=52)
        for x, step, state in (
            (2.05, "1  read k, v, rate, retention", "state at the last chunk boundary"),
            (4.2, "2  own values", "the same state"),
            (6, "3  write all five", "errors: the same state\nretention, erasing: running state"),
            (7.75, "4  answer", "running state,\nafter the write"),
        ):
            ax.text(x, 4.75, step, ha="center", fontsize=10, weight="bold")
            ax.text(x, -0.75, state, ha="center", va="top", fontsize=8.5, color="#555555")
        ax.text(-0.45, -0.75, "reads in Hope:", va="top", fontsize=8.5, color="#555555")
        ax.set(xlim=(-0.5, 8.5), ylim=(-1.5, 5), xticks=[], yticks=[])
        ax.grid(False)
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)
    return fig


ONE_TOKEN_ALT = (
    "One token in four steps, left to right. The token is read by four memories, which make key, value, rate and "
    "retention. Each of the five memories is asked for v, and answers a value of its own. All five are written. Then "
    "M mem answers the query. Below: steps one and two read the state at the last chunk boundary, the answer reads the "
    "running state after the write."
)


def adaptation(rows: Mapping[str, Curves], switch: int, chance: float) -> Figure:
    """One row of panels for each rule, one panel for each kind of switch, one y-axis; bands span few runs."""
    fig = figure(9.4, 0.6 + 2.6 * len(rows))
    with book_style():
        grid = fig.subplots(len(rows), 2, sharey=True, sharex=True, squeeze=False)
        for axes, (rule, curves) in zip(grid, rows.items(), strict=True):
            for ax, (kind, title) in zip(axes, PANELS.items(), strict=True):
                ends: list[float] = []
                for source, by_kind in sorted(curves.items(), key=lambda c: -float(c[1][kind].mean(0)[-3:].mean())):
                    words, color, style = LOOK[source]
                    right = by_kind[kind].numpy()
                    x = range(1, right.shape[1] + 1)
                    ax.plot(x, right.mean(0), color=COLORS[color], ls=style)
                    if 1 < len(right) < 10:
                        ax.fill_between(x, right.min(0), right.max(0), color=COLORS[color], alpha=0.15, lw=0)
                    ends.append(min([float(right.mean(0)[-1]), *(e - 0.11 for e in ends)]))
                    said = words if kind == "references" else f"{float(right.mean(0)[-1]):.2f}"
                    end_label(ax, float(x[-1]), ends[-1], said, COLORS[color])
                ax.axvline(switch + 0.5, color="black", lw=1, ls=":")
                ax.axhline(chance, color=COLORS["control"], lw=1, ls=":")
                ax.set(ylim=(0, 1.03), xlim=(1, x[-1]))
                ax.set_title(f"{RULES[rule]}; {title}" if len(rows) > 1 else f"switch to {title}", fontsize=10)
            axes[0].set_ylabel("share of right answers")
            axes[0].text(1.5, chance + 0.01, "guessing", fontsize=8, color="#555555", va="bottom")
        for ax in grid[-1]:
            ax.set_xlabel("tokens read")
    return fig


def adaptation_alt(rows: Mapping[str, Curves], switch: int) -> str:
    said = "; ".join(
        f"{RULES[rule].split(':')[0]}, {LOOK[s][0]}: {float(c['facts'].mean(0)[switch + 6 :].mean()):.2f} on new facts, "
        f"{float(c['references'].mean(0)[switch + 6 :].mean()):.2f} on references"
        for rule, curves in rows.items()
        for s, c in curves.items()
    )
    return (
        f"Share of right answers while texts are read, rule switched after token {switch}. "
        f"From six tokens after it on: {said}."
    )
