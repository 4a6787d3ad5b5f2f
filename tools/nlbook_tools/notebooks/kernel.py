"""The kernel that the runner starts: always this interpreter, no network, and a watch over its time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

GUARD = Path(__file__).parent / "guard"
FIXED = {
    "OMP_NUM_THREADS": "1",  # parallel jobs must not fight, and sums keep their order
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    "PYTHONUTF8": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # what the reader has; agg hides broken displays
    "TQDM_DISABLE": "1",  # a bar shows seconds, and seconds differ from run to run
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "PYTHONFAULTHANDLER": "1",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    # A proxy on loopback would be a way round the guard.
    **{name: "" for n in ("http_proxy", "https_proxy", "all_proxy") for name in (n, n.upper())},
}


class Room:
    """The temporary folder of one run, whose cells work in `work`: sockets, the reader's store, IPython's profile, and
    what the guard wrote down."""

    def __init__(self, work: Path | None = None) -> None:
        self._dir = tempfile.TemporaryDirectory(prefix="nlb", ignore_cleanup_errors=True)
        self.path = Path(self._dir.name)
        self.work = work or self.path
        self.guard_log = self.path / "guard.jsonl"
        self.kernel_log = self.path / "kernel.log"
        (self.path / "matplotlibrc").touch()

    def env(self) -> dict[str, str]:
        """What differs from this process's environment in the kernel."""
        inherited = os.environ.get("PYTHONPATH")
        temporary = os.environ.get("TMPDIR") or tempfile.gettempdir()
        folders = [self.path, self.work, Path(temporary), Path("/dev"), Path("/proc")]
        return {
            **FIXED,
            "PYTHONPATH": os.pathsep.join([str(GUARD), *([inherited] if inherited else [])]),
            "NLBOOK_GUARD_LOG": str(self.guard_log),
            "NLBOOK_GUARD_FOLDERS": os.pathsep.join(str(f.resolve()) for f in folders),
            "NLBOOK_STORE": str(self.path / "store"),
            "IPYTHONDIR": str(self.path / "ipython"),  # no start-up files of the user's
            "MATPLOTLIBRC": str(self.path / "matplotlibrc"),  # nor their style
        }

    def findings(self) -> list[dict[str, str]]:
        """What the guard wrote down so far, in order: kind (network, files, thread, task) and what."""
        if not self.guard_log.exists():
            return []
        return [json.loads(line) for line in self.guard_log.read_text().splitlines()]

    def left_running(self) -> list[tuple[int, str]]:
        """Kill what outlives the kernel, daemons too: whatever carries our environment. Their ids and programs."""
        for _ in range(20):  # a helper of a library needs a moment to notice that its kernel is gone
            found = [p for p in psutil.process_iter() if self._started(p)]
            if not found:
                return []
            time.sleep(0.1)
        named = [(p.pid, p.name()) for p in found]
        kill(found)
        return named

    def _started(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error, OSError):
            return process.environ().get("NLBOOK_GUARD_LOG") == str(self.guard_log)
        return False

    def last_words(self) -> str:
        """What the kernel process wrote outside its cells: the fault handler's dump, when it crashed."""
        return self.kernel_log.read_text(errors="replace") if self.kernel_log.exists() else ""

    def close(self) -> None:
        self._dir.cleanup()


class SlicedPoll(AsyncZMQSocketChannel):
    """A shell channel that never sleeps through its reply.

    nbclient sends Output-widget state on the shell socket while it awaits a reply there; zmq's edge-triggered wake-up
    is then sometimes lost, and the cell stalls until its time-out (nbclient #312, nbconvert #2029). Polling in short
    slices finds the reply.
    """

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:  # type: ignore[override]
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 0.1 if end is None else min(0.1, max(0.0, end - time.monotonic()))
            if await self.socket.poll(int(left * 1000)):  # type: ignore[union-attr]
                return await self._recv()
            if end is not None and time.monotonic() >= end:
                raise queue.Empty


def manager_for(room: Room, watch: Watch) -> type[AsyncKernelManager]:
    """A kernel manager class, as nbclient wants one, bound to one run's room and watch."""

    class ThisInterpreter(KernelSpecManager):
        """Every kernel name means `sys.executable`: no kernelspec lying about can hijack a run."""

        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(
                argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                display_name="this interpreter",
                language="python",
                env=room.env(),
            )

    class IsolatedKernelManager(AsyncKernelManager):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.kernel_spec_manager = ThisInterpreter()
            self.connection_file = str(room.path / "kernel.json")
            if os.name == "posix":  # unix sockets in a folder of our own: no race for ports between parallel runs
                self.transport = "ipc"
                self.ip = str(room.path / "s")

        def client(self, **kwargs: Any) -> Any:
            client = super().client(**kwargs)
            client.shell_channel_class = SlicedPoll
            return client

        async def _async_post_start_kernel(self, **kwargs: Any) -> None:
            await super()._async_post_start_kernel(**kwargs)
            watch.start(self.provisioner.pid)  # type: ignore[union-attr]

    return IsolatedKernelManager


STOP = threading.Event()  # set: every watched kernel is killed, also one that starts later


class Watch:
    """Looks at the kernel's process tree ten times a second; interrupts what is over time, kills what is over memory.

    Over time the kernel first gets an interrupt, so that the traceback shows where it hung, and is killed two seconds
    later if that did not help. `over` says which budget was broken ("time", "memory" or None); `peak_mb` is the largest
    resident size seen, `cpu_s` the processor time that the tree had used at the last look.
    """

    GRACE_S = 2.0

    def __init__(self, seconds: float, memory_mb: float) -> None:
        self.seconds, self.memory_mb = seconds, memory_mb
        self.peak_mb = 0.0
        self.cpu_s = 0.0
        self.over: str | None = None
        self._end: float | None = None
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, pid: int) -> None:
        """Watch this kernel from now on."""
        if self._thread is None:  # a kernel is started once; nothing restarts it
            self._thread = threading.Thread(target=self._look, args=(pid,), daemon=True)
            self._thread.start()

    def begin(self) -> None:
        """The first cell starts: the clock runs from here, the start of the kernel is not the notebook's fault."""
        if self._end is None:
            self._end = time.monotonic() + self.seconds

    def stop(self) -> None:
        """Look no more."""
        self._done.set()
        if self._thread:
            self._thread.join()

    def _look(self, pid: int) -> None:
        try:
            kernel = psutil.Process(pid)
            while not self._done.wait(0.1):
                tree = [kernel, *kernel.children(recursive=True)]
                if STOP.is_set():
                    kill(tree)
                    return
                self.cpu_s = max(self.cpu_s, sum(map(_cpu_s, tree)))
                self.peak_mb = max(self.peak_mb, sum(map(_resident_mb, tree)), _high_water_mb(pid))
                if self.peak_mb > self.memory_mb:
                    self.over = self.over or "memory"
                    kill(tree)
                    return
                late = time.monotonic() - self._end if self._end is not None else 0.0
                if self.over is None and late > 0:
                    self.over = "time"
                    kernel.send_signal(signal.SIGINT)
                elif self.over == "time" and late > self.GRACE_S:
                    kill(tree)
                    return
        except psutil.NoSuchProcess:
            return


def _resident_mb(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        return process.memory_info().rss / 2**20
    return 0.0


def _high_water_mb(pid: int) -> float:
    """Linux's own record of the process's largest resident size: sees the peaks between two looks. 0.0 elsewhere."""
    with contextlib.suppress(OSError, StopIteration):
        line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return 0.0


def _cpu_s(process: psutil.Process) -> float:
    """Processor seconds of a process, in its own code and the system's, and of children that it has waited for."""
    with contextlib.suppress(psutil.Error):
        t = process.cpu_times()
        return float(t.user + t.system + getattr(t, "children_user", 0.0) + getattr(t, "children_system", 0.0))
    return 0.0


def kill(tree: Sequence[psutil.Process]) -> None:
    """Kill these processes, children first; the ones already gone are fine."""
    for process in reversed(tree):
        with contextlib.suppress(psutil.Error):
            process.kill()
