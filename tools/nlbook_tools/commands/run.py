"""`nlbook run`: notebooks through papermill, each within its own budgets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nlbook_tools.notebooks.run import Failure, Run


def book() -> Path:
    """The book's root, or a click error that says where to stand."""
    from nlbook_tools.notebooks import book_root

    root = book_root()
    if root is None:
        raise click.UsageError("no notebooks/src here or above: run this inside a clone of the book, or name notebooks")
    return root


def carry_out(calls: Mapping[str, Callable[..., Run]], workers: int) -> list[Run | Failure]:
    """Make the calls (notebook's name -> a call that takes on_cell=) with a bar on standard error that names notebook
    and cell; print one line for each that passes and the report of each that does not."""
    from tqdm import tqdm

    from nlbook_tools.notebooks.run import Failure, run_all

    ended: list[Run | Failure] = []
    with tqdm(total=len(calls), unit="nb", file=sys.stderr, disable=not sys.stderr.isatty(), leave=False) as bar:

        def on_cell(name: str, cell: int, cells: int) -> None:
            bar.set_postfix_str(f"{name} cell {cell}/{cells}")

        heard = {name: partial(call, on_cell=partial(on_cell, name)) for name, call in calls.items()}
        for end in run_all(heard, workers):
            ended.append(end)
            bar.update()
            tqdm.write(f"\n{end}\n" if isinstance(end, Failure) else str(end), file=sys.stderr)
    failed = sum(isinstance(e, Failure) for e in ended)
    click.echo(f"{len(ended) - failed} passed, {failed} failed")
    return ended


def chapter(name: Path) -> Path:
    """A notebook's path: as given if it is one, else the chapter of the book whose file starts with `name`."""
    if name.exists() or name.suffix or len(name.parts) > 1:
        return name
    found = sorted((book() / "notebooks").glob(f"{name}*.ipynb"))
    if len(found) != 1:
        raise click.UsageError(
            f"NOTEBOOK: got {str(name)!r}, expected a path or the start of one chapter's name; "
            f"it fits {[p.stem for p in found] or 'none'}"
        )
    return found[0]


@click.command()
@click.argument("notebook", nargs=-1, type=click.Path(path_type=Path))
@click.option("--full", is_flag=True, help="The notebooks' full parameters and budgets instead of the quick ones.")
@click.option("--jobs", "-j", default=1, show_default=True, type=click.IntRange(1), help="Notebooks at once.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Executed copies go to OUT/<profile>/. [default: build/executed]",
)
def command(notebook: tuple[Path, ...], full: bool, jobs: int, out: Path | None) -> None:
    """Run each NOTEBOOK (a path, or a chapter such as 01; all of notebooks/ by default) with papermill.

    It runs with no network, in a kernel of this Python.

    Parameters and budgets are the notebook's own (metadata nlbook.run.quick and .full). Exit code 1 if one failed.
    On a slow machine NLBOOK_PATIENCE=2 doubles every time budget. A JUnit file: pytest -m notebook --junitxml FILE.
    """
    from nlbook_tools.notebooks import book_root
    from nlbook_tools.notebooks.run import Run, run

    paths = [chapter(p) for p in notebook] or sorted((book() / "notebooks").glob("*.ipynb"))
    if not paths:
        raise click.UsageError("notebooks/ holds no notebook yet: run `nlbook notebooks build`")
    names = [p.name for p in paths]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise click.UsageError(f"two notebooks are called {twice}: their executed copies would collide")
    profile = "full" if full else "quick"
    out = out or (book_root() or Path.cwd()) / "build" / "executed"
    ended = carry_out({p.name: partial(run, p, out, profile) for p in paths}, jobs)
    click.echo(f"executed copies: {out / profile}")
    sys.exit(not all(isinstance(e, Run) for e in ended))
