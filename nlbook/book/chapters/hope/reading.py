"""A trained Hope reads a stream of documents: which part moves, and what it would answer if it were asked now.

One part after the other can be held at its start while the rest go on: that is how one sees what each of them carries.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from nlbook.book.chapters.hope import parts, talker
from nlbook.book.chapters.hope.figures import KEYS, KINDS, NAMES
from nlbook.book.viz.spec import Facts, view
from nlbook.book.viz.state import Choice, Int, State
from nlbook.book.viz.style import COLORS, figure
from nlbook.hope import Hope

LANE = dict(zip(parts.PARTS, ("memory", "key", "value", "rate", "objective", "level3"), strict=True))
FOUR = ("M_k", "M_v", "M_eta", "M_alpha")
SHOW = {"the level": ("level",), "the level and M memory": ("level", "M_mem"), "every part": parts.PARTS}
HOLD = {"nothing": (), **{n: (n,) for n in parts.PARTS}, "the other four M": FOUR, "all": parts.PARTS}


@lru_cache(maxsize=1)
def model() -> Hope:
    return talker.talker()


@lru_cache(maxsize=64)
def watched(hold: str, stream: int) -> parts.Reading:
    """The reading of a stream with these parts held at their start."""
    return parts.watch(parts.held(model(), *HOLD[hold]), talker.LANGUAGE, stream)


def later(r: parts.Reading) -> Any:
    """The probabilities (moment, key) from the second document on."""
    return r.known[r.times > talker.LANGUAGE.document_length]


def facts(state: Any) -> dict[str, float]:
    """moved_*: distance of a part from its start at the end, relative to the start. known_*: probability of the true
    value if a key of this kind is asked, mean from the second document on over what was said before.
    """
    r = watched(state.hold, state.stream)
    known = {f"known_{kind.replace(' ', '_')}": later(r)[:, 2 * i : 2 * i + 2] for i, kind in enumerate(KINDS)}
    return {f"moved_{n}": float(v[-1]) for n, v in r.moved.items()} | {n: float(x.nanmean()) for n, x in known.items()}


def alt(state: Any, f: Facts) -> str:
    known = ", ".join(f"{KEYS[kind]} {f['known_' + kind.replace(' ', '_')]:.2f}" for kind in KINDS)
    return (
        f"A small Hope reads eight documents; held at its start: {state.hold}. A lane a part shows when it moves, here "
        f"{state.show}. "
        "Below, a row a key: the probability of its true value, moment by moment, with a line where a document ends. "
        f"From the second document on it is, on average: {known}."
    )


@view(
    "reading",
    title="Hope reads eight documents: which part moves, and what does it know now?",
    task="Take the three steps: a part more in each, and the keys that it serves. Then hold the level. Which rows change, "
    "and where? Then hold M memory. Then the other four, which move as well.",
    answer="Without the level A and B are forgotten wherever a document ends, and known again only when the document "
    "says them; nothing else changes. Without M memory d, e, x and y are not known at all, and A and B a little less. "
    "Without the other four nothing changes, although they move: moving is not knowing.",
    params=[
        Choice("hold", "nothing", tuple(HOLD), label="hold at its start"),
        Int("stream", 0, 0, 9, label="stream"),
        Choice("show", "every part", tuple(SHOW), label="show"),
    ],
    landmarks={
        "1. the level alone": "show=the level",
        "2. and M memory": "show=the level and M memory",
        "3. every part": "show=every part",
        "hold the level": "hold=level",
        "hold M memory": "hold=M_mem",
        "hold the other four": "hold=the other four M",
    },
    alt=alt,
    facts=facts,
)
def draw(state: State) -> Figure:
    """Lanes of the parts, and the probability of the truth for every key."""
    f, r = facts(state), watched(state.hold, state.stream)
    language, names = talker.LANGUAGE, [n for n in parts.PARTS if n in SHOW[state.show]]
    end, keys = int(r.times[-1]), language.keys[: 2 if len(names) == 1 else 6]  # the level serves A and B
    fig = figure(9, 4.6, layout=None)
    lanes, known = fig.add_axes((0.145, 0.56, 0.72, 0.37)), fig.add_axes((0.145, 0.11, 0.72, 0.33))
    edges = [0, *r.times.tolist()]
    for i, name in enumerate(names):
        y, step, color = len(names) - 1 - i, r.step[name], COLORS[LANE[name]]
        lanes.axhline(y, color=COLORS["grid"], lw=1)
        height = 0.8 * step / max(float(step.max()), 1e-9)
        widths = [b - a - 0.6 for a, b in pairwise(edges)]
        lanes.bar(edges[:-1], height.numpy(), width=widths, align="edge", bottom=y, color=color)
        moved = f[f"moved_{name}"]
        lanes.text(
            end + 2, y + 0.3, "held" if moved == 0 else f"moved {moved:.2f}", va="center", fontsize=9, color=color
        )
    lanes.set(xlim=(0, end), ylim=(-0.1, len(names)), xticks=[])
    lanes.set_yticks([len(names) - 1 - i + 0.3 for i in range(len(names))], [NAMES[n] for n in names])
    lanes.set_title("how far each part moves, each lane by its own largest move", fontsize=10)
    shade = LinearSegmentedColormap.from_list("known", ["white", COLORS["memory"]])
    known.pcolormesh(edges, range(len(keys) + 1), r.known[:, : len(keys)].mT.numpy(), cmap=shade, vmin=0, vmax=1)
    known.patch.set(hatch="////", edgecolor=COLORS["control"])
    for k, mean in enumerate(later(r).nanmean(0).tolist()[: len(keys)]):
        known.text(end + 2, k + 0.5, f"{mean:.2f}", va="center", fontsize=9, color=[*KINDS.values()][k // 2])
    known.set(xlim=(0, end), ylim=(len(keys), 0), xlabel="tokens read; a line where a document ends")
    known.set_yticks([k + 0.5 for k in range(len(keys))], [f"{c}  {[*KINDS][i // 2]}" for i, c in enumerate(keys)])
    known.set_title(
        "probability of the true value, if it were asked now (hatched: not said yet); mean from document 2 on",
        fontsize=10,
    )
    for ax in (lanes, known):
        for document in range(1, language.documents):
            ax.axvline(document * language.document_length, color="black", lw=1, ls=":")
        ax.grid(False)
    return fig
