"""`nlbook notebooks`: text sources and their built images."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from nlbook_tools.commands.run import book, carry_out


def chosen(names: tuple[str, ...]) -> list[tuple[Path, Path]]:
    """(text source, notebook) for each name: 01, 01_memory, or a path to either file; every chapter without names."""
    folder = book() / "notebooks"
    every = sorted({p.stem for p in (folder / "src").glob("*.md")} | {p.stem for p in folder.glob("*.ipynb")})
    stems = []
    for name in names:
        found = [s for s in every if s == Path(name).stem or s.split("_")[0] == name]
        if not found:
            raise click.BadParameter(f"no notebook {name!r}; there are {', '.join(every) or 'none yet'}")
        stems += found
    return [(folder / "src" / f"{s}.md", folder / f"{s}.ipynb") for s in (dict.fromkeys(stems) if names else every)]


def findings(pairs: list[tuple[Path, Path]]) -> list:
    """What is wrong with these notebooks, without running them: in step with the text, and the contract."""
    import nbformat

    from nlbook_tools.notebooks import contract, sync

    bad = []
    for src, out in pairs:
        bad += sync.check(src, out)
        if out.exists():
            bad += contract.check(nbformat.read(out, 4), out.name)
    return bad


@click.group()
def command() -> None:
    """notebooks/src/*.md (what you edit and review) and notebooks/*.ipynb (executed, what readers open)."""


@command.command()
@click.argument("name", nargs=-1)
@click.option("--jobs", "-j", default=1, show_default=True, type=click.IntRange(1), help="Notebooks at once.")
@click.option("--changed", is_flag=True, help="Only those that are not in step with their text.")
def build(name: tuple[str, ...], jobs: int, changed: bool) -> None:
    """Execute the text sources and write their notebooks (NAME: 01, 01_memory; all by default).

    A notebook that fails is left as it was. Afterwards the contract is checked; exit code 1 if there is anything to
    mend.
    """
    from nlbook_tools.notebooks import sync
    from nlbook_tools.notebooks.run import Failure

    pairs, copies = chosen(name), book() / "build" / "executed" / "build"
    try:
        if changed:
            pairs = [(src, out) for src, out in pairs if sync.check(src, out)]
        if not pairs:
            click.echo("nothing to build")
            return
        ended = carry_out({out.name: partial(sync.build, src, out, copy=copies / out.name) for src, out in pairs}, jobs)
        failed = any(isinstance(e, Failure) for e in ended)
        built = [] if failed else findings(pairs)
    except sync.SourceError as e:
        raise click.ClickException(str(e)) from None
    report(built)
    sys.exit(bool(failed or built))


@command.command()
@click.argument("name", nargs=-1)
def check(name: tuple[str, ...]) -> None:
    """Without running anything: is every notebook in step with its text, in normal form, and within the contract?"""
    from nlbook_tools.notebooks import sync

    pairs = chosen(name)
    try:
        bad = findings(pairs)
    except sync.SourceError as e:
        raise click.ClickException(str(e)) from None
    report(bad)
    click.echo(f"{len(pairs)} notebooks, {len(bad)} findings")
    sys.exit(bool(bad))


@command.command()
@click.argument("name", nargs=-1, required=True)
def text(name: tuple[str, ...]) -> None:
    """After editing NAME in JupyterLab: write its cells back into its text source."""
    from nlbook_tools.notebooks import sync

    for src, out in chosen(name):
        if not out.exists():
            raise click.BadParameter(
                f"{out.name} does not exist: nothing to write back; `nlbook notebooks build` makes it"
            )
        try:
            sync.write_text(out, src)
        except sync.SourceError as e:
            raise click.ClickException(str(e)) from None
        click.echo(f"{src.name}: written; now `nlbook notebooks build {src.stem}`")


def report(problems: list) -> None:
    """Print findings, one line each."""
    for p in problems:
        click.echo(str(p), err=True)
