"""`nlbook bench`: ratios, measured here and now."""

from __future__ import annotations

import importlib
import json
import pkgutil

import click


def suites() -> list[str]:
    from nlbook_tools import bench

    return sorted(m.name for m in pkgutil.iter_modules(bench.__path__) if m.name != "core")


@click.command()
@click.argument("suite", nargs=-1)
@click.option("--full", is_flag=True, help="Larger sizes and more rounds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--threads", default=1, show_default=True, help="Threads of torch; CPU time counts idle ones too.")
def command(suite: tuple[str, ...], full: bool, as_json: bool, threads: int) -> None:
    """Measure SUITE (all of them by default) and print ratios of things timed in one run."""
    import torch

    torch.set_num_threads(threads)
    if unknown := sorted(set(suite) - set(suites())):
        raise click.BadParameter(f"no suite {unknown}; there are {suites()}")
    found = {}
    for name in suite or suites():
        reports = importlib.import_module(f"nlbook_tools.bench.{name}").suite(quick=not full)
        found[name] = [r.as_dict() for r in reports]
        if not as_json:
            click.echo("\n\n".join(r.table() for r in reports) + "\n")
    if as_json:
        click.echo(json.dumps(found, indent=2))
