"""Networks of other frameworks, and Detectron2's that take their weights."""

from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from detectron2.structures import ImageList
from torch import nn

from retina_plugin.checkpoint.config_text import config_text
from retina_plugin.config.config_file import load_config


def detectron2_resnet(depth, channels=3):
    cfg = get_cfg()
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    return build_resnet_backbone(cfg, ShapeSpec(channels=channels)).eval()


def random_statistics(model):
    """Norms of which every tensor matters."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(std=0.1)
    return model.eval()


def detector_of(conversion, folder):
    """Our detector by the config of a conversion, with its weights."""
    path = folder / "converted.yaml"
    path.write_text(config_text(conversion, weights=folder / "x.pth", path=path))
    model = build_model(load_config(path, ["MODEL.DEVICE=cpu"]))
    wrong = model.load_state_dict(conversion.state, strict=False)
    assert wrong.unexpected_keys == []
    assert set(wrong.missing_keys) <= {"normalizer.average"}
    return model.eval()


def sorted_by_anchor(logits, deltas, anchors):
    """Of one level ``(R, K), (R, D), (R, 4)``, in an order that both frameworks have."""
    order = sorted(range(len(anchors)), key=lambda i: [round(x, 2) for x in anchors[i].tolist()])
    return logits[order], deltas[order], anchors[order]


def our_levels(model, x):
    """For each level the logits, deltas and anchors of a normalised image ``(1, C, H, W)``."""
    predictions = model.predict(ImageList(x, [tuple(x.shape[2:])]))
    for logits, deltas, anchors in zip(
        predictions.logits, predictions.deltas, predictions.anchors, strict=True
    ):
        per_cell = len(anchors) // logits[0, 0].numel()
        yield (
            by_anchor(logits, per_cell),
            by_anchor(deltas, per_cell),
            anchors.tensor,
        )


def by_anchor(map_, per_cell):
    """``(1, A*D, H, W) -> (H*W*A, D)``."""
    _, channels, height, width = map_.shape
    return (
        map_[0]
        .view(per_cell, channels // per_cell, height, width)
        .permute(2, 3, 0, 1)
        .flatten(0, 2)
    )
