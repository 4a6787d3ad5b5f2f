"""Every notebook of the book: in step with its text, within the contract, run through papermill with its parameters.

pytest tests/tools/test_notebooks.py --nb-profile full --nb-out DIR
"""

from __future__ import annotations

import html
import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nlbook_tools.notebooks import contract, sync
from nlbook_tools.notebooks.run import NotebookFailed, run

from nlbook.book.viz.live import Live

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
SETUP_S = 120  # the kernel's start, reading and comparing: outside the notebook's own budget


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One case a notebook; its time-out is its own budget."""
    if "notebook" in metafunc.fixturenames:
        profile = metafunc.config.getoption("--nb-profile")
        cases = [
            pytest.param(p, id=p.stem, marks=pytest.mark.timeout(budget(p, profile) + SETUP_S))
            for p in sorted(FOLDER.glob("*.ipynb"))
        ]
        metafunc.parametrize("notebook", cases)
    if "stem" in metafunc.fixturenames:
        stems = {p.stem for p in FOLDER.glob("*.ipynb")} | {p.stem for p in FOLDER.glob("src/*.md")}
        metafunc.parametrize("stem", sorted(stems))


def budget(path: Path, profile: str) -> float:
    """The notebook's seconds; a broken notebook gets some time to be reported."""
    try:
        seconds = float(json.loads(path.read_text(encoding="utf-8"))["metadata"]["nlbook"]["run"][profile]["seconds"])
    except (ValueError, KeyError, TypeError):
        seconds = 60.0
    return seconds * float(os.environ.get("NLBOOK_PATIENCE") or 1)


def test_text_and_notebook_are_in_step(stem):
    problems = sync.check(FOLDER / "src" / f"{stem}.md", FOLDER / f"{stem}.ipynb")
    assert not problems, "\n".join(map(str, problems))


def test_live_pictures_run_the_scripts_of_today(notebook):
    for cell in nbformat.read(notebook, 4).cells:
        for output in cell.get("outputs", []):
            shown = output.get("data", {}).get("text/html", "")
            if found := re.search(r'data-nlbook-live="(\w+)" data-options="(.*?)"><p>(.*?) Run the cell', shown, re.S):
                name, options, alt = found[1], json.loads(html.unescape(found[2])), html.unescape(found[3])
                assert shown == Live(name, alt, **options)._repr_html_(), f"build {notebook.stem} again"


def test_contract(notebook):
    problems = contract.check(nbformat.read(notebook, 4), notebook.name)
    assert not problems, "\n".join(map(str, problems))


@pytest.mark.notebook
def test_runs(notebook, request, record_property):
    profile = request.config.getoption("--nb-profile")
    report = ""
    try:
        done = run(notebook, request.config.getoption("--nb-out"), profile)
    except NotebookFailed as e:
        report = str(e)
    if report:  # outside the except block: no second traceback
        pytest.fail(report, pytrace=False)
    record_property("seconds", round(done.seconds, 2))
    record_property("peak_mb", round(done.peak_mb))
    if profile == "quick" and (differences := differs_from_the_committed(notebook, done.nb)):
        pytest.fail(
            "\n  ".join(
                [
                    f"{notebook.name}: this run does not show what the committed notebook shows:",
                    *differences,
                    "what to do: take unseeded randomness, clocks and set order out of these cells; if code they "
                    f"call was changed on purpose, run `nlbook notebooks build {notebook.stem}`",
                ]
            ),
            pytrace=False,
        )


def differs_from_the_committed(notebook: Path, done: nbformat.NotebookNode) -> list[str]:
    """The committed notebook is the quick run's image: the same texts, and the same pictures where the same
    versions draw them.

    Another processor rounds otherwise in the last digits, hence a tolerance of 2 % on numbers and of 2 % of full scale
    on pictures.
    """
    committed = nbformat.read(notebook, 4)
    return sync.same_outputs(
        committed, done, tolerance=0.02, images=committed.metadata.get("nlbook_build") == sync.versions()
    )
