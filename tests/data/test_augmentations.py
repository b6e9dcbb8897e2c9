"""Boxes stay on their pixels; the config's mistakes name what is valid."""

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.data.augmentations import (
    QuarterTurn,
    RandomQuarterTurn,
    RandomZoomCrop,
    Zoom,
    build_augmentations,
)
from retina_plugin.registry import UnknownNameError

HEIGHT, WIDTH = 40, 70
BOXES = np.array([[3, 5, 20, 11], [30, 0, 70, 17], [40, 25, 44, 40], [0, 30, 1, 40]], float)


@pytest.fixture(autouse=True)
def _numpy_seed():
    np.random.seed(0)


def config(*augmentations):
    cfg = add_retina_config(get_cfg())
    cfg.INPUT.AUGMENTATIONS = list(augmentations)
    return cfg


def paint(box, height=HEIGHT, width=WIDTH):
    """An image that is 255 within ``box`` and 0 elsewhere."""
    image = np.zeros((height, width, 3), np.uint8)
    x0, y0, x1, y1 = box.astype(int)
    image[y0:y1, x0:x1] = 255
    return image


def painted_box(image):
    """The XYXY box around the bright pixels, None if there are none."""
    ys, xs = np.nonzero(image[..., 0] > 127)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) if len(xs) else None


@pytest.mark.parametrize("turns", range(-1, 5))
@pytest.mark.parametrize("box", BOXES, ids=str)
def test_boxes_turn_with_their_pixels(turns, box):
    turn = QuarterTurn(turns=turns, height=HEIGHT, width=WIDTH)
    turned = turn.apply_image(paint(box))
    assert turned.shape[:2] == ((WIDTH, HEIGHT) if turns % 2 else (HEIGHT, WIDTH))
    np.testing.assert_array_equal(turn.apply_box(box[None])[0], painted_box(turned))


@pytest.mark.parametrize("turns", range(4))
def test_inverse_turns_back(turns):
    turn = QuarterTurn(turns=turns, height=HEIGHT, width=WIDTH)
    image = np.random.randint(256, size=(HEIGHT, WIDTH, 3), dtype=np.uint8)
    back = turn.inverse()
    np.testing.assert_array_equal(back.apply_image(turn.apply_image(image)), image)
    np.testing.assert_array_equal(back.apply_box(turn.apply_box(BOXES)), BOXES)


def test_masks_turn_with_the_image():
    turn = QuarterTurn(turns=1, height=HEIGHT, width=WIDTH)
    image = paint(BOXES[0])
    np.testing.assert_array_equal(
        turn.apply_segmentation(image[..., 0]), turn.apply_image(image)[..., 0]
    )


def test_random_turn_takes_each_quarter():
    image = paint(BOXES[0])
    turns = [RandomQuarterTurn().get_transform(image).turns for _ in range(200)]
    counts = np.bincount(turns, minlength=4)
    assert len(counts) == 4
    assert counts.min() > 25


@pytest.mark.parametrize("size, zoom", [(32, (1, 1)), (64, (0.6, 1.5)), (100, (0.9, 3.0))])
def test_zoom_crop_keeps_boxes_on_their_pixels(size, zoom):
    """Within a pixel: a resized edge is a ramp, and the crop cuts what lies outside."""
    seen = 0
    for box in np.repeat(BOXES[:3], 15, axis=0):
        inputs = T.AugInput(paint(box), boxes=box[None])
        RandomZoomCrop(size, zoom)(inputs)
        assert inputs.image.shape[:2] == (size, size)
        expected, found = inputs.boxes[0].clip(0, size), painted_box(inputs.image)
        if found is None:
            assert (expected[2:] - expected[:2]).min() < 1.5
            continue
        seen += 1
        np.testing.assert_allclose(found, expected, atol=1)
    assert seen > 10


def test_zoom_crop_zooms_as_it_says():
    """The crop of ``size / zoom`` pixels becomes ``size``: boxes grow by the zoom."""
    zooms = []
    for _ in range(100):
        image = np.zeros((400, 500, 3), np.uint8)
        box = np.array([[100.0, 100, 200, 150]])
        transform = RandomZoomCrop(64, (0.5, 2.0)).get_transform(image)
        grown = transform.apply_box(box)[0]
        zooms.append((grown[2] - grown[0]) / 100)
        assert (grown[3] - grown[1]) / 50 == pytest.approx(zooms[-1])
    assert min(zooms) == pytest.approx(0.5, abs=0.05)
    assert max(zooms) == pytest.approx(2.0, abs=0.1)
    assert np.mean(np.log(zooms)) == pytest.approx(0, abs=0.1)  # log-uniform, not uniform


def test_zoom_crop_reaches_every_corner():
    transforms = [RandomZoomCrop(30).get_transform(paint(BOXES[0])) for _ in range(300)]
    crops = [transform.transforms[0] for transform in transforms]
    assert {crop.x0 for crop in crops} >= {0, WIDTH - 30}
    assert {crop.y0 for crop in crops} == set(range(HEIGHT - 30 + 1))


def test_zoom_crop_zooms_small_images_in():
    inputs = T.AugInput(paint(BOXES[0]), boxes=BOXES[:1])
    RandomZoomCrop(100, (0.1, 0.1))(inputs)
    assert inputs.image.shape == (100, 100, 3)


@pytest.mark.parametrize(
    "arguments", [{"size": 0}, {"size": 8, "zoom": (2, 1)}, {"size": 8, "zoom": (0, 1)}]
)
def test_zoom_crop_refuses_impossible_numbers(arguments):
    with pytest.raises(ValueError, match="positive"):
        RandomZoomCrop(**arguments)


# ---- from the config


def test_empty_list_is_detectron2s_own():
    for crop in (False, True):
        cfg = config()
        cfg.INPUT.CROP.ENABLED = crop
        expected = build_augmentation(cfg, is_train=True)
        if crop:
            expected.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        assert repr(build_augmentations(cfg)) == repr(expected)
    assert repr(build_augmentations(get_cfg())) == repr(
        build_augmentation(get_cfg(), is_train=True)
    )


def test_list_is_built_in_order_with_its_arguments():
    first, second, third = build_augmentations(
        config(
            {"NAME": "RandomZoomCrop", "size": 96, "zoom": [0.5, 2.0]},
            {"NAME": "RandomFlip", "prob": 0.25, "horizontal": False, "vertical": True},
            {"NAME": "RandomQuarterTurn"},
        )
    )
    assert (type(first), first.size, first.zoom) == (RandomZoomCrop, 96, (0.5, 2.0))
    assert (type(second), second.prob, second.vertical) == (T.RandomFlip, 0.25, True)
    assert type(third) is RandomQuarterTurn


def test_building_leaves_the_config_alone():
    cfg = config({"NAME": "RandomFlip", "prob": 0.25})
    build_augmentations(cfg)
    assert cfg.INPUT.AUGMENTATIONS == [{"NAME": "RandomFlip", "prob": 0.25}]
    assert len(build_augmentations(cfg)) == 1


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"NAME": "RandomFlop"}, "Did you mean RandomFlip.*RandomQuarterTurn.*RandomZoomCrop"),
        ({"NAME": "RandomFlip", "probability": 1}, "RandomFlip.*'probability'.*Valid.*prob"),
        ({"NAME": "RandomZoomCrop", "size": 8, "zooms": [1, 1]}, "Did you mean zoom"),
        (
            {"NAME": "RandomQuarterTurn", "prob": 1},
            "argument of RandomQuarterTurn: 'prob'.*Valid: .none",
        ),
    ],
)
def test_unknown_names_list_the_valid_ones(entry, message):
    with pytest.raises(UnknownNameError, match=message):
        build_augmentations(config(entry))


@pytest.mark.parametrize(
    "name", ["Augmentation", "AugmentationList", "TransformGen", "RandomApply"]
)
def test_what_no_yaml_can_build_is_not_offered(name):
    with pytest.raises(UnknownNameError) as error:
        build_augmentations(config({"NAME": name}))
    assert name not in str(error.value).partition("Valid:")[2].replace(".", "").split(", ")


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"size": 8}, r"INPUT.AUGMENTATIONS.*NAME.*got \{'size': 8\}"),
        ("RandomFlip", r"INPUT.AUGMENTATIONS.*mapping.*got 'RandomFlip'"),
        ({"NAME": 3}, "NAME.*got"),
        ({"NAME": "RandomZoomCrop"}, "RandomZoomCrop.*missing.*size"),
        ({"NAME": "RandomZoomCrop", "size": -1}, "RandomZoomCrop.*positive"),
        ({"NAME": "RandomFlip", "horizontal": True, "vertical": True}, "RandomFlip"),
    ],
)
def test_what_cannot_be_built_is_said(entry, message):
    with pytest.raises(ValueError, match=message):
        build_augmentations(config(entry))


def test_a_crop_beside_the_list_is_not_silently_dropped(caplog):
    cfg = config({"NAME": "RandomQuarterTurn"})
    build_augmentations(cfg)
    assert not caplog.records
    cfg.INPUT.CROP.ENABLED = True
    build_augmentations(cfg)
    assert "INPUT.CROP" in caplog.text


def test_test_augmentations_have_their_own_key():
    cfg = config({"NAME": "RandomQuarterTurn"})
    stock = build_augmentation(cfg, is_train=False)
    assert repr(build_augmentations(cfg, is_train=False)) == repr(stock)
    cfg.INPUT.AUGMENTATIONS_TEST = [{"NAME": "Zoom", "factor": 1.5}]
    (zoom,) = build_augmentations(cfg, is_train=False)
    assert (type(zoom), zoom.factor) == (Zoom, 1.5)
    cfg.INPUT.AUGMENTATIONS_TEST = [{"NAME": "Zoom", "factors": 1.5}]
    with pytest.raises(UnknownNameError, match=r"INPUT\.AUGMENTATIONS_TEST.*Did you mean factor"):
        build_augmentations(cfg, is_train=False)


def test_zoom_resizes_image_and_boxes_alike():
    inputs = T.AugInput(paint(BOXES[0]), boxes=BOXES[:1].copy())
    Zoom(1.5)(inputs)
    assert inputs.image.shape == (60, 105, 3)
    assert np.abs(painted_box(inputs.image) - inputs.boxes[0]).max() <= 1
    with pytest.raises(ValueError, match="positive"):
        Zoom(0)


# ---- large-scale and multi-scale jitter, which Detectron2's transforms are


@pytest.mark.parametrize("pad", [True, False])
def test_large_scale_jitter_keeps_boxes_on_their_pixels(pad):
    side, widths, seen = 90, [], 0
    resize = {"NAME": "ResizeScale", "min_scale": 0.4, "max_scale": 2.0}
    resize.update(target_height=side, target_width=side)
    crop = {"NAME": "FixedSizeCrop", "crop_size": [side, side], "pad": pad, "pad_value": 7}
    jitter = T.AugmentationList(build_augmentations(config(resize, crop)))
    for box in np.repeat(BOXES[:3], 15, axis=0):
        inputs = T.AugInput(paint(box), boxes=box[None])
        transforms = jitter(inputs)
        shape = np.array(inputs.image.shape[:2])
        assert (shape == side).all() if pad else (shape <= side).all()
        ((x0, _, x1, y1),) = transforms.apply_box(np.array([[0, 0, WIDTH, HEIGHT]]))
        widths.append(x1 - x0)
        padding = np.ones(shape, bool)
        padding[: int(y1), : int(x1)] = False
        assert (inputs.image[padding] == 7).all() and (pad or not padding.any())
        expected = inputs.boxes[0].clip(0, shape[[1, 0, 1, 0]])
        if (expected[2:] - expected[:2]).min() >= 1.5:
            seen += 1
            np.testing.assert_allclose(painted_box(inputs.image), expected, atol=1)
    assert seen > 15
    assert min(widths) < side * 0.6 and max(widths) > side * 1.7


def test_multi_scale_takes_each_size():
    entry = {"NAME": "ResizeShortestEdge", "short_edge_length": [20, 30, 60], "max_size": 90}
    (resize,) = build_augmentations(config({**entry, "sample_style": "choice"}))
    sizes = {resize.get_transform(paint(BOXES[0])).new_h for _ in range(50)}
    assert sizes == {20, 30, round(90 * HEIGHT / WIDTH)}  # 60 would make it wider than 90


def bands(channels, *augmentations):
    cfg = config(*augmentations)
    cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN = "bands", [0.0] * channels
    return cfg


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("RandomSaturation", {"intensity_min": 0.5, "intensity_max": 1.5}, "takes colours.*has 5"),
        ("RandomLighting", {"scale": 0.1}, "takes colours, three channels"),
        ("RandomExtent", {"scale_range": [1, 1], "shift_range": [0, 0]}, "takes images of bytes"),
    ],
)
def test_what_cannot_be_done_to_bands_is_refused(name, arguments, reason):
    entry = {"NAME": name, **arguments}
    with pytest.raises(ValueError, match=f"INPUT.AUGMENTATIONS: {name} {reason}.*leave it out"):
        build_augmentations(bands(5, entry))
    image = T.AugInput(np.ones((20, 30, 5), np.float32))
    with pytest.raises((AssertionError, TypeError)):  # and rightly so
        T.AugmentationList(build_augmentations(config(entry)))(image)


JITTER = {"intensity_min": 0.5, "intensity_max": 1.5}
OF_BANDS = {
    "RandomFlip": {},
    "RandomCrop": {"crop_type": "relative", "crop_size": [0.5, 0.5]},
    "FixedSizeCrop": {"crop_size": [50, 50]},
    "ResizeShortestEdge": {"short_edge_length": 20, "max_size": 100},
    "RandomContrast": JITTER,
    "RandomBrightness": JITTER,
    "RandomZoomCrop": {"size": 16, "zoom": [0.5, 1.0]},
    "RandomQuarterTurn": {},
    "Zoom": {"factor": 1.5},
}


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("name", OF_BANDS)
def test_bands_stay_floats_and_are_neither_cut_nor_scaled_to_bytes(channels, name):
    pixels = np.random.rand(40, 60, channels).astype(np.float32) * 1000 + 30000
    given = T.AugInput(pixels)
    T.AugmentationList(build_augmentations(bands(channels, {"NAME": name, **OF_BANDS[name]})))(
        given
    )
    assert given.image.dtype == np.float32 and given.image.shape[2] == channels
    lowest, highest = (0.5, 1.5) if OF_BANDS[name] is JITTER else (1.0, 1.0)
    seen = given.image[:40, :50] if name == "FixedSizeCrop" else given.image  # 128 beyond
    assert seen.min() >= 30000 * lowest * 0.97 and seen.max() <= 31000 * highest * 1.03


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_bands_are_resized_as_each_by_itself(channels):
    pixels = np.random.rand(40, 60, channels).astype(np.float32) * 60000
    resize = T.ResizeTransform(40, 60, 30, 45)
    together = resize.apply_image(pixels)
    alone = [
        resize.apply_image(np.ascontiguousarray(x[..., None])) for x in pixels.transpose(2, 0, 1)
    ]
    np.testing.assert_allclose(together, np.concatenate(alone, axis=2), rtol=1e-6)
