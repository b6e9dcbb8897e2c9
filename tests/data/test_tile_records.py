"""Tiles of images are records whose boxes are where the pixels are; nothing is lost unsaid."""

import copy
import logging

import numpy as np
import pytest
from detectron2.structures import BoxMode

from retina_plugin.data.tile_records import TILE, tile_records
from retina_plugin.data.tiling import Window

XYXY, XYWH = BoxMode.XYXY_ABS, BoxMode.XYWH_ABS


def annotation(box, mode=XYXY, **more):
    return {"bbox": list(box), "bbox_mode": mode, "category_id": 0, "iscrowd": 0, **more}


def record(width, height, *annotations, **more):
    return {
        "file_name": "image.png",
        "image_id": 7,
        "width": width,
        "height": height,
        "annotations": list(annotations),
        **more,
    }


def in_file(tile):
    """Boxes of a tile in the file's pixels."""
    x0, y0 = tile[TILE][:2]
    return [
        (tuple(np.add(x["bbox"], [x0, y0, x0, y0]).tolist()), x["iscrowd"])
        for x in tile["annotations"]
    ]


def test_by_hand():
    whole = annotation([10, 20, 30, 15], XYWH, weight=2.0, segmentation=[[1, 2]], area=450)
    cut = annotation([70, 60, 110, 80])  # 30 of 40 in the left, 10 in the right
    given = record(200, 100, whole, cut, site="arm")
    before = copy.deepcopy(given)
    left, right = tile_records([given], size=100, filter_empty=False)
    assert given == before
    assert left[TILE] == Window(0, 0, 100, 100) and right[TILE] == Window(100, 0, 200, 100)
    for tile in (left, right):
        assert {k: tile[k] for k in ("site", "image_id", "width")} == {
            "site": "arm", "image_id": 7, "width": 200
        }  # fmt: skip
    first, second = left["annotations"]
    assert first == annotation([10, 20, 40, 35], weight=2.0)
    assert second == annotation([70, 60, 100, 80])
    assert right["annotations"] == [annotation([0, 60, 10, 80], iscrowd=1)]


def test_tiles_without_objects_are_kept_or_not():
    given = record(300, 100, annotation([10, 10, 30, 30]), annotation([110, 0, 130, 9], iscrowd=1))
    assert [x[TILE].x0 for x in tile_records([given], size=100)] == [0]
    every = tile_records([given], size=100, filter_empty=False)
    assert [x[TILE].x0 for x in every] == [0, 100, 200]
    assert [len(x["annotations"]) for x in every] == [1, 1, 0]


def test_images_that_fit_stay_as_they_are():
    given = record(140, 60, annotation([10, 10, 30, 30], segmentation=[[1]]))
    (same,) = tile_records([given], size=100)
    assert same is given


def random_annotations(rng, count, width, height):
    """Whole and fractional, XYXY and XYWH, some reaching out of the image, some crowd."""
    found = []
    for _ in range(count):
        x0, y0 = rng.uniform(-20, [width - 5, height - 5])
        w, h = rng.uniform(3, 90, 2)
        box = [x0, y0, w, h] if rng.random() < 0.5 else [x0, y0, x0 + w, y0 + h]
        mode = XYWH if box[2] == w else XYXY
        if rng.random() < 0.5:
            box = [round(v) for v in box]
        found.append(annotation(box, mode, iscrowd=int(rng.random() < 0.1)))
    return found


@pytest.mark.parametrize("overlap", [0, 60])
def test_no_object_is_lost(overlap):
    rng = np.random.default_rng(overlap)
    given = record(700, 420, *random_annotations(rng, 200, 700, 420))
    tiles = tile_records([given], size=160, overlap=overlap, filter_empty=False)
    seen = np.zeros((420, 700), dtype=int)
    for x0, y0, x1, y1 in (tile[TILE] for tile in tiles):
        seen[y0:y1, x0:x1] += 1
    assert seen.min() == 1 and (seen.max() == 1) == (overlap == 0)
    found = [x for tile in tiles for x in in_file(tile)]
    boxes, crowd = np.array([x[0] for x in found]), np.array([x[1] for x in found])
    for x in given["annotations"]:
        box = np.clip(BoxMode.convert(x["bbox"], x["bbox_mode"], XYXY), 0, [700, 420] * 2)
        if (box[2:] <= box[:2]).any():
            continue
        inside = (boxes[:, :2] >= box[:2] - 1e-6).all(1) & (boxes[:, 2:] <= box[2:] + 1e-6).all(1)
        assert inside.any()
        assert not x["iscrowd"] or crowd[inside].any()
        if overlap and max(box[2:] - box[:2]) <= overlap:  # whole in some tile, and so an object
            whole = np.isclose(boxes, box).all(1)
            assert (crowd[whole] == x["iscrowd"]).any()


def test_counts_what_is_no_object_any_more(caplog):
    caplog.set_level(logging.INFO)
    given = record(
        200,
        100,
        annotation([10, 10, 30, 30]),
        annotation([50, 10, 101.5, 30]),  # a remainder of 1.5 pixels
        annotation([70, 60, 110, 80]),  # cut: crowd in the right one
        annotation([5, 5, 5, 9]),  # no width
        annotation([250, 5, 280, 9]),  # outside
        annotation([150, 60, 170, 80], iscrowd=1),
    )
    tile_records([given], size=100, ignore_crowd=True)
    assert "1 images are 2 tiles with 3 objects; 1 cut boxes are crowd there, 1 remainders" in (
        caplog.text
    )
    assert "2 boxes without area in their image are dropped" in caplog.text
    assert "INPUT.IGNORE_CROWD" not in caplog.text
    tile_records([given], size=100)
    assert "1 boxes, of which a tile shows 0.5 or less" in caplog.text
    assert "set INPUT.IGNORE_CROWD True" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": -5}, r"TRAIN_SIZE .* got -5"),
        ({"size": 100, "overlap": 100}, r"TRAIN_OVERLAP .* less than TRAIN_SIZE 100, got 100"),
        ({"size": 100, "min_visible": 1.0}, r"MIN_VISIBLE .* got 1.0"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ValueError, match=rf"INPUT.TILES.{message}"):
        tile_records([], **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sem_seg_file_name": "x.png"}, "image.png has sem_seg_file_name: set it to 0"),
        ({"width": None}, "image.png lacks width"),
    ],
)
def test_refuses_records(change, message):
    given = {k: v for k, v in {**record(200, 100), **change}.items() if v is not None}
    with pytest.raises(ValueError, match=rf"INPUT.TILES.TRAIN_SIZE .* but {message}"):
        tile_records([given], size=100)
