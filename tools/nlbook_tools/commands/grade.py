"""`nlbook grade`: a course folder's submissions, each judged in a sandbox, into nbgrader's gradebook."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("course", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("assignment", nargs=-1)
@click.option("--feedback", is_flag=True, help="Also write a page of feedback for each student (feedback/).")
@click.option("--trusted", is_flag=True, help="Without a sandbox: only for submissions that you wrote yourself.")
def command(course: Path, assignment: tuple[str, ...], feedback: bool, trusted: bool) -> None:
    """Grade COURSE/submitted/STUDENT/ASSIGNMENT/*.ipynb; the grades go to COURSE/grades.csv.

    COURSE is a folder made by `nlbook release`; without ASSIGNMENT all of them are graded. Each submission runs in a
    sandbox of its own (bubblewrap), without network, files or a way to the judge.
    """
    from nlbook.errors import NLBookError
    from nlbook_tools.course.grade import grade

    try:
        rows = grade(course, assignment, feedback=feedback, trusted=trusted, say=click.echo)
    except NLBookError as error:
        raise click.ClickException(str(error)) from None
    graded = sum(r.state == "graded" for r in rows)
    click.echo(f"{graded} graded, {len(rows) - graded} not; table: {course / 'grades.csv'}")
