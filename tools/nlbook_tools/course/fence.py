"""The sandbox of a submission: bubblewrap around one process, which sees the library and an empty folder, no more.

The process sees a read-only copy of nlbook and nlkernels without exercises, answers and checks, the folders of the
interpreter, and a scratch folder in memory. It has no network, no other process and no file of the machine in its
sight, not even the submitted notebook: the judge sends it cells, one at a time (box.py).
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nlkernels

import nlbook
from nlbook.book.data import folder as data_folder
from nlbook.errors import NLBookError

MB = 1 << 20
MEMORY, SCRATCH, FILES, PROCESSES = 2500 * MB, 64 * MB, 10_000, 32  # of all processes of a submission together
LIMITS = {"CORE": 0, "FSIZE": 16 * MB, "NOFILE": 128, "NPROC": PROCESSES, "CPU": 120, "DATA": MEMORY}  # of each
BOOK = "/book"  # where the sandbox has the library
LEFT_OUT = shutil.ignore_patterns("__pycache__", "exercises.py", "answers.py")
ENVIRONMENT = {
    "HOME": "/tmp",
    "USER": "student",
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "MPLBACKEND": "agg",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}
TWO_WAYS = (
    "grade in the container (one command in notebooks/teaching/grading.md), "
    "or with --trusted if every submission is your own"
)


@contextlib.contextmanager
def shelf() -> Iterator[Path]:
    """A folder with what submissions may see of the book, and the worker; gone at the end."""
    here, package = Path(__file__).parent, Path(nlbook.__file__).parent
    with tempfile.TemporaryDirectory(prefix="nlbook-grade-") as made:
        room = Path(made)
        shutil.copytree(package, room / "nlbook", ignore=LEFT_OUT)
        shutil.copytree(Path(nlkernels.__file__).parent, room / "nlkernels", ignore=LEFT_OUT)
        shutil.copytree(data_folder(), room / "data")
        (room / "nothing").mkdir()
        for hidden in ("check", "viz"):
            shutil.rmtree(room / "nlbook" / "book" / hidden)
        for name in ("worker.py", "border.py"):
            shutil.copy(here / name, room)
        yield room


def packages() -> list[str]:
    return [p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages") and os.path.isdir(p)]


def seen() -> list[str]:
    """The folders and files of the system and of the interpreter that a submission sees."""
    base = os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))
    parts = [f"{p}/{n}" for p in (sys.prefix, sys.base_prefix, base) for n in ("bin", "lib", "lib64", "pyvenv.cfg")]
    system = ["/usr", "/etc/ld.so.cache", "/etc/fonts", "/etc/alternatives"]
    parts = [p for p in parts if not os.path.islink(p)]  # lib64 -> lib: what is shut there would stand open here
    return [p for p in dict.fromkeys([*system, *parts, *packages()]) if os.path.exists(p)]


def walls(room: Path) -> list[str]:
    """The bubblewrap command in front of a program, but for its filter."""
    words = [
        shutil.which("bwrap") or "bwrap",
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--cap-drop",
        "ALL",
    ]
    words += [
        "--uid",
        "1000",
        "--gid",
        "1000",
        "--hostname",
        "sandbox",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
    ]
    for name in ("bin", "lib", "lib32", "lib64", "sbin"):
        link = os.path.islink(f"/{name}")
        words += (
            ["--symlink", os.readlink(f"/{name}"), f"/{name}"] if link else ["--ro-bind-try", f"/{name}", f"/{name}"]
        )
    for path in seen():
        words += ["--ro-bind", path, path]
    for path in (f"{folder}/{name}" for folder in packages() for name in ("nlbook", "nlbook_tools")):
        words += ["--ro-bind", str(room / "nothing"), path] if os.path.isdir(path) else []  # the answers are in there
    for device in ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"):
        words += ["--dev-bind", device, device]
    for name, value in (ENVIRONMENT | {"PYTHONPATH": BOOK}).items():
        words += ["--setenv", name, value]
    words += ["--ro-bind", str(room), BOOK, "--size", str(SCRATCH), "--tmpfs", "/tmp", "--remount-ro", "/"]
    return [*words, "--chdir", "/tmp"]


def filter() -> bytes:
    """A program for seccomp: calls that no answer needs, and that namespaces leave open, fail with EPERM.

    They are sockets (AF_VSOCK has no namespace), the keys that the kernel keeps for a login, memory that no process
    maps (memfd, System V), and large doors into the kernel (io_uring, bpf, userfaultfd, perf, ptrace). Empty on a
    processor whose numbers of calls are not known here.
    """
    calls = {
        "x86_64": (0xC000003E, (29, 41, 64, 68, 101, 248, 249, 250, 298, 319, 321, 323, 425, 447)),
        "aarch64": (0xC00000B7, (117, 186, 190, 194, 198, 217, 218, 219, 241, 279, 280, 282, 425, 447)),
    }
    if platform.machine() not in calls:
        return b""
    kind, denied = calls[platform.machine()]
    load, equal, most, end, kill, no, yes = 0x20, 0x15, 0x35, 0x06, 0x80000000, 0x00050001, 0x7FFF0000
    steps = [(load, 0, 0, 4), (equal, 1, 0, kind), (end, 0, 0, kill)]  # another kind of processor (32 bits): killed
    steps += [(load, 0, 0, 0), (most, 0, 1, 1 << 30), (end, 0, 0, kill)]  # the third set of numbers (x32): killed
    for number in denied:
        steps += [(equal, 0, 1, number), (end, 0, 0, no)]
    return b"".join(struct.pack("HBBI", *step) for step in [*steps, (end, 0, 0, yes)])


def start(room: Path, words: list[str], **how: Any) -> subprocess.Popen[str]:
    """Start a program inside the walls."""
    read, write = os.pipe()
    os.write(write, filter())
    os.close(write)
    try:
        extra = ["--seccomp", str(read)] if filter() else []
        return subprocess.Popen([*walls(room), *extra, "--", *words], pass_fds=[read], text=True, **how)
    finally:
        os.close(read)


def need_walls(room: Path, course: Path) -> None:
    """Refuse where bubblewrap cannot run, and a course folder that submissions would see.

    Raises:
        NLBookError: the text says why, and the two ways out.
    """
    if inside := [p for p in seen() if course.resolve().is_relative_to(os.path.realpath(p))]:
        raise NLBookError(f"course: got {course} in {inside[0]}, which submissions see; expected a folder elsewhere")
    try:
        tried = start(room, [sys.executable, "-c", ""], stderr=subprocess.PIPE)
        said = tried.communicate(timeout=60)[1].strip()
        why = (said.splitlines() or ["it ended with an error"])[-1] if tried.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        why = "not installed" if isinstance(error, FileNotFoundError) else str(error)
    if why:
        raise NLBookError(f"sandbox: got no bubblewrap ({why}), expected `bwrap` 0.8 or newer: {TWO_WAYS}")
