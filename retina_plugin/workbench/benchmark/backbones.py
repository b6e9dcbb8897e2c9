"""Every backbone under two detectors: what it costs, and that it trains, is saved and evaluates."""

from __future__ import annotations

import importlib.util
import io
import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from PIL import Image
from tabulate import tabulate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from retina_plugin.checkpoint.checkpointer import RetinaCheckpointer
from retina_plugin.data.coco_json import CocoDataset
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.engine.step import build_step
from retina_plugin.engine.trainer import RetinaTrainer
from retina_plugin.inference.optimize_for_inference import optimize_for_inference
from retina_plugin.modeling.pretrained_part import pretrained_part
from retina_plugin.workbench.benchmark.backbone_variants import HEADS, Variant, variant_cfg
from retina_plugin.workbench.benchmark.calibration import head_outputs, set_norm_statistics
from retina_plugin.workbench.benchmark.cases import Case
from retina_plugin.workbench.benchmark.inference import detect
from retina_plugin.workbench.benchmark.rows import PLUGIN, STOCK, Row, interleave, seconds
from retina_plugin.workbench.benchmark.step import run_step

STEPS = 3
DATA = "retina_backbones"  # what the data set is called while it is needed

logger = logging.getLogger(__name__)


class Subject:
    """A detector, the batch that it is trained on, and what trains it."""

    def __init__(self, cfg: CfgNode, case: Case) -> None:
        self.cfg, self.batch = cfg, case.batch()
        torch.manual_seed(0)
        self.model = RetinaTrainer.build_model(cfg)
        with torch.no_grad():
            set_norm_statistics(self.model, self.batch)  # else a random network may explode
        self.model.train()
        optimizer = RetinaTrainer.build_optimizer(cfg, self.model)
        self.trainer = build_step(self.model, repeat(self.batch), optimizer, amp=False)
        self._optimised: nn.Module | None = None

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.model.device

    def step(self) -> None:
        """A training step on the batch."""
        run_step(self.trainer)

    def loss(self) -> float:
        """Of the batch, in training mode, with the same random numbers every time."""
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            return sum(self.model(self.batch).values()).item()

    def detect(self) -> None:
        """Detect objects in the batch's first image, after optimisation."""
        if self._optimised is None:
            self._optimised = optimize_for_inference(self.model)
        detect(self._optimised, [{k: v for k, v in self.batch[0].items() if k != "instances"}])

    @torch.no_grad()
    def flops(self) -> float:
        """Multiplications and additions of backbone, neck and head for one image."""
        with FlopCounterMode(display=False) as counter:
            head_outputs(self.model, self.batch[:1])
        return float(counter.get_total_flops())


def measure_backbones(
    variants: Sequence[Variant], case: Case, *, tiny: bool, repeats: int, device: str = "cpu"
) -> Iterator[dict[str, Any]]:
    """A row for each of ``variants`` under each of ``HEADS``, compared with the first of them.

    A row has ``backbone``, ``head``, and either ``error`` (what went wrong, or which package is
    missing: ``skipped``) or the measures; ``step`` and ``inference`` are medians in seconds,
    ``step_ratio`` and ``inference_ratio`` (median, least, most) of the times of the same turn.
    """
    with _data(case) as folder:
        for head in HEADS:
            base: Subject | None = None
            for variant in variants:
                row: dict[str, Any] = {"backbone": variant.name, "head": head}
                if variant.needs and importlib.util.find_spec(variant.needs) is None:
                    yield row | {"skipped": f"{variant.needs} is not installed"}
                    continue
                try:
                    cfg = variant_cfg(variant, head, classes=case.classes, tiny=tiny)
                    cfg.MODEL.DEVICE = device
                    cfg.OUTPUT_DIR = str(folder / "output")
                    subject = Subject(cfg, case)
                    base = base or subject
                    row |= _row(subject, base, folder, repeats)
                except Exception as error:  # one row's failure is no other row's
                    logger.exception(f"{variant.name}, {head}")
                    row["error"] = f"{type(error).__name__}: {error}"
                logger.info(f"{variant.name}, {head}: done")
                yield row


def _row(subject: Subject, base: Subject, folder: Path, repeats: int) -> dict[str, Any]:
    model = subject.model
    _, network = pretrained_part(model.backbone)
    row: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "backbone_parameters": sum(p.numel() for p in network.parameters()),
        "flops": subject.flops(),
        "losses": _losses(subject),
    }
    if not (all(map(math.isfinite, row["losses"])) and row["losses"][-1] < row["losses"][0]):
        raise ArithmeticError(f"the loss did not fall: {row['losses']}")
    _check_checkpoint(model, subject.cfg, folder)
    row["ap"] = _evaluate(subject.cfg, model, folder)
    subject.model.train()
    for name, method in (("step", "step"), ("inference", "detect")):
        runs = {
            who: partial(seconds, getattr(x, method), x.device)
            for who, x in ((STOCK, base), (PLUGIN, subject))
        }
        for run in runs.values():
            run()  # the first is slower
        times = Row(name, "s", interleave(runs, repeats))
        row[name], row[f"{name}_ratio"] = times.median(PLUGIN), times.ratio(PLUGIN)
    return row


def _losses(subject: Subject) -> list[float]:
    """Before the first step and after each."""
    losses = [subject.loss()]
    for _ in range(STEPS):
        subject.step()
        losses.append(subject.loss())
    return losses


def _check_checkpoint(model: nn.Module, cfg: CfgNode, folder: Path) -> None:
    """That a new detector which loads what was saved is the same."""
    RetinaCheckpointer(model, str(folder)).save("model")
    again = build_model(cfg)
    RetinaCheckpointer(again, all_weights=True).load(str(folder / "model.pth"))
    loaded = again.state_dict()
    different = [n for n, value in model.state_dict().items() if not torch.equal(value, loaded[n])]
    if different:
        raise ArithmeticError(f"not loaded as they were saved: {', '.join(different)}")


def _evaluate(cfg: CfgNode, model: nn.Module, folder: Path) -> float:
    """COCO AP on the data; of a detector of three steps it says no more than that it is there."""
    cfg = cfg.clone()
    cfg.INPUT.MIN_SIZE_TEST = 0  # as they are
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATASETS.TRAIN = ()
    cfg.DATASETS.COCO.TEST.NAME = DATA
    cfg.DATASETS.COCO.TEST.JSON = str(folder / "data.json")
    cfg.DATASETS.COCO.TEST.IMAGES = str(folder / "images")
    register_datasets(cfg)
    with redirect_stdout(io.StringIO()):  # pycocotools prints its table
        return float(RetinaTrainer.test(cfg, model)["bbox"]["AP"])


@contextmanager
def _data(case: Case) -> Iterator[Path]:
    """A folder with the case's images and boxes as a COCO data set, until the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        dataset = CocoDataset([f"class {k}" for k in range(case.classes)])
        for i, given in enumerate(case.batch()):
            image_id = dataset.add_image(f"{i}.png", case.width, case.height)
            pixels = given["image"].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
            instances = given["instances"]
            boxes = zip(instances.gt_boxes.tensor, instances.gt_classes, strict=True)
            for box, label in boxes:
                dataset.add_box(image_id, box.tolist(), int(label))
        dataset.save(folder / "data.json")
        try:
            yield folder
        finally:
            if DATA in DatasetCatalog:
                DatasetCatalog.remove(DATA)
                MetadataCatalog.remove(DATA)


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table for each head; ratios are those of the times to the first backbone's."""
    tables = []
    for head in dict.fromkeys(row["head"] for row in rows):
        lines = [_line(row) for row in rows if row["head"] == head]
        headers = [
            head,
            "parameters [M] (backbone)",
            "GFLOPs",
            "loss in three steps",
            "step [s]",
            "to the first",
            "inference [s]",
            "to the first",
            "saved, loaded, evaluated",
        ]
        tables.append(tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True))
    return "\n\n".join(tables)


def _line(row: dict[str, Any]) -> list[str]:
    problem = row.get("error") or row.get("skipped")
    if problem:
        return [row["backbone"], problem]
    times = [
        text
        for name in ("step", "inference")
        for text in (f"{row[name]:.3g}", _ratio(row[f"{name}_ratio"]))
    ]
    return [
        row["backbone"],
        f"{row['parameters'] / 1e6:.2f} ({row['backbone_parameters'] / 1e6:.2f})",
        f"{row['flops'] / 1e9:.3g}",
        " ".join(f"{loss:.3g}" for loss in row["losses"]),
        *times,
        "yes",
    ]


def _ratio(ratio: tuple[float, float, float]) -> str:
    middle, least, most = ratio
    return f"{middle:.2f} ({least:.2f} to {most:.2f})"
