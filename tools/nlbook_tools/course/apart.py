"""Judging an answer that lives in another process: it is called there, its results are compared here.

The judge, the private cases and the solutions stay in this process, which never runs a line of the submission;
so nothing
that a submission replaces, patches or prints has a say in its verdict. What it may do to the machine is the
fence's matter
(fence.py).
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

import nlbook
from nlbook.book.check.call import OutOfTime, RemoteError
from nlbook.errors import NLBookError
from nlbook_tools.course import codec, fence, need_posix

CLOSED = ("exercises.py", "answers.py")  # files of a chapter that a submission has no business in
WARM = (
    "torch.fx.experimental.symbolic_shapes",
    "nlbook.memory",
    "nlbook.optim",
    "nlbook.levels",
    "nlbook.cms",
    "nlbook.paper",
)
PASSED_ON = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH")


def reading_list() -> tuple[list[str], list[str], list[str]]:
    """(folders and files to read, folders to list only, folders that stay shut)."""
    package = Path(nlbook.__file__).resolve().parent
    book, tools = package / "book", Path(__file__).resolve().parents[1]
    shut = [str(book / "check"), str(tools)]
    shut += [str(p) for name in CLOSED for p in (book / "chapters").glob(f"*/{name}")]
    readable, listed = (
        [sysconfig.get_path("stdlib"), sys.base_prefix + "/lib", sys.prefix + "/pyvenv.cfg"],
        [str(package)],
    )
    for name in dict.fromkeys(sys.path):
        if not name or not os.path.isdir(name):
            continue
        if package.is_relative_to(Path(name).resolve()):  # nlbook lies here: everything beside it, and its open rooms
            listed.append(name)
            inside = package.relative_to(Path(name).resolve()).parts
            if len(inside) == 1 and "site-packages" in name:
                readable += [str(p) for p in Path(name).iterdir() if p.name != package.name]
        else:
            readable.append(name)
    chapters = book / "chapters"
    for folder in (package, book, chapters, *(p for p in chapters.iterdir() if p.is_dir())):
        listed.append(str(folder))
        readable += [
            str(p)
            for p in folder.iterdir()
            if str(p) not in shut and p not in (book, chapters) and not (folder == chapters and p.is_dir())
        ]
    readable += [str(package.parent / "kernels" / "nlkernels"), str(package.parent / "data")]
    return [p for p in readable if os.path.exists(p)], listed, shut


class Mould:
    """The worker: started once, forked for each exercise. A context manager."""

    def __init__(self, memory_mb: float = 3000, cpu_seconds: int = 120) -> None:
        need_posix()
        self.memory_mb = memory_mb
        self._room = tempfile.TemporaryDirectory(prefix="nlb-grade", ignore_cleanup_errors=True)
        readable, listed, shut = reading_list()
        settings = {
            "path": [p for p in sys.path if p],
            "scratch": self._room.name,
            "readable": readable,
            "listed": listed,
            "closed": shut,
            "modules": ["nlbook.book.check", "nlbook_tools"],
            "cpu_seconds": cpu_seconds,
            "warm": WARM,
        }
        self._control, theirs = socket.socketpair()
        env = {k: os.environ[k] for k in PASSED_ON if k in os.environ}
        env |= {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "MPLBACKEND": "agg",
            "HOME": self._room.name,
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        worker = Path(__file__).with_name("worker.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(worker), str(theirs.fileno()), json.dumps(settings)],
            pass_fds=[theirs.fileno()],
            env=env,
            cwd=self._room.name,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        if codec.exactly(self._control, 8, None, self._alive) != b"ready---":
            raise NLBookError("grading: the worker did not start, expected it to import torch")

    def _alive(self) -> None:
        if self._process.poll() is not None:
            raise NLBookError(
                f"grading: the worker ended with code {self._process.returncode}, expected it to wait for work"
            )

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A fork for one exercise; killed at the end, whatever it is doing."""
        mine, theirs = socket.socketpair()
        socket.send_fds(self._control, [b"F"], [theirs.fileno()])
        theirs.close()
        pid = int.from_bytes(codec.exactly(self._control, 8, time.monotonic() + 30, self._alive), "big")
        try:
            yield Session(mine, pid, self.memory_mb)
        finally:
            for end in (lambda: os.killpg(pid, signal.SIGKILL), lambda: os.kill(pid, signal.SIGKILL)):
                with contextlib.suppress(OSError):
                    end()
            mine.close()
            self._control.sendall(b"R")

    def close(self) -> None:
        self._control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._room.cleanup()

    def __enter__(self) -> Mould:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Session:
    """One fork. Every question has a time limit; one that is not answered in time, or not in order, ends the
    session.
    """

    def __init__(self, sock: socket.socket, pid: int, memory_mb: float) -> None:
        self._sock, self.pid, self._memory_mb = sock, pid, memory_mb
        self.notes: list[str] = []
        self.seconds = 10.0
        self._broken = ""
        self._kept = 0
        self._look_at = 0.0

    def ask(self, do: str, values: Sequence[Any] = (), **more: Any) -> dict[str, Any]:
        """Send a question and wait for the answer.

        Raises:
            RemoteError: the code raised, ended its process or used too much memory. OutOfTime: no answer in time.
        """
        if self._broken:
            raise RemoteError("raised", self._broken)
        try:
            codec.send(self._sock, {"do": do, "values": list(values), **more})
            answer = codec.receive(self._sock, self.seconds, self._look)
            fault = answer.get("error")
            if fault is not None and not isinstance(fault, str):
                raise codec.Broken("an answer that cannot be read")
        except TimeoutError:
            self._broken = "a process that did not answer"
            raise OutOfTime("") from None
        except (codec.Broken, ConnectionError, OSError) as error:
            self._broken = f"an exit: {error}" if "ended" in str(error) else str(error)
            raise RemoteError("raised", self._broken) from None
        except OutOfTime:  # the judge's own alarm: whatever comes back later is not for the next question
            self._broken = "a process that did not answer"
            raise OutOfTime("") from None
        self.notes += [n for n in map(str, answer.get("notes", [])) if n not in self.notes and len(self.notes) < 20]
        if printed := str(answer.get("printed", ""))[:1000]:
            print(printed, end="")
        if fault is not None:
            raise RemoteError("untried" if answer.get("untried") is True else "raised", str(fault)[:400])
        return answer

    def _look(self) -> None:
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + 0.1
        try:
            used = psutil.Process(self.pid).memory_info().rss / 2**20
        except psutil.Error:
            return
        if used > self._memory_mb:
            os.kill(self.pid, signal.SIGKILL)
            self._broken = f"an exit: it used more than {self._memory_mb:.0f} MB"
            raise RemoteError("raised", self._broken)

    def answer(self, name: str) -> Any:
        """What the submission calls `name`: a value, None where there is none, or a function that is called
        over there.
        """
        told = self.ask("describe", name=name)
        kind = told.get("kind")
        if kind == "missing":
            return None
        if kind == "class":
            return type("answer", (), {})
        return Function(self, name, told.get("parameters")) if kind == "function" else told["values"][0]


class Function:
    """A function of the submission, callable here: arguments go there, results come back, gradients too."""

    def __init__(self, session: Session, name: str, parameters: Any) -> None:
        self.session, self.__name__ = session, name
        try:
            given = [
                inspect.Parameter(
                    str(n), inspect._ParameterKind(int(k)), default=None if d else inspect.Parameter.empty
                )
                for n, k, d in parameters
            ]
            self.__signature__ = inspect.Signature(given)
        except (TypeError, ValueError):  # a builtin, or nonsense: the call will tell
            self.__signature__ = inspect.Signature([inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)])

    def __call__(self, *args: Any, **named: Any) -> Any:
        if named:
            args = self.__signature__.bind(*args, **named).args
        inputs = [a for a in args if isinstance(a, Tensor) and a.requires_grad] if torch.is_grad_enabled() else []
        self.session._kept += 1
        keep = self.session._kept if inputs else None
        plain = [
            a.detach().requires_grad_(bool(inputs) and a.requires_grad) if isinstance(a, Tensor) else a for a in args
        ]
        told = self.session.ask("call", plain, name=self.__name__, keep=keep)
        value, *after = told["values"]
        for i, now in zip(told.get("changed", []), after):
            if isinstance(i, int) and 0 <= i < len(args):
                _change(args[i], now)
        return _with_gradient(self.session, value, inputs, keep) if inputs else _detached(value)

    def play(self, grid: Sequence[int], values: Sequence[Any], out: int) -> tuple[Tensor, dict[str, int]]:
        """Launch it as a kernel: what was written, and the counts of loads and stores."""
        told = self.session.ask("play", values, name=self.__name__, grid=[int(g) for g in grid], out=out)
        written, counts = told["values"]
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


def _each(value: Any, do: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, Tensor):
        return do(value)
    if isinstance(value, (tuple, list)):
        return type(value)(_each(v, do) for v in value)
    return {k: _each(v, do) for k, v in value.items()} if isinstance(value, dict) else value


def _detached(value: Any) -> Any:
    return _each(value, lambda t: t.detach())


class _Remote(torch.autograd.Function):
    """Hands its values on; on the way back the gradient is asked for over there."""

    @staticmethod
    def forward(ctx: Any, ask: Any, values: Any, *inputs: Tensor) -> Any:
        ctx.ask = ask
        return tuple(v.detach().clone() for v in values)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return (None, None, *ctx.ask(grads))


def _with_gradient(session: Session, value: Any, inputs: list[Tensor], keep: int | None) -> Any:
    """The value, its tensors tied to the inputs where they are over there; one that was cut there is cut here."""
    found: list[Tensor] = []
    _each(value, found.append)
    tied = [t.requires_grad for t in found]
    if not any(tied):
        return _detached(value)

    def ask(grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        mine = iter(grads)
        back = session.ask("backward", [next(mine) if yes else None for yes in tied], keep=keep)["values"]
        return [b if isinstance(b, Tensor) and b.shape == i.shape else None for b, i in zip(back, inputs)]

    made = iter(_Remote.apply(ask, [t for t, yes in zip(found, tied) if yes], *inputs))  # type: ignore[no-untyped-call]
    which = iter(tied)
    return _each(value, lambda t: next(made) if next(which) else t.detach())


def fences() -> str:
    """Which fences stand on this machine, in words."""
    version = fence.landlock_version()
    return (
        f"Landlock {version} and Python's audit hook"
        if version
        else "Python's audit hook only (this kernel has no Landlock)"
    )
