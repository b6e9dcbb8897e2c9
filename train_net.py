#!/usr/bin/env python
"""Train or evaluate a RetinaNet from a yaml config or a LazyConfig, on CPU or CUDA.

    python train_net.py --config-file configs/crowns.yaml
    python train_net.py --config-file configs/crowns.yaml --eval-only MODEL.WEIGHTS model.pth
    python train_net.py --config-file configs/retinanet_R_50_FPN_1x.yaml --num-gpus 8
    torchrun --nproc-per-node 8 train_net.py --config-file configs/retinanet_R_50_FPN_1x.yaml

Your own data in COCO's format needs no code:

    python train_net.py --config-file configs/retinanet_R_50_FPN_1x.yaml \\
        DATASETS.COCO.TRAIN.JSON train.json DATASETS.COCO.TRAIN.IMAGES images/ \\
        DATASETS.COCO.TEST.JSON val.json DATASETS.COCO.TEST.IMAGES images/
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import retina_plugin  # noqa: F401  (registers the components)
from retina_plugin.engine.launch import launch_workers
from retina_plugin.engine.lazy import run_lazy
from retina_plugin.engine.setup import argument_parser, setup, user_errors
from retina_plugin.engine.trainer import RetinaTrainer, evaluate


def main(args: Namespace) -> dict[str, Any]:
    """The job of one worker; returns the evaluation's results."""
    with user_errors():
        if args.config_file.endswith(".py"):
            return run_lazy(args)
        cfg = setup(args)
        if args.eval_only:
            return evaluate(cfg, resume=args.resume)
        trainer = RetinaTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()


if __name__ == "__main__":
    parser = argument_parser()
    parser.description, parser.epilog = __doc__, None
    launch_workers(main, parser.parse_args())
