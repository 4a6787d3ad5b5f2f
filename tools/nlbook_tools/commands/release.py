"""`nlbook release`: sets for students, solutions and teacher's notes, from the chapters that readers read."""

from __future__ import annotations

from pathlib import Path

import click

from nlbook_tools.commands.run import book

KINDS = ("student", "solution", "instructor")


@click.command()
@click.argument("chapter", nargs=-1, required=True)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The course folder.")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Private cases and other numbers from this seed; 0 is the book as printed. Keep it to yourself.",
)
@click.option("--for", "who", default="all", show_default=True, type=click.Choice([*KINDS, "all"]))
@click.option("--execute", is_flag=True, help="Run the solution and instructor notebooks, so that they have outputs.")
@click.option("--with-key", is_flag=True, help="Also the exam's key and solved notebook (OUT/key, OUT/solution).")
def command(chapter: tuple[str, ...], out: Path, seed: int, who: str, execute: bool, with_key: bool) -> None:
    """Make the sets of each CHAPTER in OUT: 01, a session such as session-50 (`nlbook course` lists them), or exam.

    \b
    OUT/release/01/      for students: no solutions, no private cases
    OUT/solution/01/     every exercise solved
    OUT/instructor/01/   the same with teacher's notes
    """
    from nlbook.errors import NLBookError
    from nlbook_tools.course.sets import make

    try:
        made = make(
            book() / "notebooks",
            chapter,
            out,
            seed=seed,
            kinds=KINDS if who == "all" else (who,),
            execute=execute,
            with_key=with_key,
            say=lambda line: click.echo(line, err=True),
        )
    except NLBookError as error:
        raise click.ClickException(str(error)) from None
    for path in made:
        click.echo(str(path))
