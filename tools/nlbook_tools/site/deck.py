"""Slides from the cells of a chapter: one HTML file that holds everything, for a projector without a network.

A section of the chapter is a column of slides: each text cell, equation, question, figure and result on a slide of its
own. The speaker's notes hold the answer to a prediction, hints and the solution of an exercise. reveal.js turns the pages.
"""

from __future__ import annotations

import ast
import base64
import html
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from nlbook_tools.site import text as texts
from nlbook_tools.site.cells import EQUATION, IMPORTS, LABELS, ONE_CALL, PICTURE, Chapter, box, joined, tags
from nlbook_tools.site.maths import plain
from nlbook_tools.site.text import Writer
from nlbook_tools.site.twins import Frames

HERE = Path(__file__).parent
CODE_LINES = 18  # more than this, and only the output is shown
TABLE_ROWS = 15  # more than this, and the table goes on on the next slide
RESULT = re.compile(r'aria-label="Result of prediction ([\w-]+)"')
PREDICTION = re.compile(r'aria-label="Prediction ([\w-]+)"')
ASIDE = re.compile(r"^Without a kernel.*?(\n\s*\n|\Z)", re.S | re.M)  # words about what a slide need not show
FOLD = re.compile(r"<details>.*?</details>", re.S)


@dataclass
class Slide:
    """One slide: `kind` chooses its look; `notes` are paragraphs of HTML for the speaker."""

    kind: str
    title: str
    body: str
    eyebrow: str = ""
    notes: list[str] = field(default_factory=list)


class Deck:
    """The slides of one chapter, in columns: one a section."""

    def __init__(self, chapter: Chapter, frames: Frames) -> None:
        self.chapter, self.frames = chapter, frames
        self.writer = Writer(lambda href: href if href.startswith("#") else None)
        self.title = chapter.title
        self.answers = dict(self._answers())
        self.asked = ""  # the stub of an exercise whose check comes next
        cells = chapter.nb["cells"]
        claim = next((c for c in cells if "claim" in tags(c)), None)
        self.columns: list[list[Slide]] = [[self._opening(claim)]]
        for cell in cells[1:]:
            if cell is not claim:
                (self._text if cell["cell_type"] == "markdown" else self._code)(cell)

    def _answers(self) -> Iterator[tuple[str, str]]:
        """Prediction -> what was measured, as the chapter's later cell says it."""
        for cell in self.chapter.nb["cells"]:
            for o in cell.get("outputs", []):
                shown = joined(o.get("data", {}).get("text/html"))
                if m := RESULT.search(shown):
                    yield m[1], shown

    def _add(self, kind: str, body: str, eyebrow: str = "", notes: Sequence[str] = ()) -> None:
        self.columns[-1].append(Slide(kind, self.title, body, eyebrow, [*notes]))

    def _opening(self, claim: Any) -> Slide:
        c = self.chapter
        said = self.writer.render(joined(claim["source"])) if claim else ""
        objectives = "".join(f"<li>{html.escape(o['text'])}</li>" for o in c.meta.get("objectives") or [])
        body = f'<p class="number">Chapter {c.number}</p><h1>{html.escape(c.title)}</h1>{said}'
        notes = [f"<p>{c.minutes} minutes with all exercises.</p><p>After it one can:</p><ul>{objectives}</ul>"]
        return Slide("opening", c.title, body, notes=notes)

    def _text(self, cell: Any) -> None:
        for part in re.split(r"^(?=## )", joined(cell["source"]), flags=re.M):
            if m := re.match(r"##\s+(.*)\n?", part):
                self.columns.append([])
                self.title, part = plain(self.writer.render(m[1])), part[m.end() :]
            label = next((LABELS[t] for t in tags(cell) if t in LABELS), "")
            said = self.writer.render(ASIDE.sub("", part))
            for piece in in_pieces(FOLD.sub("", said)):
                if piece.strip():
                    self._add("words", piece, label, unfolded(said))

    def _code(self, cell: Any) -> None:
        source, kinds = joined(cell["source"]).strip(), tags(cell)
        if not source or "parameters" in kinds or all(IMPORTS.match(line) for line in source.splitlines()):
            return
        if "exercise" in kinds and not ONE_CALL.match(source):
            self.asked = texts.code(source) if source.count("\n") < CODE_LINES else ""
            return
        label = next((LABELS[t] for t in kinds if t in LABELS), "")
        printed = ""
        for o in cell.get("outputs", []):
            data = {k: joined(v) for k, v in o.get("data", {}).items()}
            if "image/png" in data:
                self._picture(data, o.get("metadata", {}), source, label)
            elif "text/markdown" in data:
                said, *more = re.split(
                    r"^(?=\*(?:Shapes|Remark):\*|<details>)", data["text/markdown"], maxsplit=1, flags=re.M
                )
                kind = "equation" if EQUATION.match(said) else "words"
                for piece in in_pieces(self.writer.render(said)):
                    self._add(kind, f'<div class="card">{piece}</div>', label, list(map(self.writer.render, more)))
            elif "text/html" in data:
                if "data-nlbook-live-data" in data["text/html"]:  # what the live picture before it plays
                    self.columns[-1][-1].body += data["text/html"]
                elif "data-nlbook-live" in data["text/html"]:
                    self._add("live", data["text/html"], label)
                elif "Description of the picture" not in data["text/html"]:
                    self._box(data["text/html"], label)
            else:
                printed += joined(o.get("text")) or data.get("text/plain", "")
        if printed or not ONE_CALL.match(source):
            self._run(source, printed, label)

    def _run(self, source: str, printed: str, label: str) -> None:
        code = texts.code(without_answers(source))
        short = code.count("\n") <= CODE_LINES
        out = f'<pre class="out">{html.escape(printed.rstrip())}</pre>' if printed else ""
        if short or out:
            self._add("run", (code if short else "") + out, label, [] if short else [code])

    def _box(self, markup: str, label: str) -> None:
        """A prediction, a question, an exercise or a result: folds go to the speaker."""
        shown = box(FOLD.sub("", markup))
        notes = unfolded(markup)
        if m := PREDICTION.search(markup):
            answer = box(self.answers[m[1]]) if m[1] in self.answers else "Nothing is revealed later: let them say why."
            self._add("predict", shown, "Predict", ["<p>Let everybody choose before anybody speaks.</p>", answer])
        elif RESULT.search(markup):
            self._add("result", shown, "What was measured", notes)
        elif 'aria-label="Question' in markup:
            self._add("question", shown, "Recall", notes)
        elif 'aria-label="Exercise' in markup:
            case = re.compile(r"<small>Smallest failing case:</small>.*?</table></div>", re.S)
            self._add("exercise", case.sub("", shown) + self.asked, "Your turn", notes)
            self.asked = ""
        else:
            self._add("words", shown, label, notes)

    def _picture(self, data: dict[str, str], metadata: dict[str, Any], source: str, label: str) -> None:
        """A figure; a view of the book with buttons for its landmarks."""
        from nlbook.book.viz.spec import load_state

        found = PICTURE.match(data.get("text/plain", ""))
        if found and "viz.load(" in source:
            spec, base = load_state(found[1])
            named = {str(s): n for n, s in spec.landmarks.items()}
            task = f'<p class="task"><strong>Task.</strong> {html.escape(spec.task)}</p>'
            notes = [f"<p>Digits choose the states.</p><p><strong>Answer.</strong> {html.escape(spec.answer)}</p>"]
            states = {str(base): "as it starts", **named}
            self._add("picture", self._frames(states) + task, label or "Picture to move", notes)
        else:
            alt = metadata.get("image/png", {}).get("alt", "")
            w, h = struct.unpack(">II", base64.b64decode(data["image/png"])[16:24])
            image = _image(data["image/png"].replace("\n", ""), "png", alt, w, h)
            self._add("picture", f"<figure>{image}</figure>", label, [f"<p>{html.escape(alt)}</p>"])

    def _frames(self, states: dict[str, str]) -> str:
        images, buttons = [], []
        for i, (state, name) in enumerate(states.items()):
            f = self.frames[state]
            image = _image(base64.b64encode(f.data).decode(), "webp", f.alt, f.width, f.height)
            images.append(image.replace("<img", "<img hidden", 1) if i else image)
            buttons.append(f'<button type="button" aria-pressed="{str(i == 0).lower()}">{html.escape(name)}</button>')
        return (
            f'<figure class="frames">{"".join(images)}<div class="landmarks" role="group" aria-label="States">'
            f"{''.join(buttons)}</div></figure>"
        )


def unfolded(markup: str) -> list[str]:
    """What stands in folds, for the speaker."""
    return [re.sub(r' style="[^"]*"|</?details>|</?summary>', "", fold) for fold in FOLD.findall(markup)]


def without_answers(source: str) -> str:
    """Code as it is shown: calls that only reveal a prediction or show an equation have slides of their own."""
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = ast.unparse(node.value.func)
            if called.startswith(("check.", "paper.")) and node.lineno > 1:
                del lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(lines).rstrip()


def in_pieces(body: str, most: int = TABLE_ROWS) -> list[str]:
    """A body whose table is too long for a slide, several times, each with a part of the rows; parts of like length."""
    found = re.search(r"<tbody>(.*?)</tbody>", body, re.S)
    rows = re.findall(r"<tr>.*?</tr>", found[1], re.S) if found else []
    if not found or len(rows) <= most:
        return [body]
    n = -(-len(rows) // most)
    cuts = [i * len(rows) // n for i in range(n + 1)]
    return [body[: found.start(1)] + "\n".join(rows[a:b]) + body[found.end(1) :] for a, b in pairwise(cuts)]


def _image(data: str, kind: str, alt: str, width: int, height: int) -> str:
    return f'<img src="data:image/{kind};base64,{data}" alt="{html.escape(alt)}" width="{width}" height="{height}">'


# ---- the file -------------------------------------------------------------------------------------------------------
def render(deck: Deck) -> str:
    """The deck as one file: style, fonts, scripts, pictures and all."""
    columns = "\n".join(f"<section>{''.join(_section(s) for s in column)}</section>" for column in deck.columns)
    reveal, own = ((HERE / p).read_text(encoding="utf-8") for p in ("vendor/reveal/reveal.css", "assets/deck.css"))
    css = reveal + variables() + fonts() + own
    scripts = [HERE / "vendor/reveal/reveal.js", HERE / "vendor/reveal/notes.js", HERE / "assets/deck.js"]
    code = "\n".join(
        f"<script>{p.read_text(encoding='utf-8').replace('</script', '<' + chr(92) + '/script')}</script>"
        for p in scripts
    )
    c = deck.chapter
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{c.number} · {html.escape(c.title)} · slides</title>
<link rel="icon" href="data:,">
<style>{css}</style>
</head>
<body>
<main class="reveal" aria-label="Slides of chapter {c.number}"><div class="slides">
{columns}
</div></main>
{code}
</body>
</html>
"""


def _section(s: Slide) -> str:
    eyebrow = f"<p class=eyebrow>{s.eyebrow}</p>" if s.eyebrow else ""
    head = "" if s.kind == "opening" else f"<header>{eyebrow}<h2>{html.escape(s.title)}</h2></header>"
    notes = f'<aside class="notes">{"".join(s.notes)}</aside>' if s.notes else ""
    body = s.body if s.kind == "live" else re.sub(r' (id|tabindex)="[^"]*"', "", s.body)
    return (
        f'<section class="{s.kind}">{head}<div class="body">{body}</div>{re.sub(r" id=.[^ >]*", "", notes)}</section>\n'
    )


def variables() -> str:
    """The site's colours."""
    css = (HERE / "assets" / "site.css").read_text(encoding="utf-8")
    root = re.search(r":root \{.*?\}\n:root\[data-theme=\"light\"\].*?\n:root\[data-theme=\"dark\"\].*?\n", css, re.S)
    tokens = re.findall(r"^\.(?:k|s|mi|c1|nf|o),? .*$", css, re.M)
    assert root is not None
    return root[0] + "\n".join(tokens) + "\n"


def fonts() -> str:
    """The site's fonts, inside the file."""
    css = (HERE / "assets" / "site.css").read_text(encoding="utf-8")

    def inside(m: re.Match[str]) -> str:
        data = base64.b64encode((HERE / "assets" / m[1]).read_bytes()).decode()
        return f'url("data:font/woff2;base64,{data}")'

    return (
        "\n".join(re.sub(r'url\("([^"]+)"\)', inside, face) for face in re.findall(r"@font-face \{.*?\}", css)) + "\n"
    )


def slides(
    chapters: Sequence[Chapter], out: Path, frames: Frames, say: Callable[[str], None] = lambda _line: None
) -> list[Path]:
    """A deck a chapter in the folder `out`; returns the files."""
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for c in chapters:
        deck = Deck(c, frames)
        path = out / f"{c.stem}.html"
        path.write_text(render(deck), encoding="utf-8")
        made.append(path)
        n = sum(map(len, deck.columns))
        say(f"{path.name}: {n} slides in {len(deck.columns)} sections, {path.stat().st_size / 1e6:.1f} MB")
    return made
