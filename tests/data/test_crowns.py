import json
from collections import Counter

import numpy as np
import pytest
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BoxMode
from PIL import Image

from retina_plugin.data.coco_json import MANIFEST
from retina_plugin.data.crowns import (
    OSBS_029,
    SPLITS,
    YELL_528,
    YELL_541,
    prepare_crowns,
    read_voc,
)
from retina_plugin.data.package_files import package_file
from retina_plugin.data.tile_records import tile_records


@pytest.fixture(scope="module")
def crowns(tmp_path_factory):
    paths = prepare_crowns(tmp_path_factory.mktemp("crowns"))
    return paths, {name: json.loads(p.json.read_text()) for name, p in paths.items()}


def source_boxes(source):
    return read_voc(package_file("deepforest", f"data/{source}.xml"))[0]


def in_source_pixels(image, box):
    x0, y0, *_ = image["window"]
    x, y, w, h = box["bbox"]
    return x + x0, y + y0, x + w + x0, y + h + y0


def objects_in_source_pixels(split):
    images = {image["id"]: image for image in split["images"]}
    boxes = [a for a in split["annotations"] if not a["iscrowd"]]
    return [in_source_pixels(images[a["image_id"]], a) for a in boxes]


@pytest.mark.parametrize(("source", "count"), [(YELL_528, 574), (YELL_541, 279), (OSBS_029, 61)])
def test_source_counts(source, count):
    assert len(source_boxes(source)) == count


def test_each_split_has_one_source(crowns):
    sources = {name: {i["source"] for i in split["images"]} for name, split in crowns[1].items()}
    assert sources == {name: {split.source} for name, split in SPLITS.items()}
    assert sources["train"] == sources["val"] == {YELL_528}
    assert (sources["yell_541"], sources["osbs_029"]) == ({YELL_541}, {OSBS_029})


@pytest.mark.parametrize(
    ("name", "whole"),
    [("train_photo", "train"), ("val_photo", "val"), ("yell_541_photo", "yell_541")],
)
def test_photographs_are_their_tiles_in_one_piece(crowns, name, whole):
    """In training the tiles of `INPUT.TILES` are those of the split, but for the cut-off south."""
    paths, splits = crowns
    (photo,) = splits[name]["images"]
    tiles = splits[whole]["images"]
    assert photo["window"] == [
        *(min(t["window"][i] for t in tiles) for i in (0, 1)),
        *(max(t["window"][i] for t in tiles) for i in (2, 3)),
    ]
    if whole != "train":
        return
    records = load_coco_json(str(paths[name].json), str(paths[name].images), f"test_{name}")
    found = tile_records(records, size=512, overlap=128, filter_empty=False)
    assert [list(x["tile"]) for x in found] == [t["window"] for t in tiles]
    for x, tile in zip(found, tiles, strict=True):
        boxes = [a for a in splits[whole]["annotations"] if a["image_id"] == tile["id"]]
        south = photo["height"] - tile["window"][1] - 80  # no tree is higher
        expected = {(tuple(a["bbox"]), a["iscrowd"]) for a in boxes if a["bbox"][1] < south}
        made = {
            (tuple(BoxMode.convert(a["bbox"], BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)), a["iscrowd"])
            for a in x["annotations"]
            if a["bbox"][1] < south
        }
        assert made == expected


def test_train_and_val_share_no_row(crowns):
    rows = {
        name: {y for i in crowns[1][name]["images"] for y in range(i["window"][1], i["window"][3])}
        for name in ("train", "val")
    }
    assert not rows["train"] & rows["val"]
    assert max(rows["train"]) < min(rows["val"])  # north above south
    assert rows["train"] | rows["val"] == set(range(2472))
    assert len(rows["train"]) == pytest.approx(0.75 * 2472, abs=1)


def test_tiles_are_the_photograph(crowns):
    paths, splits = crowns
    for name, split in splits.items():
        photo_path = package_file("deepforest", f"data/{SPLITS[name].source}.png")
        photo = np.asarray(Image.open(photo_path))
        for image in split["images"]:
            tile = np.asarray(Image.open(paths[name].images / image["file_name"]))
            x0, y0, x1, y1 = image["window"]
            np.testing.assert_array_equal(tile, photo[y0:y1, x0:x1])
            assert tile.shape == (image["height"], image["width"], 3)


def test_boxes_lie_in_their_tile(crowns):
    for split in crowns[1].values():
        images = {image["id"]: image for image in split["images"]}
        for box in split["annotations"]:
            x, y, w, h = box["bbox"]
            image = images[box["image_id"]]
            assert min(x, y) >= 0
            assert min(w, h) >= 2
            assert x + w <= image["width"]
            assert y + h <= image["height"]
            assert box["area"] == w * h


@pytest.mark.parametrize("name", ["val", "yell_541", "osbs_029"])
def test_evaluated_trees_are_the_annotators_at_most_once(crowns, name):
    source = source_boxes(SPLITS[name].source)
    claimed = Counter()
    for x0, y0, x1, y1 in objects_in_source_pixels(crowns[1][name]):
        inside = (source[:, :2] <= [x0, y0]).all(1) & (source[:, 2:] >= [x1, y1]).all(1)
        area = (source[:, 2:] - source[:, :2]).prod(1)
        candidates = np.flatnonzero(inside & ((x1 - x0) * (y1 - y0) > 0.5 * area))
        assert len(candidates), (x0, y0, x1, y1)
        claimed[candidates[0]] += 1
    if name == "osbs_029":
        assert len(claimed) == len(source)
    assert max(claimed.values()) == 1


def test_nearly_every_training_tree_is_whole_in_some_tile(crowns):
    boundary = round(0.75 * 2472)
    source = source_boxes(YELL_528)
    north = {tuple(box) for box in source[source[:, 3] <= boundary].tolist()}
    whole = north & set(objects_in_source_pixels(crowns[1]["train"]))
    assert len(whole) > 0.99 * len(north)


def test_detectron2_loads_every_split(crowns):
    paths, splits = crowns
    for name, split in splits.items():
        records = load_coco_json(str(paths[name].json), str(paths[name].images), f"test_{name}")
        assert sum(len(r["annotations"]) for r in records) == len(split["annotations"])


def test_second_call_does_nothing_and_a_lost_tile_comes_back(crowns):
    paths, _ = crowns
    out_dir = paths["train"].json.parent
    times = {p: p.stat().st_mtime_ns for p in out_dir.rglob("*")}
    prepare_crowns(out_dir)
    assert {p: p.stat().st_mtime_ns for p in out_dir.rglob("*")} == times
    lost = next(paths["val"].images.iterdir())
    content = lost.read_bytes()
    lost.unlink()
    prepare_crowns(out_dir)
    assert lost.read_bytes() == content
    assert (out_dir / MANIFEST).is_file()


def test_other_classes_are_refused(tmp_path):
    xml = package_file("deepforest", "data/OSBS_029.xml").read_text()
    (tmp_path / "dead.xml").write_text(xml.replace(">Tree<", ">Dead<", 1))
    with pytest.raises(ValueError, match="'Dead'"):
        read_voc(tmp_path / "dead.xml")
