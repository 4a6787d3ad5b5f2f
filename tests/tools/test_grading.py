"""Submissions: right, wrong, hanging, hostile. The judge is out of their reach, and the others' grades are right."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from click.testing import CliRunner
from nlbook_tools.cli import main
from nlbook_tools.course import apart, codec, fence, marked, release, submission

from nlbook.book.check import registry
from nlbook.book.check.define import Exercise, Implement
from nlbook.book.check.judge import judge

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAME, STEM = "01", "01_a_memory_you_can_hold"
SEED = 20_271
TORCH = "import torch\n"
pytestmark = pytest.mark.skipif(os.name != "posix", reason="grading forks: Linux and macOS")
needs_nbgrader = pytest.mark.skipif(
    importlib.util.find_spec("nbgrader") is None, reason="nbgrader is not installed: make course"
)


@pytest.fixture(scope="module")
def mould():
    with apart.Mould(memory_mb=2500) as started:
        yield started


def verdict(mould, id, source, name="f", seconds=20.0):
    """(verdict, notes) of a source that defines `name`."""
    from dataclasses import replace

    item = registry.find(id, Exercise)
    if isinstance(item, Implement):
        item = replace(item, seconds=1.0 if "while True" in source else seconds)
    with mould.session() as session:
        session.seconds = 60.0
        session.ask("run", source=source)
        return judge(submission.launched(item), session.answer(name)), session.notes


# ---- an answer in another process is judged as it is here ----------------------------------------------------------
RIGHT = TORCH + "def f(M, k, v, eta):\n    return M + eta * torch.outer(v, k)"


@pytest.mark.parametrize(
    ("source", "status", "rung", "told"),
    [
        (RIGHT, "passed", "", "gradients by finite differences"),
        (RIGHT.replace("return M", "return M.detach()"), "failed", "gradient", "it is cut"),
        (RIGHT.replace("eta *", "2 * eta *"), "failed", "factor", "2 times too large"),
        (RIGHT.replace("v, k", "v - M @ k, k"), "failed", "misconception", "This is the delta rule"),
        (
            RIGHT.replace("M + eta * torch.outer(v, k)", "M.add_(torch.outer(v, k), alpha=eta)"),
            "failed",
            "mutation",
            "argument M",
        ),
        (RIGHT.replace("return", "a ="), "failed", "type", "is a `return` missing?"),
        (RIGHT.replace("M, k, v, eta", "M, k"), "failed", "signature", "takes (M, k)"),
        ("def f(M, k, v, eta):\n    raise NotImplementedError", "not tried", "", "Not tried"),
        (
            "def f(M, k, v, eta):\n    x = 1\n    return x + nothing",
            "failed",
            "runs",
            "NameError (name 'nothing' is not defined) in line 3",
        ),
        ("class f: pass", "failed", "signature", "a class"),
        ("f = 3", "failed", "signature", "of type int"),
        ("g = 3", "not tried", "", "Not tried"),
        ("def f(M, k, v, eta):\n    while True: pass", "failed", "time", "an endless loop"),
        ("def f(M, k, v, eta):\n    print('seen'); raise SystemExit(3)", "failed", "runs", "SystemExit"),
        ("import os\ndef f(M, k, v, eta):\n    os._exit(0)", "failed", "runs", "its process has ended"),
        ("def f(M, k, v, eta):\n    return bytearray(4_000_000_000)", "failed", "runs", "more than 2500 MB"),
    ],
    ids=lambda x: x[:18] if isinstance(x, str) else None,
)
def test_verdicts_from_another_process(mould, source, status, rung, told):
    said, _ = verdict(mould, "01-hebb", source)
    assert (said.status, said.reason) == (status, rung) and told in said.message, said


@pytest.mark.parametrize("item", [e for e in registry.items(Implement)], ids=lambda e: e.id)
def test_every_function_exercise_can_be_judged_from_another_process(mould, item):
    """The solution passes over there as it does here: laws, gradients, kernels and their counts among the rest."""
    source = item.chapter and next(FOLDER.glob(f"src/{item.chapter}_*.md"))
    setup, _ = submission.prelude(release.sheet(source).nb)
    said, notes = verdict(
        mould, item.id, f"{setup}\n{item.solution_source()}", item.solution.__name__, item.seconds + 60
    )
    assert said.status == "passed", said.message
    assert not notes, notes


def test_values_arrive_as_they_were_sent():
    value = {
        "a": [1, 2.5, True, None, "ü"],
        "b": (torch.arange(6.0).reshape(2, 3), torch.tensor(3, dtype=torch.int64)),
        "c": 10**30,
    }
    blocks: list[bytes] = []
    back = codec.unpack(json.loads(json.dumps(codec.pack(value, blocks))), blocks)
    assert str(back) == str(value) and type(back["a"][2]) is bool
    for dtype in codec.DTYPES.values():
        blocks = []
        x = torch.ones(2, 0, 3, dtype=dtype) if dtype.is_complex else torch.ones(3, dtype=dtype)
        back = codec.unpack(codec.pack(x, blocks), blocks)
        assert back.dtype == dtype and back.shape == x.shape and torch.equal(back, x)
    assert type(codec.unpack(codec.pack(object(), []), [])).__name__ == "object"


@pytest.mark.parametrize(
    "tree",
    [
        ["t", "float64", [10**9], 0, False],
        ["t", "evil", [1], 0, False],
        ["a", "O", [1], 0],
        ["z"],
        [],
        3,
        ["L", "x"],
        ["f", 3],
        ["t", "float64", [1], 7, False],
    ],
)
def test_nonsense_from_the_other_side_is_refused(tree):
    with pytest.raises(codec.Broken):
        codec.unpack(tree, [b"12345678"])


# ---- what a submission may not do ----------------------------------------------------------------------------------
HOSTILE = {
    "asks for the solution": (
        "from nlbook.book import check\nf = check.solution('01-hebb')",
        "import nlbook.book.check",
    ),
    "imports the judge": (
        "import nlbook.book.check.functions as j\nj.judge_function = None\nf = None",
        "import nlbook.book.check",
    ),
    "reads the solution's file": (
        "import nlbook\nopen(nlbook.__file__.replace('__init__', 'book/chapters/memory/exercises.py'))",
        "read ch01.py",
    ),
    "lists the judge's folder": (
        "import os, nlbook\nos.listdir(os.path.dirname(nlbook.__file__) + '/check')",
        "read check",
    ),
    "overwrites the judge": (
        "import nlbook\nopen(nlbook.__file__.replace('__init__', 'check/judge'), 'w')",
        "write judge.py",
    ),
    "writes elsewhere": ("open('{outside}', 'w').write('x')", "write outside.txt"),
    "removes a file": ("import os\nos.remove('{kept}')", "write kept.txt"),
    "opens a database": ("import sqlite3\nsqlite3.connect('{kept}')", "sqlite3.connect"),
    "starts a program": ("import subprocess\nsubprocess.run(['true'])", "subprocess.Popen"),
    "runs a shell": ("import os\nos.system('true')", "os.system"),
    "forks": ("import os\nos.fork()", "os.fork"),
    "kills its parent": ("import os\nos.kill(os.getppid(), 9)", "os.kill"),
    "opens a socket": ("import socket\nsocket.create_connection(('192.0.2.1', 80), 1)", "socket."),
    "loads a library": ("import ctypes\nctypes.CDLL(None)", "ctypes.dlopen"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_is_refused_and_noted(mould, name, tmp_path):
    kept, outside = tmp_path / "kept.txt", tmp_path / "outside.txt"
    kept.write_text("kept")
    source, note = HOSTILE[name]
    source = source.replace("{kept}", str(kept)).replace("{outside}", str(outside))
    with mould.session() as session:
        session.seconds = 60.0
        with pytest.raises(submission.RemoteError, match=r"may not do this|Permission"):
            session.ask("run", source=source)
        assert any(n.startswith(note) for n in session.notes), session.notes
    assert kept.read_text() == "kept" and not outside.exists()
    with mould.session() as session:  # the mould is as it was
        session.ask("run", source="x = 1")


@pytest.mark.skipif(fence.landlock_version() == 0, reason="this kernel has no Landlock")
def test_code_that_is_not_python_is_refused_by_the_kernel(mould, tmp_path):
    """torch reads files without telling Python: the audit hook does not see it, Landlock does."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"12345678")
    reads = f"import torch\ntorch.from_file({str(secret)!r}, shared=False, size=8, dtype=torch.uint8)"
    writes = reads.replace("shared=False", "shared=True")
    for source in (reads, writes):
        with mould.session() as session:
            session.seconds = 60.0
            with pytest.raises(submission.RemoteError, match="Permission denied"):
                session.ask("run", source=source)
    assert torch.from_file(str(secret), shared=False, size=8, dtype=torch.uint8).tolist() == list(b"12345678")


def test_patches_stay_in_their_process(mould):
    """What a submission replaces is replaced over there; what is compared is compared here."""
    patched = TORCH + (
        "torch.allclose = torch.equal = lambda *a, **k: True\ntorch.Tensor.__eq__ = lambda a, b: True\n"
        "import numpy as np\nnp.max = np.abs = lambda *a, **k: 0.0\n"
        "def f(M, k, v, eta):\n    return torch.zeros_like(M)"
    )
    said, _ = verdict(mould, "01-hebb", patched)
    assert said.status == "failed"
    assert verdict(mould, "01-hebb", RIGHT)[0].status == "passed"


# ---- a submitted notebook ------------------------------------------------------------------------------------------
def answers(nb):
    return {c.metadata.nbgrader.grade_id: c for c in nb.cells if c.metadata.get("nbgrader", {}).get("solution")}


def by_right(nb, source):
    for id, cell in answers(nb).items():
        cell.source = answers(source)[id].source


def a_wrong(nb, source):
    by_right(nb, source)
    mine = answers(nb)
    mine["01-delta"].source = mine["01-delta"].source.replace("error = v - M @ k", "error = v")
    mine["01-half-life"].source = "answer = 44"


def a_hanging(nb, source):
    by_right(nb, source)
    answers(nb)["01-delta"].source = "def delta_write(M, k, v, eta):\n    while True: pass"


def a_hostile(nb, source):
    by_right(nb, source)
    mine = answers(nb)
    mine["01-hebb"].source = "import sys\nsys.exit(0)"
    mine[
        "01-delta"
    ].source = "from nlbook.book import check\ndef delta_write(*a):\n    return check.solution('01-delta')(*a)"
    mine["01-shared"].source = (
        "import nlbook, pathlib\n(pathlib.Path(nlbook.__file__).parent / 'check' / 'judge.py').write_text('')\n"
        "repaired_delta = None"
    )
    for cell in nb.cells:  # and gives itself the points
        if cell.metadata.get("nbgrader", {}).get("grade"):
            cell.source, cell.metadata.nbgrader["points"] = "100.0", 100
    nb.metadata["nlbook_marks"] = [{"id": "01-hebb", "points": 99, "of": 99, "feedback": "", "notes": []}]


def a_helper(nb, source):
    """A right answer whose helper stands in a cell of its own, and a test cell that was deleted."""
    by_right(nb, source)
    mine = answers(nb)
    at = next(i for i, c in enumerate(nb.cells) if c is mine["01-overlaps"])
    nb.cells.insert(at, nbformat.v4.new_code_cell("def all_overlaps(K):\n    return K @ K.T"))
    mine["01-overlaps"].source = "def recall_from_overlaps(K, V):\n    return all_overlaps(K) @ V"
    nb.cells = [c for c in nb.cells if c.metadata.get("nbgrader", {}).get("grade_id") != "01-hebb-test"]


SUBMISSIONS = {
    "right": (by_right, 7),
    "wrong": (a_wrong, 4),
    "hanging": (a_hanging, 5),
    "hostile": (a_hostile, 3),
    "helper": (a_helper, 7),
    "blank": (lambda nb, source: None, 0),
}


@needs_nbgrader
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_folder_of_submissions_is_graded_through_nbgrader(tmp_path):
    made = CliRunner().invoke(main, ["release", NAME, "--out", str(tmp_path), "--seed", str(SEED)])
    assert made.exit_code == 0, made.output
    handed_out = (tmp_path / "release" / NAME / f"{STEM}.ipynb").read_bytes()
    source = nbformat.read(tmp_path / "source" / NAME / f"{STEM}.ipynb", 4)
    for who, (edit, _) in SUBMISSIONS.items():
        nb = nbformat.reads(handed_out.decode(), 4)
        edit(nb, source)
        place = tmp_path / "submitted" / who / NAME
        place.mkdir(parents=True)
        nbformat.write(nb, place / f"{STEM}.ipynb")
    broken = tmp_path / "submitted" / "broken" / NAME
    broken.mkdir(parents=True)
    (broken / f"{STEM}.ipynb").write_text("{no notebook")

    done = CliRunner().invoke(main, ["grade", str(tmp_path)])
    assert done.exit_code == 0, done.output
    with (tmp_path / "grades.csv").open(encoding="utf-8") as file:
        rows = {r["student"]: r for r in csv.DictReader(file)}
    assert {who: float(r["points"]) for who, r in rows.items()} == {
        **{w: p for w, (_, p) in SUBMISSIONS.items()},
        "broken": 0,
    }
    assert all(r["of"] == "7" for r in rows.values()) and "not graded" in rows["broken"]["state"]
    assert "import nlbook.book.check" in rows["hostile"]["look at"] and "write judge.py" in rows["hostile"]["look at"]
    assert "This is Hebb's rule" in done.output and "an endless loop" in done.output
    assert (tmp_path / "release" / NAME / f"{STEM}.ipynb").read_bytes() == handed_out, (
        "grading must not touch the handed-out set"
    )

    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as book:  # nbgrader's own record says the same
        for who, (_, points) in SUBMISSIONS.items():
            assert book.find_submission(NAME, who).score == points


@needs_nbgrader
def test_nbgrader_cuts_the_same_students_notebook(tmp_path):
    """`nbgrader generate_assignment` with the folder's settings gives the cells that `nlbook release` hands out."""
    from nlbook_tools.course.grade import register
    from nlbook_tools.course.sets import make

    make(FOLDER, [NAME], tmp_path, seed=SEED, kinds=("student",))
    register(tmp_path, NAME)
    ours = nbformat.read(tmp_path / "release" / NAME / f"{STEM}.ipynb", 4)
    theirs = nbformat.read(tmp_path / "registered" / NAME / f"{STEM}.ipynb", 4)
    assert [c.source for c in ours.cells] == [c.source for c in theirs.cells]


def test_without_submissions_or_a_course_folder_the_reason_is_said(tmp_path):
    said = CliRunner().invoke(main, ["grade", str(tmp_path)])
    assert said.exit_code == 1 and ("nlbook release" in said.output or "nbgrader" in said.output)


def test_what_is_run_of_a_notebook():
    made = release.sheet(next(FOLDER.glob("src/01_*.md")), SEED)
    book = marked.source(made)
    nb = marked.student(release.sheet(next(FOLDER.glob("src/01_*.md")), SEED))
    book.cells += [nbformat.v4.new_code_cell(marked.cut_hidden(c.source)) for c in book.cells if c.cell_type == "code"]
    nb.cells.append(nbformat.v4.new_code_cell("mine = 1"))
    run = [nb.cells[i].source for i in submission.to_run(nb, book)]
    assert len(run) == 6 and run[-1] == "mine = 1" and run[0].startswith("def hebb_write")
    setup, silent = submission.prelude(book)
    assert "from nlbook import memory" in setup and set(silent) >= {"check", "viz", "ch01"} and "check" not in setup
    assert [(t.id, t.seed) for t in submission.asked(book)] == [(t.item.id, SEED) for t in made.tasks]


def test_the_worker_imports_nothing_of_nlbook():
    """What it holds, a submission can look at."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(apart.__file__).parent)!r}); import worker, codec, fence; "
        "print([m for m in sys.modules if m.startswith('nlbook')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    assert not re.search(r"^(from|import) nlbook", (Path(apart.__file__).parent / "worker.py").read_text(), re.M)
