"""Pictures that the page computes itself, with a kernel or without one: in JupyterLab, on the site, on a phone.

A live picture is one HTML output that carries its style, its engine (js/engine.js) and its script. The script looks for
its own places in the page, so the same output works wherever HTML is shown and scripts may run.
"""

from __future__ import annotations

import html
import json
import math
import re
import time
from collections.abc import Sequence
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from statistics import median
from typing import Any

from nlbook.errors import need
from nlbook.levels.trace import Trace

JS = Path(__file__).parent / "js"
PLAYED = count(1)


@cache
def bundle(name: str) -> str:
    """The engine and one picture as a single classic script (a page opened from a folder has no modules)."""
    parts = [(JS / f"{part}.js").read_text(encoding="utf-8") for part in ("engine", name)]
    source = "\n".join(re.sub(r"^import .*\n", "", p, flags=re.M) for p in parts)
    source = re.sub(r"^export default .*\n?", "", source, flags=re.M)
    return re.sub(r"^export (?=const|function|class)", "", source, flags=re.M)


@cache
def style(name: str) -> str:
    """The look that all live pictures share, and what one of them adds."""
    return "".join(p.read_text(encoding="utf-8") for p in (JS / "live.css", JS / f"{name}.css") if p.is_file())


class Live:
    """A live picture, shown by HTML. name: of its script. alt: what it shows, for who cannot see or run it."""

    def __init__(self, name: str, alt: str, **options: Any) -> None:
        self.name, self.alt, self.options = name, alt, options

    def _repr_html_(self) -> str:
        options = html.escape(json.dumps(self.options, sort_keys=True))
        return (
            f"<style>{style(self.name)}</style>"
            f'<div data-nlbook-live="{self.name}" data-options="{options}"><p>{html.escape(self.alt)} '
            "Run the cell to see it move.</p></div>"
            f"<script>(function () {{\n{bundle(self.name)}\n"
            f"for (const el of document.querySelectorAll('[data-nlbook-live=\"{self.name}\"]:not([data-on])')) "
            "{ el.dataset.on = 1; mount(el, JSON.parse(el.dataset.options)); "
            "el.addEventListener('keydown', (e) => { "  # JupyterLab and slides would take these from a slider
            "if (/^(Arrow|Home|End|Page)/.test(e.key) && !e.ctrlKey && !e.metaKey && !e.altKey) "
            "e.stopPropagation(); }); }\n})();</script>"
        )

    def __repr__(self) -> str:
        return self.alt


def shop(preset: str = "three", seed: int = 1) -> Live:
    """The Clock Shop: three memories with clocks of their own read one stream, and six glasses show who holds what.

    preset: "three" clocks, "one", "never" (nobody forgets), "steps" (the same steps, no periods), "alike".
    """
    presets = ("three", "one", "never", "steps", "alike")
    need(preset in presets, "preset", repr(preset), f"one of {', '.join(presets)}")
    alt = (
        "The Clock Shop: a stream of keys and values, three memories that write at different periods, and six glasses, "
        "one a key, filled with what each memory holds of the true answer. With three clocks the fast memory writes at "
        "every pair, fades by 7 % a pair and is emptied with the document, the middle one writes once in 8 pairs and "
        "is emptied too, the slow one writes once in 48 pairs, in small steps, and is never emptied."
    )
    return Live("shop", alt, preset=preset, seed=seed)


def score(trace: Trace | None = None, periods: Sequence[int] = (1, 16, 64)) -> Live:
    """The score of updates: a lane a level, a note at each write, and what each write changed.

    Without a trace six words are said in French and then in German, to one level a period, all computed in the page.
    With a trace it is your own model, in training or in use. Displayed before the run it follows the run:

        with Trace(model, optimizer) as trace:
            display(viz.score(trace))
            ...train...
    """
    if trace is not None:
        return Played(trace)
    need(all(isinstance(c, int) and c > 0 for c in periods), "periods", periods, "whole numbers above 0")
    between = f" Between them stand levels that write once in {', '.join(map(str, periods))} tokens." if periods else ""
    alt = (
        "The score of updates: six words are said in French and, from token 61 on, in German. A lane a level, with a "
        "note at each write; the strip below shows which pairs its weights give back. Attention keeps every pair, "
        f"frozen weights know French only.{between}"
    )
    return Live("score", alt, periods=list(periods))


def often(gap: float, unit: str) -> str:
    """How often a lane writes, in words; 0: it has no weights."""
    if math.isinf(gap) or not gap:
        return "never" if gap else "no weights"
    return f"every {unit}" if gap == 1 else f"every {gap:g} {unit}s"


class Played(Live):
    """The score of a trace. While the trace is recorded, a second output hands its writes to the first."""

    def __init__(self, trace: Trace) -> None:
        lanes = ", ".join(f"{n} {len(u)}" for n, u in trace.updates.items())
        self.trace, self.key = trace, f"run {next(PLAYED)}"
        said = (
            f"The score of updates of a run: a lane a level, a note at each of its writes. So far: {lanes or 'none'}."
        )
        super().__init__("score", said, trace=self.key)

    def data(self) -> str:
        """The writes so far, as the script that tells the page."""
        names, updates, periods = self.trace.levels, self.trace.updates, self.trace.periods
        unit = self.trace.unit.removeprefix("optimizer ")
        gap = periods | {
            n: median(b - a for a, b in pairwise([0, *u])) for n, u in updates.items() if u
        }  # as it really wrote
        events: dict[str, list[Any]] = {n: [] for n in names}
        for e in self.trace.events:
            events[e.level].append(e)
        lanes = [
            {
                "name": n,
                "words": often(gap[n], unit),
                "period": None if math.isinf(gap[n]) else gap[n],
                "updates": updates[n],
                "state": [float(f"{e.state:.4g}") for e in events[n]],
                "change": [None if e.change is None else float(f"{e.change:.4g}") for e in events[n]],
                "why": [e.reason for e in events[n]],
            }
            for n in sorted(names, key=gap.__getitem__)
        ]
        run = {
            "lanes": lanes,
            "unit": unit,
            "length": max(1, self.trace.length),
            "live": self.trace.running,
        }
        text = json.dumps(run).replace("</", "<\\/")
        return (
            f"<script data-nlbook-live-data>(window.nlbookTraces ??= {{}})['{self.key}'] = {text};"
            "dispatchEvent(new Event('nlbook-trace'));</script>"
        )

    def _ipython_display_(self) -> None:
        from IPython.display import display

        def bundle() -> dict[str, str]:
            return {"text/html": self.data(), "text/plain": self.alt}

        display({"text/html": self._repr_html_(), "text/plain": self.alt}, raw=True)
        shown, due = display(bundle(), raw=True, display_id=True), 0.0

        def heard() -> None:  # at most four times a second, and never more than a tenth of the time
            nonlocal due
            start = time.monotonic()
            if start >= due or not self.trace.running:
                shown.update(bundle(), raw=True)
                due = time.monotonic() + max(0.25, 9 * (time.monotonic() - start))

        self.trace.listeners.append(heard)
