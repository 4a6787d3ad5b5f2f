"""What can be wrong with a built site, found without a browser: links, alternative texts, headings, labels, landmarks,
contrast, requests to elsewhere. Each finding names the page and what to do.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from nlbook.errors import NLBookError
from nlbook_tools.site.contrast import contrasts

ALT_WORDS = 8
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
CONTROLS = {"input", "select", "textarea", "button"}


@dataclass(frozen=True)
class Problem:
    """One finding on one page."""

    page: str
    what: str
    todo: str

    def __str__(self) -> str:
        return f"{self.page}: {self.what} -> {self.todo}"


@dataclass
class Element:
    tag: str
    attrs: dict[str, str]
    parents: list[str]
    said: list[str] = field(default_factory=list)
    headed: bool = False  # a table with a <th> of its own

    @property
    def text(self) -> str:
        return "".join(self.said)


@dataclass
class Document(HTMLParser):
    """The elements of a page in their order, each with its attributes, the tags around it and its text."""

    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[Element] = []
        self.unclosed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        e = Element(tag, {k: v or "" for k, v in attrs}, [p.tag for p in self.open])
        self.elements.append(e)
        if tag == "th":
            for table in (p for p in self.open[::-1] if p.tag == "table"):
                table.headed = True
                break
        if tag not in VOID:
            self.open.append(e)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {k: v or "" for k, v in attrs}, [p.tag for p in self.open]))

    def handle_endtag(self, tag: str) -> None:
        if tag not in [e.tag for e in self.open]:
            self.unclosed.append(f"</{tag}> without its start")
            return
        while self.open and self.open[-1].tag != tag:
            left = self.open.pop()
            if left.tag not in ("p", "li", "td", "th", "tr"):  # those may be left open in HTML
                self.unclosed.append(f"<{left.tag}> not closed before </{tag}>")
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for e in self.open:
            if e.tag != "span":  # a listing has thousands, and nobody asks what they say
                e.said.append(data)

    def all(self, *tags: str) -> Iterator[Element]:
        return (e for e in self.elements if e.tag in tags)

    @property
    def ids(self) -> list[str]:
        return [e.attrs["id"] for e in self.elements if "id" in e.attrs]


def parse(text: str) -> Document:
    d = Document()
    d.feed(text)
    d.close()
    return d


def site(folder: Path) -> list[Problem]:
    """Everything that is wrong with the site in `folder`."""
    pages = {
        p.relative_to(folder).as_posix(): parse(p.read_text(encoding="utf-8")) for p in sorted(folder.rglob("*.html"))
    }
    if not pages:
        raise NLBookError(f"folder: got {folder.name} without pages, expected a built site: run `nlbook build`")
    found: list[Problem] = []
    for name, d in pages.items():
        found += [
            *links(name, d, folder, pages),
            *images(name, d),
            *headings(name, d),
            *controls(name, d),
            *landmarks(name, d),
            *form(name, d),
        ]
    found += twins(folder)
    found += [
        Problem("assets/site.css", str(c), "change one of the two colours")
        for c in contrasts((folder / "assets" / "site.css").read_text(encoding="utf-8"))
        if not c.enough
    ]
    return found


def links(name: str, d: Document, folder: Path, pages: dict[str, Document]) -> Iterator[Problem]:
    """Every address leads somewhere, fragments too; nothing is fetched from another machine."""
    for e in d.elements:
        for key in ("href", "src", "data", "poster", "srcset"):
            to = e.attrs.get(key)
            if to is None or to.startswith("data:"):
                continue
            if not to.strip():
                yield Problem(name, f"<{e.tag} {key}> is empty", "say where it leads")
            elif re.match(r"([a-z]+:)?//|[a-z]+:", to):
                if e.tag != "a" or not to.startswith(("https://", "mailto:")):
                    yield Problem(name, f"<{e.tag}> asks for {to}", "keep the file in the site")
            elif to.startswith("/"):
                yield Problem(name, f"{to} is not relative", "the site must work under any path")
            else:
                path, _, fragment = to.partition("#")
                target = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(path))) if path else name
                if not (folder / target).is_file():
                    yield Problem(name, f"{to} leads to no file", "mend the link")
                elif fragment and target in pages and fragment not in pages[target].ids:
                    yield Problem(name, f"{to}: no such place in {target}", "mend the fragment")
    if any("style" in e.attrs and "url(" in e.attrs["style"] for e in d.elements):
        yield Problem(name, "a url() in a style attribute", "put it into the sheet")


def images(name: str, d: Document) -> Iterator[Problem]:
    for e in d.all("img"):
        if len(e.attrs.get("alt", "").split()) < ALT_WORDS:
            yield Problem(
                name,
                f"{e.attrs.get('src', '')[:60]} has the alternative text {e.attrs.get('alt', '')!r}",
                f"say in at least {ALT_WORDS} words what it shows",
            )
        if not {"width", "height"} <= set(e.attrs):
            yield Problem(
                name, f"{e.attrs.get('src', '')[:60]} has no width or height", "give both, so that nothing jumps"
            )


def headings(name: str, d: Document) -> Iterator[Problem]:
    """One h1, it comes first, no level is skipped, none is empty."""
    found = list(d.all("h1", "h2", "h3", "h4", "h5", "h6"))
    ones = [h for h in found if h.tag == "h1"]
    if len(ones) != 1:
        yield Problem(name, f"{len(ones)} headings of level 1", "a page has one")
    level = 0
    for h in found:
        if int(h.tag[1]) > level + 1:
            yield Problem(name, f"<{h.tag}> {h.text.strip()[:40]!r} after a heading of level {level}", "skip no level")
        level = int(h.tag[1])
        if not h.text.replace("#", "").strip():
            yield Problem(name, f"an empty <{h.tag}>", "give it words")


def controls(name: str, d: Document) -> Iterator[Problem]:
    """Everything that can be operated says what it is."""
    labelled = {e.attrs.get("for") for e in d.all("label") if e.text.strip()}
    for e in d.all(*CONTROLS, "a", "summary"):
        if e.attrs.get("type") == "hidden":
            continue
        own = e.text.strip() if e.tag in ("button", "a", "summary") else ""
        inside = "label" in e.parents
        image = e.tag == "a" and not own and any(i.tag == "img" for i in d.elements)
        if not (own or inside or image or e.attrs.get("aria-label", "").strip() or e.attrs.get("id", "-") in labelled):
            yield Problem(name, f"<{e.tag} {e.attrs}> has no label"[:160], "give it words, a <label> or aria-label")
        if int(e.attrs.get("tabindex", "0")) > 0:
            yield Problem(
                name, f"<{e.tag}> has a tabindex above 0", "let the order of the page be the order of the keyboard"
            )
    for e in d.elements:
        if e.attrs.get("role") in ("region", "group") and not ({"aria-label", "aria-labelledby"} & set(e.attrs)):
            yield Problem(name, f"<{e.tag} role={e.attrs['role']}> has no name", "give it aria-label")


def landmarks(name: str, d: Document) -> Iterator[Problem]:
    """Language, title, one main, header, footer, named navs, and a way past the header that comes first."""
    root = next(d.all("html"), None)
    if root is None or not root.attrs.get("lang"):
        yield Problem(name, "<html> names no language", 'write lang="en"')
    if not next((e.text.strip() for e in d.all("title")), ""):
        yield Problem(name, "no title", "a page has a title of its own")
    for tag in ("main", "header", "footer"):
        n = sum(tag == e.tag and not {"article", "section", "main"} & set(e.parents) for e in d.elements)
        if n != 1:
            yield Problem(name, f"{n} <{tag}>", "a page has one")
    navs = [e.attrs.get("aria-label", "") for e in d.all("nav")]
    if not all(navs) or len(set(navs)) != len(navs):
        yield Problem(name, f"navs are named {navs}", "each has a name of its own")
    first = next((e for e in d.elements if e.tag in {"a", *CONTROLS}), None)
    if first is None or first.attrs.get("href") != "#main":
        yield Problem(name, "the first stop of the keyboard is not the skip link", "put it first")
    if not any(e.tag == "meta" and e.attrs.get("name") == "viewport" for e in d.elements):
        yield Problem(name, "no viewport", "a phone needs it")


def form(name: str, d: Document) -> Iterator[Problem]:
    """Ids once each, every table with headers, what is opened is closed, ARIA references exist."""
    ids = d.ids
    for twice in sorted({i for i in ids if ids.count(i) > 1}):
        yield Problem(name, f"the id {twice!r} twice", "an id is given once")
    if d.unclosed:
        yield Problem(name, f"{d.unclosed[0]} ({len(d.unclosed)} in all)", "close what is opened")
    if not all(t.headed for t in d.all("table")):
        yield Problem(name, "a table without <th>", "name its columns or rows")
    known = set(ids)
    for e in d.elements:
        for key in ("aria-labelledby", "aria-controls", "aria-describedby", "for"):
            for i in e.attrs.get(key, "").split():
                if i not in known:
                    yield Problem(name, f"<{e.tag} {key}={i!r}>: no such id", "name an id of the page")


def twins(folder: Path) -> Iterator[Problem]:
    """The frames of the moving pictures: each file is there, each has its words."""
    for p in sorted((folder / "twins").glob("*.js")):
        data = json.loads(p.read_text(encoding="utf-8").partition(" = ")[2].rstrip().rstrip(";"))
        name = p.relative_to(folder).as_posix()
        for state, (src, alt, _) in data.get("frames", {}).items():
            if not (folder / src).is_file():
                yield Problem(name, f"{state}: no file {src}", "build again")
            if len(alt.split()) < ALT_WORDS:
                yield Problem(name, f"{state} has the alternative text {alt!r}", f"at least {ALT_WORDS} words")
        drawn = set(data.get("frames", {})) | set(data.get("models", {})) | set(data.get("at", {}))
        for mark, state in data["landmarks"].items():
            if state not in drawn:
                yield Problem(name, f"the landmark {mark!r} has no picture", "build again")
