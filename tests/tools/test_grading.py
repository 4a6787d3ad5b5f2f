"""Grading: the judge asks a process in a sandbox, and reads what students hand in with care."""

from __future__ import annotations

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
from nlbook_tools.course import border, box, fence, grade, handed, judged, marked, release
from nlbook_tools.course.handed import Cell

from nlbook.book.chapters import files
from nlbook.book.check import registry
from nlbook.book.check.call import RemoteError
from nlbook.book.check.define import Exercise, Implement
from nlbook.book.check.judge import judge
from nlbook.errors import NLBookError

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
SOURCE = next(FOLDER.glob("src/01_*.md"))
SEED = 20_271
TORCH = "import torch\n"
pytestmark = pytest.mark.skipif(os.name != "posix", reason="grading needs Linux or macOS")


def why_no_sandbox() -> str:
    try:
        with fence.shelf() as room:
            fence.need_walls(room, Path("/nowhere"))
    except NLBookError as error:
        return str(error)
    return ""


NO_SANDBOX = why_no_sandbox()
needs_sandbox = pytest.mark.skipif(bool(NO_SANDBOX), reason=NO_SANDBOX)
needs_nbgrader = pytest.mark.skipif(
    importlib.util.find_spec("nbgrader") is None, reason="nbgrader is not installed: make course"
)


@pytest.fixture(scope="module")
def start():
    with fence.shelf() as room, box.boxes(room) as take:
        yield take


@pytest.fixture(scope="module")
def shared(start):
    """A box that many tests share: what ends it gets another."""
    kept: list[box.Box] = []

    def give() -> box.Box:
        if not kept or kept[-1].fault:
            kept.append(start())
        kept[-1].seconds = 60.0
        kept[-1].notes.clear()
        return kept[-1]

    yield give
    for one in kept:
        one.close()


def verdict(give, id, source, name="f", seconds=20.0):
    from dataclasses import replace

    item, mine = registry.find(id, Exercise), give()
    if isinstance(item, Implement):
        item = replace(item, seconds=1.0 if "while True" in source else seconds)
    mine.ask("run", source=source, fresh=name)
    return judge(judged.launched(item), mine.answer(name))


# ---- an answer in another process is judged as it is here ----------------------------------------------------------
RIGHT = TORCH + "def f(M, k, v, eta):\n    return M + eta * torch.outer(v, k)"


@needs_sandbox
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
        ("def f(M, k, v, eta):\n    return bytearray(4_000_000_000)", "failed", "runs", "MemoryError"),
        ("def f(M, k, v, eta):\n    return 'x' * 9_000_000, [[[M] * 60] * 60] * 60", "failed", "runs", "too large"),
        ("def f(*a):\n    x = []\n    for _ in range(999): x = [x]\n    return x", "failed", "type", "a tuple or list"),
    ],
    ids=lambda x: x[:18] if isinstance(x, str) else None,
)
def test_verdicts_from_another_process(shared, source, status, rung, told):
    said = verdict(shared, "01-hebb", source)
    assert (said.status, said.reason) == (status, rung) and told in said.message, said


@needs_sandbox
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", files(FOLDER / "src", ".md"), ids=lambda p: p.stem.split("_")[0])
def test_a_solved_set_earns_all_points_from_another_process(start, path):
    """Laws, gradients, kernels and their counts among the rest: over there as here."""
    out, made = marked.student(release.sheet(path, SEED)), release.sheet(path, SEED)
    release.solution(made)
    answers = {t.item.id: a.source for t, a in zip(made.tasks, made.answers)}
    marks = judged.marks(handed.match(out, cells(out, answers), SEED), out, start)
    assert [m.id for m in marks] == list(answers)
    assert [(m.id, m.message) for m in marks if m.points != m.most] == []


def test_values_arrive_as_they_were_sent():
    value = {"a": [1, 2.5, True, None, "ü"], "b": (torch.arange(6.0).reshape(2, 3), torch.tensor(3)), "c": 10**30}
    back = border.unpack(json.loads(json.dumps(border.pack(value))))
    assert str(back) == str(value) and type(back["a"][2]) is bool
    for name in border.DTYPES:
        dtype = getattr(torch, name)
        for x in (torch.ones(3, dtype=dtype), torch.ones(2, 0, 3, dtype=dtype)):
            back = border.unpack(json.loads(json.dumps(border.pack(x))))
            assert back.dtype == dtype and back.shape == x.shape and torch.equal(back, x)
    assert type(border.unpack(border.pack(object()))).__name__ == "object"
    assert border.unpack("\ud800") == "?"


@pytest.mark.parametrize(
    "tree",
    [
        {"tensor": "float64", "shape": [10**9], "bytes": ""},
        {"tensor": "evil", "shape": [1], "bytes": "AAAAAAAAAAA="},
        {"tensor": "float64", "shape": 3, "bytes": "AAAAAAAAAAA="},
        {"tensor": "float64", "shape": ["1e9"], "bytes": 3},
        {"array": "O", "shape": [1], "bytes": "AAAAAAAAAAA=", "one": False},
        {"array": "<f8", "shape": [1e400], "bytes": "AAAAAAAAAAA=", "one": False},
        {"tuple": 5},
        {"dict": [[1, 2, 3]]},
        {"dict": [[[], 1]]},
        {"other": 3},
        {},
    ],
    ids=str,
)
def test_nonsense_from_the_other_side_is_refused(tree):
    with pytest.raises(border.Broken):
        border.unpack(tree)


@pytest.mark.parametrize(
    "line", [b"{}{}\n", b"[]\n", b"\xff\n", b"{\n", b"[" * 99999 + b"\n", b"1" * 5000 + b"\n", b"{}"]
)
def test_a_line_that_is_no_answer_is_refused(line):
    import socket

    mine, theirs = socket.socketpair()
    theirs.sendall(line)
    theirs.close()
    with mine, pytest.raises(border.Broken):
        border.receive(mine, 5.0)


@needs_sandbox
def test_patches_stay_in_their_process(shared):
    """What a submission replaces is replaced over there; what is compared is compared here."""
    patched = TORCH + (
        "torch.allclose = torch.equal = lambda *a, **k: True\ntorch.Tensor.__eq__ = lambda a, b: True\n"
        "import numpy as np\nnp.max = np.abs = lambda *a, **k: 0.0\n"
        "def f(M, k, v, eta):\n    return torch.zeros_like(M)"
    )
    assert verdict(shared, "01-hebb", patched).status == "failed"
    shared().close()
    assert verdict(shared, "01-hebb", RIGHT).status == "passed"


@needs_sandbox
@pytest.mark.parametrize(
    "reply",
    ['{"notes": 5}', '{"error": 5}', '{"kind": "value", "value": {"tensor": 1}}', '{"notes": ["\\ud800"], "kind": []}'],
)
def test_an_answer_of_the_wrong_kind_costs_its_own_exercise(shared, reply):
    """A submission that writes into the border itself: M7 of the faults."""
    write = "    try: os.write(fd, {!r})\n    except OSError: pass".format(f"{reply}\n".encode())
    mine = shared()

    def run_and_answer():  # where the forged line was taken for the answer to "run", its own answer comes second
        mine.ask("run", source=f"import os\nfor fd in range(3, 20):\n{write}")
        return mine.answer("f")

    with pytest.raises(RemoteError, match=r"plain answer|cannot be read"):
        run_and_answer()


# ---- what the sandbox shows and lets out ---------------------------------------------------------------------------
@needs_sandbox
def test_the_sandbox_shows_the_library_and_nothing_to_steal(shared):
    """No exercise, answer, check, tool or compiled copy of one; no /proc, no environment, no file of this checkout."""
    mine = shared()
    mine.ask("run", source=LOOK.replace("ROOT", repr(str(FOLDER.parent))), fresh="found")
    assert mine.answer("found") == []


LOOK = r"""
import os, nlbook
here, found = os.path.dirname(nlbook.__file__), []
known = "HOME USER PATH LANG MPLBACKEND OMP_NUM_THREADS MKL_NUM_THREADS PYTHONHASHSEED PYTHONPATH PWD LC_CTYPE"
for folder, folders, files in os.walk("/"):
    if not (folder + "/").startswith("/tmp/") and os.access(folder, os.W_OK):
        found.append("can write " + folder)
    mine = folder.startswith(here)
    if mine or "/nlbook" in folder:
        bad = ("exercises", "answers", "__pycache__", "/check/", "nlbook_tools") if mine else ("",)
        found += [p for p in (folder + "/" + f for f in files) if any(b in p for b in bad)]
    folders[:] = [f for f in folders if f not in ("torch", "usr", "triton") and "dist-info" not in f]
found += os.listdir("/proc") if os.path.exists("/proc") else []
found += [p for p in ("tests", "notebooks", ".git", "README.md") if os.path.exists(os.path.join(ROOT, p))]
found += [n for n in os.environ if n not in known.split() and not n.startswith(("KMP_", "TORCHINDUCTOR"))]
"""


@needs_sandbox
@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket()",
        "import socket; socket.socket(40, 1)",  # AF_VSOCK: to the machine around this one
        "import os; os.memfd_create('x')",
        "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
        "import ctypes; assert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0",
        "import ctypes; assert ctypes.CDLL(None).shmget(7, 4096, 0o1666) >= 0",
        "import ctypes; assert ctypes.CDLL(None).syscall(250, 0, -3, 1) > 0",  # the keys of the login (x86-64)
        "import os; os.mknod('/tmp/disk', 0o60666, os.makedev(8, 0))",
        "import os; os.chroot('/tmp')",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (9999, 9999))",
        "open('/tmp/x', 'wb').truncate(10**9)",
        "x = [open('/dev/null') for _ in range(999)]",
    ],
)
def test_doors_that_are_shut(shared, code):
    mine = shared()
    with pytest.raises(RemoteError, match=r"(Permission|Assertion|OS|Value)Error"):
        mine.ask("run", source=code)


@needs_sandbox
def test_a_process_and_its_children_are_gone_with_the_box(start):
    mine = start()
    mine.ask(
        "run",
        source="import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid(); time.sleep(999)",
    )
    family = box.psutil.Process(mine._process.pid).children(recursive=True)
    assert len(family) >= 6
    mine.close()
    _, alive = box.psutil.wait_procs(family, 10)
    assert alive == []


def test_the_worker_imports_nothing_of_nlbook():
    """What it holds, a submission can look at."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(border.__file__).parent)!r}); import worker; "
        "print([m for m in sys.modules if m.startswith('nlbook')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# ---- where there is no sandbox --------------------------------------------------------------------------------------
def test_without_a_sandbox_grading_refuses_and_names_two_ways_out(monkeypatch, tmp_path):
    monkeypatch.setattr(fence.shutil, "which", lambda _: str(tmp_path / "bwrap"))
    with fence.shelf() as room, pytest.raises(NLBookError, match=r"^sandbox: .*container.*--trusted"):
        fence.need_walls(room, tmp_path)


def test_a_course_folder_that_submissions_would_see_is_refused(tmp_path):
    with fence.shelf() as room, pytest.raises(NLBookError, match=r"^course: "):
        fence.need_walls(room, Path(sys.prefix) / "lib" / "my-course")


def test_a_teachers_own_file_needs_no_sandbox(start):
    with fence.shelf() as room, box.Box(room, trusted=True) as mine:
        mine.ask("run", source="x = 6 * 7")
        assert mine.answer("x") == 42


@needs_nbgrader
def test_without_submissions_or_a_course_folder_the_reason_is_said(tmp_path):
    said = CliRunner().invoke(main, ["grade", str(tmp_path)])
    assert said.exit_code == 1 and "nlbook release" in said.output


# ---- cells as IPython reads them -------------------------------------------------------------------------------------
@needs_sandbox
@pytest.mark.parametrize(
    ("source", "note"),
    [
        ("%%time\nx = 3", ""),
        ("%matplotlib inline\nx = 3", ""),
        ("x = 3\n%time y = x", ""),
        ("!pip install numpy\nx = 3", "shell"),
        ("files = !ls\nx = 3", "shell"),
        ("x = 3\nx?", "pinfo"),
        ("import asyncio\nx = await asyncio.sleep(0, 3)", ""),
        ("x = 3\ndisplay('done')", ""),
        ("%load_ext autoreload\nx = 3", "load_ext"),
        ("print('\\ud800')\nx = 3", ""),
        ("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nx = 3", ""),
        ("from nlbook.book import check, viz\ncheck.exercise('01-hebb', None)\nviz.load('v2:n=3')\nx = 3", ""),
    ],
    ids=lambda s: s[:14],
)
def test_cells_are_read_as_ipython_reads_them(shared, source, note):
    mine = shared()
    mine.ask("run", source=source, fresh="x")
    assert mine.answer("x") == 3
    assert note in "".join(mine.notes) and bool(note) == bool(mine.notes)


# ---- what a student handed in ----------------------------------------------------------------------------------------
def cells(nb, answers=None):
    """A submission of a notebook as it was handed out, with some answers in it."""
    made = []
    for c in nb.cells:
        id = c.metadata.get("nbgrader", {}).get("grade_id", "")
        made.append(Cell((answers or {}).get(id, c.source), c.cell_type == "code", c.id, id))
    return made


HEBB = "def hebb_write(M, k, v, eta):\n    return M + eta * torch.outer(v, k)"
HALF = "answer = 27.4"


def edited(made, id, *instead):
    """The cells with the answer of `id` replaced."""
    return [n for c in made for n in (instead if c.grade_id == id else [c])]


def of(source, grade_id="", code=True, id=""):
    return Cell(source, code, id, grade_id)


def unmarked(made):
    return [of(c.source, code=c.code) for c in made]


ACCIDENTS = {
    "as it should be": (lambda m: edited(m, "01-hebb", of(HEBB, "01-hebb")), ""),
    "split behind a helper": (
        lambda m: edited(m, "01-hebb", of("two = 2", "01-hebb"), of(HEBB, "01-hebb")),
        "read as one",
    ),
    "split in the middle": (
        lambda m: edited(m, "01-hebb", of(HEBB.split("\n")[0], "01-hebb"), of(HEBB.split("\n")[1], "01-hebb")),
        "read as one",
    ),
    "copied": (lambda m: edited(m, "01-hebb", of(HEBB + "  # old", "01-hebb"), of(HEBB, "01-hebb")), "last one counts"),
    "stub left below": (
        lambda m: edited(m, "01-hebb", of(HEBB, "01-hebb"), *[c for c in m if c.grade_id == "01-hebb"]),
        "",
    ),
    "answered below the stub": (
        lambda m: edited(m, "01-hebb", *[c for c in m if c.grade_id == "01-hebb"], of(HEBB)),
        "",
    ),
    "Markdown": (lambda m: edited(m, "01-hebb", of(HEBB, "01-hebb", code=False)), "not code"),
    "moved to the end": (lambda m: [*edited(m, "01-hebb"), of(HEBB, "01-hebb")], ""),
    "marks lost, ids kept": (
        lambda m: [Cell(HEBB if c.grade_id == "01-hebb" else c.source, c.code, c.id, "") for c in m],
        "",
    ),
    "marks and ids lost": (lambda m: unmarked(edited(m, "01-hebb", of(HEBB, "01-hebb"))), ""),
    "marks lost and misspelt": (
        lambda m: unmarked(edited(m, "01-hebb", of(HEBB + ")", "01-hebb"))),
        "",
    ),
    "test cells gone": (
        lambda m: [c for c in edited(m, "01-hebb", of(HEBB, "01-hebb")) if "-test" not in c.grade_id],
        "",
    ),
    "test cells copied": (
        lambda m: [n for c in edited(m, "01-hebb", of(HEBB, "01-hebb")) for n in [c] * (1 + ("-test" in c.grade_id))],
        "",
    ),
}


@pytest.mark.parametrize("name", ACCIDENTS)
def test_an_accident_with_a_cell_does_not_lose_the_answer(name):
    out = marked.student(release.sheet(SOURCE, SEED))
    edit, note = ACCIDENTS[name]
    parts = {p.id: p for p in handed.match(out, edit(cells(out, {"01-half-life": HALF})), SEED)}
    said = parts["01-hebb"].answer.removesuffix(")") if "misspelt" in name else parts["01-hebb"].answer
    assert said.endswith(HEBB), parts["01-hebb"]
    assert note in "; ".join(parts["01-hebb"].notes) and bool(note) == bool(parts["01-hebb"].notes)
    assert parts["01-half-life"].answer == HALF and parts["01-delta"].answer == ""


def test_helpers_run_before_and_behind_the_answer_that_they_stand_around():
    out = marked.student(release.sheet(SOURCE, SEED))
    made = edited(
        cells(out),
        "01-overlaps",
        of("h = 1"),
        of("def recall_from_overlaps(K, V):\n    return g()", "01-overlaps"),
        of("g = 2"),
    )
    parts = {p.id: p for p in handed.match(out, made, SEED)}
    assert (parts["01-overlaps"].before, parts["01-overlaps"].after) == (["h = 1"], ["g = 2"])
    assert not parts["01-hebb"].before + parts["01-hebb"].after


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings_are_read(tmp_path, coding):
    path = tmp_path / "x.ipynb"
    path.write_bytes(
        json.dumps({"cells": [{"cell_type": "code", "source": ["ä = 1\r\n"]}]}, ensure_ascii=False).encode(coding)
    )
    assert handed.read(path)[0].source == "ä = 1\r\n"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cannot be read"),
        (b"{no notebook", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"cells": []}', "no cells"),
        (b'{"cells": 5}', "no cells"),
        (b"[1]", "cannot be read"),
        (b'{"worksheets": []}', "cannot be read"),
        (b'{"cells": [' + b"{}," * 2000 + b"{}]}", "more than 2000"),
        (b" " * ((20 << 20) + 1), "more than 20 MB"),
    ],
    ids=lambda x: x[:12] if isinstance(x, bytes) else x,
)
def test_a_file_that_is_no_notebook_is_refused_with_its_reason(tmp_path, data, why):
    path = tmp_path / "x.ipynb"
    path.write_bytes(data)
    with pytest.raises(handed.Refused, match=why):
        handed.read(path)


@pytest.mark.parametrize(
    "raw", [{}, {"source": 5}, {"source": [5, "x"]}, {"source": "\ud800", "metadata": {"nbgrader": 3}}]
)
def test_a_strange_cell_is_a_cell(raw):
    assert isinstance(handed.cell(raw).source, str)
    handed.cell(raw).source.encode()


def test_links_and_devices_are_refused(tmp_path):
    real, folder = tmp_path / "real.ipynb", tmp_path / "ada" / "01"
    folder.mkdir(parents=True)
    real.write_text('{"cells": [{}]}')
    os.symlink(real, folder / "x.ipynb")
    os.link(real, folder / "hard.ipynb")
    os.mkfifo(folder / "pipe.ipynb")
    (folder / "folder.ipynb").mkdir()
    os.symlink(folder, tmp_path / "ada" / "02")
    for name in ("x", "hard", "pipe", "folder"):
        with pytest.raises(handed.Refused, match="link"):
            handed.read(folder / f"{name}.ipynb")
    with pytest.raises(handed.Refused, match="a link"):
        handed.notebooks(tmp_path / "ada" / "02", ["x.ipynb"])


def test_the_only_notebook_counts_whatever_its_name(tmp_path):
    folder = tmp_path / "ada" / "01"
    folder.mkdir(parents=True)
    (folder / "homework (1).ipynb").touch()
    found = handed.notebooks(folder, ["01_a.ipynb"])
    assert found["01_a.ipynb"][0].name == "homework (1).ipynb" and "homework" in found["01_a.ipynb"][1][0]
    (folder / "01_a.ipynb").touch()
    found = handed.notebooks(folder, ["01_a.ipynb"])
    assert found["01_a.ipynb"][0].name == "01_a.ipynb" and "not read" in found["01_a.ipynb"][1][0]


# ---- what the teacher reads ------------------------------------------------------------------------------------------
def test_nothing_that_a_student_wrote_is_obeyed():
    mark = judged.Mark("01-hebb", 0, 1, "\x1b[31mred\u202e <b>", ("=2+5",))
    row = grade.Row("01", "=cmd()\n", 7, [mark], "graded")
    for text in (grade.told(row), grade.table([row])):
        assert "\x1b" not in text and "\u202e" not in text
    assert ",'=cmd()," in grade.table([row]) and grade.table([row]).count("\n") == 2
    assert grade.known_as("ada") == "ada" and grade.known_as("*") != grade.known_as("?")
    assert re.fullmatch(r"[\w.-]+", grade.known_as("=a<b>\udcff"))


def test_a_submission_that_was_not_graded_has_an_empty_cell_for_points():
    assert (
        grade.table([grade.Row("01", "ada", 7, [], "not graded: a link")]).splitlines()[1]
        == "01,ada,,7,not graded: a link,,"
    )


def test_the_rebuilt_notebook_is_the_books_with_the_answers_in_it():
    out = marked.student(release.sheet(SOURCE, SEED))
    made = edited(
        cells(out),
        "01-hebb",
        of(HEBB, "01-hebb"),
        of("100.0", "01-hebb-test"),
        of("<script>", code=False),
        of("evil = 1"),
    )
    parts = handed.match(out, made, SEED)
    marks = [judged.Mark(p.id, float(i), 9, f"message {i}") for i, p in enumerate(parts)]
    nb = grade.rebuild(out, parts, marks)
    nbformat.validate(nb)
    assert [c.source for c in nb.cells if c.source not in {o.source for o in out.cells}] == [HEBB]
    tests = [c for c in nb.cells if c.metadata.get("nbgrader", {}).get("grade")]
    assert [c.outputs[1]["data"]["text/plain"] for c in tests] == [repr(m.points) for m in marks]


def test_what_an_answer_uses_is_noted():
    assert judged.used("def f(): return memory.make('delta')") == ["uses the library: memory.make"]
    assert judged.used("from nlbook.memory import make") == ["uses the library: from nlbook.memory import make"]
    assert "asks for the solution" in judged.used("check.solution('01-hebb')")[0]
    assert judged.used("import torch\nimport matplotlib.pyplot as plt\nplt.plot([1])") == []
