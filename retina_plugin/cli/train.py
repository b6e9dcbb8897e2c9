"""Train or evaluate a detector from a yaml config or a LazyConfig.

The same program as ``train_net.py`` of a checkout, with the same arguments.
"""

from __future__ import annotations

from argparse import Namespace

import click

from retina_plugin.cli._verb import Verb
from retina_plugin.engine.arguments import parse_arguments

DESCRIPTION = """Train or evaluate a detector from a yaml config or a LazyConfig, on CPU or CUDA.

Examples:
  retina train modern/atss_R_50_FPN_1x \\
      DATASETS.COCO.TRAIN.JSON train.json DATASETS.COCO.TRAIN.IMAGES images/ \\
      DATASETS.COCO.TEST.JSON val.json DATASETS.COCO.TEST.IMAGES images/
  retina train my.yaml --num-gpus 8 SOLVER.BASE_LR 0.005 OUTPUT_DIR output/mine
  retina train my.yaml --resume
  retina train my.yaml --eval-only MODEL.WEIGHTS output/mine/model_final.pth
  retina train my_lazy_config.py train.max_iter=1000

The config is a file or one of the names that `retina configs` lists. Images and boxes in COCO's
format need no code: name them as in the first example. Under torchrun:
torchrun --nproc-per-node 8 --no-python retina train CONFIG

Exit codes: 0 done, 1 data, config or training failed, 2 the command is wrong."""


class ArgparseVerb(Verb):
    """A verb whose command line is that of ``train_net.py``, which argparse reads."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave everything to argparse, ``--help`` included."""
        ctx.params["arguments"] = parse_arguments(
            args, prog=ctx.command_path, description=DESCRIPTION
        )
        return []


@click.command(name="train", cls=ArgparseVerb)
def command(arguments: Namespace) -> None:
    """Train or evaluate a detector: see DESCRIPTION, which argparse shows."""
    from retina_plugin.engine.launch import launch_workers
    from retina_plugin.workbench.job import run_job

    launch_workers(run_job, arguments)
