"""Code that was written for Detectron2's ``RetinaNet`` finds its names and methods on ours."""

import copy
import inspect

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.structures import Boxes, ImageList
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.model_pairs import assert_same_detections, assert_same_step, build_pair
from support.tiny_models import CHANNELS, tiny_cfg, tiny_focal_cfg

from retina_plugin.modeling.losses.giou_loss import GIoULoss

# Other values than the defaults, by Detectron2's name
SETTINGS = {
    "test_score_thresh": 0.3,
    "test_topk_candidates": 7,
    "test_nms_thresh": 0.2,
    "max_detections_per_image": 3,
    "focal_loss_alpha": 0.6,
    "focal_loss_gamma": 1.0,
    "smooth_l1_beta": 0.3,
    "box_reg_loss_type": "giou",
    "loss_normalizer": 7.0,
    "box2box_transform": Box2BoxTransform((2.0, 2.0, 1.5, 1.5)),
    "anchor_matcher": Matcher([0.3, 0.6], [0, -1, 1], allow_low_quality_matches=False),
}


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(3)
    return make_batch()


@pytest.fixture(scope="module")
def built(batch):
    torch.manual_seed(0)
    return build_pair(tiny_cfg(), batch, tiny_focal_cfg())


@pytest.fixture
def pair(built):
    return copy.deepcopy(built)


def raw(model, batch):
    """What stock's ``forward`` hands to its ``forward_training`` and ``forward_inference``."""
    images = model.preprocess_image(batch)
    features = model.backbone(images.tensor)
    features = [features[name] for name in model.head_in_features]
    return images, features, model.head(features)


# --- settings


def test_every_argument_of_detectron2s_constructor_is_an_attribute(pair):
    names = set(inspect.signature(RetinaNet.__init__).parameters) - {"self"}
    assert set(SETTINGS) - {"loss_normalizer"} <= names
    for name in names:
        ours, stock = getattr(pair.ours, name), getattr(pair.stock, name)
        if isinstance(stock, int | float | str):
            assert ours == stock, name
    assert vars(pair.ours.anchor_matcher) == vars(pair.stock.anchor_matcher)
    assert vars(pair.ours.box2box_transform) == vars(pair.stock.box2box_transform)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_takes_effect_as_in_detectron2(pair, batch, name):
    def outcome():
        model = copy.deepcopy(pair.ours)  # a step moves its normalizer
        return model.train()(batch), model.eval()(batch)[0]["instances"]

    with torch.no_grad():
        losses, found = outcome()
    for model in (pair.stock, pair.ours):
        setattr(model, name, SETTINGS[name])
        value = getattr(model, name)
        assert value == SETTINGS[name]
    assert_same_step(pair, batch)
    assert_same_detections(pair, batch, at_least=1)
    with torch.no_grad():
        other_losses, other_found = outcome()
    assert losses != other_losses or len(found) != len(other_found)


def test_a_matcher_and_a_transform_are_read_live(pair, batch):
    for model in (pair.stock, pair.ours):
        model.anchor_matcher.labels = [0, 0, 1]
        model.box2box_transform.weights = (10.0, 10.0, 5.0, 5.0)
    assert_same_step(pair, batch)
    assert_same_detections(pair, batch)


def test_somebodys_own_matcher_and_transform(pair, batch):
    class OnlyTheBest(Matcher):
        def __call__(self, quality):
            matches, labels = super().__call__(quality)
            return matches, labels * (quality[matches, torch.arange(len(matches))] > 0.7)

    class Shifted(Box2BoxTransform):
        def get_deltas(self, source, target):
            return super().get_deltas(source, target) + 1

    for model in (pair.stock, pair.ours):
        model.anchor_matcher = OnlyTheBest([0.4, 0.5], [0, -1, 1], True)
        model.box2box_transform = Shifted((1.0, 1.0, 1.0, 1.0))
    assert_same_step(pair, batch)


def test_scores_out_of_range_mean_all_or_none(pair, batch):
    pair.train(False)
    for model in (pair.stock, pair.ours):
        model.test_score_thresh = -1
    assert_same_detections(pair, batch)
    pair.ours.test_score_thresh = 2
    assert len(pair.ours(batch)[0]["instances"]) == 0


def test_the_number_of_classes_reaches_the_post_processor(pair):
    pair.ours.num_classes = 3
    assert pair.ours.num_classes == pair.ours.post_processor.num_classes == 3


@pytest.mark.parametrize(
    "overrides, name, message",
    [
        (
            ["MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "giou"],
            "smooth_l1_beta",
            "'smooth_l1_beta' has no effect on GIoULoss, the detector's box_loss",
        ),
        (
            ["MODEL.RETINANET.POST_PROCESSOR.NAME", "MatrixNMSPostProcessor"],
            "test_nms_thresh",
            "MatrixNMSPostProcessor.*its settings are .*min_score.*model.post_processor",
        ),
        (
            ["MODEL.RETINANET.POST_PROCESSOR.NAME", "SoftNMSPostProcessor"],
            "test_nms_thresh",
            "SoftNMSPostProcessor",
        ),
        (
            ["MODEL.RETINANET.POST_PROCESSOR.NMSPostProcessor.TOPK_PER_LEVEL", [9] * 5],
            "test_topk_candidates",
            "NMSPostProcessor.*topk_per_level",
        ),
        (
            ["MODEL.RETINANET.ASSIGNER.NAME", "ATSSAssigner"],
            "anchor_matcher",
            "ATSSAssigner, the detector's assigner: its settings are .*topk",
        ),
        (
            ["MODEL.RETINANET.CLS_LOSS.NAME", "QualityFocalLoss"],
            "focal_loss_gamma",
            "QualityFocalLoss.*beta",
        ),
        (
            ["MODEL.RETINANET.NORMALIZER.NAME", "BatchNormalizer"],
            "loss_normalizer",
            "BatchNormalizer",
        ),
    ],
)
def test_what_a_component_does_not_have(overrides, name, message):
    cfg = tiny_focal_cfg()
    cfg.merge_from_list(overrides)
    model = build_model(cfg)
    with pytest.raises(AttributeError, match=message):
        getattr(model, name)
    with pytest.raises(AttributeError, match=message):
        setattr(model, name, 1)
    assert not hasattr(model, name)


def test_other_missing_names_are_missing_as_ever(pair):
    with pytest.raises(AttributeError, match="has no attribute 'no_such_thing'"):
        pair.ours.no_such_thing  # noqa: B018


def test_a_box_loss_without_counterpart_has_its_own_name():
    model = build_model(tiny_focal_cfg())
    model.box_reg_loss_type = "BalancedL1Loss"
    assert model.box_reg_loss_type == "BalancedL1Loss"
    model.box_reg_loss_type = "giou"
    assert type(model.box_loss) is GIoULoss
    with pytest.raises(KeyError, match="'gious' is unknown"):
        model.box_reg_loss_type = "gious"


# --- methods


def test_forward_training_and_forward_inference(pair, batch):
    pair.train()
    instances = [x["instances"] for x in batch]
    with EventStorage() as storage:
        stock = pair.stock.forward_training(*raw(pair.stock, batch), instances)
        expected = storage.latest()["num_pos_anchors"]
        ours = pair.ours.forward_training(*raw(pair.ours, batch), instances)
        assert storage.latest()["num_pos_anchors"] == expected
    for name, loss in stock.items():
        torch.testing.assert_close(ours[name], loss, rtol=1e-5, atol=0)
    pair.train(False)
    with torch.no_grad():
        found = pair.ours.forward_inference(*raw(pair.ours, batch))
        expected = pair.stock.forward_inference(*raw(pair.stock, batch))
    for own, right in zip(found, expected, strict=True):
        assert own.image_size == right.image_size
        assert torch.equal(own.pred_classes, right.pred_classes)
        torch.testing.assert_close(own.pred_boxes.tensor, right.pred_boxes.tensor)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_infinite_and_undefined_predictions(pair, value):
    """As in Detectron2's own test of RetinaNet: what is found, if anything, is not finite."""
    pair.train(False)
    images = ImageList(torch.full((1, 3, 128, 128), value), [(126, 126)])
    features = [torch.full((1, CHANNELS, side, side), value) for side in (16, 8, 4, 2, 1)]
    logits, deltas = pair.ours.head(features)
    predictions = [[torch.full_like(x, value) for x in maps] for maps in (logits, deltas)]
    found = pair.ours.forward_inference(images, features, predictions)
    assert not found[0].pred_boxes.tensor.isfinite().any()


def test_label_anchors(pair, batch):
    anchors = pair.stock.anchor_generator(raw(pair.stock, batch)[1])
    instances = [*(x["instances"] for x in batch), make_batch((0,))[0]["instances"]]
    labels, boxes = pair.ours.label_anchors(anchors, instances)
    right_labels, right_boxes = pair.stock.label_anchors(anchors, instances)
    for label, box, right_label, right_box in zip(
        labels, boxes, right_labels, right_boxes, strict=True
    ):
        assert torch.equal(label, right_label)
        objects = (label >= 0) & (label < 7)
        assert torch.equal(box[objects], right_box[objects])


def test_label_anchors_of_an_assigner_that_judges_predictions(batch):
    model = build_model(tiny_focal_cfg())
    model.assigner = build_model(_assigned_by("TaskAlignedAssigner")).assigner
    anchors = model.anchor_generator(raw(model, batch)[1])
    with pytest.raises(ValueError, match=r"TaskAlignedAssigner judges predictions.*model\.assign"):
        model.label_anchors(anchors, [x["instances"] for x in batch])


def _assigned_by(name):
    cfg = tiny_focal_cfg()
    cfg.MODEL.RETINANET.ASSIGNER.NAME = name
    return cfg


def test_a_replaced_label_anchors_takes_effect(pair, batch):
    """Set on the model, or in a subclass: every third anchor is an object of the first box."""

    def label(anchors, instances):
        anchors = Boxes.cat(anchors).tensor
        labels = torch.full((len(anchors),), 7)
        labels[::3] = 2
        labels[1::3] = -1
        boxes = [x.gt_boxes.tensor[0].expand_as(anchors) for x in instances]
        return [labels] * len(instances), boxes

    before = copy.deepcopy(pair.ours).train()(batch)
    for model in (pair.stock, pair.ours):
        model.label_anchors = label
    assert_same_step(pair, batch)
    assert pair.ours(batch)["loss_cls"] != before["loss_cls"]


def test_a_subclass_may_override_label_anchors(batch):
    class Nothing(type(build_model(tiny_focal_cfg()))):
        def label_anchors(self, anchors, gt_instances):
            labels, boxes = super().label_anchors(anchors, gt_instances)
            return [torch.full_like(x, self.num_classes) for x in labels], boxes

    model = Nothing(tiny_focal_cfg()).train()
    assert model(batch)["loss_box_reg"] == 0
