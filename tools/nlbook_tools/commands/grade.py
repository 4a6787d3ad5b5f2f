"""`nlbook grade`: a course folder's submissions, through nbgrader and this book's judge."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("course", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("assignment", nargs=-1)
@click.option("--feedback", is_flag=True, help="Also write a page of feedback for each student (feedback/).")
def command(course: Path, assignment: tuple[str, ...], feedback: bool) -> None:
    """Grade COURSE/submitted/STUDENT/ASSIGNMENT/*.ipynb; the grades go to COURSE/grades.csv.

    COURSE is a folder made by `nlbook release`; without ASSIGNMENT all of them are graded. Each answer runs in
    a process
    of its own, with a time limit, no network, and no way to the judge. That is no prison: grade strangers' code in a
    container.
    """
    from nlbook.errors import NLBookError
    from nlbook_tools.course.apart import fences
    from nlbook_tools.course.grade import grade, told

    click.echo(f"Fences around submissions: {fences()}.", err=True)
    try:
        rows = grade(course, list(assignment), feedback)
    except NLBookError as error:
        raise click.ClickException(str(error)) from None
    click.echo(told(rows))
    click.echo(f"{len(rows)} graded; table: {course / 'grades.csv'}")
