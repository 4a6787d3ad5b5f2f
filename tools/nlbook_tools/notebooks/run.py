"""Run notebooks with papermill, and turn every way in which one can fail into one report of a few lines.

What papermill leaves to its caller is done here: an unknown parameter is refused before the kernel starts, a time-out
or a dead kernel names its cell, an error inside an Output widget (`interact`), inside one of our pictures, in a thread
or in a task fails the run although the cell passed, the kernel is this interpreter's whatever the notebook says, and
time, memory, network, files and processes have limits.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import papermill as pm
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from nlbook_tools.notebooks import contract, write_whole
from nlbook_tools.notebooks.kernel import STOP, Room, Watch, manager_for

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PICTURE_ERROR = '<pre class="nlbook-error"'  # how a Picture of nlbook.book.viz shows a draw that failed
ADDED = {"injected-parameters", "papermill-error-cell-tag"}  # papermill's own cells, which the reader's notebook lacks
OUTPUT_S = 30  # how long to wait for the end of a cell's output; zmq drops messages that nobody reads in time
Progress = Callable[[int, int], None]  # (cell, of how many), both in the reader's notebook
TODO = {  # kind -> what to do
    "time": "make the cell do less, or raise nlbook.run.<profile>.seconds in the front matter "
    "(a quick run may take 60 s); on a slow machine set NLBOOK_PATIENCE=2",
    "memory": "make the cell hold less at a time, or raise nlbook.run.<profile>.memory_mb in the front matter",
    "network": "a notebook has no network: use a set in data/ or make the data; catching the error is no cure",
    "files": "write into the temporary folder (tempfile): a reader's other files are not the book's",
    "cell error": "mend the cell in its text source (notebooks/src/*.md), then run `nlbook notebooks build`",
    "stub": "a stub was called: later cells must not depend on the reader's answer; call the library's function",
    "output": "the kernel is well, but it sent more messages than can be read: print less, or all at once",
    "dead kernel": "look for a crash in native code or for the machine's memory running out; run the cell alone with "
    "`python -X faulthandler` to see where",
    "no kernel": "the kernel could not be started or talked to: run `nlbook doctor`, then this notebook alone",
    "widget error": "a widget caught this error: the cell passed, the reader sees a broken picture. Call the drawing "
    "function with the same values, mend it, and assert its extremes in tests/",
    "thread": "no cell shows this error: join the thread and hand its exception on, or mend what it runs",
    "task": "no cell shows this error: await the task, or mend what it runs",
    "left running": "end what a cell starts before the notebook ends; it has been killed now",
}


@dataclass(frozen=True)
class Failure:
    """Why a notebook failed, and what to do about it. `cell` counts from 1, Markdown cells too; None: not one cell's
    fault."""

    notebook: str
    kind: str  # a key of TODO, or parameters | form | text
    why: str
    todo: str
    cell: int | None = None
    cells: int = 0
    source: str = ""
    output: str = ""
    trace: str = ""
    copy: str = ""

    def __str__(self) -> str:
        where = f"{self.notebook}, cell {self.cell} of {self.cells}" if self.cell else self.notebook
        lines = [f"{where}: {self.kind}: {self.why}"]
        lines += [f"    | {x}" for x in _head(self.source, 8)]
        if self.output:
            lines += ["  last output:", *(f"    {x}" for x in _tail(self.output, 3))]
        if self.trace:
            lines += ["  traceback, its end:", *(f"    {x}" for x in _tail(self.trace, 6))]
        lines += [f"  what to do: {self.todo}"]
        if self.copy:
            lines += [f"  executed copy: {self.copy}"]
        return "\n".join(lines)


class NotebookFailed(Exception):
    """A notebook did not pass. `str()` is the report; `.failure` holds its parts."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


@dataclass(frozen=True)
class Plan:
    """How a notebook asks to be run: `nlbook.run.<profile>` of its metadata."""

    profile: str
    seconds: float
    memory_mb: float
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A notebook that passed: what it took of its plan, and the executed notebook."""

    name: str
    plan: Plan
    seconds: float
    peak_mb: float
    cpu_s: float
    nb: NotebookNode = field(repr=False)

    def __str__(self) -> str:
        return (
            f"{self.name}: passed in {self.seconds:.0f} s of {self.plan.seconds:g}, "
            f"{self.peak_mb:.0f} MB of {self.plan.memory_mb:g}"
        )


def plan(nb: NotebookNode, name: str, profile: str = "quick") -> Plan:
    """The notebook's own plan for `profile` ("quick" or "full"); NotebookFailed if it cannot be run with one.

    Seconds are multiplied by $NLBOOK_PATIENCE (default 1), for machines slower than the two cores that budgets are
    written for.
    """
    if problems := contract.runnable(nb, name, profile):
        raise _refused(name, "parameters", problems)
    asked = nb.metadata["nlbook"]["run"][profile]
    patience = float(os.environ.get("NLBOOK_PATIENCE") or 1)
    return Plan(profile, asked["seconds"] * patience, asked["memory_mb"], dict(asked.get("parameters") or {}))


def run(
    path: str | Path, out: str | Path = "build/executed", profile: str = "quick", on_cell: Progress | None = None
) -> Run:
    """Run the notebook at `path` with its own parameters and budgets; leave an executed copy at `out/<profile>/<name>`.

    Raises NotebookFailed: before any kernel starts if the notebook's committed form is not clean (see
    nlbook_tools.notebooks.contract), afterwards for everything that TODO lists.
    """
    path = Path(path)
    nb = read(path)
    asked = plan(nb, path.name, profile)
    if problems := contract.check(nb, path.name):
        raise _refused(path.name, "form", problems)
    return execute(nb, path.name, asked, cwd=path.parent, copy=Path(out) / profile / path.name, on_cell=on_cell)


def execute(
    nb: NotebookNode, name: str, asked: Plan, cwd: Path, copy: Path | None = None, on_cell: Progress | None = None
) -> Run:
    """Execute `nb` in an isolated kernel with working directory `cwd`. Writes `copy`, failed or not."""
    started = time.perf_counter()
    room, watch = Room(cwd.resolve()), Watch(asked.seconds, asked.memory_mb)
    session = _Session(room, watch, on_cell, len(nb.cells))
    error: Exception | None = None
    try:
        pm.execute_notebook(
            nb,
            None,
            parameters=asked.parameters,
            engine_name="nlbook",
            kernel_name="python3",
            progress_bar=False,
            session=session,
        )
    except Exception as e:  # PapermillExecutionError, DeadKernelError, what zmq raises when a kernel is killed under it
        error = e
    finally:
        watch.stop()
        session.end()
        room.close()
    done = session.client.nb if session.client else nb
    if copy:
        write_whole(copy, nbformat.writes(done))
    if failure := _diagnose(name, session, error, str(copy or "")):
        raise NotebookFailed(failure)
    return Run(name, asked, time.perf_counter() - started, watch.peak_mb, watch.cpu_s, done)


def run_all(calls: Mapping[str, Callable[[], Run]], workers: int = 1) -> Iterator[Run | Failure]:
    """Make every call (a notebook's name -> a call that runs it), `workers` at a time; yield what becomes of each.

    Whatever stops this process's main thread, Ctrl-C and SIGTERM too, kills the kernels first and leaves no folder.
    """
    STOP.clear()
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)) if _in_main_thread() else None
    pool = ThreadPoolExecutor(workers)
    try:
        for call in as_completed([pool.submit(c) for c in calls.values()]):
            try:
                yield call.result()
            except NotebookFailed as failed:
                yield failed.failure
    except BaseException:
        STOP.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        if before:
            signal.signal(signal.SIGTERM, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class _Session:
    """What happens while the cells run: which cell it is now, and what went wrong without failing its cell."""

    def __init__(self, room: Room, watch: Watch, on_cell: Progress | None, cells: int) -> None:
        self.room, self.watch, self.on_cell, self.cells = room, watch, on_cell, cells
        self.client: _Client | None = None
        self.index: int | None = None  # in the executed notebook
        self.last_words = ""
        self.hidden: list[tuple[int | None, str, str]] = []  # (index, kind, what)
        self.heard = 0

    def start(self, cell: NotebookNode, cell_index: int, **_: Any) -> None:
        self.index = cell_index
        self.watch.begin()
        if self.on_cell:
            self.on_cell(self.number(cell_index) or 1, self.cells)

    def hear(self, **_: Any) -> None:
        """What the guard wrote down since the last look is the present cell's."""
        new = self.room.findings()[self.heard :]
        self.heard += len(new)
        self.hidden += [(self.index, f["kind"], f["what"]) for f in new]

    def end(self) -> None:
        """The kernel is gone: what it and its children leave behind."""
        self.hear()
        left = self.room.left_running()
        self.hidden += [
            (None, "left running", f"process {pid} ({program}) outlives the notebook") for pid, program in left
        ]
        self.last_words = self.room.last_words()

    def cell(self, index: int | None) -> NotebookNode:
        cells = self.client.nb.cells if self.client else []
        return cells[index] if index is not None and index < len(cells) else NotebookNode()

    def number(self, index: int | None) -> int | None:
        """The cell's place in the reader's notebook, from 1: papermill's own cells do not count."""
        if index is None or self.client is None:
            return None
        return index + 1 - sum(bool(ADDED & set(c.metadata.get("tags", []))) for c in self.client.nb.cells[:index])


class _Client(PapermillNotebookClient):
    """papermill's client, which also listens for errors that a widget swallows."""

    session_: _Session

    def output(self, outs: Any, msg: dict[str, Any], display_id: str, cell_index: int) -> Any:
        if msg["msg_type"] == "error" and self.output_hook_stack[msg["parent_header"].get("msg_id", "")]:
            self._hidden(cell_index, f"{msg['content']['ename']}: {msg['content']['evalue']}")
        return super().output(outs, msg, display_id, cell_index)

    def handle_comm_msg(self, outs: Any, msg: dict[str, Any], cell_index: int) -> None:
        super().handle_comm_msg(outs, msg, cell_index)
        state = msg["content"].get("data", {}).get("state") or {}
        for output in state.get("outputs") or []:  # an Output filled by hand: append_display_data and the like
            if output.get("output_type") == "error":
                self._hidden(cell_index, f"{output['ename']}: {output['evalue']}")
        shown = state.get("value")
        if isinstance(shown, str) and PICTURE_ERROR in shown:
            self._hidden(cell_index, re.sub(r"<[^>]+>", "", shown).strip())

    def _hidden(self, cell_index: int, what: str) -> None:
        self.session_.hidden.append((cell_index, "widget error", what))


class _Engine(NBClientEngine):
    """papermill's engine with our client in it."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, session: _Session, **_: Any) -> NotebookNode:  # type: ignore[override]
        client = _Client(
            nb_man,
            kernel_name=kernel_name,
            kernel_manager_class=manager_for(session.room, session.watch),
            startup_timeout=120,
            iopub_timeout=OUTPUT_S,
            timeout=None,
            coalesce_streams=True,
            on_cell_execute=session.start,
            on_cell_executed=session.hear,
        )
        client.session_, session.client = session, client
        with open(session.room.kernel_log, "wb") as log:  # what it says outside its cells, as in a crash
            return client.execute(cwd=str(session.room.work), stdout=log, stderr=log)


papermill_engines.register("nlbook", _Engine)


def _diagnose(name: str, session: _Session, error: Exception | None, copy: str) -> Failure | None:
    """The one reason that comes first: a broken budget, the network or a file explains the exception that followed."""
    watch, index, trace = session.watch, session.index, ""
    acts = [h for h in session.hidden if h[1] in ("network", "files")]
    if isinstance(error, pm.PapermillExecutionError):
        index, trace = _failed_cell(session, error), ANSI.sub("", "\n".join(error.traceback))
    if watch.over == "time":
        kind, why = "time", f"still running after its budget of {watch.seconds:g} s"
    elif watch.over == "memory":
        kind, why = "memory", f"the kernel used {watch.peak_mb:.0f} MB of {watch.memory_mb:g} MB; it was killed"
    elif acts:
        index, kind, what = acts[0]
        why = f"the cell tried to reach {what}" if kind == "network" else f"the cell changed {what}, outside its folder"
    elif isinstance(error, pm.PapermillExecutionError):
        kind, why = "cell error", f"{error.ename}: {error.evalue}"
    elif isinstance(error, CellTimeoutError):  # nbclient's word for its wait for output; our clock is the watch
        kind, why = "output", f"the output of the cell did not end within {OUTPUT_S} s"
    elif isinstance(error, DeadKernelError):
        kind, why, trace = "dead kernel", "the kernel died while the cell ran", session.last_words
    elif error is not None:
        kind, why = "no kernel", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        trace = session.last_words
    elif session.hidden:
        index, kind, why = session.hidden[0]
    else:
        return None
    todo = TODO["stub" if getattr(error, "ename", "") == "NotImplementedError" else kind]
    cell = session.cell(index)
    said = "".join(o.get("text", "") for o in cell.get("outputs", []) if o.output_type == "stream")
    where = (session.number(index), session.cells, cell.get("source", ""))
    return Failure(name, kind, ANSI.sub("", why), todo, *where, said, trace, copy)


def _failed_cell(session: _Session, error: pm.PapermillExecutionError) -> int | None:
    """Where the failing cell is now: papermill has since put its two error notes before it."""
    cells = session.client.nb.cells if session.client else []
    failed = (i for i, c in enumerate(cells) if any(o.output_type == "error" for o in c.get("outputs", [])))
    return next(failed, error.cell_index)


def _refused(name: str, kind: str, problems: list[contract.Problem]) -> NotebookFailed:
    first, rest = problems[0], problems[1:]
    more = "".join(f"\n    also, {p.where}: {p.what} -> {p.todo}" for p in rest[:4])
    more += f"\n    and {len(rest) - 4} more" if len(rest) > 4 else ""
    return NotebookFailed(Failure(name, kind, f"{first.where}: {first.what}", first.todo + more))


def read(path: Path) -> NotebookNode:
    """The notebook in this file; NotebookFailed if there is none."""
    if not path.is_file():
        todo = "check the path; `nlbook run` alone runs the whole book"
        raise NotebookFailed(Failure(path.name, "form", f"there is no file {path}", todo))
    try:
        return nbformat.read(path, 4)
    except Exception as e:
        todo = "never merge an .ipynb by hand: take one side and run `nlbook notebooks build`"
        why = f"not a notebook: {type(e).__name__}: {e}"
        raise NotebookFailed(Failure(path.name, "form", why, todo)) from None


def _head(text: str, n: int) -> list[str]:
    lines = text.strip().splitlines()
    return lines[:n] + ([f"… {len(lines) - n} more lines"] if len(lines) > n else [])


def _tail(text: str, n: int) -> list[str]:
    lines = [x for x in text.strip().splitlines() if x.strip()]
    return [x[:200] for x in lines[-n:]]
