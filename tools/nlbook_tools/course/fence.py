"""What a submission's process may not do. Two fences, and neither is a prison: run untrusted classes in a container.

landlock   Linux itself (5.13 or newer) refuses to read or write files outside a list, to open TCP connections and to
           signal other processes, whatever code asks. Where the kernel has no Landlock, only the second fence stands.
audit      Python tells a hook, which cannot be taken off, before it opens a file or a socket, starts a program or
           imports a module; the hook refuses and keeps a note. Code that is not Python is not seen.
This file imports nothing of nlbook: the worker reads it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from typing import Any

NEVER = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "pty.",
    "os.kill",
    "os.killpg",
    "ctypes.dlopen",
    "ctypes.dlsym",
    "ctypes.call_function",
    "ctypes.string_at",
    "sqlite3.",
    "resource.setrlimit",
    "resource.prlimit",
    "webbrowser.",
    "ftplib.",
    "http.",
    "smtplib.",
    "urllib.",
    "signal.pthread_kill",
)
HARMLESS = {"socket.gethostname", "os.fork_exec"}
CHANGES = {
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "os.utime",
    "os.setxattr",
    "os.removexattr",
    "shutil.rmtree",
    "shutil.move",
    "shutil.copyfile",
}
LOOKS = {"os.listdir", "os.scandir", "glob.glob"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/etc/localtime",
    "/etc/ld.so.cache",
    "/dev/null",
    "/dev/urandom",
    "/dev/zero",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system",
    "/sys/fs/cgroup",
)


class Audit:
    """The second fence: read below `readable` (but not below `closed`), write below `scratch`, import no `modules`."""

    def __init__(self, readable: Sequence[str], closed: Sequence[str], scratch: str, modules: Sequence[str]) -> None:
        self.readable = tuple(os.path.realpath(p) for p in (*readable, *SYSTEM, scratch))
        self.closed = tuple(os.path.realpath(p) for p in closed)
        self.scratch, self.modules = os.path.realpath(scratch), tuple(modules)
        self.notes: list[str] = []
        self._on = False

    def close(self) -> None:
        """From now on, and for ever."""
        self._on = True
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]  # `from nlbook.book import check` raises no event of its own
        sys.addaudithook(self._hook)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Asked first for every module that is not loaded yet."""
        if any(name == m or name.startswith(m + ".") for m in self.modules):
            self._refuse(f"import {name}", ImportError)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "open":
            path, mode, flags = (*args, None, None, None)[:3]
            if isinstance(path, (str, bytes, os.PathLike)):
                writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (
                    isinstance(flags, int) and flags & WRITING
                )
                self._path("write" if writes else "read", path)
        elif event in CHANGES:
            for path in args:
                if isinstance(path, (str, bytes, os.PathLike)):
                    self._path("write", path)
        elif event in LOOKS:
            if isinstance(args[0], (str, bytes, os.PathLike)):
                self._path("read", args[0])
        elif event.startswith(NEVER) and event not in HARMLESS:
            self._refuse(event)

    def _path(self, how: str, path: Any) -> None:
        real = os.path.realpath(os.fsdecode(path))
        inside = [
            real == p or real.startswith(p.rstrip(os.sep) + os.sep)
            for p in ([self.scratch, os.devnull] if how == "write" else self.readable)
        ]
        shut = any(real == p or real.startswith(p + os.sep) for p in self.closed)
        if shut or not any(inside):
            self._refuse(f"{how} {os.path.basename(real)}")

    def _refuse(self, what: str, error: type[Exception] = PermissionError) -> None:
        if what not in self.notes and len(self.notes) < 20:
            self.notes.append(what[:120])
        raise error(f"an answer may not do this while it is judged: {what[:120]}")


# -- Landlock: the numbers are those of linux/landlock.h

CREATE, ADD, RESTRICT = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
FS_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | (1 << 14) | (1 << 15)


def landlock_version() -> int:
    """The kernel's version of Landlock; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, ctypes.CDLL(None, use_errno=True).syscall(CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def landlock(readable: Sequence[str], listed: Sequence[str], scratch: str) -> bool:
    """The first fence: read files below `readable`, list the folders `listed`, write below `scratch`, nothing else."""
    version = landlock_version()
    if not version:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    everything = FS_RIGHTS[min(version, 5)]
    net, scoped = (3 if version >= 4 else 0), (3 if version >= 6 else 0)  # bind and connect; sockets and signals
    rules = (ctypes.c_uint64 * 3)(everything, net, scoped)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = libc.syscall(CREATE, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    wanted = [(p, EXECUTE | READ_FILE | READ_DIR) for p in (*readable, *SYSTEM)]
    wanted += [(p, READ_DIR) for p in listed] + [(scratch, everything), (os.devnull, FILE_RIGHTS & everything)]
    for path, rights in wanted:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not os.path.isdir(path):
            rights &= FILE_RIGHTS
        beneath = (ctypes.c_char * 12)()
        ctypes.memmove(beneath, bytes(ctypes.c_uint64(rights)) + bytes(ctypes.c_int32(fd)), 12)
        libc.syscall(ADD, ctypes.c_int(ruleset), ctypes.c_int(1), ctypes.byref(beneath), ctypes.c_uint32(0))
        os.close(fd)
    libc.prctl(38, 1, 0, 0, 0)  # no new privileges: Landlock asks for it
    done = libc.syscall(RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0)) == 0
    os.close(ruleset)
    return done
