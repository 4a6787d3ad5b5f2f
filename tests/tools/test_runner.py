"""The runner refuses and reports: deliberately broken notebooks, each failing with a message that says what to do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nlbook_tools.notebooks import sync
from nlbook_tools.notebooks.kernel import Room
from nlbook_tools.notebooks.run import PICTURE_ERROR, Failure, NotebookFailed, run, run_all

SAMPLE = Path(__file__).parents[1] / "data" / "98_sample_note.md"


@pytest.fixture(autouse=True)
def the_budgets_as_written(monkeypatch):
    """NLBOOK_PATIENCE stretches every budget; these tests count on the written ones."""
    monkeypatch.delenv("NLBOOK_PATIENCE", raising=False)


@pytest.fixture
def notebook(tmp_path):
    """Write a runnable note of these code cells: notebook("x = 1", seconds=5) -> its path."""

    def make(
        *cells: str, seconds: float = 60, memory_mb: float = 1000, parameters: dict | None = None, **metadata
    ) -> Path:
        budget = {"seconds": seconds, "memory_mb": memory_mb, "parameters": parameters or {}}
        nb = new_notebook(
            cells=[
                new_markdown_cell("# A note"),
                new_code_cell("seed = 0", metadata={"tags": ["parameters"]}),
                *map(new_code_cell, cells),
            ]
        )
        nb.metadata.update(
            {
                "kernelspec": sync.KERNELSPEC,
                "nlbook": {"kind": "note", "run": {"quick": budget, "full": budget}},
                **metadata,
            }
        )
        path = tmp_path / "broken.ipynb"
        nbformat.write(nb, path)
        return path

    return make


def failure(path: Path, profile: str = "quick") -> Failure:
    """Run it; it must fail; the report is short and ends with advice."""
    with pytest.raises(NotebookFailed) as caught:
        run(path, path.parent / "out", profile)
    report = str(caught.value)
    assert len(report.splitlines()) <= 30 and max(map(len, report.splitlines())) < 400, report
    assert report.startswith("broken.ipynb") and "what to do: " in report, report
    return caught.value.failure


def test_a_good_notebook_passes_whatever_its_kernelspec_says(notebook):
    path = notebook(
        "import os, sys, matplotlib\n"
        "print(sys.executable)\n"
        "assert matplotlib.get_backend().endswith('inline'), matplotlib.get_backend()\n"
        "assert os.environ['PYTHONHASHSEED'] == '0' and os.environ['OMP_NUM_THREADS'] == '1'\n"
        "assert os.path.isabs(os.environ['NLBOOK_STORE']) and not os.environ['http_proxy']",
        "print('seed', seed)",
        parameters={"seed": 0},
        kernelspec={"name": "my-conda-env", "display_name": "somebody's", "language": "python"},
    )
    cells = []
    done = run(path, path.parent / "out", on_cell=lambda cell, of: cells.append((cell, of)))
    assert done.nb.cells[3].outputs[0].text.strip() == sys.executable  # cell 2 is papermill's
    assert (path.parent / "out" / "quick" / "broken.ipynb").exists()
    assert 20 < done.peak_mb < 1000 and 0 < done.seconds < 60
    assert 0.2 < done.cpu_s <= 2 * done.seconds + 5  # processor time, however busy the machine is
    assert (4, 4) in cells and all(of == 4 for _, of in cells)


def test_a_cell_error_names_cell_output_and_traceback(notebook):
    f = failure(notebook("print('so far so good')\nraise ValueError('no such memory')"))
    assert (f.kind, f.cell, f.cells) == ("cell error", 3, 3)
    assert f.why == "ValueError: no such memory" and "so far so good" in f.output and "----> 2 raise" in f.trace
    assert "nlbook notebooks build" in f.todo and Path(f.copy).exists()


INTERACT = """
import ipywidgets as W
def draw(n):
    print(1 / (3 - n))
slider = W.IntSlider(1, 0, 5)
display(W.interactive_output(draw, {"n": slider}))
"""
PICTURE = f"""
import ipywidgets as W
message = W.HTML()
display(message)
message.value = '{PICTURE_ERROR} role="alert">Interference could not be drawn: singular</pre>'
message.value = ''
"""


@pytest.mark.parametrize(
    ("cells", "cell", "why"),
    [
        ((INTERACT, "slider.value = 3", "slider.value = 2"), 4, "ZeroDivisionError: division by zero"),
        ((PICTURE,), 3, "Interference could not be drawn: singular"),
    ],
    ids=["interact", "picture"],
)
def test_an_error_that_a_widget_hides_fails_even_if_it_is_gone_afterwards(notebook, cells, cell, why):
    f = failure(notebook(*cells))
    assert (f.kind, f.cell, f.why) == ("widget error", cell, why)
    assert "drawing function" in f.todo and "tests/" in f.todo


def test_our_pictures_mark_their_errors_as_the_runner_expects():
    import nlbook.book.viz.picture as picture

    assert PICTURE_ERROR in Path(picture.__file__).read_text()


def test_a_hung_cell_is_interrupted_and_shows_where(notebook):
    f = failure(notebook("import time\nprint('counting', flush=True)\nwhile True:\n    time.sleep(0.05)", seconds=1.5))
    assert (f.kind, f.cell) == ("time", 3) and "1.5 s" in f.why and "counting" in f.output
    assert "KeyboardInterrupt" in f.trace and "seconds" in f.todo and "NLBOOK_PATIENCE" in f.todo


def test_a_hung_cell_that_shrugs_off_the_interrupt_is_killed(notebook):
    stubborn = "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n        pass"
    f = failure(notebook(stubborn, seconds=0.5))
    assert (f.kind, f.cell) == ("time", 3)


def test_a_killed_kernel_names_the_cell(notebook):
    f = failure(notebook("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"))
    assert (f.kind, f.cell) == ("dead kernel", 3) and "memory" in f.todo and "faulthandler" in f.todo


def test_a_crash_shows_the_kernels_last_words(notebook):
    f = failure(notebook("import ctypes\nctypes.string_at(0)"))
    assert f.kind == "dead kernel" and "string_at" in f.trace


def test_memory_over_the_budget_kills_the_kernel(notebook):
    f = failure(notebook("import time\nheld = b'x' * (500 << 20)\ntime.sleep(30)", memory_mb=300))
    assert (f.kind, f.cell) == ("memory", 3) and "300 MB" in f.why and "memory_mb" in f.todo


def test_the_network_fails_a_notebook_that_catches_the_exception(notebook):
    reach = "import socket\ntry:\n    socket.create_connection(('192.0.2.1', 80), timeout=1)\nexcept OSError:\n    pass"
    f = failure(notebook(reach, "1 + 1"))
    assert (f.kind, f.cell) == ("network", 3) and "192.0.2.1" in f.why and "data/" in f.todo


OUT = {
    "name look-up": "socket.getaddrinfo('example.invalid', 80)",
    "old name look-up": "socket.gethostbyname('example.invalid')",
    "connect_ex": "socket.socket().connect_ex(('192.0.2.1', 80))",
    "version 6": "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
    "datagram": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
    "urllib": "__import__('urllib.request').request.urlopen('http://example.invalid/', timeout=1)",
    "asyncio": "__import__('asyncio').run(__import__('asyncio').open_connection('192.0.2.1', 80))",
    "curl": "subprocess.run(['curl', 'http://example.invalid'])",
    "curl in a shell": "os.system('curl http://example.invalid')",
    "child": "subprocess.run([sys.executable, '-c', 'import socket; socket.getaddrinfo(\"example.invalid\", 80)'])",
}
HERE = {
    "loopback": "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())",
    "localhost": "socket.getaddrinfo('localhost', 80)",
    "unix": "a, b = socket.socketpair(); a.send(b'x')",
    "asyncio": "__import__('asyncio').run(__import__('asyncio').sleep(0))",
    "other programs": "subprocess.run(['true']); subprocess.run([sys.executable, '-c', 'pass'])",
}


def guarded(code: str) -> list[dict]:
    """Run this code in a Python with the kernel's environment, every exception caught; what the guard wrote down."""
    room = Room()
    try:
        quiet = f"import os, socket, subprocess, sys\ntry:\n    {code}\nexcept OSError as e:\n    print(e)"
        subprocess.run(
            [sys.executable, "-c", quiet], env={**os.environ, **room.env()}, check=True, timeout=60, capture_output=True
        )
        return room.findings()
    finally:
        room.close()


@pytest.mark.parametrize("code", OUT.values(), ids=OUT)
def test_the_guard_writes_down_every_way_out(code):
    found = guarded(code)
    assert found and all(f["kind"] == "network" for f in found)
    assert all(re.search(r"example\.invalid|192\.0\.2\.1|2001:db8|curl", f["what"]) for f in found)


@pytest.mark.parametrize("code", HERE.values(), ids=HERE)
def test_the_guard_lets_loopback_and_children_be(code):
    assert guarded(code) == []


def edited(path: Path, edit) -> Path:
    nb = nbformat.read(path, 4)
    edit(nb)
    nbformat.write(nb, path)
    return path


def _stray_count(nb):
    for cell, count in zip(nb.cells[1:], (1, 3)):
        cell.execution_count = count


REFUSED = {
    "stray execution count": (_stray_count, "form", "execution count 3, expected 2", "nlbook notebooks build"),
    "half executed": (
        lambda nb: nb.cells[1].update(execution_count=1),
        "form",
        "execution count None, expected 2",
        "run all",
    ),
    "saved error": (
        lambda nb: (
            _stray_count(nb),
            nb.cells[2].update(
                execution_count=2, outputs=[new_output("error", ename="ValueError", evalue="old", traceback=[])]
            ),
        ),
        "form",
        "an error is saved",
        "mend the cell",
    ),
    "widget state": (lambda nb: nb.metadata.update(widgets={}), "form", "widget state", "nlbook notebooks build"),
    "missing metadata": (
        lambda nb: nb.metadata.pop("nlbook"),
        "parameters",
        "no metadata nlbook.run.quick",
        "front matter",
    ),
    "no budget": (
        lambda nb: nb.metadata["nlbook"]["run"]["quick"].pop("seconds"),
        "parameters",
        "seconds is None",
        "positive number",
    ),
    "unknown parameter": (
        lambda nb: nb.metadata["nlbook"]["run"]["quick"]["parameters"].update(sed=0),
        "parameters",
        "['sed']",
        "['seed']",
    ),
    "another default": (
        lambda nb: nb.metadata["nlbook"]["run"]["quick"]["parameters"].update(seed=3),
        "parameters",
        "the parameters cell says 0",
        "put the quick value in the cell",
    ),
    "no parameters cell": (
        lambda nb: nb.cells[1].metadata.clear(),
        "parameters",
        "no cell tagged `parameters`",
        "seed = 0",
    ),
    "code among parameters": (
        lambda nb: nb.cells[1].update(source="seed = f()"),
        "parameters",
        "more than flat scalars",
        "scalar",
    ),
    "raises-exception": (
        lambda nb: nb.cells[2].metadata.update(tags=["raises-exception"]),
        "parameters",
        "raises-exception",
        "try/except",
    ),
    "a chapter without its contract": (
        lambda nb: nb.metadata["nlbook"].update(kind="chapter"),
        "form",
        "never executed",
        "nlbook notebooks build",
    ),
}


@pytest.mark.parametrize(("edit", "kind", "why", "todo"), REFUSED.values(), ids=REFUSED)
def test_refused_before_a_kernel_starts(notebook, monkeypatch, edit, kind, why, todo):
    monkeypatch.setattr("nlbook_tools.notebooks.run.execute", lambda *a, **k: pytest.fail("a kernel was started"))
    f = failure(edited(notebook("1 + 1"), edit))
    assert f.kind == kind and why in f.why and todo in f.todo


def test_no_file_and_no_notebook(tmp_path):
    with pytest.raises(NotebookFailed, match="there is no file"):
        run(tmp_path / "broken.ipynb", tmp_path)
    (tmp_path / "broken.ipynb").write_text("<<<<<<< HEAD")
    assert "by hand" in failure(tmp_path / "broken.ipynb").todo


BEHIND = {  # an exception that no cell shows -> the kind of finding
    "thread": ("import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()", "thread"),
    "task": ("import asyncio\nasync def f():\n    1 / 0\nasyncio.create_task(f())\nawait asyncio.sleep(0.05)", "task"),
    "task held": ("import asyncio\nasync def f():\n    1 / 0\nt = asyncio.create_task(f())", "task"),
}


@pytest.mark.parametrize(("code", "kind"), BEHIND.values(), ids=BEHIND)
def test_an_error_behind_the_cells_is_a_finding(notebook, code, kind):
    f = failure(notebook(code, "import gc\nx = gc.collect()"))
    assert f.kind == kind and f.why == "ZeroDivisionError: division by zero"


def test_an_awaited_task_and_a_thread_that_ends_are_none(notebook, tmp_path):
    caught = "import asyncio\nasync def f():\n    1 / 0\ntry:\n    await f()\nexcept ZeroDivisionError:\n    pass"
    quiet = "import threading\nt = threading.Thread(target=lambda: exit(0))\nt.start()"
    run(notebook(caught, quiet), tmp_path / "out")


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_daemon_is_found_and_killed(notebook):
    daemon = (
        "import subprocess, sys\n"
        "sleeper = 'import os, time\\nif os.fork() == 0:\\n    os.setsid()\\n    time.sleep(600)'\n"
        "done = subprocess.run([sys.executable, '-c', sleeper])"
    )
    f = failure(notebook(daemon))
    assert f.kind == "left running" and "python" in f.why and f.cell is None
    assert not alive(int(re.search(r"process (\d+)", f.why)[1]))


@pytest.mark.parametrize("act", ["open(there / 'a', 'w').close()", "(there / 'old').unlink()", "shutil.rmtree(there)"])
def test_a_file_outside_the_work_folder_is_a_finding(notebook, tmp_path, monkeypatch, act):
    there = tmp_path.parent / f"{tmp_path.name}-outside"
    there.mkdir()
    (there / "old").touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = f"import pathlib, shutil\nthere = pathlib.Path({str(there)!r})\n"
    inside = "open('mine', 'w').close()\nopen(there / 'old').close()\nshutil.rmtree(pathlib.Path('d').mkdir() or 'd')"
    f = failure(notebook(code + inside, act))
    assert (f.kind, f.cell) == ("files", 4) and there.name in f.why


def test_a_lost_end_of_output_is_no_dead_kernel(notebook, monkeypatch):
    """zmq drops messages that nobody reads in time; here the kernel itself never says that the cell has ended."""
    monkeypatch.setattr("nlbook_tools.notebooks.run.OUTPUT_S", 1)
    f = failure(notebook("get_ipython().kernel._publish_status = lambda *args, **more: None"))
    assert (f.kind, f.cell) == ("output", 3) and "print less" in f.todo


def test_two_at_once_report_progress_and_failures(notebook, tmp_path):
    paths = [notebook("x = 1").rename(tmp_path / "good.ipynb"), notebook("1 / 0")]
    heard = []
    calls = {
        p.name: partial(run, p, tmp_path / "out", on_cell=lambda *e, p=p: heard.append((p.name, *e))) for p in paths
    }
    good, bad = sorted(run_all(calls, 2), key=lambda e: isinstance(e, Failure))
    assert good.name == "good.ipynb" and good.peak_mb > 20 and good.cpu_s > 0.2
    assert re.fullmatch(r"good.ipynb: passed in \d+ s of 60, \d+ MB of 1000", str(good))
    assert bad.notebook == "broken.ipynb" and bad.why.startswith("ZeroDivisionError")
    assert {("good.ipynb", 3, 3), ("broken.ipynb", 3, 3)} <= set(heard)


@pytest.mark.parametrize("word", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_no_child_and_no_folder(notebook, tmp_path, word):
    paths = [str(notebook("import time\ntime.sleep(600)").rename(tmp_path / f"{n}.ipynb")) for n in "ab"]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "nlbook_tools.cli", "run", "--jobs", "2", "--out", str(tmp_path / "out"), *paths]
    parent = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(temporary)}, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(children := psutil.Process(parent.pid).children(recursive=True)) < 2:
        assert time.monotonic() < end
        time.sleep(0.2)
    parent.send_signal(word)
    assert parent.wait(30) != 0
    assert not [c.pid for c in children if alive(c.pid)] and list(temporary.iterdir()) == []


def test_two_executions_give_the_same_bytes(tmp_path):
    out = tmp_path / "98_sample_note.ipynb"
    first = sync.build(SAMPLE, out)
    done = run(out, tmp_path / "out")
    assert sync.same_outputs(first.nb, done.nb) == []
    again = sync.image(done.nb, out.stem)
    assert sync.dumps(again) == out.read_text()
    assert sync.check(SAMPLE, out) == []
    assert [c.get("execution_count") for c in again.cells if c.cell_type == "code"] == [1, 2, 3]
    picture = next(o for c in again.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {}))
    assert picture.metadata["image/png"]["alt"].startswith("a straight line")
    assert "0x…" in again.cells[-1].outputs[-1].data["text/plain"]


def test_a_build_that_fails_leaves_the_notebook_alone(tmp_path):
    src, out = tmp_path / "98_sample_note.md", tmp_path / "98_sample_note.ipynb"
    src.write_text(SAMPLE.read_text().replace("print(*range(n))", "1 / 0"))
    out.write_text("as it was")
    (failed,) = run_all({out.name: partial(sync.build, src, out)})
    assert failed.why.startswith("ZeroDivisionError") and failed.cell == 5
    assert out.read_text() == "as it was"


def test_a_cell_that_varies_is_compared_by_its_words():
    """Tag "varies": what training came to may differ on another processor, the words around it may not."""

    def made(text: str, *tags: str) -> nbformat.NotebookNode:
        cell = new_code_cell(
            "f()", metadata={"tags": [*tags]}, outputs=[new_output("stream", name="stdout", text=text)]
        )
        return new_notebook(cells=[cell])

    assert sync.same_outputs(made("loss 0.1"), made("loss 0.3"), 0.02)
    assert not sync.same_outputs(made("loss 0.1", "varies"), made("loss 0.3", "varies"), 0.02)
    assert sync.same_outputs(made("loss 0.1", "varies"), made("gain 0.1", "varies"), 0.02)
    assert sync.same_outputs(made("loss 0.1", "varies"), made("loss 0.3", "varies"))  # no tolerance: the same bytes
