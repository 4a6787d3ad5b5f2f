"""`nlbook run` and `nlbook notebooks build|check|text` in a small book of one note."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from nlbook_tools.cli import main
from nlbook_tools.notebooks import sync

SAMPLE = Path(__file__).parents[1] / "data" / "98_sample_note.md"


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A folder with notebooks/src/98_sample_note.md, which is also the working directory."""
    src = tmp_path / "notebooks" / "src" / SAMPLE.name
    src.parent.mkdir(parents=True)
    src.write_text(SAMPLE.read_text())
    monkeypatch.chdir(src.parent)  # deeper than the root: it is found from below
    return tmp_path


def nlbook(*words: str):
    return CliRunner().invoke(main, [str(w) for w in words])


def test_check_build_and_text_say_what_to_do_next(book):
    out = book / "notebooks" / "98_sample_note.ipynb"
    never = nlbook("notebooks", "check")
    assert never.exit_code == 1 and "run `nlbook notebooks build 98_sample_note`" in never.output
    built = nlbook("notebooks", "build", "98")
    assert built.exit_code == 0 and "1 passed, 0 failed" in built.output and out.exists(), built.output
    checked = nlbook("notebooks", "check")
    assert checked.exit_code == 0 and "1 notebooks, 0 findings" in checked.output
    assert "nothing to build" in nlbook("notebooks", "build", "--changed").output
    edited = out.read_text().replace("It prints", "It says")
    out.write_text(edited)
    assert nlbook("notebooks", "check").exit_code == 1
    assert nlbook("notebooks", "text", "98").exit_code == 0
    assert "It says" in (book / "notebooks" / "src" / SAMPLE.name).read_text()


def test_run_fails_with_a_report_and_exit_code_1(book):
    out = book / "notebooks" / "98_sample_note.ipynb"
    nb = sync.read_text(SAMPLE)
    nb.metadata["nlbook"]["run"]["full"]["parameters"]["m"] = 3
    out.write_text(sync.dumps(nb))
    failed = nlbook("run", "--full", "--out", book / "executed")
    assert (
        failed.exit_code == 1 and "note.ipynb: parameters: " in failed.output and "0 passed, 1 failed" in failed.output
    )
    assert "['m'], unknown to the parameters cell" in failed.output


def test_wrong_names_are_refused(book, tmp_path, monkeypatch):
    assert "holds no notebook yet" in nlbook("run").output
    assert "there are 98_sample_note" in nlbook("notebooks", "build", "05").output
    assert "nothing to write back" in nlbook("notebooks", "text", "98").output
    gone = nlbook("run", "elsewhere.ipynb")
    assert gone.exit_code == 1 and "there is no file elsewhere.ipynb" in gone.output
    monkeypatch.chdir(Path(tmp_path.anchor))
    lost = nlbook("run")
    assert lost.exit_code == 2 and "inside a clone of the book" in lost.output


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_broken_text_is_an_error_not_a_traceback(book, jobs):
    for name in ("97_broken", "99_broken"):
        (book / "notebooks" / "src" / f"{name}.md").write_text("---\nnlbook: {title: a: b: c}\n---\n")
    said = nlbook("notebooks", "build", "97", "99", "--jobs", jobs)
    assert said.exit_code == 1 and isinstance(said.exception, SystemExit)
    assert "99_broken.md cannot be read" in said.output and "quote texts" in said.output and ": text: " in said.output
    (book / "notebooks" / "99_broken.ipynb").write_text(sync.dumps(sync.read_text(SAMPLE)))
    assert "99_broken.md cannot be read" in nlbook("notebooks", "check", "99").output


def test_a_chapter_can_be_named_by_its_number():
    from nlbook_tools.commands.run import chapter

    assert chapter(Path("00")).name == "00_talk_to_it.ipynb"
    assert chapter(Path("elsewhere/note.ipynb")) == Path("elsewhere/note.ipynb")
    with pytest.raises(click.UsageError, match="expected a path or the start of one chapter"):
        chapter(Path("0"))
