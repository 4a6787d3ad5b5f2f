"""Writing sets: which notebooks for whom, in which form, into which folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nbformat import NotebookNode

from nlbook.errors import NLBookError
from nlbook_tools.course import exam, marked, otter, release
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
    form: str = "nbgrader",
    execute: bool = False,
    with_key: bool = False,
    say: Say = lambda _: None,
) -> list[Path]:
    """Write sets into `out`; the paths of what was written.

    names: chapters (01), sessions (session-50) or exam; folder: notebooks/. Of the exam only the student's and
    nbgrader's
    notebooks are made, and with `with_key` the key and the solved notebook.

    Raises:
        NLBookError: an unknown chapter, or a solution notebook that does not run.
    """
    written: list[Path] = []
    seeds = {}
    for name in dict.fromkeys(names):
        for fresh, drop in sheets(folder, name, seed, names if form == "plain" else ()):
            made = fresh()
            assignment = name if made.exam or name in sessions() else made.name[:2]
            seeds[assignment] = seed
            wanted = [k for k in kinds if not made.exam or k == "student"] + ["solution"] * (made.exam and with_key)
            for kind, nb in notebooks(fresh, wanted, form, folder, drop):
                place = out / kind if form == "plain" else out / kind / assignment
                done = run(nb, made.name, folder, say) if execute and kind in ("solution", "instructor") else nb
                written.append(marked.write(place / f"{made.name}.ipynb", done, kind))
            if made.exam and with_key:
                path = out / "key" / f"exam-{seed}.md"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(exam.key(seed), encoding="utf-8", newline="\n")
                written.append(path)
    return written + (marked.folder(out, seeds) if form == "nbgrader" else [])


def sheets(
    folder: Path, name: str, seed: int, beside: Sequence[str]
) -> list[tuple[Callable[[], Sheet], Sequence[str]]]:
    """What a name stands for: (makes a fresh sheet, the headings left out) for each notebook. beside: chapters
    that lie in
    the same folder."""
    if name == exam.NAME:
        return [(lambda: exam.sheet(seed), ())]

    def maker(source: Path, drop: Sequence[str]) -> Callable[[], Sheet]:
        return lambda: release.sheet(source, seed, drop, beside)

    return [(maker(source, drop), drop) for source, drop in session(folder, name)]


def notebooks(
    fresh: Callable[[], Sheet], kinds: Sequence[str], form: str, folder: Path, drop: Sequence[str]
) -> list[tuple[str, NotebookNode]]:
    """(the folder it goes to, the notebook) for each kind, each from a fresh sheet."""
    made: list[tuple[str, NotebookNode]] = []
    if "student" in kinds:
        cut = {"plain": release.student, "nbgrader": marked.student, "otter": otter.assign}[form]
        made.append(({"plain": "student", "nbgrader": "release", "otter": "otter"}[form], cut(fresh())))
    if form == "nbgrader":
        made.append(("source", marked.source(fresh())))
    if "solution" in kinds:
        made.append(("solution", release.solution(fresh())))
    if "instructor" in kinds:
        sheet = fresh()
        nb = release.solution(sheet)
        annotate(sheet, folder, drop)
        made.append(("instructor", nb))
    return made


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
