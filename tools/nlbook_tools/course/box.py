"""One submission in its process, and its functions as the judge calls them.

The judge, the private cases and the solutions stay on this side. It sends one set of arguments at a time and compares
what comes back, so nothing that a submission replaces, patches or prints has a say in its verdict.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from torch import Tensor

from nlbook.book.check.call import OutOfTime, RemoteError
from nlbook.book.check.functions import floats, weights
from nlbook_tools.course import border, fence


class Box:
    """One process with one submission in it: a context manager. What comes out of it is data of exact types.

    A question that is not answered in time and in order ends the box, with all that it started; `fault` then says why.
    """

    def __init__(self, room: Path, trusted: bool = False) -> None:
        self._sock, theirs = socket.socketpair()
        self._scratch = tempfile.TemporaryDirectory(prefix="nlbook-scratch-") if trusted else None
        how: dict[str, Any] = {"stdin": theirs.fileno(), "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        words = [sys.executable, "-s", "-P", "-B", f"{room if trusted else fence.BOOK}/worker.py"]
        if self._scratch is None:
            self._process = fence.start(room, [*words, json.dumps(fence.LIMITS)], **how)
        else:
            env = fence.ENVIRONMENT | {"PYTHONPATH": str(room), "HOME": self._scratch.name}
            self._process = subprocess.Popen([*words, "{}"], env=env, cwd=self._scratch.name, **how)
        theirs.close()
        with contextlib.suppress(OSError):  # where memory runs out, the kernel ends the submission first
            Path(f"/proc/{self._process.pid}/oom_score_adj").write_text("1000")
        self.notes: list[str] = []
        self.fault, self.seconds, self.end = "", 120.0, float("inf")
        self._looked, self._started = 0.0, False

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Send a question and wait for the answer, at most `seconds` and not past `end`.

        Raises:
            RemoteError: the code raised, ended its process, used too much, or did not answer in time.
        """
        if self.fault:
            raise RemoteError("raised", self.fault)
        try:
            if not self._started:  # it imports torch before it reads
                border.receive(self._sock, 300, self._look)
                self._started = True
            began = time.monotonic()
            seconds = min(self.seconds, self.end - began)
            border.send(self._sock, {"do": do, **more}, max(0.01, seconds))
            answer = border.receive(self._sock, seconds, self._look)
            notes = [border.clean(n)[:200] for n in answer.get("notes", [])[:20]]
            fault = None if answer.get("error") is None else border.clean(answer["error"])[:400]
        except (TimeoutError, OutOfTime):  # its own limit, or the judge's alarm
            self.close("a process that did not answer")
            spent = f"stopped after {time.monotonic() - began:.1f} s: an endless loop, or far too many steps"
            raise RemoteError("time", spent) from None
        except (border.Broken, OSError, TypeError) as error:
            self.close(f"an exit: {error}" if "ended" in str(error) else f"no plain answer: {error}")
            raise RemoteError("raised", self.fault) from None
        self.notes += [n for n in notes if n not in self.notes]
        if fault is not None:
            raise RemoteError("untried" if answer.get("untried") is True else "raised", fault)
        return answer

    def _look(self) -> None:
        """Ten times a second: the memory and the number of all its processes, and the number of its files."""
        if time.monotonic() < self._looked + 0.1:
            return
        self._looked = time.monotonic()
        used, family = 0, []
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(self._process.pid).children(recursive=True)
        for process in family:
            with contextlib.suppress(psutil.Error):
                used += process.memory_info().rss
        if used > fence.MEMORY:
            raise border.Broken(f"its process was ended: it used more than {fence.MEMORY // fence.MB} MB")
        if len(family) > fence.PROCESSES:
            raise border.Broken(f"its process was ended: it started more than {fence.PROCESSES} processes")
        with contextlib.suppress(OSError, IndexError):
            place = Path("/proc", str(family[-1].pid), "root", "tmp")
            inside = place.stat().st_dev != Path("/tmp").stat().st_dev  # its root is ours while it starts
            scratch = os.statvfs(place)
            if inside and self._scratch is None and scratch.f_files - scratch.f_ffree > fence.FILES:
                raise border.Broken(f"its process was ended: it made more than {fence.FILES} files")

    def close(self, fault: str = "closed") -> None:
        self.fault = self.fault or fault
        self._process.kill()  # the sandbox's first process dies with it, and the kernel ends all others
        self._process.wait()
        self._sock.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self, name: str) -> Any:
        """What the submission calls `name`: a value, None where there is none, or a function that is called there."""
        told = self.ask("describe", name=name)
        if told.get("kind") == "function":
            return Function(self, name, told.get("parameters"))
        if told.get("kind") == "class":
            return type("answer", (), {})
        if told.get("kind") not in ("value", "missing"):  # a line of its own came between question and answer
            self.close("no plain answer: of an unknown kind")
            raise RemoteError("raised", self.fault)
        return self.read(told) if told["kind"] == "value" else None

    def read(self, answer: dict[str, Any], key: str = "value") -> Any:
        """The value in an answer; nonsense ends the box."""
        try:
            return border.unpack(answer.get(key))
        except border.Broken as error:
            self.close(f"no plain answer: {error}")
            raise RemoteError("raised", self.fault) from None


@contextlib.contextmanager
def boxes(room: Path, trusted: bool = False) -> Iterator[Callable[[], Box]]:
    """A function that gives a new box; the one after it starts meanwhile."""
    waiting = [Box(room, trusted)]

    def take() -> Box:
        waiting.append(Box(room, trusted))
        return waiting.pop(0)

    try:
        yield take
    finally:
        waiting[0].close()


class Function:
    """A function of the submission, callable here: arguments go there, results come back."""

    def __init__(self, box: Box, name: str, parameters: Any) -> None:
        self.box, self.__name__ = box, name
        kinds = inspect.Parameter
        try:
            given = [
                kinds(str(n), inspect._ParameterKind(int(k)), default=None if optional else kinds.empty)
                for n, k, optional in parameters
            ]
            self.__signature__ = inspect.Signature(given)
        except (TypeError, ValueError):  # a builtin, or nonsense: the call will tell
            self.__signature__ = inspect.Signature([kinds("args", kinds.VAR_POSITIONAL)])

    def _ask(self, do: str, args: Sequence[Any], **more: Any) -> dict[str, Any]:
        return self.box.ask(do, name=self.__name__, args=[border.pack(a) for a in args], **more)

    def __call__(self, *args: Any, **named: Any) -> Any:
        if named:
            args = self.__signature__.bind(*args, **named).args
        told = self._ask("call", args)
        for i, now in self.box.read(told, "changed"):
            if type(i) is int and 0 <= i < len(args):
                _change(args[i], now)
        return self.box.read(told)

    def gradient(self, args: Sequence[Any], at: Sequence[int]) -> list[Tensor | None]:
        """The gradient of its weighted output in some arguments, worked out over there; see `gradient_of`."""
        parts = floats(self(*args))
        told = self._ask("gradient", args, at=list(at), weights=[border.pack(weights(p)) for p in parts])
        came = self.box.read(told)
        good = isinstance(came, list) and len(came) == len(at)
        pairs = zip(came, at) if good else ()
        fit = [g if isinstance(g, Tensor) and g.shape == args[i].shape else None for g, i in pairs]
        return fit or [None] * len(at)

    def play(self, grid: Sequence[int], values: Sequence[Any], out: int) -> tuple[Any, Any]:
        """Launch it as a kernel: what was written, and the counts of loads and stores."""
        written, counts = self.box.read(self._ask("play", values, grid=[int(g) for g in grid], out=out))
        if set(counts) != {"loads", "stores"} or any(type(n) is not int or n < 0 for n in counts.values()):
            raise RemoteError("raised", "counts that are none")
        return written, counts


def _change(mine: Any, now: Any) -> None:
    """The argument was changed in place over there: so it is here."""
    if isinstance(mine, Tensor) and isinstance(now, Tensor) and mine.shape == now.shape:
        mine.data.copy_(now)
    elif isinstance(mine, list) and isinstance(now, list):
        mine[:] = now
    elif isinstance(mine, dict) and isinstance(now, dict):
        mine.clear()
        mine.update(now)
