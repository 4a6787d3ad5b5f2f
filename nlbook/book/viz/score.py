"""The score of updates: one lane a level, a note at each write; attention on top, frozen weights at the bottom.

The default run is real: a stream of pairs (k, A k) that changes its task half-way, read by one linear memory a level.
A level of period C collects the gradients of C tokens and then writes once (eq. 71). `play(trace)` plays any other
run: a nlbook.levels.Trace, or an object with the same `levels`, `periods`, `updates` and `signal`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import anywidget
import torch
import traitlets as tr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nlbook.book.data.recall import unit
from nlbook.book.viz.picture import JS, image_bundle
from nlbook.book.viz.spec import Facts, checked_alt, view
from nlbook.book.viz.state import Choice, Int, Ints, State
from nlbook.book.viz.style import COLORS, book_style, css_size, figure, png
from nlbook.errors import generator, need

D = 8  # width of keys and values
SHARP = 0.02  # temperature of the attention lane


@dataclass(frozen=True)
class Lane:
    """One level. period: tokens between two writes (0: non-parametric, inf: never). updates: the tokens it wrote after.

    recall (len(updates) + 1, length): how well the weights before the first and after each write give back every token
    of the stream, in [0, 1]. weights (len(updates) + 1, rows, columns). signal: a number a token. Each may be missing.
    """

    name: str
    period: float
    updates: list[int]
    recall: Tensor | None = None
    weights: Tensor | None = None
    signal: Tensor | None = None

    @property
    def color(self) -> str:
        return COLORS["query"] if self.period == 0 else COLORS["frozen"]

    @property
    def words(self) -> str:
        if self.period == 0:
            return "every token, no weights"
        return "never writes" if math.isinf(self.period) else f"every {self.period:g} token{'s' * (self.period != 1)}"


@dataclass(frozen=True)
class Run:
    """Lanes from fast to slow over `length` tokens; `switch`: the first token of the second task, or 0."""

    lanes: list[Lane]
    length: int
    switch: int = 0
    unit: str = "token"
    colors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        learns = [lane for lane in self.lanes if 0 < lane.period < math.inf]
        ramp = {id(lane): COLORS[f"level{min(i + 1, 6)}"] for i, lane in enumerate(learns)}
        self.colors.extend(ramp.get(id(lane), lane.color) for lane in self.lanes)


def cosines(y: Tensor, v: Tensor) -> Tensor:
    """How well answers give back values: cosine, negative ones as 0."""
    return torch.nn.functional.cosine_similarity(y, v, dim=-1).clamp_min(0)


def level(k: Tensor, v: Tensor, C: int) -> Lane:
    """A linear memory that writes once in C tokens, the summed gradient of the last C at rate d / (d + C) (eq. 71).

    The rate keeps the step stable: the curvature of the summed loss is about C / d. A partial chunk at the end is
    carried, not written.
    """
    M = torch.zeros(D, D, dtype=k.dtype)
    weights, updates = [M], []
    for end in range(C, len(k) + 1, C):
        chunk, target = k[end - C : end], v[end - C : end]
        M = M - D / (D + C) * (chunk @ M.mT - target).mT @ chunk
        weights.append(M)
        updates.append(end)
    W = torch.stack(weights)
    return Lane(f"level C = {C}", C, updates, cosines(k @ W.mT, v), W)


def attention(k: Tensor, v: Tensor) -> Lane:
    """Softmax attention over all tokens so far (eq. 62): no weights; its memory is the cache, an entry more a token."""
    near = (k @ k.mT / SHARP).exp()  # (length of queries, length of cache)
    rows = [torch.zeros(len(k), dtype=k.dtype)]
    rows += [cosines(near[:, :t] @ v[:t] / near[:, :t].sum(1, keepdim=True), v) for t in range(1, len(k) + 1)]
    return Lane("attention", 0, list(range(1, len(k) + 1)), torch.stack(rows))


@lru_cache(maxsize=24)
def run(C: tuple[int, ...], T: int, stream: str, seed: int) -> Run:
    """T pairs of a random rotation A, the second half of another rotation B, read by every level."""
    g = generator(seed)
    A, B = (torch.linalg.qr(torch.randn(D, D, generator=g, dtype=torch.float64)).Q for _ in range(2))
    k = unit(torch.randn(256, D, generator=g, dtype=torch.float64))
    before = unit(torch.randn(256, D, generator=g, dtype=torch.float64))
    switch = T // 2 if stream == "two tasks" else 0
    v = k @ A.mT
    if switch:
        v = torch.cat([v[:switch], k[switch:] @ B.mT])
    frozen = level(before, before @ A.mT, 16)  # written before the stream begins, on task A
    assert frozen.weights is not None
    M = frozen.weights[-1:]
    k, v = k[:T], v[:T]
    last = Lane("frozen weights", math.inf, [], cosines(k @ M.mT, v), M)
    lanes = [attention(k, v), *(level(k, v, c) for c in sorted(C)), last]
    return Run(lanes, T, switch + 1 if switch else 0)


def of_trace(trace: Any) -> Run:
    """The lanes of a recorded trace, fast to slow: `levels` (names), `periods` and `updates` (by name or in order) and
    `signal` (level, time) if it has one.
    """

    def by_name(x: Any) -> list[Any]:
        return [x[n] for n in names] if isinstance(x, Mapping) else list(x)

    for attribute in ("levels", "periods", "updates"):
        need(hasattr(trace, attribute), "trace", type(trace).__name__, "an object with .levels, .periods, .updates")
    names = list(trace.levels)
    periods, updates = by_name(trace.periods), [sorted({int(t) for t in u}) for u in by_name(trace.updates)]
    need(
        len(periods) == len(updates) == len(names),
        "trace",
        f"{len(periods)} periods, {len(updates)} updates",
        f"one of each for its {len(names)} levels",
    )
    signal = getattr(trace, "signal", None)
    signal = None if signal is None else torch.as_tensor(signal, dtype=torch.float64)
    ends = [u[-1] for u in updates if u]
    length = max([getattr(trace, "length", 0), 1, *ends])
    lanes = [
        Lane(n, float(p), u, signal=None if signal is None else signal[i])
        for i, (n, p, u) in enumerate(zip(names, periods, updates, strict=True))
    ]
    lanes = [
        Lane(x.name, 0, list(range(1, length + 1)), signal=x.signal) if x.period == 0 and not x.updates else x
        for x in lanes
    ]
    return Run(sorted(lanes, key=lambda x: x.period), length, unit=str(getattr(trace, "unit", "token")))


# ---- numbers and words ----------------------------------------------------------------------------------------------
def of_state(state: Any) -> Run:
    return run(tuple(state.C), state.T, state.stream, state.seed)


def facts(state: Any) -> dict[str, float]:
    """notes_C: writes of the level of that period. writes_per_token: of all levels, notes over T; sum_inverse: sum 1/C.

    first_C, last_C (and attention, frozen): how well the lane's memory after the last token gives back the tokens of
    the first and of the second half of the stream (mean cosine, negative as 0).
    """
    r = of_state(state)
    found: dict[str, float] = {}
    learns = [lane for lane in r.lanes if 0 < lane.period < math.inf]
    for lane in r.lanes:
        label = f"{lane.period:g}" if lane in learns else lane.name.split()[0]
        assert lane.recall is not None
        found[f"notes_{label}"] = len(lane.updates)
        found[f"first_{label}"] = float(lane.recall[-1, : r.length // 2].mean())
        found[f"last_{label}"] = float(lane.recall[-1, r.length // 2 :].mean())
    found["writes_per_token"] = sum(len(lane.updates) for lane in learns) / r.length
    found["sum_inverse"] = sum(1 / lane.period for lane in learns)
    return found


def spoken(r: Run) -> str:
    def times(lane: Lane) -> str:
        n = len(lane.updates)
        at = f" at {', '.join(map(str, lane.updates))}" if 0 < n <= 4 else ""
        return f"{lane.name}: {n} note{'s' * (n != 1)}{at}"

    return (
        f"Score of {len(r.lanes)} lanes over {r.length} {r.unit}s, a note at each write. "
        + "; ".join(map(times, r.lanes))
        + "."
    )


def alt(state: Any, f: Facts) -> str:
    said = spoken(of_state(state))
    if state.stream == "two tasks":
        parts = [f"{n} {f[f'first_{n}']:.2f} and {f[f'last_{n}']:.2f}" for n in map(str, sorted(set(state.C)))]
        if parts:
            said += f" Recall of the first and the second task at the end, by period: {', '.join(parts)}."
    return said


# ---- the still picture ----------------------------------------------------------------------------------------------
def paint(r: Run) -> Figure:
    """All lanes at the end of the run: notes, and below them a strip that shows which tokens the lane gives back."""
    n = len(r.lanes)
    fig = figure(9, 0.62 + 0.68 * n, layout=None)
    height = fig.get_size_inches()[1]
    has_weights = any(lane.weights is not None for lane in r.lanes)
    ax = fig.add_axes((0.2, 0.42 / height, 0.7 if has_weights else 0.77, 0.68 * n / height))
    for i, (lane, color) in enumerate(zip(r.lanes, r.colors, strict=True)):
        y = n - 1 - i
        ax.plot([0.5, r.length + 0.5], [y + 0.3] * 2, color=COLORS["grid"], lw=1)
        mark, ms = ("|", 10) if len(lane.updates) > 60 else ("o", 7)
        ax.plot(lane.updates, [y + 0.3] * len(lane.updates), mark, color=color, ms=ms, clip_on=False)
        if lane.recall is not None:
            strip(ax, lane.recall[-1], y, color)
        elif lane.signal is not None:
            curve(ax, lane.signal, y, color)
        ax.text(
            -0.01,
            y + 0.36,
            lane.name,
            color=color,
            weight="bold",
            ha="right",
            va="center",
            fontsize=10,
            transform=ax.get_yaxis_transform(),
        )
        notes = f"{len(lane.updates)} note{'s' * (len(lane.updates) != 1)}"
        ax.text(
            -0.01,
            y + 0.06,
            f"{lane.words}: {notes}" if lane.period else lane.words,
            ha="right",
            va="center",
            fontsize=8.5,
            color="#333333",
            transform=ax.get_yaxis_transform(),
        )
    if r.switch:
        ax.axvline(r.switch - 0.5, color="black", lw=1, ls=":")
        ax.text(r.switch / 2, n - 0.28, "task A", ha="center", fontsize=9)
        ax.text((r.switch + r.length) / 2, n - 0.28, "task B", ha="center", fontsize=9)
    ax.set(xlim=(0, r.length + 1), ylim=(-0.35, n - 0.05), yticks=[])
    strips = "; strip: how well the lane's memory at the end gives back each one" * (r.lanes[0].recall is not None)
    ax.set_xlabel(f"{r.unit}   (note: a write{strips})", fontsize=9)
    ax.grid(False)
    ax.spines["left"].set_visible(False)
    if has_weights:
        side = fig.add_axes((0.91, 0.42 / height, 0.68 / 9, 0.68 * n / height))
        for i, lane in enumerate(r.lanes):
            if lane.weights is not None:
                y = n - 1 - i
                side.imshow(
                    lane.weights[-1].numpy(), cmap="RdBu_r", vmin=-0.7, vmax=0.7, extent=(0.1, 0.85, y - 0.22, y + 0.53)
                )
        side.text(0.47, n - 0.28, "weights", ha="center", fontsize=9)
        side.set(xlim=(0, 1), ylim=(-0.35, n - 0.05), aspect="auto")
        side.set_axis_off()
    return fig


def strip(ax: Axes, recall: Tensor, y: float, color: str) -> None:
    rgb = torch.tensor([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)], dtype=recall.dtype)
    image = 1 - recall[None, :, None] * (1 - rgb) * 0.95  # (1, length, 3): white to the lane's colour
    end, low, high = len(recall) + 0.5, y - 0.16, y + 0.08
    ax.imshow(image.numpy(), extent=(0.5, end, low, high), aspect="auto", interpolation="nearest")
    ax.plot([0.5, end, end, 0.5, 0.5], [low, low, high, high, low], color=COLORS["grid"], lw=0.8)


def curve(ax: Axes, signal: Tensor, y: float, color: str) -> None:
    finite = signal[signal.isfinite()]
    if len(finite):
        span = float(finite.max() - finite.min()) or 1.0
        height = y - 0.2 + 0.3 * (signal - finite.min()) / span
        ax.step(range(len(signal)), height.numpy(), where="post", color=color, lw=1)


# ---- the moving picture ---------------------------------------------------------------------------------------------
class Score(anywidget.AnyWidget):
    """The score in motion: play, pause, step; the browser's half is js/score.js. `position` is shared both ways.

    Space plays and pauses, the arrow keys step, Home and End jump. Nobody who asks for reduced motion sees any.
    """

    _esm = JS / "score.js"
    _css = JS / "score.css"
    lanes: tr.List[Any] = tr.List().tag(sync=True)
    blob = tr.Bytes().tag(sync=True)
    length = tr.Int(1).tag(sync=True)
    switch = tr.Int(0).tag(sync=True)
    unit = tr.Unicode("token").tag(sync=True)
    alt = tr.Unicode().tag(sync=True)
    version = tr.Int(0).tag(sync=True)
    position = tr.Int(0).tag(sync=True)
    playing = tr.Bool(False).tag(sync=True)

    def __init__(self, data: Run) -> None:
        super().__init__()
        self.take(data)

    def take(self, data: Run) -> None:
        """Show another run."""
        self.run = data
        lanes: list[dict[str, Any]] = []
        blob = bytearray()
        for lane, color in zip(data.lanes, data.colors, strict=True):
            sent: dict[str, Any] = {
                "name": lane.name,
                "words": lane.words,
                "color": color,
                "updates": lane.updates,
                "weightless": lane.period == 0,
            }
            if lane.recall is not None:
                sent["recall"] = len(blob)
                blob += bytes((lane.recall * 255).round().to(torch.uint8).flatten().tolist())
            if lane.weights is not None:
                sent |= {"weights": len(blob), "rows": lane.weights.shape[1], "columns": lane.weights.shape[2]}
                blob += bytes((lane.weights / 0.7).clamp(-1, 1).mul(127).add(128).to(torch.uint8).flatten().tolist())
            if lane.signal is not None:
                sent["signal"] = [None if x != x else round(x, 5) for x in lane.signal.tolist()]
            lanes.append(sent)
        with self.hold_sync():
            self.set_trait("lanes", lanes)
            self.set_trait("blob", bytes(blob))
            self.set_trait("length", data.length)
            self.set_trait("switch", data.switch)
            self.set_trait("unit", data.unit)
            self.set_trait("alt", spoken(data))
            self.set_trait("position", data.length)
            self.set_trait("version", self.version + 1)

    def show_state(self, state: Any) -> None:
        """Show the run of a state."""
        if of_state(state) is not self.run:
            self.take(of_state(state))

    def wrote_at(self, t: int) -> list[str]:
        """The lanes that write after token t."""
        return [lane.name for lane in self.run.lanes if t in lane.updates]

    def figure(self) -> Figure:
        """The still picture of the whole run."""
        with book_style():
            return paint(self.run)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        live = super()._repr_mimebundle_(**kwargs)
        fig = self.figure()
        static, metadata = image_bundle(png(fig), checked_alt(self.alt), css_size(fig)[0])
        return {**dict(live[0] if isinstance(live, tuple) else live or {}), **static, "text/plain": self.alt}, metadata

    def __repr__(self) -> str:
        return f"Score: {self.alt}"


def play(trace: Any) -> Score:
    """Play a recorded run: a nlbook.levels.Trace, or whatever has `levels`, `periods`, `updates` (and `signal`)."""
    return Score(of_trace(trace))


@view(
    "score",
    title="Score of updates: who writes, and when?",
    task="How many notes has the lane C = 64 after T = 200 tokens, and how many after T = 50? And who still knows task "
    "A 60 tokens after the task has changed (T = 120)?",
    answer="floor(T / C): 3 notes, and none for a stream shorter than the chunk: then that level learns nothing. All "
    "levels together write about sum 1/C times a token. Of the levels that learn, only C = 64 still gives back "
    "task A after T = 120, because it has hardly heard of B; its next write takes A away as well: a low rate "
    "postpones forgetting, it does not prevent it. A Transformer has the two end lanes only: attention keeps "
    "every token, and its weights are frozen. They give back task A because they were trained on it before the "
    "stream began.",
    params=[
        Ints("C", (1, 16, 64), 1, 256, least=0, most=5, label="periods C"),
        Int("T", 200, 8, 256, label="tokens T"),
        Choice("stream", "two tasks", ["one task", "two tasks"], label="stream"),
        Int("seed", 0, 0, 9),
    ],
    landmarks={
        "200 tokens": "T=200",
        "50 tokens": "T=50",
        "three levels between": "C=1,16,64;T=120",
        "all periods 16": "C=16",
        "a Transformer": "C=none",
    },
    twin=["three levels between"],
    alt=alt,
    facts=facts,
    live=lambda state: Score(of_state(state)),
)
def draw(state: State) -> Figure:
    """The whole score at once."""
    return paint(of_state(state))
