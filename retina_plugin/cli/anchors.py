"""Measure how well the anchors cover the boxes; fit sizes and ratios; draw pictures.

Boxes are measured after the resize and crops of the config.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retina_plugin.cli._config_path import ConfigPath
from retina_plugin.cli._quiet import quiet
from retina_plugin.cli._verb import Verb, import_option, json_option, user_mistakes
from retina_plugin.data.example_data import EXAMPLES, example_overrides

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from retina_plugin.workbench.anchors.coverage import Coverage
    from retina_plugin.workbench.anchors.fitting import FittedAnchors

GENERATORS = ("octave", "default")  # as in workbench/anchors/fitting.py; a test compares


@click.command(name="anchors", cls=Verb)
@click.argument("config", type=ConfigPath())
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--split", default="train", show_default=True, type=click.Choice(["train", "test"]))
@click.option(
    "--data", type=click.Choice(list(EXAMPLES)), help="Use this example data set instead."
)
@click.option("--fit", is_flag=True, help="Search for sizes and ratios with better coverage.")
@click.option(
    "--generator",
    type=click.Choice(GENERATORS),
    help="Anchor generator to fit.  [default: the config's]",
)
@click.option(
    "--anchors-per-cell",
    type=click.IntRange(1),
    help="Number of anchors per cell to fit.  [default: the config's]",
)
@click.option(
    "--per-level", is_flag=True, help="Fit the sizes and ratios of each level separately."
)
@click.option(
    "--write",
    "preset",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Fit, and write the anchors as a yaml for _BASE_.",
)
@click.option("--overwrite", is_flag=True, help="Overwrite an existing file of --write.")
@click.option(
    "--pictures",
    default=0,
    type=click.IntRange(0),
    help="Draw this number of images with their anchors.",
)
@click.option(
    "--out",
    default=Path("output/anchors"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the pictures.",
)
@json_option
@import_option
def command(
    config: Path,
    overrides: tuple[str, ...],
    split: str,
    data: str | None,
    fit: bool,
    generator: str | None,
    anchors_per_cell: int | None,
    per_level: bool,
    preset: Path | None,
    overwrite: bool,
    pictures: int,
    out: Path,
    as_json: bool,
    extensions: tuple[str, ...],
) -> None:
    """Measure how well the anchors cover the boxes, by level, size, class and ratio; fit them.

    Boxes are measured after the resize and crops of the config. No weights are needed, and images
    are read only for --pictures.

    \b
    Examples:
      retina anchors crowns
      retina anchors retinanet_R_50_FPN_1x --data crowns --fit
      retina anchors my.yaml --write fitted.yaml --per-level
      retina anchors my.yaml --pictures 8 --out output/anchors
      retina anchors my.yaml --json DATASETS.COCO.TRAIN.JSON=a.json DATASETS.COCO.TRAIN.IMAGES=a
    Exit codes: 0 done, 1 the config or the data are wrong, 2 the command is wrong.
    """
    from retina_plugin.data.coco_registration import register_datasets
    from retina_plugin.runs.load_run import is_lazy, load_run
    from retina_plugin.workbench.anchors.coverage import coverage_of
    from retina_plugin.workbench.anchors.fitting import fit_anchors
    from retina_plugin.workbench.anchors.pictures import draw_pictures
    from retina_plugin.workbench.anchors.summary import as_dict, as_text
    from retina_plugin.workbench.anchors.verdict import verdict

    if preset is None and not fit and (generator or anchors_per_cell or per_level):
        raise click.UsageError("--generator, --anchors-per-cell and --per-level need --fit")
    with user_mistakes(extensions), quiet():
        _check(preset, overwrite=overwrite)
        if preset is not None and is_lazy(config):
            raise ValueError(
                "--write makes a yaml for _BASE_, which a LazyConfig does not have: --fit shows "
                "the anchors as overrides, which it takes"
            )
        run = load_run(config, [*(example_overrides(data) if data else ()), *overrides])
        cfg = run.settings
        register_datasets(cfg)
        cover = coverage_of(cfg, split)
        fitted = None
        if fit or preset is not None:
            fitted = fit_anchors(
                cfg,
                cover,
                generator=generator,
                anchors_per_cell=anchors_per_cell,
                per_level=per_level,
            )
        files = [*_write(preset, fitted, cover, cfg, split)]
        files += draw_pictures(cfg, cover, out, split=split, count=pictures)
        found = verdict(cfg, cover, fitted)
    if as_json:
        values = as_dict(cover) | {
            "fit": None if fitted is None else asdict(fitted),
            "verdict": list(found.lines),
            "fix": list(found.fix),
            "files": [str(file) for file in files],
        }
        click.echo(json.dumps(values, indent=1))
        return
    click.echo(f"{as_text(cover)}\n")
    for note in cover.notes:
        click.echo(f"Note: {note}.")
    click.echo(str(found))
    for file in files:
        click.echo(str(file))
    if preset is not None:
        click.echo(
            f"To use it:  _BASE_: [{config.resolve()}, {preset.resolve()}]  in a yaml of yours."
        )


def _check(preset: Path | None, *, overwrite: bool) -> None:
    """Before the search, which takes a while."""
    if preset is None:
        return
    if not preset.resolve().parent.is_dir():
        raise ValueError(f"--write {preset}: there is no folder {preset.resolve().parent}")
    if preset.exists() and not overwrite:
        raise ValueError(f"--write {preset}: it exists; --overwrite replaces it")


def _write(
    path: Path | None, fitted: FittedAnchors | None, cover: Coverage, cfg: CfgNode, split: str
) -> list[Path]:
    if path is None or fitted is None:
        return []
    from retina_plugin.workbench.anchors.preset import preset_text

    names = ", ".join(cfg.DATASETS[split.upper()])
    data = f"{names}, {fitted.whole.before.boxes} boxes after resize and crops"
    called = shlex.join(["retina", *sys.argv[1:]])
    path.write_text(preset_text(fitted, command=called, data=data), encoding="utf-8")
    return [path]
