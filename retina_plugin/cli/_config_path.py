"""The type of every verb's config argument: a path, or the name of an installed config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from retina_plugin.config.names import find_config
from retina_plugin.config.safe_yaml import ConfigFileError


class ConfigPath(click.ParamType):
    """A config file by its path or name; the value is the path of a file that exists."""

    name = "config"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The file; a name that is unknown or ambiguous ends the command with exit code 2."""
        try:
            return find_config(value)
        except ConfigFileError as error:
            self.fail(str(error), param, ctx)
