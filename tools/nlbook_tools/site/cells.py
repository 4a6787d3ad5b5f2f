"""One executed notebook -> one page: text, code, outputs, pictures with their alternative texts, exercises that are
marked as such, hints that stay folded. Nothing is run; what is not in the notebook is not on the page.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlbook.book.chapters import files
from nlbook.errors import NLBookError
from nlbook_tools.site import text as words
from nlbook_tools.site.maths import plain
from nlbook_tools.site.text import Heading, Writer

LABELS = {
    "cold-open": "Cold open",
    "predict": "Predict",
    "worked": "Worked by hand",
    "visual": "Picture to move",
    "equality": "Equality",
    "signature": "Signature result",
    "control": "Negative control",
    "limits": "Limits",
    "retrieval": "Recall",
    "check": "Check",
}
BOXES = (("Prediction", "predict"), ("Result of", "result"), ("Question", "question"), ("Exercise", "exercise"))
PICTURE = re.compile(r"^Picture '([^']+)': ")
EQUATION = re.compile(r"^\*\*Eq\. (\d+)[:.]")
ONE_CALL = re.compile(r"^(answer = None\n)?(check|paper|viz)\.\w+\(", re.S)
EMPHASIS = re.compile(r"(?<![\w*])\*(\w|\w[^*<>\n]*?\w)\*(?![\w*])")
IMPORTS = re.compile(r"^(\s*(import|from)\s.*|\s*torch\.set_\w+\(.*|\s*)$")


@dataclass
class Chapter:
    """What the site and the slides need of one notebook."""

    stem: str
    nb: Any
    meta: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.meta = dict(self.nb["metadata"].get("nlbook") or {})
        if not {"number", "title"} <= set(self.meta):
            raise NLBookError(f"{self.stem}: got a notebook without nlbook.number and nlbook.title, expected a chapter")

    @property
    def number(self) -> str:
        return str(self.meta["number"])

    @property
    def title(self) -> str:
        return str(self.meta["title"])

    @property
    def minutes(self) -> int:
        m = self.meta.get("minutes") or {}
        return round(m.get("reading", 0) + m.get("exercises", 0))

    @property
    def href(self) -> str:
        return f"{self.stem}.html"


def read_chapters(folder: Path) -> list[Chapter]:
    """Every executed chapter of notebooks/, in reading order."""
    import json

    return [Chapter(p.stem, json.loads(p.read_text(encoding="utf-8"))) for p in files(folder)]


@dataclass
class Body:
    """The rendered page of a chapter."""

    markup: str
    headings: list[Heading]
    twins: list[str]  # keys of the twins that it shows


def joined(value: Any) -> str:
    return "".join(value) if isinstance(value, list) else str(value or "")


def tags(cell: Any) -> list[str]:
    return list(cell["metadata"].get("tags", []))


class Renderer:
    """Cells of one notebook -> HTML.

    save(name, bytes): puts a file of the site. twin(state string) -> HTML of a picture that moves, or None.
    root: the way from the page to the top of the site.
    """

    def __init__(
        self, writer: Writer, save: Callable[[str, bytes], None], twin: Callable[[str], str | None], root: str = ""
    ) -> None:
        self.writer, self.save, self.twin, self.root = writer, save, twin, root
        self.twins: list[str] = []

    def body(self, chapter: Chapter) -> Body:
        parts = [self.cell(c) for c in chapter.nb["cells"]]
        return Body("\n".join(p for p in parts if p), self.writer.headings, self.twins)

    def cell(self, cell: Any) -> str:
        before = len(self.writer.headings)
        made = (
            self.markdown(cell)
            if cell["cell_type"] == "markdown"
            else self.code(cell)
            if (cell["cell_type"] == "code")
            else ""
        )
        if self.writer.headings and made:  # words for the search: below the heading that they stand under
            at = self.writer.headings[before] if len(self.writer.headings) > before else self.writer.headings[-1]
            at.words.append(
                plain(
                    re.sub(r'<(div class="code"|script).*?</(div|script)>|<h[1-6].*?</h[1-6]>', " ", made, flags=re.S)
                )
            )
        return made

    # ---- text --------------------------------------------------------------------------------------------------------
    def markdown(self, cell: Any) -> str:
        source, kinds = joined(cell["source"]), tags(cell)
        made = self.writer.render(source)
        label = next((LABELS[t] for t in kinds if t in LABELS), "")
        if label and "<h2" in made and label.lower() not in made.lower().partition("</h2>")[0]:
            made = f'<p class="eyebrow">{label}</p>\n{made}'
        kind = " ".join(["text", *(k for k in kinds if k in ("claim", "limits", "key-points", "predict"))])
        return f'<div class="{kind}">\n{made}</div>'

    # ---- code --------------------------------------------------------------------------------------------------------
    def code(self, cell: Any) -> str:
        source = joined(cell["source"]).strip()
        if not source:
            return ""
        kinds = tags(cell)
        shown = words.code(source)
        setup = "parameters" in kinds or all(IMPORTS.match(line) for line in source.splitlines())
        call = bool(ONE_CALL.match(source))
        if "exercise" in kinds and not call:
            shown = f'<div class="yours"><p class="eyebrow">Your code</p>\n{shown}</div>'
        elif setup or call:
            name = "Parameters" if "parameters" in kinds else "Imports" if setup else "Code"
            shown = f'<details class="source"><summary>{name}</summary>{shown}</details>'
        parts = [shown, self.outputs(cell)]
        return f'<div class="{"cell call" if call else "cell"}">\n{"".join(reversed(parts) if call else parts)}</div>'

    def outputs(self, cell: Any) -> str:
        made: list[str] = []
        for o in cell.get("outputs", []):
            data = {k: joined(v) for k, v in o.get("data", {}).items()}
            if o["output_type"] == "stream":
                made.append(words.preformatted(joined(o["text"])))
            elif "image/png" in data:
                made.append(self.image(data, o.get("metadata", {}), joined(cell["source"])))
            elif "text/markdown" in data:
                made.append(self.card(data["text/markdown"]))
            elif "text/html" in data:
                fold = data["text/html"]
                if "Description of the picture" in fold and made and made[-1].rstrip().endswith("</figure>"):
                    made[-1] = (
                        made[-1].rstrip().removesuffix("</figure>") + f"<figcaption>{fold}</figcaption></figure>\n"
                    )
                else:
                    made.append(fold if "data-nlbook-live" in fold else box(fold))
            elif data.get("text/plain"):
                made.append(words.preformatted(data["text/plain"]))
        return "".join(made)

    def card(self, source: str) -> str:
        """Something that the index of the paper says, with the way to its entry."""
        found = EQUATION.match(source)
        made = self.writer.render(source)
        if not found:
            return f'<div class="card">{made}</div>\n'
        link = f'<a class="more" href="{self.root}equations.html#eq-{found[1]}">entry in the index</a>'
        return f'<div class="card equation">{made}{link}</div>\n'

    def image(self, data: dict[str, str], metadata: dict[str, Any], source: str) -> str:
        found = PICTURE.match(data.get("text/plain", ""))
        if found and "viz.load(" in source and (made := self.twin(found[1])):
            self.twins.append(found[1])
            return made
        said = metadata.get("image/png", {})
        return self.figure(base64.b64decode(data["image/png"]), said.get("alt", ""), said.get("width"))

    def figure(self, png: bytes, alt: str, width: int | None = None) -> str:
        """A picture as a file of its own, with the room that it will take."""
        name = f"images/{hashlib.sha256(png).hexdigest()[:12]}.png"
        self.save(name, png)
        w, h = struct.unpack(">II", png[16:24])
        shown = min(int(width or w), w)
        return f"<figure>{picture(self.root + name, alt, shown, round(h * shown / w))}</figure>\n"


def picture(src: str, alt: str, width: int, height: int) -> str:
    """An image that scrolls inside its own frame where the page is narrower than it can be read."""
    return (
        f'<div class="frame" tabindex="0" role="group" aria-label="Picture"><img src="{html.escape(src)}" '
        f'alt="{html.escape(alt)}" width="{width}" height="{height}" loading="lazy" decoding="async"></div>'
    )


def box(markup: str) -> str:
    """What nlbook.book.check shows, in the site's own style: no style attributes, a class for each kind of block."""
    markup = re.sub(r' style="[^"]*"', "", markup)
    parts = re.split(
        r"(<(?:code|pre)>.*?</(?:code|pre)>)", markup, flags=re.S
    )  # *so* is meant as emphasis, but in code
    markup = "".join(p if i % 2 else EMPHASIS.sub(r"<em>\1</em>", p) for i, p in enumerate(parts))
    for label, kind in BOXES:
        markup = re.sub(
            rf'<div role="group" aria-label="({label} [^"]*)">',
            rf'<div role="group" class="box {kind}" aria-label="\1">',
            markup,
        )
    markup = re.sub(r"<small>Not recorded yet\..*?</small>", "", markup)
    markup = markup.replace("<strong>Not tried yet</strong> · ", "<strong>Exercise</strong> · ")
    markup = markup.replace("<table>", '<div class="wide" tabindex="0" role="group" aria-label="Table"><table>')
    markup = markup.replace("</table>", "</table></div>").replace("<pre>", '<pre tabindex="0">')
    return markup if 'class="box' in markup else f'<div class="html">{markup}</div>\n'
