"""Explain config keys: type, default, meaning, valid names, and which file of a config sets them.

The meanings are those beside the defaults, in `config/keys` and the components' docstrings.
"""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retina_plugin.cli._config_path import ConfigPath
from retina_plugin.cli._verb import Verb, import_option, json_option, user_mistakes

if TYPE_CHECKING:
    from retina_plugin.config.explain import Explanation

FEW = 5  # keys that are shown one fact a line
DEFAULT = "default"  # the place of a value that nothing sets
WIDTH = 100  # characters, at most


@click.command(name="config", cls=Verb)
@click.argument("words", nargs=-1, metavar="[KEY|PATTERN]... [KEY=VALUE]...")
@click.option(
    "--config-file",
    type=ConfigPath(),
    help="Path of a config file, or a name from `retina configs`.",
)
@json_option
@click.option("--markdown", is_flag=True, help="Print the reference page of all keys.")
@import_option
def command(
    words: tuple[str, ...],
    config_file: Path | None,
    as_json: bool,
    markdown: bool,
    extensions: tuple[str, ...],
) -> None:
    """Explain config keys: type, default, meaning, valid names, and which file sets them.

    KEY is a key, a group of keys, or the last part of a key; PATTERN has shell-style wildcards.
    Without any, all keys are shown, or with --config-file those that the config sets. With
    --config-file or overrides, KEY=VALUE, each key's value is shown and where it is set.

    \b
    Examples:
      retina config MODEL.RETINANET.ASSIGNER.NAME
      retina config BASE_LR SOLVER.WEIGHT_AVERAGE
      retina config "INPUT.MIX.*" --json
      retina config SOLVER.BASE_LR --config-file atss_crowns SOLVER.BASE_LR=0.01
      retina config --config-file my.yaml

    Exit codes: 0 explained, 1 there is no such key or the config is wrong, 2 the command is wrong.
    """
    from retina_plugin.config.explain import explain_all, find_keys_like
    from retina_plugin.config.reference_page import reference_page

    with user_mistakes(extensions):
        if markdown:
            if words or config_file is not None:
                raise click.UsageError("--markdown is of all keys: it takes no KEY and no config")
            click.echo(reference_page(), nl=False)
            return
        overrides = [word for word in words if "=" in word]
        asked = [word for word in words if "=" not in word]
        explained = explain_all()
        values = _values(config_file, overrides)
        found = [key for word in asked for key in find_keys_like(word, explained)]
        if not asked:
            found = [x for x in explained if not values or values[x.key][1] != DEFAULT]
        found = list({key.key: key for key in found}.values())
    if as_json:
        click.echo(json.dumps([_as_dict(key, values) for key in found], indent=1))
        return
    show = _in_full if len(found) <= FEW else _in_short
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    click.echo("\n".join(show(key, values, width) for key in found))


def _values(config_file: Path | None, overrides: list[str]) -> dict[str, tuple[Any, str]]:
    """Value of every key, and the place in the config's chain or the override that sets it."""
    from retina_plugin.config.config_file import find_keys, parse_overrides
    from retina_plugin.config.mistakes import leaves
    from retina_plugin.runs.lazy_keys import home_of
    from retina_plugin.runs.load_run import is_lazy, load_run

    if config_file is None and not overrides:
        return {}
    cfg = load_run(config_file or "", overrides).settings
    values = {".".join(keys): value for keys, value in leaves(cfg)}
    overridden = {key: "override" for key, _ in parse_overrides(overrides)}
    if config_file is None:
        places = {}
    elif is_lazy(config_file):
        homes = {key: home_of(key) for key in values if home_of(key)}
        places = {key: overridden.get(x, f"{config_file}: {x}") for key, x in homes.items()}
    else:
        places = find_keys(config_file)
    places |= overridden
    return {key: (value, places.get(key, DEFAULT)) for key, value in values.items()}


def _as_dict(key: Explanation, values: dict[str, tuple[Any, str]]) -> dict[str, Any]:
    found = {
        "key": key.key,
        "type": key.type,
        "default": key.default,
        "meaning": key.meaning,
        "valid": list(key.valid),
        "read_by": key.owner,
    }
    if key.key in values:
        found["value"], found["set_in"] = values[key.key]
    return found


def _in_full(key: Explanation, values: dict[str, tuple[Any, str]], width: int) -> str:
    facts = {
        "type": key.type,
        "default": repr(key.default),
        "meaning": key.meaning,
        "valid": ", ".join(key.valid),
        "read by": key.owner,
    }
    if key.key in values:
        value, place = values[key.key]
        facts["value"], facts["set in"] = repr(value), place
    lines = [
        textwrap.fill(
            text,
            width,
            initial_indent=f"  {name:<9}",
            subsequent_indent=" " * 11,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, text in facts.items()
        if text
    ]
    return "\n".join([key.key, *lines])


def _in_short(key: Explanation, values: dict[str, tuple[Any, str]], width: int) -> str:
    value, place = values.get(key.key, (key.default, ""))
    indent = " " * 4
    meaning = textwrap.fill(key.text, width, initial_indent=indent, subsequent_indent=indent)
    return f"{key.key} = {value!r}{f'  ({place})' if place else ''}\n{meaning}"
