"""The process in which submitted code runs: a mould that has imported torch, and a fork of it for each exercise.

Started as a file, never imported by what it runs. The mould itself runs no submitted code. A fork fences itself in,
then answers messages over a socket of its own: run this cell, tell me about this name, call it with these arguments.
It holds no expected value, no case but the one it is asked about, and no way to write a verdict.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import linecache
import os
import resource
import socket
import sys
from typing import Any


class Silent:
    """Stands for `check` and `viz`, which have no part in an answer: anything asked of it is itself again."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self


class Fork:
    """One exercise of one submission."""

    def __init__(self, sock: socket.socket, codec: Any, audit: Any) -> None:
        self.sock, self.codec, self.audit = sock, codec, audit
        self.space: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
        self.graphs: dict[int, tuple[list[Any], list[Any]]] = {}
        self.cells = 0

    def serve(self) -> None:
        while True:
            message = self.codec.receive(self.sock)
            out = io.StringIO()
            try:
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
                    answer = getattr(self, f"do_{message['do']}")(message)
            except BaseException as error:
                answer = {"error": self.told(error, message), "untried": self.untried(error), "values": []}
            answer["printed"], answer["notes"] = out.getvalue()[:1000], self.audit.notes
            self.codec.send(self.sock, answer)
            self.audit.notes.clear()

    # -- what can be asked

    def do_run(self, message: dict[str, Any]) -> dict[str, Any]:
        """Run the source of a cell."""
        source, self.cells = message["source"], self.cells + 1
        name = f"<cell {self.cells}>"
        linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
        exec(compile(source, name, "exec", dont_inherit=True), self.space)
        return {"values": []}

    def do_silence(self, message: dict[str, Any]) -> dict[str, Any]:
        self.space.update(dict.fromkeys(message["names"], Silent()))
        return {"values": []}

    def do_describe(self, message: dict[str, Any]) -> dict[str, Any]:
        """Is the name there, a function (with which parameters), or a value?"""
        if message["name"] not in self.space:
            return {"kind": "missing", "values": []}
        value = self.space[message["name"]]
        if isinstance(value, type) or not callable(value):
            return {"kind": "class" if isinstance(value, type) else "value", "values": [value]}
        try:
            parameters = inspect.signature(value).parameters.values()
            told = [[p.name, int(p.kind), p.default is not p.empty] for p in parameters]
        except (TypeError, ValueError):
            told = None
        return {"kind": "function", "parameters": told, "values": []}

    def do_call(self, message: dict[str, Any]) -> dict[str, Any]:
        """Call the function; with a number, keep what is needed to differentiate it."""
        args = message["values"]
        before = [self.as_text(a) for a in args]
        value = self.space[message["name"]](*args)
        changed = [i for i, (a, b) in enumerate(zip(args, before)) if self.as_text(a) != b]
        if (number := message.get("keep")) is not None:
            self.graphs[number] = (self.tensors(value), list(args))
        return {"values": [value, *(args[i] for i in changed)], "changed": changed}

    def do_backward(self, message: dict[str, Any]) -> dict[str, Any]:
        """The gradient of the kept call's outputs, weighted, in its arguments (None where it does not reach)."""
        import torch

        outputs, args = self.graphs[message["keep"]]
        inputs = [a for a in args if isinstance(a, torch.Tensor) and a.requires_grad]
        pairs = [(o, g) for o, g in zip(outputs, message["values"]) if o.requires_grad and g is not None]
        grads = torch.autograd.grad(
            [o for o, _ in pairs], inputs, [g for _, g in pairs], allow_unused=True, retain_graph=True
        )
        return {"values": list(grads)}

    def do_play(self, message: dict[str, Any]) -> dict[str, Any]:
        """Launch a kernel in Triton's interpreter: what it wrote to `out`, and how much it loaded and stored."""
        from nlbook.book.chapters.speed import kernel_player

        kernel = self.space[message["name"]]
        own = list(inspect.signature(kernel_player.plain(kernel)).parameters)
        if len(own) != len(message["values"]):
            raise TypeError(f"the kernel takes {len(own)} arguments; it is launched with {len(message['values'])}")
        run = kernel_player.play(kernel, tuple(message["grid"]), **dict(zip(own, message["values"])))
        return {"values": [run.tensors[own[message["out"]]], dict(run.counts)]}

    # -- in words

    def as_text(self, value: Any) -> Any:
        blocks: list[bytes] = []
        return json.dumps(self.codec.pack(value, blocks)), blocks

    def tensors(self, value: Any) -> list[Any]:
        import torch

        if isinstance(value, torch.Tensor):
            return [value]
        if isinstance(value, (tuple, list)):
            return [t for part in value for t in self.tensors(part)]
        return [t for part in value.values() for t in self.tensors(part)] if isinstance(value, dict) else []

    def untried(self, error: BaseException) -> bool:
        """A stub's NotImplementedError, not one of a library."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        return (
            type(error) is NotImplementedError
            and trace is not None
            and trace.tb_frame.f_code.co_filename.startswith("<cell")
        )

    def told(self, error: BaseException, message: dict[str, Any]) -> str:
        """`a ValueError (text) in line 3: ...`, the line counted in the answer's function or cell."""
        try:
            text = (str(error).strip().splitlines() or [""])[0][:200]
        except BaseException:
            text = ""
        kind, place, trace = type(error).__name__[:60], "", error.__traceback__
        code = getattr(self.space.get(message.get("name", "")), "__code__", None)
        while trace is not None:
            name = trace.tb_frame.f_code.co_filename
            if name.startswith("<cell") and (code is None or name == code.co_filename):
                line = linecache.getline(name, trace.tb_lineno).strip()[:100]
                number = trace.tb_lineno - (code.co_firstlineno - 1 if code is not None else 0)
                place = f" in line {number}: `{line}`" if line else ""
            trace = trace.tb_next
        return f"{'an' if kind[:1] in 'AEIOU' else 'a'} {kind}" + (f" ({text})" if text else "") + place


def fence_in(settings: dict[str, Any], fence: Any) -> Any:
    """Limits, both fences, and an empty folder to stand in; the audit hook is handed back, closed."""
    os.setsid()
    scratch = os.path.join(settings["scratch"], str(os.getpid()))
    os.mkdir(scratch)
    os.chdir(scratch)
    os.environ.update(HOME=scratch, TMPDIR=scratch, TRITON_CACHE_DIR=scratch)
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 16 << 20),
        (resource.RLIMIT_NOFILE, 128),
        (resource.RLIMIT_CPU, settings["cpu_seconds"]),
    ):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (most, most))
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    fence.landlock(settings["readable"], settings["listed"], scratch)
    audit = fence.Audit([*settings["readable"], *settings["listed"]], settings["closed"], scratch, settings["modules"])
    audit.close()
    return audit


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    sys.dont_write_bytecode = True
    sys.path[:] = settings["path"]
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import codec  # type: ignore[import-not-found]  # by path: nothing of nlbook is loaded here
    import fence  # type: ignore[import-not-found]
    import torch

    sys.path.pop(0)
    torch.set_num_threads(1)
    for name in settings[
        "warm"
    ]:  # what most answers import, or torch on its first gradient: loaded once, for all forks
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    control.sendall(b"ready---")
    while True:
        what, fds, _, _ = socket.recv_fds(control, 1, 1)
        if what != b"F":
            return
        pid = os.fork()
        if pid == 0:
            control.close()
            sock = socket.socket(fileno=fds[0])
            try:
                audit = fence_in(settings, fence)
                Fork(sock, codec, audit).serve()
            finally:
                os._exit(0)
        os.close(fds[0])
        control.sendall(pid.to_bytes(8, "big"))
        if control.recv(1) != b"R":  # the other side has ended it
            return
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
