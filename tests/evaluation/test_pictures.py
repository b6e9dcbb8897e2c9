import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from PIL import Image

from retina_plugin.data.band_files import BandReader
from retina_plugin.data.coco_json import CocoDataset
from retina_plugin.evaluation.pictures import draw_pairs

LIME, SILVER, ORANGE = (0, 255, 0), (192, 192, 192), (255, 165, 0)


@pytest.fixture
def dataset(tmp_path):
    """Two black images of which the second has more boxes, one of them crowd."""
    made = CocoDataset(["a", "b"])
    for number, boxes in enumerate(([[5, 5, 20, 20]], [[10, 10, 40, 30], [50, 10, 70, 30]])):
        Image.new("RGB", (80, 60)).save(tmp_path / f"{number}.png")
        image_id = made.add_image(f"{number}.png", 80, 60)
        for index, box in enumerate(boxes):
            made.add_box(image_id, box, index, crowd=index == 1)
    made.save(tmp_path / "set.json")
    name = f"pictures_{tmp_path.name}"
    register_coco_instances(name, {}, str(tmp_path / "set.json"), str(tmp_path))
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def colors(picture, box):
    return {tuple(c) for c in np.asarray(picture.crop(box)).reshape(-1, 3)}


def test_truth_left_predictions_right_most_boxes_first(dataset, tmp_path):
    results = [
        {"image_id": 2, "category_id": 1, "bbox": [12, 12, 20, 15], "score": 0.9},
        {"image_id": 2, "category_id": 2, "bbox": [50, 40, 20, 15], "score": 0.1},
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    output = draw_pairs(
        dataset, tmp_path / "results.json", tmp_path / "pair.png", max_images=1, scale=2.0
    )
    with Image.open(output) as picture:
        left, right = (0, 32, 160, picture.height), (166, 32, picture.width, picture.height)
        assert picture.size == (2 * 160 + 6, 120 + 32)
        assert {LIME, SILVER} <= colors(picture, left) and ORANGE not in colors(picture, left)
        assert ORANGE in colors(picture, right) and LIME not in colors(picture, right)
        assert ORANGE not in colors(picture, (166, 32 + 70, picture.width, picture.height))


def test_an_empty_result_file_draws_no_predictions(dataset, tmp_path):
    (tmp_path / "results.json").write_text("[]")
    output = draw_pairs(dataset, tmp_path / "results.json", tmp_path / "pair.png")
    with Image.open(output) as picture:
        assert ORANGE not in colors(picture, (166, 32, picture.width, picture.height))


def test_images_of_bands(tmp_path):
    made = CocoDataset(["a"])
    np.save(tmp_path / "0.npy", np.arange(60 * 80 * 5, dtype=np.uint16).reshape(60, 80, 5))
    made.add_box(made.add_image("0.npy", 80, 60), [5, 5, 20, 20], 0)
    made.save(tmp_path / "set.json")
    name = f"bands_{tmp_path.name}"
    register_coco_instances(name, {}, str(tmp_path / "set.json"), str(tmp_path))
    (tmp_path / "results.json").write_text("[]")
    reader = BandReader(channels=5)
    options = {"decoder": reader, "input_format": "bands"}
    output = draw_pairs(name, tmp_path / "results.json", tmp_path / "pair.png", **options)
    with Image.open(output) as picture:
        assert picture.size == (2 * 160 + 6, 120 + 32)
        assert LIME in colors(picture, (0, 32, 160, 152))
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
