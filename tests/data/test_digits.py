import json
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from retina_plugin.data import digits
from retina_plugin.data.digits import (
    CLASS_NAMES,
    IMAGE_SIZE,
    PHOTOS,
    draw_digits,
    prepare_digits,
    read_glyphs,
    read_photos,
)

GREY = 120


@pytest.fixture(scope="module")
def glyphs():
    return read_glyphs("train")


@pytest.fixture
def grey_photo():
    return Image.new("RGB", (300, 200), (GREY, GREY, GREY))


def bounding_box(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_box_is_tight_around_the_ink(glyphs, grey_photo, monkeypatch):
    monkeypatch.setattr(digits, "DIGITS_PER_IMAGE", (1, 1))
    for seed in range(40):
        drawing = draw_digits(grey_photo, *glyphs, np.random.default_rng(seed))
        changed = (drawing.image != GREY).any(2)
        assert drawing.boxes.tolist() == [bounding_box(changed)]


def test_several_digits_keep_apart_and_in_the_image(glyphs, grey_photo):
    most = 0
    for seed in range(40):
        drawing = draw_digits(grey_photo, *glyphs, np.random.default_rng(seed))
        outside = np.ones((IMAGE_SIZE, IMAGE_SIZE), dtype=bool)
        for x0, y0, x1, y1 in drawing.boxes.astype(int):
            assert 0 <= x0 < x1 <= IMAGE_SIZE
            assert 0 <= y0 < y1 <= IMAGE_SIZE
            outside[y0:y1, x0:x1] = False
        assert (drawing.image[outside] == GREY).all()
        for a, b in combinations(drawing.boxes, 2):
            sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
            smaller = min((a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod())
            assert sides.clip(0).prod() <= 0.1 * smaller
        most = max(most, len(drawing.boxes))
    assert 4 <= most <= 6


def test_heights_span_the_scales(glyphs, grey_photo):
    heights = np.concatenate(
        [
            np.diff(draw_digits(grey_photo, *glyphs, np.random.default_rng(s)).boxes[:, 1::2])[:, 0]
            for s in range(60)
        ]
    )
    assert 14 <= heights.min() < 20
    assert 55 < heights.max() <= 70


@pytest.mark.parametrize("split", ["train", "val"])
def test_digits_stand_out_from_the_photograph(split, monkeypatch):
    monkeypatch.setattr(digits, "DIGITS_PER_IMAGE", (1, 1))
    glyphs, labels = read_glyphs(split)
    for photo in read_photos(split):
        for seed in range(10):
            drawn = draw_digits(photo, glyphs, labels, np.random.default_rng(seed))
            with monkeypatch.context() as patch:
                patch.setattr(digits, "_paint", lambda *_: None)
                plain = draw_digits(photo, glyphs, labels, np.random.default_rng(seed))
            change = np.abs((drawn.image.astype(float) - plain.image) @ digits.LUMINANCE)
            assert np.quantile(change[(drawn.image != plain.image).any(2)], 0.75) > 40


def test_label_is_the_glyph_drawn(grey_photo):
    """With one glyph per class of a known shape, the shape on the image tells the class."""
    glyphs = np.zeros((10, 8, 8), dtype=np.float32)
    for digit in range(10):
        glyphs[digit, : 1 + digit % 5, : 1 + digit // 5 * 6] = 1
    for seed in range(20):
        drawing = draw_digits(grey_photo, glyphs, np.arange(10), np.random.default_rng(seed))
        for box, digit in zip(drawing.boxes, drawing.digits, strict=True):
            ratio = (box[2] - box[0]) / (box[3] - box[1])
            wanted = (1 + digit // 5 * 6) / (1 + digit % 5)
            assert 0.6 < ratio / wanted < 1.6


def test_train_and_val_share_no_handwriting_and_no_photograph():
    assert not set(PHOTOS["train"]) & set(PHOTOS["val"])
    train, val = ({glyph.tobytes() for glyph in read_glyphs(s)[0]} for s in ("train", "val"))
    assert not train & val
    assert len(train) + len(val) == 1797
    for split in ("train", "val"):
        assert np.bincount(read_glyphs(split)[1]).min() > 30
        assert len(read_photos(split)) == len(PHOTOS[split])


def files(out_dir):
    return {p.relative_to(out_dir): p.read_bytes() for p in out_dir.rglob("*") if p.is_file()}


def test_prepared_set(tmp_path):
    from detectron2.data.datasets import load_coco_json

    paths = prepare_digits(tmp_path / "a", train_images=8, val_images=4)
    for name, count in (("train", 8), ("val", 4)):
        content = json.loads(paths[name].json.read_text())
        categories = {c["id"]: c["name"] for c in content["categories"]}
        assert categories == dict(enumerate(CLASS_NAMES, start=1))
        allowed = {"/".join(source) for source in PHOTOS[name]}
        assert {image["source"] for image in content["images"]} <= allowed
        records = load_coco_json(str(paths[name].json), str(paths[name].images), f"digits_{name}")
        assert len(records) == count
        assert all(record["annotations"] for record in records)
        assert {Image.open(r["file_name"]).size for r in records} == {(IMAGE_SIZE, IMAGE_SIZE)}


def test_same_seed_same_files_other_seed_other_files(tmp_path):
    for name, seed, images in (("a", 0, 4), ("b", 0, 4), ("c", 1, 4), ("d", 0, 6)):
        prepare_digits(tmp_path / name, train_images=images, val_images=2, seed=seed)
    a, b, c, d = (files(tmp_path / name) for name in "abcd")
    assert a == b
    images = [name for name in a if name.suffix == ".jpg"]
    assert len(images) == 6
    assert not any(a[name] == c[name] for name in images)
    assert all(a[name] == d[name] for name in images)  # image i depends on seed and i alone


def test_second_call_does_nothing_another_number_makes_it_anew(tmp_path):
    prepare_digits(tmp_path, train_images=2, val_images=2)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    prepare_digits(tmp_path, train_images=2, val_images=2)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == times
    paths = prepare_digits(tmp_path, train_images=3, val_images=2)
    assert len(json.loads(paths["train"].json.read_text())["images"]) == 3
