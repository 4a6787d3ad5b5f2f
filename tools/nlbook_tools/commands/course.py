"""`nlbook course`: sessions and their minutes, and the tables of notebooks/teaching."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from nlbook_tools.commands.run import book


@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Teaching with the book: without a subcommand, the sessions that `nlbook release` can cut."""
    if context.invoked_subcommand is None:
        from nlbook_tools.course import plans

        for syllabus in plans.syllabi():
            click.echo(syllabus.title)
            for s in syllabus.sessions:
                chapters = ", ".join(p.chapter for p in s.parts)
                took = plans.in_class(s, book() / "notebooks")
                click.echo(f"  {s.name:<11} {took:>3} of {s.minutes} min  chapter {chapters:<15} {s.title}")


@command.command()
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if a table is old.")
def docs(check: bool) -> None:
    """Renew the tables of notebooks/teaching from the chapters, exercises and sessions."""
    from nlbook_tools.course import docs as made

    folder = book() / "notebooks"
    changed = made.stale(folder) if check else made.write(folder)
    for path in changed:
        click.echo(f"{path.relative_to(folder)}: {'old; run nlbook course docs' if check else 'renewed'}")
    raise SystemExit(bool(changed and check))


@command.command()
def measure() -> None:
    """Run every notebook and note its seconds, its seconds of processor time and its peak memory for
    notebooks/teaching/infra.md (some minutes). On a busy machine only the processor time means something."""
    import psutil

    from nlbook.book.chapters import files
    from nlbook_tools.commands.run import carry_out
    from nlbook_tools.course.docs import COSTS
    from nlbook_tools.notebooks.run import Run, run

    folder, out = book() / "notebooks", book() / "build" / "executed"
    ended = carry_out({p.name: partial(run, p, out) for p in files(folder)}, 1)
    done = [r for r in ended if isinstance(r, Run)]
    if len(done) < len(ended):
        raise click.ClickException("a notebook failed: nothing is noted")
    memory = psutil.virtual_memory().total / 2**30
    machine = (
        f"{platform.system()} {platform.machine()}, {psutil.cpu_count()} CPUs, {memory:.0f} GB, "
        f"Python {platform.python_version()}, no GPU"
    )
    rows = [
        {
            "notebook": o.name.removesuffix(".ipynb"),
            "seconds": round(o.seconds, 1),
            "cpu_seconds": round(o.cpu_s, 1),
            "peak_mb": round(o.peak_mb),
        }
        for o in sorted(done, key=lambda r: r.name)
    ]
    found = {
        "when": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "load": round(psutil.getloadavg()[1], 1),
        "notebooks": rows,
    }
    text = json.dumps(found, indent=1)
    (folder / "teaching" / COSTS).write_text(text + "\n", encoding="utf-8", newline="\n")
    click.echo(f"{len(rows)} notebooks measured; now: nlbook course docs")


@command.command()
@click.argument("course", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("assignment")
def samples(course: Path, assignment: str) -> None:
    """Put four submissions into COURSE/submitted to try the grading with: right, incomplete, hanging, cheating."""
    from nlbook.errors import NLBookError
    from nlbook_tools.course import samples as made

    try:
        points = made.make(course, assignment)
    except NLBookError as error:
        raise click.ClickException(str(error)) from None
    for name, earned in points.items():
        click.echo(f"submitted/{name}/{assignment}: should get {earned:g} points")
