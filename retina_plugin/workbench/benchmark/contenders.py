"""The config's detector and Detectron2's own, with the same calibrated random weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.modeling.meta_arch import RetinaNet
from torch import Tensor, nn

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.engine.step import build_step
from retina_plugin.engine.trainer import RetinaTrainer
from retina_plugin.modeling.detector import FocalRetinaNet
from retina_plugin.registry import require_registered
from retina_plugin.runs.load_run import run_of
from retina_plugin.workbench.benchmark.calibration import SCORE, calibrate
from retina_plugin.workbench.benchmark.floor import FloorModel
from retina_plugin.workbench.benchmark.rows import PLUGIN, STOCK

CANDIDATES = 3000  # scores above 0.05 an image, as a trained detector has at 800x1088 pixels
STOCK_BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")


@dataclass
class Contender:
    """A detector and what trains it, as the trainer does, on one batch.

    The learning rate is 0: every step is the same step.
    """

    name: str
    model: nn.Module
    cfg: CfgNode
    batch: list[dict[str, Any]]
    extensions: Sequence[str] = ()  # modules that registered what the config names

    @classmethod
    def build(cls, name: str, cfg: CfgNode, *given: Any) -> Contender:
        """As Detectron2's trainer builds its model, or as the plugin's does."""
        build = build_model if name == STOCK else RetinaTrainer.build_model
        return cls(name, build(cfg), cfg, *given)

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.model.device

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """The config's."""
        trainer = DefaultTrainer if self.name == STOCK else RetinaTrainer
        optimizer = trainer.build_optimizer(self.cfg, self.model)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        return optimizer

    @cached_property
    def trainer(self) -> SimpleTrainer:
        """Its ``run_step`` is a training step."""
        return self._trainer(self.model)

    @cached_property
    def floor(self) -> SimpleTrainer:
        """Its ``run_step`` is one of the network alone."""
        return self._trainer(FloorModel(self.model))

    def _trainer(self, model: nn.Module) -> SimpleTrainer:
        given, amp = (model, repeat(self.batch), self.optimizer), self.cfg.SOLVER.AMP
        if self.name == PLUGIN or (amp.ENABLED and self.device.type == "cpu"):  # stock's needs CUDA
            return build_step(*given, amp=amp.ENABLED, precision=amp.get("PRECISION", "auto"))
        return AMPTrainer(*given) if amp.ENABLED else SimpleTrainer(*given)

    def held(self) -> Iterator[Tensor]:
        """What is in memory between two steps, gradients apart."""
        yield from self.model.parameters()
        yield from self.model.buffers()
        for state in self.optimizer.state.values():
            yield from (x for x in state.values() if isinstance(x, Tensor))


def build_contenders(
    cfg: CfgNode,
    batch: list[dict[str, Any]],
    *,
    against_stock: bool,
    extensions: Sequence[str] = (),
) -> tuple[list[Contender], list[str]]:
    """The plugin's detector of ``cfg``, stock's before it if wanted, and notes for the reader.

    A LazyConfig's model has no twin among stock's: its parts are objects, not keys.

    Raises:
        ValueError: the config is no RetinaNet's, or stock has no detector for it.
    """
    cfg, notes = cfg.clone(), []
    by_keys = run_of(cfg).model_from_settings
    if against_stock and not by_keys:
        raise ValueError(
            "stock's RetinaNet cannot be built of a LazyConfig, whose parts are objects: leave out "
            "--against, or give the config as yaml"
        )
    name = cfg.MODEL.META_ARCHITECTURE
    require_registered(META_ARCH_REGISTRY, name, "MODEL.META_ARCHITECTURE")
    if not issubclass(META_ARCH_REGISTRY.get(name), FocalRetinaNet | RetinaNet):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE is {name}: this compares RetinaNets, such as FocalRetinaNet"
        )
    if name == "RetinaNet" and by_keys:
        cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
        notes.append("the config names stock's RetinaNet: FocalRetinaNet is measured in its place")
    cfg.VIS_PERIOD = 0  # pictures are no part of a step
    weights = _calibrated_weights(cfg, batch)
    plugin = Contender.build(PLUGIN, cfg, batch, extensions)
    plugin.model.load_state_dict(weights)
    contenders = [plugin]
    if against_stock:
        stock, differences = _stock(plugin, weights)
        contenders.insert(0, stock)
        if differences:
            notes.append(f"stock differs in {', '.join(differences)}: it is other work")
    notes.append(
        "random weights; norms calibrated on the batch, class scores scaled to "
        f"{CANDIDATES} above {SCORE} an image; learning rate 0"
    )
    return contenders, notes


def _calibrated_weights(cfg: CfgNode, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Of a model whose norms run as modules, since calibration listens to them."""
    cfg = cfg.clone()
    cfg.MODEL.FOLD_FROZEN_NORMS = False
    model = run_of(cfg).build_model()
    calibrate(model, batch, candidates=CANDIDATES)
    return deepcopy(model.state_dict())


def _stock(plugin: Contender, weights: dict[str, Tensor]) -> tuple[Contender, list[str]]:
    """Stock's detector with the same weights where it has the same, and how else it differs."""
    cfg, differences = _stock_config(plugin.cfg)
    try:
        stock = Contender.build(STOCK, cfg, plugin.batch, plugin.extensions)
    except (AssertionError, ValueError, KeyError) as error:
        raise ValueError(
            f"stock's RetinaNet cannot be built of this config ({error}): leave out --against"
        ) from error
    shapes = {name: value.shape for name, value in weights.items()}
    if all(shapes.get(name) == value.shape for name, value in stock.model.state_dict().items()):
        stock.model.load_state_dict(weights, strict=False)  # but for the plugin's normalizer
    else:
        calibrate(stock.model, plugin.batch, candidates=CANDIDATES)
        differences.append("the network's parameters")
    return stock, differences


def _stock_config(cfg: CfgNode) -> tuple[CfgNode, list[str]]:
    """The config for stock, and the settings of a detector that stock cannot follow."""
    stock, differences = cfg.clone(), []
    if cfg.SOLVER.get("OPTIMIZER", "SGD") != "SGD":
        differences.append(f"SOLVER.OPTIMIZER ({cfg.SOLVER.OPTIMIZER})")
    stock.MODEL.META_ARCHITECTURE = "RetinaNet"
    if cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE not in STOCK_BOX_LOSSES:
        stock.MODEL.RETINANET.BBOX_REG_LOSS_TYPE = "smooth_l1"
        differences.append(f"BBOX_REG_LOSS_TYPE ({cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE})")
    known, default = get_cfg().MODEL.RETINANET, add_retina_config(get_cfg()).MODEL.RETINANET
    for key, value in cfg.MODEL.RETINANET.items():
        if key not in known and not _is_default(value, default.get(key)):
            chosen = value.get("NAME", "") if isinstance(value, CfgNode) else value
            differences.append(f"{key} ({chosen or 'its settings'})")
    return stock, differences


def _is_default(value: Any, default: Any) -> bool:
    """Of a node what it has: components that registered after the config was made are not in it."""
    if isinstance(value, CfgNode) and isinstance(default, CfgNode):
        return all(_is_default(x, default.get(key)) for key, x in value.items())
    return value == default


@torch.no_grad()
def features_and_maps(contender: Contender) -> tuple[list[Tensor], list[Tensor]]:
    """Of the batch, with no graph: the levels' features and the head's logits."""
    model = contender.model.eval()
    features = model.backbone(model.preprocess_image(contender.batch).tensor)
    features = [features[name] for name in model.head_in_features]
    return features, list(model.head(features)[0])
