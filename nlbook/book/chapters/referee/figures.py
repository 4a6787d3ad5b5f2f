"""Figures of chapter 08: what a file of memories knows, a race, an unequal search, and how often a rule is fooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from nlbook.book.chapters.referee.referee import OUTCOMES, Losses
from nlbook.book.viz.style import COLORS, book_style, end_label, figure

INK = {"better": COLORS["value"], "level": COLORS["control"], "worse": COLORS["error"]}


def memory_bars(known: Mapping[str, Mapping[str, float]]) -> Figure:
    """A panel a case, a bar a key: the probability that the model gives to what it was told."""
    fig = figure(8.8, 2.5)
    with book_style():
        for ax, (name, shares) in zip(fig.subplots(1, len(known), sharey=True), known.items()):
            ax.bar(list(shares), list(shares.values()), color=COLORS["memory"], width=0.7)
            ax.axhline(1 / 8, color=COLORS["control"], lw=1, ls=":")
            ax.set(ylim=(0, 1.02))
            ax.set_title(name, fontsize=9.5)
        fig.axes[0].set(ylabel="probability of what was told", yticks=[0, 0.5, 1])
        fig.axes[-1].text(5.45, 0.18, "a guess", ha="right", fontsize=8.5, color=COLORS["control"])
    return fig


def memory_alt(known: Mapping[str, Mapping[str, float]]) -> str:
    said = "; ".join(f"{n}: " + ", ".join(f"{k} {p:.2f}" for k, p in s.items()) for n, s in known.items())
    return f"Bars of the probability that the model gives to what it was told, for each key. {said}."


def race_dots(race: Mapping[str, Losses]) -> Figure:
    """A row a contestant: the test loss at the chosen setting, a dot a seed, and the mean as a line."""
    fig = figure(8.6, 0.42 * len(race) + 0.8)
    with book_style():
        ax = fig.subplots()
        for y, t in enumerate(reversed(list(race.values()))):
            x = t.test[t.valid.mean(1).argmin()]
            ax.plot(x, [y] * len(x), "o", color=COLORS["memory"], ms=5, alpha=0.6)
            ax.plot([x.mean()] * 2, [y - 0.32, y + 0.32], color=COLORS["truth"], lw=2)
        ax.set(yticks=range(len(race)), xlim=(0, None), xlabel="mean squared error on streams not used for choosing")
        ax.set_yticklabels(list(race)[::-1])
    return fig


def race_alt(race: Mapping[str, Losses]) -> str:
    means = {n: t.test[t.valid.mean(1).argmin()].mean() for n, t in race.items()}
    said = ", ".join(f"{name} {x:.3f}" for name, x in means.items())
    return f"Dots of the error of each contestant at its chosen setting, one dot a seed. Means: {said}."


def verdict_bars(found: Mapping[str, Mapping[str, float]], ours: str) -> Figure:
    """One bar a comparison: the shares of referees who say better, level, worse of `ours`."""
    fig = figure(8.6, 0.42 * len(found) + 0.95)
    with book_style():
        ax = fig.subplots()
        for y, shares in enumerate(reversed(list(found.values()))):
            left = 0.0
            for word in OUTCOMES:
                share = shares[word]
                ax.barh(y, share, left=left, color=INK[word], height=0.72)
                if share > 0.07:
                    ax.text(
                        left + share / 2,
                        y,
                        f"{100 * share:.0f} % {word}",
                        ha="center",
                        va="center",
                        fontsize=9,
                        color="black" if word == "level" else "white",
                        weight="bold",
                    )
                left += share
        ax.set(xlim=(0, 1), yticks=range(len(found)), xticks=[0, 0.5, 1], xlabel="share of referees")
        ax.set_yticklabels(list(found)[::-1])
        ax.grid(False)
        ax.set_title(f"what referees say of {ours}", fontsize=10)
    return fig


def verdict_alt(found: Mapping[str, Mapping[str, float]], ours: str) -> str:
    said = "; ".join(
        f"{name}: " + ", ".join(f"{100 * s[w]:.0f} % {w}" for w in OUTCOMES if s[w] >= 0.005)
        for name, s in found.items()
    )
    return f"Bars of what referees say of {ours}, one bar for each way to search. {said}."


def power_curves(counts: Sequence[int], fooled: Sequence[float], seen: Mapping[str, Sequence[float]]) -> Figure:
    """Share of comparisons in which two methods "differ", over the number of seeds."""
    fig = figure(8.4, 3.1)
    with book_style():
        ax = fig.subplots()
        ax.plot(counts, fooled, color=COLORS["error"], marker="o", ms=4)
        end_label(ax, counts[-1], fooled[-1], "no difference: fooled", COLORS["error"])
        for (name, ys), color in zip(seen.items(), (COLORS["key"], COLORS["memory"])):
            ax.plot(counts, ys, color=color, marker="o", ms=4)
            end_label(ax, counts[-1], ys[-1], name, color)
        ax.axhline(0.05, color=COLORS["control"], lw=1, ls=":")
        ax.set(
            xscale="log",
            xticks=list(counts),
            ylim=(0, 1.03),
            xlabel="seeds of each method",
            ylabel="share that says 'differ'",
        )
        ax.set_xticklabels([str(c) for c in counts])
        ax.minorticks_off()
    return fig


def power_alt(counts: Sequence[int], fooled: Sequence[float], seen: Mapping[str, Sequence[float]]) -> str:
    said = "; ".join(
        f"{name}: from {100 * ys[0]:.0f} % at {counts[0]} seeds to {100 * ys[-1]:.0f} % at {counts[-1]}"
        for name, ys in {"two equal methods are told apart": fooled, **seen}.items()
    )
    return f"Share of comparisons that find a difference, over the number of seeds. {said}."
