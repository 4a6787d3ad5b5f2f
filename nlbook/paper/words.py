"""Definitions, tables of results, and two word lists: letters and code, the paper's terms and the usual ones."""

from __future__ import annotations

import csv
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlbook.paper.show import Shown, bad
from nlbook.paper.show import table as markdown_table

HERE = Path(__file__).parent


def _rows(name: str) -> list[dict[str, Any]]:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Definition(Shown):
    """One of the paper's definitions in this book's words, with a remark on how far to take it literally."""

    number: int
    name: str
    section: str
    equations: tuple[int, ...]
    text: str
    remark: str

    def markdown(self) -> str:
        where = f"Section {self.section}" + (f"; eq. {', '.join(map(str, self.equations))}" if self.equations else "")
        return f"**Definition {self.number}: {self.name}** ({where})\n\n{self.text}\n\n*Remark:* {self.remark}"

    def __str__(self) -> str:
        return f"Definition {self.number}: {self.name}. {self.text}"


@dataclass(frozen=True)
class Table(Shown):
    """A titled table. Iterate over it for its rows, or take a column by its name: `t["Avg"]`."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""

    def __getitem__(self, column: str) -> tuple[Any, ...]:
        if column not in self.columns:
            raise bad("column", column, f"one of {', '.join(self.columns)}")
        i = self.columns.index(column)
        return tuple(row[i] for row in self.rows)

    def __iter__(self):
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def markdown(self) -> str:
        parts = [f"**{self.title}**", markdown_table(self.columns, self.rows), self.note]
        return "\n\n".join(p for p in parts if p)

    def __str__(self) -> str:
        cells = [self.columns, *(tuple(map(str, r)) for r in self.rows)]
        widths = [max(len(r[i]) for r in cells) for i in range(len(self.columns))]
        return "\n".join([self.title, *("  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip() for r in cells)])


@functools.cache
def definitions() -> tuple[Definition, ...]:
    """The seven definitions, in order."""
    return tuple(Definition(**{**d, "equations": tuple(d["equations"])}) for d in _rows("definitions.json"))


def definition(number: int) -> Definition:
    """One definition, 1 to 7.

    >>> definition(1).name
    'Associative memory'
    """
    known = definitions()
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= len(known):
        raise bad("number", number, f"a whole number from 1 to {len(known)}, the paper's definitions")
    return known[number - 1]


def _cell(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


@functools.cache
def table(number: int | str) -> Table:
    """A table of the paper's results: 1 to 6, or "short-1" for Table 1 of the short (NeurIPS) version.

    >>> table(6)["ppl"][0]
    12.24
    """
    index = {row["key"]: row for row in _rows("tables.json")}
    if isinstance(number, bool) or str(number) not in index:
        raise bad("number", number, f"one of {', '.join(index)}")
    meta = index[str(number)]
    with open(HERE / "tables" / meta["file"], newline="", encoding="utf-8") as f:
        head, *rows = csv.reader(f)
    title = f"Table {number}: {meta['title']}"
    return Table(title, tuple(head), tuple(tuple(map(_cell, row)) for row in rows), meta["note"])


def tables() -> tuple[Table, ...]:
    """All tables of results, the full version's six first."""
    return tuple(table(row["key"]) for row in _rows("tables.json"))


@functools.cache
def notation() -> Table:
    """The paper's letters and the words that stand for them in code."""
    rows = tuple((r["letter"], f"`{r['code']}`", r["meaning"], r["shape"]) for r in _rows("notation.json"))
    return Table("Letters in formulas, words in code", ("letter", "code", "meaning", "shape"), rows)


@functools.cache
def glossary() -> Table:
    """The paper's terms beside the field's."""
    rows = tuple((r["term"], r["usual"], r["meaning"]) for r in _rows("glossary.json"))
    return Table("The paper's words and the usual ones", ("the paper says", "usual name", "meaning"), rows)
