"""Compare the cost of all backbones, and check that they train, save, load and evaluate."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

import click

from retina_plugin.cli._verb import Verb, user_mistakes
from retina_plugin.cli.benchmark import Size

CLASSES, BOXES = 80, 10
TINY_CASE = {"images": 2, "boxes": 4, "height": 96, "width": 96, "classes": 3}


@click.command(name="backbones", cls=Verb)
@click.option("--tiny", is_flag=True, help="Use small variants of each family at 96x96 pixels.")
@click.option("--size", default="512x512", type=Size(), show_default=True)
@click.option(
    "--batch", default=2, type=click.IntRange(1), show_default=True, help="Images per batch."
)
@click.option("--repeats", default=3, type=click.IntRange(1), show_default=True)
@click.option(
    "--only", multiple=True, help="Measure this backbone of the table only; may be repeated."
)
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write all numbers to this file."
)
def command(
    tiny: bool,
    size: tuple[int, int],
    batch: int,
    repeats: int,
    only: tuple[str, ...],
    device: str,
    json_file: Path | None,
) -> None:
    """Compare all backbones with the paper's head, and with ATSS and one anchor per cell.

    Each is built with random weights, trained for three steps on a synthetic batch, saved, loaded
    and evaluated. Times are medians; "to the first" is their quotient with the first backbone's in
    the same turn: median (least to most). FLOPs are two for each multiply-add.

    \b
    Examples:
      retina backbones --tiny
      retina backbones --only ResNet-50 --only Swin-T --size 320x320 --batch 1
    Exit codes: 0 all rows are there, 1 a row failed, 2 the command is wrong.
    """
    import torch
    from tqdm import tqdm

    from retina_plugin.config.device import available_device
    from retina_plugin.registry import unknown_name
    from retina_plugin.workbench.benchmark.backbone_variants import FULL, HEADS, TINY
    from retina_plugin.workbench.benchmark.backbones import as_markdown, measure_backbones
    from retina_plugin.workbench.benchmark.cases import Case
    from retina_plugin.workbench.benchmark.report import environment, heading

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("retina_plugin.workbench.benchmark").setLevel(logging.INFO)
    torch.set_flush_denormal(True)
    try:
        with user_mistakes():
            known = TINY if tiny else FULL
            for name in only:
                if name not in [variant.name for variant in known]:
                    raise unknown_name("--only", name, [variant.name for variant in known])
            chosen = [x for x in known if not only or x.name in only]
            case = Case(**TINY_CASE) if tiny else Case(batch, BOXES, *size, CLASSES)
            device = available_device(device, "--device")
            facts = [environment(torch.device(device)), {**asdict(case), "repeats": repeats}]
            click.echo(heading(*facts))
            measures = measure_backbones(chosen, case, tiny=tiny, repeats=repeats, device=device)
            total = len(chosen) * len(HEADS)
            rows = list(tqdm(measures, total=total, unit="row", disable=None))
    finally:
        torch.set_flush_denormal(False)
    click.echo(f"\n{as_markdown(rows)}")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps({"facts": facts, "rows": rows}, indent=1))
    failed = [row for row in rows if "error" in row]
    if failed:
        raise click.ClickException(f"{len(failed)} row(s) failed, see above")
