"""The reproduction ledger: each table and figure of the paper, its small counterpart, and a verdict by a rule.

    row.py        Row, Cell, Verdict: what an entry of the ledger is
    rows/         one file a table or figure, found by name; each has ROWS, a list of Row
    registry.py   finding the rows
    code.py       the hash of the code that a cell depends on
    engine.py     runs cells in parallel, caches them, goes on after a kill
    tables.py     numbers over seeds, tuning
    report.py     ledger.json, ledger.md and the pictures

The rule of a row is written before its run: `git log` shows it.
"""

from nlbook.book.ledger.registry import all_rows, find
from nlbook.book.ledger.row import Cell, Results, Row, Verdict

__all__ = ["Cell", "Results", "Row", "Verdict", "all_rows", "find"]
