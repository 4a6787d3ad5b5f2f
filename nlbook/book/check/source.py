"""Source text: a solution is written once, and both the stub and the answer that is shown are cut from it."""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from collections.abc import Callable
from typing import Any

from nlbook.errors import NLBookError

BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"


def source_of(function: Callable[..., Any]) -> str:
    """The function's source, flush left."""
    return textwrap.dedent(inspect.getsource(function)).rstrip() + "\n"


def definition(text: str, name: str = "") -> ast.FunctionDef | None:
    """The last function that a text defines (of that name)."""
    found = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and name in ("", n.name)]
    return found[-1] if found else None


def body_of(node: ast.FunctionDef) -> str:
    """The statements below the docstring; comments and blank lines do not count."""
    return "\n".join(map(ast.unparse, node.body[1:] if ast.get_docstring(node) else node.body))


def same_body(a: Any, b: Callable[..., Any]) -> bool:
    """Whether two functions do the same by the same lines, whatever they are called."""
    try:
        mine, theirs = (definition(source_of(f)) for f in (a, b))
    except (OSError, TypeError, SyntaxError):  # no source to be had
        return False
    return mine is not None and theirs is not None and body_of(mine) == body_of(theirs)


def _region(text: str) -> tuple[list[str], int, int]:
    lines = text.splitlines()
    marks = [line.strip() for line in lines]
    if marks.count(BEGIN) != 1 or marks.count(END) != 1 or marks.index(BEGIN) >= marks.index(END):
        raise NLBookError(f"solution: got no single {BEGIN!r} ... {END!r}, expected exactly one pair around the body")
    return lines, marks.index(BEGIN), marks.index(END)


def marked(text: str) -> str:
    """The lines between the markers, flush left."""
    lines, begin, end = _region(text)
    return textwrap.dedent("\n".join(lines[begin + 1 : end])) + "\n"


def shown(text: str) -> str:
    """The source as a learner sees it, without the markers."""
    return "\n".join(line for line in text.splitlines() if line.strip() not in (BEGIN, END)) + "\n"


def cut(text: str, instead: str) -> str:
    """The source with the marked lines replaced by one line."""
    lines, begin, end = _region(text)
    indent = lines[begin][: len(lines[begin]) - len(lines[begin].lstrip())]
    return "\n".join([*lines[:begin], indent + instead, *lines[end + 1 :]]) + "\n"


def compile_source(text: str, like: Callable[..., Any]) -> Callable[..., Any]:
    """Run a `def` in a copy of the globals of `like`. Its source can be asked for, as of a function in a file."""
    space = dict(like.__globals__)  # type: ignore[attr-defined]
    text, name = "from __future__ import annotations\n" + text, f"<{like.__name__}>"
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    exec(compile(text, name, "exec"), space)
    return space[like.__name__]


def drift(a: Callable[..., Any], b: Callable[..., Any]) -> list[str]:
    """How two functions differ in what the learner sees: signature and docstring."""
    found = []
    if str(inspect.signature(a)) != str(inspect.signature(b)):
        found.append(f"signatures differ: {inspect.signature(a)} and {inspect.signature(b)}")
    if inspect.getdoc(a) != inspect.getdoc(b):
        found.append("docstrings differ")
    return found


def solution_problems(solution: Callable[..., Any]) -> list[str]:
    """What is wrong with a solution function as a piece of text."""
    try:
        text = source_of(solution)
        body = marked(text)
    except (NLBookError, OSError, TypeError) as error:
        return [str(error)]
    found = [] if inspect.getdoc(solution) else ["the solution has no docstring: the learner would see no task"]
    if len([line for line in body.splitlines() if line.strip()]) > 10:
        found.append("the solution has more than 10 lines")
    return found
