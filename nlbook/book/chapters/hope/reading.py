"""A model reads: which memory moves, what surprises it, and what it would answer if it were asked now.

The model is the small Hope of chapter 07, trained on documents of facts at three time scales (data/hope_reader). One
memory after the other can be held at its start while the rest go on: that is how one sees what each of them carries.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from nlbook.book.chapters.hope import capstone, probes
from nlbook.book.viz.spec import Facts, view
from nlbook.book.viz.state import Choice, Int, State
from nlbook.book.viz.style import COLORS, figure
from nlbook.hope import Hope

PAIRS, EVERY = 64, 2
PARTS = ("M_mem", "M_k", "M_v", "M_eta", "M_alpha", "C8", "C32")
NAMES = {
    "M_mem": "M memory",
    "M_k": "M k",
    "M_v": "M v",
    "M_eta": "M η",
    "M_alpha": "M α",
    "C8": "MLP, every 8",
    "C32": "MLP, every 32",
}
LANE = {
    "M_mem": "memory",
    "M_k": "key",
    "M_v": "value",
    "M_eta": "rate",
    "M_alpha": "objective",
    "C8": "level1",
    "C32": "level3",
}
KINDS = {"static": COLORS["baseline"], "document": COLORS["memory"], "fast": COLORS["error"]}
KNOWN = LinearSegmentedColormap.from_list("known", ["white", COLORS["memory"]])


@lru_cache(maxsize=1)
def model() -> Hope:
    return capstone.trained()


@lru_cache(maxsize=64)
def watched(hold: str, document: int) -> probes.Reading:
    """The reading of a document with these memories held at their start."""
    held = {"nothing": (), "all": PARTS, "the five M": PARTS[:5], "both MLPs": PARTS[5:]}.get(hold, (hold,))
    return probes.watch(probes.frozen(model(), *held), document, PAIRS, EVERY)


def facts(state: Any) -> dict[str, float]:
    """moved_*: distance of a memory from its start at the end, relative to the start. known_*: probability of the true
    value, if asked at the cursor, mean over the keys of a kind that have been used (over all of them before the first).
    surprise_*: nats above the ideal reader, mean over the first 8 values and over the last 32.
    """
    r = watched(state.hold, state.document)
    i = min(range(len(r.times)), key=lambda j: abs(int(r.times[j]) - state.t))
    out = {f"moved_{n}": float(v[-1]) for n, v in r.moved.items()}
    for kind in KINDS:
        mine = torch.tensor([k == kind for k in probes.KIND])
        met = mine & r.seen[i]
        out[f"known_{kind}"] = float(r.known[i][met if met.any() else mine].mean())
    return out | {
        "surprise_first": float(r.surprise[:8].mean()),
        "surprise_last": float(r.surprise[-32:].mean()),
        "cursor": float(r.times[i]),
    }


def alt(state: Any, f: Facts) -> str:
    moved = max(PARTS, key=lambda n: f[f"moved_{n}"])
    known = ", ".join(f"{k} {f[f'known_{k}']:.2f}" for k in KINDS)
    return (
        f"A small Hope reads {2 * PAIRS} tokens; held at its start: {state.hold}. Seven lanes show when each "
        f"memory moves; {NAMES[moved]} ends farthest from its start ({f[f'moved_{moved}']:.2f}). After "
        f"{f['cursor']:.0f} tokens it would give the true value with probability: {known}. Surprise above the "
        f"ideal reader: {f['surprise_first']:.2f} nats in the first 8 values, {f['surprise_last']:.2f} in the last "
        "32."
    )


@view(
    "reading",
    title="A model reads: which level moves, and what does it know now?",
    task="Hold one memory after the other at its start. Which one takes the facts of the document with it? Which ones "
    "does nobody miss, although they move? Then let all of it move again, and look at the crosses: slips of the "
    "pen.",
    answer="M memory. Held at its start, the facts of this document fall to chance (document 0.17, fast 0.22; one in "
    "five is 0.20) and the static ones stay (0.96). Each of the six others moves as well, M k by a third of its "
    "length; hold any one of them, and what is known changes by less than 0.05. So moving is not knowing. Slips "
    "at static keys (tokens 34, 70) are ignored, one at a fast key (44) is taken for news, as it should be. The "
    "one at d (82) is believed although d was the same seven times before: the ideal reader would not. The "
    "document is longer by then than any in training.",
    params=[
        Choice("hold", "nothing", ("nothing", *PARTS, "the five M", "both MLPs", "all"), label="hold at its start"),
        Int("t", 128, 4, 128, step=4, label="ask after t tokens"),
        Int("document", 0, 0, 9, label="document"),
    ],
    landmarks={
        "all of it moves": "hold=nothing",
        "hold the memory": "hold=M_mem",
        "hold both MLPs": "hold=both MLPs",
        "nothing moves": "hold=all",
    },
    twin=["hold the memory", "nothing moves"],
    alt=alt,
    facts=facts,
)
def draw(state: State) -> Figure:
    """Lanes of the memories, surprise at each value, and the probability of the truth for every key."""
    f, r = facts(state), watched(state.hold, state.document)
    end = 2 * PAIRS
    fig = figure(9, 5.6, layout=None)
    places = ((0.565, 0.385), (0.405, 0.115), (0.09, 0.265))
    lanes, strip, known = (fig.add_axes((0.145, y, 0.72, h)) for y, h in places)
    for i, name in enumerate(PARTS):
        y, color = len(PARTS) - 1 - i, COLORS[LANE[name]]
        step = r.step[name]
        lanes.axhline(y, color=COLORS["grid"], lw=1)
        height = 0.8 * step / max(float(step.max()), 1e-9)
        lanes.bar((r.times - EVERY).numpy(), height.numpy(), width=2 * EVERY - 0.6, bottom=y, color=color)
        moved = f[f"moved_{name}"]
        said = "held" if moved == 0 else f"moved {moved:.3f}" if moved < 0.1 else f"moved {moved:.2f}"
        lanes.text(end + 1.5, y + 0.3, said, va="center", fontsize=9, color=color)
    middles = [len(PARTS) - 1 - i + 0.3 for i in range(len(PARTS))]
    lanes.set(xlim=(0, end), ylim=(-0.1, len(PARTS)), yticks=middles, xticks=[])
    lanes.set_yticklabels([NAMES[n] for n in PARTS])
    lanes.set_title("how far each memory moves (each lane by its own largest move)", fontsize=10)
    at = 2 * torch.arange(PAIRS) + 1
    for j, (kind, color) in enumerate(KINDS.items()):
        mine = r.kinds == j
        strip.bar(at[mine].numpy(), r.surprise[mine].clamp(-0.5, 3).numpy(), width=1.4, color=color)
        strip.text(end + 1.5, 2.4 - 1.15 * j, kind, color=color, fontsize=9, va="center")
    strip.set(xlim=(0, end), ylim=(-0.6, 3.05), xticks=[], yticks=[0, 3])
    strip.set_title("surprise at each value: nats above the ideal reader", fontsize=10)
    picture = r.known.mT.clone()
    known.imshow(
        torch.where(r.seen.mT, picture, torch.nan).numpy(),
        cmap=KNOWN,
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
        extent=(0, end, probes.K - 0.5, -0.5),
    )
    known.set_facecolor(COLORS["grid"])
    keys = r.tokens[0::2]
    known.plot(at[~r.slips].numpy(), keys[~r.slips].numpy(), ".", ms=3, color="white", mec=COLORS["baseline"], mew=0.5)
    known.plot(at[r.slips].numpy(), keys[r.slips].numpy(), "x", ms=5, color=COLORS["error"], mew=1.5)
    known.axvline(f["cursor"], color=COLORS["error"], lw=2, clip_on=False)
    for ax in (lanes, strip, known):
        ax.axvline(2 * capstone.PAIRS, color="black", lw=1, ls=":")
    i = int((r.times == int(f["cursor"])).nonzero()[0, 0])
    for k in range(probes.K):
        said = f"{float(r.known[i, k]):.2f}" if r.seen[i, k] else "not met"
        known.text(end + 1.5, k, said, va="center", fontsize=9, color=KINDS[probes.KIND[k]])
    known.set(
        xlim=(0, end),
        yticks=range(probes.K),
        xlabel="tokens read   (dot: the key is used; cross: with a slip; dotted: end of a training document)",
    )
    known.set_yticklabels([f"{c} {k}" for c, k in zip(probes.LETTERS, probes.KIND, strict=True)], fontsize=9)
    known.set_title("probability of the true value, if it were asked now (grey: not met yet)", fontsize=10)
    for ax in (lanes, strip, known):
        ax.grid(False)
    return fig
