"""Train a detector of tree crowns, test it on two other sites and draw its detections."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retina_plugin.cli._config_path import ConfigPath
from retina_plugin.cli._verb import Verb, user_mistakes
from retina_plugin.data.example_data import EXAMPLES, data_overrides, default_folder

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from retina_plugin.data.coco_json import SplitPaths

PREPARE, TESTS = EXAMPLES["crowns"]
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@click.command(name="demo", cls=Verb)
@click.option(
    "--config-file",
    default="retina_plugin://crowns.yaml",
    type=ConfigPath(),
    show_default=True,
    help="Path of a config file, or a name from `retina configs`.",
)
@click.option(
    "--out", default=Path("output/demo"), type=click.Path(path_type=Path), show_default=True
)
@click.option("--seed", default=1, show_default=True)
@click.argument("overrides", nargs=-1)
def command(config_file: Path, out: Path, seed: int, overrides: tuple[str, ...]) -> None:
    """Train a detector of tree crowns, test it on two other sites and draw its detections.

    OVERRIDES are config keys and values, as train_net.py takes them.

    \b
    Examples:
      retina demo
      retina demo --seed 2 --out output/atss --config-file modern/one_anchor_crowns
      retina demo SOLVER.MAX_ITER 100
    Exit codes: 0 done, 1 data, config or training failed, 2 the command is wrong.
    """
    from retina_plugin.engine.trainer import RetinaTrainer
    from retina_plugin.workbench.end_report import report_run

    begin = time.monotonic()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with user_mistakes():
        paths = PREPARE(default_folder("crowns"))
        cfg = _config(config_file, out, ["SEED", str(seed), *overrides], paths)
        trainer = RetinaTrainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
        tested = _test_config(cfg, paths)
        results = RetinaTrainer.test(tested, trainer.model)
        report_run(tested)
    made = {
        out / "report.html": "all of it on one page, with classes, errors and images",
        out / "curves.png": "losses and validation AP over the steps",
        **{out / f"{name}.png": f"ground truth and predictions, {name}" for name in TESTS},
        out / "model_final.pth": "the weights",
        out / "metrics.json": "all numbers of the training",
        out / "log.txt": "the whole log",
    }
    _draw(out)
    click.echo(_summary(results, made, seed, (time.monotonic() - begin) / 60))


def _config(
    config_file: Path, out: Path, overrides: list[str], paths: dict[str, SplitPaths]
) -> CfgNode:
    """The checked config, on the data that were just prepared."""
    from retina_plugin.engine.arguments import argument_parser
    from retina_plugin.engine.setup import setup
    from retina_plugin.workbench.job import consult_doctor

    arguments = argument_parser().parse_args(["--config-file", str(config_file)])
    data = data_overrides("crowns", paths, ["val"])
    arguments.opts = [*data, "OUTPUT_DIR", str(out), *overrides]
    _keep_dumps_off_the_screen(out)
    return setup(arguments, consult_doctor)


def _keep_dumps_off_the_screen(out: Path) -> None:
    """Detectron2 logs the whole environment, config and model; ``log.txt`` has them all."""
    from detectron2.utils.logger import setup_logger

    detectron2 = setup_logger(str(out), distributed_rank=0)  # as default_setup will, and finds it
    for handler in detectron2.handlers:
        if getattr(handler, "stream", None) is sys.stdout:  # the file is a stream as well
            handler.addFilter(lambda record: record.getMessage().count("\n") < 2)


def _test_config(cfg: CfgNode, paths: dict[str, SplitPaths]) -> CfgNode:
    """The same with all three sets to evaluate on."""
    from retina_plugin.data.coco_registration import register_datasets

    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TEST = ()
    test = cfg.DATASETS.COCO.TEST
    test.NAME = [f"crowns_{name}" for name in TESTS]
    test.JSON = [str(paths[name].json) for name in TESTS]
    test.IMAGES = [str(paths[name].images) for name in TESTS]
    register_datasets(cfg)
    return cfg


def _draw(out: Path) -> None:
    """All pictures of the run."""
    from retina_plugin.evaluation.curves import draw_curves
    from retina_plugin.evaluation.pictures import draw_pairs

    draw_curves(out / "metrics.json", out / "curves.png")
    for name in TESTS:
        predictions = out / "inference" / f"crowns_{name}" / "coco_instances_results.json"
        draw_pairs(f"crowns_{name}", predictions, out / f"{name}.png")


def _summary(results: dict[str, Any], made: dict[Path, str], seed: int, minutes: float) -> str:
    """The AP table, and what is where."""
    from tabulate import tabulate

    rows = [
        [title, *(results[f"crowns_{name}"]["bbox"][metric] for metric in METRICS)]
        for name, title in TESTS.items()
    ]
    table = tabulate(rows, headers=["data set", *METRICS], tablefmt="github", floatfmt=".1f")
    files = tabulate(made.items(), tablefmt="plain")
    return (
        f"\n{table}\n\n"
        f"One class, one training scene, small tests, seed {seed}, {minutes:.1f} minutes in all.\n"
        f"{files}"
    )
