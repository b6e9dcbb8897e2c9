#!/usr/bin/env python
"""Train or evaluate a RetinaNet from a yaml config or a LazyConfig, on CPU or CUDA.

The same program as ``retina train``.

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

import sys

import retina_plugin  # noqa: F401  (registers the components)
from retina_plugin.engine.arguments import parse_arguments
from retina_plugin.engine.launch import launch_workers
from retina_plugin.workbench.job import run_job

if __name__ == "__main__":
    launch_workers(run_job, parse_arguments(sys.argv[1:], description=__doc__))
