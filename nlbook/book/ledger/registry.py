"""Finding the rows: every module of nlbook/book/ledger/rows has ROWS."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from functools import cache

from nlbook.book.ledger import rows
from nlbook.book.ledger.row import Row
from nlbook.errors import NLBookError


def _order(row: Row) -> tuple[int, list[int], str]:
    """Tables first, then figures, then the rest, by number."""
    kind = 0 if row.id.startswith("table") else 1 if row.id.startswith("fig") else 2
    return kind, [int(n) for n in re.findall(r"\d+", row.id)], row.id


@cache
def _found() -> dict[str, Row]:
    found: dict[str, Row] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(rows.__path__)):
        for row in importlib.import_module(f"{rows.__name__}.{module}").ROWS:
            if row.id in found:
                raise NLBookError(f"id: got {row.id!r} twice, expected one row of that id (rows/{module}.py)")
            found[row.id] = row
    return {row.id: row for row in sorted(found.values(), key=_order)}


def all_rows() -> list[Row]:
    """Every row: tables, figures, the rest."""
    return list(_found().values())


def find(id: str) -> Row:
    """The row of this id; an unknown id is answered with the nearest known one."""
    if id not in _found():
        near = difflib.get_close_matches(str(id), _found(), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise NLBookError(f"id: got {id!r}, expected one of {', '.join(_found())}{hint}")
    return _found()[id]
