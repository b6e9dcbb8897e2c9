"""Convert a detector's weights from torchvision or MMDetection, or to torchvision.

The layout of the file is found out. What is written for this plugin is checked against the model
that its config builds, tensor by tensor.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from retina_plugin.cli._verb import Verb, user_mistakes

if TYPE_CHECKING:
    from retina_plugin.checkpoint.conversion import Conversion
    from retina_plugin.checkpoint.report import WeightReport

# As in checkpoint/convert.py, whose import takes seconds; a test compares them
OWN, TORCHVISION, MMDETECTION = "retina_plugin", "torchvision", "mmdetection"
EPS = 1e-5
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(name="convert", cls=Verb)
@click.argument("source", metavar="IN", type=FILE)
@click.argument("target", metavar="OUT", type=FILE)
@click.option(
    "--from",
    "layout",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", TORCHVISION, MMDETECTION, OWN]),
    help="Layout of IN; Detectron2's RetinaNet has the names of retina_plugin's.",
)
@click.option(
    "--to", "wanted", default=OWN, show_default=True, type=click.Choice([OWN, TORCHVISION])
)
@click.option("--config-out", type=FILE, help="Also write a config for the converted weights.")
@click.option(
    "--coco-classes",
    is_flag=True,
    help="Keep COCO's 80 of torchvision's 91 classes, in Detectron2's order.",
)
@click.option(
    "--norm-eps",
    default=EPS,
    show_default=True,
    type=click.FloatRange(0),
    help="eps of torchvision's batch norms; 0 for its published weights of version 1.",
)
@click.option("--overwrite", is_flag=True, help="Overwrite existing files.")
def command(
    source: Path,
    target: Path,
    layout: str,
    wanted: str,
    config_out: Path | None,
    coco_classes: bool,
    norm_eps: float,
    overwrite: bool,
) -> None:
    """Convert a detector's weights from torchvision or MMDetection, or to torchvision.

    \b
    Examples:
      retina convert retinanet_resnet50_fpn_v2_coco-5905b1c5.pth out.pth --coco-classes \\
          --config-out out.yaml && python train_net.py --config-file out.yaml --eval-only
      retina convert atss_r50_fpn_1x_coco.pth atss.pth --config-out atss.yaml
      retina convert model_final.pth for_torchvision.pth --to torchvision
    Exit codes: 0 written, 1 it cannot be converted, 2 the command is wrong.
    """
    from retina_plugin.checkpoint.convert import convert_file

    with user_mistakes():
        _check_files(source, target, config_out, wanted=wanted, overwrite=overwrite)
        conversion = convert_file(
            source,
            source=None if layout == "auto" else layout,
            target=wanted,
            norm_eps=norm_eps,
            coco_classes=coco_classes,
        )
        if wanted == OWN:
            report = str(check(conversion, source))
        else:
            report = f"{len(conversion.state)} tensors of {source} ({conversion.kind})"
        _write(conversion, target, config_out, wanted)
    click.echo(_summary(conversion, report, target, config_out))


def check(conversion: Conversion, source: Path) -> WeightReport:
    """Build the model of a conversion's config and compare its tensors with the converted ones.

    Raises:
        ValueError: they differ; names them.
    """
    from detectron2.modeling import build_model

    from retina_plugin.checkpoint.config_text import config_text
    from retina_plugin.checkpoint.report import WeightReport, counted
    from retina_plugin.config.config_file import load_config

    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(config_text(conversion, weights=source, path=path))
        model = build_model(load_config(path, ["MODEL.DEVICE=cpu"]))
    own = {n: x for n, x in model.state_dict().items() if not n.startswith("normalizer.")}
    state = conversion.state
    report = WeightReport(
        source=str(source),
        target=type(model).__name__,
        layout=conversion.kind,
        total=len(counted(own)),
        missing=[name for name in counted(own) if name not in state],
        wrong_shape=[
            (name, tuple(state[name].shape), tuple(tensor.shape))
            for name, tensor in own.items()
            if name in state and state[name].shape != tensor.shape
        ],
        unexpected=[name for name in state if name not in own],
    )
    if not report.complete:
        raise ValueError(f"{report}. A detector like this one cannot be converted")
    return report


def _check_files(
    source: Path, target: Path, config_out: Path | None, *, wanted: str, overwrite: bool
) -> None:
    if not source.is_file():
        raise ValueError(f"IN: there is no file {source}")
    if config_out is not None and wanted != OWN:
        raise ValueError("--config-out is a config of this plugin's: not with --to torchvision")
    for path in filter(None, (target, config_out)):
        if path.exists() and (path.samefile(source) or not overwrite):
            hint = "it is IN" if path.samefile(source) else "--overwrite replaces it"
            raise ValueError(f"{path} exists: {hint}")
        if not path.resolve().parent.is_dir():
            raise ValueError(f"{path}: there is no folder {path.resolve().parent}")


def _write(conversion: Conversion, target: Path, config_out: Path | None, wanted: str) -> None:
    """The files, each at once: nothing half-written stays."""
    import torch

    from retina_plugin.checkpoint.config_text import config_text

    content = {"model": conversion.state} if wanted == OWN else conversion.state
    beside = target.with_name(f"{target.name}.part")
    try:
        torch.save(content, beside)
        beside.replace(target)
        if config_out is not None:
            text = config_text(conversion, weights=target, path=config_out)
            config_out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{target}: cannot be written: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


def _summary(conversion: Conversion, report: str, target: Path, config_out: Path | None) -> str:
    from retina_plugin.checkpoint.report import first

    lines = [report]
    if conversion.dropped:
        lines.append(f"* {len(conversion.dropped)} not needed: {first(conversion.dropped)}")
    lines += [f"* {note}" for note in conversion.notes]
    lines.append(f"{target}  the weights")
    if config_out is not None:
        lines.append(f"{config_out}  their config, for train_net.py --config-file")
    return "\n".join(lines)
