"""What a judge hands back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """`status` is passed, failed or not tried; `rung` is the first that failed; `rows` are numbers to look at."""

    status: str
    rung: str = ""
    message: str = ""
    rows: tuple[tuple[str, str], ...] = ()
    case: str = ""


UNTRIED = Verdict("not tried", message="Not tried yet.")


def untouched(answer: Any) -> bool:
    """Whether the reader has left the answer as it was. Identity only: an answer's `__eq__` is never asked."""
    return answer is None or answer is Ellipsis or (type(answer) is str and not answer.strip())
