"""notebooks/teaching: tables in step with the chapters, strings that load, and the README's walk through a course."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from nlbook_tools.cli import main
from nlbook_tools.course import docs, plans
from nlbook_tools.course.notes import demos

from nlbook.book import viz
from nlbook.book.check import registry
from nlbook.book.check.define import Exercise

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
TEACHING = sorted((FOLDER / "teaching").rglob("*.md"))
CALL = re.compile(r"viz\.load\(\"([^\"]+)\"(?:, hide=(\([^)]*\)))?\)")
HIDDEN = ("controls", "landmarks", "answer")


def test_every_made_table_is_in_step():
    old = [p.name for p in docs.stale(FOLDER)]
    assert not old, f"{old}: run `nlbook course docs`"


def test_a_stale_table_is_noticed(tmp_path):
    path = tmp_path / "x.md"
    path.write_text("# x\n<!-- made by nlbook course: exam -->\nold\n<!-- end -->\nby hand\n")
    text = docs.written(FOLDER, path)
    assert "| exam-20 " in text and "old" not in text and text.endswith("by hand\n")


@pytest.mark.parametrize("path", TEACHING, ids=lambda p: p.stem)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert "://" in target or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", TEACHING, ids=lambda p: p.stem)
def test_every_view_in_the_teaching_notes_loads(path):
    for state, hide in CALL.findall(path.read_text(encoding="utf-8")):
        shown = viz.load(state, hide=eval(hide) if hide else ())
        assert str(shown.state) == str(viz.find(state.partition(":")[0]).state(state))


@pytest.mark.parametrize("view", viz.all_views(), ids=lambda v: v.key)
def test_a_view_can_be_handed_out_without_its_controls(view):
    """The picture and the question stay; sliders, landmarks and the answer go; the state is the string's."""
    import ipywidgets as W

    def kinds(widget):
        yield type(widget)
        for child in getattr(widget, "children", ()):
            yield from kinds(child)

    state = next(iter(view.landmarks.values()), view.state())
    whole, bare = viz.load(str(state)), viz.load(str(state), hide=HIDDEN)
    controls = {type(c) for c in bare.controls.values()} | {W.Button}
    assert controls & set(kinds(whole)) and not controls & set(kinds(bare))
    assert bare.state == state and bare.facts == whole.facts
    text = " ".join(w.value for w in walk(bare) if isinstance(w, W.HTML))
    assert view.title.split(":")[0] in text and "Answer" not in text


def walk(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)


def test_each_chapter_has_notes_and_demonstrations():
    chapters = {c.number for c in docs.book(FOLDER)}
    notes = {p.stem for p in (FOLDER / "teaching" / "notes").glob("*.md")}
    assert notes == chapters and chapters - set(demos()) == {"08", "D"}
    assert {p.chapter for s in plans.sessions().values() for p in s.parts} == chapters, "a chapter that nobody teaches"
    module = [s for s in plans.sessions().values() if s.name.startswith("module-")]
    assert [p.chapter for s in module for p in s.parts] == sorted(chapters - {"00"}), "00 is read at home"
    for path in (FOLDER / "teaching" / "notes").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        for part in ("**Board.**", "**Script.**", "**Skip, if short.**", "**Watch for.**"):
            assert part in text, (path.name, part)


def test_the_matrix_names_every_exercise():
    text = (FOLDER / "teaching" / "objectives.md").read_text(encoding="utf-8")
    chapters = {c.number for c in docs.book(FOLDER)}
    assert not [e.id for e in registry.items(Exercise) if e.chapter in chapters and e.id not in text]


def test_the_command_lists_sessions():
    said = CliRunner().invoke(main, ["course"])
    assert said.exit_code == 0 and "session-50" in said.output and "50 of 50 min" in said.output
    assert CliRunner().invoke(main, ["course", "docs", "--check"]).exit_code == 0


# ---- the README's course section, followed literally -------------------------------------------------------------
def commands() -> list[str]:
    """The commands of the README's course section."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## A course", 1)[1].split("\n## ", 1)[0]
    lines = [line[4:] for line in section.splitlines() if line.startswith("    ")]
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def test_the_walk_is_at_most_ten_commands():
    assert 4 <= len(commands()) <= 10
    assert commands()[0] == "make course" and any(c.startswith("nlbook grade") for c in commands())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.name != "posix", reason="grading forks: Linux and macOS")
@pytest.mark.skipif(importlib.util.find_spec("nbgrader") is None, reason="nbgrader is not installed: make course")
def test_the_readmes_walk_builds_a_session_and_grades_its_samples(tmp_path):
    """In a copy of the files that it needs, with the environment that runs this test."""
    for name in ("notebooks", "nlbook", "tests"):
        os.symlink(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    said = ""
    for line in commands():
        if line == "make course" or line.startswith((".", "source", "export")):
            continue  # the environment is made: it runs this test
        here = os.path.dirname(sys.executable)
        env = {**os.environ, "PATH": os.pathsep.join([here, os.environ["PATH"]])}
        done = subprocess.run(line, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        said += done.stdout
    expected = dict(re.findall(r"submitted/(\w+)/\S+ should get (\S+) points", said))
    table = next(tmp_path.glob("*/grades.csv"))
    with table.open(encoding="utf-8") as file:
        rows = {r["student"]: r["points"] for r in csv.DictReader(file)}
    assert rows == expected == {"ada": "5", "ben": "3", "cem": "4", "dan": "4"}
    with table.open(encoding="utf-8") as file:
        noted = {r["student"]: r["look at"] for r in csv.DictReader(file)}
    assert "asks for the solution" in noted.pop("dan") and not any(noted.values())
    assert (table.parent / "release" / "session-50" / "01_a_memory_you_can_hold.ipynb").is_file()
