"""Figures of chapter B: which state is read, a kernel's moves, solvers under repeated keys, errors against the chunk, and a roofline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from nlbook.book.chapters.speed.chunking import CHUNKS, KEYS, Cost, Machine, chunk_error, solve_errors
from nlbook.book.chapters.speed.kernel_player import Kernel, Run, plain
from nlbook.book.viz.picture import show
from nlbook.book.viz.style import COLORS, end_label, figure

PROGRAMS = ("#122A59", "#906CD9", "#591241", "#BFA8E0", "#0000D9", "#8FA6C9")  # program 0, 1, ...; then again
NOBODY, SEVERAL = "#F4F4F4", "#555555"


# ---- what a kernel did ----------------------------------------------------------------------------------------------


def owners(run: Run, argument: str, kind: str) -> np.ndarray:
    """Who touched each element, as a map (rows, columns): -1 nobody, -2 several programs, else the program's number."""
    shape = run.shapes[argument]
    found = np.full(int(np.prod(shape)), -1)
    for number, program in enumerate(run.programs):
        for m in run.moves:
            if m.program == program and m.kind == kind and m.argument == argument:
                other = (found[m.elements] != -1) & (found[m.elements] != number)
                found[m.elements] = np.where(other, -2, number)
    return found.reshape(-1, shape[-1])


def touched(run: Run) -> list[tuple[str, str]]:
    """(argument, kind) of every map worth drawing: all loads, then all stores."""
    return [(a, kind) for kind in ("load", "store") for a in run.shapes if run.count(kind, a)]


def moves(run: Run, title: str = "") -> Figure:
    """Top: each argument, its elements in the colour of the program that loaded or stored them. Bottom: the moves of
    each program in its own order."""
    shown = touched(run)
    fig = figure(9, 4.4)
    rows = fig.add_gridspec(2, 1, height_ratios=[1.5, 1])
    top, n = rows[0].subgridspec(1, len(shown)), len(PROGRAMS)
    for i, (argument, kind) in enumerate(shown):
        ax, who = fig.add_subplot(top[i]), owners(run, argument, kind)
        codes = np.where(who == -1, n, np.where(who == -2, n + 1, who % n))
        ax.imshow(
            codes,
            cmap=ListedColormap([*PROGRAMS, NOBODY, SEVERAL]),
            vmin=0,
            vmax=n + 1,
            aspect="auto",
            interpolation="nearest",
        )
        ax.set_xticks(np.arange(who.shape[1] + 1) - 0.5, labels=[], minor=True)
        ax.set_yticks(np.arange(who.shape[0] + 1) - 0.5, labels=[], minor=True)
        ax.grid(True, which="minor", color="white", lw=1)
        ax.grid(False, which="major")
        ax.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
        ax.set_title(f"{kind}s {argument}", fontsize=10)
    ax = fig.add_subplot(rows[1])
    order = run.programs
    for y, program in enumerate(order):
        mine = [m for m in run.moves if m.program == program]
        for x, m in enumerate(mine):
            color = COLORS["memory"] if m.kind == "store" else COLORS["grid"]
            ax.barh(y, 0.92, left=x, height=0.8, color=color)
            ax.text(
                x + 0.46,
                y,
                m.argument,
                ha="center",
                va="center",
                fontsize=8.5,
                color="white" if m.kind == "store" else "black",
            )
    ax.set(
        ylim=(len(order) - 0.5, -0.5),
        xlim=(-0.1, None),
        xticks=[],
        yticks=range(len(order)),
        yticklabels=[f"program {'-'.join(map(str, p))}" for p in order],
    )
    for tick, y in zip(ax.get_yticklabels(), range(len(order))):
        tick.set_color(PROGRAMS[y % n])
        tick.set_fontweight("bold")
    ax.grid(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.tick_params(length=0)
    counts = run.counts
    ax.set_title(
        f"moves of each program, in its order (dark: a store); in all {counts['loads']} numbers loaded, "
        f"{counts['stores']} stored",
        fontsize=10,
    )
    fig.suptitle(title or run.kernel, x=0.01, ha="left", fontsize=11, weight="bold")
    return fig


def moves_alt(run: Run) -> str:
    parts = []
    for argument, kind in touched(run):
        who = owners(run, argument, kind)
        many = "several programs share" if (who == -2).any() else "no element is touched by two programs of"
        parts.append(f"{kind}s of {argument}: {run.count(kind, argument)} numbers, {many} it")
    return (
        f"Maps of the memory that the {len(run.programs)} programs of kernel {run.kernel} touch, and their moves "
        f"in order. {'; '.join(parts)}."
    )


def show_moves(id: str, kernel: Kernel) -> None:
    """Draw what the reader's kernel of exercise `id` does; while it is a stub or does not run, the solution's.

    Where triton is missing, say so."""
    from nlkernels.dispatch import have_triton

    from nlbook.book.chapters.speed.exercises import PUZZLES, example
    from nlbook.book.check import registry
    from nlbook.book.check.define import KernelPuzzle

    if not have_triton():
        print("Nothing to draw: triton is not installed here (it exists for Linux only).")
        return
    solution, title = registry.find(id, KernelPuzzle).solution, f"your {plain(kernel).__name__}"
    try:
        run = PUZZLES[id].record(kernel, *example(id))
    except NotImplementedError:
        title = f"{solution.__name__}, as it should move; yours is drawn here when it is written"
        run = PUZZLES[id].record(solution, *example(id))
    except Exception as error:
        print(f"Yours stops with {type(error).__name__}: {error}")
        title, run = f"{solution.__name__}, as it should move", PUZZLES[id].record(solution, *example(id))
    show(moves(run, title), alt=moves_alt(run))


# ---- which state a token reads --------------------------------------------------------------------------------------


def reads(tokens: int = 8, chunk: int = 4) -> Figure:
    """Which state each token takes its error from: the one just before it, or the one before its chunk."""
    fig = figure(9, 3)
    for ax, frozen in zip(fig.subplots(1, 2), (False, True)):
        for t in range(tokens + 1):
            ax.text(t, 0, f"M{t}", ha="center", va="center", fontsize=9, bbox={"boxstyle": "round", "fc": "#E8E4F4"})
            if t == 0:
                continue
            source = chunk * ((t - 1) // chunk) if frozen else t - 1
            ax.text(t, 1.5, f"k{t}, v{t}", ha="center", va="center", fontsize=9, color=COLORS["key"])
            arrow = {"arrowstyle": "-|>", "lw": 1.3, "color": COLORS["error"] if frozen else COLORS["memory"]}
            ax.annotate("", (t, 1.32), (source, 0.22), arrowprops=arrow | {"shrinkA": 0, "shrinkB": 0})
        for border in range(chunk, tokens, chunk):
            ax.axvline(border + 0.5, ymin=0.5, color=COLORS["truth"], lw=1, ls=":")
        ax.set(xlim=(-0.6, tokens + 0.6), ylim=(-0.4, 1.9), xticks=[], yticks=[])
        ax.set_title(
            f"frozen: the state before the chunk of {chunk}" if frozen else "token loop: the state just before"
        )
        ax.grid(False)
        for spine in ax.spines.values():
            spine.set_visible(False)
    return fig


def reads_alt(tokens: int = 8, chunk: int = 4) -> str:
    return (
        f"Two rows of states M0 to M{tokens} under {tokens} tokens. Left, each token takes its error from the state just "
        f"before it. Right, tokens 1 to {chunk} all take it from M0 and tokens {chunk + 1} to {tokens} from M{chunk}."
    )


# ---- solving --------------------------------------------------------------------------------------------------------

SIZES = (16, 32, 64, 128)


def solver_curves(seeds: int = 3, seed: int = 0) -> Figure:
    """Relative error in float32 against the chunk: one panel for each kind of keys; bands span the seeds."""
    fig = figure(9, 3.3)
    axes = fig.subplots(1, 3, sharey=True)
    colors = {"row by row": COLORS["memory"], "16-blocks": COLORS["value"], "doubling": COLORS["error"]}
    styles = {"row by row": "-", "16-blocks": "--", "doubling": "-"}
    for ax, kind in zip(axes, KEYS):
        for name, e in solve_errors(kind, SIZES, seeds, seed=seed).items():
            middle = 10 ** e.log10().mean(0)  # errors span 30 decades
            ax.fill_between(SIZES, e.amin(0), e.amax(0), color=colors[name], alpha=0.15, lw=0)
            ax.plot(SIZES, middle, color=colors[name], marker=".", ls=styles[name], label=name)
        ax.axhline(1, color=COLORS["control"], lw=1, ls=":")
        ax.set(
            xscale="log",
            yscale="log",
            xticks=SIZES,
            xticklabels=SIZES,
            title=kind,
            xlabel="tokens a chunk",
            ylim=(1e-9, 1e31),
            yticks=[1e-8, 1, 1e8, 1e16, 1e24],
        )
        ax.minorticks_off()
    axes[0].set_ylabel("relative error, float32")
    axes[0].legend(loc="upper left")
    axes[0].text(16, 2, "nothing is right", fontsize=8.5, color="#6E6E6E", va="bottom")
    return fig


def solver_alt(seeds: int = 3, seed: int = 0) -> str:
    at = SIZES.index(64)
    worst = {
        kind: {n: float(e[:, at].amax()) for n, e in solve_errors(kind, SIZES, seeds, seed=seed).items()}
        for kind in KEYS
    }
    told = "; ".join(
        f"{kind}: doubling {w['doubling']:.0e}, row by row {w['row by row']:.0e}, 16-blocks {w['16-blocks']:.0e}"
        for kind, w in worst.items()
    )
    return f"Errors in float32 of three ways to solve a chunk's triangular system, at 64 tokens at worst: {told}."


# ---- the signature --------------------------------------------------------------------------------------------------


def error_curves(seeds: int = 3, seed: int = 0, rates: Sequence[float] = (0.1, 0.5)) -> Figure:
    """Relative error of the last state against the chunk: the exact form, and the frozen rule without and with the
    factor of eq. 93; bands span the seeds."""
    fig = figure(8, 3.8)
    ax = fig.subplots()

    def curve(rule: str, eta: float, color: str, said: str, dy: float = 0, **style: Any) -> None:
        e = np.stack([chunk_error(rule, eta, c, seeds, seed=seed).numpy() for c in CHUNKS[1:]], 1)
        ax.fill_between(CHUNKS[1:], e.min(0), e.max(0), color=color, alpha=0.18, lw=0)
        ax.plot(CHUNKS[1:], e.mean(0), color=color, marker=".", **style)
        end_label(ax, CHUNKS[-1], e.mean(0)[-1], said, color, dy=dy)

    for eta, shade in zip(rates, (0.5, 1.0)):
        curve("frozen", eta, COLORS["error"], f"frozen, rate {eta:g}", alpha=shade, dy=-9 if eta == rates[0] else 5)
    curve("eq. 93", rates[-1], COLORS["rate"], f"eq. 93, rate {rates[-1]:g}", dy=-1)
    curve("exact", rates[-1], COLORS["memory"], f"exact, rate {rates[-1]:g}", dy=2)
    ax.axhline(1, color=COLORS["control"], lw=1, ls="--")
    ax.annotate("as far off as an empty memory", (2, 1), (0, 4), textcoords="offset points", fontsize=9)
    ax.set(
        xscale="log",
        yscale="log",
        xticks=CHUNKS[1:],
        xticklabels=CHUNKS[1:],
        xlabel="tokens a chunk",
        ylabel="distance from the token loop",
        ylim=(1e-17, 1e2),
    )
    ax.minorticks_off()
    return fig


def error_alt(seeds: int = 3, seed: int = 0, rates: Sequence[float] = (0.1, 0.5)) -> str:
    def at(rule: str, eta: float, c: int) -> float:
        return float(chunk_error(rule, eta, c, seeds, seed=seed).mean())

    low, high = rates[0], rates[-1]
    return (
        f"Distance of the last state from the token loop's against the chunk, log-log. Exact form: below 1e-12 at "
        f"every chunk. Frozen gradients: from {at('frozen', low, 2):.1%} to {at('frozen', low, 64):.0%} at rate "
        f"{low:g}, from {at('frozen', high, 2):.0%} to {at('frozen', high, 64):.0%} at rate {high:g}; with the "
        f"factor of eq. 93 to {at('eq. 93', high, 64):.0%}."
    )


# ---- the roofline ---------------------------------------------------------------------------------------------------


def roofline(machines: Sequence[Machine], dim: int = 64, chunks: Sequence[int] = (1, 64, 256)) -> Figure:
    """Attainable FLOP/s against FLOPs a byte for each machine; on the first, chunks with the memory sent or kept."""
    fig = figure(8, 4)
    ax = fig.subplots()
    x = np.logspace(-0.7, 3.4, 200)
    for machine, style in zip(machines, ("-", "--", ":")):
        y = np.array([machine.attainable(i) for i in x])
        ax.plot(x, y, color=COLORS["truth"], ls=style, lw=1.6)
        ax.annotate(machine.name, (x[-1], y[-1]), (0, 5), textcoords="offset points", fontsize=9, ha="right")
        ax.plot([machine.ridge], [machine.flops], "o", color=COLORS["truth"], ms=5)
        ax.annotate(
            f"ridge {machine.ridge:.0f}",
            (machine.ridge, machine.flops),
            (-4, 5),
            textcoords="offset points",
            fontsize=8.5,
            ha="right",
        )
    for on_chip, color, marker, said in (
        (False, COLORS["error"], "v", "memory travels, chunk"),
        (True, COLORS["value"], "^", "memory stays on the chip, chunk"),
    ):
        costs = [Cost(c, dim, on_chip) for c in chunks]
        for machine in machines[:1]:
            y = np.array([machine.attainable(c.intensity) for c in costs])
            ax.plot(
                [c.intensity for c in costs],
                y,
                marker=marker,
                ls="",
                ms=8,
                color=color,
                label=f"{said} {', '.join(map(str, chunks))}",
            )
            for cost, height in zip(costs, y):
                at = ((7, -9), "left") if not on_chip else ((-7, 6), "right")
                ax.annotate(
                    str(cost.chunk),
                    (cost.intensity, height),
                    at[0],
                    textcoords="offset points",
                    ha=at[1],
                    fontsize=9,
                    color=color,
                    weight="bold",
                )
    ax.set(xscale="log", yscale="log", xlabel="FLOPs for each byte that travels", ylabel="FLOP/s at best")
    ax.legend(loc="lower right")
    ax.minorticks_off()
    return fig


def roofline_alt(machines: Sequence[Machine], dim: int = 64, chunks: Sequence[int] = (1, 64, 256)) -> str:
    roofs = "; ".join(f"{m.name}, ridge at {m.ridge:.0f} FLOP a byte" for m in machines)
    there, here = ([Cost(c, dim, on) for c in chunks] for on in (False, True))
    return (
        f"Rooflines of {roofs}. With the memory travelling once a chunk, chunks of {', '.join(map(str, chunks))} "
        f"make {', '.join(f'{c.intensity:.1f}' for c in there)} FLOP a byte; with the memory on the chip "
        f"{', '.join(f'{c.intensity:.0f}' for c in here)}."
    )
