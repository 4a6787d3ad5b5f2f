"""What a notebook may not do, seen from inside its Python, which imports this file at start-up because the runner puts
its folder first on PYTHONPATH.

Audit hooks cannot be taken off again, and child processes inherit PYTHONPATH, hence the hooks. Each finding is written
down, so that a notebook which catches an exception still fails:

network   a name look-up or a connection that leaves this machine; refused too. Loopback and unix sockets stay open.
files     something written or removed outside the work folder, the temporary folder and the caches of libraries.
thread    an exception that ended a thread, and `task`: one of an asyncio task that nobody awaited.

What it cannot see: files written by native code, and programs that are not Python. The usual ones that reach the
network are refused by name when they are started.
"""

import json
import os
import sys

LOG = os.environ.get("NLBOOK_GUARD_LOG", "")
FOLDERS = os.environ.get("NLBOOK_GUARD_FOLDERS", "").split(os.pathsep)
CACHES = {"__pycache__", ".cache", ".config", ".ipython", ".jupyter", ".local", ".matplotlib", ".nv", ".triton"}
LOOKUP = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
SEND = {"socket.connect", "socket.sendto", "socket.sendmsg"}
START = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"}
REACH = LOOKUP | SEND | START
CHANGE = {"open", "os.remove", "os.rmdir", "os.rename", "os.mkdir", "shutil.rmtree"}
PROGRAMS = {"curl", "wget", "ssh", "scp", "sftp", "rsync", "ftp", "telnet", "ping", "dig", "nslookup"}


def note(kind: str, what: str) -> None:
    fd = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (json.dumps({"kind": kind, "what": what}) + "\n").encode())
    os.close(fd)


def local(host) -> bool:
    """Is this host the machine itself? An empty or missing host means the wildcard address, hence also here."""
    import ipaddress
    import socket

    if isinstance(host, (bytes, bytearray)):
        host = bytes(host).decode("ascii", "replace")
    if not host or host in ("localhost", socket.gethostname()) or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def target(event: str, args: tuple) -> str | None:
    """What outside this machine the event is about to reach; None if it stays here."""
    if event in LOOKUP:
        return None if local(args[0]) else str(args[0])
    if event in SEND:
        import socket

        internet = args[0].family in (socket.AF_INET, socket.AF_INET6)
        return str(args[1]) if internet and args[1] and not local(args[1][0]) else None
    command = args[1] if event == "subprocess.Popen" else args[0]
    words = [os.fsdecode(w) for w in (command if isinstance(command, (list, tuple)) else [command]) if w]
    words = " ".join(words[:4]).split()[:4]  # curl …, /usr/bin/curl …, sh -c "curl …"
    return next((w for w in words if os.path.basename(w) in PROGRAMS), None)


def changed(event: str, args: tuple) -> str | None:
    """The path outside the notebook's folders that the event changes; None if it changes nothing there."""
    path, *rest = args
    reads = event == "open" and not rest[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    inside_a_removed_folder = (
        event in ("os.remove", "os.rmdir", "shutil.rmtree") and rest and rest[-1] not in (None, -1)
    )
    if reads or inside_a_removed_folder or not isinstance(path, (str, bytes, os.PathLike)):
        return None
    path = os.path.realpath(os.fsdecode(path))
    if CACHES & set(path.split(os.sep)) or any(os.path.commonpath([path, f]) == f for f in FOLDERS if f):
        return None
    return path


def watch(event: str, args: tuple) -> None:
    if event in CHANGE:
        if path := changed(event, args):
            note("files", f"{path} ({event})")
    elif event in REACH and (outside := target(event, args)):
        note("network", f"{outside} ({event})")
        raise PermissionError(f"a notebook of this book reaches no network: {event} {outside}")


def hear_background_errors() -> None:
    """Exceptions that no cell shows: those of threads, and of tasks that nobody awaits."""
    import atexit
    import logging
    import threading

    def of_thread(args) -> None:
        if args.exc_type is not SystemExit:
            note("thread", f"{args.exc_type.__name__}: {args.exc_value}")
        threading.__excepthook__(args)

    class OfTask(logging.StreamHandler):
        def emit(self, record) -> None:
            if record.exc_info and record.exc_info[1]:
                note("task", f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}")
            super().emit(record)

    def of_tasks_still_held() -> None:
        if asyncio := sys.modules.get("asyncio"):
            import gc

            for t in gc.get_objects():
                if isinstance(t, asyncio.Task) and t.done() and getattr(t, "_log_traceback", False):
                    note("task", f"{type(t.exception()).__name__}: {t.exception()}")

    threading.excepthook = of_thread
    logging.getLogger("asyncio").addHandler(OfTask())
    atexit.register(of_tasks_still_held)


def chain() -> None:
    """Run the environment's own sitecustomize, which this file hides."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = os.path.dirname(os.path.abspath(__file__))
    spec = PathFinder.find_spec("sitecustomize", [p for p in sys.path if os.path.abspath(p) != here])
    if spec and spec.loader:
        spec.loader.exec_module(module_from_spec(spec))


if LOG:
    hear_background_errors()
    sys.addaudithook(watch)
chain()
