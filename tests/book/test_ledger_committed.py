"""The ledger as it is committed: complete, in step with its rows, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nlbook.book.chapters import FOLDERS
from nlbook.book.ledger import Cell, all_rows, engine, find, report

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SOURCES = ["table1", "table2", "table3", "table4", "table5", "table6", "fig4", *(f"fig{n}" for n in range(6, 13))]


def test_every_table_and_figure_has_its_row():
    held = report.load(NOTEBOOKS / "ledger.json")
    for source in SOURCES:
        assert find(source).claim and find(source).rule, source
        assert held[source]["verdict"]["word"], source


def test_the_committed_ledger_is_in_step():
    """Same rules, same settings, and verdicts and words that follow from the numbers."""
    wrong, _ = report.out_of_step(all_rows(), NOTEBOOKS)
    assert not wrong, wrong


def test_failed_runs_are_blow_ups_that_the_page_names_and_seeds_are_enough():
    """A training that blew up is a result: it stays, by name. Nothing else may fail."""
    page = (NOTEBOOKS / "ledger.md").read_text(encoding="utf-8")
    for id, e in report.load(NOTEBOOKS / "ledger.json").items():
        assert all("TrainingStopped" in why and name in page for name, why in e["failed"].items()), (id, e["failed"])
        for group, metrics in e["results"].items():
            [count] = {len(v) for v in metrics.values()}
            lost = sum(name.startswith(f"{group} #") for name in e["failed"])
            assert count == 1 or count + lost >= 3, (id, group)
        if "figure" in e:
            assert (NOTEBOOKS / e["figure"]["file"]).stat().st_size < 100_000 and len(e["figure"]["alt"]) > 30, id


def test_what_takes_no_time_comes_out_again():
    """Counts and identities, run now: the committed numbers are not older than the index of equations."""
    held = report.load(NOTEBOOKS / "ledger.json")
    for id in ("equations", "theory-horizon"):
        [cell] = find(id).cells("quick", {})
        again = engine.do(cell)
        assert again.error is None
        assert again.numbers == {k: v for k, [v] in held[id]["results"][cell.group].items()}, id


def test_what_a_row_points_to_exists():
    root = NOTEBOOKS.parent
    for row in all_rows():
        for place in row.evidence:
            file, _, name = place.partition("::")
            assert (root / file).is_file() and (not name or f"def {name}" in (root / file).read_text()), (row.id, place)
        for chapter in row.chapters:
            assert chapter in FOLDERS, row.id


def test_the_quick_ledger_fits_in_fifteen_minutes_of_two_cores():
    """Processor time as it was recorded; a run that two rows share counts once."""
    cells = {
        c["hash"]: c["cpu_seconds"]
        for e in report.load(NOTEBOOKS / "ledger.json").values()
        for c in [*e["tuning"], *e["cells"]]
    }
    assert sum(cells.values()) < 2 * 15 * 60


def test_a_cheap_row_comes_out_again():
    """One cell of the committed ledger, rerun on this machine. Floating point differs a little from one to another, and
    training spreads that: the accuracy may move, the settings and the order of size may not.
    """
    kept = next(
        c for c in report.load(NOTEBOOKS / "ledger.json")["table3"]["cells"] if c["name"].startswith("Transformer")
    )
    again = engine.do(Cell(kept["name"], kept["function"], kept["settings"]))
    assert again.error is None and again.numbers.keys() == kept["numbers"].keys()
    assert again.numbers["parameters"] == kept["numbers"]["parameters"]
    assert again.numbers["accuracy"] == pytest.approx(kept["numbers"]["accuracy"], abs=0.1)


def test_one_real_cell_runs_from_end_to_end(tmp_path):
    """The smallest real thing: seconds, not minutes."""
    small = replace(
        find("table3").cells("quick", {})[0],
        settings={
            "method": "gated delta",
            "task": "recall",
            "lr": 0.01,
            "seed": 1,
            "steps": 3,
            "batch": 4,
            "length": 16,
            "sequences": 8,
        },
    )
    [outcome] = engine.run([small], folder=tmp_path)
    assert outcome.error is None and 0 <= outcome.numbers["accuracy"] <= 1
    assert engine.run([small], folder=tmp_path)[0] == replace(outcome, cached=True)
