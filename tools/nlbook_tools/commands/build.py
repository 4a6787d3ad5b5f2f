"""`nlbook build`: the static site."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from nlbook_tools.commands.run import book


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder [default: build/site].")
@click.option("--check", "only_check", is_flag=True, help="Check the site that lies there; build nothing.")
@click.option(
    "--jobs",
    "-j",
    default=min(2, os.cpu_count() or 1),
    show_default=True,
    type=click.IntRange(1),
    help="Processes that draw frames.",
)
@click.option("--few", is_flag=True, help="Of each moving picture only its landmarks: faster, smaller.")
def command(out: Path | None, only_check: bool, jobs: int, few: bool) -> None:
    """The book as a web site that needs no kernel, no server and no network: open build/site/index.html.

    It is made from the executed notebooks as they are committed, and then checked: links, alternative texts, headings,
    labels, contrast. Exit code 1 if there is anything to mend.
    """
    from nlbook.errors import NLBookError
    from nlbook_tools.site import check
    from nlbook_tools.site.build import build

    root = book()
    folder = out or root / "build" / "site"
    try:
        if not only_check:
            start = time.perf_counter()
            build(
                root,
                folder,
                jobs=jobs,
                cache=root / "build" / "frames",
                few=few,
                say=lambda line: click.echo(line, err=True),
            )
            click.echo(f"built in {time.perf_counter() - start:.0f} s: {folder}", err=True)
        problems = check.site(folder)
    except NLBookError as error:
        raise click.ClickException(str(error)) from None
    for p in problems:
        click.echo(str(p), err=True)
    pages = len(list(folder.rglob("*.html")))
    click.echo(f"{pages} pages, {len(problems)} findings")
    sys.exit(bool(problems))
