"""Measure time, memory and synchronizations of a detector, also against Detectron2's."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retina_plugin.cli._config_path import ConfigPath
from retina_plugin.cli._verb import Verb, import_option, user_mistakes

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from retina_plugin.workbench.benchmark.cases import Case
    from retina_plugin.workbench.benchmark.rows import Part

# Each measured by measure_<module> of retina_plugin.workbench.benchmark.<module>
PARTS = {
    "step": "step",
    "assignment": "assignment",
    "loss": "classification_loss",
    "inference": "inference",
    "resident": "resident",
}
BESIDE = ("data", "coco-evaluation")  # of their own data, asked for by name
COCO_EVALUATION = {"images": 500, "detections": 30_000, "classes": 80}
IMAGES_LOADED = 64
DEFAULT_CLASSES = 80


class Size(click.ParamType):
    """``HxW`` in pixels."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A pair of positive integers, which click may hand in again."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", str(value))
        if match is None:
            self.fail(f"{value!r} is no size: write height x width, such as 800x1088", param, ctx)
        return int(match[1]), int(match[2])


@click.command(name="benchmark", cls=Verb)
@click.option(
    "--config-file",
    required=True,
    type=ConfigPath(),
    help="Path of a config file, or a name from `retina configs`.",
)
@click.option(
    "--boxes",
    default=10,
    type=click.IntRange(0),
    show_default=True,
    help="Ground-truth boxes per image.",
)
@click.option("--size", default="512x512", type=Size(), show_default=True)
@click.option(
    "--batch", default=2, type=click.IntRange(1), show_default=True, help="Images per batch."
)
@click.option(
    "--classes", type=click.IntRange(1), help=f"[default: the config's, else {DEFAULT_CLASSES}]"
)
@click.option(
    "--against", type=click.Choice(["stock"]), help="Measure Detectron2's RetinaNet as well."
)
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice([*PARTS, *BESIDE]),
    help=f"Part to measure; may be repeated.  [default: {', '.join(PARTS)}]",
)
@click.option("--repeats", default=5, type=click.IntRange(1), show_default=True)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write all numbers to this file."
)
@click.option(
    "--scaling",
    type=click.Path(file_okay=False, path_type=Path),
    help="Measure the growth with boxes, classes and size instead; plot it in this folder.",
)
@click.option("--quick", is_flag=True, help="Measure fewer points for --scaling.")
@import_option
@click.argument("overrides", nargs=-1)
def command(
    config_file: Path,
    boxes: int,
    size: tuple[int, int],
    batch: int,
    classes: int | None,
    against: str | None,
    parts: tuple[str, ...],
    repeats: int,
    json_file: Path | None,
    scaling: Path | None,
    quick: bool,
    extensions: tuple[str, ...],
    overrides: tuple[str, ...],
) -> None:
    """Measure time, memory and synchronizations of a detector, also against Detectron2's.

    All detectors run alternately in one process. The table has medians, and the median, minimum
    and maximum of the ratios of each round. Images and boxes are synthetic and weights random, so
    that no data set is needed. Close other programs first.

    OVERRIDES are config keys and values, as train_net.py takes them.

    \b
    Examples:
      retina benchmark --config-file retinanet_R_50_FPN_1x --against stock
      retina benchmark --config-file a.yaml --part step --boxes 500 --size 800x1088
      retina benchmark --config-file a.yaml --against stock --scaling output/scaling
    Exit codes: 0 measured, 1 the config cannot be, 2 the command is wrong.
    """
    import torch

    from retina_plugin.workbench.benchmark.cases import Case
    from retina_plugin.workbench.benchmark.report import environment, heading

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("retina_plugin.workbench.benchmark").setLevel(logging.INFO)
    torch.manual_seed(0)
    torch.set_flush_denormal(True)  # first: the threads of the first parallel operator inherit it
    try:
        with user_mistakes(extensions):
            cfg = _config(config_file, overrides, classes)
            case = Case(
                batch, boxes, *size, cfg.MODEL.RETINANET.NUM_CLASSES, len(cfg.MODEL.PIXEL_MEAN)
            )
            report = {
                "environment": environment(torch.device(cfg.MODEL.DEVICE)),
                "settings": {
                    "config": str(config_file),
                    "overrides": " ".join(overrides),
                    **asdict(case),
                    "repeats": repeats,
                },
            }
            click.echo(heading(report["settings"], report["environment"]))
            stock = against == "stock"
            if scaling is None:
                report |= _measure(cfg, case, parts or tuple(PARTS), stock, repeats, extensions)
            else:
                report |= _scale(cfg, case, stock, repeats, scaling, quick)
    finally:
        torch.set_flush_denormal(False)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(report, indent=1))


def _config(config_file: Path, overrides: tuple[str, ...], classes: int | None) -> CfgNode:
    """The config, on a device that is there and with a number of classes."""
    from retina_plugin.config.device import available_device
    from retina_plugin.runs.load_run import load_run

    cfg = load_run(config_file, overrides).settings
    cfg.MODEL.DEVICE = available_device(cfg.MODEL.DEVICE, "MODEL.DEVICE")
    retinanet = cfg.MODEL.RETINANET
    retinanet.NUM_CLASSES = classes or retinanet.NUM_CLASSES or DEFAULT_CLASSES
    return cfg


def _measure(
    cfg: CfgNode,
    case: Case,
    parts: tuple[str, ...],
    stock: bool,
    repeats: int,
    extensions: tuple[str, ...],
) -> dict[str, Any]:
    """Print each part's table as soon as it is there; returns them all for json."""
    from tqdm import tqdm

    from retina_plugin.workbench.benchmark.contenders import build_contenders
    from retina_plugin.workbench.benchmark.report import as_dict, as_text

    contenders, notes, found = [], [], {}
    if any(name in PARTS for name in parts):
        contenders, notes = build_contenders(
            cfg, case.batch(), against_stock=stock, extensions=extensions
        )
        notes.append("numbers too small for the CPU's fast path (denormals) are 0")
    for name in tqdm(parts, unit="part", disable=None):
        if name in PARTS:
            module = import_module(f"retina_plugin.workbench.benchmark.{PARTS[name]}")
            part = getattr(module, f"measure_{PARTS[name]}")(contenders, repeats)
        else:
            part = _data(cfg) if name == "data" else _coco_evaluation(repeats)
        found[name] = as_dict(part)
        tqdm.write(f"\n{as_text(part)}")  # above the bar
    if notes:
        click.echo("\n" + "\n".join(f"* {note}" for note in notes))
    return {"notes": notes, "parts": found}


def _data(cfg: CfgNode) -> Part:
    """Images a second of the training data, or of synthetic files where there are none."""
    from retina_plugin.workbench.benchmark import data_loading
    from retina_plugin.workbench.benchmark.rows import Part, Row

    workers = cfg.DATALOADER.NUM_WORKERS
    found = data_loading.measure(cfg, images=IMAGES_LOADED, workers=workers)
    rows = [Row(f"{kind}: images", "1/s", found[kind]) for kind in ("mapper", "loader")]
    notes = [
        f"stock: Detectron2's mapper with the same augmentations; decoder {found['decoder']}",
        f"mapper: in this process; loader: {workers} workers (DATALOADER.NUM_WORKERS)",
        f"data: {found['data']}",
    ]
    return Part("loading training data", rows, notes)


def _coco_evaluation(repeats: int) -> Part:
    """The evaluator's time against pycocotools', on synthetic detections."""
    from retina_plugin.workbench.benchmark import coco_evaluation
    from retina_plugin.workbench.benchmark.rows import PLUGIN, Part, Row

    found = coco_evaluation.compare(**COCO_EVALUATION, repeats=repeats)
    rows = [
        Row("evaluation", "s", found["samples"]),
        Row("largest difference of the twelve numbers", "1", {PLUGIN: [found["max_difference"]]}),
    ]
    size = ", ".join(f"{count} {things}" for things, count in COCO_EVALUATION.items())
    return Part(f"COCO evaluation: {size}", rows)


def _scale(
    cfg: CfgNode, case: Case, stock: bool, repeats: int, folder: Path, quick: bool
) -> dict[str, Any]:
    """The picture and its numbers; returns them for ``--json`` as well."""
    from retina_plugin.workbench.benchmark.scaling import (
        POINTS,
        QUICK_POINTS,
        draw_scaling,
        measure_scaling,
    )

    points = measure_scaling(
        cfg, case, repeats, against_stock=stock, points=QUICK_POINTS if quick else POINTS
    )
    click.echo(draw_scaling(points, folder / "scaling.png"))
    return {"scaling": [asdict(point) for point in points]}
