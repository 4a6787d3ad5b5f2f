"""LaTeX -> MathML Core, once, while the site is built.

The pages then need no script for their formulas, and a screen reader reads them. The converter is `math-core`; a formula
that it does not know is an error that names the formula, never a red box in a page.
"""

from __future__ import annotations

import functools
import html
import re

from nlbook.errors import NLBookError

TAGS = re.compile(r"<math\b.*?</math>", re.S)


@functools.cache
def _converter():
    import math_core

    return math_core.LatexToMathML(unicode_substitution="never")


@functools.cache
def mathml(latex: str, display: bool = False) -> str:
    """`latex` as a <math> element; the source stays on it as `data-tex`, for copying. Errors name the formula."""
    try:
        made = _converter().convert_with_local_state(latex.strip(), displaystyle=display)
    except Exception as error:
        raise NLBookError(f"latex: got {latex!r}, expected a formula that MathML can hold: {error}") from None
    return made.replace("<math", f'<math data-tex="{html.escape(" ".join(latex.split()))}"', 1)


def display(latex: str) -> str:
    """A formula on lines of its own; the keyboard reaches it, since a wide one scrolls."""
    return f'<div class="display" tabindex="0">{mathml(latex, True)}</div>\n'


def inline(text: str) -> str:
    """Plain text with `$...$` and `code` -> HTML."""
    parts = re.split(r"(`[^`]*`|\$[^$]+\$)", text)
    made = []
    for p in parts:
        if p[:1] == "`" and len(p) > 1:
            made.append(f"<code>{html.escape(p[1:-1])}</code>")
        elif p[:1] == "$" and len(p) > 1:
            made.append(mathml(p[1:-1]))
        else:
            made.append(html.escape(p, quote=False))
    return "".join(made)


def plain(markup: str) -> str:
    """The words of a piece of HTML, formulas left out: for the search and for titles."""
    text = re.sub(r"<[^>]+>", " ", TAGS.sub(" ", markup))
    return " ".join(html.unescape(text).split())
