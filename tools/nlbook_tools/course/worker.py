"""The process in which a submission runs: it executes cells, and calls what they define, when the judge asks.

Started as a file inside the sandbox (fence.py). It holds no expected value, no case but the one it is asked about, and
no way to write a mark. Cells are read as IPython reads them.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import linecache
import os
import resource
import socket
import sys
import types
from importlib.machinery import ModuleSpec
from typing import Any

import border  # type: ignore[import-not-found]  # it lies beside this file
import torch

RUN = ("time", "timeit", "prun", "capture")  # magics whose argument or cell is Python to be run
HIDDEN = ("nlbook.book.check", "nlbook.book.viz", "nlbook_tools")  # not in the sandbox: they draw, praise and judge


class NotHere:
    """Anything of a module that is not here: whatever is asked of it is itself again."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self

    def __getitem__(self, _: Any) -> Any:
        return self


class Stand:
    """Imports what is hidden as modules in which every name is silent."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        hidden = any(name == h or name.startswith(h + ".") for h in HIDDEN)
        return ModuleSpec(name, self, is_package=True) if hidden else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return types.ModuleType(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__getattr__ = lambda name: getattr(NotHere(), name)  # type: ignore[method-assign]


class Shell:
    """What `get_ipython()` gives: magics that run Python do, the others and shell lines are skipped with a note."""

    def __init__(self, space: dict[str, Any], notes: list[str]) -> None:
        self.space, self.notes = space, notes

    def run_line_magic(self, name: str, line: str, *_: Any, **__: Any) -> None:
        self.run_cell_magic(name, "", line)

    def run_cell_magic(self, name: str, _: str, cell: str) -> None:
        if name in RUN:
            execute(cell, f"<{name}>", self.space)
        elif name != "matplotlib":
            self.notes.append(f"%{name} was skipped")

    def __getattr__(self, name: str) -> Any:  # system, getoutput, ...
        def skipped(*_: Any, **__: Any) -> list[str]:
            self.notes.append(
                "a line for the shell was skipped" if name in ("system", "getoutput") else f"{name} was skipped"
            )
            return []

        return skipped


def execute(source: str, name: str, space: dict[str, Any]) -> None:
    """Run a cell as IPython would: a magic, a `?`, a line for the shell or a top-level await is no error."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        code = compile(source, name, "exec", flags, dont_inherit=True)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

        source = TransformerManager().transform_cell(source)
        code = compile(source, name, "exec", flags, dont_inherit=True)
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    waits = eval(code, space)
    if inspect.iscoroutine(waits):
        asyncio.run(waits)


class Worker:
    """Answers one question after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.notes, self.cells = sock, list[str](), 0
        self.space: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
        shell = Shell(self.space, self.notes)
        self.space |= {"get_ipython": lambda: shell, "display": lambda *_, **__: None}

    def serve(self) -> None:
        while True:
            message = border.receive(self.sock)
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    answer = getattr(self, f"do_{message['do']}")(message)
            except BaseException as error:
                answer = {"error": self.told(error, message), "untried": self.untried(error)}
            border.send(self.sock, {**answer, "notes": self.notes[:20]})
            self.notes.clear()

    # -- what can be asked

    def do_run(self, message: dict[str, Any]) -> dict[str, Any]:
        """Run the source of a cell that is to make the name `fresh`, so that no older one is taken for it."""
        self.space.pop(message.get("fresh", ""), None)
        self.cells += 1
        execute(message["source"], f"<cell {self.cells}>", self.space)
        return {}

    def do_describe(self, message: dict[str, Any]) -> dict[str, Any]:
        """Is the name there, a function (with which parameters), a class or a value?"""
        if message["name"] not in self.space:
            return {"kind": "missing"}
        value = self.space[message["name"]]
        if isinstance(value, type):
            return {"kind": "class"}
        if not callable(value):
            return {"kind": "value", "value": border.pack(value)}
        try:
            parameters = inspect.signature(value).parameters.values()
            told = [[p.name, int(p.kind), p.default is not p.empty] for p in parameters]
        except (TypeError, ValueError):
            told = None
        return {"kind": "function", "parameters": told}

    def do_call(self, message: dict[str, Any]) -> dict[str, Any]:
        """Call the function: what it returns, and which of its arguments it changed, into what."""
        args = border.unpack(message["args"])
        value = border.pack(self.space[message["name"]](*args))
        after = [border.pack(a) for a in args]
        changed = [[i, a] for i, (a, b) in enumerate(zip(after, message["args"])) if json.dumps(a) != json.dumps(b)]
        return {"value": value, "changed": changed}

    def do_gradient(self, message: dict[str, Any]) -> dict[str, Any]:
        """The gradient of the weighted outputs in the arguments at some places; None where it does not reach."""
        try:
            return {"value": self.slopes(message)}
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
        with torch.autograd.graph.allow_mutation_on_saved_tensors():  # in place on what the answer made: that is right
            return {"value": self.slopes(message)}

    def slopes(self, message: dict[str, Any]) -> list[Any]:
        args, weights = border.unpack(message["args"]), border.unpack(message["weights"])
        inputs = [args[i].requires_grad_() for i in message["at"]]
        out = self.space[message["name"]](*args)
        parts = out if isinstance(out, (tuple, list)) else [out]
        floats = [p for p in parts if isinstance(p, torch.Tensor) and p.is_floating_point()]
        tied = [(p, w) for p, w in zip(floats, weights) if p.requires_grad]
        if not tied:
            return [None] * len(inputs)
        grads = torch.autograd.grad([p for p, _ in tied], inputs, [w for _, w in tied], allow_unused=True)
        return [border.pack(g) for g in grads]

    def do_play(self, message: dict[str, Any]) -> dict[str, Any]:
        """Launch a kernel in Triton's interpreter: what it wrote to `out`, and how much it loaded and stored."""
        from nlbook.book.chapters.speed import kernel_player

        kernel, args = self.space[message["name"]], border.unpack(message["args"])
        own = list(inspect.signature(kernel_player.plain(kernel)).parameters)
        if len(own) != len(args):
            raise TypeError(f"the kernel takes {len(own)} arguments; it is launched with {len(args)}")
        run = kernel_player.play(kernel, tuple(message["grid"]), **dict(zip(own, args)))
        return {"value": border.pack([run.tensors[own[message["out"]]], dict(run.counts)])}

    # -- errors in words

    def untried(self, error: BaseException) -> bool:
        """A stub's NotImplementedError, not one of a library."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        return type(error) is NotImplementedError and trace is not None and trace.tb_frame.f_code.co_filename[:1] == "<"

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


def main() -> None:
    sock = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for name, most in json.loads(sys.argv[1]).items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    sys.meta_path.insert(0, Stand())  # type: ignore[arg-type]
    torch.set_num_threads(1)
    border.send(sock, {})
    Worker(sock).serve()


if __name__ == "__main__":
    main()
