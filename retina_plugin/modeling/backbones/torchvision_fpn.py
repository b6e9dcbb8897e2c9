"""Any of torchvision's classification networks under a neck."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torchvision import models

from retina_plugin.modeling.backbones.input_channels import set_input_channels
from retina_plugin.modeling.backbones.norms import AUTO, NORMS, freeze, set_norms
from retina_plugin.modeling.backbones.pixel_format import IMAGENET_RGB
from retina_plugin.modeling.backbones.pretrained_network import PretrainedNetwork
from retina_plugin.modeling.backbones.segments import (
    Segment,
    group_by_stage,
    read_segments,
    trial_image,
)
from retina_plugin.modeling.backbones.stage_names import check_stages
from retina_plugin.registry import BACKBONES, NECKS, unknown_name

NODE = "MODEL.BACKBONE.Torchvision"


class Torchvision(Backbone, PretrainedNetwork):
    """A network of ``torchvision.models`` without its classifier, named and weighted as there.

    It is run once to see which of its modules give maps of which stride and channels; ``res<N>`` is
    the last map of stride 2^N, as Detectron2's ResNets name theirs, ``stem`` what comes before
    stride 4. Source: ``torchvision.models.get_model``. Unlike ``create_feature_extractor``, which
    makes a traced graph of it, this keeps the modules and runs them in turn (which must give the
    same, else it is refused): their norms can be folded, their stages be checkpointed.

    Args:
        model: name of a model of ``torchvision.models.list_models()``; no weights are downloaded.
        out_features: which of ``stem`` and ``res2`` to ``res5`` to return, in that order.
        norm: norm that replaces batch norms: ``BN``, ``SyncBN``, ``FrozenBN``, ``GN``, ``LN``, or
            ``auto``, which freezes batch norms and keeps others, see ``set_norms``.
        freeze_at: freeze the stem (1) and the stages up to ``res<freeze_at>``; 0 freezes nothing.
        in_channels: of an image.

    Raises:
        UnknownNameError: an unknown model or norm; lists the near and the valid ones.
        ValueError: the model has no batch norm to replace, not the stages asked for, or cannot be
            taken apart or run on images of any size.
    """

    pixel_format = IMAGENET_RGB

    def __init__(
        self,
        *,
        model: str,
        out_features: Sequence[str] = ("res3", "res4", "res5"),
        norm: str = AUTO,
        freeze_at: int = 0,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        names = models.list_models(module=models)
        if model not in names:
            raise unknown_name(f"{NODE}.MODEL", model, names)
        network = models.get_model(model, weights=None)
        set_input_channels(network, in_channels)
        set_norms(network, norm, key=f"{NODE}.NORM", name=model)
        try:
            segments = read_segments(network, in_channels)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{NODE}.MODEL: {model} cannot run on images of any size ({error}): take another"
            ) from error
        stages = group_by_stage(network, segments)
        shapes = {
            name: ShapeSpec(channels=parts[-1].channels, stride=parts[-1].stride)
            for name, parts in stages.items()
            if parts
        }
        check_stages(out_features, shapes, f"torchvision's {model}")
        self._out_features = [name for name in shapes if name in out_features]
        self._out_feature_channels = {n: shapes[n].channels for n in self._out_features}
        self._out_feature_strides = {n: shapes[n].stride for n in self._out_features}
        ends = {stages[name][-1].path: name for name in self._out_features}
        last = next(i for i, s in enumerate(segments) if s.path == list(ends)[-1])
        self._steps = [(s, ends.get(s.path)) for s in segments[: last + 1]]
        frozen = list(stages)[:freeze_at]
        freeze(network, [s.path for name in frozen for s in stages[name]])
        for segment, _ in self._steps:
            _put(self, segment.path, network.get_submodule(segment.path))
        self._check_order(network, model, in_channels)

    def _check_order(self, network: nn.Module, model: str, channels: int) -> None:
        """That the modules in turn are what the network computes."""
        expected: dict[str, Tensor] = {}

        def note(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
            expected[name] = output.clone()  # what follows may work in place

        hooks = [
            network.get_submodule(s.path).register_forward_hook(partial(note, name))
            for s, name in self._steps
            if name
        ]
        with torch.no_grad():
            network.eval()(trial_image(channels))
            for hook in hooks:
                hook.remove()
            found = self.eval()(trial_image(channels))
        self.train()
        for segment, name in self._steps:
            if name and not torch.equal(found[name], _channels_first(expected[name], segment)):
                raise ValueError(
                    f"{NODE}.MODEL: {model} is no chain of modules up to {segment.path}, so it "
                    "cannot be taken apart into stages: take another, or write a builder for it "
                    "(docs/how-to/extend.md, A backbone)"
                )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``(N, C, H, W)`` -> the named features."""
        outputs = {}
        for segment, name in self._steps:
            x = self.get_submodule(segment.path)(x)
            if name:
                outputs[name] = _channels_first(x, segment)
        return outputs

    def layer_names(self) -> list[str]:
        """The modules in turn, for ``SOLVER.LAYER_DECAY``."""
        return [segment.path for segment, _ in self._steps]


def _channels_first(x: Tensor, segment: Segment) -> Tensor:
    return x.permute(0, 3, 1, 2).contiguous() if segment.channels_last else x


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    """Register a module under a dotted path, in plain modules where there are none yet."""
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    root.add_module(name, module)


@BACKBONES.register(
    defaults={"MODEL": "resnet50", "NORM": AUTO}, node="Torchvision", choices={"NORM": NORMS}
)
def build_retinanet_torchvision_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """A network of torchvision and a neck (``MODEL.NECK``).

    The settings ``MODEL.BACKBONE.Torchvision`` are arguments of :class:`Torchvision`.
    """
    settings = BACKBONES.settings(cfg, "build_retinanet_torchvision_fpn_backbone")
    bottom_up = Torchvision(
        model=settings["MODEL"],
        out_features=cfg.MODEL.FPN.IN_FEATURES,
        norm=settings["NORM"],
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels,
    )
    return NECKS.build(cfg, bottom_up=bottom_up)
