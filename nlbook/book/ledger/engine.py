"""Running cells: several at once, each kept in a file of its own as it ends, so that a killed run goes on where it was.

    found = run(cells, jobs=2)      # cell name -> Outcome

A kept result is used again while the code below the cell's function and its settings are the same.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nlbook.book.ledger.code import code_hash
from nlbook.book.ledger.row import Cell
from nlbook.errors import need

CACHE = "NLBOOK_LEDGER_CACHE"


@dataclass(frozen=True)
class Outcome:
    """What became of a cell. error: the last lines of a failed one, else None. cpu: seconds of processor time."""

    numbers: dict[str, float] = field(default_factory=dict)
    cpu: float = 0.0
    error: str | None = None
    cached: bool = False


def cache_folder(folder: str | Path | None = None) -> Path:
    """The folder given, else the one of the environment variable NLBOOK_LEDGER_CACHE, else .nlbook/ledger here."""
    return Path(folder or os.environ.get(CACHE) or Path(".nlbook") / "ledger")


def settings_hash(cell: Cell) -> str:
    """Twelve hex digits of what is run: the function's name and its settings."""
    text = json.dumps([cell.function, cell.settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def cell_file(cell: Cell, folder: Path) -> Path:
    return folder / f"{settings_hash(cell)}-{code_hash(cell.function)}.json"


def kept(cell: Cell, folder: Path) -> Outcome | None:
    """The result of an earlier run of the same cell with the same code; failures are not kept."""
    try:
        found = json.loads(cell_file(cell, folder).read_text(encoding="utf-8"))
        return Outcome({k: float(v) for k, v in found["numbers"].items()}, found["cpu"], cached=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def keep(cell: Cell, outcome: Outcome, folder: Path) -> None:
    """Write a result as a whole: a kill leaves no half file."""
    file = cell_file(cell, folder)
    folder.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(
        json.dumps({"cell": asdict(cell), "numbers": outcome.numbers, "cpu": outcome.cpu}, indent=1, sort_keys=True)
        + "\n",
        encoding="utf-8",
    )
    os.replace(part, file)


def do(cell: Cell) -> Outcome:
    """Run one cell here, on one thread. A failure is an outcome, not an exception."""
    import torch

    module, name = cell.function.split(":")
    threads, began = torch.get_num_threads(), time.process_time()
    torch.set_num_threads(1)  # the same sums in the same order on every machine
    try:
        got = getattr(importlib.import_module(module), name)(**cell.settings)
        numbers = {str(k): float(v) for k, v in got.items()}
        need(bool(numbers), "numbers", got, "at least one float")
        if wrong := [k for k, v in numbers.items() if math.isnan(v)]:
            raise ValueError(f"no number came out for {', '.join(wrong)}")
        return Outcome(numbers, round(time.process_time() - began, 2))
    except Exception:
        return Outcome(cpu=round(time.process_time() - began, 2), error=traceback.format_exc(limit=-3))
    finally:
        torch.set_num_threads(threads)


def run(
    cells: Sequence[Cell],
    *,
    jobs: int = 1,
    folder: str | Path | None = None,
    fresh: bool = False,
    on_end: Callable[[Cell, Outcome], None] | None = None,
) -> list[Outcome]:
    """The outcome of every cell, in their order.

    jobs: processes; 1 runs them here, one after the other. folder: where results are kept (`cache_folder`).
    fresh: run again what is kept. on_end: called here with each cell as it ends.
    """
    need(isinstance(jobs, int) and jobs >= 1, "jobs", jobs, "an int >= 1")
    place = cache_folder(folder)
    outcomes: dict[int, Outcome] = {}

    def ended(i: int, outcome: Outcome) -> None:
        outcomes[i] = outcome
        if outcome.error is None and not outcome.cached:
            keep(cells[i], outcome, place)
        if on_end is not None:
            on_end(cells[i], outcome)

    for i, cell in enumerate(cells):
        if not fresh and (old := kept(cell, place)) is not None:
            ended(i, old)
    todo = [i for i in range(len(cells)) if i not in outcomes]
    if jobs == 1 or len(todo) <= 1:
        for i in todo:
            ended(i, do(cells[i]))
    else:
        _run_apart(cells, todo, jobs, ended)
    return [outcomes[i] for i in range(len(cells))]


def _run_apart(cells: Sequence[Cell], todo: list[int], jobs: int, ended: Callable[[int, Outcome], None]) -> None:
    """In processes of their own. One that dies (out of memory) breaks the pool: what has not ended then gets a second
    try alone, and only the cell that kills again has failed.
    """
    for i in _until_broken(cells, todo, jobs, ended):
        if _until_broken(cells, [i], 1, ended):
            ended(i, Outcome(error="the process died while it ran this cell: out of memory?\n"))


def _until_broken(
    cells: Sequence[Cell], todo: list[int], jobs: int, ended: Callable[[int, Outcome], None]
) -> list[int]:
    """Run `todo`; returns what had not ended when a process died."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_quietly) as pool:
        flying = {pool.submit(do, cells[i]): i for i in todo}
        try:
            for future in as_completed(flying):
                outcome = future.result()
                ended(flying.pop(future), outcome)
        except BrokenProcessPool:
            pass
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return list(flying.values())


def _quietly() -> None:
    os.environ["TQDM_DISABLE"] = "1"  # the bar over cells is enough
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()


def _leave_with(parent: int) -> None:
    """End this process soon after its parent was killed: it would wait for work forever."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
