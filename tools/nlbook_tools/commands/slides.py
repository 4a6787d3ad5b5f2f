"""`nlbook slides`: a deck from the cells of a chapter."""

from __future__ import annotations

from pathlib import Path

import click

from nlbook_tools.commands.run import book


@click.command()
@click.argument("chapter", nargs=-1)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder [default: build/slides].")
def command(chapter: tuple[str, ...], out: Path | None) -> None:
    """Slides of CHAPTER (01, 01_memory; all by default), one HTML file each that needs nothing else.

    Arrows or space turn the page, Esc shows all, S opens the speaker's window, T is dark, digits choose the states of a
    picture. To print: open the file with ?print-pdf behind its name and print it.
    """
    from nlbook.errors import NLBookError
    from nlbook_tools.site.cells import read_chapters
    from nlbook_tools.site.deck import slides
    from nlbook_tools.site.twins import Frames

    root = book()
    every = read_chapters(root / "notebooks")
    for name in chapter:
        if not any(name in (c.number, c.stem) for c in every):
            known = ", ".join(c.number for c in every)
            raise click.BadParameter(f"no chapter {name!r}; there are {known or 'none yet'}")
    wanted = [c for c in every if not chapter or c.number in chapter or c.stem in chapter]
    try:
        slides(wanted, out or root / "build" / "slides", Frames(root / "build" / "frames"), click.echo)
    except NLBookError as error:
        raise click.ClickException(str(error)) from None
