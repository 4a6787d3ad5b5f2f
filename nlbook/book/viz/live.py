"""Pictures that the page computes itself, with a kernel or without one: in JupyterLab, on the site, on a phone.

A live picture is one HTML output that carries its style, its engine (js/engine.js) and its script. The script looks for
its own places in the page, so the same output works wherever HTML is shown and scripts may run.
"""

from __future__ import annotations

import html
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from nlbook.errors import need

JS = Path(__file__).parent / "js"


@cache
def bundle(name: str) -> str:
    """The engine and one picture as a single classic script (a page opened from a folder has no modules)."""
    parts = [(JS / f"{part}.js").read_text(encoding="utf-8") for part in ("engine", name)]
    source = "\n".join(re.sub(r"^import .*\n", "", p, flags=re.M) for p in parts)
    source = re.sub(r"^export default .*\n?", "", source, flags=re.M)
    return re.sub(r"^export (?=const|function|class)", "", source, flags=re.M)


class Live:
    """A live picture, shown by HTML. name: of its script. alt: what it shows, for who cannot see or run it."""

    def __init__(self, name: str, alt: str, **options: Any) -> None:
        self.name, self.alt, self.options = name, alt, options

    def _repr_html_(self) -> str:
        options = html.escape(json.dumps(self.options, sort_keys=True))
        return (
            f"<style>{(JS / f'{self.name}.css').read_text(encoding='utf-8')}</style>"
            f'<div data-nlbook-live="{self.name}" data-options="{options}"><p>{html.escape(self.alt)} '
            "Run the cell to see it move.</p></div>"
            f"<script>(function () {{\n{bundle(self.name)}\n"
            f"for (const el of document.querySelectorAll('[data-nlbook-live=\"{self.name}\"]:not([data-on])')) "
            "{ el.dataset.on = 1; mount(el, JSON.parse(el.dataset.options)); }\n})();</script>"
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
