"""Run one notebook with papermill, and turn every way in which it can fail into one report of a few lines.

What papermill leaves to its caller is done here: an unknown parameter is refused before the kernel starts, a time-out
or a dead kernel names its cell, an error inside an Output widget (`interact`) or inside one of our pictures fails the
run although the cell passed, the kernel is this interpreter's whatever the notebook says, and time, memory and
network have limits.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import papermill as pm
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from nlbook_tools.notebooks import contract
from nlbook_tools.notebooks.kernel import Room, Watch, manager_for

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PICTURE_ERROR = '<pre class="nlbook-error"'  # how a Picture of nlbook.book.viz shows a draw that failed
ADDED = {
    "injected-parameters",
    "papermill-error-cell-tag",
}  # papermill's own cells, which the reader's notebook has not
Progress = Callable[[int, int], None]  # (cell, of how many), both in the reader's notebook


@dataclass(frozen=True)
class Failure:
    """Why a notebook failed, and what to do about it. `cell` counts from 1, Markdown cells too; None: not one cell's
    fault."""

    notebook: str
    kind: str  # cell error | widget error | dead kernel | time | memory | network | parameters | form
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
    """A notebook did not pass. `str()` is the report; `.failure` holds its parts; `.seconds` and `.peak_mb` what the
    run took."""

    def __init__(self, failure: Failure, seconds: float = 0.0, peak_mb: float = 0.0) -> None:
        super().__init__(failure, seconds, peak_mb)  # all of them in args: the exception crosses processes
        self.failure, self.seconds, self.peak_mb = failure, seconds, peak_mb

    def __str__(self) -> str:
        return str(self.failure)


@dataclass(frozen=True)
class Plan:
    """How a notebook asks to be run: `nlbook.run.<profile>` of its metadata."""

    profile: str
    seconds: float
    memory_mb: float
    parameters: dict[str, Any]


class Used(NamedTuple):
    """What the kernel of a run used: largest resident size in MB, seconds of processor time."""

    peak_mb: float
    cpu_s: float


@dataclass(frozen=True)
class Run:
    """A notebook that passed."""

    path: Path
    copy: Path
    plan: Plan
    seconds: float
    peak_mb: float
    cpu_s: float
    nb: NotebookNode = field(repr=False)


def plan(nb: NotebookNode, name: str, profile: str = "quick") -> Plan:
    """The notebook's own plan for `profile` ("quick" or "full"); NotebookFailed if it has none or cannot be run with
    it.

    Seconds are multiplied by $NLBOOK_PATIENCE (default 1), for machines slower than the two cores that budgets are
    written for.
    """
    if problems := contract.runnable(nb, name, profile):
        raise NotebookFailed(_refused(name, "parameters", problems))
    asked = nb.metadata["nlbook"]["run"][profile]
    patience = float(os.environ.get("NLBOOK_PATIENCE") or 1)
    return Plan(profile, asked["seconds"] * patience, asked["memory_mb"], dict(asked.get("parameters") or {}))


def run(
    path: str | Path, out: str | Path = "build/executed", profile: str = "quick", on_cell: Progress | None = None
) -> Run:
    """Run the notebook at `path` with its own parameters and budgets; leave an executed copy at `out/<profile>/<name>`.

    Raises NotebookFailed: before any kernel starts if the notebook's committed form is not clean (see
    nlbook_tools.notebooks.contract), afterwards for a cell error, an error hidden in a widget, a dead kernel, time,
    memory or network.
    """
    path, copy = Path(path), Path(out) / profile / Path(path).name
    nb = read(path)
    asked = plan(nb, path.name, profile)
    if problems := contract.check(nb, path.name):
        raise NotebookFailed(_refused(path.name, "form", problems))
    started = time.perf_counter()
    done, used = execute(nb, path.name, asked, cwd=path.parent, copy=copy, on_cell=on_cell)
    return Run(path, copy, asked, time.perf_counter() - started, used.peak_mb, used.cpu_s, done)


def execute(
    nb: NotebookNode, name: str, asked: Plan, cwd: Path, copy: Path | None = None, on_cell: Progress | None = None
) -> tuple[NotebookNode, Used]:
    """Execute `nb` in an isolated kernel with working directory `cwd`: (executed notebook, what the kernel used).
    Writes `copy`, failed or not."""
    room, watch = Room(), Watch(asked.seconds, asked.memory_mb)
    session = _Session(room, watch, on_cell, len(nb.cells))
    started = time.perf_counter()
    error: Exception | None = None
    try:
        pm.execute_notebook(
            nb,
            None,
            parameters=asked.parameters,
            engine_name="nlbook",
            kernel_name="python3",
            cwd=cwd.resolve(),
            progress_bar=False,
            start_timeout=120,
            session=session,
            kernel_manager_class=manager_for(room, watch),
        )
    except (
        Exception
    ) as e:  # PapermillExecutionError, DeadKernelError, and what zmq raises when a kernel is killed under it
        error = e
    finally:
        watch.stop()
        session.look_for_attempts()
        session.last_words = room.last_words()
        room.close()
    done = session.client.nb if session.client else nb
    if copy:
        copy.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(done, copy)
    if failure := _diagnose(name, session, watch, error, time.perf_counter() - started, copy):
        raise NotebookFailed(failure, time.perf_counter() - started, watch.peak_mb)
    return done, Used(watch.peak_mb, watch.cpu_s)


class _Session:
    """What happens while the cells run: which cell it is now, and what went wrong without failing its cell."""

    def __init__(self, room: Room, watch: Watch, on_cell: Progress | None, cells: int) -> None:
        self.room, self.watch, self.on_cell, self.cells = room, watch, on_cell, cells
        self.client: _Client | None = None
        self.index: int | None = None  # in the executed notebook
        self.last_words = ""
        self.hidden: list[tuple[int | None, str]] = []
        self.attempts: list[tuple[int | None, dict[str, Any]]] = []

    def start(self, cell: NotebookNode, cell_index: int, **_: Any) -> None:
        self.index = cell_index
        self.watch.begin()
        if self.on_cell:
            self.on_cell(self.number(cell_index) or 1, self.cells)

    def look_for_attempts(self, **_: Any) -> None:
        new = self.room.attempts()[len(self.attempts) :]
        self.attempts += [(self.index, a) for a in new]

    def cell(self, index: int | None) -> NotebookNode | None:
        return (
            self.client.nb.cells[index]
            if self.client and index is not None and index < len(self.client.nb.cells)
            else None
        )

    def number(self, index: int | None) -> int | None:
        """The cell's place in the reader's notebook, from 1: papermill's own cells do not count."""
        if index is None or self.client is None:
            return None
        before = self.client.nb.cells[:index]
        return index + 1 - sum(bool(ADDED & set(c.metadata.get("tags", []))) for c in before)


class _Client(PapermillNotebookClient):
    """papermill's client, which also listens for errors that a widget swallows."""

    session_: _Session

    def output(self, outs: Any, msg: dict[str, Any], display_id: str, cell_index: int) -> Any:
        if msg["msg_type"] == "error" and self.output_hook_stack[msg["parent_header"].get("msg_id", "")]:
            text = f"{msg['content']['ename']}: {msg['content']['evalue']}"
            self.session_.hidden.append((cell_index, text))
        return super().output(outs, msg, display_id, cell_index)

    def handle_comm_msg(self, outs: Any, msg: dict[str, Any], cell_index: int) -> None:
        super().handle_comm_msg(outs, msg, cell_index)
        state = msg["content"].get("data", {}).get("state") or {}
        for output in state.get("outputs") or []:  # an Output filled by hand: append_display_data and the like
            if output.get("output_type") == "error":
                self.session_.hidden.append((cell_index, f"{output['ename']}: {output['evalue']}"))
        shown = state.get("value")
        if isinstance(shown, str) and PICTURE_ERROR in shown:
            self.session_.hidden.append((cell_index, re.sub(r"<[^>]+>", "", shown).strip()))


class _Engine(NBClientEngine):
    """papermill's engine with our client in it."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        session: _Session,
        kernel_manager_class: Any,  # type: ignore[override]
        start_timeout: int = 120,
        **_: Any,
    ) -> NotebookNode:
        client = _Client(
            nb_man,
            kernel_name=kernel_name,
            kernel_manager_class=kernel_manager_class,
            startup_timeout=start_timeout,
            timeout=None,
            coalesce_streams=True,
            on_cell_execute=session.start,
            on_cell_executed=session.look_for_attempts,
        )
        client.session_, session.client = session, client
        with open(
            session.room.kernel_log, "wb"
        ) as log:  # what the kernel process says outside its cells: a crash's last words
            return client.execute(stdout=log, stderr=log)


papermill_engines.register("nlbook", _Engine)


def _diagnose(
    name: str, session: _Session, watch: Watch, error: Exception | None, seconds: float, copy: Path | None
) -> Failure | None:
    """The one reason that comes first: a broken budget or the network explains the exception that followed it."""
    index, trace = session.index, ""
    if isinstance(error, pm.PapermillExecutionError):
        index, trace = _failed_cell(session, error), ANSI.sub("", "\n".join(error.traceback))
    if watch.over == "time":
        kind, why = "time", f"still running after its budget of {watch.seconds:g} s"
        todo = (
            "make the cell do less, or raise nlbook.run.<profile>.seconds in the front matter "
            "(a quick run may take 60 s); on a slow machine set NLBOOK_PATIENCE=2"
        )
    elif watch.over == "memory":
        kind, why = (
            "memory",
            f"the kernel used {watch.peak_mb:.0f} MB, its budget is {watch.memory_mb:g} MB; it was killed",
        )
        todo = "make the cell hold less at a time, or raise nlbook.run.<profile>.memory_mb in the front matter"
    elif session.attempts:
        index, attempt = session.attempts[0]
        kind, why = "network", f"the cell tried to reach {attempt['target']} ({attempt['event']})"
        todo = "a notebook has no network: use a set in data/ or make the data; catching the error is no cure"
    elif isinstance(error, pm.PapermillExecutionError):
        kind, why = "cell error", f"{error.ename}: {error.evalue}"
        todo = "mend the cell in its text source (notebooks/src/*.md), then run `nlbook notebooks build`"
        if error.ename == "NotImplementedError":
            todo = "a stub was called: later cells must not depend on the reader's answer; call the library's function"
    elif isinstance(error, DeadKernelError):
        kind, why, trace = "dead kernel", "the kernel died while the cell ran", session.last_words
        todo = (
            "look for a crash in native code or for the machine's memory running out; run the cell alone with "
            f"`python -X faulthandler` to see where (after {seconds:.0f} s, {watch.peak_mb:.0f} MB at most)"
        )
    elif error is not None:
        kind, why = "dead kernel", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        trace, todo = (
            session.last_words,
            "the kernel could not be started or talked to: run `nlbook doctor`, then this notebook alone",
        )
    elif session.hidden:
        index, why = session.hidden[0]
        kind = "widget error"
        todo = (
            "a widget caught this error: the cell passed, the reader sees a broken picture. Call the drawing function "
            "with the same values, mend it, and assert its extremes in tests/"
        )
    else:
        return None
    cell = session.cell(index) or NotebookNode()
    output = "".join(o.get("text", "") for o in cell.get("outputs", []) if o.output_type == "stream")
    return Failure(
        name,
        kind,
        ANSI.sub("", why),
        todo,
        session.number(index),
        session.cells,
        cell.get("source", ""),
        output,
        trace,
        str(copy or ""),
    )


def _failed_cell(session: _Session, error: pm.PapermillExecutionError) -> int | None:
    """Where the failing cell is now: papermill has since put its two error notes before it."""
    cells = session.client.nb.cells if session.client else []
    return next(
        (i for i, c in enumerate(cells) if any(o.output_type == "error" for o in c.get("outputs", []))),
        error.cell_index,
    )


def _refused(name: str, kind: str, problems: list[contract.Problem]) -> Failure:
    first, rest = problems[0], problems[1:]
    more = "".join(f"\n    also, {p.where}: {p.what} -> {p.todo}" for p in rest[:4]) + (
        f"\n    and {len(rest) - 4} more" if len(rest) > 4 else ""
    )
    return Failure(name, kind, f"{first.where}: {first.what}", first.todo + more)


def read(path: Path) -> NotebookNode:
    """The notebook in this file; NotebookFailed if there is none."""
    if not path.is_file():
        raise NotebookFailed(
            Failure(
                path.name, "form", f"there is no file {path}", "check the path; `nlbook run` alone runs the whole book"
            )
        )
    try:
        return nbformat.read(path, 4)
    except Exception as e:
        raise NotebookFailed(
            Failure(
                path.name,
                "form",
                f"not a notebook: {type(e).__name__}: {e}",
                "never merge an .ipynb by hand: take one side and run `nlbook notebooks build`",
            )
        ) from None


def _head(text: str, n: int) -> list[str]:
    lines = text.strip().splitlines()
    return lines[:n] + ([f"… {len(lines) - n} more lines"] if len(lines) > n else [])


def _tail(text: str, n: int) -> list[str]:
    lines = [x for x in text.strip().splitlines() if x.strip()]
    return [x[:200] for x in lines[-n:]]
