"""`nlbook exercises`: what there is to do, and whether its definitions are sound."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("chapter", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--problems", is_flag=True, help="Run every definition; list what is wrong, and exit 1 if anything is.")
def command(chapter: tuple[str, ...], as_json: bool, problems: bool) -> None:
    """List the exercises of CHAPTER (two digits; all of them by default)."""
    from nlbook.book.check import registry
    from nlbook.book.check.show import Table

    if unknown := sorted(set(chapter) - set(registry.chapters())):
        raise click.BadParameter(f"no exercises of {', '.join(unknown)}; there are {', '.join(registry.chapters())}")
    listed = [e for e in registry.all_exercises() if not chapter or e.chapter in chapter]
    if problems:
        from nlbook.book.check.testing import check_definition

        faults = [f"{e.id}: {p}" for e in listed for p in check_definition(e)]
        click.echo("\n".join(faults) or f"{len(listed)} exercises are sound.")
        raise SystemExit(bool(faults))
    fields = ("id", "title", "kind", "minutes", "difficulty", "objective", "points")
    rows = [{f: getattr(e, f) for f in fields} for e in listed]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        note = f"{len(rows)} exercises, {sum(e.minutes for e in listed)} minutes."
        click.echo(Table("Exercises", fields, [[str(v) for v in r.values()] for r in rows], note).text())
