"""The whole site from the committed notebooks: `build(root, out)`.

What is read: notebooks/*.ipynb, notebooks/teaching/*.md, notebooks/ledger.md and .json where they are, nlbook.paper, and
the views of nlbook.book.viz for the pictures that move. No kernel is started.
"""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nlbook import __version__, paper
from nlbook.book import viz
from nlbook.book.coverage import places
from nlbook.errors import NLBookError
from nlbook_tools.site import reference
from nlbook_tools.site.cells import PICTURE, Chapter, Renderer, joined, read_chapters
from nlbook_tools.site.maths import inline
from nlbook_tools.site.page import BOOK, Nav, Page, render
from nlbook_tools.site.text import Heading, Writer, page_of
from nlbook_tools.site.twins import Frames, Twins

ASSETS = Path(__file__).parent / "assets"
JS = Path(viz.__file__).parent / "js"
VIEWS = ("grid", "detective", "ledger")
ROUTES = (
    (
        "One lecture",
        ("00", "01", "04", "05"),
        "The gap between frozen and now, and clocks that fill it, with the pictures.",
    ),
    ("One week", ("00", "01", "02", "03", "04", "05", "07", "08"), "Three meetings and the exercises between them."),
    ("A module", (), "The whole book in its order, appendices where they are needed."),
    (
        "An engineer",
        ("01", "03", "05", "07", "B"),
        "Memories, attention, clocks, the whole model, and how to make it fast.",
    ),
)
MOVED = {  # pages of the first edition -> where they are now
    "00_start_here": "00_talk_to_it",
    "03_optimizers_remember_too": "A_optimizers",
    "04_attention_is_a_memory": "03_attention_or_never_forgetting",
    "05_the_level_lens": "04_who_is_written_how_often",
    "06_where_you_start_matters": "04_who_is_written_how_often",
    "07_memory_at_many_rates": "05_clocks",
    "08_rate_step_or_forgetting": "05_clocks",
    "09_a_memory_that_teaches_itself": "06_a_memory_that_teaches_itself",
    "10_hope_whole": "07_hope_whole",
    "11_make_it_fast": "B_make_it_fast",
    "12_read_like_a_referee": "08_what_it_is_good_for",
}


class Site:
    """Files below one folder, all of them written by `save`; `pages` in the order of the list on the left."""

    def __init__(self, root: Path, out: Path) -> None:
        self.root, self.out = root, out
        self.written: set[str] = set()
        self.pages: list[Page] = []
        self.nav: list[Nav] = []

    def save(self, name: str, data: bytes) -> None:
        if name not in self.written:
            path = self.out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            self.written.add(name)

    def add(self, page: Page, group: str = "", label: str = "", number: str = "") -> None:
        self.pages.append(page)
        if group:
            self.nav.append(Nav(page.href, label or page.title, group, number))


def build(
    root: Path,
    out: Path,
    *,
    jobs: int = 1,
    cache: Path | None = None,
    few: bool = False,
    only: Sequence[str] = (),
    say: Callable[[str], None] = lambda _line: None,
) -> Site:
    """Write the site of the book at `root` into the folder `out`, which is emptied first if a site lies in it.

    few: of each picture the landmarks only. only: numbers of chapters (default: all). cache: a folder that keeps drawn
    frames. Raises NLBookError where `out` holds something else, or a notebook is no chapter.
    """
    chapters = [c for c in read_chapters(root / "notebooks") if not only or c.number in only]
    if not chapters:
        raise NLBookError(f"root: got {root.name}/notebooks without executed chapters, expected NN_name.ipynb")
    clear(out)
    site, frames = Site(root, out), Frames(cache, jobs)
    assets(site)
    twins = Twins(frames, site.save, few)
    wanted = [s for c in chapters for s in loaded(c)]
    states = [s for w in dict.fromkeys(wanted) for s in twins.wanted(w)]
    say(f"{len(chapters)} chapters, {len(set(states))} frames")
    frames.draw(states)

    documents = sorted((root / "notebooks" / "teaching").glob("*.md"))
    ledger = [p for p in (root / "notebooks" / "ledger.md", root / "notebooks" / "ledger.json") if p.is_file()]
    known = {f"{c.stem}.ipynb" for c in chapters} | {f"teaching/{p.name}" for p in documents}
    known |= {"ledger.md"} if ledger else set()
    extra = copied(site)

    front = Page("index.html", "Start", "", kind="front")
    site.add(front, "The book", "Front page")
    for old, now in MOVED.items():
        if now in {c.stem for c in chapters}:
            to = f'<meta http-equiv="refresh" content="0; url={now}.html">'
            moved = f'<title>Moved</title>{to}<p>This chapter is <a href="{now}.html">here</a> now.</p>'
            site.save(
                f"{old}.html", f'<!doctype html>\n<html lang="en"><meta charset="utf-8">{moved}</html>\n'.encode()
            )
    for c in chapters:
        site.add(chapter_page(site, c, twins, known, extra), "The book", c.title, c.number)
    index = sources(site)
    site.add(reference.equations(chapters, index), "Reference")
    site.add(reference.library(), "Reference")
    site.add(reference.definitions(), "Reference")
    site.add(
        reference.words(
            "Notation",
            "notation.html",
            paper.notation(),
            "The paper's letters, and the words that stand for them in code; one table for the whole book.",
            "letter",
        ),
        "Reference",
    )
    site.add(
        reference.words("Glossary", "glossary.html", paper.glossary(), "The paper's terms beside the field's.", "term"),
        "Reference",
    )
    site.add(reference.results(), "Reference")
    site.add(reference.pictures(shown(site, chapters, twins, frames)), "Reference")
    if ledger:
        site.add(ledger_page(root, known, extra), "Reference", "Ledger of claims")
    for p in documents:
        href = f"teaching/{p.stem}.html"
        site.add(reference.document(p, href, f"teaching/{p.name}", known, extra), "Teaching")
    fill_front(front, site, chapters)
    for page in site.pages:
        site.save(page.href, render(page, site.nav, __version__).encode())
    site.save("assets/search-index.js", search_index(site).encode())
    say(f"{len(site.pages)} pages, {len(site.written)} files")
    return site


def clear(out: Path) -> None:
    """An empty folder `out`; nothing but a former site is ever removed."""
    if out.exists() and any(out.iterdir()):
        if not (out / "assets" / "site.css").is_file():
            raise NLBookError(
                f"out: got {out.name}, which holds other things, expected an empty folder or a former site"
            )
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def assets(site: Site) -> None:
    """Style, scripts, fonts; the widgets' scripts as plain functions, since a page opened from a folder has no modules."""
    css = (ASSETS / "site.css").read_text(encoding="utf-8")
    css += "".join((JS / f"{v}.css").read_text(encoding="utf-8") for v in VIEWS)
    site.save("assets/site.css", css.encode())
    for name in ("site.js", "twins.js"):
        site.save(f"assets/{name}", (ASSETS / name).read_bytes())
    site.save("assets/views.js", views().encode())
    for p in sorted((ASSETS / "fonts").iterdir()):
        site.save(f"assets/fonts/{p.name}", p.read_bytes())


def views() -> str:
    """The widgets' scripts, each in a function of its own: `nlbookViews.grid.render({ model, el })`."""
    parts = ["window.nlbookViews = {};"]
    for v in VIEWS:
        script = (JS / f"{v}.js").read_text(encoding="utf-8")
        if "export default { render };" not in script:
            raise NLBookError(f"{v}.js: got no `export default {{ render }};`, expected a widget's script")
        parts.append(f"nlbookViews.{v} = (function () {{\n{script.replace('export default', 'return')}}})();")
    return "\n".join(parts) + "\n"


def loaded(chapter: Chapter) -> list[str]:
    """The states of the live pictures of a chapter."""
    found = []
    for cell in chapter.nb["cells"]:
        for o in cell.get("outputs", []):
            m = PICTURE.match(joined(o.get("data", {}).get("text/plain")))
            if m and "viz.load(" in joined(cell["source"]) and "image/png" in o.get("data", {}):
                found.append(m[1])
    return list(dict.fromkeys(found))


def copied(site: Site) -> dict[str, tuple[int, int]]:
    """Pictures beside the notebooks, as they are: name -> width and height."""
    from PIL import Image

    sizes, folder = {}, site.root / "notebooks"
    for p in sorted((folder / "images").rglob("*")):
        if p.is_file():
            name = p.relative_to(folder).as_posix()
            site.save(name, p.read_bytes())
            with Image.open(p) as image:
                sizes[name] = image.size
    return sizes


def scripts(names: Sequence[str]) -> list[str]:
    return [*(f"twins/{n}.js" for n in names), "assets/views.js", "assets/twins.js"] if names else []


def chapter_page(
    site: Site, chapter: Chapter, twins: Twins, known: set[str], extra: Mapping[str, tuple[int, int]]
) -> Page:
    source = f"{chapter.stem}.ipynb"
    writer = Writer(lambda link: page_of(link, source, known, extra), lambda src: extra.get(src))
    body = Renderer(writer, site.save, twins.markup).body(chapter)
    meta, facts = chapter.meta, []
    if chapter.minutes:
        facts.append(f"{chapter.minutes} minutes")
    before = {c.number: c for c in read_chapters(site.root / "notebooks")}
    needs = [
        f'<a href="{before[n].href}">{n}</a>'
        for n in meta.get("prerequisites") or []
        if n in before and (f"{before[n].stem}.ipynb" in known)
    ]
    if needs:
        facts.append(f"after {', '.join(needs)}")
    eqs = [f'<a href="equations.html#eq-{n}">{n}</a>' for n in meta.get("equations") or []]
    if eqs:
        facts.append(f"equations {', '.join(eqs)}")
    facts.append(f"to run it: <code>notebooks/{source}</code>")
    made = re.sub(r"(</h1>)", rf'\1\n<p class="facts">{" · ".join(facts)}</p>', body.markup, count=1)
    return Page(
        chapter.href,
        f"{chapter.number} · {chapter.title}",
        made,
        body.headings,
        scripts([Twins.name(s) for s in dict.fromkeys(body.twins)]),
        kind="chapter",
        description=str(meta.get("claim", chapter.title)),
    )


def sources(site: Site) -> dict[str, dict[str, int]]:
    """A listing of every source that an equation points to."""
    index: dict[str, dict[str, int]] = {}
    for e in paper.equations():
        for found in sum(places(e.number), ()):
            path = found.partition(":")[0]
            file = site.root / path
            if path not in index and file.is_file():
                page, index[path] = reference.source_page(file, path)
                site.add(page)
    return index


def shown(site: Site, chapters: Sequence[Chapter], twins: Twins, frames: Frames) -> dict:
    found: dict = {}
    for c in chapters:
        for s in loaded(c):
            found.setdefault(s.partition(":")[0], (c, Twins.name(s), frames[s]))
    for _, _, frame in found.values():
        twins.picture(frame)
    return found


def ledger_page(root: Path, known: set[str], extra: Mapping[str, tuple[int, int]]) -> Page:
    md, data = root / "notebooks" / "ledger.md", root / "notebooks" / "ledger.json"
    if md.is_file():
        return reference.document(md, "ledger.html", "ledger.md", known, extra)
    return Page("ledger.html", "Ledger of claims", f"<h1>Ledger of claims</h1>\n{reference.ledger_table(data)}")


def fill_front(front: Page, site: Site, chapters: Sequence[Chapter]) -> None:
    """The front page: what this is, the picture in motion, the routes, the chapters."""
    by_number = {c.number: c for c in chapters}
    front.description = "An executable book about the paper Nested Learning: predict, run, drag, implement."
    total = sum(c.minutes for c in chapters)
    first = chapters[0]
    hero = (
        f'<div class="hero"><h1>{BOOK}</h1>\n<p class="lead">A model is a system of nested optimisation problems: each is an '
        "associative memory with its own context and its own update rate. This book starts with one matrix that remembers "
        "and ends with memories that learn at many rates, and it tests the paper's claims on the way.</p>\n"
        f'<div class="actions"><a href="{first.href}">Begin: {html.escape(first.title)}</a>'
        '<a href="equations.html">All 121 equations</a><a href="pictures.html">Pictures to move</a></div></div>\n'
    )
    shop = viz.shop()._repr_html_() if len(chapters) > 1 else ""
    routes = []
    for name, numbers, said in ROUTES:
        some = [by_number[n] for n in numbers if n in by_number] or (list(chapters) if not numbers else [])
        if some:
            links = " ".join(f'<a href="{c.href}">{c.number}</a>' for c in some)
            routes.append(
                f"<li><h3>{name}</h3><p>{said}</p><p>{links}</p>"
                f'<p class="minutes">{sum(c.minutes for c in some)} minutes with all exercises</p></li>'
            )
    cards = [
        f'<li><h3><a href="{c.href}">{c.number} · {html.escape(c.title)}</a></h3><p>{inline(str(c.meta.get("claim", "")))}</p>'
        f'<p class="minutes">{c.minutes} minutes</p></li>'
        for c in chapters
    ]
    errata = len(paper.errata())
    honest = (
        f'<div class="prose"><p>Every number in a chapter is printed by the cell beside it or asserted in a test; every '
        "result has a baseline and a negative control. Where a claim of the paper does not reproduce at the scale of a laptop, "
        f"the chapter says so and shows the figures. Of the paper's 121 equations, {errata} groups have a slip in print or in "
        'the sentences around them: the <a href="equations.html">index</a> shows what holds.</p></div>'
    )
    parts = [
        ("routes", "Ways through the book", f'<ul class="cards">{"".join(routes)}</ul>'),
        ("chapters-list", f"The chapters, {total // 60} hours in all", f'<ul class="cards">{"".join(cards)}</ul>'),
        ("honesty", "What you can rely on", honest),
    ]
    front.headings = [Heading(2, anchor, name, name) for anchor, name, _ in parts]
    front.body = hero + shop + "".join(f'<h2 id="{a}">{n}</h2>\n{b}\n' for a, n, b in parts)


def search_index(site: Site) -> str:
    """The words of every section as a script; `nlbookIndex` is a list of {href, page, title, text}."""
    entries = []
    for page in site.pages:
        if page.href.startswith("code/"):
            continue
        for i, h in enumerate(page.headings):
            text = " ".join(" ".join(h.words).split())
            entries.append(
                {
                    "href": page.href if h.level == 1 else f"{page.href}#{h.anchor}",
                    "page": page.title,
                    "title": h.title,
                    "text": text[:1500],
                    **({"weight": 2} if i == 0 else {}),
                }
            )
    return f"window.nlbookIndex = {json.dumps(entries, ensure_ascii=False, separators=(',', ':'))};\n"
