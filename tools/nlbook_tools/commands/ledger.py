"""`nlbook ledger`: run the reproduction ledger, or read it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nlbook_tools.commands.run import book


@click.group(invoke_without_command=True)
@click.option(
    "--profile",
    type=click.Choice(["quick", "full"]),
    default="quick",
    show_default=True,
    help="quick: minutes on two cores. full: an hour and more.",
)
@click.option("--only", multiple=True, help="A row's id, such as table5; may be given several times.")
@click.option("--jobs", "-j", default=2, show_default=True, help="Processes at a time.")
@click.option("--fresh", is_flag=True, help="Run again what is kept.")
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Where runs are kept  [NLBOOK_LEDGER_CACHE, or .nlbook/ledger]."
)
@click.option("--out", type=click.Path(path_type=Path), help="Where the ledger is written.  [the book's notebooks/]")
@click.option("--check", is_flag=True, help="Run nothing: is the ledger in --out in step with the rows?")
@click.option("--list", "list_rows", is_flag=True, help="Run nothing: every row and its verdict.")
@click.pass_context
def command(
    ctx: click.Context,
    profile: str,
    only: tuple[str, ...],
    jobs: int,
    fresh: bool,
    cache: Path | None,
    out: Path | None,
    check: bool,
    list_rows: bool,
) -> None:
    """Run the experiments of the ledger and write ledger.json, ledger.md and the pictures."""
    reads = list_rows or check or ctx.invoked_subcommand
    out = out or (committed() if reads else book() / "notebooks")
    ctx.obj = {"out": out, "profile": profile}
    if ctx.invoked_subcommand:
        return
    from nlbook.book.ledger import all_rows, find
    from nlbook.book.ledger.report import ledger_file, load
    from nlbook.errors import NLBookError

    rows = all_rows()
    try:
        asked = [find(i) for i in only] or rows
    except NLBookError as e:
        raise click.BadParameter(str(e), param_hint="--only") from e
    if list_rows:
        held = load(ledger_file(out, profile))
        for row in asked:
            word = held[row.id]["verdict"]["word"] if row.id in held else "not run yet"
            click.echo(f"{row.id:<16} {row.source:<22} {word:<24} {row.title}")
        return
    if check:
        _check(out, profile)
        return
    if not _run(asked, rows, profile, jobs, fresh, cache, out):
        sys.exit(1)


def committed() -> Path:
    """The folder of the ledger that is read: the clone's, or that of an installed package."""
    from nlbook.book.ledger.verdicts import ledger_file
    from nlbook_tools.notebooks import book_root

    if root := book_root():
        return root / "notebooks"
    if shipped := ledger_file():
        return shipped.parent
    raise click.UsageError("no ledger here: run this inside a clone of the book, or name one with --out")


def _check(out: Path, profile: str) -> None:
    from nlbook.book.ledger import all_rows
    from nlbook.book.ledger.report import out_of_step

    wrong, old = out_of_step(all_rows(), out, profile)
    for line in [*wrong, *old]:
        click.echo(line)
    if wrong:
        sys.exit(1)
    click.echo("the ledger is in step with its rows" + (" (some numbers are older than the code)" if old else ""))


def _run(asked: list, rows: list, profile: str, jobs: int, fresh: bool, cache: Path | None, out: Path) -> bool:
    from tqdm import tqdm

    from nlbook.book.ledger.engine import settings_hash
    from nlbook.book.ledger.report import enter_all, write

    # how many cells a stage has is known before the tuning: the same number whatever is chosen
    cells = [c for row in asked for c in [*row.tuning(profile), *row.cells(profile, {})]]
    total = len({settings_hash(c) for c in cells})
    bar = tqdm(total=total, desc="ledger", unit="cell", dynamic_ncols=True, leave=False, disable=None)

    def on_row(row, entry) -> None:
        write([entry], rows, out, profile)
        word = entry["verdict"]["word"] or "no verdict"
        bar.write(f"{row.id:<16} {word:<24} {entry['cpu_seconds']:7.0f} s  {entry['verdict']['because']}")

    def on_end(cell, outcome) -> None:
        if outcome.error is not None:
            bar.write(f"{cell.name} failed\n{outcome.error}", file=sys.stderr)
        bar.update()

    with bar:
        entries = enter_all(asked, profile, on_row=on_row, jobs=jobs, fresh=fresh, folder=cache, on_end=on_end)
    failed = {e["id"]: e["failed"] for e in entries if e["failed"]}
    for id, runs in failed.items():
        click.echo(f"{id}: {len(runs)} of its runs failed; the others are kept", err=True)
    return not failed


@command.command()
@click.argument("row")
@click.pass_context
def show(ctx: click.Context, row: str) -> None:
    """The section of one ROW, as it stands in ledger.md."""
    from nlbook.book.ledger import find
    from nlbook.book.ledger.report import ledger_file, load, section
    from nlbook.errors import NLBookError

    try:
        found = find(row)
    except NLBookError as e:
        raise click.BadParameter(str(e)) from e
    held = load(ledger_file(ctx.obj["out"], ctx.obj["profile"]))
    if found.id not in held:
        raise click.ClickException(f"{found.id} has not been run: nlbook ledger --only {found.id}")
    click.echo(section(found, held[found.id]))
