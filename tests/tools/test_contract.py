"""The contract of a chapter: the sample chapter keeps it, and each way of breaking it is found, named and answered."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from nlbook_tools.notebooks import contract, sync

DATA = Path(__file__).parents[1] / "data"
NAME = "99_sample_chapter.ipynb"
PNG = {"image/png": "iVBORw0KGgo="}


@pytest.fixture
def chapter():
    """The sample chapter as if it had run: counts 1..n, one picture."""
    nb = sync.read_text(DATA / "99_sample_chapter.md")
    for count, cell in enumerate((c for c in nb.cells if c.cell_type == "code"), 1):
        cell.execution_count = count
    shown(
        nb,
        "visual",
        data=PNG,
        metadata={"image/png": {"alt": "two keys as arrows and the recall matrix beside them, all right"}},
    )
    return nb


def tagged(nb, tag):
    return next(c for c in nb.cells if tag in c.metadata.get("tags", []))


def shown(nb, tag, **output):
    tagged(nb, tag).outputs = [new_output("display_data", **output)]


def meta(nb):
    return nb.metadata["nlbook"]


def move(nb, tag, to):
    cell = tagged(nb, tag)
    nb.cells.remove(cell)
    nb.cells.insert(to, cell)


def counted(nb):
    for count, cell in enumerate((c for c in nb.cells if c.cell_type == "code"), 1):
        cell.execution_count = count


def code(nb, source):
    nb.cells.append(new_code_cell(source))
    counted(nb)


def prose(nb, source):
    nb.cells.append(new_markdown_cell(source))


def test_the_sample_keeps_the_contract(chapter):
    assert contract.check(chapter, NAME) == []


BROKEN = {
    "a missing tag": (lambda nb: tagged(nb, "control").metadata.clear(), "no cell is tagged control", "in this order"),
    "another order": (
        lambda nb: (move(nb, "signature", 2), counted(nb)),
        "the first `signature`|the first `equality`|before the first",
        "the order is",
    ),
    "no number": (lambda nb: meta(nb).pop("number"), "nlbook.number is None", "chapter's number"),
    "another number": (lambda nb: meta(nb).update(number="07"), "nlbook.number is 07", "begins with"),
    "no claim": (lambda nb: meta(nb).update(claim=" "), "nlbook.claim", "one sentence"),
    "no title": (lambda nb: meta(nb).pop("title"), "nlbook.title", "one sentence"),
    "minutes as text": (
        lambda nb: meta(nb)["minutes"].update(reading="ten"),
        "nlbook.minutes.reading is 'ten'",
        "give minutes",
    ),
    "no objectives": (lambda nb: meta(nb).update(objectives=[]), "nlbook.objectives", "what the learner can do"),
    "an objective's number": (lambda nb: meta(nb)["objectives"][0].update(id=99.1), "ids [99.1]", "quoted"),
    "an objective without text": (lambda nb: meta(nb)["objectives"][0].update(text=""), "no text", "front matter"),
    "a later prerequisite": (lambda nb: meta(nb).update(prerequisites=["99"]), "prerequisites names ['99']", "earlier"),
    "an unquoted prerequisite": (lambda nb: meta(nb).update(prerequisites=[1]), "prerequisites is [1]", "quoted"),
    "an equation that is not": (lambda nb: meta(nb).update(equations=[5, 122]), "[5, 122]", "1 to 121"),
    "no equations": (lambda nb: meta(nb).pop("equations"), "nlbook.equations is None", "1 to 121"),
    "an equation twice": (lambda nb: meta(nb).update(equations=[5, 5]), "twice", "front matter"),
    "an unknown kind": (lambda nb: meta(nb).update(kind="essay"), "nlbook.kind is 'essay'", "chapter"),
    "no full run": (lambda nb: meta(nb)["run"].pop("full"), "no metadata nlbook.run.full", "seconds: 60"),
    "a misspelt budget": (
        lambda nb: meta(nb)["run"]["quick"].update(memory=1),
        "unknown fields ['memory']",
        "memory_mb",
    ),
    "a list as parameter": (lambda nb: meta(nb)["run"]["full"]["parameters"].update(seed=[1]), "[1]", "flat scalars"),
    "long code": (lambda nb: code(nb, "x = 1\n" * 31), "31 lines of code", "at most 30"),
    "many long cells": (
        lambda nb: [code(nb, "x = 1\n" * 9) for _ in range(12)],
        "median code cell has 9 lines",
        "package",
    ),
    "many words": (lambda nb: prose(nb, "word " * 251), "251 words", "at most 250"),
    "many cells": (lambda nb: [prose(nb, "x") for _ in range(60)], "cells", "at most 70"),
    "a long read": (
        lambda nb: (meta(nb)["minutes"].update(reading=60), [prose(nb, "word " * 100) for _ in range(3)]),
        "without a prediction or a check",
        "every ten minutes",
    ),
    "pip": (lambda nb: code(nb, "%pip install torch"), "%pip", "plain Python"),
    "shell": (lambda nb: code(nb, "!ls"), "!l", "plain Python"),
    "a timing": (lambda nb: code(nb, "%%timeit\n1 + 1"), "%%timeit", "no timing"),
    "a remote image": (
        lambda nb: prose(nb, "![a picture of the memory with eight words in it](https://example.org/x.png)"),
        "a remote image",
        "repository",
    ),
    "a remote image in HTML": (
        lambda nb: prose(nb, '<img width=3 src="//example.org/x.png">'),
        "a remote image",
        "repository",
    ),
    "a directive": (lambda nb: prose(nb, "```{note}\nx\n```"), "MyST directive", "GitHub"),
    "a role": (lambda nb: prose(nb, "see {eq}`delta`"), "MyST directive or role", "GitHub"),
    "an image without words": (lambda nb: prose(nb, "![x](x.png)"), "alternative text is 'x'", "at least 8 words"),
    "a picture without words": (lambda nb: shown(nb, "visual", data=PNG), "alternative text is ''", "viz.show"),
    "a picture with few words": (
        lambda nb: shown(nb, "visual", data=PNG, metadata={"image/png": {"alt": "a picture"}}),
        "alternative text is 'a picture'",
        "at least 8 words",
    ),
    "a warning": (
        lambda nb: tagged(nb, "visual").update(outputs=[new_output("stream", name="stderr", text="UserWarning: slow")]),
        "a warning is saved",
        "its cause",
    ),
    "a path": (
        lambda nb: shown(nb, "visual", data={"text/plain": "PosixPath('/home" + "/ann/nlbook')"}),
        "building machine",
        "relative path",
    ),
    "a stub without a tag": (
        lambda nb: tagged(nb, "exercise").metadata.clear(),
        "without the tag `exercise`",
        "add the tag",
    ),
    "a stub without a check": (
        lambda nb: code(nb, "def f():\n    raise NotImplementedError"),
        "no check follows",
        "check.exercise",
    ),
    "never executed": (
        lambda nb: [c.update(execution_count=None, outputs=[]) for c in nb.cells if c.cell_type == "code"],
        "never executed",
        "nlbook notebooks build",
    ),
    "no kernelspec": (lambda nb: nb.metadata.pop("kernelspec"), "no kernelspec", "build"),
    "papermill's copy": (
        lambda nb: tagged(nb, "parameters").metadata["tags"].append("injected-parameters"),
        "papermill put in",
        "build",
    ),
}


@pytest.mark.parametrize(("broken", "what", "todo"), BROKEN.values(), ids=BROKEN)
def test_each_breach_is_found_and_answered(chapter, broken, what, todo):
    broken(chapter)
    found = [p for p in contract.check(chapter, NAME) if any(w in p.what for w in what.split("|"))]
    assert found, [str(p) for p in contract.check(chapter, NAME)]
    assert todo in found[0].todo and str(found[0]).startswith(NAME) and " -> " in str(found[0])


def test_a_start_page_needs_fewer_tags(chapter):
    meta(chapter).update(kind="start")
    for tag in ("worked", "equality", "signature", "control", "limits", "retrieval"):
        tagged(chapter, tag).metadata["tags"].remove(tag)
    assert contract.teaching(chapter, NAME) == []


def test_a_note_needs_only_its_budgets_and_a_clean_form():
    nb = sync.read_text(DATA / "98_sample_note.md")
    assert contract.check(nb, "98_sample_note.ipynb") == []


@pytest.mark.parametrize(
    ("markdown", "count"),
    [
        ("one two three", 3),
        ("$a + b + c$ is one", 3),
        ("$$\nx = y + z\n$$", 1),
        ("- a [link of words](https://x.y/a-b)", 4),
        ("| a | b |\n|---|---|\n| 1 | 2 |", 4),
        ("<details><summary>more</summary> text</details>", 2),
        ("", 0),
    ],
)
def test_words_are_what_a_reader_reads(markdown, count):
    assert contract.words(markdown) == count


# -- text sources


def test_text_and_notebook_say_the_same_and_keep_saying_it(tmp_path):
    src, out = tmp_path / NAME.replace("ipynb", "md"), tmp_path / NAME
    written = (DATA / src.name).read_text()
    src.write_text(written)
    out.write_text(sync.dumps(sync.read_text(src)))
    assert sync.check(src, out) == []
    sync.write_text(out, src)
    assert src.read_text() == written  # the hand-written front matter too


def test_an_edit_in_lab_goes_back_into_the_text(tmp_path):
    src, out = tmp_path / NAME.replace("ipynb", "md"), tmp_path / NAME
    src.write_text((DATA / src.name).read_text())
    nb = sync.read_text(src)
    nb.cells[2].source += "\n\nAdded in Lab."
    nb.cells.append(
        nbformat.v4.new_code_cell("1 + 1", metadata={"tags": ["extra"], "execution": {"t": "1"}}, execution_count=40)
    )
    nb.metadata["nlbook"]["title"] = "Another: title"
    out.write_text(sync.dumps(nb))
    assert [p.what for p in sync.check(src, out)] == [
        "its metadata differs from the front matter of 99_sample_chapter.md"
    ]
    sync.write_text(out, src)
    text = src.read_text()
    assert "Added in Lab." in text and ":tags: [extra]" in text and "'t'" not in text and "execution" not in text
    assert sync.read_text(src).metadata["nlbook"]["title"] == "Another: title"
    assert [p.what for p in sync.check(src, out)] == ["not in normal form: a run by hand was saved"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c.update(attachments={"a.png": {"image/png": "aGk="}}),
        lambda c: c.update(source="one\n\n+++\n\ntwo"),
        lambda c: c.update(source="one\u2028two"),
        lambda c: c.update(source="one\rtwo"),
        lambda c: c.update(source="```{code-cell} ipython3\nx\n```"),
    ],
    ids=["attachment", "+++", "U+2028", "CR", "fence"],
)
def test_what_a_text_cannot_say_is_refused_and_nothing_is_written(tmp_path, edit):
    src, out = tmp_path / NAME.replace("ipynb", "md"), tmp_path / NAME
    src.write_text((DATA / src.name).read_text())
    nb = sync.read_text(src)
    edit(nb.cells[3])
    out.write_text(sync.dumps(nb), newline="")
    with pytest.raises(sync.SourceError, match="cell 4"):
        sync.write_text(out, src)
    assert src.read_text() == (DATA / src.name).read_text() and len(list(tmp_path.iterdir())) == 2


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    src = tmp_path / "99_sample_chapter.md"
    src.write_text((DATA / src.name).read_text(), encoding="utf-8-sig")
    assert sync.read_text(src) == sync.read_text(DATA / src.name)


def test_check_names_the_cell_and_the_way_out(tmp_path):
    src, out = tmp_path / NAME.replace("ipynb", "md"), tmp_path / NAME
    src.write_text((DATA / src.name).read_text())
    assert "nlbook notebooks build" in sync.check(src, out)[0].todo
    out.write_text(sync.dumps(sync.read_text(src)))
    src.write_text(src.read_text().replace("Something concrete", "Something else"))
    [problem] = sync.check(src, out)
    assert problem.cell == 4 and "nlbook notebooks build 99_sample_chapter" in problem.todo and "text" in problem.todo
    src.unlink()
    assert "no text source" in sync.check(src, out)[0].what


def test_a_broken_front_matter_is_one_clear_error(tmp_path):
    src = tmp_path / "01_x.md"
    src.write_text("---\nnlbook: {title: a: b: c}\n---\n\n# x\n")
    with pytest.raises(sync.SourceError, match=r"01_x\.md cannot be read.*quote texts"):
        sync.read_text(src)
    with pytest.raises(sync.SourceError, match="no text source"):
        sync.read_text(tmp_path / "02_y.md")


def test_without_jupytext_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jupytext", None)
    with pytest.raises(sync.SourceError, match="make dev"):
        sync.read_text(DATA / "98_sample_note.md")


@pytest.mark.parametrize(
    ("a", "b", "tolerance", "same"),
    [
        ("x = 0.5", "x = 0.5", 0, True),
        ("x = 0.500", "x = 0.501", 0, False),
        ("x = 0.500", "x = 0.501", 0.01, True),
        ("x = 0.5", "x = 0.6", 0.01, False),
        ("error 2e-15", "error 3e-16", 0.01, True),
        ("yes 1", "no 1", 0.5, False),
    ],
)
def test_same_outputs_compares_texts(chapter, a, b, tolerance, same):
    other = nbformat.from_dict(chapter)
    for nb, text in ((chapter, a), (other, b)):
        tagged(nb, "signature").outputs = [new_output("stream", name="stdout", text=text)]
    differences = sync.same_outputs(chapter, other, tolerance)
    assert (differences == []) is same and (same or "cell 12" in differences[0])
