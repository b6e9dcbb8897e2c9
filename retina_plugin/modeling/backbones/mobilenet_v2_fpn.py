"""torchvision's MobileNetV2 under Detectron2's FPN."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from retina_plugin.modeling.backbones.input_channels import set_input_channels
from retina_plugin.modeling.backbones.pixel_format import IMAGENET_RGB
from retina_plugin.modeling.backbones.pretrained_network import PretrainedNetwork
from retina_plugin.registry import BACKBONES, NECKS, unknown_name

COUNTER = "num_batches_tracked"
_NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "FrozenBN": FrozenBatchNorm2d.convert_frozen_batchnorm,
    "BN": lambda module: module,
    "SyncBN": nn.SyncBatchNorm.convert_sync_batchnorm,
}


class MobileNetV2(Backbone, PretrainedNetwork):
    """``torchvision.models.mobilenet_v2().features`` without its last 1x1 convolution.

    Outputs are named as those of Detectron2's ResNets, so that the configs of those fit: ``res2``
    to ``res5`` of strides 4 to 32 and 24, 32, 96 and 320 channels.

    Args:
        out_features: which of them to return.
        norm: norm of the backbone: ``FrozenBN`` (statistics and scale stay as loaded), ``BN`` or
            ``SyncBN``.
        freeze_at: freeze the stem (1) and the stages up to ``res<freeze_at>``; 0 freezes nothing.
        in_channels: of an image.

    Raises:
        UnknownNameError: an unknown norm or output name; lists the valid ones.
    """

    pixel_format = IMAGENET_RGB

    # stage name -> where its blocks begin and end in torchvision's features; ``stem`` has stride 2
    _STAGES = {"stem": (0, 2), "res2": (2, 4), "res3": (4, 7), "res4": (7, 14), "res5": (14, 18)}
    _CHANNELS = {"stem": 16, "res2": 24, "res3": 32, "res4": 96, "res5": 320}

    def __init__(
        self,
        *,
        out_features: tuple[str, ...] = ("res3", "res4", "res5"),
        norm: str = "FrozenBN",
        freeze_at: int = 0,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if norm not in _NORMS:
            raise unknown_name("MODEL.BACKBONE.MobileNetV2.NORM", norm, _NORMS)
        for name in out_features:
            if name not in self._STAGES:
                raise unknown_name("MODEL.FPN.IN_FEATURES", name, self._STAGES)
        self._out_features = list(out_features)
        self._out_feature_channels = {name: self._CHANNELS[name] for name in out_features}
        order = list(self._STAGES)
        self._out_feature_strides = {name: 2 ** (order.index(name) + 1) for name in out_features}
        self.features = _NORMS[norm](mobilenet_v2(weights=None).features[:18])
        set_input_channels(self.features, in_channels)
        for begin, end in list(self._STAGES.values())[:freeze_at]:
            FrozenBatchNorm2d.convert_frozen_batchnorm(self.features[begin:end])
            for parameter in self.features[begin:end].parameters():
                parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``(N, C, H, W)`` -> the named features."""
        outputs = {}
        for name, (begin, end) in self._STAGES.items():
            x = self.features[begin:end](x)
            if name in self._out_features:
                outputs[name] = x
        return outputs

    def map_pretrained(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename foreign MobileNetV2 weights, whose tensors come in this network's order.

        Repositories name the same network's layers differently, in the same order; the classifier
        and the last 1x1 convolution come behind and are left out.

        Raises:
            ValueError: the shapes do not follow this network's.
        """
        own, given = _without_counters(self.state_dict()), _without_counters(weights)
        pairs = list(zip(own.items(), given.items(), strict=False))
        wrong = [
            f"{other} {tuple(came.shape)} came for {name} {tuple(have.shape)}"
            for (name, have), (other, came) in pairs
            if have.shape != came.shape
        ]
        if len(given) < len(own) or wrong:
            raise ValueError(
                f"these weights are no MobileNetV2 of width 1: {len(given)} tensors for {len(own)}"
                f"{', ' if wrong else ''}{', '.join(wrong[:1])}"
            )
        mapped = {name: tensor for (name, _), (_, tensor) in pairs}
        theirs = {_counter_of(a): _counter_of(b) for (a, _), (b, _) in pairs}
        for name, counter in self.state_dict().items():
            if name.endswith(COUNTER):
                mapped[name] = weights.get(theirs[name], counter)
        return mapped


def _without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without BatchNorm's step counters, which some files have and others have not."""
    return {name: tensor for name, tensor in state.items() if not name.endswith(COUNTER)}


def _counter_of(name: str) -> str:
    """The name of the counter beside a BatchNorm's tensor."""
    return f"{name.rpartition('.')[0]}.{COUNTER}"


@BACKBONES.register(defaults={"NORM": "FrozenBN"}, node="MobileNetV2", choices={"NORM": _NORMS})
def build_retinanet_mobilenet_v2_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """MobileNetV2 and a neck (``MODEL.NECK``).

    The settings ``MODEL.BACKBONE.MobileNetV2`` are arguments of :class:`MobileNetV2`.
    """
    settings = BACKBONES.settings(cfg, "build_retinanet_mobilenet_v2_fpn_backbone")
    bottom_up = MobileNetV2(
        out_features=tuple(cfg.MODEL.FPN.IN_FEATURES),
        norm=settings["NORM"],
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels,
    )
    return NECKS.build(cfg, bottom_up=bottom_up)
