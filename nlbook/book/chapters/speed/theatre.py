"""The kernel theatre: programs over chunks, what each reads and writes, what waits for what, and what it costs to
take every gradient of a chunk at the chunk's start.

On the stage stand 64 tokens of one head. A chunk needs three programs, one of each kind (an act): prepare (all at once), chain (one after the
other, since each reads the memory that the one before has written) and read. A step is a place in that order, not a
second: the products of a larger chunk are larger. The errors are measured (`chunk_error` of chapters/speed), the
counters counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nlbook.book.chapters.speed.chunking import CHUNKS, DIM, LENGTH, RULES, Cost, chunk_error
from nlbook.book.viz.spec import Facts, view
from nlbook.book.viz.state import Choice, Int, State
from nlbook.book.viz.style import COLORS, end_label, figure

STAGE = 64  # tokens on the stage
ACTS = {"prepare": COLORS["key"], "chain": COLORS["memory"], "read": COLORS["query"]}


@dataclass(frozen=True)
class Part:
    """One program on the stage: when it can start, for which tokens, what it waits for, loads and stores."""

    act: str
    chunk: int
    step: int
    tokens: tuple[int, int]
    waits: tuple[str, ...]
    loads: str
    stores: str

    @property
    def name(self) -> str:
        return f"{self.act} {self.chunk}"

    def told(self) -> str:
        waits = f"waits for {' and '.join(self.waits)}; " if self.waits else "waits for nobody; "
        return f"{self.name}: {waits}loads {self.loads}; stores {self.stores}"


def programs(chunk: int, rule: str, tokens: int = STAGE) -> list[Part]:
    """All programs of the chunks of one head, each at the first step at which nothing is missing.

    exact, eq. 93: `prepare` solves the triangular system, so that a row written is E = U + R S. frozen: there is no
    system, the rows are E = eta (V - K S). In all three the chain is two products a chunk.
    """
    solved = "U and R, rows of the solved system" if rule != "frozen" else "U and R, the scaled rows of v and k"
    parts = []
    for n in range(tokens // chunk):
        span = (n * chunk, (n + 1) * chunk)
        text = f"tokens {span[0]} to {span[1] - 1}" if chunk > 1 else f"token {span[0]}"
        before = (f"chain {n - 1}",) if n else ()
        parts += [
            Part("prepare", n, 0, span, (), f"k, v of {text}", solved),
            Part(
                "chain",
                n,
                n + 1,
                span,
                (f"prepare {n}", *before),
                f"U, R, k and the memory S{n}",
                f"the rows E and S{n + 1}",
            ),
            Part("read", n, n + 2, span, (f"chain {n}",), f"q, k of {text}, S{n} and E", f"y of {text}"),
        ]
    return parts


def facts(state: Any) -> dict[str, float]:
    """chunks, steps: programs of one act on the stage, places in the order. waits: chain steps of the whole sequence.
    intensity: FLOPs a byte, the memory read and written once a chunk. flops: how many times the FLOPs of C = 1.
    error: of the last state, mean of 8 seeds; error_percent; error_2 ... error_64 in percent.
    """
    C, eta = int(state.C), float(state.eta)
    curve = {f"error_{c}": 100 * float(chunk_error(state.rule, eta, c).mean()) for c in CHUNKS[1:]}
    here = float(chunk_error(state.rule, eta, C).mean())
    one = Cost(1, DIM)
    return {
        "chunks": STAGE // C,
        "steps": max(p.step for p in programs(C, state.rule)) + 1,
        "waits": LENGTH // C,
        "intensity": Cost(C, DIM).intensity,
        "flops": Cost(C, DIM).flops / C / one.flops,
        "error": here,
        "error_percent": 100 * here,
        **curve,
    }


def percent(x: float) -> str:
    return "0 %" if x < 1e-9 else f"{x:.0f} %" if x >= 10 else f"{x:.2g} %"


def alt(state: Any, f: Facts) -> str:
    rounding, off = " up to rounding" if f["error"] < 1e-9 else "", percent(f["error_percent"])
    return (
        f"Kernel theatre: 64 tokens in {f['chunks']:.0f} chunks of {state.C}, whose programs form a staircase of "
        f"{f['steps']:.0f} steps. Rule {state.rule}, rate {state.eta:g}: the state is {off} "
        f"off the token loop's{rounding}, with {f['waits']:.0f} chain steps for 256 tokens and "
        f"{f['intensity']:.1f} FLOP a byte."
    )


def describe(state: Any, f: Facts) -> str:
    seen = [p.told() for p in programs(int(state.C), state.rule) if p.chunk == looked_at(state)]
    return f"{alt(state, f)} {'. '.join(seen)}."


def looked_at(state: Any) -> int:
    """The chunk whose programs are told: that of the token which the reader looks at."""
    return int(state.token) // int(state.C)


def stage(ax: Axes, state: Any) -> None:
    """Programs as blocks: tokens from top to bottom, the order of what must wait from left to right."""
    C, chosen = int(state.C), looked_at(state)
    parts = programs(C, state.rule)
    for act, color in ACTS.items():
        blocks = [p for p in parts if p.act == act]
        for shade, some in (
            (0.55, [p for p in blocks if p.chunk != chosen]),
            (1.0, [p for p in blocks if p.chunk == chosen]),
        ):
            ax.add_collection(
                PatchCollection(
                    [Rectangle((p.step, p.tokens[0]), 1, C) for p in some],
                    facecolor=color,
                    alpha=shade,
                    edgecolor="white",
                    lw=0.8 if C > 1 else 0.2,
                )
            )
    steps = max(p.step for p in parts) + 1
    wide = max(24, steps + 1)
    if C > 2:
        for n in range(1, STAGE // C):  # S goes from chain to chain
            ax.annotate(
                "",
                (n + 1.5, n * C + 0.3 * C),
                (n + 0.8, n * C - 0.3 * C),
                arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 1, "shrinkA": 0, "shrinkB": 0},
            )
    ax.set(
        xlim=(-0.015 * wide, wide),
        ylim=(STAGE, 0),
        yticks=range(0, STAGE + 1, 16),
        xlabel="steps that wait for each other",
        ylabel="token",
    )
    ax.set_title("the stage: 64 tokens of one head")
    ax.grid(False)
    x, y = (0.42, 6) if steps < 12 or steps > 30 else (0.5, 3)
    for i, (act, says) in enumerate(
        (("prepare", "all at once"), ("chain", "in turn: S goes down the stairs"), ("read", "when its S is there"))
    ):
        ax.text(x * wide, y + 5 * i, "■", color=ACTS[act], fontsize=11, va="center")
        ax.text((x + 0.04) * wide, y + 5 * i, f"{act}: {says}", color="#333333", fontsize=9, va="center")
    chunks = STAGE // C
    ax.text(
        x * wide,
        y + 15,
        f"{chunks} of each kind, {steps} steps",
        fontsize=9,
        va="center",
        weight="bold",
    )
    ax.text(x * wide, y + 20, "strong: the chunk you look at", fontsize=9, va="center", color="#333333")


def errors(ax: Axes, state: Any, f: Facts) -> None:
    """Error of the last state in percent against the chunk, this rule's in colour, the other's beside it."""
    eta, floor = float(state.eta), 0.1
    for rule in RULES[1:]:
        mine = rule == state.rule
        y = [100 * float(chunk_error(rule, eta, c).mean()) for c in CHUNKS[1:]]
        ax.plot(
            CHUNKS[1:],
            y,
            color=COLORS["error"] if mine else COLORS["control"],
            marker=".",
            lw=2 if mine else 1.2,
            ls="-" if mine else "--",
            zorder=3 if mine else 2,
        )
        other = {"frozen": "eq. 93", "eq. 93": "frozen"}
        if mine or state.rule == "exact":
            end_label(ax, CHUNKS[-1], y[-1], rule, COLORS["error"] if mine else "#6E6E6E")
        elif abs(y[-1] / f["error_64"] - 1) > 0.8:
            end_label(ax, CHUNKS[-1], y[-1], other[state.rule], "#6E6E6E")
    ax.axhline(floor, color=COLORS["value"], lw=4 if state.rule == "exact" else 2)
    ax.text(
        1,
        floor * 1.35,
        "exact: the chunk form of the delta rule, 0 up to rounding",
        color=COLORS["value"],
        fontsize=8.5,
        va="bottom",
    )
    at = max(f["error_percent"], floor)
    ax.plot(
        [int(state.C)], [at], "o", ms=8, color=COLORS["value"] if state.rule == "exact" else COLORS["error"], zorder=4
    )
    side = "right" if int(state.C) >= 16 else "left"
    up = 7 if at > floor else 16
    ax.annotate(
        percent(f["error_percent"]),
        (int(state.C), at),
        (-9 if side == "right" else 9, up),
        ha=side,
        textcoords="offset points",
        fontsize=11,
        weight="bold",
        color="#333333",
    )
    ax.set(
        xscale="log",
        yscale="log",
        ylim=(floor, 3e4),
        xlim=(0.9, 64),
        xticks=CHUNKS,
        xticklabels=CHUNKS,
        yticks=[1, 10, 100, 1000],
        yticklabels=["1 %", "10 %", "100 %", "1000 %"],
    )
    ax.set_title(f"how far the state is from the token loop's (rate {eta:g})")
    ax.minorticks_off()


def counters(ax: Axes, state: Any, f: Facts) -> None:
    """What a larger chunk buys: fewer steps that wait, more FLOPs for each byte."""
    C = int(state.C)
    for y, here, says, color in (
        ([LENGTH / c for c in CHUNKS], f["waits"], "chain steps for 256 tokens", COLORS["memory"]),
        ([Cost(c, DIM).intensity for c in CHUNKS], f["intensity"], "FLOPs for each byte", COLORS["rate"]),
    ):
        ax.plot(CHUNKS, y, color=color, marker=".")
        ax.plot([C], [here], "o", ms=8, color=color, zorder=4)
        low = y[0] < 10  # the counter that rises
        shown = f"{here:.1f}" if low and here < 10 else f"{here:.0f}"
        above = low == (C > 16)
        ax.annotate(
            shown,
            (C, here),
            (-9 if C >= 16 else 9, 7 if above else -8),
            ha="right" if C >= 16 else "left",
            textcoords="offset points",
            fontsize=10.5,
            weight="bold",
            color=color,
            va="center",
        )
        ax.text(2.6, 0.55 if low else 400, says, color=color, fontsize=9, ha="left", va="center")
    ax.set(
        xscale="log",
        yscale="log",
        xlim=(0.9, 64),
        ylim=(0.2, 900),
        xticks=CHUNKS,
        xticklabels=CHUNKS,
        yticks=[1, 10, 100],
        yticklabels=["1", "10", "100"],
        xlabel="tokens a chunk, C",
    )
    ax.minorticks_off()


@view(
    "theatre",
    title="Kernel theatre: what waits for what, and what freezing costs",
    task="On the stage each rectangle is a program: its height are the tokens it works for, its column says what it must "
    "wait for. Predict first: at a rate of 0.1 and chunks of 64, how far is the state from the token loop's when every "
    "gradient of a chunk is taken at its start? Then move the chunk and the rate. Which counters get better as "
    "the error grows?",
    answer="At rate 0.1 the error is 2, 3, 5, 8, 14 and 26 % for chunks of 2, 4, 8, 16, 32 and 64; at 0.5 it is 10, "
    "18, 31, 53, 112 and 657 %: the frozen step is then too large and the memory explodes. The counters move "
    "the other way: from 256 steps that wait and 0.7 FLOP a byte at C = 1 to 4 steps and 35 FLOP a byte at "
    "C = 64. The factor of eq. 93 keeps the error bounded, 147 % in place of 657. The delta rule, linear in the "
    "memory, needs no freezing at all: its chunk form is exact at every C.",
    params=[
        Choice("C", 16, CHUNKS, label="tokens a chunk", slider=True),
        Choice("eta", 0.1, [0.05, 0.1, 0.2, 0.5, 1.0], label="rate η", slider=True),
        Choice("rule", "frozen", RULES, label="rule"),
        Int("token", 20, 0, STAGE - 1, label="look at token"),
    ],
    landmarks={
        "token by token": "C=1",
        "one program for 64 tokens": "C=64",
        "a large rate": "C=64,eta=0.5",
        "the same with the factor of eq. 93": "C=64,eta=0.5,rule=eq. 93",
        "exact": "C=64,eta=0.5,rule=exact",
    },
    alt=alt,
    facts=facts,
    describe=describe,
)
def draw(state: State) -> Figure:
    """The stage with its staircase, the error against the chunk, the counters, and what one chunk's programs do."""
    f = facts(state)
    fig = figure(10, 5.2, layout=None)
    left, top, low = (
        fig.add_axes(box) for box in ((0.06, 0.31, 0.38, 0.62), (0.56, 0.64, 0.36, 0.29), (0.56, 0.28, 0.36, 0.27))
    )
    stage(left, state)
    errors(top, state, f)
    counters(low, state, f)
    told = [p for p in programs(int(state.C), state.rule) if p.chunk == looked_at(state)]
    for i, p in enumerate(told):
        fig.text(0.06, 0.125 - 0.045 * i, "■", fontsize=11, color=ACTS[p.act], va="center")
        fig.text(0.078, 0.125 - 0.045 * i, p.told(), fontsize=9, color="#333333", va="center")
    return fig
