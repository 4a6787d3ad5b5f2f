"""Many notebooks at once, each in a process of its own: papermill changes the working directory of the whole
process."""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from nlbook_tools.notebooks import sync
from nlbook_tools.notebooks.run import Failure, NotebookFailed, plan, read, run

OnCell = Callable[[str, int, int], None]  # notebook, cell, of how many


@dataclass(frozen=True)
class Job:
    """One notebook to run; with `source` set, one notebook to build from that text instead."""

    path: Path
    out: Path = Path("build/executed")
    profile: str = "quick"
    source: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a job. A failed one has its report in `failure`."""

    name: str
    seconds: float
    peak_mb: float
    budget_s: float | None
    budget_mb: float | None
    failure: Failure | None = None
    cpu_s: float = 0.0


def run_all(jobs: list[Job], workers: int = 1, on_cell: OnCell | None = None) -> Iterator[Outcome]:
    """Do every job and yield its Outcome as it ends. `on_cell` is called in this process, whoever runs the cell."""
    if workers <= 1 or len(jobs) == 1:
        for job in jobs:
            yield do(job, on_cell)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy zmq's threads in mid-air
    events = context.Queue()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_remember, initargs=(events,)) as pool:
        waiting: dict[Future[Outcome], Job] = {pool.submit(_do_and_tell, job): job for job in jobs}
        while waiting:
            _pass_on(events, on_cell)
            for future in [f for f in waiting if f.done()]:
                yield _result(future, waiting.pop(future))


def do(job: Job, on_cell: OnCell | None = None) -> Outcome:
    """One job, here and now. Never raises for a notebook's fault."""
    name, started = job.path.name, time.perf_counter()
    asked = None
    tell = (lambda cell, cells: on_cell(name, cell, cells)) if on_cell else None
    try:
        if job.source is None:
            asked = plan(read(job.path), name, job.profile)
            done = run(job.path, job.out, job.profile, on_cell=tell)
            return Outcome(name, done.seconds, done.peak_mb, asked.seconds, asked.memory_mb, None, done.cpu_s)
        asked = plan(sync.read_text(job.source), name)
        _, used = sync.build(job.source, job.path, copy=job.out / "build" / name, on_cell=tell)
        seconds = time.perf_counter() - started
        return Outcome(name, seconds, used.peak_mb, asked.seconds, asked.memory_mb, None, used.cpu_s)
    except sync.SourceError as e:
        said, _, todo = str(e).partition(": ")
        return Outcome(name, time.perf_counter() - started, 0.0, None, None, Failure(name, "text", said, todo))
    except NotebookFailed as e:
        budget_s, budget_mb = (asked.seconds, asked.memory_mb) if asked else (None, None)
        return Outcome(name, time.perf_counter() - started, e.peak_mb, budget_s, budget_mb, e.failure)


_events: Any = None  # the queue to the parent, in a worker


def _remember(events: Any) -> None:
    global _events
    _events = events


def _do_and_tell(job: Job) -> Outcome:
    return do(job, lambda *event: _events.put(event))


def _pass_on(events: Any, on_cell: OnCell | None) -> None:
    try:
        while True:
            event = events.get(timeout=0.1)
            if on_cell:
                on_cell(*event)
    except queue.Empty:
        return


def _result(future: Future[Outcome], job: Job) -> Outcome:
    try:
        return future.result()
    except Exception as e:  # the worker itself was killed: nothing of the notebook's report survived
        failure = Failure(
            job.path.name,
            "dead runner",
            f"{type(e).__name__}: {e}",
            "the machine may be out of memory: run with fewer --jobs",
        )
        return Outcome(job.path.name, 0.0, 0.0, None, None, failure)


def table(outcomes: list[Outcome]) -> str:
    """The outcomes as aligned lines: notebook, seconds of its budget, peak MB of its budget, status."""

    def of(value: float, budget: float | None) -> str:
        return f"{value:.0f} / {budget:g}" if budget else f"{value:.0f} / ?"

    rows = [("notebook", "seconds", "peak MB", "status")]
    rows += [
        (
            o.name,
            of(o.seconds, o.budget_s),
            of(o.peak_mb, o.budget_mb),
            o.failure.kind.upper() if o.failure else "passed",
        )
        for o in sorted(outcomes, key=lambda o: o.name)
    ]
    width = [max(len(r[i]) for r in rows) for i in range(4)]
    return "\n".join(f"{a:<{width[0]}}  {b:>{width[1]}}  {c:>{width[2]}}  {d}" for a, b, c, d in rows)


def write_junit(outcomes: list[Outcome], path: Path) -> None:
    """The outcomes as a JUnit file, which CI systems show."""
    suite = ElementTree.Element(
        "testsuite",
        name="notebooks",
        tests=str(len(outcomes)),
        failures=str(sum(o.failure is not None for o in outcomes)),
    )
    for o in outcomes:
        case = ElementTree.SubElement(suite, "testcase", classname="notebooks", name=o.name, time=f"{o.seconds:.2f}")
        if o.failure:
            ElementTree.SubElement(case, "failure", message=f"{o.failure.kind}: {o.failure.why}").text = str(o.failure)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)
