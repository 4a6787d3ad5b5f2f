"""Real text that comes with the book: help pages in four languages, the New Testament in two, and names to invent.

    pages = texts("help", "en")          # {page: text}; the same pages in "de", "es", "fr"
    train, held_out = split("help")      # English, whole documents on one side
    renamed(text, seed=3)                # the same text with each name replaced by an invented one

data/README.md is the card of both files. A document is a help page, or a book of the testament.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import random
import re
from functools import cache

from nlbook.book import data
from nlbook.errors import need

FILES = {"help": ("en", "de", "fr", "es"), "testament": ("en", "es")}
HELD_OUT = "Acts"  # the book of the testament that is graded on; of the help pages it is a tenth, by name
NAME = re.compile(r"\b[A-Z][a-z]{3,}\b")
ONSETS = (*"bdfghklmnprstvz", "br", "dr", "gl", "kl", "pr", "st", "tr")
VOWELS, CODAS = "aeiou", ("", "l", "n", "r", "x")


@cache
def _file(name: str) -> dict[str, dict[str, str]]:
    return json.loads(lzma.decompress(data.path(f"{name}.json.xz").read_bytes()))


def texts(name: str, language: str = "en") -> dict[str, str]:
    """Page -> text, in order. name: "help" (292 pages) or "testament" (260 chapters, as "Matt.1")."""
    need(name in FILES, "name", repr(name), f"one of {', '.join(FILES)}")
    need(language in FILES[name], "language", repr(language), f"one of {', '.join(FILES[name])}")
    return _file(name)[language]


def is_held_out(page: str) -> bool:
    """Whether a page is graded on: Acts, and a tenth of the help pages, by a hash of the name."""
    if re.fullmatch(r"[1-3]?[A-Z][a-z]+\.\d+", page):
        return page.startswith(f"{HELD_OUT}.")
    return hashlib.sha256(page.encode()).digest()[0] % 10 == 0


def split(name: str, language: str = "en") -> tuple[dict[str, str], dict[str, str]]:
    """The pages to train on, and those to be graded on; a page is on the same side in every language."""
    pages = texts(name, language)
    return {p: t for p, t in pages.items() if not is_held_out(p)}, {p: t for p, t in pages.items() if is_held_out(p)}


@cache
def names() -> frozenset[str]:
    """Words of the English texts that are never written small: names of people, places and programs."""
    whole = "\n".join(t for name in FILES for t in texts(name).values())
    small = set(re.findall(r"\b[a-z]+\b", whole))
    return frozenset(n for n in NAME.findall(whole) if n.lower() not in small)


def invented(r: random.Random, fresh: bool) -> str:
    """A name that nobody has. fresh: one of the fifth that no training text uses."""
    while True:
        made = "".join(
            r.choice(ONSETS) + r.choice(VOWELS) + r.choice(CODAS if i else ("",)) for i in range(r.choice((2, 2, 3)))
        )
        name = made.capitalize()
        if name not in names() and (hashlib.sha256(name.encode()).digest()[0] % 5 == 0) == fresh:
            return name


def renamed(text: str, seed: int, fresh: bool = False) -> str:
    """The text with every name replaced by an invented one, the same name by the same wherever it stands."""
    r, new = random.Random(seed), dict[str, str]()

    def swap(found: re.Match[str]) -> str:
        old = found[0]
        if old not in names():
            return old
        if old not in new:
            new[old] = invented(r, fresh)
        return new[old]

    return NAME.sub(swap, text)
