"""What an entry of the ledger is: a claim, cells that are run, and a pure function from numbers to a verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from nlbook.book.ledger.verdicts import WORDS
from nlbook.errors import need
from nlbook.paper.words import Table, table

PROFILES = ("quick", "full")

Results = dict[str, dict[str, list[float]]]
"""group -> metric -> one number for each seed, in the order of the cells."""


@dataclass(frozen=True)
class Verdict:
    """One of `verdicts.WORDS`, and the numbers that led there in one or two sentences."""

    word: str
    because: str

    def __post_init__(self) -> None:
        need(self.word in WORDS, "word", repr(self.word), f"one of {', '.join(WORDS)}")


@dataclass(frozen=True)
class Cell:
    """One run: `function(**settings)` -> dict of floats. JSON in, JSON out.

    group: what is compared, such as "Hope"; the seeds of a group are its spread. function: "module:name".
    settings: keyword arguments, "seed" among them unless the run has no chance in it.
    """

    group: str
    function: str
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        need(self.function.count(":") == 1, "function", repr(self.function), "'module:name'")
        need(
            json.loads(json.dumps(self.settings)) == self.settings,
            "settings",
            self.settings,
            "values that come back from JSON as they were (lists, not tuples)",
        )

    @property
    def name(self) -> str:
        return f"{self.group} #{self.settings['seed']}" if "seed" in self.settings else self.group


def _no_cells(profile: str) -> list[Cell]:
    return []


@dataclass(frozen=True, kw_only=True)
class Row:
    """A table, figure or theory of the paper, and its small counterpart.

    Args:
        id: "table5". source: "Table 5". claim: what the paper says, one sentence.
        paper: its printed numbers, a `nlbook.paper.words.Table` or words.
        setup, baselines: what is run, against what, in words. rule: how `judge` decides, in words.
        tuning: (profile) -> the cells from which settings are chosen, on seeds that `cells` never uses. Each method
            gets the same number of them.
        cells: (profile, results of the tuning) -> the cells that are judged; at least 3 seeds a group where there is
            chance.
        judge: (results of the cells) -> Verdict; a pure function of numbers.
        columns: (metric, heading, format) of the table of our numbers: mean and standard deviation over seeds; None:
            every metric.
        table: (results) -> head and rows of our table, where `columns` would not do.
        limits: what this does not show. scale: what of the claim stays untested at the paper's size; "" where the
            claim has no size.
        figure: (results) -> (matplotlib Figure, alternative text).
        evidence: tests and chapters to look at, as "tests/test_x.py::test_y" or a chapter's number.
    """

    id: str
    title: str
    source: str
    claim: str
    paper: Table | str
    setup: str
    rule: str
    judge: Callable[[Results], Verdict]
    limits: str
    cells: Callable[[str, Results], list[Cell]] = lambda profile, tuned: []
    tuning: Callable[[str], list[Cell]] = _no_cells
    baselines: str = ""
    columns: Sequence[tuple[str, str, str]] | None = None
    scale: str = ""
    figure: Callable[[Results], tuple[Any, str]] | None = None
    table: Callable[[Results], tuple[Sequence[str], Sequence[Sequence[str]]]] | None = None
    chapters: Sequence[str] = ()
    evidence: Sequence[str] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        need(self.id.replace("-", "").isalnum() and self.id.islower(), "id", repr(self.id), "letters, digits and '-'")
        for name in ("title", "source", "claim", "setup", "rule", "limits"):
            need(bool(getattr(self, name).strip()), name, "''", f"words ({self.id})")


@cache
def _words() -> dict[str, dict[str, Any]]:
    """rows/words.yaml: id -> what a row says, with the shared texts put in."""
    import yaml  # papermill brings it along

    said = yaml.safe_load((Path(__file__).parent / "rows" / "words.yaml").read_text(encoding="utf-8"))
    shared: dict[str, str] = {}
    for name, text in said.pop("shared").items():
        shared[name] = text.format(**shared)
    return {
        id: {k: v.format(**shared) if isinstance(v, str) else v for k, v in words.items()} for id, words in said.items()
    }


def row(id: str, **functions: Any) -> Row:
    """The row of this id: its words from rows/words.yaml, and its functions (cells, judge, ...)."""
    said = _words()[id]
    paper = said["paper"] if isinstance(said["paper"], str) else table(said["paper"]["table"])
    return Row(id=id, **{**said, "paper": paper}, **functions)


def gather(cells: Sequence[Cell], numbers: dict[str, dict[str, float]]) -> Results:
    """Results of cells by group, metric and seed. numbers: the name of a cell -> what it returned; a cell that failed
    is missing there and left out.
    """
    out: Results = {}
    for cell in cells:
        for metric, value in numbers.get(cell.name, {}).items():
            out.setdefault(cell.group, {}).setdefault(metric, []).append(value)
    return out
