"""What can be wrong with a built site and needs no browser to be found: links, words and sizes of pictures, requests to
elsewhere. Labels, headings, contrast and the rest are axe-core's, in tests/tools/test_browser_site.py.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from nlbook.errors import NLBookError

ALT_WORDS = 8
Found = list[tuple[str, dict[str, str]]]  # start tags: name, attributes


@dataclass(frozen=True)
class Problem:
    """One finding on one page."""

    page: str
    what: str
    todo: str

    def __str__(self) -> str:
        return f"{self.page}: {self.what} -> {self.todo}"


class Tags(HTMLParser):
    """The start tags of a page in their order: (name, attributes)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: Found = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {k: v or "" for k, v in attrs}))


def site(folder: Path) -> list[Problem]:
    """Everything that is wrong with the site in `folder`."""
    pages = {
        p.relative_to(folder).as_posix(): Tags(p.read_text(encoding="utf-8")).found for p in folder.rglob("*.html")
    }
    if not pages:
        raise NLBookError(f"folder: got {folder.name} without pages, expected a built site: run `nlbook build`")
    places = {name: {attrs["id"] for _, attrs in tags if "id" in attrs} for name, tags in pages.items()}
    found = [
        p for name, tags in sorted(pages.items()) for p in (*links(name, tags, folder, places), *images(name, tags))
    ]
    return [*found, *twins(folder)]


def links(name: str, tags: Found, folder: Path, places: dict[str, set[str]]) -> Iterator[Problem]:
    """Every address leads somewhere, fragments too; nothing is fetched from another machine."""
    addresses = ("href", "src", "data", "poster", "srcset")
    for tag, to in ((tag, attrs[key]) for tag, attrs in tags for key in addresses if key in attrs):
        if to.startswith("data:"):
            continue
        if not to.strip():
            yield Problem(name, f"an empty address in <{tag}>", "say where it leads")
        elif re.match(r"([a-z]+:)?//|[a-z]+:", to):
            if tag != "a" or not to.startswith(("https://", "mailto:")):
                yield Problem(name, f"<{tag}> asks for {to}", "keep the file in the site")
        elif to.startswith("/"):
            yield Problem(name, f"{to} is not relative", "the site must work under any path")
        else:
            path, _, fragment = to.partition("#")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(path))) if path else name
            if not (folder / target).is_file():
                yield Problem(name, f"{to} leads to no file", "mend the link")
            elif fragment and target in places and fragment not in places[target]:
                yield Problem(name, f"{to}: no such place in {target}", "mend the fragment")


def images(name: str, tags: Found) -> Iterator[Problem]:
    for attrs in (attrs for tag, attrs in tags if tag == "img"):
        alt, src = attrs.get("alt", ""), attrs.get("src", "")[:60]
        if len(alt.split()) < ALT_WORDS:
            todo = f"say in at least {ALT_WORDS} words what it shows"
            yield Problem(name, f"{src} has the alternative text {alt!r}", todo)
        if not {"width", "height"} <= set(attrs):
            yield Problem(name, f"{src} has no width or height", "give both, so that nothing jumps")


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
