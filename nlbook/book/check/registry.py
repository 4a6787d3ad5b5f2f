"""Finding an item by its id. A chapter's definitions are imported when the first of its ids is asked for."""

from __future__ import annotations

import difflib
import importlib.util
import tomllib
from functools import cache
from pathlib import Path
from typing import TypeVar

from nlbook.book import chapters as chapters_package
from nlbook.book.chapters import FOLDERS
from nlbook.book.check.define import Exercise, Item
from nlbook.book.check.questions import LETTERS, Option, Prediction, Question
from nlbook.errors import NLBookError

T = TypeVar("T")


def chapters() -> list[str]:
    """The chapters that have definitions, as two digits."""
    return list(FOLDERS)


def asked(folder: Path) -> list[Prediction | Question]:
    """The predictions and questions of a chapter's folder, from its questions.toml."""
    path = folder / "questions.toml"
    tables = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for item in (i for items in tables.values() for i in items):
        right, pairs = item.pop("right", ""), item.get("options", [])
        item["options"] = tuple(Option(text, why, letter == right) for letter, (text, why) in zip(LETTERS, pairs))
        item |= {name: tuple(item[name]) for name in ("points", "between") if name in item}
    predictions = [Prediction(**i) for i in tables.get("predictions", [])]
    return [*predictions, *(Question(**i) for i in tables.get("questions", []))]


@cache
def chapter(number: str) -> dict[str, Item]:
    """All items of a chapter: what questions.toml asks, then the ITEMS of exercises.py; one error lists every fault."""
    if number not in chapters():
        return {}
    name = f"nlbook.book.chapters.{FOLDERS[number]}.exercises"
    exercises = importlib.import_module(name).ITEMS if importlib.util.find_spec(name) else []
    found: dict[str, Item] = {}
    faults = []
    for item in [*asked(Path(chapters_package.__path__[0]) / FOLDERS[number]), *exercises]:
        faults += [f"{item.id}: {p}" for p in item.problems()]
        if item.id in found:
            faults.append(f"{item.id}: the id is taken twice")
        if item.chapter != number:
            faults.append(f"{item.id}: stands in chapter {number}")
        found[item.id] = item
    if faults:
        raise NLBookError(
            f"chapters/{FOLDERS[number]}: got faulty definitions, expected sound ones:\n  " + "\n  ".join(faults)
        )
    return found


def items(kind: type[T]) -> list[T]:
    """Every registered item of one type, chapter by chapter."""
    return [item for number in chapters() for item in chapter(number).values() if isinstance(item, kind)]


def all_exercises() -> list[Exercise]:
    """Every registered exercise."""
    return items(Exercise)


def find(id: str, kind: type[T]) -> T:
    """The item with this id; an unknown id is answered with the nearest known one."""
    if not isinstance(id, str):
        raise NLBookError(f"id: got {type(id).__name__}, expected a text such as '01-delta'")
    number = id.split("-")[0]
    known = chapter(number)
    item = known.get(id)
    if isinstance(item, kind):
        return item
    of_kind = [k for k, v in known.items() if isinstance(v, kind)]
    near = difflib.get_close_matches(id, of_kind, 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; chapter {number!r} has {', '.join(of_kind) or 'none'}"
    raise NLBookError(f"id: got {id!r}, expected the id of a registered {kind.__name__.lower()}{hint}")


def get(id: str, kind: type[T]) -> T | None:
    """Like `find`, but None where there is no such item."""
    item = chapter(id.split("-")[0]).get(id) if isinstance(id, str) else None
    return item if isinstance(item, kind) else None
