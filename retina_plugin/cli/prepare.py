"""Make a data set from files of installed packages: tree crowns or digits.

The sets are COCO json and images under `$DETECTRON2_DATASETS` (or `./datasets`), Detectron2's own
convention.
"""

from __future__ import annotations

import logging
from pathlib import Path

import click

from retina_plugin.data.example_data import EXAMPLES, default_folder


@click.command(name="prepare")
@click.argument("name", type=click.Choice(list(EXAMPLES)), metavar="[crowns|digits]")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to make.  [default: $DETECTRON2_DATASETS/NAME or datasets/NAME]",
)
def command(name: str, out: Path | None) -> None:
    """Make an example data set from files of installed packages, unless it exists.

    \b
    crowns  aerial photographs with hand-drawn boxes of trees: train, val, two test sets
    digits  handwritten digits drawn on photographs, ten classes: train, val
    \b
    Examples:
      retina prepare crowns
      retina prepare digits --out /data/digits
    Exit codes: 0 it is there, 1 it cannot be made, 2 the command is wrong.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    out = out or default_folder(name)
    try:
        EXAMPLES[name].prepare(out)
    except OSError as error:  # a package that is missing, a full disk, no right to write
        raise click.ClickException(str(error)) from error
    click.echo(f"{name} are ready in {out}")
