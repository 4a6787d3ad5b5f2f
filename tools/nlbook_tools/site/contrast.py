"""Contrast of the two themes, computed from the sheet (WCAG 2: relative luminance, 4.5 to 1 for text, 3 to 1 for edges)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nlbook.errors import NLBookError

COLOR = re.compile(r"--([\w-]+):\s*light-dark\((#[0-9a-f]{6}),\s*(#[0-9a-f]{6})\)")
TEXT, EDGE = 4.5, 3.0
GROUNDS = ("paper", "raised", "sunk", "claim")
ON_GROUNDS = ("ink", "soft", "link", "accent")
ON_CODE = ("tok-keyword", "tok-string", "tok-number", "tok-comment", "tok-name", "tok-operator")
PAIRS = (
    *((fg, bg, TEXT) for fg in ON_GROUNDS for bg in GROUNDS),
    *((fg, "sunk", TEXT) for fg in ON_CODE),
    *((fg, bg, TEXT) for fg in ("predict", "exercise", "good", "bad") for bg in ("paper", "raised")),
    ("ink", "mark", TEXT),
    ("paper", "accent", TEXT),
    ("edge", "paper", EDGE),
    ("edge", "raised", EDGE),
)


@dataclass(frozen=True)
class Contrast:
    """One pair of colours in one theme."""

    theme: str
    front: str
    back: str
    ratio: float
    wanted: float

    @property
    def enough(self) -> bool:
        return self.ratio >= self.wanted

    def __str__(self) -> str:
        return f"{self.theme}: --{self.front} on --{self.back} has {self.ratio:.2f} to 1, wanted {self.wanted:g}"


def luminance(color: str) -> float:
    """Relative luminance of #rrggbb, 0 (black) to 1 (white).

    >>> round(luminance("#ffffff"), 6)
    1.0
    """
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def ratio(a: str, b: str) -> float:
    """Contrast of two colours, 1 to 21.

    >>> round(ratio("#000000", "#ffffff"), 2)
    21.0
    """
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def contrasts(css: str) -> Iterator[Contrast]:
    """Every pair of PAIRS in both themes. An error if the sheet lacks one of the colours."""
    colors = {name: (light, dark) for name, light, dark in COLOR.findall(css)}
    for front, back, wanted in PAIRS:
        for name in (front, back):
            if name not in colors:
                raise NLBookError(f"css: got no --{name}: light-dark(#…, #…), expected one")
        for i, theme in enumerate(("light", "dark")):
            yield Contrast(theme, front, back, ratio(colors[front][i], colors[back][i]), wanted)
