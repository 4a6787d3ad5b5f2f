"""Markdown -> HTML: headings get anchors, formulas become MathML, links to notebooks become links to pages."""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from nlbook_tools.site.maths import display, mathml, plain

AFTER_FORMULA = re.compile(r"(<math\b(?:(?!</math>).)*</math>)([.,;:!?)]+)", re.S)
SPREAD = re.compile(r"(?<=\d) ± (?=\d)")


@dataclass
class Heading:
    """One heading of a page: where it is and what stands below it, in plain words (for the search)."""

    level: int
    anchor: str
    title: str
    markup: str
    words: list[str] = field(default_factory=list)


def slug(text: str, taken: set[str]) -> str:
    """An anchor that no other heading of the page has, formed as GitHub forms it, so that links in the sources hold."""
    base = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") or "section"
    name, n = base, 0
    while name in taken:
        n += 1
        name = f"{base}-{n}"
    taken.add(name)
    return name


class Writer:
    """Renders the Markdown of one page and keeps its headings.

    resolve(href) -> the address on the site, or None where there is no such page (the link becomes plain words).
    size(src) -> width and height of a picture, where they are known.
    """

    def __init__(
        self, resolve: Callable[[str], str | None], size: Callable[[str], tuple[int, int] | None] = lambda _src: None
    ) -> None:
        from markdown_it import MarkdownIt
        from mdit_py_plugins.dollarmath import dollarmath_plugin

        self.resolve, self.size = resolve, size
        self.headings: list[Heading] = []
        self.taken: set[str] = {"main", "top"}
        self.md = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
        self.md.use(dollarmath_plugin, allow_labels=False, double_inline=True)
        rules = self.md.renderer.rules  # type: ignore[attr-defined]
        rules["math_inline"] = lambda tokens, i, *_: mathml(tokens[i].content)
        rules["math_inline_double"] = lambda tokens, i, *_: mathml(tokens[i].content, display=True)
        rules["math_block"] = lambda tokens, i, *_: display(tokens[i].content)
        rules["table_open"] = lambda *_: '<div class="wide" tabindex="0" role="group" aria-label="Table"><table>\n'
        rules["table_close"] = lambda *_: "</table></div>\n"
        rules["fence"] = lambda tokens, i, *_: code(tokens[i].content, tokens[i].info.strip() or "text")

    def render(self, source: str, shift: int = 0) -> str:
        """HTML of a piece of the page; `shift` moves its headings down."""
        tokens = self.md.parse(source)
        for i, t in enumerate(tokens):
            if t.type == "heading_open":
                level = min(6, int(t.tag[1]) + shift)
                t.tag = tokens[i + 2].tag = f"h{level}"
                inner = self.md.renderer.render(self._links(tokens[i + 1].children or []), self.md.options, {})
                h = Heading(level, slug(plain(inner), self.taken), plain(inner), inner)
                self.headings.append(h)
                t.attrSet("id", h.anchor)
            elif t.type == "inline":
                t.children = self._links(t.children or [])
        return self._anchored(kept_together(self.md.renderer.render(tokens, self.md.options, {})))

    def _links(self, children: list[Any]) -> list[Any]:
        """Links through `resolve`; one that leads nowhere is dropped, its words stay."""
        kept, dropped = [], 0
        for c in children:
            if c.type == "link_open":
                to = self.resolve(str(c.attrGet("href")))
                if to is None:
                    dropped += 1
                    continue
                c.attrSet("href", to)
            elif c.type == "link_close" and dropped:
                dropped -= 1
                continue
            elif c.type == "image":
                src = str(c.attrGet("src"))
                c.attrSet("src", self.resolve(src) or "")
                for name, pixels in zip(("width", "height"), self.size(src) or ()):
                    c.attrSet(name, str(pixels))
            kept.append(c)
        return kept

    @staticmethod
    def _anchored(markup: str) -> str:
        """A small link behind each heading below the title."""
        return re.sub(
            r'<h([2-6]) id="([^"]+)">(.*?)</h\1>',
            r'<h\1 id="\2">\3<a class="anchor" href="#\2" aria-label="Link to this section">#</a></h\1>',
            markup,
            flags=re.S,
        )


def kept_together(markup: str) -> str:
    """A formula and the punctuation behind it on one line, and a number with its spread."""
    return SPREAD.sub("\u00a0±\u00a0", AFTER_FORMULA.sub(r'<span class="keep">\1\2</span>', markup))


def code(source: str, language: str = "python") -> str:
    """Highlighted source; colours come from the style sheet, so that both themes have theirs."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import TextLexer, get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language.split()[0], stripnl=False)
    except ClassNotFound:
        lexer = TextLexer(stripnl=False)
    inner = highlight(source.rstrip("\n"), lexer, HtmlFormatter(nowrap=True)).rstrip("\n")
    return f'<div class="code"><pre tabindex="0"><code>{inner}</code></pre></div>\n'


def preformatted(text: str, label: str = "Output") -> str:
    return f'<pre class="out" tabindex="0" role="group" aria-label="{html.escape(label)}">{html.escape(text)}</pre>\n'


def target(href: str, here: str) -> str:
    """The file, below notebooks/, that a link in the source `here` names."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(here), href.partition("#")[0]))


def page_of(href: str, here: str, pages: Collection[str], extra: Collection[str]) -> str | None:
    """Where a link in the source `here` (a path below notebooks/) leads on the site; None if to no page of it.

    pages: the sources that become pages (`01_a.ipynb`, `teaching/x.md`); extra: files that are copied as they are.
    """
    if re.match(r"[a-z]+:", href) or href.startswith("#"):
        return href
    path, _, fragment = href.partition("#")
    to = target(href, here)
    if to in extra:
        return href
    if to not in pages:
        return None
    return re.sub(r"\.(ipynb|md)$", ".html", path) + (f"#{fragment}" if fragment else "")
