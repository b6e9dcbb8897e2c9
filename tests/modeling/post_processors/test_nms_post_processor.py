"""The post-processor against Detectron2's methods and torchvision's NMS, on maps of its own."""

from types import MethodType, SimpleNamespace

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from detectron2.structures import Boxes
from support.tiny_models import tiny_focal_cfg
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import batched_nms, box_iou, nms

from retina_plugin.modeling.coders.delta_coder import DeltaCoder
from retina_plugin.modeling.post_processors import NMSPostProcessor

SIZES = ((8, 10), (4, 5), (2, 3))
STRIDES = (8, 16, 32)


def make_maps(num_classes=4, counts=(3, 3, 3), num_images=2, spread=2.0):
    logits = [
        torch.randn(num_images, a * num_classes, h, w) * spread - 2
        for a, (h, w) in zip(counts, SIZES, strict=True)
    ]
    deltas = [
        torch.randn(num_images, a * 4, h, w) * 0.3 for a, (h, w) in zip(counts, SIZES, strict=True)
    ]
    sizes = [[stride * 3.0 * 2 ** (i / 3) for i in range(3)] for stride in STRIDES]
    generator = DefaultAnchorGenerator(
        sizes=[level[:a] for level, a in zip(sizes, counts, strict=True)],
        aspect_ratios=[[1.0]],
        strides=STRIDES,
        offset=0.5,
    )
    return logits, deltas, generator(logits)


def make_processor(num_classes=4, **arguments):
    return NMSPostProcessor(coder=DeltaCoder(), num_classes=num_classes, **arguments)


def stock_inference(logits, deltas, anchors, image, num_classes, *, score, topk, nms, count):
    """Detectron2's own inference of one image, on given maps."""
    model = SimpleNamespace(
        test_score_thresh=score,
        test_topk_candidates=topk,
        test_nms_thresh=nms,
        max_detections_per_image=count,
        box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
    )
    for name in ("_decode_per_level_predictions", "_decode_multi_level_predictions"):
        setattr(model, name, MethodType(getattr(RetinaNet, name), model))
    return RetinaNet.inference_single_image(
        model,
        anchors,
        [permute_to_N_HWA_K(x, num_classes)[image].sigmoid() for x in logits],
        [permute_to_N_HWA_K(x, 4)[image] for x in deltas],
        (64, 80),
    )


@pytest.mark.parametrize("counts", [(3, 3, 3), (1, 1, 1), (1, 3, 2)])
@pytest.mark.parametrize("score", [0.0, 0.05, 0.5])
def test_equals_stock(score, counts):
    """Different numbers of anchors per level too: there it is only stock's head that asserts."""
    maps = make_maps(counts=counts)
    found = make_processor(score_thresh=score, topk=60)(*maps, [(64, 80)] * 2)
    assert len(found) == 2
    for image, ours in enumerate(found):
        theirs = stock_inference(*maps, image, 4, score=score, topk=60, nms=0.5, count=100)
        assert len(ours) > 10
        assert ours.image_size == (64, 80)
        assert torch.equal(ours.pred_classes, theirs.pred_classes)
        # not to the bit: a vector unit's sigmoid and exp differ from the scalar ones in the last
        torch.testing.assert_close(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
        torch.testing.assert_close(ours.scores, theirs.scores)


def test_suppression_is_per_class():
    maps = make_maps()
    everything = make_processor(nms_thresh=1.0, max_detections=10**4)(*maps, [(64, 80)] * 2)
    kept = make_processor(nms_thresh=0.4, max_detections=10**4)(*maps, [(64, 80)] * 2)
    for all_, ours in zip(everything, kept, strict=True):
        keep = batched_nms(all_.pred_boxes.tensor, all_.scores, all_.pred_classes, 0.4)
        assert len(ours) < len(all_)
        assert torch.equal(ours.pred_boxes.tensor, all_.pred_boxes.tensor[keep])
        iou = box_iou(ours.pred_boxes.tensor, ours.pred_boxes.tensor).fill_diagonal_(0)
        same_class = ours.pred_classes[:, None] == ours.pred_classes
        assert iou[same_class].max() <= 0.4
        assert iou[~same_class].max() > 0.4


def test_best_first():
    for found in make_processor()(*make_maps(), [(64, 80)] * 2):
        assert torch.equal(found.scores, found.scores.sort(descending=True).values)


def test_topk_is_per_level_and_image():
    maps = make_maps()
    found = make_processor(topk=5, nms_thresh=1.0, score_thresh=0.0)(*maps, [(64, 80)] * 2)
    assert [len(x) for x in found] == [15, 15]


def test_images_do_not_see_each_other():
    logits, deltas, anchors = make_maps()
    together = make_processor()(logits, deltas, anchors, [(64, 80)] * 2)
    for i, expected in enumerate(together):
        one = [x[i : i + 1] for x in logits], [x[i : i + 1] for x in deltas]
        (alone,) = make_processor()(*one, anchors, [(64, 80)])
        assert torch.equal(alone.scores, expected.scores)
        assert torch.equal(alone.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_nothing_above_the_threshold():
    logits, deltas, anchors = make_maps()
    found = make_processor()([x - 1000 for x in logits], deltas, anchors, [(64, 80)] * 2)
    for instances in found:
        assert len(instances) == 0
        assert instances.pred_boxes.tensor.shape == (0, 4)
        assert instances.pred_classes.dtype == torch.int64


def test_nan_logits_are_no_detections():
    """As in Detectron2: a comparison with NaN is false."""
    logits, deltas, anchors = make_maps()
    for x in logits:
        x[0] = torch.nan
    broken, sound = make_processor(score_thresh=0.0)(logits, deltas, anchors, [(64, 80)] * 2)
    assert len(broken) == 0
    assert len(sound) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "threshold", [1e-6, 1e-3, 0.006, 0.014, 0.05, 0.08, 0.3, 0.5, 0.9, 0.999, 0.999999]
)
def test_every_half_precision_logit(dtype, threshold):
    """Comparing logits must select exactly what comparing their rounded scores would."""
    values = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    logits = values.view(1, 256, 16, 16)  # 256 classes, one anchor
    deltas = torch.zeros(1, 4, 16, 16, dtype=dtype)
    corner = torch.arange(256.0)[:, None] * 100  # no two boxes overlap
    anchors = [Boxes(torch.cat([corner, corner, corner + 1, corner + 1], dim=1))]
    processor = make_processor(256, score_thresh=threshold, topk=2**16, max_detections=2**16)
    with torch.autocast("cpu", dtype=dtype):  # where such logits come from
        (found,) = processor([logits], [deltas], anchors, [(16, 16)])
    scores = values.sigmoid()
    expected = scores[scores > threshold].sort(descending=True).values
    assert torch.equal(found.scores, expected)


@pytest.mark.parametrize("threshold", [1e-6, 0.05, 0.5, 0.99, 0.999999])
def test_logits_next_to_the_threshold(threshold):
    around = torch.logit(torch.tensor(threshold, dtype=torch.float64)).float()
    steps = torch.arange(-512, 512, dtype=torch.int32)
    values = (around.view(torch.int32) + steps).view(torch.float32)  # its nearest neighbours
    logits = [values.view(1, 4, 16, 16)]
    anchors = [Boxes(torch.rand(256, 4))]
    everything = {"nms_thresh": 1.0, "max_detections": 1024, "topk": 1024}
    processor = make_processor(score_thresh=threshold, **everything)
    (found,) = processor(logits, [torch.zeros(1, 4, 16, 16)], anchors, [(16, 16)])
    assert len(found) == (values.sigmoid() > threshold).sum()


def test_changes_nothing():
    maps = make_maps()
    before = [x.clone() for x in (*maps[0], *maps[1], *(a.tensor for a in maps[2]))]
    make_processor()(*maps, [(64, 80)] * 2)
    after = [*maps[0], *maps[1], *(a.tensor for a in maps[2])]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"score_thresh": 1.5}, "SCORE_THRESH_TEST.*1.5"),
        ({"score_thresh": -0.1}, "SCORE_THRESH_TEST.*-0.1"),
        ({"nms_thresh": 50}, "NMS_THRESH_TEST.*50"),
        ({"topk": -1}, "TOPK_CANDIDATES_TEST.*-1"),
        ({"topk_per_level": [5, -1]}, r"NMSPostProcessor.TOPK_PER_LEVEL.*\[5, -1\]"),
        ({"topk_per_level": [5, 2.5]}, r"NMSPostProcessor.TOPK_PER_LEVEL.*\[5, 2.5\]"),
        ({"topk_per_level": [5], "num_levels": 3}, r"TOPK_PER_LEVEL.*3 levels.*\[5\]"),
    ],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_processor(**arguments)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("topk", [7, 60, 10**4])
@pytest.mark.parametrize("rarity", [0.0, 2.0, 5.0])
def test_ties_are_stocks(rarity, topk, layout):
    """Whole logits: hundreds of equal scores, of which topk keeps some in an order of its own."""
    logits, deltas, anchors = make_maps(num_images=3)
    logits = [(x - rarity).round().contiguous(memory_format=layout) for x in logits]
    deltas = [x.contiguous(memory_format=layout) for x in deltas]
    maps = logits, deltas, anchors
    # all candidates in their order: NMS would hide some
    settings = {"nms_thresh": 1.0, "max_detections": 10**5}
    found = make_processor(topk=topk, **settings)(*maps, [(64, 80)] * 3)
    for image, ours in enumerate(found):
        # stock's sigmoid works in place, on the maps themselves where these are channels_last
        own = [x.clone(memory_format=torch.contiguous_format) for x in logits], deltas, anchors
        theirs = stock_inference(*own, image, 4, score=0.05, topk=topk, nms=1.0, count=10**5)
        assert len(ours) > ours.scores.unique().numel() > 1
        assert torch.equal(ours.pred_classes, theirs.pred_classes)
        torch.testing.assert_close(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)


def test_class_agnostic():
    maps = make_maps()
    arguments = {"nms_thresh": 0.4, "max_detections": 10**4, "class_agnostic": True}
    everything = make_processor(nms_thresh=1.0, max_detections=10**4)(*maps, [(64, 80)] * 2)
    kept = make_processor(**arguments)(*maps, [(64, 80)] * 2)
    for all_, ours in zip(everything, kept, strict=True):
        keep = nms(all_.pred_boxes.tensor, all_.scores, 0.4)
        assert torch.equal(ours.pred_boxes.tensor, all_.pred_boxes.tensor[keep])
        assert torch.equal(ours.pred_classes, all_.pred_classes[keep])
        assert ours.pred_classes.unique().numel() > 1


def test_topk_of_each_level():
    maps, arguments = make_maps(), {"nms_thresh": 1.0, "score_thresh": 0.0}
    processor = make_processor(topk_per_level=[6, 0, 3], **arguments)
    single = [make_processor(topk=k, **arguments) for k in (6, 3)]
    found = processor(*maps, [(64, 80)] * 2)
    first, last = (
        p(*([x[level]] for x in maps), [(64, 80)] * 2)
        for p, level in zip(single, (0, 2), strict=True)
    )
    for ours, high, low in zip(found, first, last, strict=True):
        assert len(ours) == 9
        expected = torch.cat([high.scores, low.scores]).sort(descending=True).values
        assert torch.equal(ours.scores, expected)


def test_topk_of_more_levels_than_there_are():
    """A LazyConfig builds it without knowing their number."""
    processor = make_processor(topk_per_level=[6, 5, 4, 3])
    with pytest.raises(ValueError, match=r"TOPK_PER_LEVEL.*3 levels, got \[6, 5, 4, 3\]"):
        processor(*make_maps(), [(64, 80)] * 2)


def test_settings_reach_it():
    cfg = tiny_focal_cfg()
    node = "MODEL.RETINANET.POST_PROCESSOR.NMSPostProcessor"
    levels = list(range(10, 10 + len(cfg.MODEL.RETINANET.IN_FEATURES)))
    cfg.merge_from_list([f"{node}.CLASS_AGNOSTIC", True, f"{node}.TOPK_PER_LEVEL", str(levels)])
    processor = build_model(cfg).post_processor
    assert processor.class_agnostic is True
    assert list(processor.topk_per_level) == levels
    cfg.merge_from_list([f"{node}.TOPK_PER_LEVEL", "[1, 2]"])
    with pytest.raises(ValueError, match=rf"{node}.TOPK_PER_LEVEL.*\[1, 2\]"):
        build_model(cfg)


class HostWaits(TorchDispatchMode):
    """Counts what would make the host wait for a GPU, NMS itself excepted."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        by_mask = name == "aten::index" and any(
            x is not None and x.dtype == torch.bool for x in args[1]
        )
        if by_mask or name in ("aten::nonzero", "aten::_local_scalar_dense"):
            self.count += 1
        return func(*args, **(kwargs or {}))


def count_waits(num_images, monkeypatch):
    maps, processor = make_maps(num_images=num_images), make_processor(score_thresh=0.3)
    nothing = torch.zeros(0, dtype=torch.int64)
    monkeypatch.setattr(processor, "suppress", lambda boxes, *_: [(nothing, nothing)] * len(boxes))
    with HostWaits() as waits:
        processor(*maps, [(64, 80)] * num_images)
    return waits.count


def test_waits_for_the_device_do_not_grow_with_the_batch(monkeypatch):
    assert 0 < count_waits(1, monkeypatch) == count_waits(4, monkeypatch) <= 4


def test_gradients_may_be_on():
    """Outside ``no_grad`` the model's maps ask for gradients."""
    logits, deltas, anchors = make_maps()
    logits, deltas = ([x.requires_grad_() for x in maps] for maps in (logits, deltas))
    for found in make_processor()(logits, deltas, anchors, [(64, 80)] * 2):
        assert len(found) > 10
