"""`nlbook doctor`: is this machine ready for the book, and if not, what to do."""

from __future__ import annotations

import json
from dataclasses import asdict

import click


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
def command(as_json: bool) -> None:
    """Check Python, packages, torch, triton, GPU, memory, browser, fonts, data and notebooks. Exit 1 on a failure."""
    from nlbook_tools import doctor

    report = doctor.check()
    click.echo(json.dumps([asdict(c) for c in report], indent=1) if as_json else str(report))
    raise SystemExit(0 if report.ready else 1)
