"""Pictures that move without a kernel.

Most are frames: the view drawn in advance at the states of a small lattice, and at its landmarks; sliders and buttons
choose among them. Two run for real: every cell of the stability map has its run, and the level detective's arrows are judged in the page from the relation that Python
hands over. The widgets' own JavaScript does the drawing, over plain data instead of a kernel.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nlbook

MOST = 24  # frames of a view that names no lattice of its own
LATTICES: dict[str, dict[str, list[Any]]] = {
    "first_look": {"keep": [0.5, 0.9, 0.95, 0.98, 0.99, 1.0]},
    "interference": {"n": [4, 32, 64], "rule": ["hebbian", "delta"], "lr": [0.1, 0.3, 1.0], "rho": [0.0, 0.5]},
    "weight": {"step": [0, 3, 6, 12, 24], "angle": [40, 130, 220, 310], "freeze": [False, True]},
    "horizon": {"beta": [0.5, 0.8, 0.9, 0.95, 0.99, 0.999], "slow": [False, True], "log": [False, True]},
    "dial": {
        "temperature": [0, 0.01, 0.1, 1, float("inf")],
        "window": ["all", "16", "4"],
        "feature": ["softmax", "16 bumps", "elu+1"],
    },
    "theatre": {"C": [1, 4, 16, 64], "eta": [0.1, 0.5], "rule": ["frozen", "eq. 93", "exact"]},
    "reading": {
        "hold": ["nothing", "M_mem", "M_k", "M_v", "M_eta", "M_alpha", "level", "the other four M", "all"],
        "stream": [0, 1],
    },
    "start": {"writes": [0, 1, 2, 6], "eta": [0.1, 0.3, 0.5], "loud": [1.0, 1.8]},
}
"""View -> the values of its sliders; every combination is drawn. A value that a view does not allow is an error."""

RUN = "run "  # before a state of the stability map: only the run of its cell is drawn
LIVE = {
    "stability": "grid",
    "detective": "detective",
    "ledger": "ledger",
}  # view -> the script that plays it


@dataclass(frozen=True)
class Frame:
    """One drawn state: the picture (WebP), its words, its size on the page."""

    data: bytes
    alt: str
    description: str
    width: int
    height: int


# ---- what must be drawn ---------------------------------------------------------------------------------------------
def sampled(param: Any) -> list[Any]:
    """A few values of a parameter: its default among them, its ends if it is a scale."""
    from nlbook.book.viz.state import Bool, Choice, Float, Int

    if isinstance(param, Bool):
        return [False, True]
    if isinstance(param, Choice):
        some = list(param.options)
        return some if len(some) <= 5 else sorted({*some[::2], some[-1], param.default}, key=some.index)
    if isinstance(param, (Int, Float)):
        low, high = param.extremes()
        middle = low + round((high - low) / 2 / param.step) * param.step
        return sorted({param.check(low), param.check(middle), param.check(high), param.default})
    return [param.default]


def lattice(spec: Any, base: Any) -> dict[str, list[Any]]:
    """Parameter -> its values in the static picture of `base`: the view's own list, or a few of the first three."""
    if spec.key in LATTICES:
        chosen = {name: list(values) for name, values in LATTICES[spec.key].items()}
    else:
        chosen = {p.name: sampled(p) for p in spec.params[:3] if p.name != "seed"}
        while len(chosen) > 1 and _size(chosen) > MOST:
            del chosen[max(chosen, key=lambda n: (len(chosen[n]) > 3, list(chosen).index(n)))]
    for name, values in chosen.items():
        if base[name] not in values:
            values.append(base[name])
            if all(isinstance(v, (int, float)) for v in values):
                values.sort()
    return {n: v for n, v in chosen.items() if len(v) > 1}


def _size(values: dict[str, list[Any]]) -> int:
    n = 1
    for v in values.values():
        n *= len(v)
    return n


def states(spec: Any, base: Any, few: bool = False) -> list[Any]:
    """Every state that the static picture can show; `few`: the landmarks only."""
    grid = lattice(spec, base)
    product = [] if few else [base.replace(**dict(zip(grid, values))) for values in itertools.product(*grid.values())]
    return list(dict.fromkeys([base, *product, *spec.landmarks.values()]))


def draw(state: str) -> Frame:
    """Draw one state string, or `run stability:...`; the same string gives the same bytes."""
    from nlbook.book.viz.spec import load_state
    from nlbook.book.viz.style import book_style, css_size, png

    spec, parsed = load_state(state.removeprefix(RUN))
    alt, description = spec.alt(parsed), spec.describe(parsed)
    if state.startswith(RUN):
        from nlbook.book.chapters.clocks import stability

        f = spec.facts(parsed)
        alt = f"Error of the chosen run over {stability.UPDATES} updates: {stability.verdict(f)}."
        with book_style():
            fig = stability.run_figure(parsed, f)
    else:
        fig = spec.figure(parsed)
    return Frame(webp(png(fig, small=False)), alt, description, *css_size(fig))


def webp(png: bytes) -> bytes:
    """A picture of few colours as lossless WebP: a third of the PNG."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    few = image.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).convert("RGB")
    out = io.BytesIO()
    few.save(out, "webp", lossless=True, method=2)
    return out.getvalue()


class Frames:
    """Draws states, in parallel if asked, and keeps what it drew in a folder until the library's code changes."""

    def __init__(self, cache: Path | None = None, jobs: int = 1) -> None:
        self.cache, self.jobs = cache, jobs
        self.drawn: dict[str, Frame] = {}

    @staticmethod
    def code() -> str:
        """A digest of the library: a picture is a function of it and of the state."""
        files = [*sorted(Path(nlbook.__file__).parent.rglob("*.py")), Path(__file__)]
        return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()

    def draw(self, wanted: Iterable[str]) -> None:
        """Have these states at hand."""
        missing = [s for s in dict.fromkeys(wanted) if s not in self.drawn]
        code = self.code() if self.cache and missing else ""
        files = (
            {s: self.cache / f"{hashlib.sha256(f'{code} {s}'.encode()).hexdigest()[:24]}.json" for s in missing}
            if self.cache
            else {}
        )
        for s, file in files.items():
            if file.is_file():
                d = json.loads(file.read_text(encoding="utf-8"))
                self.drawn[s] = Frame(**{**d, "data": base64.b64decode(d["data"])})
        missing = [s for s in missing if s not in self.drawn]
        for s, frame in zip(missing, self._all(missing)):
            self.drawn[s] = frame
            if s in files:
                files[s].parent.mkdir(parents=True, exist_ok=True)
                files[s].write_text(
                    json.dumps({**vars(frame), "data": base64.b64encode(frame.data).decode()}), encoding="utf-8"
                )

    def _all(self, missing: list[str]) -> Iterable[Frame]:
        if self.jobs < 2 or len(missing) < 8:
            return map(draw, missing)
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(self.jobs, multiprocessing.get_context("spawn")) as pool:
            return list(pool.map(draw, missing, chunksize=4))

    def __getitem__(self, state: str) -> Frame:
        self.draw([state])
        return self.drawn[state]


# ---- one twin -------------------------------------------------------------------------------------------------------
class Twins:
    """The twins of one site. `markup(state)` gives the figure; `save(name, bytes)` takes its files."""

    def __init__(self, frames: Frames, save: Callable[[str, bytes], None], few: bool = False) -> None:
        self.frames, self.save, self.few = frames, save, few
        self.made: dict[str, tuple[Any, Any]] = {}  # state -> spec, State

    @staticmethod
    def name(state: str) -> str:
        """The file name of a twin: readable, and its own for every state."""
        return f"{state.partition(':')[0]}-{hashlib.sha256(state.encode()).hexdigest()[:6]}"

    def wanted(self, state: str) -> list[str]:
        """The state strings that have to be drawn for this twin."""
        from nlbook.book.viz.spec import load_state

        spec, base = load_state(state)
        if spec.key == "stability":
            return [str(base), *(RUN + str(s) for s in self.cells(base).values())]
        return [str(base)] if spec.key in LIVE else [str(s) for s in states(spec, base, self.few)]

    def cells(self, base: Any) -> dict[str, Any]:
        """Row and column of the stability map -> the state of that cell; the largest step is the top row."""
        from nlbook.book.chapters.clocks import stability

        up = list(reversed(stability.STEPS))
        some = {s.step for s in (base, *stability.draw.landmarks.values())} if self.few else up
        return {
            f"{r},{c}": base.replace(step=step, period=period)
            for r, step in enumerate(up)
            for c, period in enumerate(stability.PERIODS)
            if step in some
        }

    def markup(self, state: str, root: str = "") -> str:
        """The figure of this state; its data is saved as a script of its own, once."""
        from nlbook.book.viz.spec import load_state

        spec, base = load_state(state)
        name = self.name(state)
        if state not in self.made:
            self.made[state] = spec, base
            data = self.live(spec, base) if spec.key in LIVE else self.still(spec, base)
            text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
            self.save(f"twins/{name}.js", f"(window.nlbookTwins ??= {{}})[{json.dumps(name)}] = {text};\n".encode())
        frame = self.frames[str(base)]
        self.picture(frame)
        return figure(spec, base, name, frame, root, [] if spec.key in LIVE else list(lattice(spec, base).items()))

    def picture(self, frame: Frame) -> str:
        name = f"twins/{hashlib.sha256(frame.data).hexdigest()[:12]}.webp"
        self.save(name, frame.data)
        return name

    def still(self, spec: Any, base: Any) -> dict[str, Any]:
        """Frames by the places of the sliders, and where each landmark lies."""
        grid = lattice(spec, base)
        shown: dict[str, Any] = {}
        for s in states(spec, base, self.few):
            f = self.frames[str(s)]
            shown[str(s)] = [self.picture(f), f.alt, f.description]
        places = {}
        for values in itertools.product(*(range(len(v)) for v in grid.values())):
            s = str(base.replace(**{n: v[i] for (n, v), i in zip(grid.items(), values)}))
            if s in shown:
                places[",".join(map(str, values))] = s
        return {
            "kind": "frames",
            "start": str(base),
            "frames": shown,
            "places": places,
            "landmarks": {n: str(s) for n, s in spec.landmarks.items()},
        }

    def live(self, spec: Any, base: Any) -> dict[str, Any]:
        """Data for the widget's own script."""
        marks = {"start": base, **spec.landmarks}
        common = {
            "kind": LIVE[spec.key],
            "landmarks": {n: str(s) for n, s in spec.landmarks.items()},
            "start": str(base),
        }
        if spec.key == "stability":
            return common | self.grid(spec, base)
        models = {str(s): {**plain_model(spec.live(s)), "description": spec.describe(s)} for s in marks.values()}
        if spec.key == "ledger":
            from nlbook.book.chapters.errata import ledger

            return common | {
                "models": models,
                "rows": {s: [r.id for r in ledger.shown(spec.state(s))] for s in models},
                "cards": {r.id: self.card(spec, base, r.id) for r in ledger.rows()},
            }
        return common | {"models": models} | ({"systems": systems()} if spec.key == "detective" else {})

    def grid(self, spec: Any, base: Any) -> dict[str, Any]:
        """The stability map with the run of each of its cells."""
        from nlbook.book.chapters.clocks import stability

        first = plain_model(spec.live(base))
        up = list(reversed(stability.STEPS))
        runs: dict[str, Any] = {}
        for at, s in self.cells(base).items():
            f = self.frames[RUN + str(s)]
            runs[at] = [{"base64": base64.b64encode(f.data).decode()}, f.alt, str(s), f.description]
        marks = {str(s): [up.index(s.step), stability.PERIODS.index(s.period)] for s in spec.landmarks.values()}
        return {"models": {str(base): first}, "runs": runs, "at": marks}

    @staticmethod
    def card(spec: Any, base: Any, row: str) -> dict[str, Any]:
        """What the ledger's board shows of one row."""
        made = spec.live(base.replace(show="all", row=row))
        return {"head": made.head, "card": made.card}


def plain_model(widget: Any) -> dict[str, Any]:
    """The synchronised values of an anywidget as plain data; bytes are marked as base64."""
    names = [
        n
        for n in widget.traits(sync=True)
        if not n.startswith("_") and n not in ("layout", "tabbable", "tooltip", "comm", "keys", "log")
    ]
    values = {n: getattr(widget, n) for n in names}
    return {n: {"base64": base64.b64encode(v).decode()} if isinstance(v, bytes) else v for n, v in values.items()}


def systems() -> dict[str, Any]:
    """For the level detective: of each model the pairs that Definition 2 orders, with the reason, and the true levels."""
    from nlbook.book.chapters.levels import detective

    found = {}
    for name in detective.SYSTEMS:
        s = detective.system(name)
        names = [c.name for c in s.components]
        pairs = [[a, b, s.why_faster(a, b)] for a in names for b in names if s.faster(a, b)]
        steps = [*detective.SYSTEMS.values(), ""]
        following = steps[steps.index(detective.SYSTEMS[name]) + 1]
        found[name] = {"names": names, "next": following, "pairs": pairs, "levels": {n: s.level(n) for n in names}}
    return found


# ---- HTML -----------------------------------------------------------------------------------------------------------
def figure(spec: Any, base: Any, name: str, frame: Frame, root: str, grid: Sequence[tuple[str, list[Any]]]) -> str:
    """The figure with its controls (shown where scripts run), its picture, its task and its folded answer."""
    e = html.escape
    own = f"t-{name}"
    params = {p.name: p for p in spec.params}
    controls = "".join(control(own, params[n], values, base[n]) for n, values in grid)
    marks = "".join(
        f'<button type="button" data-state="{e(str(s))}" aria-pressed="{str(s == base).lower()}">{e(n)}</button>'
        for n, s in spec.landmarks.items()
    )
    if marks and base not in spec.landmarks.values():
        marks = f'<button type="button" data-state="{e(str(base))}" aria-pressed="true">start</button>{marks}'
    go = f'<div class="landmarks" role="group" aria-label="States worth a look"><span>Go to:</span> {marks}</div>'
    src = f"{root}twins/{hashlib.sha256(frame.data).hexdigest()[:12]}.webp"
    image = f'<img src="{src}" alt="{e(frame.alt)}" width="{frame.width}" height="{frame.height}" decoding="async">'
    return f"""<figure class="twin" id="{own}" data-twin="{name}" data-root="{root}" aria-labelledby="{own}-title">
<p class="twin-title" id="{own}-title">{e(spec.title)}</p>
<div class="twin-controls" hidden>{f'<div class="sliders">{controls}</div>' if controls else ""}{go if marks else ""}</div>
<div class="frame stage" tabindex="0" role="group" aria-label="Picture">{image}</div>
<figcaption>
<p class="task"><strong>Task.</strong> {e(spec.task)}</p>
<details><summary>Answer</summary><p>{e(spec.answer)}</p></details>
<details class="describe"><summary>Describe the picture</summary><p>{e(frame.description)}</p></details>
<p class="state">In a notebook: <code>viz.load("{e(str(base))}")</code></p>
</figcaption>
</figure>
"""


def control(own: str, param: Any, values: list[Any], value: Any) -> str:
    """A slider over numbers, a list over words, a tick for yes and no; the value of each is a place in `values`."""
    from nlbook.book.viz.state import Bool

    e, at, name = html.escape, values.index(value), f"{own}-{param.name}"
    label = e(param.label or param.name)
    if isinstance(param, Bool):
        return (
            f'<label for="{name}"><input type="checkbox" id="{name}" data-param="{param.name}"'
            f"{' checked' if value else ''}> {label}</label>"
        )
    if all(isinstance(v, (int, float)) for v in values):
        said = e(json.dumps([param.spell(v) for v in values]))
        return (
            f'<label for="{name}">{label} <input type="range" id="{name}" data-param="{param.name}" min="0" '
            f'max="{len(values) - 1}" step="1" value="{at}" data-values="{said}" aria-valuetext="'
            f'{e(param.spell(value))}"> <output>{e(param.spell(value))}</output></label>'
        )
    options = "".join(
        f'<option value="{i}"{" selected" if i == at else ""}>{e(param.spell(v))}</option>'
        for i, v in enumerate(values)
    )
    return f'<label for="{name}">{label} <select id="{name}" data-param="{param.name}">{options}</select></label>'
