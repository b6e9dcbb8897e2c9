"""MMDetection's layout: a network written out here with its names, and ours, give the same numbers.

MMDetection needs a compiled mmcv, so its modules are written anew from its source (3.3): names,
order of norms and activations, anchors and decoding. Once its own modules (RetinaNet R18, R50 caffe
and X101, ATSS and GFL R50, with a stub for mmcv's operators) were converted with the configs
in their files: logits, deltas and centerness were equal to the bit, boxes to 3e-5 pixels.
"""

import pytest
import torch
from detectron2.structures import ImageList
from support.foreign_models import detector_of, our_levels, random_statistics, sorted_by_anchor
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18, resnet50

from retina_plugin.checkpoint.mmdetection import from_mmdetection
from retina_plugin.checkpoint.mmdetection_settings import settings_of

K = 3
NAMES = {"retina": "RetinaNet", "atss": "ATSS", "gfl": "GFL"}
STRIDES = (8, 16, 32, 64, 128)
SIZE = (64, 96)


class ConvModule(nn.Module):
    """mmcv.cnn.ConvModule: convolution, GroupNorm, ReLU; no bias before a norm."""

    def __init__(self, in_channels, channels, kernel, stride=1, norm=False, act=False):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=not norm)
        self.gn = nn.GroupNorm(32, channels) if norm else None
        self.act = act

    def forward(self, x):
        x = self.conv(x)
        x = x if self.gn is None else self.gn(x)
        return x.relu() if self.act else x


class Backbone(nn.Module):
    """mmdet.models.backbones.ResNet, whose names are torchvision's."""

    def __init__(self, resnet, caffe=False):
        super().__init__()
        for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, getattr(resnet, name))
        for block in [b for b in self.modules() if caffe and hasattr(b, "conv3")]:
            block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)

    def forward(self, x):
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        outputs = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            outputs.append(x)
        return outputs[1:]


class FPN(nn.Module):
    """mmdet.models.necks.FPN with start_level=1, num_outs=5."""

    def __init__(self, channels, out, extra, relu=False):
        super().__init__()
        self.extra, self.relu = extra, relu
        self.lateral_convs = nn.ModuleList(ConvModule(c, out, 1) for c in channels)
        self.fpn_convs = nn.ModuleList(ConvModule(out, out, 3) for _ in channels)
        source = channels[-1] if extra == "on_input" else out
        self.fpn_convs.append(ConvModule(source, out, 3, stride=2))
        self.fpn_convs.append(ConvModule(out, out, 3, stride=2))

    def forward(self, inputs):
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, inputs, strict=True)]
        for i in (2, 1):
            size = laterals[i - 1].shape[2:]
            laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], size=size)
        outs = [conv(x) for conv, x in zip(self.fpn_convs[:3], laterals, strict=True)]
        outs.append(self.fpn_convs[3](inputs[-1] if self.extra == "on_input" else outs[-1]))
        outs.append(self.fpn_convs[4](outs[-1].relu() if self.relu else outs[-1]))
        return outs


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(()) + 0.5)


class Integral(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("project", torch.arange(17.0))


class Head(nn.Module):
    """mmdet.models.dense_heads.{RetinaHead, ATSSHead, GFLHead}."""

    def __init__(self, kind, channels, anchors, norm):
        super().__init__()
        self.kind = kind
        for tower in ("cls_convs", "reg_convs"):
            convs = [ConvModule(channels, channels, 3, norm=norm, act=True) for _ in range(2)]
            self.add_module(tower, nn.ModuleList(convs))
        box = 4 * 17 if kind == "gfl" else 4
        self.add_module(f"{kind}_cls", nn.Conv2d(channels, anchors * K, 3, padding=1))
        self.add_module(f"{kind}_reg", nn.Conv2d(channels, anchors * box, 3, padding=1))
        if kind == "atss":
            self.atss_centerness = nn.Conv2d(channels, anchors, 3, padding=1)
        if kind != "retina":
            self.scales = nn.ModuleList(Scale() for _ in STRIDES)
        if kind == "gfl":
            self.integral = Integral()

    def forward(self, level, x):
        cls = reg = x
        for conv in self.cls_convs:
            cls = conv(cls)
        for conv in self.reg_convs:
            reg = conv(reg)
        logits, boxes = (
            getattr(self, f"{self.kind}_cls")(cls),
            getattr(self, f"{self.kind}_reg")(reg),
        )
        if self.kind != "retina":
            boxes = boxes * self.scales[level].scale
        quality = self.atss_centerness(reg) if self.kind == "atss" else None
        return logits, boxes, quality


class Detector(nn.Module):
    def __init__(self, kind, *, resnet=resnet18, extra=None, relu=False, caffe=False, ratios=3):
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.anchors = 3 * ratios if kind == "retina" else 1
        self.backbone = Backbone(resnet(), caffe)
        channels = [128, 256, 512] if resnet is resnet18 else [512, 1024, 2048]
        extra = extra or ("on_input" if kind == "retina" else "on_output")
        self.neck = FPN(channels, 64, extra, relu)
        self.bbox_head = Head(kind, 64, self.anchors, norm=kind != "retina")
        random_statistics(self)
        for module in self.bbox_head.modules():
            if isinstance(module, nn.GroupNorm):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
        logits, boxes, _ = self(torch.randn(1, 3, *SIZE))[0]
        for task, output in (("cls", logits), ("reg", boxes)):  # of a size that boxes have
            getattr(self.bbox_head, f"{kind}_{task}").weight.data *= 0.7 / output.std()

    @torch.no_grad()
    def forward(self, x):
        features = self.neck(self.backbone(x))
        return [self.bbox_head(i, feature) for i, feature in enumerate(features)]


def rows(map_, anchors):
    """What mmdet's permute(0, 2, 3, 1).reshape(-1, D) makes of a map."""
    return map_[0].permute(1, 2, 0).reshape(-1, map_.shape[1] // anchors)


def mmdet_anchors(kind, level, height, width):
    """AnchorGenerator.gen_single_level_base_anchors and grid_priors: ratios before scales."""
    stride = STRIDES[level]
    if kind == "retina":
        scales = torch.tensor([4 * 2 ** (i / 3) for i in range(3)])
        ratios = torch.tensor([0.5, 1.0, 2.0])
    else:
        scales, ratios = torch.tensor([8.0]), torch.tensor([1.0])
    h = ratios.sqrt()
    ws = (stride * (1 / h)[:, None] * scales[None]).view(-1)
    hs = (stride * h[:, None] * scales[None]).view(-1)
    base = torch.stack([-0.5 * ws, -0.5 * hs, 0.5 * ws, 0.5 * hs], dim=-1)
    x = (torch.arange(width) * stride).repeat(height)
    y = (torch.arange(height) * stride).repeat_interleave(width)
    return (base[None] + torch.stack([x, y, x, y], 1)[:, None]).view(-1, 4)


def mmdet_boxes(kind, anchors, boxes, stride):
    """delta2bbox, which clamps sizes beyond these, or GFL's integral and distance2bbox."""
    if kind == "gfl":
        distances = (boxes.reshape(-1, 17).softmax(1) @ torch.arange(17.0)).view(-1, 4) * stride
        centre = (anchors[:, :2] + anchors[:, 2:]) / 2
        return torch.cat([centre - distances[:, :2], centre + distances[:, 2:]], 1)
    stds = torch.tensor([0.1, 0.1, 0.2, 0.2] if kind == "atss" else [1.0] * 4)
    deltas = boxes * stds
    centre, size = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    centre, size = centre + size * deltas[:, :2], size * deltas[:, 2:].exp()
    return torch.cat([centre - size / 2, centre + size / 2], 1)


def convert(model, **content):
    return from_mmdetection(model.state_dict(), "mm.pth", content)


def assert_same(theirs, ours, kind, x=None):
    x = torch.randn(1, 3, *SIZE) if x is None else x
    expected = theirs(x)
    quality = []
    ours.head.register_forward_hook(lambda *args: quality.extend(args[2][2:]))
    with torch.no_grad():
        levels = list(our_levels(ours, x))
    for level, ((logits, boxes, centreness), found) in enumerate(
        zip(expected, levels, strict=True)
    ):
        anchors = mmdet_anchors(kind, level, *logits.shape[2:])
        wanted = sorted_by_anchor(
            rows(logits, theirs.anchors), rows(boxes, theirs.anchors), anchors
        )
        found = sorted_by_anchor(*found)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            ours.box_coder.decode(found[2], found[1]),
            mmdet_boxes(kind, wanted[2], wanted[1], STRIDES[level]),
            rtol=1e-4,
            atol=1e-2,
        )
        if centreness is not None:
            torch.testing.assert_close(
                quality[0]["quality"][level], centreness, rtol=1e-4, atol=1e-4
            )
    assert expected[0][0].std() > 0.5


@pytest.mark.parametrize("kind", ["retina", "atss", "gfl"])
def test_the_same_logits_deltas_and_boxes(tmp_path, kind):
    theirs = Detector(kind)
    conversion = convert(theirs)
    assert conversion.kind == f"MMDetection's {NAMES[kind]}"
    ours = detector_of(conversion, tmp_path)
    assert_same(theirs, ours, kind)
    assert (ours.backbone.top_block.in_feature == "res5") == (kind == "retina")
    if kind == "gfl":
        assert "bbox_head.integral.project" in conversion.dropped
        assert ours.box_coder.reg_max == 16
    if kind == "atss":
        assert ours.head.powers == (1.0, 1.0)


def test_class_and_centreness_multiply(tmp_path):
    """MMDetection's score_factors."""
    theirs = Detector("atss")
    ours = detector_of(convert(theirs), tmp_path)
    x = torch.randn(1, 3, *SIZE)
    logits, _, centreness = theirs(x)[0]
    with torch.no_grad():
        predictions = ours.predict(ImageList(x, [SIZE]))
        fused = ours.head.fused_logits(predictions)[0]
    torch.testing.assert_close(
        fused.sigmoid(), logits.sigmoid() * centreness.sigmoid(), rtol=1e-4, atol=1e-5
    )


CAFFE = """
_base_ = './retinanet_r50_fpn_1x_coco.py'
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[103.530, 116.280, 123.675],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False),
    backbone=dict(type='ResNet', depth=50, style='caffe'),
    neck=dict(type='FPN', add_extra_convs='on_output', relu_before_extra_convs=True),
    bbox_head=dict(
        type='RetinaHead',
        anchor_generator=dict(
            octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128])),
    test_cfg=dict(nms_pre=500, score_thr=0.1, nms=dict(type='nms', iou_threshold=0.4),
                  max_per_img=50))
"""


def test_the_config_in_the_file_is_followed(tmp_path):
    theirs = Detector("retina", resnet=resnet50, extra="on_output", relu=True, caffe=True)
    conversion = convert(theirs, meta={"cfg": CAFFE})
    ours = detector_of(conversion, tmp_path)
    assert_same(theirs, ours, "retina")
    assert ours.input_format == "BGR" and ours.pixel_std.flatten().tolist() == [1.0, 1.0, 1.0]
    found = ours.post_processor
    assert (found.topk, found.score_thresh, found.nms_thresh) == (500, 0.1, 0.4)
    assert found.max_detections == 50
    assert "its config says: BGR" in conversion.notes[0]
    assert "MODEL.NECK.FPNNeck.TOP" in conversion.settings


def test_without_a_config_mmdetections_own_is_taken():
    assert "no config in the file" in convert(Detector("atss")).notes[0]
    plain = settings_of({}, "GFL")
    assert not plain.known and plain.order == "RGB" and plain.nms_thresh == 0.6
    for text in ("model = dict(", "import os", "model = os.system('x')", "x = 1"):
        assert settings_of({"meta": {"cfg": text}}, "GFL") == plain


def test_mmdetection_2s_config():
    text = (
        "img_norm_cfg = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=False)\n"
        "model = dict(backbone=dict(style='pytorch'), neck=dict(add_extra_convs=True),"
        " bbox_head=dict(anchor_generator=dict(scales=[8], ratios=[1.0, 2.0],"
        " strides=(8, 16, 32, 64, 128))))\n"
        "test_cfg = dict(score_thr=0.2)"
    )
    found = settings_of({"meta": {"config": text}}, "RetinaNet")
    assert (found.mean, found.std, found.order) == ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], "BGR")
    assert (found.extra_convs, found.scales, found.ratios) == ("on_input", [8], [1.0, 2.0])
    assert found.score_thresh == 0.2 and not found.stride_in_1x1 and found.known


# ---- what is refused


@pytest.fixture(scope="module")
def state():
    return Detector("retina").state_dict()


def test_another_head(state):
    other = {k: v for k, v in state.items() if not k.startswith("bbox_head.retina")}
    other["bbox_head.conv_cls.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"m.pth: .*RetinaNet, ATSS or GFL"):
        from_mmdetection(other, "m.pth", {})


@pytest.mark.parametrize(
    "name",
    [
        "backbone.layer2.0.conv2.conv_offset.weight",
        "backbone.stem.0.weight",
        "neck.fpn_convs.5.conv.weight",
        "neck.lateral_convs.0.bn.weight",
        "bbox_head.cls_convs.0.bn.weight",
        "roi_head.weight",
    ],
)
def test_a_network_that_ours_is_not(state, name):
    with pytest.raises(ValueError, match=f"m.pth: 1 of its tensors.*{name}"):
        from_mmdetection({**state, name: torch.zeros(1)}, "m.pth", {})


def test_a_missing_part(state):
    part = {k: v for k, v in state.items() if "lateral_convs.2" not in k}
    with pytest.raises(ValueError, match=r"backbone.fpn_lateral5.weight here is missing"):
        from_mmdetection(part, "m.pth", {})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("model = dict(neck=dict(add_extra_convs='on_lateral'))", "on_lateral"),
        ("model = dict(neck=dict(add_extra_convs='on_output'))", "channels as C5"),
        (
            "model = dict(bbox_head=dict(anchor_generator=dict(scales=[4], ratios=[1.0],"
            " strides=[8, 16, 32, 64, 128])))",
            "9 anchors a cell, but its config says 1 sizes in 1 ratios",
        ),
        (
            "model = dict(bbox_head=dict(anchor_generator=dict(scales=[4], ratios=[1.0],"
            " strides=[4, 8, 16, 32, 64])))",
            r"strides \[4",
        ),
    ],
)
def test_a_config_that_ours_cannot_follow(state, config, message):
    with pytest.raises(ValueError, match=f"m.pth: .*{message}"):
        from_mmdetection(state, "m.pth", {"meta": {"cfg": config}})


def test_other_anchors_without_a_config():
    with pytest.raises(ValueError, match="6 anchors a cell, but without a config"):
        convert(Detector("retina", ratios=2))
