"""The committed ledger, read: what became of each claim, without running or importing what produced it.

for row in verdicts():
    print(row.source, row.verdict, row.because)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlbook.book import coverage as scan
from nlbook.book import data
from nlbook.book.chapters import FOLDERS
from nlbook.paper.show import Shown, bad, table

WORDS = ("proved", "reproduced at toy scale", "partly", "not reproduced", "out of reach")
SYMBOLS = dict(zip(WORDS, "●◕◑○–"))


@dataclass(frozen=True)
class Judged(Shown):
    """One row of the ledger. `verdict` is one of WORDS, or "" where runs failed; `because` holds the numbers.

    groups: what was compared; seeds: how many runs the largest group has. command: what runs it again.
    """

    id: str
    title: str
    source: str
    verdict: str
    because: str
    rule: str
    command: str
    claim: str = ""
    limits: str = ""
    look: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    seeds: int = 0
    minutes: float = 0.0
    figure: str = field(default="", repr=False)

    @property
    def symbol(self) -> str:
        return SYMBOLS.get(self.verdict, "?")

    def markdown(self) -> str:
        lines = [f"**{self.source}: {self.title}** {self.symbol} *{self.verdict or 'no verdict'}*"]
        lines += [f"*The paper says:* {self.claim}"] if self.claim else []
        lines += [f"*Ours:* {self.because}", f"*Rule, written before the run:* {self.rule}"]
        lines += [f"*What this does not show:* {self.limits}"] if self.limits else []
        lines += [f"*Look at:* {', '.join(self.look)}"] if self.look else []
        return "\n\n".join([*lines, f"    {self.command}"])

    def __str__(self) -> str:
        return f"{self.source}: {self.title}: {self.verdict or 'no verdict'}. {self.because}"


class Verdicts(Shown, tuple[Judged, ...]):
    """All rows; shows itself as a table."""

    def count(self, verdict: Any = None) -> Any:  # type: ignore[override]
        """How many rows have this verdict; without one, of each that occurs."""
        found = Counter(row.verdict for row in self)
        return found[verdict] if verdict is not None else {w: found[w] for w in (*WORDS, "") if found[w]}

    def only(self, verdict: str) -> Verdicts:
        """The rows with this verdict."""
        if verdict not in WORDS:
            raise bad("verdict", verdict, f"one of {', '.join(WORDS)}")
        return Verdicts(row for row in self if row.verdict == verdict)

    def find(self, id: str) -> Judged:
        for row in self:
            if row.id == id:
                return row
        raise bad("id", id, f"one of {', '.join(row.id for row in self)}")

    def markdown(self) -> str:
        return table(
            ("source", "what", "verdict"),
            ((r.source, r.title, f"{r.symbol} {r.verdict or 'no verdict'}") for r in self),
        )

    def __str__(self) -> str:
        return "\n".join(map(str, self))


def ledger_file() -> Path | None:
    """notebooks/ledger.json of this checkout, or its copy in an installed package; None where there is none."""
    root = scan.checkout()
    file = (root / "notebooks" if root else data.folder()) / "ledger.json"
    return file if file.is_file() else None


def verdicts(file: str | Path | None = None) -> Verdicts:
    """The rows of a ledger file; left out, the one that is committed beside the notebooks (none: no rows)."""
    path = Path(file) if file is not None else ledger_file()
    if path is None:
        return Verdicts()
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        return Verdicts(_judged(row) for row in rows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise bad("file", path.name, f"a ledger as `nlbook ledger` writes it ({why})") from None


def _judged(row: Mapping[str, Any]) -> Judged:
    results: Mapping[str, Mapping[str, list[float]]] = row["results"]
    runs = [len(v) for metrics in results.values() for v in metrics.values()]
    return Judged(
        row["id"],
        row["title"],
        row["source"],
        row["verdict"]["word"],
        row["verdict"]["because"],
        row["rule"],
        row["command"],
        row.get("claim", ""),
        row.get("limits", ""),
        _looked(row.get("look", ())),
        tuple(results),
        max(runs, default=0),
        row.get("cpu_seconds", 0.0) / 60,
        row.get("figure", {}).get("file", ""),
    )


def _looked(look: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"chapter {x}" if x in FOLDERS else x for x in look)
