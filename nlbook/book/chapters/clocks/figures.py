"""Figures of chapter 05: a chunk in time, the three variants, who knows what when, what levels earn, the ablation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

from nlbook.book.chapters.clocks.ablation import WORDS
from nlbook.book.chapters.clocks.adding_up import Excess, two_keys
from nlbook.book.chapters.clocks.continual_methods import Score
from nlbook.book.chapters.clocks.levels_alone import Knowledge, at
from nlbook.book.viz.style import COLORS, book_style, figure


# ---------------------------------------------------------------------- drawings
def chunk_timeline(period: int = 4, tokens: int = 10) -> Figure:
    """Gather, gather, gather, move: what waits grows by a gradient a token, and the weight changes at boundaries."""
    fig = figure(9, 2.7)
    with book_style():
        ax = fig.subplots()
        for t in range(1, tokens + 1):
            waits = (t - 1) % period + 1
            ax.add_patch(Circle((t, 3.1), 0.2, color=COLORS["key"]))
            ax.text(t, 3.1, f"{t}", ha="center", va="center", color="white", fontsize=9, weight="bold")
            for i in range(waits):
                ax.add_patch(Rectangle((t - 0.28, 1.25 + 0.32 * i), 0.56, 0.26, color=COLORS["value"], alpha=0.8))
            full = waits == period
            ax.text(t, 0.95, "move" if full else "gather", ha="center", fontsize=9, weight="bold" if full else "normal")
            shade = 0.2 + 0.2 * ((t - 1) // period)
            ax.add_patch(Rectangle((t - 0.5, 0), 1, 0.55, color=COLORS["memory"], alpha=shade, lw=0))
            ax.text(t, 0.28, f"$W_{{{(t - 1) // period}}}$", ha="center", va="center", fontsize=11)
            if full:
                ax.annotate(
                    "", (t + 0.5, 0.6), (t + 0.2, 1.25), arrowprops={"arrowstyle": "-|>", "lw": 1.6, "color": "black"}
                )
                ax.axvline(t + 0.5, color="black", lw=1, ls=":")
        for y, words in ((3.1, "token"), (1.7, "gradients\nthat wait"), (0.28, "weight that\nreads it")):
            ax.text(0.3, y, words, ha="right", va="center", fontsize=9)
        ax.set(xlim=(-0.7, tokens + 0.6), ylim=(-0.05, 3.5))
        ax.set_axis_off()
    return fig


def chunk_timeline_alt(period: int = 4, tokens: int = 10) -> str:
    moves = ", ".join(str(t) for t in range(period, tokens + 1, period))
    return (
        f"{tokens} tokens in a row. Under each a stack of the gradients that wait, which grows to {period}; after "
        f"tokens {moves} the stack is emptied into the weight, which is the same for all tokens of a chunk."
    )


def _dial(ax: Axes, x: float, y: float, turn: float) -> None:
    ax.add_patch(Circle((x, y), 0.16, facecolor="white", edgecolor="black", lw=1.2, zorder=3))
    ax.plot([x, x + 0.11 * math.sin(turn)], [y, y + 0.11 * math.cos(turn)], color="black", lw=1.4, zorder=4)
    ax.plot([x, x], [y, y + 0.07], color="black", lw=1.4, zorder=4)


def _level(ax: Axes, x: float, y: float, i: int, period: int) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x - 0.66, y - 0.24), 1.32, 0.48, boxstyle="round,pad=0.02", color=COLORS[f"level{2 * i + 1}"], alpha=0.35
        )
    )
    _dial(ax, x - 0.44, y, 2 * math.pi / (1.4 + 1.6 * i))
    ax.text(x - 0.22, y, f"MLP\nevery {period}", va="center", fontsize=8)


def _arrow(ax: Axes, a: tuple[float, float], b: tuple[float, float], **style: object) -> None:
    ax.annotate(
        "", b, a, arrowprops={"arrowstyle": "-|>", "lw": 1.3, "color": "black", "shrinkA": 0, "shrinkB": 0, **style}
    )


def variants(periods: Sequence[int] = (1, 16, 256)) -> Figure:
    """Three block diagrams: in a chain, side by side, nested; a clock on each level."""
    fig = figure(9, 3.7)
    with book_style():
        axes = fig.subplots(1, 3)
        for ax, title in zip(axes, ("in a chain", "side by side", "nested")):
            ax.set_title(title, loc="center", weight="bold")
            ax.set(xlim=(-2.1, 2.1), ylim=(-0.45, 4.0), aspect="equal")
            ax.set_axis_off()
        rows = [0.75, 1.75, 2.75]
        for ax in (axes[0], axes[2]):
            ax.text(0, -0.3, "token $x$", ha="center", fontsize=9)
            ax.text(0, 3.72, "answer $y$", ha="center", fontsize=9)
            for a, b in zip([-0.1, *(y + 0.26 for y in rows)], [*(y - 0.26 for y in rows), 3.6]):
                _arrow(ax, (0, a), (0, b))
            for i, (y, c) in enumerate(zip(rows, periods)):
                _level(ax, 0, y, i, c)
        words = "all starts are\nlearned outside:\n“sequential”"
        axes[0].text(-0.78, 1.75, words, fontsize=8, ha="right", va="center", color="#333333")
        for y in rows[:-1]:
            _arrow(axes[2], (0.7, y + 1), (0.7, y), connectionstyle="arc3,rad=-0.9", ls="--", color=COLORS["objective"])
            axes[2].text(1.25, y + 0.5, "owns the\nstart", fontsize=8, va="center", color=COLORS["objective"])
        ax = axes[1]
        ax.text(0, -0.3, "token $x$", ha="center", fontsize=9)
        ax.text(0, 3.72, "answer $y$", ha="center", fontsize=9)
        for i, (x, c) in enumerate(zip((-1.4, 0, 1.4), periods)):
            _arrow(ax, (0, -0.1), (x, 1.45))
            _level(ax, x, 1.75, i, c)
            _arrow(ax, (x, 2.03), (0.12 * (i - 1), 2.83))
        ax.add_patch(Circle((0, 3.0), 0.17, facecolor="white", edgecolor="black"))
        ax.text(0, 2.99, "+", ha="center", va="center", fontsize=12)
        _arrow(ax, (0, 3.17), (0, 3.6))
    return fig


def variants_alt(periods: Sequence[int] = (1, 16, 256)) -> str:
    said = ", ".join(map(str, periods))
    return (
        f"Three block diagrams of MLPs with clocks of periods {said}. In a chain, each level reads what the one before "
        "it made. Side by side, all read the same token and a mixture adds them up. Nested, a chain in which dashed "
        "arrows lead from each slower level to the start of the next faster one."
    )


# ---------------------------------------------------------------------- who knows what, when
def per_level(levels: Sequence[Knowledge], switch: int) -> Figure:
    """One panel a level: its writes as notes on top, its error on tasks A and B below; bands span the streams."""
    fig = figure(9.4, 3.3)
    with book_style():
        axes = fig.subplots(1, len(levels), sharey=True, squeeze=False)[0]
        for i, (ax, k) in enumerate(zip(axes, levels, strict=True)):
            for error, color in ((k.a, COLORS["task A"]), (k.b, COLORS["task B"])):
                ax.fill_between(k.times, error.amin(1), error.amax(1), color=color, alpha=0.15, lw=0, step="post")
                ax.plot(k.times, error.mean(1), color=color, lw=1.8, drawstyle="steps-post")
            end = int(k.times[-1])
            ax.plot(
                range(k.period, end + 1, k.period),
                [2.3] * (end // k.period),
                "|",
                ms=8,
                mew=0.8,
                color=COLORS[f"level{2 * i + 1}"],
            )
            ax.axhline(1, color=COLORS["control"], lw=1, ls="--")
            ax.axvline(switch, color="black", lw=1, ls=":")
            ax.set(
                title=f"period {k.period}: {k.updates} writes",
                xlabel="tokens read",
                ylim=(0, 2.42),
                xlim=(0, end),
                yticks=[0, 0.5, 1, 1.5, 2],
                xticks=[0, switch, end],
            )
            ax.grid(False)
            if i == 0:
                ax.set_ylabel("relative error")
                ax.text(switch * 0.97, 0.33, "on task A", color=COLORS["task A"], ha="right", fontsize=9)
                ax.text(switch * 0.97, 1.7, "on task B", color=COLORS["task B"], ha="right", fontsize=9)
                ax.text(end * 0.98, 1.03, "knows nothing", color="#555555", fontsize=8, ha="right", va="bottom")
                ax.text(switch * 1.03, 2.12, "now task B", fontsize=8, va="top")
                ax.text(
                    end * 0.98, 0.62, f"bands: all\n{k.a.shape[1]} streams", color="#555555", fontsize=8, ha="right"
                )
    return fig


def per_level_alt(levels: Sequence[Knowledge], switch: int, after: int = 64) -> str:
    def on_a(k: Knowledge, token: int) -> float:
        return float(k.a[at(k, token)].mean())

    said = "; ".join(
        f"period {k.period} wrote {k.updates} times, error on A {on_a(k, switch):.2f} at the switch and "
        f"{on_a(k, switch + after):.2f} after {after} tokens of B"
        for k in levels
    )
    return (
        f"One panel for each of {len(levels)} levels, errors on tasks A and B against tokens read, switch at "
        f"{switch}. {said}."
    )


# ---------------------------------------------------------------------- what levels earn
def sinking(documents: int = 16, seed: int = 4) -> Figure:
    """A fact that lasts sinks into the slow level, facts that change cancel there."""
    fig = figure(9, 2.6)
    with book_style():
        axes = fig.subplots(1, 2, sharey=True)
        for ax, (title, run) in zip(axes, two_keys(documents, seed).items()):
            for x in range(3, 3 * documents, 3):
                ax.axvline(x + 0.5, color=COLORS["grid"], lw=1)
            t = range(1, len(run.told) + 1)
            ax.plot(t, run.told, "_", color=COLORS["value"], ms=6, mew=2, label="told")
            at, held = [0.5], [0.0]  # the fast level: 0 at each beginning, a step at each token
            for x, f in zip(t, run.fast):
                at, held = [*at, x, x], [*held, held[-1], f]
                if x % 3 == 0:
                    at, held = [*at, x + 0.5, x + 0.5], [*held, f, 0.0]
            ax.plot(at, held, color=COLORS["level1"], lw=1.5, label="fast level")
            ax.step([0.5, *t], [0.0, *run.slow], where="post", color=COLORS["level5"], lw=2, label="slow level")
            ax.axhline(0, color="black", lw=0.8)
            ax.set(title=title, xlabel="tokens, three a document", xlim=(0.5, 3 * documents + 0.5), ylim=(-1.7, 1.5))
            ax.grid(False)
        axes[0].set_ylabel("told, held")
        axes[1].legend(ncols=3, loc="lower right", fontsize=8.5, columnspacing=1)
    return fig


def sinking_alt(documents: int = 16, seed: int = 4) -> str:
    said = "; ".join(f"{title}: {run.slow[-1]:.2f}" for title, run in two_keys(documents, seed).items())
    return (
        f"What is told and what two levels hold over {documents} documents of three tokens; the fast level ends with each "
        f"document. Held by the slow level in the end, {said}."
    )


def ladder(rows: Mapping[str, Excess], bound: float) -> Figure:
    """A bar a row: nats above the exact reader, with the standard error; the line is the best with one time scale."""
    fig = figure(8.6, 0.42 * len(rows) + 0.9)
    with book_style():
        ax = fig.subplots()
        for y, (name, e) in zip(range(len(rows))[::-1], rows.items()):
            color = COLORS["control" if "held" in name else "memory" if "ends" in name or "moves" in name else "truth"]
            ax.barh(y, e.mean, xerr=2 * e.se, height=0.62, color=color, alpha=0.75, ecolor="#333333")
            ax.text(e.mean + 2 * e.se + 0.006, y, f"{e.mean:.3f}", va="center", fontsize=9)
        ax.axvline(bound, color=COLORS["error"], lw=1.2, ls="--")
        best = f"best with one time scale: {bound:.3f}"
        ax.text(bound + 0.003, len(rows) - 0.42, best, color=COLORS["error"], fontsize=8.5)
        ax.set(
            yticks=range(len(rows)),
            ylim=(-0.5, len(rows) - 0.1),
            xlabel="nats a value above the exact reader (whiskers: ± two standard errors)",
        )
        ax.set_yticklabels(list(rows)[::-1])
        ax.grid(False)
    return fig


def ladder_alt(rows: Mapping[str, Excess], bound: float) -> str:
    said = "; ".join(f"{name}: {e.mean:.3f}" for name, e in rows.items())
    return f"Bars of nats a value above the exact reader. {said}. The best with one time scale has {bound:.3f}."


# ---------------------------------------------------------------------- the ablation
def dots(scores: Mapping[str, Score]) -> Figure:
    """Final average accuracy per method: a dot a seed, a bar at the mean; sorted."""
    order = sorted(scores, key=lambda n: float(scores[n].average.mean()))
    fig = figure(8.4, 0.36 * len(order) + 0.8)
    with book_style():
        ax = fig.subplots()
        for y, n in enumerate(order):
            a = scores[n].average
            color = COLORS["memory" if n.startswith("CMS") else "truth" if n == "MLP" else "baseline"]
            ax.plot(a, [y] * len(a), "o", ms=5, color=color, alpha=0.45, mew=0)
            ax.plot([a.mean()] * 2, [y - 0.34, y + 0.34], color=color, lw=3)
            at = (float(a.mean()), y + 0.3)
            said = ax.annotate(
                f"{float(a.mean()):.3f}", at, (5, 0), textcoords="offset points", va="center", fontsize=8
            )
            said.set_bbox({"fc": "white", "ec": "none", "pad": 0.5})
        ax.axvline(float(scores["MLP"].average.mean()), color=COLORS["truth"], lw=1, ls=":")
        ax.set(
            yticks=range(len(order)),
            ylim=(-0.6, len(order) - 0.4),
            xlabel="accuracy on all five tasks at the end (dot: a seed; bar and number: their mean; dotted: one MLP)",
        )
        ax.set_yticklabels([WORDS[n] for n in order])
    return fig


def dots_alt(scores: Mapping[str, Score]) -> str:
    order = sorted(scores, key=lambda n: -float(scores[n].average.mean()))
    said = ", ".join(f"{WORDS[n]} {float(scores[n].average.mean()):.3f}" for n in order)
    return f"Accuracy on all tasks at the end, a dot a seed, methods sorted from best to worst by mean: {said}."
