"""Text that is not to be read too early: packed into letters, so that a glance at a cell does not spoil its prediction.

This hides an answer from the eye, not from a person who wants it: unpacking takes one call.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from nlbook.errors import NLBookError


def seal(value: Any) -> str:
    """A text, number, list or table of texts as letters; `sealed` gives it back. The same value, the same letters."""
    return base64.b64encode(json.dumps(value, ensure_ascii=False).encode()).decode()


def sealed(letters: str) -> Any:
    """What was sealed; white space in the letters does not count.

    Raises:
        NLBookError: the letters were changed.
    """
    try:
        return json.loads(base64.b64decode("".join(letters.split()), validate=True))
    except ValueError:  # of base64, of UTF-8 or of JSON
        raise NLBookError("sealed: got letters that cannot be opened, expected them as they were handed out") from None


def call_of(value: Any, width: int = 108) -> str:
    """The call that opens `value`, as source text of one or several lines."""
    text = seal(value)
    lines = [text[i : i + width] for i in range(0, len(text), width)]
    if len(lines) == 1:
        return f"check.sealed({lines[0]!r})"
    return "check.sealed(\n" + "\n".join(f"    {line!r}" for line in lines) + ")"
