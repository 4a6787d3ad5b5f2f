"""A class of strangers: honest accidents keep their points, tricks earn none and reach nobody, everybody gets a reason.

The attacks are fixtures of our own grader: they aim at folders and listeners that this test makes, on this machine.
"""

from __future__ import annotations

import csv
import ctypes
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import socket
import tempfile
from pathlib import Path

import nbformat
import psutil
import pytest
from click.testing import CliRunner
from nlbook_tools.cli import main
from nlbook_tools.course import fence, grade

from nlbook.errors import NLBookError

NAME, FILE, SEED, MARK = "session-50", "01_a_memory_you_can_hold.ipynb", 20_271, "98765.4321"
WORTH = {"01-hebb": 1, "01-delta": 2, "01-shared": 1, "01-half-life": 1}


def why_not() -> str:
    if importlib.util.find_spec("nbgrader") is None:
        return "nbgrader is not installed: make course"
    try:
        with fence.shelf() as room:
            fence.need_walls(room, Path("/nowhere"))
    except (NLBookError, OSError) as error:
        return str(error)
    return ""


WHY_NOT = why_not()
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The course folder, and the source of every right answer."""
    folder = tmp_path_factory.mktemp("course")
    said = CliRunner().invoke(main, ["release", NAME, "--out", str(folder), "--seed", str(SEED)])
    assert said.exit_code == 0, said.output
    solved = nbformat.read(folder / "solution" / NAME / FILE, 4)
    released = nbformat.read(folder / "release" / NAME / FILE, 4)
    names = {
        c.id: c.metadata.nbgrader.grade_id for c in released.cells if c.metadata.get("nbgrader", {}).get("solution")
    }
    return folder, {names[c.id]: c.source for c in solved.cells if c.id in names}


# ---- submissions -----------------------------------------------------------------------------------------------------
def marks(cell):
    return cell["metadata"].get("nbgrader", {})


def place(nb, id):
    return next(i for i, c in enumerate(nb["cells"]) if marks(c).get("grade_id") == id)


def hebb(before="", after=""):
    """A change to the first answer."""

    def edit(nb):
        cell = nb["cells"][place(nb, "01-hebb")]
        cell["source"] = before + cell["source"] + after

    return edit


def whole(change):
    return lambda nb: nb.update(cells=change(nb["cells"]))


def copied(nb):
    at = place(nb, "01-delta")
    nb["cells"].insert(at, json.loads(json.dumps(nb["cells"][at])))


def split(nb):
    at = place(nb, "01-delta")
    first, second = json.loads(json.dumps([nb["cells"][at]] * 2))
    head, body = first["source"].split("\n", 1)
    first["source"], second["source"] = head, body
    nb["cells"][at : at + 1] = [first, second]


def moved(nb):
    nb["cells"].append(nb["cells"].pop(place(nb, "01-delta")))


def retyped(nb):
    nb["cells"][place(nb, "01-delta")]["cell_type"] = "markdown"


def helper(nb):
    at = place(nb, "01-hebb")
    nb["cells"].insert(
        at, {"cell_type": "code", "metadata": {}, "source": "def outer(v, k):\n    return v[:, None] * k"}
    )
    nb["cells"][at + 1]["source"] = "def hebb_write(M, k, v, eta):\n    return M + eta * outer(v, k)"


def strange(nb):
    """Much that would make nbgrader or nbformat fail."""
    nb["metadata"], nb["nbformat_minor"] = {"kernelspec": 5, "nlbook_marks": [{"id": "01-hebb", "points": 99}]}, "x"
    for i, cell in enumerate(nb["cells"]):
        cell["id"] = "a b!" if i % 2 else 7
        marks(cell).update(schema_version="x", points=[])
        cell["outputs"], cell["attachments"] = [{"output_type": "no such type"}], 5
    nb["cells"] += [5, None, [], {}, {"cell_type": "strange", "source": {"a": 1}, "metadata": [1]}]


def forged(nb):
    for cell in nb["cells"]:
        if marks(cell).get("grade"):
            cell["source"], marks(cell)["points"] = "100.0", 100
            cell["outputs"] = [{"output_type": "execute_result", "data": {"text/plain": "1.0"}, "metadata": {}}]
    extra = {"schema_version": 3, "grade": True, "solution": False, "locked": True, "points": 99, "grade_id": "extra"}
    nb["cells"].append({"cell_type": "code", "metadata": {"nbgrader": extra}, "source": "99.0", "outputs": []})


def scripted(nb):
    script = "<script>BREACH()</script><img src=x onerror=BREACH()>[a](javascript:BREACH())"
    nb["cells"].insert(1, {"cell_type": "markdown", "metadata": {}, "source": script})
    nb["cells"][place(nb, "01-hebb")]["source"] = f"raise ValueError({script!r})"


def deep(nb):
    nb["cells"][place(nb, "01-shared")]["source"] = "repaired_delta = " + "(" * 100_000 + ")" * 100_000


def near_miss(nb):
    nb["cells"][place(nb, "01-hebb")]["source"] = (
        "def hebb_write(M, k, v, eta):\n    return M + eta * torch.outer(v - M @ k, k)"
    )


# name: (change of the right notebook, points, what must be said)
STUDENTS = {
    "right": (lambda nb: None, 5, ""),
    "half": (lambda nb: nb["cells"].__setitem__(slice(place(nb, "01-shared"), None), []), 3, "the answer cell is gone"),
    "near": (near_miss, 4, "This is the delta rule"),
    "timed": (hebb("%%time\n"), 5, ""),
    "inline": (hebb("%matplotlib inline\n"), 5, ""),
    "shell": (hebb("!pip install numpy\n"), 5, "a line for the shell was skipped"),
    "asks": (hebb(after="\nhebb_write?"), 5, "pinfo was skipped"),
    "awaits": (hebb("import asyncio\n", "\nawait asyncio.sleep(0)"), 5, ""),
    "shows": (hebb(after="\ndisplay('done')"), 5, ""),
    "input": (hebb(after="\nname = input()"), 5, "the answer cell raised an EOFError"),
    "asserts": (hebb(after="\nassert 1 == 2"), 5, "the answer cell raised an AssertionError"),
    "plots": (hebb("import matplotlib.pyplot as plt\n", "\nplt.plot([1, 2])\nplt.savefig('mine.png')"), 5, ""),
    "odd print": (hebb(after="\nprint('\\ud800')"), 5, ""),
    "helper": (helper, 5, ""),
    "copied": (copied, 5, "2 copies of the answer"),
    "split": (split, 5, "read as one"),
    "moved": (moved, 5, ""),
    "retyped": (retyped, 5, "not code"),
    "stripped": (whole(lambda cells: [{**c, "metadata": {}} for c in cells]), 5, ""),
    "bare": (
        whole(lambda cells: [{"cell_type": c["cell_type"], "source": c["source"]} for c in cells]),
        5,
        "",
    ),
    "no tests": (whole(lambda cells: [c for c in cells if not marks(c).get("grade")]), 5, ""),
    "tests twice": (whole(lambda cells: [n for c in cells for n in [c] * (1 + bool(marks(c).get("grade")))]), 5, ""),
    "strange": (strange, 5, ""),
    "deep": (deep, 4, "The answer cell raised a"),
    "forged": (forged, 5, ""),
    "scripted": (scripted, 4, "ValueError"),
}


def as_file(coding=None, name=FILE, text=lambda t: t):
    """A right submission in another encoding or under another name."""

    def write(folder, nb, _):
        (folder / name).write_bytes(text(json.dumps(nb, ensure_ascii=False)).encode(coding or "utf-8"))

    return write


def linked(folder, nb, course):
    os.symlink(course / "solution" / NAME / FILE, folder / FILE)


def hard_linked(folder, nb, course):
    os.link(course / "solution" / NAME / FILE, folder / FILE)


def linked_folder(folder, nb, course):
    folder.rmdir()
    os.symlink(course / "submitted" / "right" / NAME, folder)


def empty(folder, nb, course):
    shutil.copy(course / "release" / NAME / FILE, folder)


def forged_empty(folder, nb, course):
    nb = json.loads((course / "release" / NAME / FILE).read_text())
    forged(nb)
    (folder / FILE).write_text(json.dumps(nb))


def holds(data):
    return lambda folder, nb, course: (folder / FILE).write_bytes(data)


FOLDERS = {
    "BOM": (as_file("utf-8-sig"), 5, ""),
    "UTF-16": (as_file("utf-16"), 5, ""),
    "Latin-1": (as_file("latin-1", text=lambda t: t.encode("latin-1", "ignore").decode("latin-1")), 5, ""),
    "CRLF": (as_file(text=lambda t: t.replace("\\n", "\\r\\n")), 5, ""),
    "renamed": (as_file(name="homework (1).ipynb"), 5, "the file was named"),
    "empty": (empty, 0, "there is no answer"),
    "forged empty": (forged_empty, 0, "there is no answer"),
    "=2+5": (empty, 0, "there is no answer"),
    "\x1b[31mred": (empty, 0, "there is no answer"),
    "*": (empty, 0, "there is no answer"),
    "link": (linked, None, "a link, not a file"),
    "hard link": (hard_linked, None, "no plain file"),
    "linked folder": (linked_folder, None, "a link, not a folder"),
    "pipe": (lambda folder, nb, course: os.mkfifo(folder / FILE), None, "no plain file"),
    "large": (holds(b" " * (21 << 20)), None, "more than 20 MB"),
    "many cells": (holds(b'{"cells": [' + b"{}," * 3000 + b"{}]}"), None, "more than 2000"),
    "nested": (holds(b'{"cells": ' + b"[" * 200_000), None, "cannot be read as a notebook"),
    "no notebook": (holds(b"<html>"), None, "cannot be read as a notebook"),
    "nothing": (lambda folder, nb, course: None, None, "there is no notebook"),
}

# ---- attacks: (code in front of a right answer, whether it must fail, what must be said) ----
ATTACKS = {
    "reads the key": ("open('COURSE/course.json').read()", True, "FileNotFoundError"),
    "reads the solution": ("open('COURSE/solution/session-50/FILE').read()", True, "FileNotFoundError"),
    "reads a neighbour": ("open('COURSE/submitted/right/session-50/FILE').read()", True, "FileNotFoundError"),
    "writes the gradebook": (
        "import sqlite3; sqlite3.connect('COURSE/gradebook.db').execute('create table x(y)')",
        True,
        "OperationalError",
    ),
    "writes the grades": ("open('COURSE/grades.csv', 'a').write('x')", True, "FileNotFoundError"),
    "removes what was handed out": (
        "import os; os.remove('COURSE/release/session-50/FILE')",
        True,
        "FileNotFoundError",
    ),
    "writes the library": ("import nlbook; open(nlbook.__file__, 'a').write('x')", True, "OSError"),
    "writes the interpreter": ("import torch; open(torch.__file__, 'a').write('x')", True, "OSError"),
    "imports the exercises": (
        "from nlbook.book.chapters.memory import exercises as e; hebb_write = e.hebb_write",
        True,
        "ImportError",
    ),
    "asks the judge": (
        "from nlbook_tools.course.exam import find; find('01-hebb', 1).solution.__code__",
        True,
        "AttributeError",
    ),
    "clears the importers": (
        "import sys\nfor n in [n for n in sys.modules if n.startswith('nlbook_tools')]: del sys.modules[n]\n"
        "sys.meta_path.pop(0); import nlbook_tools.course.exam",
        True,
        "ModuleNotFoundError",
    ),
    "TCP": ("import socket; socket.create_connection(('127.0.0.1', TCP), 2)", True, "PermissionError"),
    "UDP": ("import socket; socket.socket(type=2).sendto(b'x', ('127.0.0.1', UDP))", True, "PermissionError"),
    "unix socket": ("import socket; socket.socket(1).connect('COURSE/../s')", True, "PermissionError"),
    "abstract socket": ("import socket; socket.socket(1).connect('\\0nlbook-TCP')", True, "PermissionError"),
    "the keys of the login": (
        "import ctypes, platform\nnumber = 249 if platform.machine() == 'x86_64' else 218\n"
        "assert ctypes.CDLL(None).syscall(number, b'user', b'nlbook-TCP', None, 0) > 0",
        True,
        "AssertionError",
    ),
    "children that stay": (
        "import os\nfor _ in range(3):\n    if os.fork() == 0:\n        os.setsid()\n"
        "        os.execv('/usr/bin/sleep', ['sleep', 'MARK'])",
        False,
        "",
    ),
    "too many children": (
        "import os, time\nfor _ in range(99):\n    if os.fork() == 0: time.sleep(99)\ntime.sleep(3)",
        True,
        "process",
    ),
    "memory": ("x = bytearray(4_000_000_000)", True, "MemoryError"),
    "memory of children": (
        "import os, time\nfor _ in range(4):\n    if os.fork() == 0:\n"
        "        x = bytearray(b'x') * 900_000_000\n        time.sleep(9)\ntime.sleep(9)",
        True,
        "MB",
    ),
    "disk": ("for i in range(30): open(f'/tmp/{i}', 'wb').write(bytes(8_000_000))", True, "No space left"),
    "a large file": ("open('/tmp/x', 'wb').truncate(10**9)", True, "OSError"),
    "a file in memory": ("import os; os.memfd_create('x')", True, "PermissionError"),
    "many files": ("x = [open('/dev/null') for _ in range(999)]", True, "Too many open files"),
    "another process's secrets": ("open('/proc/1/environ').read()", True, "FileNotFoundError"),
    "kills": ("import os\nfor pid in (1, os.getppid()): os.kill(pid, 9)", False, ""),
    "kills all": ("import os; os.kill(-1, 9)", True, "ProcessLookupError"),
    "mounts": (
        "import ctypes; assert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0",
        True,
        "AssertionError",
    ),
    "a namespace of its own": (
        "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
        True,
        "AssertionError",
    ),
    "shared memory that stays": (
        "import ctypes; assert ctypes.CDLL(None).shmget(0x6E6C62, 4096, 0o1666) >= 0",
        True,
        "AssertionError",
    ),
    "empty files": ("for i in range(10**6): open(f'/tmp/e{i}', 'w').close()", True, "files|stopped after"),
    "forges a reply": (
        "import os\nfor fd in range(3, 20):\n"
        '    try: os.write(fd, b\'{"kind": "value", "value": 1}\\n\' * 9)\n    except OSError: pass',
        True,
        "",
    ),
    "ends its process": ("import os; os._exit(0)", True, "its process has ended"),
    "exits": ("import sys; sys.exit(0)", True, "SystemExit"),
    "hangs": ("while True: pass", True, "stopped after"),
    "a terminal's commands": ("raise ValueError('\\x1b]0;BREACH\\x07\\u202e')", True, "ValueError"),
    "a formula": ("raise ValueError('=1+2')", True, "ValueError"),
}
# functions instead of a right answer
FUNCTIONS = {
    "never returns": ("    while True: pass", "an endless loop"),
    "returns very much": ("    return 'x', [[M] * 4000] * 4000", "Error|too large|MB|stopped"),
    "returns deep nests": ("    x = []\n    for _ in range(10**4): x = [x]\n    return x", "a tuple or list"),
    "returns a lie": (
        "    class T(type(M)):\n        __eq__ = __le__ = __lt__ = lambda *a: True\n    return M.as_subclass(T)",
        "expected a torch.Tensor",
    ),
    "replaces the comparison": (
        "    torch.allclose = torch.equal = torch.Tensor.__eq__ = lambda *a, **k: True\n    return M * 0",
        "differs|is the|moves",
    ),
    "asks for the solution": (
        "    from nlbook.book import check\n    return check.solution('01-hebb')(M, k, v, eta)",
        "expected a torch.Tensor",
    ),
}


def attackers(answers):
    """Submissions with three attacks each, in front of their first three answers; then one a function."""
    ids, listed = list(WORTH)[:3], list(ATTACKS.items())
    for at in range(0, len(listed), 3):
        group = list(zip(ids, listed[at : at + 3]))
        sources = {id: f"{code}\n{answers[id]}" for id, (_, (code, _, _)) in group}
        points = 5 - sum(WORTH[id] for id, (_, (_, fails, _)) in group if fails)
        yield (
            " + ".join(n for _, (n, _) in group),
            sources,
            points,
            [w for _, (_, (_, _, w)) in group],
        )
    for name, (body, why) in FUNCTIONS.items():
        yield name, {"01-hebb": f"def hebb_write(M, k, v, eta):\n{body}"}, 4, [why]


# ---- the class -------------------------------------------------------------------------------------------------------
def tree(folder):
    """Every file below a folder with the hash of what is in it; links as they are."""
    files = [p for p in folder.rglob("*") if p.is_symlink() or p.is_file()]
    return {str(p): os.readlink(p) if p.is_symlink() else hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def listeners(folder):
    tcp, udp, unix, abstract = (socket.socket(f, t) for f, t in (
        (socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM),
        (socket.AF_UNIX, socket.SOCK_STREAM), (socket.AF_UNIX, socket.SOCK_STREAM)))  # fmt: skip
    tcp.bind(("127.0.0.1", 0))
    udp.bind(("127.0.0.1", 0))
    unix.bind(str(folder / "s"))
    name = f"nlbook-{tcp.getsockname()[1]}".encode()
    abstract.bind(b"\0" + name)
    ctypes.CDLL(None).syscall(248 if platform.machine() == "x86_64" else 217, b"user", name, b"secret", 6, -3)
    for heard in (tcp, unix, abstract):
        heard.listen()
    for heard in (tcp, udp, unix, abstract):
        heard.setblocking(False)
    return tcp, udp, unix, abstract


def hand_in(course, answers, ports):
    """Write everybody's folder; (points, what must be said) for each."""
    right = json.loads((course / "release" / NAME / FILE).read_text())
    for id, source in answers.items():
        right["cells"][place(right, id)]["source"] = source
    expected = {}

    def folder(name, points, *said):
        expected[name] = points, said
        made = course / "submitted" / name / NAME
        made.mkdir(parents=True)
        return made

    for name, (change, points, said) in STUDENTS.items():
        nb = json.loads(json.dumps(right))
        change(nb)
        as_file()(folder(name, points, said), nb, course)
    for name, (write, points, said) in FOLDERS.items():
        write(folder(name, points, said), right, course)
    for name, sources, points, said in attackers(answers):
        nb = json.loads(json.dumps(right))
        for id, source in sources.items():
            for old, new in {"COURSE": str(course), "FILE": FILE, "MARK": MARK, **ports}.items():
                source = source.replace(old, new)
            nb["cells"][place(nb, id)]["source"] = source
        as_file()(folder(name, points, *said), nb, course)
    return expected


def test_a_class_of_strangers_gets_the_right_marks_and_reasons(made, monkeypatch):
    course, answers = made
    heard = listeners(course.parent)
    ports = {"TCP": str(heard[0].getsockname()[1]), "UDP": str(heard[1].getsockname()[1])}
    expected = hand_in(course, answers, ports)
    assert len(expected) >= 40 and len(ATTACKS) + len(FUNCTIONS) >= 25
    (course.parent / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(course.parent / "scratch"))
    before, memory = tree(course), Path("/proc/sysvipc/shm").read_text()

    done = CliRunner().invoke(main, ["grade", str(course), "--feedback"])
    assert done.exit_code == 0, done.output
    with (course / "grades.csv").open(encoding="utf-8") as file:
        rows = {r["student"]: r for r in csv.DictReader(file)}
    wrong = []
    for name, (points, said) in expected.items():
        row = rows[grade.harmless(name)]
        told = f"{row['state']} {row['look at']} {row['lost']}"
        if row["points"] != ("" if points is None else str(points)) or not all(re.search(s, told) for s in said):
            wrong.append((name, points, said, row))
        if row["state"] != "graded":
            assert row["points"] == "", row
        elif float(row["points"]) < 5:
            assert row["lost"], row
    assert not wrong, wrong
    assert "\x1b" not in done.output + (course / "grades.csv").read_text()
    kept = {p: h for p, h in tree(course).items() if p in before}
    assert kept == before, "a file of the course was changed"
    assert not list((course.parent / "scratch").iterdir()) and Path("/proc/sysvipc/shm").read_text() == memory
    assert not [p for p in psutil.process_iter(["cmdline"]) if MARK in (p.info["cmdline"] or [])]
    assert psutil.Process().children(recursive=True) == []
    for listener in heard:
        with pytest.raises(BlockingIOError):
            listener.recv(9) if listener is heard[1] else listener.accept()
        listener.close()
    for page in (course / "feedback").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "<script>BREACH" not in text and "<img src=x" not in text and 'href="javascript' not in text
        assert str(SEED) not in text, "the seed is nobody's business"

    from nbgrader.api import Gradebook, MissingEntry

    with Gradebook(f"sqlite:///{course / 'gradebook.db'}", "nlbook") as book:  # nbgrader's own record says the same
        for name in expected:
            row = rows[grade.harmless(name)]
            if row["points"]:
                assert book.find_submission(NAME, grade.known_as(name)).score == float(row["points"]), name
            else:
                with pytest.raises(MissingEntry):
                    book.find_submission(NAME, grade.known_as(name))


def test_an_old_mark_is_never_shown_as_a_new_one(made):
    course, answers = made
    shutil.rmtree(course / "submitted", ignore_errors=True)
    nb = json.loads((course / "release" / NAME / FILE).read_text())
    nb["cells"][place(nb, "01-hebb")]["source"] = answers["01-hebb"]
    for name in ("ada", "ben"):
        (course / "submitted" / name / NAME).mkdir(parents=True)
        (course / "submitted" / name / NAME / FILE).write_text(json.dumps(nb))
    assert [r.points for r in grade.grade(course, feedback=True)] == [1, 1]
    (course / "submitted" / "ada" / NAME / FILE).write_text("{broken")
    ada, ben = grade.grade(course, feedback=True)
    assert (ada.marks, ben.points) == ([], 1) and "not graded" in ada.state
    assert not list((course / "autograded").glob("ada/*/*.ipynb"))
    assert "cannot be read" in (course / "feedback" / "ada" / NAME / "not_graded.txt").read_text()
