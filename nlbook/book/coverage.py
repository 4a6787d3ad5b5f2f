"""Which code, tests and chapters carry an equation, read from the sources themselves.

Code: a function or class whose docstring or comments say `eq. 57`, `eq. 57-58` or `eq. 57, 60`. A module's docstring
does not count: it says what a room is about, not where an equation is carried out.
Tests: functions and classes that carry `@pytest.mark.eq(57, 58)`. Chapters: notebook sources whose front matter lists
the number and whose text names it.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nlbook.book.chapters import files
from nlbook.paper.show import bad

LAST = 121
_RANGE = r"\d{1,3}(?:\s?[-–]\s?\d{1,3})?"
MENTION = re.compile(rf"\beqs?\.[\s~]?({_RANGE}(?:(?:,\s?|\s?and\s){_RANGE}(?![\d.]))*)(?![\d])", re.IGNORECASE)
INDEX = ("paper/", "book/coverage.py", "nlbook_tools/commands/paper.py")
Places = dict[int, tuple[str, ...]]


def numbers_in(text: str) -> set[int]:
    """The equation numbers that a text names.

    >>> sorted(numbers_in("the write of eq. 57-58, 60 as in Eq. 9"))
    [9, 57, 58, 60]
    """
    found: set[int] = set()
    for mention in MENTION.finditer(text):
        for part in re.findall(_RANGE, mention[1]):
            first, *last = map(int, re.split(r"\s?[-–]\s?", part))
            found.update(range(first, (last or [first])[0] + 1))
    return {n for n in found if 1 <= n <= LAST}


# ---- code ----------------------------------------------------------------------------------------------------------
def _definitions(body: Iterable[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every function and class below `body`, outer before inner, with its dotted name."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield prefix + node.name, node
            yield from _definitions(node.body, f"{prefix}{node.name}.")
        else:  # definitions under `if`, `try`, `with`
            for block in ("body", "orelse", "finalbody"):
                yield from _definitions(getattr(node, block, None) or (), prefix)


def named_in(source: str) -> dict[str, set[int]]:
    """Dotted name of each function or class -> the equations that its docstring or its comments name."""
    nodes = dict(_definitions(ast.parse(source).body))
    found = {name: numbers_in(ast.get_docstring(node) or "") for name, node in nodes.items()}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or not (numbers := numbers_in(token.string)):
            continue
        line = token.start[0]
        inner = [name for name, node in nodes.items() if node.lineno <= line <= node.end_lineno]
        if inner:  # the last is the innermost
            found[inner[-1]] |= numbers
    return {name: numbers for name, numbers in found.items() if numbers}


def _collect(pairs: Iterable[tuple[int, str]]) -> Places:
    places: dict[int, list[str]] = {}
    for number, place in pairs:
        if place not in places.setdefault(number, []):
            places[number].append(place)
    return {n: tuple(p) for n, p in places.items()}


def _sources(root: Path, skip: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Relative path and text of every Python source; one that does not parse (yet) carries nothing."""
    for path in sorted(root.rglob("*.py")):
        rel, source = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
        if skip and rel.startswith(skip):
            continue
        with contextlib.suppress(SyntaxError):
            ast.parse(source)
            yield rel, source


def scan_code(packages: dict[str, Path]) -> Places:
    """Equation -> `path:name` of the code that says it carries it. `packages` maps a shown prefix to a folder.

    The index itself (nlbook/paper, this file and the command that prints it) is left out.
    """

    def found() -> Iterator[tuple[int, str]]:
        for shown, folder in packages.items():
            for rel, source in _sources(folder, skip=INDEX):
                for name, numbers in named_in(source).items():
                    yield from ((n, f"{shown}/{rel}:{name}") for n in sorted(numbers))

    return _collect(found())


@functools.cache
def installed_code() -> Places:
    """The scan of nlbook and nlkernels as they are imported here, in a checkout or from a wheel."""
    packages = {}
    for name, shown in (("nlbook", "nlbook"), ("nlkernels", "kernels/nlkernels")):
        spec = importlib.util.find_spec(name)
        if spec and spec.origin:
            packages[shown] = Path(spec.origin).parent
    return scan_code(packages)


# ---- tests ---------------------------------------------------------------------------------------------------------
MARKS = ("pytest.mark.eq", "mark.eq")


def _marked(decorators: Iterable[ast.expr], names: Iterable[str] = MARKS) -> set[int]:
    """The numbers of every `pytest.mark.eq(...)`, or of what `names` calls it; `*range(a, b)` is understood."""
    numbers: set[int] = set()
    for call in (c for d in decorators for c in ast.walk(d) if isinstance(c, ast.Call)):
        if ast.unparse(call.func) not in names:
            continue
        for arg in call.args:
            if isinstance(arg, ast.Constant) and isinstance(arg.value, int):
                numbers.add(arg.value)
            elif written := re.fullmatch(r"\*range\((\d+), (\d+)\)", ast.unparse(arg)):
                numbers.update(range(int(written[1]), int(written[2])))
    return {n for n in numbers if 1 <= n <= LAST}


def marked_in(source: str) -> dict[str, set[int]]:
    """pytest name (`test_x`, `TestY::test_x`) -> the equations that its marks, its class's or its file's name."""
    tree = ast.parse(source)
    assigned = [(ast.unparse(a.targets[0]), a.value) for a in tree.body if isinstance(a, ast.Assign)]
    names = (*MARKS, *(name for name, value in assigned if ast.unparse(value) in MARKS))  # `eq = pytest.mark.eq`
    marks: dict[str, set[int]] = {"": _marked([value for name, value in assigned if name == "pytestmark"], names)}
    found = {}
    for name, node in _definitions(tree.body):
        outer, _, _ = name.rpartition(".")
        marks[name] = marks.get(outer, set()) | _marked(node.decorator_list, names)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test") and marks[name]:
            found[name.replace(".", "::")] = marks[name]
    return found


def scan_tests(root: Path) -> Places:
    """Equation -> pytest ids of the tests that are marked with it."""
    return _collect(
        (n, f"tests/{rel}::{name}")
        for rel, source in _sources(root / "tests")
        for name, numbers in marked_in(source).items()
        for n in sorted(numbers)
    )


# ---- chapters ------------------------------------------------------------------------------------------------------
def _listed(value: Iterable[int | str]) -> set[int]:
    return {n for item in value for n in ({item} if isinstance(item, int) else numbers_in(f"eq. {item}"))}


def scan_chapters(root: Path) -> Places:
    """Equation -> stems of the notebook sources that list it in their front matter and name it in their text."""
    import yaml  # papermill brings it along

    def found() -> Iterator[tuple[int, str]]:
        for path in files(root / "notebooks" / "src", ".md"):
            _, front, text = path.read_text(encoding="utf-8").split("---\n", 2)
            listed = _listed(yaml.safe_load(front).get("nlbook", {}).get("equations", ()))
            said = numbers_in(text) | {int(n) for n in re.findall(r"paper\.equation\((\d+)\)", text)}
            yield from ((n, path.stem) for n in sorted(listed & said))

    return _collect(found())


# ---- together ------------------------------------------------------------------------------------------------------
def checkout() -> Path | None:
    """The root of the checkout that nlbook is imported from, or None if it was installed without one."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() and (root / "tests").is_dir() else None


@functools.cache
def checkout_tests() -> Places:
    """`scan_tests` of this checkout; nothing outside one."""
    root = checkout()
    return scan_tests(root) if root else {}


def places(number: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The code that carries an equation, as `path:name`, and the tests that prove it, as pytest ids."""
    return installed_code().get(number, ()), checkout_tests().get(number, ())


def coverage(root: Path | str | None = None) -> list[dict[str, Any]]:
    """One row per equation: {"number", "code", "tests", "chapter"}, each but the first a list.

    `root` is a checkout of this book; left out, the one that nlbook is imported from. Raises NLBookError where there is
    none, since tests and chapters are not part of an installed package.
    """
    folder = Path(root) if root is not None else checkout()
    if folder is None or not (folder / "tests").is_dir():
        came = str(root) if root is not None else "an installed nlbook"
        raise bad("root", came, "a checkout of the book: the tests and chapters are not part of an installed package")
    code = scan_code({"nlbook": folder / "nlbook", "kernels": folder / "kernels", "tools": folder / "tools"})
    tests, chapters = scan_tests(folder), scan_chapters(folder)
    return [
        {"number": n, "code": [*code.get(n, ())], "tests": [*tests.get(n, ())], "chapter": [*chapters.get(n, ())]}
        for n in range(1, LAST + 1)
    ]
