"""Run a step again whose loss was not finite, from its replay file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from retina_plugin.drawing import GROUND_TRUTH, draw_boxes, to_picture
from retina_plugin.engine.environment import environment
from retina_plugin.engine.non_finite.boxes import odd_boxes
from retina_plugin.engine.non_finite.finding import Finding
from retina_plugin.engine.non_finite.guard import NonFiniteError, NonFiniteGuard, Origin
from retina_plugin.engine.non_finite.replay_file import SavedStep, read_step
from retina_plugin.engine.non_finite.state import set_random_state
from retina_plugin.engine.step import PRECISIONS, TrainingStep
from retina_plugin.engine.trainer import RetinaTrainer
from retina_plugin.inference.denormals import flush_denormals
from retina_plugin.runs.load_run import load_run
from retina_plugin.runs.run import Run

ODD = "red"
_LEAST_SIDE = 480  # of a picture, in pixels; smaller images are enlarged
_BAD_PIXEL = torch.tensor([[255], [0], [0]], dtype=torch.uint8)


@dataclass
class Replay:
    """What came of it.

    Attributes:
        saved: the step.
        finding: of this run; None if everything was finite.
        losses: of this run.
        differences: what is another than in the training, a line each.
        input_format: channel order of the images.
    """

    saved: SavedStep
    finding: Finding | None
    losses: dict[str, float]
    differences: list[str]
    input_format: str

    @property
    def reproduced(self) -> bool:
        """Whether something was not finite again."""
        return self.finding is not None

    @property
    def in_the_same_place(self) -> bool:
        """Whether it was the same layer, and the same losses."""
        if self.finding is None:
            return False
        here, there = self.finding.as_plain(), self.saved.finding
        return _place(here) == _place(there)


def replay(
    path: str | Path, *, config_file: str = "", overrides: Sequence[str] = (), device: str = ""
) -> Replay:
    """Build the model of a replay file and run its step: forward pass, backward pass, search.

    Args:
        path: of the file; nothing in it can run code.
        config_file: instead of the config in the file: of a LazyConfig's training there is none.
        overrides: of the config.
        device: instead of the one that it was trained on, which is taken where it is there.

    Raises:
        ValueError: the file is none, or the model of the config has other weights.
    """
    saved = read_step(path)
    trained_on = str(saved.finding.get("device", "cpu"))
    if not device:
        device = "cuda" if trained_on.startswith("cuda") and torch.cuda.is_available() else "cpu"
    model = _model(saved, path, config_file, overrides, device)
    step = _step(saved, model)
    set_random_state(saved.random)
    finding, losses = None, {}
    with EventStorage(saved.step) as storage:
        step.iter = saved.step
        try:
            step.run_step()
        except NonFiniteError as error:
            finding = error.finding
            finding.history, finding.replay = saved.finding["history"], ""
            finding.why, finding.advice = saved.finding["why"], saved.finding["advice"]
            losses = finding.losses
        else:
            losses = {k: v[0] for k, v in storage.latest().items() if "loss" in k}
    return Replay(
        saved=saved,
        finding=finding,
        losses=losses,
        differences=_differences(saved, device, trained_on),
        input_format=getattr(model, "input_format", "BGR"),
    )


def _model(
    saved: SavedStep, path: str | Path, config_file: str, overrides: Sequence[str], device: str
) -> nn.Module:
    run = _run(saved, path, config_file, [*overrides, f"MODEL.DEVICE={device}", "MODEL.WEIGHTS="])
    if run.settings.get("FLUSH_DENORMAL", True):
        flush_denormals()
    model = RetinaTrainer.build_model(run)
    try:
        model.load_state_dict(saved.weights)
    except RuntimeError as error:
        raise ValueError(
            f"{path}: its weights are not those of the config's model: {error}. Give the config "
            "that it was trained with: --config-file"
        ) from error
    return model.train()


def _run(saved: SavedStep, path: str | Path, config_file: str, overrides: list[str]) -> Run:
    if config_file:
        return load_run(config_file, overrides)
    if not saved.config:
        raise ValueError(
            f"{path}: holds no config, since it was trained with a LazyConfig: give that with "
            "--config-file"
        )
    with TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(saved.config, encoding="utf-8")
        return load_run(file, overrides)


def _step(saved: SavedStep, model: nn.Module) -> TrainingStep:
    """A training step whose weights stay as they are."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    guard = NonFiniteGuard(
        model,
        optimizer,
        check_gradients=saved.checks_gradients or saved.finding["what"] != "loss",
        origin=Origin(class_names=saved.class_names),
    )
    step = TrainingStep(
        model=model,
        loader=saved.batches,
        optimizer=optimizer,
        precision=PRECISIONS.get(saved.precision),
        accumulate=len(saved.batches),
        guard=guard,
    )
    step.grad_scaler = None  # so that the guard looks at the gradient itself
    return step


def _place(finding: dict[str, Any]) -> tuple:
    layer = finding.get("layer") or {}
    bad = sorted(k for k, v in finding["losses"].items() if not math.isfinite(float(v)))
    return layer.get("name"), tuple(bad)


def _differences(saved: SavedStep, device: str, trained_on: str) -> list[str]:
    here = environment()
    lines = [] if trained_on.startswith(device) else [f"device: {trained_on} there, {device} here"]
    return lines + [
        f"{name}: {value} there, {here.get(name, 'unknown')} here"
        for name, value in saved.environment.items()
        if here.get(name) != value and name != "threads of torch"
    ]


def draw_step(saved: SavedStep, folder: Path, input_format: str) -> list[Path]:
    """Write a PNG of each image of the step: its boxes, odd ones and bad pixels in red.

    Boxes are clipped to the image; one that is no number is drawn as far as its numbers go.

    Args:
        saved: the step.
        folder: is made.
        input_format: channel order of the images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given = [x for batch in saved.batches for x in batch]
    paths = []
    for index, x in enumerate(given):
        path = folder / f"step_{saved.step}_image_{index}.png"
        to_pil_image(_picture(x, saved.class_names, input_format)).save(path)
        paths.append(path)
    return paths


def _picture(given: dict[str, Any], class_names: list[str], input_format: str) -> Tensor:
    pixels = given["image"]
    height, width = pixels.shape[1:]
    boxes, colors, labels = [], [], []
    instances = given.get("instances")
    if instances is not None and instances.has("gt_boxes"):
        odd = {str(box.box) for box in odd_boxes(given, class_names)}
        limits = torch.tensor([width, height, width, height])
        corners = instances.gt_boxes.tensor.float()
        clipped = torch.minimum(corners.nan_to_num(0.0).clamp(min=0), limits)
        boxes = clipped.tolist()
        colors = [ODD if str(box) in odd else GROUND_TRUTH for box in corners.tolist()]
        labels = [
            class_names[c] if 0 <= c < len(class_names) else str(c)
            for c in instances.gt_classes.tolist()
        ]
    bad = ~pixels.isfinite().all(dim=0)
    if pixels.is_floating_point():
        pixels = pixels.nan_to_num(0, 0, 0)
    picture = to_picture(pixels, input_format)
    if bool(bad.any()):
        picture[:, bad] = _BAD_PIXEL
        boxes.append(_around(bad))
        colors.append(ODD)
        labels.append("not finite")
    scale = max(1, _LEAST_SIDE // max(height, width))
    return draw_boxes(picture, torch.tensor(boxes).reshape(-1, 4), colors, labels, scale=scale)


def _around(bad: Tensor) -> list[float]:
    """A box around the marked pixels of a ``(H, W)`` mask, with some room."""
    height, width = bad.shape
    y, x = (index.tolist() for index in bad.nonzero(as_tuple=True))
    room = max(4, max(height, width) // 40)
    near = (max(min(x) - room, 0), max(min(y) - room, 0))
    far = (min(max(x) + room, width), min(max(y) + room, height))
    return [float(side) for side in (*near, *far)]
