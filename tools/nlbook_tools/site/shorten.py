"""Prose -> what stands on a slide: the first sentence of a paragraph, and formulas, lists, tables and quotes as they are."""

from __future__ import annotations

import re

MOST = 34  # words of a paragraph on a slide, unless its first sentence is longer
END = re.compile(r"[.?!][*_)\"”]*\s+(?=[A-Z*\0\"“(])")  # \0 holds the place of a formula, code or a link
SPANS = re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$|`[^`]+`|\[[^\]]*\]\([^)]*\)", re.S)
ABBREVIATION = re.compile(r"\b(Eq|eq|e\.g|i\.e|Fig|Def|vs|cf)\.[*_]*\s+$")


def sentences(paragraph: str) -> list[str]:
    """A paragraph's sentences; formulas, code and links are never cut.

    >>> sentences("It holds for $a. B$ too. See Eq. 5 there. Done.")
    ['It holds for $a. B$ too.', 'See Eq. 5 there.', 'Done.']
    """
    held = SPANS.sub(lambda m: "\0" * len(m[0]), paragraph)
    ends = [m.end() for m in END.finditer(held) if not ABBREVIATION.search(held[: m.end()])]
    cuts, start, found = [e for e in ends if e < len(paragraph)], 0, []
    for cut in [*cuts, len(paragraph)]:
        if piece := paragraph[start:cut].strip():
            found.append(piece)
        start = cut
    return found


def whole_paragraph(source: str) -> str:
    """The text without its title."""
    return re.sub(r"^#\s.*\n", "", source).strip()


def short(paragraph: str) -> str:
    """As many sentences as fit into MOST words, at least one; emphasis that a cut would leave open is closed."""
    kept: list[str] = []
    n = 0
    for s in sentences(paragraph):
        n += len(s.split())
        if kept and n > MOST:
            break
        kept.append(s)
    made = " ".join(kept)
    bare = SPANS.sub("", made)
    if bare.count("**") % 2:
        made += "**"
    elif bare.replace("**", "").count("*") % 2:
        made += "*"
    return made


def shorten(source: str) -> str:
    """Every block of a cell, paragraphs shortened."""
    kept = []
    for block in re.split(r"\n\s*\n", source):
        first = block.lstrip()
        whole = first.startswith(("$$", "- ", "* ", "> ", "|", "#", "```", "1.")) or "$$" in block
        kept.append(block if whole else short(block))
    return "\n\n".join(kept)
