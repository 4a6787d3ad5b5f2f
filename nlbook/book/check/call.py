"""Calling a learner's function safely: a time limit, its prints kept, its random numbers seeded, its error in a line.

This guards against accidents (an endless loop, a stray print), not against malice: it is no sandbox.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import linecache
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, TracebackType
from typing import Any

import numpy as np
import torch

from nlbook.book.check.values import scrub


class OutOfTime(BaseException):
    """Raised inside the learner's code at the limit; a BaseException, so that `except Exception` lets it pass.

    A loop around a bare `except:` swallows it, as it swallows Ctrl-C: nothing inside the process can stop that."""


class RemoteError(Exception):
    """An answer that runs in another process failed there: `fault` as in Call, the text as its message."""

    def __init__(self, fault: str, text: str) -> None:
        super().__init__(text)
        self.fault = fault


@dataclass(frozen=True)
class Call:
    """What came of one call. `fault` is "", "untried", "raised" or "time"."""

    value: Any = None
    fault: str = ""
    message: str = ""
    printed: str = ""

    @property
    def words(self) -> str:
        """The fault as the end of a sentence that begins "Your code"."""
        return f"was {self.message}" if self.fault == "time" else f"raised {self.message or 'NotImplementedError'}"


def call(function: Callable[..., Any], args: tuple[Any, ...], seconds: float, seed: int = 0) -> Call:
    """Call `function(*args)` within `seconds`. Only KeyboardInterrupt gets out."""
    out = io.StringIO()
    grad, default = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        with _seeded(seed), contextlib.redirect_stdout(out):
            value = _limited(function, args, seconds)
        return Call(value, printed=out.getvalue()[:1000])
    except KeyboardInterrupt:
        raise
    except RemoteError as error:
        return Call(fault=error.fault, message=str(error), printed=out.getvalue()[:1000])
    except OutOfTime as stop:
        place = str(stop.args[0]) if stop.args else where(function, stop.__traceback__)
        return Call(
            fault="time",
            printed=out.getvalue()[:1000],
            message=(f"stopped after {seconds:.2g} s{place}: an endless loop, or far too many steps"),
        )
    except BaseException as error:
        if _is_stub(error):
            return Call(fault="untried")
        return Call(
            fault="raised",
            printed=out.getvalue()[:1000],
            message=f"{_say(error)}{where(function, error.__traceback__)}",
        )
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(default)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Fixed global random numbers inside, the reader's own untouched after."""
    kept, kept_np = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(kept)
            np.random.set_state(kept_np)  # noqa: NPY002


def _limited(function: Callable[..., Any], args: tuple[Any, ...], seconds: float) -> Any:
    main = threading.current_thread() is threading.main_thread()
    return (_by_signal if main and hasattr(signal, "setitimer") else _by_thread)(function, args, seconds)


def _by_signal(function: Callable[..., Any], args: tuple[Any, ...], seconds: float) -> Any:
    armed = [True]

    def stop(signum: int, frame: Any) -> None:
        if armed:
            raise OutOfTime

    # Somebody else's alarm (pytest-timeout has one) is put back with what is left of it.
    start, old = time.monotonic(), signal.signal(signal.SIGALRM, stop)
    rest, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 0.2)
    try:
        try:
            return function(*args)
        finally:
            armed.clear()  # an alarm that rings from here on is ignored
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old if old is not None else signal.SIG_DFL)
        if rest:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, rest - (time.monotonic() - start)), interval)


def _by_thread(function: Callable[..., Any], args: tuple[Any, ...], seconds: float) -> Any:
    """Where there is no alarm (Windows, another thread): wait, then leave the thread behind."""
    box: dict[str, Any] = {}

    def work() -> None:
        try:
            box["value"] = function(*args)
        except BaseException as error:
            box["error"] = error

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(seconds)
    if worker.is_alive():
        frame = sys._current_frames().get(worker.ident or 0)
        code = code_of(function)
        while frame is not None and frame.f_code is not code:
            frame = frame.f_back
        raise OutOfTime(_line(code, frame.f_lineno) if code and frame else "")
    if "error" in box:
        raise box["error"]
    return box["value"]


def code_of(function: Callable[..., Any]) -> CodeType | None:
    """The bytecode of a function, a method or an object with `__call__`; None for a builtin."""
    try:
        function = inspect.unwrap(function)
        code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    except Exception:
        return None
    return code if isinstance(code, CodeType) else None


def where(function: Callable[..., Any], trace: TracebackType | None) -> str:
    """The last line of the learner's own code that a traceback passed, as ` in line 3: ...`."""
    code = code_of(function)
    found = ""
    while trace is not None:
        if code and trace.tb_frame.f_code.co_filename == code.co_filename:
            found = _line(code, trace.tb_lineno)
        trace = trace.tb_next
    return found


def _line(code: CodeType, number: int) -> str:
    text = linecache.getline(code.co_filename, number).strip()
    text = text if len(text) <= 100 else text[:97] + "..."
    return f" in line {number - code.co_firstlineno + 1}: `{text}`" if text else ""


def _is_stub(error: BaseException) -> bool:
    """Whether the line that raised says `raise NotImplementedError`; torch raises the same for an operator it lacks."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if type(error) is not NotImplementedError or trace is None:
        return False
    file = trace.tb_frame.f_code.co_filename
    line = linecache.getline(file, trace.tb_lineno)  # empty where the source is not to be had
    return (not line or "raise NotImplementedError" in line) and "site-packages" not in file


def _say(error: BaseException) -> str:
    try:
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
    except BaseException:  # a hostile __str__
        first = ""
    kind = type(error).__name__
    article = "an" if kind[0] in "AEIOU" else "a"
    return scrub(f"{article} {kind}" + (f" ({first})" if first else ""))
