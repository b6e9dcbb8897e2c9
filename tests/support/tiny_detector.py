"""A detector on disk, as a training leaves it: ``config.yaml`` and weights that find something."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from detectron2.modeling import build_model
from PIL import Image
from support.tiny_models import tiny_focal_cfg

from retina_plugin.workbench.benchmark.calibration import calibrate

THRESH = 0.3
SIZES = {"a": (96, 160), "b": (128, 96), "c": (96, 160)}  # height, width


class Trained(NamedTuple):
    """Where they are."""

    config: Path
    weights: Path


def write_images(folder: Path, sizes: dict[str, tuple[int, int]] = SIZES) -> list[Path]:
    """Noise, as ``<name>.png``, the same for the same names."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    paths = []
    for name, (height, width) in sizes.items():
        paths.append(folder / f"{name}.png")
        pixels = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(paths[-1])
    return paths


def write_tiny_detector(folder: Path, overrides: list | tuple = (), classes: int = 3) -> Trained:
    """Three classes, scores from 0.3, images as they are."""
    cfg = tiny_focal_cfg(NUM_CLASSES=classes, SCORE_THRESH_TEST=THRESH)
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.TEST.DETECTIONS_PER_IMAGE = 12
    cfg.merge_from_list(list(overrides))
    torch.manual_seed(5)
    model = build_model(cfg).eval()
    channels = len(cfg.MODEL.PIXEL_MEAN)
    images = torch.randint(256, (2, channels, 96, 160), dtype=torch.uint8)
    calibrate(model, [{"image": image} for image in images])
    trained = Trained(folder / "config.yaml", folder / "model_final.pth")
    torch.save({"model": model.state_dict()}, trained.weights)
    trained.config.write_text(cfg.dump())
    return trained
