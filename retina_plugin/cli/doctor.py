"""Check a config, its data and this machine; explain each problem and how to fix it.

The same as train_net.py does before it trains, with more to read and a cleaned copy on request.
"""

from __future__ import annotations

import json
import shlex
import shutil
from logging import ERROR, WARNING
from pathlib import Path

import click

from retina_plugin.cli._config_path import ConfigPath
from retina_plugin.cli._quiet import quiet
from retina_plugin.cli._verb import Verb, import_option, json_option, user_mistakes
from retina_plugin.data.example_data import EXAMPLES, example_overrides

WIDTH = 100  # characters, at most


@click.command(name="doctor", cls=Verb)
@click.argument("config", type=ConfigPath())
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--data", type=click.Choice(list(EXAMPLES)), help="Use this example data set instead."
)
@click.option("--eval-only", is_flag=True, help="Check only what an evaluation needs.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings, too.")
@click.option("-v", "--verbose", is_flag=True, help="Also show notes and more examples.")
@json_option
@click.option(
    "--write-clean",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write cleaned copies of the jsons and a config that uses them.",
)
@import_option
def command(
    config: Path,
    overrides: tuple[str, ...],
    data: str | None,
    eval_only: bool,
    strict: bool,
    verbose: bool,
    as_json: bool,
    folder: Path | None,
    extensions: tuple[str, ...],
) -> None:
    """Check a config, its data and this machine; explain each problem and how to fix it.

    Each fix can be pasted: KEY=VALUE at the end of this command or `retina train`, or a command.

    \b
    Examples:
      retina doctor my.yaml
      retina doctor my.yaml SOLVER.BASE_LR=0.001 --verbose
      retina doctor my.yaml --write-clean clean && retina doctor clean/clean.yaml
      retina doctor my.yaml --json --strict > doctor.json

    Exit codes: 0 no errors, 1 errors (with --strict warnings too) or a config that cannot be read,
    2 the command is wrong, such as a config that is not there.
    """
    from retina_plugin.runs.load_run import keys_set_in, load_run
    from retina_plugin.workbench.doctor.cleaning import write_clean
    from retina_plugin.workbench.doctor.doctor import diagnose
    from retina_plugin.workbench.doctor.screen import as_text, as_values

    with user_mistakes(extensions):
        words = [*(example_overrides(data) if data else ()), *overrides]
        cfg = load_run(config, words).settings
        with quiet():
            called = shlex.join([str(config), *overrides, *(["--data", data] if data else ())])
            own = keys_set_in(config, words)
            diagnosis = diagnose(cfg, train=not eval_only, command=called, own=own)
        written = None
        if folder is not None:
            written = write_clean(diagnosis, cfg, folder, base=config, overrides=words)
    if as_json:
        values = as_values(diagnosis)
        if written is not None:
            values["written"] = str(written.config)
        click.echo(json.dumps(values, indent=1))
    else:
        width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
        click.echo(as_text(diagnosis, verbose=verbose, width=width, paint=_paint))
        if written is not None:
            click.echo("\n".join(["", *written.lines]))
    if diagnosis.count(ERROR) or (strict and diagnosis.count(WARNING)):
        raise SystemExit(1)


def _paint(text: str, colour: str) -> str:
    return click.style(text, fg=colour)
