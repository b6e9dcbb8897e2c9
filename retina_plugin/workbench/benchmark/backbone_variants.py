"""Which backbones and detectors the table of backbones has, in full and tiny."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode, get_cfg

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.modeling.backbones.pixel_format import IMAGENET_RGB

NODE = "MODEL.BACKBONE"


@dataclass(frozen=True)
class Variant:
    """A backbone.

    Attributes:
        name: in the table.
        builder: ``build_retinanet_<builder>_fpn_backbone``.
        settings: keys, those without a dot of the builder's node, and values.
        node: of the builder's settings.
        needs: a package that it needs and that is not always installed.
    """

    name: str
    builder: str
    node: str
    settings: dict[str, Any]
    needs: str = ""

    def overrides(self) -> list[Any]:
        """For a config."""
        keys = {
            key if key.startswith("MODEL.") else f"{NODE}.{self.node}.{key}": value
            for key, value in self.settings.items()
        }
        keys[f"{NODE}.NAME"] = f"build_retinanet_{self.builder}_fpn_backbone"
        return [x for pair in keys.items() for x in pair]


def _registered(name: str, depth: int, **keys: Any) -> Variant:
    width = {"RES2_OUT_CHANNELS": 64} if depth < 50 else {}
    resnets = {f"MODEL.RESNETS.{k}": v for k, v in {"DEPTH": depth, **width, **keys}.items()}
    return Variant(name, "registered", "Registered", resnets)


def _torchvision(model: str) -> Variant:
    return Variant(f"torchvision {model}", "torchvision", "Torchvision", {"MODEL": model})


def _timm(model: str) -> Variant:
    return Variant(f"timm {model}", "timm", "Timm", {"MODEL": model}, needs="timm")


def _from_p5(variant: Variant) -> Variant:
    settings = {**variant.settings, "MODEL.NECK.FPNNeck.TOP": "P5"}
    return Variant(f"{variant.name}, P6 of P5", variant.builder, variant.node, settings)


# the first is what the others are compared with
FULL = (
    _registered("ResNet-50", 50),
    _from_p5(_registered("ResNet-50", 50)),
    _registered("ResNet-101", 101),
    _registered("ResNeXt-50 32x4d", 50, NUM_GROUPS=32, WIDTH_PER_GROUP=4),
    Variant("RegNetX-4GF", "regnet", "RegNet", {}),
    Variant("Swin-T", "swin", "Swin", {}),
    Variant("MViTv2-T", "mvit", "MViT", {}),
    Variant("ViT-S", "vit", "ViT", {"EMBED_DIM": 384, "NUM_HEADS": 6}),
    Variant("MobileNetV2", "mobilenet_v2", "MobileNetV2", {}),
    *map(_torchvision, ("convnext_tiny", "efficientnet_b0", "efficientnet_v2_s")),
    *map(_torchvision, ("mobilenet_v3_large", "regnet_y_3_2gf", "resnet50", "swin_t")),
    *map(_timm, ("convnext_tiny", "resnet50", "mobilenetv3_large_100")),
    _timm("swin_tiny_patch4_window7_224"),
)
_REGNET = {"DEPTH": 5, "W_A": 31.4, "W_0": 8, "W_M": 2.2, "GROUP_WIDTH": 8, "STEM_WIDTH": 8}
_SWIN = {"EMBED_DIM": 12, "DEPTHS": (1, 1, 2, 1), "NUM_HEADS": (1, 2, 3, 4), "WINDOW_SIZE": 4}
_MVIT = {"EMBED_DIM": 16, "DEPTHS": (1, 1, 1, 1), "WINDOW_SIZE": 8}
_VIT = {"EMBED_DIM": 48, "DEPTH": 4, "NUM_HEADS": 2, "WINDOW_SIZE": 4, "IMG_SIZE": 128}
TINY = (
    _registered("ResNet-18", 18),
    _from_p5(_registered("ResNet-18", 18)),
    Variant("RegNet", "regnet", "RegNet", _REGNET),
    Variant("Swin", "swin", "Swin", _SWIN),
    Variant("MViT", "mvit", "MViT", _MVIT),
    Variant("ViT", "vit", "ViT", _VIT),
    Variant("MobileNetV2", "mobilenet_v2", "MobileNetV2", {}),
    _torchvision("mobilenet_v3_small"),
    _torchvision("regnet_y_400mf"),
    _timm("mobilenetv3_small_050"),
)

# as configs/paper and configs/modern/one_anchor: the same network but for anchors and centreness
HEADS: dict[str, list[Any]] = {
    "paper": [
        *("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "smooth_l1"),
        *("MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", 0.11),
        *("MODEL.RETINANET.ASSIGNER.MaxIoUAssigner.ALLOW_LOW_QUALITY_MATCHES", False),
    ],
    "ATSS, one anchor": [
        *("MODEL.RETINANET.HEAD.NAME", "QualityHead"),
        *("MODEL.RETINANET.HEAD.QualityHead.LEVEL_SCALES", True),
        *("MODEL.RETINANET.ASSIGNER.NAME", "ATSSAssigner"),
        *("MODEL.RETINANET.BBOX_REG_WEIGHTS", [10.0, 10.0, 5.0, 5.0]),
        *("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "giou"),
        *("MODEL.RETINANET.LOSS.BOX_REG", 2.0),
        *("MODEL.RETINANET.LOSS.BOXES_BY", "centreness"),
        *("MODEL.ANCHOR_GENERATOR.OctaveAnchorGenerator.SCALES_PER_OCTAVE", 1),
        *("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[1.0]]),
        *("MODEL.ANCHOR_GENERATOR.SIZES", [[64], [128], [256], [512], [1024]]),
    ],
}


def variant_cfg(variant: Variant, head: str, *, classes: int, tiny: bool) -> CfgNode:
    """The config of a backbone and a head (a key of ``HEADS``), all of it to be trained.

    ``tiny``: a neck and head of 64 channels and one convolution. Heads have GroupNorm, and the loss
    is divided by the batch's own positives, so that it says in three steps whether it falls.
    """
    cfg = add_retina_config(get_cfg())
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = list(IMAGENET_RGB.mean), list(IMAGENET_RGB.std)
    cfg.INPUT.FORMAT = IMAGENET_RGB.order
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.FPN.IN_FEATURES = cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "OctaveAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    retinanet = cfg.MODEL.RETINANET
    retinanet.NUM_CLASSES, retinanet.NORM = classes, "GN"
    retinanet.NORMALIZER.NAME = "BatchNormalizer"
    retinanet.SCORE_THRESH_TEST = 0.0  # what three steps taught is below any threshold
    cfg.MODEL.WINOGRAD = False  # its multiplications are not those that one counts
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR = "AdamW", 1e-4
    if tiny:
        cfg.MODEL.FPN.OUT_CHANNELS, retinanet.NUM_CONVS = 64, 1  # two a group
        cfg.SOLVER.BASE_LR = 1e-3
    cfg.merge_from_list([*HEADS[head], *variant.overrides()])
    return cfg
