"""Any of timm's networks with features at several strides, under a neck."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from retina_plugin.modeling.backbones.norms import AUTO, NORMS, freeze, set_norms
from retina_plugin.modeling.backbones.pixel_format import IMAGENET_RGB, PixelFormat
from retina_plugin.modeling.backbones.pretrained_network import PretrainedNetwork
from retina_plugin.modeling.backbones.segments import (
    group_by_stage,
    map_of,
    read_segments,
    trial_image,
)
from retina_plugin.modeling.backbones.stage_names import check_stages
from retina_plugin.registry import BACKBONES, NECKS, UnknownNameError

NODE = "MODEL.BACKBONE.Timm"


class Timm(Backbone, PretrainedNetwork):
    """A network that ``timm.create_model(model, features_only=True)`` makes.

    Strides and channels are read from its ``feature_info``. Outputs are named as those of
    Detectron2's ResNets: ``res<N>`` has stride 2^N. Weights are named as timm's ``features_only``
    networks name theirs, after ``network.``.

    Args:
        model: name of a model of ``timm.list_models()``; no weights are downloaded.
        out_features: which of ``res1`` to ``res5`` to return, those that the model has.
        norm: norm that replaces batch norms: ``BN``, ``SyncBN``, ``FrozenBN``, ``GN``, ``LN``, or
            ``auto``, which freezes batch norms and keeps others, see ``set_norms``.
        freeze_at: freeze the stem (1) and the stages up to ``res<freeze_at>``; 0 freezes nothing.
            The stem is what comes before stride 4, or a patch embedding of stride 4.
        in_channels: of an image.

    Raises:
        ImportError: timm is not installed.
        UnknownNameError: an unknown model or norm; lists the near ones.
        ValueError: the model has no features at several strides, no batch norm to replace, not the
            stages asked for, or cannot run on images of any size.
    """

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
        timm = _timm()
        if not timm.is_model(model):
            raise _unknown_model(model, timm.list_models())
        network = _create(timm, model, in_channels, out_indices=range(-len(out_features), 0))
        shapes = _shapes_of(network)
        if set(shapes) != set(out_features):  # they are not the last ones
            available = _shapes_of(_create(timm, model, in_channels))
            check_stages(out_features, available, f"timm's {model}")
            indices = [i for i, name in enumerate(available) if name in out_features]
            network = _create(timm, model, in_channels, out_indices=indices)
            shapes = _shapes_of(network)
        self._out_features = list(shapes)
        self._out_feature_channels = {name: shape.channels for name, shape in shapes.items()}
        self._out_feature_strides = {name: shape.stride for name, shape in shapes.items()}
        self.network = network
        self.pixel_format = _pixel_format(timm, model)
        set_norms(self.network, norm, key=f"{NODE}.NORM", name=model)
        try:
            segments = read_segments(self.network, in_channels)
            with torch.no_grad():
                maps = self.network.eval()(trial_image(in_channels))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{NODE}.MODEL: {model} cannot run on images of any size ({error}): take another"
            ) from error
        self.network.train()
        self._channels_last = [(map_of(x) or (0, 0, False))[2] for x in maps]
        grouped = group_by_stage(self.network, segments)
        self._layers = [s.path for s in segments]
        freeze(self.network, [s.path for name in list(grouped)[:freeze_at] for s in grouped[name]])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``(N, C, H, W)`` -> the named features."""
        maps = zip(self._out_features, self.network(x), self._channels_last, strict=True)
        return {n: y.permute(0, 3, 1, 2).contiguous() if last else y for n, y, last in maps}

    def layer_names(self) -> list[str]:
        """The modules in turn, for ``SOLVER.LAYER_DECAY``."""
        return [f"network.{path}" for path in self._layers]


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            f"{NODE} needs timm, which is not installed: pip install 'retina-plugin[timm]'"
        ) from error
    return timm


def _create(timm: ModuleType, model: str, in_channels: int, **options: Any) -> nn.Module:
    """The network; of one that asks for its image size, the kind that takes any."""
    options = {"features_only": True, "pretrained": False, "in_chans": in_channels, **options}
    try:
        try:
            return timm.create_model(model, strict_img_size=False, **options)
        except TypeError:  # most have no such option
            return timm.create_model(model, **options)
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{NODE}.MODEL: timm cannot make features of several strides of {model} ({error}): "
            "take another, such as convnext_tiny or resnet50"
        ) from error


def _shapes_of(network: nn.Module) -> dict[str, ShapeSpec]:
    info = network.feature_info
    return {
        f"res{stride.bit_length() - 1}": ShapeSpec(channels=channels, stride=stride)
        for stride, channels in zip(info.reduction(), info.channels(), strict=True)
    }


def _pixel_format(timm: ModuleType, model: str) -> PixelFormat:
    """What timm says that the model's usual weights were trained on."""
    found = timm.get_pretrained_cfg(model)
    if found is None:
        return IMAGENET_RGB
    mean, std = (tuple(255 * x for x in values) for values in (found.mean, found.std))
    return PixelFormat("RGB", mean, std)


def _unknown_model(model: str, names: Sequence[str]) -> UnknownNameError:
    """With the near names alone: timm has more than a thousand."""
    parts = [name for name in names if name.startswith(model)]
    near = [*difflib.get_close_matches(model, names, n=5), *parts][:5]
    hint = f" Did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    return UnknownNameError(
        f"{NODE}.MODEL: '{model}' is unknown.{hint} timm.list_models() lists all {len(names)}."
    )


@BACKBONES.register(
    defaults={"MODEL": "convnext_tiny", "NORM": AUTO}, node="Timm", choices={"NORM": NORMS}
)
def build_retinanet_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """A network of timm and a neck (``MODEL.NECK``).

    The settings ``MODEL.BACKBONE.Timm`` are arguments of :class:`Timm`.
    """
    settings = BACKBONES.settings(cfg, "build_retinanet_timm_fpn_backbone")
    bottom_up = Timm(
        model=settings["MODEL"],
        out_features=cfg.MODEL.FPN.IN_FEATURES,
        norm=settings["NORM"],
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels,
    )
    return NECKS.build(cfg, bottom_up=bottom_up)
