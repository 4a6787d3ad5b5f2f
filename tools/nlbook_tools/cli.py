"""The command line: `nlbook <command>`. Each command is one file of commands/, imported when it is asked for."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import Any

try:
    import click
except ModuleNotFoundError:  # the library alone is installed
    sys.exit("nlbook: the command line needs click: pip install 'nlbook[book]'")

from nlbook import __version__
from nlbook_tools import commands


class Rooms(click.Group):
    """A group whose commands are the modules of nlbook_tools.commands: `--help` imports nothing heavy."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(m.name for m in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        return importlib.import_module(f"nlbook_tools.commands.{name}").command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as missing:
            need = f"this command needs {missing.name}: pip install 'nlbook[book]'"
            raise click.ClickException(f"{need} (or another extra: course, site, text, hf)") from None


@click.group(cls=Rooms, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nlbook")
def main() -> None:
    """nlbook: the Nested Learning book. Run it, test it, measure it."""


if __name__ == "__main__":
    main()
