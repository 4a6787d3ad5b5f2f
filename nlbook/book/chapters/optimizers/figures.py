"""Figures of chapter A: what a momentum still holds of an old task, the bent valley, Newton-Schulz, the race."""

from __future__ import annotations

import math

import torch
from matplotlib.figure import Figure
from nlkernels.newton_schulz import COEFFICIENTS
from torch import Tensor

from nlbook.book.chapters.optimizers.race import Race
from nlbook.book.chapters.optimizers.valleys import START, Sweep, Valley, descend
from nlbook.book.viz.style import COLORS, figure

# --- the bent valley of Fig. 4 ---

RULE_COLORS = {"heavy ball": "baseline", "clipped": "memory", "bounded": "key", "row": "objective", "printed": "error"}
NAMES = {
    "heavy ball": "heavy ball",
    "clipped": "delta, clipped brake",
    "bounded": "delta, smooth brake",
    "row": "delta, to the letter",
    "printed": "delta, as printed",
}


def valley_paths(valley: Valley, lr: float = 0.0178, erase: float = 0.1, steps: int = 120) -> Figure:
    """The paths of heavy ball, clipped and printed delta momentum on one valley, from the paper's start."""
    fig = figure(8, 3.8)
    ax = fig.subplots()
    r, theta = torch.meshgrid(torch.linspace(-5.5, 4.5, 240), torch.linspace(-5.5, 4.5, 160), indexing="ij")
    height = torch.log10(valley.value(r, theta) + 1e-2)
    ax.contourf(r, theta, height, 14, cmap="Greys", alpha=0.45)
    ax.grid(False)
    for rule in ("printed", "heavy ball", "clipped"):
        path = descend(valley, rule, lr=lr, erase=erase, length=steps, path=True).path
        inside = int((path.abs().amax(-1) < 50).long().cumprod(0).sum())
        color = COLORS[RULE_COLORS[rule]]
        ax.plot(
            path[: inside + 1, 0], path[: inside + 1, 1], color=color, lw=1.4, marker=".", ms=3.5, label=NAMES[rule]
        )
    ax.plot(*START, marker="o", color="black", ms=6)
    ax.plot(0, 0, marker="*", color=COLORS["rate"], ms=14, mec="black", mew=0.6)
    ax.legend(loc="lower right", frameon=True, framealpha=0.9)
    ax.set(xlim=(-5.5, 4.5), ylim=(-5.5, 4.5), xlabel="r", ylabel="θ")
    return fig


def steps_on(valley: Valley, rule: str, lr: float = 0.0178, erase: float = 0.1) -> float:
    """Steps until the loss stays below 1e-4, or inf."""
    return float(descend(valley, rule, lr=lr, erase=erase, length=1000).steps)


def valley_alt(valley: Valley, lr: float = 0.0178, erase: float = 0.1) -> str:
    heavy, clipped = (steps_on(valley, rule, lr, erase) for rule in ("heavy ball", "clipped"))
    return (
        f"Paths from the same start through a bent valley: the heavy ball swings wide and arrives after "
        f"{heavy:.0f} steps, clipped delta momentum after {clipped:.0f}; the printed form leaves the picture at "
        f"once."
    )


def sweep_strip(found: Sweep) -> Figure:
    """One dot a valley and rule: its fewest steps over those of the heavy ball; on top, those that never arrive."""
    rules = [r for r in found.rules if r != "heavy ball"]
    fig = figure(8, 3.4)
    ax = fig.subplots()
    heavy = found.best[found.rules.index("heavy ball")]
    never, highest = 7.0, 5.0
    for x, rule in enumerate(rules):
        best = found.best[found.rules.index(rule)]
        ratio = torch.where(best.isfinite(), (best / heavy).clamp(0.15, highest), torch.tensor(never))
        ratio = torch.where(best.isfinite() & ~heavy.isfinite(), torch.tensor(0.15), ratio)
        lost = ~best.isfinite() & ~heavy.isfinite()
        at = torch.arange(len(best), dtype=torch.float64)
        spread = x + 0.5 * ((at * 0.61803) % 1 - 0.5)
        ax.scatter(spread[~lost], ratio[~lost], s=26, color=COLORS[RULE_COLORS[rule]], alpha=0.75, lw=0)
        ax.scatter(spread[lost], ratio[lost], s=20, facecolor="none", edgecolor=COLORS["control"])
    ax.axhline(1, color=COLORS["baseline"], lw=1.2)
    ax.set_yscale("log")
    ax.set(
        xticks=range(len(rules)),
        xlim=(-0.5, len(rules) - 0.5),
        ylim=(0.12, 9),
        yticks=[0.15, 0.3, 1, 3, never],
        yticklabels=["only this", "0.3", "1", "3", "never"],
        ylabel="steps / heavy ball's",
    )
    ax.set_xticklabels([f"{NAMES[r]}\n{found.faster(r)} faster, {found.faster('heavy ball', r)} slower" for r in rules])
    ax.minorticks_off()
    return fig


def sweep_alt(found: Sweep) -> str:
    said = "; ".join(
        f"{NAMES[r]} arrives in {found.arrives(r)}, faster in {found.faster(r)}"
        for r in found.rules
        if r != "heavy ball"
    )
    return (
        f"Dots for {found.best.shape[1]} valleys: fewest steps of each rule over those of a heavy ball tuned on "
        f"the same number of rates, below one is faster. {said}."
    )


# --- Newton-Schulz ---


def after(s: Tensor, steps: int, polynomial: str = "cubic") -> Tensor:
    """Where Newton-Schulz moves singular values s in (0, 1]: s <- a s + b s^3 + c s^5 (eq. 44 without its pull)."""
    a, b, c = COEFFICIENTS[polynomial]
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s


def after_pull(s: Tensor, steps: int = 200, rate: float = 0.25) -> Tensor:
    """Where the printed eq. 44 moves them when it is iterated: its pull to the gradient never lets go."""
    x = s
    for _ in range(steps):
        x = x - rate * (x - s + 2 * x * (x * x - 1))
    return x


def band(low: float = 0.01, steps: int = 5) -> tuple[float, float]:
    """The band into which the quintic moves all singular values from `low` to 1."""
    s = after(torch.logspace(math.log10(low), 0, 4001, dtype=torch.float64), steps, "quintic")
    return float(s.min()), float(s.max())


def singular_values() -> Figure:
    """Singular value before against after: cubic 5 and 15 steps, Muon's quintic 5 steps, the printed eq. 44."""
    fig = figure(8, 3.4)
    ax = fig.subplots()
    s = torch.logspace(-3, 0, 800, dtype=torch.float64)
    low, high = band()
    ax.axhspan(low, high, color=COLORS["key"], alpha=0.1, lw=0)
    for name, y, color, dash in (
        ("15 cubic steps", after(s, 15), "memory", "-"),
        ("5 cubic steps", after(s, 5), "memory", "--"),
        ("5 quintic steps (Muon)", after(s, 5, "quintic"), "key", "-"),
        ("eq. 44 as printed, iterated", after_pull(s), "error", "-"),
        ("before", s, "control", ":"),
    ):
        ax.plot(s, y, color=COLORS[color], ls=dash, lw=1.6, label=name)
    ax.set(
        xscale="log",
        xlabel="singular value before (the matrix has length 1)",
        ylabel="after",
        ylim=(0, 1.3),
        xlim=(1e-3, 1),
    )
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return fig


def singular_alt() -> str:
    low, high = band()
    return (
        f"Singular value after orthogonalising against the value before, on a log axis. Fifteen cubic steps lead "
        f"to exactly 1, five quintic steps into a band from {low:.2f} to {high:.2f}; the printed step stops at 0.7 "
        f"to 1."
    )


# --- the race ---

RACERS = {
    "AdamW": "baseline",
    "SGD momentum": "control",
    "Muon": "key",
    "M3 update": "level3",
    "M3 fast only": "level1",
    "M3 grad": "error",
    "M3 none": "level5",
}


def race_figure(race: Race) -> Figure:
    """Training loss at equal steps (mean over seeds, smoothed over 10 steps), and the test loss of every seed."""
    fig = figure(9, 3.6)
    left, right = fig.subplots(1, 2, width_ratios=[1.35, 1])
    for i, e in enumerate(race.entries.values()):
        color = COLORS[RACERS[e.name]]
        mean = e.train.mean(0)
        smooth = mean.unfold(0, 10, 1).mean(-1) if len(mean) >= 10 else mean
        left.plot(range(len(mean) - len(smooth), len(mean)), smooth, color=color, label=e.name, lw=1.6)
        right.plot([float(e.test_loss.mean())], [i], marker="|", ms=18, mew=2, color=color)
        right.plot(e.test_loss, [i] * len(e.test_loss), "o", ms=5, color=color, alpha=0.7)
    names = list(race.entries)
    left.set(yscale="log", xlabel="step", ylabel="training loss")
    right.set(
        xlabel="test loss, one dot a seed", yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5)
    )
    left.set_title("at equal steps", loc="left")
    right.set_title("at the tuned rate", loc="left")
    if max(float(e.test_loss.max()) for e in race.entries.values()) > 0.5:
        right.set_xscale("log")
        right.set_xticks([0.1, 0.3, 1.0], ["0.1", "0.3", "1"])
        right.minorticks_off()
    else:
        right.set_xlim(0, None)
    return fig


def race_alt(race: Race) -> str:
    said = ", ".join(f"{e.name} {float(e.test_loss.mean()):.2f}" for e in race.entries.values())
    return f"Training loss of every optimizer at equal steps, beside its mean test loss on digits: {said}."


def race_table(race: Race) -> str:
    """Rate, validation and test of each entry, without times: those differ from machine to machine."""
    lines = [f"{'':14}{'rate':>7}   test loss (mean ± sd)   accuracy"]
    for e in race.entries.values():
        sd = float(e.test_loss.std()) if len(e.test_loss) > 1 else 0.0
        edge = "*" if e.on_edge else " "
        lines.append(
            f"{e.name:14}{e.lr:7.0e}{edge}  {float(e.test_loss.mean()):.2f} ± {sd:.2f}             "
            f"{float(e.test_accuracy.mean()):.2f}"
        )
    return "\n".join(lines)
