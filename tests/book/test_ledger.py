"""The ledger: verdict rules on both sides of each threshold, the engine's cache and recovery, the committed pages."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from kit import refuses
from nlbook_tools.commands.ledger import command

from nlbook.book.ledger import Cell, Row, Verdict, all_rows, code, engine, find, registry, report, tables
from nlbook.book.ledger.row import gather
from nlbook.book.ledger.rules import against_best, best_of_all

CELLS = '''"""Experiments that take no time."""
from .helper import FACTOR


def run(*, seed, x=1.0, note=None):
    """Docs."""
    if note:
        with open(note, "a") as f:
            f.write(f"{seed} ")
    return {"y": FACTOR * x + seed}


def fails(*, seed):
    raise RuntimeError("as it should")


def nothing(*, seed):
    return {"y": float("nan")}


def dies(*, seed):
    import os
    os._exit(9)
'''


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A package of experiments that only this test has; spawned processes can import it too."""
    folder = tmp_path / "src" / f"cells_{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "cells.py").write_text(CELLS)
    (folder / "helper.py").write_text("FACTOR = 2.0\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    forget()
    yield folder
    forget()


def forget() -> None:
    code.code_hash.cache_clear()
    code._meaning.cache_clear()


def cell(source: Path, name: str = "run", seed: int = 1, **settings) -> Cell:
    return Cell(name, f"{source.name}.cells:{name}", {"seed": seed, **settings})


# ---- cells and hashes ------------------------------------------------------------------------------------------------
def test_a_cell_is_json():
    with refuses("settings"):
        Cell("a", "m:f", {"periods": (1, 2)})
    with refuses("function"):
        Cell("a", "m.f", {})
    assert Cell("a", "m:f", {"seed": 3}).name == "a #3" and Cell("a", "m:f", {}).name == "a"


def test_the_hash_follows_what_is_executed(source):
    def now() -> str:
        forget()
        return code.code_hash(f"{source.name}.cells:run")

    first = now()
    (source / "cells.py").write_text(CELLS.replace("Docs.", "Words.").replace("import os\n", "import os  # why\n"))
    assert now() == first, "comments and docstrings are not executed"
    (source / "helper.py").write_text("FACTOR = 3.0\n")
    assert now() != first, "a module that it imports"
    (source / "helper.py").write_text("FACTOR = 2.0\n")
    assert now() == first
    (source / "cells.py").write_text(CELLS.replace("+ seed", "- seed"))
    assert now() != first, "the module itself"
    with refuses("function"):
        code.code_hash("no_such_module_here:run")


def test_a_hash_reaches_through_the_library():
    found = code.modules("nlbook.book.ledger.runs.sequence_tasks")
    assert {"nlbook.hope.model", "nlbook.titans.rules", "nlbook.cms.layer", "nlkernels.dispatch"} <= set(found)
    assert "nlbook.book.viz.style" not in found and "torch" not in found


# ---- the engine ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("jobs", [1, 2])
def test_what_was_run_is_kept(source, tmp_path, jobs):
    note = str(tmp_path / "note")
    cells = [cell(source, seed=s, note=note) for s in (1, 2, 3)]
    first = engine.run(cells, jobs=jobs, folder=tmp_path / "kept")
    assert [o.numbers["y"] for o in first] == [3.0, 4.0, 5.0] and not any(o.cached for o in first)
    again = engine.run(cells, jobs=jobs, folder=tmp_path / "kept")
    assert [o.numbers for o in again] == [o.numbers for o in first] and all(o.cached for o in again)
    assert sorted(Path(note).read_text().split()) == ["1", "2", "3"], "nothing ran twice"
    assert engine.run([replace(cells[0], settings={**cells[0].settings, "x": 5.0})], folder=tmp_path / "kept")[
        0
    ].numbers == {"y": 11.0}, "other settings are another cell"
    assert not engine.run(cells, jobs=jobs, folder=tmp_path / "kept", fresh=True)[0].cached
    assert not list((tmp_path / "kept").glob("*.part"))


def test_a_run_that_was_killed_goes_on(source, tmp_path):
    """A half-written file counts as nothing, and whole ones are not run again."""
    note = str(tmp_path / "note")
    cells = [cell(source, seed=s, note=note) for s in (1, 2, 3)]
    kept = tmp_path / "kept"

    def stop_after_one(c, outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.run(cells, folder=kept, on_end=stop_after_one)
    assert len(list(kept.iterdir())) == 1
    engine.cell_file(cells[1], kept).write_text('{"numbers": {"y"')
    found = engine.run(cells, folder=kept)
    assert [o.cached for o in found] == [True, False, False]
    assert sorted(Path(note).read_text().split()) == ["1", "2", "3"]


def test_a_failure_loses_no_other_cell(source, tmp_path):
    cells = [cell(source), cell(source, "fails"), cell(source, "nothing"), cell(source, seed=2)]
    found = engine.run(cells, folder=tmp_path)
    assert [o.error is None for o in found] == [True, False, False, True]
    assert "as it should" in found[1].error and "no number came out for y" in found[2].error
    assert not engine.kept(cells[1], tmp_path), "a failure is not kept"


def test_a_process_that_dies_takes_nobody_along(source, tmp_path):
    cells = [cell(source, "dies"), cell(source), cell(source, seed=2)]
    found = engine.run(cells, jobs=2, folder=tmp_path / "kept")
    assert [o.error is None for o in found] == [False, True, True]
    assert "out of memory" in found[0].error


def test_a_cell_runs_on_one_thread_and_gives_the_threads_back(source, tmp_path):
    import torch

    before = torch.get_num_threads()
    (source / "cells.py").write_text("import torch\ndef run(*, seed):\n    return {'y': torch.get_num_threads()}\n")
    forget()
    assert engine.run([cell(source)], folder=tmp_path)[0].numbers == {"y": 1.0}
    assert torch.get_num_threads() == before


# ---- a row from end to end -------------------------------------------------------------------------------------------
def sample_row(package: Path, **changes) -> Row:
    f = f"{package.name}.cells:run"
    choices = [{"x": 1.0}, {"x": 4.0}]
    methods = {"ours": {}, "theirs": {}}
    fields = dict(
        id="table99",
        title="a sample",
        source="Table 99",
        claim="Ours is larger.",
        paper="100 against 0",
        setup="None.",
        rule="reproduced if ours is larger",
        limits="Everything.",
        tuning=lambda profile: tables.tuning_cells(f, methods, choices, [9]),
        cells=lambda profile, tuned: tables.evaluation_cells(f, methods, choices, [1, 2, 3], tuned, "y", higher=True),
        judge=lambda r: best_of_all(r, "ours", ["theirs"], "y", near="theirs", higher=True),
    )
    return Row(**{**fields, **changes})


@pytest.fixture
def only_row(source, monkeypatch):
    row = sample_row(source)
    monkeypatch.setattr(registry, "_found", lambda: {row.id: row})
    return row


def test_a_row_from_end_to_end(only_row, source, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    monkeypatch.setenv(engine.CACHE, str(tmp_path / "kept"))
    out = str(tmp_path / "out")
    done = CliRunner().invoke(command, ["--out", out, "--jobs", "1"])
    assert done.exit_code == 0 and "partly" in done.output, done.output
    held = json.loads((tmp_path / "out/ledger.json").read_text())["rows"][0]
    assert held["results"] == {"ours": {"y": [9.0, 10.0, 11.0]}, "theirs": {"y": [9.0, 10.0, 11.0]}}, "tuned to x = 4"
    assert held["verdict"]["word"] == "partly" and held["made"] == "2026-01-01" and len(held["tuning"]) == 4
    page = (tmp_path / "out/ledger.md").read_text()
    for part in ("10.000 ± 1.000", "nlbook ledger --only table99", "x 4.0", "Everything.", "100 against 0"):
        assert part in page, part
    first = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert CliRunner().invoke(command, ["--out", out, "--only", "table99"]).exit_code == 0
    assert first == {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}, "the same bytes again"
    assert "partly" in CliRunner().invoke(command, ["--out", out, "--list"]).output
    shown = CliRunner().invoke(command, ["--out", out, "show", "table99"]).output
    assert "## Table 99" in shown and shown.strip() in page
    assert CliRunner().invoke(command, ["--out", out, "--only", "table98"]).exit_code == 2


def test_the_check_sees_what_has_changed(only_row, source, tmp_path, monkeypatch):
    out = tmp_path / "out"
    [entry] = report.enter_all([only_row], "quick", folder=tmp_path / "kept")
    report.write([entry], [only_row], out, "quick")
    check = ["--out", str(out), "--check"]
    assert CliRunner().invoke(command, check).exit_code == 0
    for changes, said in [
        ({"rule": "another"}, "rule"),
        ({"cells": lambda p, t: []}, "settings"),
        ({"judge": lambda r: Verdict("proved", "so")}, "verdict"),
        ({"limits": "None."}, "ledger.md"),
    ]:
        row = sample_row(source, **changes)
        monkeypatch.setattr(registry, "_found", lambda row=row: {row.id: row})
        done = CliRunner().invoke(command, check)
        assert done.exit_code == 1 and said in done.output, (changes, done.output)
    monkeypatch.setattr(registry, "_found", lambda: {only_row.id: only_row})
    (source / "helper.py").write_text("FACTOR = 3.0\n")
    forget()
    done = CliRunner().invoke(command, check)
    assert done.exit_code == 0 and "older code" in done.output
    held = json.loads((out / "ledger.json").read_text())
    held["rows"][0]["results"]["ours"]["y"] = [90.0, 91.0, 92.0]
    (out / "ledger.json").write_text(json.dumps(held))
    assert "verdict" in CliRunner().invoke(command, check).output, "numbers that were touched by hand"


def test_a_row_whose_runs_fail_has_no_verdict(source, tmp_path):
    row = sample_row(source, tuning=lambda p: [], cells=lambda p, t: [cell(source, "fails"), cell(source)])
    entry = report.enter(row, "quick", lambda cells: engine.run(cells, folder=tmp_path))
    assert entry["verdict"]["word"] == "" and "RuntimeError: as it should" in entry["failed"]["fails #1"]
    report.write([entry], [row], tmp_path / "out", "quick")
    assert "no verdict" in (tmp_path / "out/ledger.md").read_text()


def test_a_row_that_is_not_run_keeps_its_entry(source, tmp_path):
    a, b = sample_row(source), sample_row(source, id="table98", source="Table 98")
    report.write(report.enter_all([a, b], "quick", folder=tmp_path / "kept"), [a, b], tmp_path, "quick")
    before = report.load(tmp_path / "ledger.json")
    report.write(report.enter_all([a], "quick", folder=tmp_path / "kept"), [a, b], tmp_path, "quick")
    assert report.load(tmp_path / "ledger.json") == before


def test_a_run_that_rows_share_is_run_once(source, tmp_path):
    note = tmp_path / "note"
    shared = [cell(source, seed=s, note=str(note)) for s in (1, 2, 3)]
    rows = [
        sample_row(
            source,
            id=f"table{n}",
            tuning=lambda p: [shared[0]],
            cells=lambda p, t: shared[1:],
            judge=lambda r: Verdict("partly", f"{sum(r['run']['y']):g}"),
        )
        for n in (97, 98)
    ]
    entries = report.enter_all(rows, "quick", folder=tmp_path / "kept", fresh=True)
    assert note.read_text().split() == ["1", "2", "3"]
    assert [e["verdict"]["because"] for e in entries] == ["9", "9"] and entries[0]["cells"] == entries[1]["cells"]


# ---- numbers, tuning, rules ------------------------------------------------------------------------------------------
def test_gather_and_spread():
    cells = [Cell("a", "m:f", {"seed": s}) for s in (1, 2, 3)] + [Cell("b", "m:f", {"seed": 1})]
    r = gather(cells, {"a #1": {"y": 1.0}, "a #2": {"y": 2.0}, "b #1": {"y": 7.0}})
    assert r == {"a": {"y": [1.0, 2.0]}, "b": {"y": [7.0]}}
    assert tables.spread(r, "a", "y", ".2f") == "1.50 ± 0.71" and tables.spread(r, "b", "y", ".0f") == "7"
    assert tables.gap(r, "a", "b", "y")[0] == -5.5
    with refuses("results"):
        tables.mean(r, "c", "y")


def test_tuning_takes_the_best_and_never_a_failed_choice():
    choices = [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}]
    tuned = {"a @ lr=0.1": {"y": [2.0, 2.0]}, "a @ lr=0.3": {"y": [1.0, 2.0]}}
    assert tables.chosen(tuned, "a", choices, "y") == {"lr": 0.3}
    assert tables.chosen(tuned, "a", choices, "y", higher=True) == {"lr": 0.1}
    assert tables.chosen({}, "a", choices, "y") == {"lr": 0.1}


def seeds(centre: float, width: float = 0.01) -> list[float]:
    return [centre - width, centre, centre + width]


@pytest.mark.parametrize(("ours", "outcome"), [(0.97, "better"), (0.99, "level"), (1.01, "level"), (1.03, "worse")])
def test_a_difference_counts_beyond_two_standard_errors(ours, outcome):
    """Standard deviation 0.01, three seeds: two standard errors of the difference are 0.0163."""
    r = {"ours": {"y": seeds(ours)}, "a": {"y": seeds(1.0)}, "b": {"y": seeds(5.0)}}
    assert against_best(r, "ours", ["a", "b"], "y").outcome == outcome
    assert against_best(r, "ours", ["a", "b"], "y", least=0.05).outcome == "level"


@pytest.mark.parametrize(
    ("ours", "word"), [(0.9, "reproduced at toy scale"), (1.0, "partly"), (1.5, "partly"), (2.5, "not reproduced")]
)
def test_the_rule_of_best_of_all(ours, word):
    r = {"ours": {"y": seeds(ours)}, "a": {"y": seeds(1.0)}, "near": {"y": seeds(2.0)}}
    assert best_of_all(r, "ours", ["a", "near"], "y", near="near").word == word
    assert best_of_all(r, "ours", ["a", "near"], "y", near="near").because


# ---- the rows --------------------------------------------------------------------------------------------------------
def test_rows_are_sound():
    """Quick and full cells can be drawn up, names are unique, the functions exist, tuning and evaluation share no seed,
    every method gets as many tries as the others, and what is judged has at least three seeds.
    """
    import importlib

    for row in all_rows():
        assert find(row.id) is row
        for profile in ("quick", "full"):
            tuning, cells = row.tuning(profile), row.cells(profile, {})
            names = [c.name for c in [*tuning, *cells]]
            assert len(names) == len(set(names)), row.id
            for c in [*tuning, *cells]:
                module, name = c.function.split(":")
                assert callable(getattr(importlib.import_module(module), name)), c.function
            tried = {c.group.split(" @ ")[0] for c in tuning}
            assert len({sum(c.group.split(" @ ")[0] == m for c in tuning) for m in tried}) <= 1, row.id
            used = {c.settings["seed"] for c in cells if "seed" in c.settings}
            assert not used & {c.settings["seed"] for c in tuning if "seed" in c.settings}, row.id
            for group in {c.group for c in cells if "seed" in c.settings}:
                assert sum(c.group == group for c in cells) >= 3, (row.id, group)
