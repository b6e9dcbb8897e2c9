"""What the verbs share: options, registration before they run, and error messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

import_option = click.option(
    "--import", "extensions", multiple=True, help="Import this module or .py file first."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as json only.")


class Verb(click.Command):
    """A click command that registers every component before its callback runs.

    Help, completion and mistakes in the command line do not wait for that; so a verb's module
    imports what needs PyTorch in its functions.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Register, then run."""
        import_module("retina_plugin.public")
        return super().invoke(ctx)


@contextmanager
def user_mistakes(extensions: Sequence[str] = ()) -> Iterator[None]:
    """End the program with the message alone where a mistake is the user's.

    Args:
        extensions: modules or files of the user's, imported first; ``package://`` paths are known
            from then on.
    """
    from retina_plugin.config.extensions import import_extension
    from retina_plugin.data.package_files import register_package_paths
    from retina_plugin.engine.user_errors import user_errors

    with user_errors():
        register_package_paths()
        for extension in extensions:
            import_extension(extension)
        yield
