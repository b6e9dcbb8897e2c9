"""Repeat a training step whose loss was not finite and find the cause.

Training writes the step to ``OUTPUT_DIR/non_finite``: batch, weights, random numbers, config.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retina_plugin.cli._config_path import ConfigPath
from retina_plugin.cli._verb import Verb, import_option, json_option, user_mistakes

if TYPE_CHECKING:
    from retina_plugin.workbench.replay import Replay

NOT_REPRODUCED = 1


@click.command(name="replay", cls=Verb)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--config-file", type=ConfigPath(), help="Config to use instead of the one in FILE.")
@click.option("--device", default="", help="cpu or cuda.  [default: the device of the training]")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for pictures of the step's images."
)
@json_option
@import_option
def command(
    file: Path,
    overrides: tuple[str, ...],
    config_file: Path | None,
    device: str,
    out: Path | None,
    as_json: bool,
    extensions: tuple[str, ...],
) -> None:
    """Repeat a training step whose loss was not finite and find the cause.

    \b
    Examples:
      retina replay output/non_finite/step_17.pth
      retina replay output/non_finite/step_17.pth --device cpu --out pictures
      retina replay output/non_finite/step_17.pth --config-file lazy.py model.num_classes=3
      retina replay output/non_finite/step_17.pth --json | jq .finding.layer.name

    \b
    Exit codes: 0 a number was not finite again, 1 all were finite this time, or an error,
    2 the command is wrong.

    FILE cannot run code. Components of your own need --import, as in the training; a
    LazyConfig's training needs --config-file, with the overrides it was trained with.
    """
    from retina_plugin.config.device import available_device
    from retina_plugin.workbench.replay import draw_step, replay

    with user_mistakes(extensions):
        device = available_device(device, "--device") if device else ""
        result = replay(
            file, config_file=str(config_file or ""), overrides=overrides, device=device
        )
        pictures = draw_step(result.saved, out, result.input_format) if out is not None else []
    if as_json:
        click.echo(json.dumps(_as_plain(result, pictures), indent=1))
    else:
        click.echo(_as_text(result))
        for path in pictures:
            click.echo(f"{path}  image and boxes")
    if not result.reproduced:
        raise SystemExit(NOT_REPRODUCED)


def _as_text(result: Replay) -> str:
    saved = result.saved
    differences = "\n".join(f"  {line}" for line in result.differences) or "  nothing that is known"
    if not result.reproduced:
        values = ", ".join(f"{name} {value:.4g}" for name, value in result.losses.items())
        return (
            f"Not reproduced: iteration {saved.step} is finite this time ({values}).\n"
            f"Different from the training:\n{differences}"
        )
    lines = [f"Reproduced. {result.finding}"]
    if not result.in_the_same_place:
        there = (saved.finding.get("layer") or {}).get("name") or "the losses"
        lines += [f"But in the training it was {there}. Different from it:", differences]
    return "\n".join(lines)


def _as_plain(result: Replay, pictures: list[Path]) -> dict:
    return {
        "reproduced": result.reproduced,
        "in_the_same_place": result.in_the_same_place,
        "finding": result.finding.as_plain() if result.finding else None,
        "losses": {name: str(x) if x != x else x for name, x in result.losses.items()},
        "in_training": result.saved.finding,
        "differences": result.differences,
        "left_out": result.saved.left_out,
        "pictures": list(map(str, pictures)),
    }
