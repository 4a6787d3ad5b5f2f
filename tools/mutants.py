"""Small semantic changes of the library and the kernels, and whether the tests notice: the share of mutants killed.

    python tools/mutants.py --most 150 --seed 0            # hours; by hand, or once a week
    python tools/mutants.py --most 5 --only nlbook/optim   # minutes

A mutant changes one operator, comparison, constant or flag of one function. It runs in a copy of the checkout, against
the tests that belong to its room. Prints each survivor with its line, and the kill rate.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SWAP: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
# Folder or file -> the tests that belong to it, the most relevant first.
TESTS = {
    "nlbook/memory": "memory_protocol memory memory_chunked memory_dual",
    "nlbook/attention.py": "attention",
    "nlbook/optim": "optim optim_identities",
    "nlbook/levels": "levels",
    "nlbook/cms": "cms additive",
    "nlbook/titans": "titans",
    "nlbook/hope": "hope",
    "nlbook/train.py": "train",
    "nlbook/paper": "paper",
    "nlbook/tree.py": "hope train",
    "nlbook/numerics.py": "hope titans",
    "nlbook/door.py": "api fuzz",
    "nlbook/errors.py": "api titans memory_protocol fuzz",
    "nlbook/ranks.py": "ranks",
    "kernels/nlkernels": "kernels",
}


def changes(tree: ast.AST) -> Iterator[tuple[int, str, Any]]:
    """Line, words and node of each place that can be changed; what a message or an assertion for the type checker holds
    is left alone."""
    for f in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
        words = {id(n) for s in ast.walk(f) if isinstance(s, ast.JoinedStr | ast.Assert) for n in ast.walk(s)}
        for node in (n for s in f.body if not isinstance(s, ast.Expr) for n in ast.walk(s) if id(n) not in words):
            if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in SWAP:
                yield node.lineno, f"{type(node.op).__name__} -> {SWAP[type(node.op)].__name__}", node
            elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAP:
                yield node.lineno, f"{type(node.ops[0]).__name__} -> {SWAP[type(node.ops[0])].__name__}", node
            elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
                yield node.lineno, f"{node.value} changed", node


def mutate(node: Any) -> None:
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        node.op = SWAP[type(node.op)]()
    elif isinstance(node, ast.Compare):
        node.ops[0] = SWAP[type(node.ops[0])]()
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1


def tests_of(path: str) -> list[str]:
    names = next(tests for place, tests in TESTS.items() if path.startswith(place)).split()
    return ["tests/kernels"] if names == ["kernels"] else [f"tests/library/test_{n}.py" for n in names]


def passes(work: Path, path: str) -> bool:
    """Whether the tests of a file pass in the copy; an endless loop is a failure."""
    env = {**os.environ, "PYTHONPATH": f"{work}:{work}/kernels:{work}/tools", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--timeout", "300"]
    try:
        return not subprocess.run(
            [*command, *tests_of(path)], cwd=work, env=env, capture_output=True, timeout=1800
        ).returncode
    except subprocess.TimeoutExpired:
        return False


def survives(work: Path, path: str, index: int) -> tuple[str, bool]:
    """Apply change number `index` of a file in the copy, run its tests, and put the file back."""
    file = work / path
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    line, words, node = list(changes(tree))[index]
    mutate(node)
    file.write_text(ast.unparse(tree), encoding="utf-8")
    alive = passes(work, path)
    file.write_text(text, encoding="utf-8")
    return f"{path}:{line}: {words} in `{text.splitlines()[line - 1].strip()}`", alive


def main() -> None:
    asked = argparse.ArgumentParser(description="Change one thing of the library, run its tests; the share killed.")
    asked.add_argument("--most", type=int, default=150, help="how many mutants are drawn")
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--only", default="", help="files whose path begins so")
    options = asked.parse_args()
    files = [str(p.relative_to(ROOT)) for place in TESTS for p in [ROOT / place, *(ROOT / place).rglob("*.py")]]
    places = [
        (path, i)
        for path in sorted({f for f in files if f.endswith(".py") and f.startswith(options.only)})
        for i in range(len(list(changes(ast.parse((ROOT / path).read_text(encoding="utf-8"))))))
    ]
    drawn = random.Random(options.seed).sample(places, min(options.most, len(places)))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "checkout"
        shutil.copytree(ROOT, work, ignore=shutil.ignore_patterns(".git", ".venv", "build", "__pycache__"))
        for place in sorted({next(p for p in TESTS if path.startswith(p)) for path, _ in drawn}):
            if not passes(work, place):  # else every mutant would seem killed
                raise SystemExit(f"the tests of {place} fail without any change: {tests_of(place)}")
        killed = 0
        for path, i in drawn:
            told, alive = survives(work, path, i)
            killed += not alive
            print("SURVIVED" if alive else "killed  ", told, flush=True)
    print(f"{killed} of {len(drawn)} killed, drawn from {len(places)} places")


if __name__ == "__main__":
    main()
