"""No network in a notebook: Python imports this file at start-up because the runner puts its folder first on
PYTHONPATH.

An audit hook sees every name look-up and every connection of this process, C level included, and cannot be taken off
again. Child processes inherit PYTHONPATH, hence the hook. Loopback and unix sockets stay open: the kernel itself, and
servers that a notebook starts. Each attempt is refused *and* written down, so that a notebook which catches the
exception still fails. What it cannot see is a program that is not Python; the usual ones are refused by name when
they are started.
"""

import json
import os
import sys

LOG = os.environ.get("NLBOOK_NETWORK_LOG", "")
LOOKUP = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
SEND = {"socket.connect", "socket.sendto", "socket.sendmsg"}
START = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"}
PROGRAMS = {"curl", "wget", "ssh", "scp", "sftp", "rsync", "ftp", "telnet", "ping", "dig", "nslookup"}


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


def refuse(event: str, args: tuple) -> None:
    if event not in LOOKUP and event not in SEND and event not in START:
        return
    outside = target(event, args)
    if outside is None:
        return
    fd = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (json.dumps({"event": event, "target": outside, "pid": os.getpid()}) + "\n").encode())
    os.close(fd)
    raise PermissionError(f"a notebook of this book reaches no network: {event} {outside}")


def chain() -> None:
    """Run the environment's own sitecustomize, which this file hides."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = os.path.dirname(os.path.abspath(__file__))
    spec = PathFinder.find_spec("sitecustomize", [p for p in sys.path if os.path.abspath(p) != here])
    if spec and spec.loader:
        spec.loader.exec_module(module_from_spec(spec))


if LOG:
    sys.addaudithook(refuse)
chain()
