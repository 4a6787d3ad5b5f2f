"""Slides from the cells of a chapter: one HTML file that holds everything, for a projector without a network.

A section of the chapter is a column of slides: its sentences (shortened; the whole text is the speaker's), each formula,
question, figure and result on a slide of its own. The speaker's notes hold what the instructor says: the text, the answer
to a prediction, hints and solution of an exercise, and which minute it should be. reveal.js turns the pages.
"""

from __future__ import annotations

import ast
import base64
import html
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from nlbook_tools.notebooks.contract import words as count
from nlbook_tools.site import text as texts
from nlbook_tools.site.cells import EQUATION, IMPORTS, LABELS, ONE_CALL, PICTURE, Chapter, box, joined, tags
from nlbook_tools.site.maths import plain
from nlbook_tools.site.shorten import shorten, whole_paragraph
from nlbook_tools.site.text import Writer
from nlbook_tools.site.twins import Frames

HERE = Path(__file__).parent
CODE_LINES = 18  # more than this, and only the output is shown
TABLE_ROWS = 15  # more than this, and the table goes on on the next slide
STATES = re.compile(r"""["'](v\d+[^"']*)["']""")
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
    """The slides of one chapter, in columns."""

    def __init__(self, chapter: Chapter, frames: Frames) -> None:
        self.chapter, self.frames = chapter, frames
        self.writer = Writer(lambda href: href if href.startswith("#") else None)
        self.columns: list[list[Slide]] = []
        self.title = chapter.title
        self.answers = dict(self._answers())
        self.minute, self.pace = 0.0, self._pace()
        self.waiting = ""  # the words of an exercise whose check comes next
        self.stub = ""
        self._walk()

    # ---- what the cells hold -----------------------------------------------------------------------------------------
    def _answers(self):
        """Prediction -> what was measured, as the chapter's later cell says it."""
        for cell in self.chapter.nb["cells"]:
            for o in cell.get("outputs", []):
                shown = joined(o.get("data", {}).get("text/html"))
                if m := RESULT.search(shown):
                    yield m[1], shown

    def _pace(self) -> float:
        """Minutes of teaching for a word."""
        reading = (self.chapter.meta.get("minutes") or {}).get("reading", 0)
        total = sum(count(joined(c["source"])) for c in self.chapter.nb["cells"] if c["cell_type"] == "markdown")
        return reading / max(1, total)

    def _walk(self) -> None:
        cells = self.chapter.nb["cells"]
        claim = next((c for c in cells if "claim" in tags(c)), None)
        self.columns.append([self._opening(cells[0], claim)])
        for cell in cells[1:]:
            if cell is claim:
                continue
            if cell["cell_type"] == "markdown":
                for part in re.split(r"^(?=## )", joined(cell["source"]), flags=re.M):
                    for slide in self._text(part.strip(), tags(cell)):
                        self._put(slide)
            else:
                for slide in self._code(cell):
                    self._put(slide)
        self.columns = [joined_up(c) for c in self.columns if c]

    def _put(self, slide: Slide) -> None:
        """Into the present column; a short lead-in goes onto the slide that it leads to, a result below what it is of."""
        column = self.columns[-1]
        last = column[-1] if column else None
        leads = slide.kind in ("predict", "run", "equation", "exercise", "question") or (
            slide.kind == "picture" and few_words(last)
        )
        if last and last.kind == "words" and leads and lead_in(last):
            column[-1] = Slide(
                slide.kind,
                slide.title,
                f'<div class="lead">{last.body}</div>{slide.body}',
                slide.eyebrow or last.eyebrow,
                last.notes + slide.notes,
            )
        elif (
            last
            and slide.kind == "result"
            and (last.kind == "run" or (last.kind == "picture" and "frames" not in last.body))
        ):
            last.body += f'<div class="fragment">{slide.body}</div>'
            last.notes += slide.notes
        else:
            column.append(slide)

    def _opening(self, first: Any, claim: Any) -> Slide:
        c = self.chapter
        said = self.writer.render(joined(claim["source"])) if claim else ""
        objectives = "".join(f"<li>{html.escape(o['text'])}</li>" for o in c.meta.get("objectives") or [])
        return Slide(
            "opening",
            c.title,
            f'<p class="number">Chapter {c.number}</p><h1>{html.escape(c.title)}</h1>{said}',
            notes=[
                f"<p>{c.minutes} minutes with all exercises.</p><p>After it one can:</p><ul>{objectives}</ul>",
                self.writer.render(whole_paragraph(joined(first["source"]))),
            ],
        )

    def _text(self, source: str, kinds: list[str]) -> list[Slide]:
        if not source:
            return []
        before = self.minute
        self.minute += self.pace * count(source)
        if m := re.match(r"##\s+(.*)\n?", source):
            self.columns.append([])
            self.title, source = plain(self.writer.render(m[1])), source[m.end() :].strip()
        if m := re.search(r"^\*\*Exercise", source, re.M):
            source, self.waiting = source[: m.start()].strip(), source[m.start() :]
        source = ASIDE.sub("", source)
        label = next((LABELS[t] for t in kinds if t in LABELS), "")
        keep = {"limits", "key-points"} & set(kinds)
        body = self.writer.render(source if keep else shorten(source))
        if not body.strip():
            return []
        note = f"<p><em>Minute {before:.0f}.</em></p>{self.writer.render(source)}"
        return [Slide("words" if not keep else "points", self.title, body, label, [note])]

    def _code(self, cell: Any) -> list[Slide]:
        source, kinds = joined(cell["source"]).strip(), tags(cell)
        if not source or "parameters" in kinds or all(IMPORTS.match(line) for line in source.splitlines()):
            return []
        label = next((LABELS[t] for t in kinds if t in LABELS), "")
        if "exercise" in kinds and not ONE_CALL.match(source):
            self.stub = source
            return []
        return self._outputs(cell, source, label)

    def _outputs(self, cell: Any, source: str, label: str) -> list[Slide]:
        slides: list[Slide] = []
        printed: list[str] = []
        for o in cell.get("outputs", []):
            data = {k: joined(v) for k, v in o.get("data", {}).items()}
            if o["output_type"] == "stream":
                printed.append(joined(o["text"]))
            elif "image/png" in data and source.startswith("viz.still(") and self._shown(source):
                continue
            elif "image/png" in data:
                slides.append(self._picture(data, o.get("metadata", {}), source, label))
            elif "text/markdown" in data:
                slides += self._card(data["text/markdown"], label)
            elif "text/html" in data:
                if "Description of the picture" not in data["text/html"]:
                    slides.append(self._box(data["text/html"], label))
            elif data.get("text/plain"):
                printed.append(data["text/plain"])
        if printed or not (slides or ONE_CALL.match(source)):
            slides.insert(0, self._run(source, "\n".join(p.rstrip("\n") for p in printed), label))
        return slides

    def _run(self, source: str, printed: str, label: str) -> Slide:
        source = without_answers(source)
        short = len(source.splitlines()) <= CODE_LINES
        shown = texts.code(source) if short else ""
        out = f'<pre class="out">{html.escape(printed)}</pre>' if printed else ""
        return Slide("run", self.title, shown + out, label, [] if short else [texts.code(source)])

    def _card(self, source: str, label: str) -> list[Slide]:
        """An entry of the index: the formula and its meaning on the slide, shapes and notes for the speaker."""
        blocks = source.split("\n\n")
        aside = [b for b in blocks if b.startswith(("*Shapes:*", "*Note:*", "*Remark:*"))]
        body = self.writer.render("\n\n".join(b for b in blocks if b not in aside))
        kind = "equation" if EQUATION.match(source) else "words"
        notes = [self.writer.render(b) for b in aside]
        return [Slide(kind, self.title, f'<div class="card">{piece}</div>', label, notes) for piece in in_pieces(body)]

    def _box(self, markup: str, label: str) -> Slide:
        """A prediction, a question, an exercise or a result: folds go to the speaker."""
        aside, shown = FOLD.findall(markup), box(FOLD.sub("", markup))
        notes = [
            a.replace("<details>", "")
            .replace("</details>", "")
            .replace("<summary>", "<p><strong>")
            .replace("</summary>", "</strong></p>")
            for a in aside
        ]
        notes = [re.sub(r' style="[^"]*"', "", n) for n in notes]
        if m := PREDICTION.search(markup):
            answer = self.answers.get(m[1])
            said = box(answer) if answer else "<p>Nothing is revealed later: let them say why.</p>"
            return Slide(
                "predict",
                self.title,
                shown,
                "Predict",
                [
                    "<p>Let everybody choose before anybody speaks; count the hands.</p>",
                    f"<p>What comes out:</p>{said}",
                ],
            )
        if RESULT.search(markup):
            return Slide("result", self.title, shown, "What was measured", notes)
        if 'aria-label="Question' in markup:
            return Slide("question", self.title, shown, "Recall", notes)
        if 'aria-label="Exercise' in markup:
            stub = texts.code(self.stub) if self.stub and len(self.stub.splitlines()) <= CODE_LINES else ""
            asked = shown
            if self.waiting:  # the chapter's own words; the precise wording of the check is the speaker's
                asked, notes = self.writer.render(self.waiting), [shown, *notes]
            asked = re.sub(r"<small>Smallest failing case:</small>.*?</table></div>", "", asked, flags=re.S)
            self.waiting = self.stub = ""
            return Slide("exercise", self.title, asked + stub, "Your turn", notes)
        return Slide("words", self.title, shown, label, notes)

    def _picture(self, data: dict[str, str], metadata: dict[str, Any], source: str, label: str) -> Slide:
        """A figure; a view of the book with buttons for its landmarks, or for the states of a strip."""
        from nlbook.book.viz.spec import load_state

        found = PICTURE.match(data.get("text/plain", ""))
        states: dict[str, str] = {}
        if found and "viz.load(" in source:
            spec, base = load_state(found[1])
            states = {str(s): n for n, s in spec.landmarks.items()}
            states = {str(base): states.get(str(base), "as it starts"), **states}
        elif source.startswith("viz.still("):
            parsed = [load_state(s) for s in STATES.findall(source)]
            spec = parsed[0][0]
            states = {str(s): str(s).partition(":")[2] or "default" for _, s in parsed}
        if states:
            shown = self._frames(states)
            task = (
                f'<p class="task"><strong>Task.</strong> {html.escape(spec.task)}</p>' if "viz.load(" in source else ""
            )
            return Slide(
                "picture",
                self.title,
                shown + task,
                label or "Picture to move",
                [
                    "<p>Digits 1 to 9 choose the states.</p>",
                    f"<p><strong>Answer.</strong> {html.escape(spec.answer)}</p>",
                ],
            )
        said = metadata.get("image/png", {})
        png = base64.b64decode(data["image/png"])
        w, h = struct.unpack(">II", png[16:24])
        image = _image(data["image/png"].replace("\n", ""), "png", said.get("alt", ""), w, h)
        return Slide(
            "picture", self.title, f"<figure>{image}</figure>", label, [f"<p>{html.escape(said.get('alt', ''))}</p>"]
        )

    def _shown(self, source: str) -> bool:
        """Has this section a picture with buttons of the same view already?"""
        return any(f'data-view="{STATES.findall(source)[0].partition(":")[0]}"' in s.body for s in self.columns[-1])

    def _frames(self, states: dict[str, str]) -> str:
        images, buttons = [], []
        for i, (state, name) in enumerate(states.items()):
            f = self.frames[state]
            image = _image(base64.b64encode(f.data).decode(), "webp", f.alt, f.width, f.height)
            images.append(image.replace("<img", "<img hidden", 1) if i else image)
            buttons.append(f'<button type="button" aria-pressed="{str(i == 0).lower()}">{html.escape(name)}</button>')
        return (
            f'<figure class="frames" data-view="{next(iter(states)).partition(":")[0]}">{"".join(images)}<div class="landmarks" role="group" aria-label="States">'
            f"{''.join(buttons)}</div></figure>"
        )


def without_answers(source: str) -> str:
    """Code as it is shown: calls that only reveal a prediction or show an equation have slides of their own."""
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = ast.unparse(node.value.func)
            if called.startswith(("check.", "paper.")) and node.lineno > 1:
                del lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(lines).rstrip()


def joined_up(column: list[Slide]) -> list[Slide]:
    """A remark of few words stands below what it is about, not on a slide of its own."""
    made: list[Slide] = []
    for s in column:
        last = made[-1] if made else None
        if (
            last
            and s.kind == "words"
            and lead_in(s)
            and few_words(s)
            and last.kind in ("predict", "run", "equation", "exercise", "picture")
            and 'class="lead after"' not in last.body
        ):
            last.body += f'<div class="lead after">{s.body}</div>'
            last.notes += s.notes
        else:
            made.append(s)
    return made


def in_pieces(body: str, most: int = TABLE_ROWS) -> list[str]:
    """A body whose table is too long for a slide, several times, each with a part of the rows; parts of like length."""
    found = re.search(r"<tbody>(.*?)</tbody>", body, re.S)
    rows = re.findall(r"<tr>.*?</tr>", found[1], re.S) if found else []
    if not found or len(rows) <= most:
        return [body]
    n = -(-len(rows) // most)
    cuts = [i * len(rows) // n for i in range(n + 1)]
    return [body[: found.start(1)] + "\n".join(rows[a:b]) + body[found.end(1) :] for a, b in pairwise(cuts)]


def few_words(slide: Slide | None, most: int = 30) -> bool:
    return slide is not None and len(plain(slide.body).split()) <= most


def lead_in(slide: Slide) -> bool:
    """Few words and no formula on a line of its own."""
    return len(plain(slide.body).split()) <= 45 and not re.search(
        r'class="display"|<(ul|ol|table|blockquote)', slide.body
    )


def _image(data: str, kind: str, alt: str, width: int, height: int) -> str:
    return f'<img src="data:image/{kind};base64,{data}" alt="{html.escape(alt)}" width="{width}" height="{height}">'


# ---- the file -------------------------------------------------------------------------------------------------------
def render(deck: Deck) -> str:
    """The deck as one file: style, fonts, scripts, pictures and all."""
    columns = "\n".join(f"<section>{''.join(_section(s) for s in column)}</section>" for column in deck.columns)
    css = (
        "".join((HERE / p).read_text(encoding="utf-8") for p in ("vendor/reveal/reveal.css",))
        + variables()
        + fonts()
        + (HERE / "assets" / "deck.css").read_text(encoding="utf-8")
    )
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
    head = (
        ""
        if s.kind == "opening"
        else (
            f"<header>{f'<p class=eyebrow>{s.eyebrow}</p>' if s.eyebrow else ''}"
            f"<h2>{html.escape(s.title)}</h2></header>"
        )
    )
    notes = f'<aside class="notes">{"".join(s.notes)}</aside>' if s.notes else ""
    body = re.sub(r' (id|tabindex)="[^"]*"', "", s.body)
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
