"""`nlbook run`: notebooks through papermill, each within its own budgets."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click


def book() -> Path:
    """The book's root, or a click error that says where to stand."""
    from nlbook_tools.notebooks import book_root

    root = book_root()
    if root is None:
        raise click.UsageError("no notebooks/src here or above: run this inside a clone of the book, or name notebooks")
    return root


def carry_out(jobs: list, workers: int) -> list:
    """Do the jobs with a bar on standard error that names notebook and cell; failures are printed as they happen."""
    from tqdm import tqdm

    from nlbook_tools.notebooks.pool import run_all

    outcomes, reached = [], dict.fromkeys((j.path.name for j in jobs), 0.0)
    with tqdm(
        total=len(jobs),
        unit="nb",
        bar_format="{l_bar}{bar}| {n:.1f}/{total} [{elapsed}] {postfix}",
        file=sys.stderr,
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
    ) as bar:

        def advance(name: str, to: float, note: str) -> None:
            bar.set_postfix_str(note, refresh=False)
            bar.update(max(0.0, to - reached[name]))
            bar.refresh()
            reached[name] = max(reached[name], to)

        for outcome in run_all(
            jobs, workers, lambda name, cell, cells: advance(name, (cell - 1) / cells, f"{name} cell {cell}/{cells}")
        ):
            advance(outcome.name, 1.0, outcome.name)
            outcomes.append(outcome)
            if outcome.failure:
                tqdm.write(f"\n{outcome.failure}\n", file=sys.stderr)
            elif bar.disable:
                click.echo(f"{outcome.name}: passed in {outcome.seconds:.1f} s", err=True)
    return outcomes


def shown(outcomes: Iterable) -> int:
    """Print the table; the number of failures."""
    from nlbook_tools.notebooks.pool import table

    outcomes = list(outcomes)
    failed = [o for o in outcomes if o.failure]
    click.echo(table(outcomes))
    click.echo(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed")
    return len(failed)


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
@click.option(
    "--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write the outcomes to this JUnit file."
)
def command(notebook: tuple[Path, ...], full: bool, jobs: int, out: Path | None, junit: Path | None) -> None:
    """Run each NOTEBOOK (a path, or a chapter such as 01; all of notebooks/ by default) with papermill.

    It runs with no network, in a kernel of this Python.

    Parameters and budgets are the notebook's own (metadata nlbook.run.quick and .full). Exit code 1 if one failed.
    On a slow machine NLBOOK_PATIENCE=2 doubles every time budget.
    """
    from nlbook_tools.notebooks import book_root
    from nlbook_tools.notebooks.pool import Job, write_junit

    paths = [chapter(p) for p in notebook] or sorted((book() / "notebooks").glob("*.ipynb"))
    if not paths:
        raise click.UsageError("notebooks/ holds no notebook yet: run `nlbook notebooks build`")
    names = [p.name for p in paths]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise click.UsageError(
            f"two notebooks are called {twice}: their executed copies would collide; run them one by one"
        )
    out = out or (book_root() or Path.cwd()) / "build" / "executed"
    outcomes = carry_out([Job(p, out, "full" if full else "quick") for p in paths], jobs)
    if junit:
        write_junit(outcomes, junit)
    failed = shown(outcomes)
    click.echo(f"executed copies: {out / ('full' if full else 'quick')}")
    sys.exit(bool(failed))
