import json

import pytest
from pycocotools.coco import COCO

from retina_plugin.data.coco_json import MANIFEST, CocoDataset, SplitPaths, make_once, write_json


def two_class_dataset():
    dataset = CocoDataset(["cat", "dog"])
    first = dataset.add_image("a.png", 40, 30, source="somewhere")
    dataset.add_image("empty.png", 20, 20)
    dataset.add_box(first, (1, 2, 11, 22), class_index=1)
    dataset.add_box(first, (5, 5, 9, 9), crowd=True)
    return dataset


def test_pycocotools_reads_it(tmp_path):
    two_class_dataset().save(tmp_path / "deep" / "set.json")
    coco = COCO(tmp_path / "deep" / "set.json")
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["cat", "dog"]
    dog, crowd = coco.loadAnns(coco.getAnnIds())
    assert coco.loadCats(dog["category_id"])[0]["name"] == "dog"
    assert (dog["bbox"], dog["area"], dog["iscrowd"]) == ([1, 2, 10, 20], 200, 0)
    assert crowd["iscrowd"] == 1
    assert coco.loadImgs(dog["image_id"])[0]["file_name"] == "a.png"
    assert coco.loadImgs(dog["image_id"])[0]["source"] == "somewhere"


def test_detectron2_reads_it(tmp_path):
    from detectron2.data.datasets import load_coco_json

    (tmp_path / "set").mkdir()
    paths = SplitPaths.of(tmp_path, "set")
    two_class_dataset().save(paths.json)
    records = load_coco_json(str(paths.json), str(paths.images), "coco_json_test")
    assert [len(r["annotations"]) for r in records] == [2, 0]
    assert records[0]["file_name"] == str(paths.images / "a.png")
    assert records[0]["annotations"][0]["category_id"] == 1
    assert [a["iscrowd"] for a in records[0]["annotations"]] == [0, 1]


def test_count():
    assert two_class_dataset().count() == {"images": 2, "boxes": 1, "crowd": 1, "dropped": 0}


def test_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


class Maker:
    def __init__(self, out_dir):
        self.out_dir = out_dir
        self.calls = 0

    def __call__(self):
        self.calls += 1
        paths = SplitPaths.of(self.out_dir, "train")
        paths.images.mkdir(parents=True, exist_ok=True)
        (paths.images / "a.png").write_bytes(b"pixels")
        dataset = CocoDataset(["x"])
        dataset.add_image("a.png", 4, 4)
        dataset.save(paths.json)
        return {"train": dataset}


RECIPE = {"name": "test", "version": 1, "tuple": (1, 2)}


def test_made_once(tmp_path, caplog):
    maker = Maker(tmp_path)
    make_once(tmp_path, RECIPE, maker)
    caplog.set_level("INFO")
    make_once(tmp_path, RECIPE, maker)
    assert maker.calls == 1
    assert "1 images, 0 boxes" in caplog.text  # counts are told the second time too


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: (out / "train/a.png").unlink(),
        lambda out: (out / "train/a.png").write_bytes(b"pix"),
        lambda out: (out / "train.json").unlink(),
        lambda out: (out / MANIFEST).unlink(),
        lambda out: (out / MANIFEST).write_text('{"recipe"'),
        lambda out: (out / MANIFEST).write_text("[]"),
    ],
    ids=["no image", "short image", "no json", "no manifest", "cut manifest", "other manifest"],
)
def test_made_again_when_damaged(tmp_path, damage):
    maker = Maker(tmp_path)
    make_once(tmp_path, RECIPE, maker)
    damage(tmp_path)
    make_once(tmp_path, RECIPE, maker)
    make_once(tmp_path, RECIPE, maker)
    assert maker.calls == 2


def test_made_again_for_another_recipe(tmp_path):
    maker = Maker(tmp_path)
    make_once(tmp_path, RECIPE, maker)
    make_once(tmp_path, {**RECIPE, "version": 2}, maker)
    assert maker.calls == 2


def test_interrupted_leaves_no_manifest(tmp_path):
    maker = Maker(tmp_path)
    make_once(tmp_path, RECIPE, maker)

    def interrupted():
        (tmp_path / "train/a.png").write_bytes(b"PIXELS")  # same size: only the manifest tells
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once(tmp_path, {**RECIPE, "version": 2}, interrupted)
    make_once(tmp_path, RECIPE, maker)
    assert maker.calls == 2
    assert (tmp_path / "train/a.png").read_bytes() == b"pixels"
