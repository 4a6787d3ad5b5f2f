"""The pages beside the chapters: equations, definitions, notation, glossary, pictures, ledger, teaching, sources."""

from __future__ import annotations

import ast
import html
import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nlbook
from nlbook import paper
from nlbook.book import coverage
from nlbook.paper.equations import STATUS
from nlbook_tools.site.cells import Chapter
from nlbook_tools.site.maths import display, inline, plain
from nlbook_tools.site.page import Page
from nlbook_tools.site.text import Heading, Writer, page_of, target

KIND = {"ok": "ok", "conv": "ok", "slip": "slip"}  # status -> the colour of its badge; the others are neither


def wide(table: str) -> str:
    return f'<div class="wide" tabindex="0" role="group" aria-label="Table">{table}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of ready HTML cells."""
    top = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in head)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in r) + "</tr>\n" for r in rows)
    return wide(f"<table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table>")


# ---- the paper ------------------------------------------------------------------------------------------------------
def equations(chapters: Sequence[Chapter], sources: Mapping[str, Mapping[str, int]]) -> Page:
    """All equations, with a filter; each with what it means, what holds, and the code, tests and chapters that carry it.

    sources: path of a source that has a page -> line of each name in it.
    """
    told = {int(n): c for c in reversed(chapters) for n in c.meta.get("equations") or []}
    where = {n: [c for c in chapters if n in (c.meta.get("equations") or [])] for n in told}
    found = paper.equations()
    options = "".join(f'<option value="{k}">{html.escape(v)}</option>' for k, v in STATUS.items())
    intro = (
        f"<h1>The {len(found)} equations</h1>\n<div class='prose'><p>Every numbered equation of the paper: its printed "
        "form, what it means in this book's words, and where it is carried out. Where the printed form does not hold, "
        "what holds stands below it and a test computes both.</p></div>\n"
        '<div class="filter"><label for="filter">Filter by a word or a number<input type="search" id="filter"></label>'
        f'<label for="only">Which<select id="only"><option value="">all of them</option>{options}</select></label>'
        '<p id="count" role="status"></p></div>\n'
    )
    headings, parts, section = [], [], ""
    for e in found:
        first = e.section.split(".")[0]
        if first != section:
            section = first
            name = f"Appendix {first}" if first.isalpha() else f"Section {first} of the paper"
            h = Heading(2, f"section-{first.lower()}", name, html.escape(name))
            headings.append(h)
            parts.append(f'<h2 id="{h.anchor}">{h.markup}</h2>')
        made = equation(e, where.get(e.number, []), sources)
        headings.append(Heading(3, f"eq-{e.number}", f"Eq. {e.number}: {e.name}", "", [plain(inline(e.meaning))]))
        parts.append(made)
    return Page(
        "equations.html",
        "Equations",
        intro + "\n".join(parts),
        headings,
        kind="page index",
        description=f"All {len(found)} equations of the Nested Learning paper, with errata, code and tests.",
    )


def equation(e: Any, told: Sequence[Chapter], sources: Mapping[str, Mapping[str, int]]) -> str:
    """One entry of the index."""
    parts = [
        f'<article class="equation" id="eq-{e.number}" data-status="{e.status}">',
        f'<h3>Eq. {e.number}: {html.escape(e.name)}<span class="badge {KIND.get(e.status, "other")}">'
        f"{html.escape(STATUS[e.status])}</span></h3>",
        display(e.latex),
    ]
    if e.correct_latex:
        parts.append(f"<p>{'What holds:' if e.status == 'slip' else 'To be read as:'}</p>{display(e.correct_latex)}")
    parts.append(f"<p>{inline(e.meaning)}</p>")
    for label, text in (("Shapes", e.shapes), ("Note", e.note), ("How to test it", e.check)):
        if text:
            parts.append(f"<p><em>{label}:</em> {inline(text)}</p>")
    places = [f"Section {html.escape(e.section)}"]
    if told:
        places.append("Chapter " + ", ".join(f'<a href="{c.href}">{c.number}</a>' for c in told))
    code, tests = coverage.places(e.number)
    for label, found in (("Code", code), ("Tests", tests)):
        if found:
            places.append(f"{label}: " + ", ".join(place(p, sources) for p in found))
    if not code and e.definition_only:
        places.append(f"No code: {inline(e.definition_only)}")
    parts.append(f'<p class="places">{"<br>".join(places)}</p>')
    parts.append(
        f'<details><summary>LaTeX<span class="hidden"> of equation {e.number}</span></summary>'
        f'<pre tabindex="0">{html.escape(e.latex)}</pre></details></article>\n'
    )
    return "\n".join(parts)


def place(found: str, sources: Mapping[str, Mapping[str, int]]) -> str:
    """`path:name` or `path::test` as a link to its line, where the source has a page."""
    path, _, name = found.partition("::") if "::" in found else found.partition(":")
    line = sources.get(path, {}).get(name.split("[")[0].replace("::", "."))
    said = f"<code>{html.escape(name or path)}</code>"
    return f'<a href="code/{path}.html#L{line}" title="{html.escape(path)}">{said}</a>' if line else said


def library() -> Page:
    """The public names of the library, made from `__all__` of each room: what it is, and the first line of its text."""
    parts, headings = ["<h1>The library</h1>"], []
    for room in (name for name in nlbook.__all__ if name != "errors"):
        module = importlib.import_module(f"nlbook.{room}")
        h = Heading(2, f"room-{room}", f"nlbook.{room}", f"<code>nlbook.{room}</code>")
        headings.append(h)
        rows = []
        for name in getattr(module, "__all__", ()):
            said = (inspect.getdoc(getattr(module, name)) or "").partition("\n")[0]
            rows.append([f"<code>{room}.{name}</code>", html.escape(said)])
        parts.append(f'<h2 id="{h.anchor}">{h.markup}</h2>{table(("name", "what it is"), rows)}')
    return Page("library.html", "The library", "\n".join(parts), headings)


def definitions() -> Page:
    headings, parts = (
        [],
        [
            "<h1>Definitions</h1>",
            "<div class=\"prose\"><p>The paper's seven definitions in this book's words, "
            "each with a remark on how far to take it literally.</p></div>",
        ],
    )
    for d in paper.definitions():
        h = Heading(
            2,
            f"definition-{d.number}",
            f"Definition {d.number}: {d.name}",
            html.escape(f"{d.number} · {d.name}"),
            [plain(inline(d.text))],
        )
        headings.append(h)
        eqs = ", ".join(f'<a href="equations.html#eq-{n}">eq. {n}</a>' for n in d.equations)
        parts.append(
            f'<div class="prose"><h2 id="{h.anchor}">{h.markup}</h2><p class="places">Section {d.section}'
            f"{'; ' + eqs if eqs else ''}</p><p>{inline(d.text)}</p><p><em>Remark:</em> {inline(d.remark)}</p></div>"
        )
    return Page("definitions.html", "Definitions", "\n".join(parts), headings)


def words(title: str, href: str, found: Any, lead: str, anchor: str) -> Page:
    """A table of the paper's words or letters: notation, glossary."""
    rows, headings = [], []
    for i, row in enumerate(found, 1):
        cells = [inline(str(c)) for c in row]
        cells[0] = f'<span id="{anchor}-{i}">{cells[0]}</span>'
        rows.append(cells)
        headings.append(
            Heading(3, f"{anchor}-{i}", plain(cells[0]) or plain(cells[1]), "", [plain(" ".join(cells[1:]))])
        )
    body = f"<h1>{html.escape(title)}</h1>\n<div class='prose'><p>{lead}</p></div>\n<div class='words-table'>{table(found.columns, rows)}</div>"
    return Page(href, title, body, headings)


def results() -> Page:
    """The paper's own tables of results."""
    headings, parts = (
        [],
        [
            "<h1>The paper's tables</h1>",
            '<div class="prose"><p>The numbers as the paper prints them. They were '
            "measured on models and data that no laptop holds; this book does not repeat them, it tests the "
            "claims that a toy can test.</p></div>",
        ],
    )
    for t in paper.tables():
        h = Heading(
            2, "table-" + t.title.split(":")[0].removeprefix("Table ").strip(), t.title, html.escape(t.title), [t.note]
        )
        headings.append(h)
        parts.append(
            f'<h2 id="{h.anchor}">{h.markup}</h2>{table(t.columns, [[inline(str(c)) for c in r] for r in t.rows])}'
            f'<div class="prose"><p>{inline(t.note)}</p></div>'
        )
    return Page("tables.html", "Tables of the paper", "\n".join(parts), headings)


def pictures(shown: Mapping[str, tuple[Chapter, str, Any]]) -> Page:
    """Every picture of the chapters: its question, and the way to it. shown: view -> chapter, name of the twin, frame."""
    from nlbook.book.viz.spec import find

    items, headings = [], []
    for key, (chapter, name, frame) in shown.items():
        spec = find(key)
        headings.append(Heading(3, "top", spec.title, "", [spec.task]))
        src = picture_name(frame)
        items.append(
            f'<li><a href="{chapter.href}#t-{name}"><img src="{src}" alt="{html.escape(frame.alt)}" loading="lazy" '
            f'width="{frame.width}" height="{frame.height}"></a><h2>{html.escape(spec.title)}</h2>'
            f'<p>{html.escape(spec.task)}</p><p class="minutes"><a href="{chapter.href}#t-{name}">Chapter '
            f"{chapter.number}: {html.escape(chapter.title)}</a></p></li>"
        )
    body = (
        "<h1>The pictures</h1>\n<div class='prose'><p>Each can be moved where it stands; in a notebook, with a running kernel, "
        'it takes every value and not only those drawn in advance.</p></div>\n<ul class="cards">'
        + "\n".join(items)
        + "</ul>"
    )
    return Page("pictures.html", "Pictures", body, headings)


def picture_name(frame: Any) -> str:
    import hashlib

    return f"twins/{hashlib.sha256(frame.data).hexdigest()[:12]}.webp"


# ---- what lies in files ---------------------------------------------------------------------------------------------
def document(path: Path, href: str, here: str, pages: set[str], extra: Mapping[str, tuple[int, int]]) -> Page:
    """A Markdown file of notebooks/ as a page: the ledger, a page for teachers."""
    source = path.read_text(encoding="utf-8")
    if source.startswith("---\n"):
        source = source.split("---\n", 2)[2]
    writer = Writer(lambda link: page_of(link, here, pages, extra), lambda src: extra.get(target(src, here)))
    made = writer.render(source)
    title = next((h.title for h in writer.headings if h.level == 1), path.stem.replace("_", " ").capitalize())
    if not any(h.level == 1 for h in writer.headings):
        made = f"<h1>{html.escape(title)}</h1>\n{made}"
    if writer.headings:
        writer.headings[0].words.append(plain(made))
    return Page(href, title, f'<div class="prose document">{made}</div>', writer.headings)


def ledger_table(path: Path) -> str:
    """A list of records (notebooks/ledger.json) as a table, its columns in the order of the first record."""
    data = json.loads(path.read_text(encoding="utf-8"))
    rows = data if isinstance(data, list) else next((v for v in data.values() if isinstance(v, list)), [])
    rows = [r for r in rows if isinstance(r, dict)]
    if not rows:
        return ""
    head = list(rows[0])

    def cell(value: Any) -> str:
        if isinstance(value, list):
            return "<br>".join(cell(v) for v in value)
        return inline(json.dumps(value) if isinstance(value, dict) else str(value if value is not None else ""))

    return table(head, [[cell(r.get(h)) for h in head] for r in rows])


def source_page(path: Path, shown: str) -> tuple[Page, dict[str, int]]:
    """The listing of one source with a place for each line, and the line of each name in it."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    text = path.read_text(encoding="utf-8")
    lines = highlight(text, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).rstrip("\n").split("\n")
    body = "".join(f'<span id="L{i}">{line}</span>' for i, line in enumerate(lines, 1))
    page = Page(
        f"code/{shown}.html",
        shown,
        f'<h1><code>{html.escape(shown)}</code></h1>\n<div class="listing">'
        f'<pre tabindex="0"><code>{body}</code></pre></div>',
        kind="page source",
    )
    return page, lines_of(text)


def lines_of(text: str) -> dict[str, int]:
    """Dotted name of each function and class of a source -> its line."""
    found: dict[str, int] = {}

    def walk(body: Sequence[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found[prefix + node.name] = node.lineno
                walk(node.body, f"{prefix}{node.name}.")
            else:
                for block in ("body", "orelse", "finalbody"):
                    walk(getattr(node, block, None) or (), prefix)

    walk(ast.parse(text).body, "")
    return found
