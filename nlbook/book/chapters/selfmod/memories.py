"""Five memories: who moves when a text is read that changes its rule, and what each of them may not be without."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nlbook.book.chapters.selfmod.five_memories import CASES, LENGTH, Five, record
from nlbook.book.viz.spec import Facts, view
from nlbook.book.viz.state import Choice, Int, State
from nlbook.book.viz.style import COLORS, figure
from nlbook.titans import BOXES

LANE = {
    "mem": (r"$M_{mem}$", "memory"),
    "k": (r"$M_k$", "key"),
    "v": (r"$M_v$", "value"),
    "eta": (r"$M_\eta$", "rate"),
    "alpha": (r"$M_\alpha$", "objective"),
}
WINDOW, TOP, FAR = 8, 0.75, 8.0  # tokens in a mean; where the axes end


def of_state(state: Any) -> Five:
    return record(state.case, state.chunk, state.switch, state.seed)


def facts(state: Any) -> dict[str, float]:
    """moved_*_before, _after: mean movement over the 8 tokens on either side of the switch; jump_*: their quotient.

    away_*: |M - M_0| at the end. written_*: sum over all tokens. error_*: mean |M(k) - v^|. share: written / moved, over all memories and tokens.
    cosine: of k and v. exploded: the token, 0 if none; what would come after it is inf. largest: the largest movement.
    """
    r, s = of_state(state), state.switch
    out = {
        "cosine": r.cosine,
        "exploded": float(r.exploded or 0),
        "switch": float(s),
        "share": float(r.written.nansum() / r.moved.nansum().clamp_min(1e-30)),
        "largest": float(np.nanmax(r.moved)),
    }

    def told(x: float) -> float:
        return x if math.isfinite(x) else math.inf

    for i, b in enumerate(BOXES):
        before, after = (float(r.moved[at : at + WINDOW, i].mean()) for at in (s - WINDOW, s))
        jump = after / before if before > 0 and math.isfinite(after) else 1.0
        out |= {
            f"moved_{b}_before": told(before),
            f"moved_{b}_after": told(after),
            f"jump_{b}": jump,
            f"away_{b}": told(float(r.away[-1, i])),
            f"written_{b}": float(r.written[:, i].nansum()),
            f"error_{b}": float(r.error[:, i].nanmean()),
        }
    return out


def verdict(f: Facts) -> str:
    """One sentence about the run."""
    if f["exploded"]:
        return f"After token {f['exploded']:.0f} a memory is larger than 1000: the text cannot be read on"
    jumps = ", ".join(f"{b} {f[f'jump_{b}']:.1f}" for b in BOXES)
    still = [b for b in BOXES if f[f"away_{b}"] == 0]
    if still:
        return f"M_{still[0]} never moves. Movement after the switch over movement before it: {jumps}"
    if f["share"] < 0.05:
        return f"All move, but k = v (cosine {f['cosine']:.3f}): {100 * f['share']:.1f} % of all movement is written"
    share = 100 * f["share"]
    return f"Movement after the switch over movement before it: {jumps}; {share:.0f} % of all movement is written"


def alt(state: Any, f: Facts) -> str:
    return (
        f"Five lanes, one a memory, with a bar for each of {LENGTH} tokens: how far it moves, and the part that is "
        f"written. Case: {state.case}; the words change after token {state.switch}. {verdict(f)}."
    )


@view(
    "memories",
    title="Five memories reading: who moves, and what is only forgetting?",
    task="Nobody has trained this layer. It reads four words over and over; at the dotted line four other words come. "
    "Predict: which of the five memories move more after it? Then leave out one thing at a time, with the buttons.",
    answer="All five, about twice as much as the known words just before (1.9 to 2.6 times): they share a key and a "
    "rate. But M_mem, M_k and M_v are written, while M_eta and M_alpha, whose errors are small, are hardly more than "
    "forgotten. And the traps: where k = v, only 0.2 % of all movement is written. A linear M_mem that starts at zero "
    "never moves. With v of any length the layer explodes at the fifth token. In chunks of 16, M_k and M_v move no more "
    "after the switch than before: in text A they had not come to rest.",
    params=[
        Choice("case", "usual", CASES, label="case"),
        Choice("chunk", 1, (1, 4, 16), label="chunk (tokens)", slider=True),
        Int("switch", 32, 16, 48, label="last token of text A"),
        Int("seed", 0, 0, 9, more=True),
    ],
    landmarks={
        "usual": "case=usual",
        "k = v": "case=k-is-v",
        "v of any length": "case=free-v",
        "linear, from zero": "case=zero",
        "given values": "case=given-v",
        "chunks of 16": "chunk=16",
        "an early switch": "switch=16",
    },
    alt=alt,
    facts=facts,
)
def draw(state: State) -> Figure:
    """One lane a memory: movement per token (pale) and the written part (strong); right, how far from the start."""
    f, r = facts(state), of_state(state)
    fig = figure(9, 4.3, layout=None)
    tokens, n = np.arange(1, LENGTH + 1), len(BOXES)
    ax, side = fig.add_axes((0.085, 0.25, 0.66, 0.68)), fig.add_axes((0.78, 0.25, 0.2, 0.68))
    for i, b in enumerate(BOXES):
        name, color, base = LANE[b][0], COLORS[LANE[b][1]], n - 1 - i
        moved, written = (np.nan_to_num(x[:, i].numpy()).clip(0, TOP) / TOP * 0.85 for x in (r.moved, r.written))
        ax.vlines(tokens, base, base + moved, color=color, alpha=0.3, lw=6)
        ax.vlines(tokens, base, base + written, color=color, lw=3)
        ax.axhline(base, color="#555555", lw=0.6)
        ax.text(-1, base + 0.35, name, ha="right", va="center", fontsize=12, color=color)
        end = f[f"away_{b}"]
        if math.isfinite(end):
            side.barh([base + 0.35], [min(end, FAR)], color=color, height=0.4)
            side.text(min(end, FAR) + 0.2, base + 0.35, f"{end:.1f}", va="center", fontsize=9)
        else:
            side.text(0.2, base + 0.35, "exploded", va="center", fontsize=9, color=COLORS["error"])
    for x, words in ((state.switch / 2, "text A"), ((LENGTH + state.switch) / 2, "text B")):
        ax.text(x, n + 0.08, words, ha="center", va="bottom", fontsize=9)
    if r.exploded:
        ax.axvspan(r.exploded - 0.5, LENGTH + 0.5, color=COLORS["error"], alpha=0.12, lw=0)
        ax.text(
            LENGTH,
            n - 0.45,
            f"> 1000 after token {r.exploded}",
            ha="right",
            va="center",
            fontsize=10,
            weight="bold",
            color=COLORS["error"],
        )
    low = fig.add_axes((0.085, 0.1, 0.66, 0.12))
    low.plot(tokens, r.eta, color=COLORS["rate"], lw=1.4, marker=".", ms=3)
    for a in (ax, low):
        a.axvline(state.switch + 0.5, color="black", lw=1, ls=":")
        a.set_xlim(0.2, LENGTH + 0.8)
        a.grid(False)
    ax.set(ylim=(-0.02, n), yticks=[], xticks=[])
    ax.spines["left"].set_visible(False)
    side.set(xlim=(0, FAR * 1.2), ylim=(-0.02, n), yticks=[], xticks=[])
    side.grid(False)
    side.set_title("how far from its start", fontsize=9)
    low.set(
        ylim=(0, 0.55),
        yticks=[0, 0.5],
        xlabel="token    (pale: moved, strong: written)",
        xticks=[1, state.switch, LENGTH],
    )
    low.set_yticklabels(["0", ".5"], fontsize=8)
    low.text(-2.2, 0.27, r"rate $\eta_t$", ha="right", va="center", fontsize=10, color=COLORS["rate"])
    return fig
