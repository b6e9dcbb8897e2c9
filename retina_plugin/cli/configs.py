"""List the installed configs with a description.

Those of other packages come by the entry point `retina_plugin.configs`.
"""

from __future__ import annotations

import json

import click
from tabulate import tabulate

from retina_plugin.cli._verb import json_option
from retina_plugin.config.names import named_configs


@click.command(name="configs")
@click.argument("pattern", default="*")
@json_option
def command(pattern: str, as_json: bool) -> None:
    """List the installed configs with a description.

    PATTERN has shell-style wildcards; without any it is a part of the name. Every verb and
    `train_net.py --config-file` take these names, a `_BASE_` takes `retina_plugin://NAME.yaml`.
    The parts that configs are made of match "_base_/*".

    \b
    Examples:
      retina configs
      retina configs "atss*"
      retina configs crowns --json
      retina configs "_base_/recipes/*"

    "measured" says whether this project measured the result in the file's comment "expected".

    Exit codes: 0 listed, 1 nothing matches, 2 the command is wrong.
    """
    found = named_configs(pattern)
    if as_json:
        rows = [
            {
                "name": config.name,
                "path": str(config.path),
                "description": config.description,
                "measured": config.measured,
                "expected": config.expected,
            }
            for config in found
        ]
        click.echo(json.dumps(rows, indent=1))
    elif found:
        rows = [[x.name, "yes" if x.measured else "no", x.description] for x in found]
        click.echo(tabulate(rows, headers=["name", "measured", "description"], tablefmt="plain"))
    if not found:
        click.echo(f"No config matches '{pattern}'. `retina configs` lists all names.", err=True)
        raise SystemExit(1)
