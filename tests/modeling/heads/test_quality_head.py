"""The quality branch: its targets, its loss and what it does to the scores."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from support.batches import make_batch
from support.dense_cases import make_targets
from support.tiny_models import tiny_focal_cfg
from torchvision.ops import box_iou

from retina_plugin.modeling.coders.delta_coder import DeltaCoder
from retina_plugin.modeling.contracts import IGNORE, PositiveBoxes, Predictions
from retina_plugin.modeling.heads.focal_retinanet_head import FocalRetinaNetHead
from retina_plugin.modeling.heads.quality_head import QualityHead
from retina_plugin.registry import UnknownNameError

KEY = "MODEL.RETINANET.HEAD.QualityHead"
C, K = 16, 3
COUNTS, SIZES = (2, 1), ((3, 4), (2, 2))
LEVELS = tuple(a * h * w for a, (h, w) in zip(COUNTS, SIZES, strict=True))


def make_head(**arguments):
    shape = [ShapeSpec(channels=C)] * 2
    settings = {"input_shape": shape, "num_classes": K, "conv_dims": [C], "num_anchors": COUNTS}
    return QualityHead(**{**settings, **arguments})


def make_step(head, labels):
    """Predictions and targets of two images."""
    logits, deltas, extras = head([torch.randn(2, C, h, w) for h, w in SIZES])
    deltas = [x + torch.randn_like(x) * 0.3 for x in deltas]
    targets = make_targets(labels, LEVELS, K)
    positives = PositiveBoxes(
        deltas=targets.positives.gather(deltas, 4),
        anchors=targets.anchors[targets.positives.anchor],
        gt_boxes=targets.field("gt_boxes"),
        coder=DeltaCoder(),
        assigned_scores=torch.full((len(targets.positives),), 0.123),  # not what is learned
    )
    return Predictions(logits, deltas, [], extras), targets, positives


def some_labels():
    labels = torch.randint(K, (2, sum(LEVELS)))
    draw = torch.rand(labels.shape)
    labels[draw < 0.6] = K
    labels[draw < 0.2] = IGNORE
    return labels


def plain_centreness(anchor, box):
    x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
    left, right, top, bottom = x - box[0], box[2] - x, y - box[1], box[3] - y
    if min(left, right, top, bottom) <= 0:
        return 0.0
    return (min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom)) ** 0.5


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("target", ["centreness", "iou"])
def test_loss(target, weighted):
    head = make_head(target=target, loss_weight=0.5)
    predictions, targets, positives = make_step(head, some_labels())
    if weighted:
        for instances in targets.instances:
            instances.gt_weight = torch.rand(len(instances))
    (loss,) = head.extra_losses(predictions, targets, positives).values()
    own = targets.positives.gather(predictions.extras["quality"], 1)[:, 0].tolist()
    weights = targets.weights.tolist() if weighted else [1.0] * len(own)
    expected, wanted = 0.0, []
    for i, (x, weight) in enumerate(zip(own, weights, strict=True)):
        box = positives.gt_boxes[i]
        if target == "iou":
            q = box_iou(positives.boxes[i : i + 1], box[None]).item()
        else:
            q = plain_centreness(positives.anchors[i].tolist(), box.tolist())
        p = torch.tensor(x, dtype=torch.float64).sigmoid()
        expected += 0.5 * weight * -(q * p.log() + (1 - q) * (1 - p).log()).item()
        wanted.append(q)
    assert len(wanted) > 5 and max(wanted) > 0.1
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_target_has_no_gradient():
    head = make_head(target="iou")
    predictions, targets, positives = make_step(head, some_labels())
    loss = head.extra_losses(predictions, targets, positives)["loss_quality"]
    assert positives.deltas.requires_grad
    (gradient,) = torch.autograd.grad(loss, positives.deltas, allow_unused=True)
    assert gradient is None


def test_boxes_keep_their_gradient_for_losses_that_come_later():
    head = make_head(target="iou")
    predictions, targets, positives = make_step(head, some_labels())
    head.extra_losses(predictions, targets, positives)
    assert positives.boxes.requires_grad


def test_no_positives_have_gradients():
    head = make_head()
    predictions, targets, positives = make_step(head, torch.full((2, sum(LEVELS)), K))
    loss = head.extra_losses(predictions, targets, positives)["loss_quality"]
    assert loss == 0
    loss.backward()
    assert all((p.grad == 0).all() for p in head.quality.parameters())


def test_all_else_is_the_papers_head():
    head = make_head()
    plain = FocalRetinaNetHead(
        input_shape=[ShapeSpec(channels=C)] * 2, num_classes=K, conv_dims=[C], num_anchors=COUNTS
    )
    own = {n: p for n, p in head.state_dict().items() if not n.startswith("quality.")}
    plain.load_state_dict(own)
    features = [torch.randn(2, C, h, w) for h, w in SIZES]
    for found, expected in zip(head(features), plain(features), strict=False):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("powers", [(0.5, 0.5), (1, 1), (0.4, 0.6)])
def test_detections_have_fused_scores(powers):
    """The score of a detection is ``p^a q^b`` of its anchor."""
    cfg = tiny_focal_cfg()
    cfg.MODEL.RETINANET.HEAD.NAME = "QualityHead"
    cfg.merge_from_list([f"{KEY}.POWERS", str(powers)])
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.RETINANET.NMS_THRESH_TEST = 1.0  # the best hundred, whatever they overlap
    model = build_model(cfg).eval()
    for layer in (model.head.cls_score, model.head.quality):
        torch.nn.init.normal_(layer.weight, std=0.1)
    with torch.no_grad():
        images = model.preprocess_image(make_batch((1, 1), ((64, 64),)))
        predictions = model.predict(images)
        found = model.detect(predictions)
    for image, detections in enumerate(found):
        scores = [
            p[image].sigmoid().unflatten(0, (-1, 7)) ** powers[0] * q[image].sigmoid() ** powers[1]
            for p, q in zip(
                predictions.logits,
                (x.unsqueeze(2) for x in predictions.extras["quality"]),
                strict=True,
            )
        ]
        best = torch.cat([x.flatten() for x in scores]).topk(100).values
        assert best.std() > 0.01 and best[-1] < 0.99
        torch.testing.assert_close(detections.scores, best)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss_weight": -1}, f"{KEY}.LOSS_WEIGHT must be 0 or more, got -1"),
        ({"powers": (1,)}, rf"{KEY}.POWERS.*got \[1\]"),
        ({"powers": (-0.5, 1)}, rf"{KEY}.POWERS.*got \[-0.5, 1\]"),
        ({"powers": (0, 0)}, rf"{KEY}.POWERS.*got \[0, 0\]"),
    ],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_head(**arguments)


def test_unknown_target():
    with pytest.raises(UnknownNameError, match=f"{KEY}.TARGET: 'centerness'.*mean centreness"):
        make_head(target="centerness")


def test_settings_reach_it():
    cfg = tiny_focal_cfg()
    cfg.MODEL.RETINANET.HEAD.NAME = "QualityHead"
    cfg.merge_from_list([f"{KEY}.LOSS_WEIGHT", 0.25, f"{KEY}.LEVEL_SCALES", True])
    head = build_model(cfg).head
    assert (head.loss_weight, head.powers, head.level_scales.shape) == (0.25, (0.5, 0.5), (5,))
