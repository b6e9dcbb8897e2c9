"""The command line `retina <verb>`: each module beside this one with a `command` is a verb.

A verb's module is imported only when the verb runs (its line in `retina --help` is the first line
of its docstring, read without importing it), so heavy imports may stand at its top.
"""

from __future__ import annotations

import ast
import pkgutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click


class VerbGroup(click.Group):
    """A click group whose commands are the modules of this package, loaded when needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs: module names without a leading underscore, underscores shown as hyphens."""
        names = (module.name for module in pkgutil.iter_modules(__path__))
        return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and take its `command`.

        Raises:
            TypeError: the module has none.
        """
        if cmd_name not in self.list_commands(ctx):
            return None
        module = import_module(f"{__name__}.{cmd_name.replace('-', '_')}")
        command = getattr(module, "command", None)
        if not isinstance(command, click.Command):
            raise TypeError(
                f"{module.__file__}: a module in {__name__} is a verb and needs an attribute "
                f"`command` (a click.Command), got {command!r}"
            )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """An unknown verb is an error that lists the valid ones."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            verbs = ", ".join(self.list_commands(ctx))
            raise click.UsageError(f"{error.message} The verbs are: {verbs}.", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs with their first docstring line."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, _first_line(name)) for name in self.list_commands(ctx)])


def _first_line(verb: str) -> str:
    spec = find_spec(f"{__name__}.{verb.replace('-', '_')}")
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


@click.command(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """RetinaNet for Detectron2: train, check, evaluate, compare and run detectors."""
