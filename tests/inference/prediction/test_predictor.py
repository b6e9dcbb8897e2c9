"""``Predictor`` finds what an evaluation finds, in whatever form the image comes."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.utils import logger as d2_logger
from PIL import Image
from support.block_data import COLOURS, as_overrides, write_blocks
from support.tiny_detector import SIZES, THRESH, write_images, write_tiny_detector
from support.tiny_lazy_config import write_tiny_lazy_config
from support.tiny_models import tiny_focal_cfg

from retina_plugin import Predictor
from retina_plugin.config.config_file import load_config
from retina_plugin.config.lazy_file import load_lazy
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.engine.trainer import evaluate
from retina_plugin.inference.prediction.images import ImageError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return write_tiny_detector(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor(*trained)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def data(tmp_path):
    """Registered for one test."""
    before = set(DatasetCatalog.list())
    yield write_blocks(tmp_path / "data", "set", 3)
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


def assert_equal(found, expected):
    assert len(found) == len(expected) > 3
    assert (found.width, found.height) == (expected.width, expected.height)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    assert found.classes.tolist() == expected.classes.tolist()


# ---- equality with the evaluation


@pytest.mark.parametrize(
    "words",
    [
        ["INPUT.MIN_SIZE_TEST", "120"],
        ["TEST.OPTIMIZE", "False", "INPUT.AUGMENTATIONS_TEST", "[{'NAME': 'Zoom', 'factor': 1.5}]"],
        ["INPUT.TILES.TEST_SIZE", "64", "INPUT.TILES.TEST_OVERLAP", "32"],
        ["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "[64, 96]"],
        ["INPUT.FORMAT", "RGB"],
    ],
    ids=["resized", "zoomed", "tiles", "augmented", "RGB"],
)
def test_finds_what_the_evaluation_finds(trained, data, tmp_path, words):
    words = [*words, *as_overrides(None, data), "DATALOADER.NUM_WORKERS", "0"]
    words = [*words, "OUTPUT_DIR", str(tmp_path), "MODEL.WEIGHTS", str(trained.weights)]
    cfg = load_config(trained.config, words)
    register_datasets(cfg)
    evaluate(cfg, resume=False)
    folder = "inference_TTA" if cfg.TEST.AUG.ENABLED else "inference"
    expected = json.loads((tmp_path / folder / "set/coco_instances_results.json").read_text())
    # as the evaluation: in a batch of another size a convolution may sum in another order
    predictor = Predictor(trained.config, overrides=words, batch=1)
    paths = sorted(data.images.iterdir())
    found = [x for result in predictor(paths) for x in zip(*as_coco(result), strict=True)]
    assert len(found) == len(expected) > 10
    for (box, score, label), x in zip(found, by_image(expected), strict=True):
        assert box == pytest.approx(x["bbox"], abs=1e-3)
        assert (score, label + 1) == (pytest.approx(x["score"], abs=1e-6), x["category_id"])
    assert predictor.class_names == tuple(COLOURS)


def by_image(results):
    return sorted(results, key=lambda x: (x["image_id"], -x["score"]))


def as_coco(found):
    boxes = found.boxes.copy()
    boxes[:, 2:] -= boxes[:, :2]
    return boxes.tolist(), found.scores.tolist(), found.classes.tolist()


def test_the_batch_changes_nothing(trained, predictor, images):
    together = Predictor(*trained, batch=3)(images)
    for path, found in zip(images, together, strict=True):
        assert_equal(found, predictor(path))


# ---- forms of an image


def test_path_picture_and_array_are_one(predictor, images):
    expected = predictor(str(images[1]))
    assert (expected.width, expected.height) == (96, 128)
    with Image.open(images[1]) as picture:
        assert_equal(predictor(picture), expected)
        rgb = np.asarray(picture)
    assert_equal(predictor(rgb), expected)
    several = predictor([images[1], rgb])
    assert len(several) == 2
    assert_equal(several[1], expected)
    assert len(predictor([])) == 0


def test_boxes_are_of_the_image_as_its_exif_turns_it(predictor, images, tmp_path):
    with Image.open(images[0]) as picture:
        turned = picture.transpose(Image.Transpose.ROTATE_90)
        exif = picture.getexif()
        exif[0x0112] = 6  # to be turned clockwise
        turned.save(tmp_path / "turned.png", exif=exif)
    found = predictor(tmp_path / "turned.png")
    assert_equal(found, predictor(images[0]))
    with Image.open(tmp_path / "turned.png") as picture:
        assert_equal(predictor(picture), found)


def test_depth_that_is_cut_is_said_once(predictor, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(d2_logger, "_LOG_COUNTER", Counter())
    pixels = np.linspace(0, 65535, 96 * 96).reshape(96, 96).astype(np.uint16)
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(tmp_path / name)
        predictor(tmp_path / name)
    (record,) = caplog.records
    assert "a.png: has more than 8 bits a pixel" in record.message


def test_bands(tmp_path):
    channels = ["MODEL.PIXEL_MEAN", [100.0] * 5, "MODEL.PIXEL_STD", [50.0] * 5]
    trained = write_tiny_detector(tmp_path, ["INPUT.FORMAT", "bands", *channels])
    array = np.random.default_rng(0).integers(256, size=(96, 160, 5)).astype(np.uint16)
    np.save(tmp_path / "x.npy", array)
    predictor = Predictor(*trained)
    assert_equal(predictor(tmp_path / "x.npy"), predictor(array))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3)), r"\(H, W, 3\) uint8, RGB, .* got \(8, 8, 3\) float64"),
        (np.zeros((8, 8, 4), np.uint8), r"got \(8, 8, 4\) uint8"),
        (torch.zeros(3, 8, 8), "a path, a PIL image or a numpy array, got Tensor"),
        ("nowhere.png", "nowhere.png: there is no such file"),
        (".", "is a folder, not an image"),
    ],
)
def test_what_is_no_image(predictor, image, message):
    with pytest.raises(ImageError, match=message):
        predictor(image)


def test_a_bad_image_stops_a_call_but_no_stream(predictor, images, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(images[0].read_bytes()[:2000])
    given = [images[0], bad, images[1]]
    with pytest.raises(ImageError, match=r"bad.png: cannot be read as an image: .*truncated"):
        predictor(given)
    first, error, last = predictor.stream(iter(given))
    assert isinstance(error, ImageError)
    assert_equal(first, predictor(images[0]))
    assert_equal(last, predictor(images[1]))


# ---- scores, classes


def test_score_thresh_leaves_out_and_takes_in(trained, predictor, images):
    plenty = predictor(images[0])
    middle = float(np.median(plenty.scores))
    few = Predictor(*trained, score_thresh=middle)(images[0])
    assert 0 < len(few) < len(plenty) and few.scores.min() >= middle
    options = {"overrides": ["TEST.DETECTIONS_PER_IMAGE=10000"]}
    config = Predictor(*trained, **options)(images[0])
    more = Predictor(*trained, **options, score_thresh=0.1)(images[0])
    assert config.scores.min() >= THRESH > more.scores.min() >= 0.1


def test_names_are_given_or_made_up(trained, predictor, images):
    assert predictor.class_names == ("class 0", "class 1", "class 2")
    named = Predictor(*trained, class_names=["cat", "dog", "cow"])(images[0])
    assert named.names == [("cat", "dog", "cow")[i] for i in named.classes]
    with pytest.raises(ValueError, match=r"names 2 classes, the detector has 3: name as many"):
        Predictor(*trained, class_names=["cat", "dog"])


@pytest.mark.parametrize("head", ["FocalRetinaNetHead", "QualityHead"])
def test_the_number_of_classes_is_in_the_weights(tmp_path, head):
    cfg = tiny_focal_cfg(NUM_CLASSES=4)
    cfg.MODEL.RETINANET.HEAD.NAME = head
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "x.pth")
    cfg.MODEL.RETINANET.NUM_CLASSES = None
    assert len(Predictor(cfg, tmp_path / "x.pth").class_names) == 4


def test_weights_of_another_detector_are_refused(trained, tmp_path):
    torch.save({"model": {"x": torch.zeros(3)}}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x.pth: how many classes it is for cannot be told"):
        Predictor(
            trained.config, tmp_path / "x.pth", overrides=["MODEL.RETINANET.NUM_CLASSES=None"]
        )
    with pytest.raises(ValueError, match=r"of the model's \d+ parameters|none of the file's"):
        Predictor(trained.config, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="there is no file"):
        Predictor(trained.config, "nowhere.pth")


def test_a_config_object_will_do_and_stays_as_it_is(trained, images, predictor):
    cfg = load_config(trained.config, ["MODEL.WEIGHTS", str(trained.weights)])
    cfg.freeze()
    before = repr(cfg)
    assert_equal(Predictor(cfg, score_thresh=0.0)(images[0]), predictor(images[0]))
    assert repr(cfg) == before


def test_a_lazy_config(tmp_path):
    config = write_tiny_lazy_config(tmp_path)
    model = instantiate(load_lazy(str(config)).model)
    torch.save({"model": model.state_dict()}, tmp_path / "x.pth")
    predictor = Predictor(config, tmp_path / "x.pth", device="cpu")
    (path,) = write_images(tmp_path / "images", {"a": SIZES["a"]})
    found = predictor(path)
    assert len(found) > 3 and (found.width, found.height) == (160, 96)
    assert len(predictor.class_names) == 3
    with Image.open(path) as picture:
        assert_equal(predictor(picture), found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_thresh": 2}, r"score_thresh must be in \[0, 1\], got 2"),
        ({"batch": 0}, "batch counts images, 1 or more, got 0"),
    ],
)
def test_refuses(trained, options, message):
    with pytest.raises(ValueError, match=message):
        Predictor(*trained, **options)
