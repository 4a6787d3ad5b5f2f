"""Writing sets: which notebooks for whom, into which folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nbformat import NotebookNode

from nlbook.errors import NLBookError
from nlbook_tools.course import exam, marked, release
from nlbook_tools.course.notes import annotate
from nlbook_tools.course.plans import session, sessions
from nlbook_tools.course.release import Sheet

KINDS = ("student", "solution", "instructor")
Say = Callable[[str], None]


def make(
    folder: Path,
    names: Sequence[str],
    out: Path,
    *,
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
    execute: bool = False,
    with_key: bool = False,
    say: Say = lambda _: None,
) -> list[Path]:
    """Write sets into `out`; the paths of what was written.

    names: chapters (01), sessions (session-50) or exam; folder: notebooks/. Of the exam only the student's notebook is
    made, and with `with_key` the key and the solved notebook.

    Raises:
        NLBookError: an unknown chapter, or a solution notebook that does not run.
    """
    written: list[Path] = []
    seeds = {}
    for name in dict.fromkeys(names):
        for fresh, drop in sheets(folder, name, seed):
            made = fresh()
            assignment = name if made.exam or name in sessions() else made.name.split("_")[0]
            seeds[assignment] = seed
            for kind in kinds if not made.exam else ["student"] + ["solution"] * with_key:
                nb = notebook(fresh(), kind, folder, drop)
                done = run(nb, made.name, folder, say) if execute and kind != "student" else nb
                place = out / ("release" if kind == "student" else kind) / assignment
                written.append(marked.put(place / f"{made.name}.ipynb", release.finish(done, kind)))
            if made.exam and with_key:
                written.append(marked.put(out / "key" / f"exam-{seed}.md", exam.key(seed)))
    return written + marked.folder(out, seeds)


def sheets(folder: Path, name: str, seed: int) -> list[tuple[Callable[[], Sheet], Sequence[str]]]:
    """What a name stands for: (makes a fresh sheet, the headings left out) for each notebook."""
    if name == exam.NAME:
        return [(lambda: exam.sheet(seed), ())]

    def maker(source: Path, drop: Sequence[str]) -> Callable[[], Sheet]:
        return lambda: release.sheet(source, seed, drop)

    return [(maker(source, drop), drop) for source, drop in session(folder, name)]


def notebook(made: Sheet, kind: str, folder: Path, drop: Sequence[str]) -> NotebookNode:
    """The notebook for a student, its solution, or the solution with teacher's notes."""
    if kind == "student":
        return marked.student(made)
    nb = release.solution(made)
    if kind == "instructor":
        annotate(made, folder, drop)
    return nb


def run(nb: NotebookNode, stem: str, folder: Path, say: Say) -> NotebookNode:
    """The notebook, executed as the tests execute chapters.

    Raises:
        NLBookError: it failed; the text is the report.
    """
    from nlbook_tools.notebooks import sync
    from nlbook_tools.notebooks.run import NotebookFailed, execute, plan

    say(f"running {stem}")
    try:
        done = execute(nb, f"{stem}.ipynb", plan(nb, stem), cwd=folder)
    except NotebookFailed as failed:
        raise NLBookError(f"{stem}: got a failing notebook, expected a set that runs:\n{failed}") from None
    return sync.image(done.nb, stem)
