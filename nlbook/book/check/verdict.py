"""What a judge hands back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

REASONS = (
    "signature",
    "runs",
    "time",
    "misconception",
    "type",
    "structure",
    "shape",
    "dtype",
    "finite",
    "sign",
    "factor",
    "transpose",
    "off by one",
    "unchanged",
    "value",
    "mutation",
    "gradient",
    "property",
    "counts",
    "unit",
    "order",
    "choice",
    "self-score",
)
"""Why an answer failed, in the order in which they are looked for: the first that holds is said."""


@dataclass(frozen=True)
class Verdict:
    """`status` is passed, failed or not tried; `reason` is one of REASONS; `rows` are numbers to look at."""

    status: str
    reason: str = ""
    message: str = ""
    rows: tuple[tuple[str, str], ...] = ()
    case: str = ""


UNTRIED = Verdict("not tried", message="Not tried yet.")


def failed(reason: str, message: str, rows: Iterable[tuple[str, str]] = (), case: str = "") -> Verdict:
    """A verdict on a wrong answer."""
    return Verdict("failed", reason, message, tuple(rows), case)


def untouched(answer: Any) -> bool:
    """Whether the reader has left the answer as it was. Identity only: an answer's `__eq__` is never asked."""
    return answer is None or answer is Ellipsis or (type(answer) is str and not answer.strip())
