"""A verb that builds or reads a detector: it needs the components."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click


class Verb(click.Command):
    """A click command that registers every component before its callback runs.

    Help, completion and mistakes in the command line do not wait for that; so a verb's module
    imports what needs PyTorch in its functions.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Register, then run."""
        import_module("retina_plugin.public")
        return super().invoke(ctx)
