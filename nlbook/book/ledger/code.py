"""The code that a run depends on: its module and every module of this project that it imports, directly or not.

Comments, layout and docstrings do not count; anything that is executed does. Data files do not count either: a task
that reads some says what they are in its settings or checks their checksum.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from nlbook.errors import need

OURS = ("nlbook", "nlkernels")


def modules(name: str) -> dict[str, Path]:
    """The module `name` and all modules that it needs of its own package and of ours: dotted name -> file."""
    found: dict[str, Path] = {}
    waiting, ours = [name], {*OURS, name.split(".")[0]}
    while waiting:
        module = waiting.pop()
        file = _file(module) if module.split(".")[0] in ours else None
        if file is None or module in found:
            continue
        found[module] = file
        waiting += _imports(module, file)
        waiting += [".".join(module.split(".")[:i]) for i in range(1, module.count(".") + 1)]  # packages around it
    need(name in found, "function", repr(name), "a module that can be found, written in Python")
    return found


@cache
def code_hash(function: str) -> str:
    """Twelve hex digits that change when code changes on which "module:name" depends."""
    digest = hashlib.sha256()
    for module, file in sorted(modules(function.split(":")[0]).items()):
        digest.update(f"{module}\n{_meaning(file)}\n".encode())
    return digest.hexdigest()[:12]


def _file(module: str) -> Path | None:
    """Where a dotted name is, found without importing anything; None for what is no module."""
    first, *rest = module.split(".")
    spec = importlib.util.find_spec(first)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    if not rest:
        return Path(spec.origin)
    place = Path(spec.origin).parent.joinpath(*rest)
    place = place / "__init__.py" if place.is_dir() else place.with_name(place.name + ".py")
    return place if place.is_file() else None


def _imports(module: str, file: Path) -> list[str]:
    """Everything that could be a module in the import statements of a file, those inside functions too."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                around = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
                base = ".".join([*around[: len(around) - node.level + 1], *([base] if base else [])])
            names += [base, *(f"{base}.{a.name}" for a in node.names)]
    return names


@cache
def _meaning(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)
