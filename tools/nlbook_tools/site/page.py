"""The frame around every page: head, header, chapters on the left, contents of the page on the right, footer."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

from nlbook_tools.site.text import Heading

BOOK = "The Nested Learning book"


@dataclass
class Nav:
    """One link of the list on the left. `group` stands above the first of its kind."""

    href: str
    label: str
    group: str
    number: str = ""


@dataclass
class Page:
    """A page of the site: where it is, what stands in it."""

    href: str
    title: str
    body: str
    headings: Sequence[Heading] = ()
    scripts: Sequence[str] = ()
    head: str = ""  # what stands above the body, full width
    kind: str = "page"
    description: str = ""
    words: str = field(default="", repr=False)

    @property
    def root(self) -> str:
        return "../" * self.href.count("/")


def render(page: Page, nav: Sequence[Nav], version: str) -> str:
    """The whole document."""
    e, root = html.escape, page.root
    title = BOOK if page.href == "index.html" else f"{page.title} · {BOOK}"
    scripts = "".join(f'<script src="{root}{s}" defer></script>\n' for s in ("assets/site.js", *page.scripts))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'self' file: data: blob: 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{e(title)}</title>
<meta name="description" content="{e(page.description or page.title)}">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<script>(function(d){{d.dataset.js="1";try{{var t=localStorage.getItem("nlbook-theme");if(t)d.dataset.theme=t}}catch(e){{}}}})(document.documentElement)</script>
<link rel="stylesheet" href="{root}assets/site.css">
{scripts}</head>
<body class="{page.kind}" data-root="{root}" id="top">
<a class="skip" href="#main">Skip to the text</a>
<header class="bar">
<button type="button" class="menu" aria-expanded="false" aria-controls="chapters">Chapters</button>
<a class="home" href="{root}index.html"><span class="long">The </span>Nested Learning<span class="long"> book</span></a>
<button type="button" class="find" aria-haspopup="dialog"><span>Search</span> <kbd>/</kbd></button>
<button type="button" class="theme" aria-pressed="false">Dark</button>
</header>
<div class="columns">
<nav id="chapters" aria-label="Chapters">{chapters(page, nav)}</nav>
<main id="main" tabindex="-1">
{page.head}
{page.body.replace("<th></th>", "<td></td>")}
{neighbours(page, nav)}
</main>
{contents(page.headings)}
</div>
<footer>
<p>nlbook {e(version)} · an executable companion to <em>Nested Learning: The Illusion of Deep Learning Architectures</em>
(Behrouz, Razaviyayn, Zhong, Mirrokni; arXiv 2512.24695). Text and figures CC BY 4.0, code Apache-2.0.</p>
</footer>
</body>
</html>
"""


def chapters(page: Page, nav: Sequence[Nav]) -> str:
    made, group = [], ""
    for n in nav:
        if n.group != group:
            made.append(("</ul>" if group else "") + f'<p class="group">{html.escape(n.group)}</p>\n<ul>')
            group = n.group
        here = ' aria-current="page"' if n.href == page.href else ""
        number = f"<span>{n.number}</span> " if n.number else ""
        made.append(f'<li><a href="{page.root}{n.href}"{here}>{number}{html.escape(n.label)}</a></li>')
    return "\n".join(made) + "</ul>"


def contents(headings: Sequence[Heading]) -> str:
    """The list on the right; pages with fewer than three sections have none."""
    inner = [h for h in headings if h.level == 2]
    if len(inner) < 3:
        return ""
    items = "\n".join(f'<li><a href="#{h.anchor}">{h.markup}</a></li>' for h in inner)
    return (
        f'<nav class="contents" aria-label="On this page"><p class="group">On this page</p>\n<ul>\n{items}\n</ul></nav>'
    )


def neighbours(page: Page, nav: Sequence[Nav]) -> str:
    """The chapter before and the one after."""
    book = [n for n in nav if n.number]
    at = next((i for i, n in enumerate(book) if n.href == page.href), None)
    if at is None:
        return ""
    links = []
    for i, word, rel in ((at - 1, "Before", "prev"), (at + 1, "Next", "next")):
        if 0 <= i < len(book):
            links.append(
                f'<a rel="{rel}" href="{page.root}{book[i].href}"><span>{word}</span> {book[i].number} · '
                f"{html.escape(book[i].label)}</a>"
            )
    return f'<nav class="neighbours" aria-label="Neighbouring chapters">{"".join(links)}</nav>'
