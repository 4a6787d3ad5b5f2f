"""What a student handed in: the file is read with care, its answers are found beside the notebook that was handed out.

Nothing of a submission is run or handed on but the source of its cells. A cell that was copied, split, moved, retyped,
or lost its marks is still somebody's answer where no doubt is possible; `notes` say what was done.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from nlbook_tools.course.exam import find
from nlbook_tools.course.tasks import is_function

MOST_BYTES, MOST_CELLS = 20 << 20, 2000


class Refused(Exception):
    """It cannot be graded; the text is the reason."""


@dataclass(frozen=True)
class Cell:
    """One submitted cell: its source, its id and its place in the grading scheme, as it says."""

    source: str
    code: bool
    id: str
    grade_id: str


@dataclass
class Part:
    """One exercise in a submission: its answer ("" where it is as it was), and the student's own cells around it."""

    id: str
    name: str
    seed: int
    answer: str = ""
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


# -- the file


def notebooks(folder: Path, wanted: list[str]) -> dict[str, tuple[Path, list[str]]]:
    """For each notebook that was handed out the one that came back, with notes. The only one counts whatever its name.

    Raises:
        Refused: the folder or one above it is a link.
    """
    for place in (folder.parent, folder):
        if place.is_symlink() or not place.is_dir():
            raise Refused(f"{place.name} is a link, not a folder")
    came = sorted(p.name for p in folder.iterdir() if p.suffix.lower() == ".ipynb" and not p.name.startswith("."))
    found: dict[str, tuple[Path, list[str]]] = {w: (folder / w, []) for w in wanted if w in came}
    missing, other = [w for w in wanted if w not in found], [c for c in came if c not in wanted]
    if len(missing) == len(other) == 1:
        found[missing[0]] = folder / other[0], [f"the file was named {other[0]!r}"]
    elif other and found:
        next(iter(found.values()))[1].append(f"not read: {', '.join(map(repr, other))}")
    return found


def read(path: Path) -> list[Cell]:
    """The cells of a submitted file.

    Raises:
        Refused: no plain file in its folder, too large, or no notebook; the text says which.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(
            f"a link, not a file: {path.name}" if path.is_symlink() else f"{path.name}: {error.strerror}"
        ) from None
    told = os.fstat(file)
    if not stat.S_ISREG(told.st_mode) or told.st_nlink > 1:
        os.close(file)
        raise Refused(f"{path.name} is no plain file (a link, a folder or a device)")
    with os.fdopen(file, "rb") as opened:
        data = opened.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise Refused(f"{path.name} has more than {MOST_BYTES >> 20} MB: clear its outputs and hand it in again")
    try:
        cells = json.loads(text(data))["cells"]
        if not isinstance(cells, list) or not cells:
            raise ValueError("no cells")
    except (ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise Refused(f"{path.name} cannot be read as a notebook ({type(error).__name__}: {str(error)[:80]})") from None
    if len(cells) > MOST_CELLS:
        raise Refused(f"{path.name} has {len(cells)} cells, more than {MOST_CELLS}")
    return [cell(c) for c in cells if isinstance(c, dict)]


def text(data: bytes) -> str:
    """The text of a file: UTF-8 with or without a BOM, UTF-16, or else Latin-1."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def cell(raw: dict[str, Any]) -> Cell:
    source = raw.get("source", "")
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    source = source.encode("utf-8", "replace").decode() if isinstance(source, str) else ""
    meta = raw.get("metadata")
    marks = meta.get("nbgrader") if isinstance(meta, dict) else None
    grade_id = marks.get("grade_id") if isinstance(marks, dict) else None
    code, id = raw.get("cell_type") == "code", raw.get("id")
    return Cell(source, code, id if isinstance(id, str) else "", grade_id if isinstance(grade_id, str) else "")


# -- the answers


def parts(out: NotebookNode, seed: int) -> list[Part]:
    """The exercises of a notebook that was handed out; an essay, which a person marks, is not among them."""
    found = []
    for c in out.cells:
        meta = c.metadata.get("nbgrader", {})
        if meta.get("grade") and not meta.get("solution"):
            item = find(meta["grade_id"].removesuffix("-test"), seed)
            found.append(Part(item.id, item.solution.__name__ if is_function(item) else "answer", seed))  # type: ignore[attr-defined]
    return found


def match(out: NotebookNode, cells: list[Cell], seed: int) -> list[Part]:
    """Every exercise with its answer from the submission, in the order of the notebook that was handed out."""
    ours = [c.metadata.get("nbgrader", {}).get("grade_id", "") for c in out.cells]
    same = dict(pair for block in _blocks(out, cells) for pair in block)
    role = [_role(c, out, ours) for c in cells]
    free = [i for i, c in enumerate(cells) if c.code and not role[i] and i not in same.values() and c.source.strip()]
    made, start = parts(out, seed), -1
    for part in made:
        at = ours.index(f"{part.id}-test")
        end = max((i for i, r in enumerate(role) if r == f"{part.id}-test"), default=same.get(at, len(cells)))
        near = [i for i in free if start < i < end]
        mine = [i for i, r in enumerate(role) if r == part.id] or [
            i for i in [same.get(ours.index(part.id))] if i is not None
        ]
        mine += [i for i in near if defines(cells[i].source, part.name)]
        if not mine and near:
            mine = near
            part.notes.append("the answer cell had lost its marks and was found by its place")
        if not mine:
            part.notes.append("the answer cell is gone")
        if not all(cells[i].code for i in mine):
            part.notes.append("the answer stood in a cell that is not code; it was read as code")
        stub = out.cells[ours.index(part.id)].source
        answer = _one([cells[i].source for i in sorted(mine)], stub, part)
        part.answer = "" if answer.strip() == stub.strip() else answer
        first = min(mine, default=end)
        part.before = [cells[i].source for i in free if start < i < min(first, end) and i not in mine]
        part.after = [cells[i].source for i in free if max(start, first) < i < end and i not in mine]
        start = max(start, end if end < len(cells) else start)
    return made


def _blocks(out: NotebookNode, cells: list[Cell]) -> list[zip[tuple[int, int]]]:
    """Which cells are as they were handed out: runs of (place there, place here)."""
    there, here = [c.source.strip() for c in out.cells], [c.source.strip() for c in cells]
    blocks = SequenceMatcher(None, there, here, autojunk=False).get_matching_blocks()
    return [zip(range(b.a, b.a + b.size), range(b.b, b.b + b.size)) for b in blocks]


def _role(c: Cell, out: NotebookNode, ours: list[str]) -> str:
    """The grade id of the cell of ours that this one is, by its marks or by its id."""
    if c.grade_id in ours:
        return c.grade_id
    return next((g for g, mine in zip(ours, out.cells) if g and mine.id == c.id), "")


def defines(source: str, name: str) -> bool:
    return bool(re.search(rf"^(?:async )?def {name}\b|^{name}\b.*=", source, re.M))


def _one(sources: list[str], stub: str, part: Part) -> str:
    """One answer from the cells that hold it: the last complete copy, or the pieces put together."""
    tried = [s for s in sources if s.strip() and s.strip() != stub.strip()] or sources[:1]
    whole = [s for s in tried if defines(s, part.name) and "raise NotImplementedError" not in s]
    if len(whole) > 1:
        part.notes.append(f"there were {len(whole)} copies of the answer; the last one counts")
        tried = [s for s in tried if s not in whole or s is whole[-1]]
    if len(tried) > 1:
        part.notes.append(f"the answer stood in {len(tried)} cells; they were read as one")
    return "\n".join(tried)
