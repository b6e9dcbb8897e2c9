"""Detect objects in images and videos; write pictures, COCO json, csv or YOLO txt.

Files that cannot be read are reported, the rest goes on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retina_plugin.cli._config_path import ConfigPath
from retina_plugin.cli._verb import Verb, import_option, user_mistakes

if TYPE_CHECKING:
    from retina_plugin.inference.prediction.image_ids import CocoIds
    from retina_plugin.inference.prediction.predictor import Predictor
    from retina_plugin.inference.prediction.results import Output
    from retina_plugin.inference.prediction.run import Summary
    from retina_plugin.inference.prediction.sources import Sources

FORMATS = ("coco", "csv", "yolo")  # as in inference/prediction/writers.py; a test compares
STDIN = "-"
OUT = Path("output/predict")
SOME_FAILED, NOTHING_DONE = 1, 2  # exit codes
SHOWN = 5  # file names of a kind


@click.command(name="predict", cls=Verb)
@click.argument("config", type=ConfigPath())
@click.argument("weights")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Output folder.  [default: {OUT}; with --json nothing is written]",
)
@click.option(
    "--pictures/--no-pictures", default=True, show_default=True, help="Draw the detections."
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    default=("coco",),
    show_default=True,
    metavar="|".join(FORMATS),
    help="Format of the detections; may be repeated or a comma-separated list.",
)
@click.option(
    "--score-thresh",
    default=0.4,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Drop detections with a lower score; use 0.05 to compute AP.",
)
@click.option(
    "--batch", default=4, show_default=True, type=click.IntRange(1), help="Images per batch."
)
@click.option("--device", help="Device, such as cpu or cuda:1.  [default: MODEL.DEVICE]")
@click.option(
    "--images-json",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="COCO json that provides image and category ids.",
)
@click.option(
    "--class-names", metavar="A,B,...", help="Class names, if neither config nor data have them."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Config override.")
@import_option
@click.option("--overwrite", is_flag=True, help="Write into a folder that is not empty.")
@click.option("--json", "as_json", is_flag=True, help="Print all results as one json object.")
def command(
    config: Path,
    weights: str,
    inputs: tuple[str, ...],
    out: Path | None,
    pictures: bool,
    formats: tuple[str, ...],
    score_thresh: float,
    batch: int,
    device: str | None,
    images_json: Path | None,
    class_names: str | None,
    overrides: tuple[str, ...],
    extensions: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Detect objects in images and videos; write pictures, COCO json, csv or YOLO txt.

    CONFIG is the config.yaml that a training leaves in its folder, or any other, and WEIGHTS the
    model_final.pth beside it. Each INPUT is an image, a video, a folder (and those in it), a
    "pattern*.jpg" in quotes, or - for paths on the standard input, one a line.

    \b
    Examples:
      retina predict output/crowns/config.yaml output/crowns/model_final.pth photos/
      retina predict config.yaml model_final.pth "flights/**/*.jpg" clip.mp4 --format coco,yolo
      find photos -newer last.txt | retina predict config.yaml model_final.pth - --json > found.json
      retina predict config.yaml model_final.pth a.jpg --set TEST.AUG.ENABLED=True

    Images are read and resized as in an evaluation, turned as their EXIF says, and their boxes are
    in the pixels of the turned image. Videos need PyAV: pip install "retina-plugin[video]".

    Exit codes: 0 all fine, 1 some files could not be read, the others are done, 2 nothing was done:
    command line, config or weights are wrong.
    """
    from retina_plugin.inference.prediction.image_ids import CocoIds
    from retina_plugin.inference.prediction.predictor import Predictor
    from retina_plugin.inference.prediction.results import close_all
    from retina_plugin.inference.prediction.sources import find_sources
    from retina_plugin.inference.prediction.writers import JsonOutput

    try:
        with user_mistakes(extensions):
            out = out or (None if as_json else OUT)
            kinds = _kinds(formats)
            sources = find_sources(
                inputs, click.get_text_stream("stdin") if STDIN in inputs else ()
            )
            _check(sources, out, images_json, overwrite=overwrite)
            ids = CocoIds(images_json)
            predictor = Predictor(
                config,
                weights,
                overrides=overrides,
                device=device,
                score_thresh=score_thresh,
                class_names=class_names.split(",") if class_names else None,
                batch=batch,
            )
            predictor.classes = ids.classes(predictor.classes)
            outputs = _outputs(predictor, out, kinds, pictures=pictures, has_ids=bool(images_json))
    except SystemExit as error:
        click.echo(error.code, err=True)
        raise SystemExit(NOTHING_DONE) from None
    for_script = JsonOutput()
    try:
        with user_mistakes():
            summary = _predict(
                predictor,
                sources,
                [*outputs, *([for_script] if as_json else [])],
                ids=ids,
                pictures=pictures and out is not None,
            )
    finally:  # what was found is kept, whatever ends it
        written = close_all(outputs)
    text = _text(summary, sources, written, score_thresh)
    click.echo(text, err=as_json)
    if as_json:
        content = {"results": for_script.content, "failed": summary.failed}
        click.echo(json.dumps(content))
    if summary.failed:
        raise SystemExit(SOME_FAILED)


def _kinds(formats: tuple[str, ...]) -> list[str]:
    kinds = list(dict.fromkeys(kind for given in formats for kind in given.split(",")))
    for kind in kinds:
        if kind not in FORMATS:
            raise ValueError(f"--format: {kind!r} is none of {', '.join(FORMATS)}")
    return kinds


def _check(
    sources: Sources, out: Path | None, images_json: Path | None, *, overwrite: bool
) -> None:
    """Refuse what cannot be before the detector is built."""
    from retina_plugin.inference.prediction.video import require_av

    videos = [source.path for source in sources.files if source.is_video]
    if videos:
        require_av(videos[0])
        if images_json is not None:
            raise ValueError(f"--images-json {images_json}: it has no ids of frames ({videos[0]})")
    if out is None:
        return
    inside = [
        source.path for source in sources.files if out.absolute() in source.path.absolute().parents
    ]
    if inside:
        raise ValueError(
            f"--out {out} has {inside[0]} in it, which is an input: give another folder"
        )
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise ValueError(
            f"--out {out} is not empty: give another folder, or --overwrite to replace files of "
            "the same names in it"
        )


def _outputs(
    predictor: Predictor, out: Path | None, kinds: list[str], *, pictures: bool, has_ids: bool
) -> list[Output]:
    from retina_plugin.inference.prediction.pictures import PictureOutput
    from retina_plugin.inference.prediction.writers import FORMATS, CocoOutput

    if out is None:
        return []
    outputs: list[Output] = [PictureOutput(out)] if pictures else []
    for kind in kinds:
        options = {"writes_images": not has_ids} if FORMATS[kind] is CocoOutput else {}
        outputs.append(FORMATS[kind](out, predictor.classes, **options))
    return outputs


def _predict(
    predictor: Predictor, sources: Sources, outputs: list[Output], *, ids: CocoIds, pictures: bool
) -> Summary:
    """With a bar on stderr, that failures are printed above."""
    from tqdm import tqdm

    from retina_plugin.inference.prediction.run import predict_sources
    from retina_plugin.inference.prediction.video import count_frames

    counts = [count_frames(x.path) if x.is_video else 1 for x in sources.files]
    total = None if None in counts else sum(counts)
    with tqdm(total=total, unit="image", file=sys.stderr, disable=None) as bar:
        return predict_sources(
            predictor,
            sources.files,
            outputs,
            ids=ids,
            pictures=pictures,
            on_image=bar.update,
            on_failure=lambda text: bar.write(f"failed: {text}", file=sys.stderr),
        )


def _text(
    summary: Summary, sources: Sources, written: list[tuple[Path, str]], score_thresh: float
) -> str:
    looked_at = [
        f"{count} {what}{'s' * (count != 1)}"
        for count, what in ((summary.images, "image"), (summary.frames, "frame"))
        if count or what == "image"
    ]
    total = summary.images + summary.frames
    rate = total / summary.seconds if summary.seconds else 0.0
    lines = [
        f"{' and '.join(looked_at)} in {summary.seconds:.1f} s ({rate:.1f} a second): "
        f"{summary.detections.total()} detections that score {score_thresh:g} or more"
    ]
    lines += [f"  {name}: {count}" for name, count in summary.detections.most_common()]
    if sources.passed_over:
        names = [str(path) for path in sources.passed_over]
        more = ", ..." if len(names) > SHOWN else ""
        lines.append(
            f"{len(names)} other file(s) passed over, whose ending is no image's or video's: "
            f"{', '.join(names[:SHOWN])}{more}"
        )
    if summary.failed:
        lines.append(f"{len(summary.failed)} failed:")
        lines += [f"  {text}" for text in summary.failed.values()]
    return "\n".join([*lines, *(f"{path}  {what}" for path, what in written)])
