"""A user's mistake gets an error that names it and says what is valid."""

import pytest
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.tiny_models import tiny_focal_cfg

from retina_plugin.modeling.anchors.octave_anchor_generator import OctaveAnchorGenerator
from retina_plugin.registry import UnknownNameError


@pytest.mark.parametrize("period", [0, 1])
def test_missing_ground_truth_names_the_image(period):
    cfg = tiny_focal_cfg()
    cfg.VIS_PERIOD = period
    model = build_model(cfg).train()
    batch = make_batch()
    for i in (0, 1):
        broken = [dict(given) for given in batch]
        del broken[i]["instances"]
        with EventStorage(), pytest.raises(ValueError, match=f"image_{i}.png.*'instances'"):
            model(broken)


@pytest.mark.parametrize("extended", [True, False])
@pytest.mark.parametrize(
    ("key", "valid"),
    [
        ("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "smooth_l1"),
        ("MODEL.RETINANET.HEAD.NAME", "FocalRetinaNetHead"),
        ("MODEL.RETINANET.CLS_LOSS.NAME", "FocalLoss"),
        ("MODEL.RETINANET.ASSIGNER.NAME", "MaxIoUAssigner"),
        ("MODEL.RETINANET.BOX_CODER.NAME", "DeltaCoder"),
        ("MODEL.RETINANET.NORMALIZER.NAME", "EMANormalizer, FixedNormalizer"),
        ("MODEL.RETINANET.POST_PROCESSOR.NAME", "NMSPostProcessor"),
        ("MODEL.ANCHOR_GENERATOR.NAME", "DefaultAnchorGenerator, OctaveAnchorGenerator"),
        ("MODEL.NECK.NAME", "BiFPNNeck, FPNNeck, .*PAFPNNeck, RepPANNeck"),
        ("MODEL.BACKBONE.NAME", "build_retinanet_mobilenet_v2_fpn_backbone"),
        ("MODEL.FRONT_END.NAME", "FilterBankFrontEnd.*LearnedScaleFrontEnd, none"),
    ],
)
def test_unknown_names_list_the_valid_ones(key, valid, extended):
    cfg = tiny_focal_cfg(extended)
    *path, last = key.split(".")
    node = cfg
    for part in path:
        node = node.setdefault(part, CfgNode())
    node[last] = "Nonsense"
    with pytest.raises(UnknownNameError, match=rf"{key}: 'Nonsense' is unknown.*Valid: .*{valid}"):
        build_model(cfg)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("NORMALIZER.EMANormalizer.MOMENTUN", "MOMENTUM"),
        ("ASSIGNER.MaxIoUAssigner.ALLOW_LOW_QUALITY_MATCH", "ALLOW_LOW_QUALITY_MATCHES"),
    ],
)
@pytest.mark.parametrize("extended", [True, False])
def test_keys_misspelt_in_python(key, meant, extended):
    """yacs accepts any key that Python sets; it must not be ignored."""
    cfg = tiny_focal_cfg(extended)
    *path, last = key.split(".")
    node = cfg.MODEL.RETINANET
    for part in path:
        node = node.setdefault(part, CfgNode())
    node[last] = 1
    with pytest.raises(UnknownNameError, match=f"Did you mean .*{meant}|Valid: .*{meant}"):
        build_model(cfg)


def test_features_that_the_backbone_lacks():
    with pytest.raises(ValueError, match=r"IN_FEATURES asks for 'p8'.*gives p3, p4, p5, p6, p7"):
        build_model(tiny_focal_cfg(IN_FEATURES=["p3", "p8"]))


@pytest.mark.parametrize(
    ("settings", "vain"),
    [
        (["NAME", "PAFPNNeck"], "MODEL.NECK.NAME PAFPNNeck"),
        (["FPNNeck.TOP", "P5"], "MODEL.NECK.FPNNeck.TOP P5"),
        (
            ["NAME", "BiFPNNeck", "BiFPNNeck.REPEATS", "2"],
            "MODEL.NECK.NAME BiFPNNeck and MODEL.NECK.BiFPNNeck.REPEATS 2",
        ),
    ],
)
def test_a_neck_for_a_backbone_that_brings_its_own(settings, vain):
    cfg = tiny_focal_cfg()
    keys = [f"MODEL.NECK.{x}" if i % 2 == 0 else x for i, x in enumerate(settings)]
    cfg.merge_from_list(keys)
    builder = "build_tiny_fpn_backbone builds a neck of its own; take"
    with pytest.raises(ValueError, match=f"{vain} would have no effect: {builder}"):
        build_model(cfg)


@pytest.mark.parametrize("part", ["anchors", "classes"])
def test_a_head_of_other_anchors_or_classes_is_refused(part):
    model = build_model(tiny_focal_cfg())
    if part == "anchors":
        model.anchor_generator = OctaveAnchorGenerator(
            base_sizes=[[32.0]], scales_per_octave=1, aspect_ratios=[1.0, 2.0, 3.0, 4.0],
            strides=[8, 16, 32, 64, 128],
        )  # fmt: skip
    else:
        model.num_classes += 1
    with EventStorage(), pytest.raises(ValueError, match=r"level p3 has \d+ anchors per cell"):
        model.train()(make_batch())


def test_a_number_of_classes_that_nobody_set():
    cfg = tiny_focal_cfg()
    cfg.MODEL.RETINANET.NUM_CLASSES = None
    with pytest.raises(ValueError, match=r"NUM_CLASSES is None: set it.*register_datasets"):
        build_model(cfg)


@pytest.mark.parametrize("wrong", [-1, 7])
def test_a_class_that_the_model_does_not_have_names_the_image(wrong):
    model, batch = build_model(tiny_focal_cfg()).train(), make_batch()
    assert model.num_classes == 7
    batch[0]["instances"].gt_classes[0] = wrong
    with EventStorage(), pytest.raises(ValueError, match=f"image_0.png has gt_classes.*{wrong}.*7"):
        model(batch)


def test_settings_of_what_is_not_selected_are_warned_of(caplog):
    cfg = tiny_focal_cfg(True)
    cfg.MODEL.RETINANET.NORMALIZER.FixedNormalizer.VALUE = 5.0
    cfg.MODEL.ANCHOR_GENERATOR.OctaveAnchorGenerator.SCALES_PER_OCTAVE = 2
    build_model(cfg)
    assert "NORMALIZER.FixedNormalizer.VALUE has no effect: MODEL.RETINANET.NORM" in caplog.text
    assert "SCALES_PER_OCTAVE has no effect: MODEL.ANCHOR_GENERATOR.NAME is Defau" in caplog.text
    caplog.clear()
    build_model(tiny_focal_cfg(True))
    assert "no effect" not in caplog.text


@pytest.mark.parametrize("name", ["", None])
def test_an_empty_name_is_no_default(name):
    cfg = tiny_focal_cfg(True)
    cfg.MODEL.RETINANET.NORMALIZER.NAME = name
    with pytest.raises(UnknownNameError, match=r"NORMALIZER\.NAME.*Valid: .*EMANormalizer"):
        build_model(cfg)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([1.0] * 5, [1.0] * 3, "a number for each channel of the images, got 5 and 3"),
        ([1.0], [1.0] * 3, "got 1 and 3"),
        ([1.0] * 3, [1.0, 0.0, 1.0], r"deviation must be above 0, got \[1.0, 0.0, 1.0\]"),
    ],
)
def test_mean_and_deviation_of_the_pixels_that_do_not_fit(mean, std, message):
    cfg = tiny_focal_cfg()
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = mean, std
    with pytest.raises(ValueError, match=rf"MODEL.PIXEL_MEAN and MODEL.PIXEL_STD.*{message}"):
        build_model(cfg)


@pytest.mark.parametrize("training", [True, False])
def test_images_of_another_number_of_channels_are_named(training):
    model = build_model(tiny_focal_cfg()).train(training)
    batch = make_batch()
    batch[1]["image"] = batch[1]["image"][[0, 1, 2, 0]]
    with EventStorage(), pytest.raises(ValueError, match=r"image_1.png has 4 channels.*3 numbers"):
        model(batch)


def test_one_channel_and_one_deviation_stand_for_all_as_in_detectron2():
    cfg = tiny_focal_cfg()
    cfg.MODEL.PIXEL_STD = [2.0]
    batch = make_batch()
    for given in batch:
        given["image"] = given["image"][:1]
    model = build_model(cfg).train()
    with EventStorage():
        assert all(loss.isfinite() for loss in model(batch).values())
    assert model.preprocess_image(batch).tensor.shape[1] == 3
