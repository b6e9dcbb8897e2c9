"""`register_datasets` makes Detectron2 data sets of config keys, or names the mistake."""

import json
import logging

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from support.catalogs import catalogs  # noqa: F401 - an autouse fixture

from retina_plugin import add_retina_config
from retina_plugin.data import coco_file
from retina_plugin.data.coco_json import CocoDataset
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.data.findings import DataError


@pytest.fixture
def make_json(tmp_path):
    """A function that writes a json with two images and two boxes, changed by `edit`."""

    def make_json(name="train", class_names=("cat", "dog"), edit=None):
        dataset = CocoDataset(list(class_names))
        for index in range(2):
            image_id = dataset.add_image(f"{index}.png", 40, 30)
            dataset.add_box(image_id, (1, 2, 11, 22), class_index=index % len(class_names))
        path = tmp_path / f"{name}.json"
        dataset.save(path)
        if edit is not None:
            content = json.loads(path.read_text())
            edit(content)
            path.write_text(json.dumps(content))
        (tmp_path / "images").mkdir(exist_ok=True)
        return str(path)

    return make_json


def config(num_classes=None, **nodes):
    """A config with `TRAIN={"JSON": ...}` and so on below DATASETS.COCO."""
    cfg = get_cfg()
    add_retina_config(cfg)
    cfg.MODEL.RETINANET.NUM_CLASSES = num_classes
    for split, values in nodes.items():
        if isinstance(values, dict):
            cfg.DATASETS.COCO[split].update(values)
        else:
            cfg.DATASETS.COCO[split] = values
    return cfg


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir(exist_ok=True)
    return str(tmp_path / "images")


def error_of(cfg):
    """The message of the refusal, and that nothing was half done."""
    before = (cfg.clone(), set(DatasetCatalog))
    with pytest.raises(DataError) as error:
        register_datasets(cfg)
    assert (cfg, set(DatasetCatalog)) == before
    return str(error.value)


# ---- right


def test_registers_names_classes_and_evaluator(make_json, images):
    train, test = make_json("my_train"), make_json("my_test")
    cfg = config(TRAIN={"JSON": train, "IMAGES": images}, TEST={"JSON": test, "IMAGES": images})
    register_datasets(cfg)
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("my_train",), ("my_test",))
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 2
    meta = MetadataCatalog.get("my_train")
    assert (meta.json_file, meta.image_root, meta.evaluator_type) == (train, images, "coco")
    assert meta.thing_classes == ["cat", "dog"]  # before the annotations are loaded
    records = DatasetCatalog.get("my_train")
    assert [record["annotations"][0]["category_id"] for record in records] == [0, 1]


def test_gaps_and_order_of_category_ids(make_json, images):
    def edit(content):
        content["categories"] = [{"id": 90, "name": "z"}, {"id": 7, "name": "a"}]
        for annotation in content["annotations"]:
            annotation["category_id"] = 90

    cfg = config(TRAIN={"JSON": make_json(edit=edit), "IMAGES": images}, CLASS_NAMES=["a", "z"])
    register_datasets(cfg)
    assert MetadataCatalog.get("train").thing_classes == ["a", "z"]
    assert DatasetCatalog.get("train")[0]["annotations"][0]["category_id"] == 1


def test_lists_share_a_folder(make_json, images):
    jsons = [make_json("a"), make_json("b")]
    cfg = config(TRAIN={"JSON": jsons, "IMAGES": images, "NAME": ["one", "two"]})
    register_datasets(cfg)
    assert cfg.DATASETS.TRAIN == ("one", "two")
    assert MetadataCatalog.get("two").image_root == images


def test_lists_of_a_command_line(make_json, images):
    jsons = [make_json("a"), make_json("b")]
    cfg = config()
    cfg.merge_from_list(["DATASETS.COCO.TRAIN.JSON", f"[{jsons[0]}, {jsons[1]}]"])
    cfg.merge_from_list(["DATASETS.COCO.TRAIN.IMAGES", images])
    cfg.merge_from_list(["DATASETS.COCO.CLASS_NAMES", "[cat, dog]"])
    register_datasets(cfg)
    assert (cfg.DATASETS.TRAIN, cfg.MODEL.RETINANET.NUM_CLASSES) == (("a", "b"), 2)


def test_list_composed_by_the_user_stays(make_json, images, caplog):
    cfg = config(TRAIN={"JSON": make_json(), "IMAGES": images, "NAME": "mine"})
    cfg.DATASETS.TRAIN = ("other", "mine")
    register_datasets(cfg)
    assert cfg.DATASETS.TRAIN == ("other", "mine")


def test_says_what_it_replaces(make_json, images, caplog):
    caplog.set_level(logging.INFO)
    cfg = config(TRAIN={"JSON": make_json(), "IMAGES": images})
    cfg.DATASETS.TRAIN = ("coco_2017_train",)
    register_datasets(cfg)
    assert cfg.DATASETS.TRAIN == ("train",)
    assert "coco_2017_train" in caplog.text


def test_twice_is_harmless_and_reads_once(make_json, images, monkeypatch):
    path = make_json()
    calls = []
    loads = json.loads
    monkeypatch.setattr(coco_file.json, "loads", lambda text: calls.append(1) or loads(text))
    for _ in range(2):
        cfg = config(TRAIN={"JSON": path, "IMAGES": images}, TEST={"JSON": path, "IMAGES": images})
        register_datasets(cfg)
        register_datasets(cfg)
        assert (cfg.DATASETS.TRAIN, cfg.MODEL.RETINANET.NUM_CLASSES) == (("train",), 2)
    assert len(calls) == 1


def test_edited_json_is_registered_anew(make_json, images):
    register_datasets(config(TRAIN={"JSON": make_json(), "IMAGES": images}))
    DatasetCatalog.get("train")
    path = make_json(class_names=("bird", "cow", "elk"))
    cfg = config(TRAIN={"JSON": path, "IMAGES": images})
    register_datasets(cfg)
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 3
    assert len(DatasetCatalog.get("train")) == 2
    assert MetadataCatalog.get("train").thing_classes == ["bird", "cow", "elk"]


@pytest.mark.parametrize(
    ("train", "num_classes", "expected"),
    [
        ("coco_2017_train", None, 80),
        ("voc_2007_train", None, 20),
        ("lvis_v1_train", None, 1203),
        ("unheard_of", None, get_cfg().MODEL.RETINANET.NUM_CLASSES),
        ("coco_2017_train", 91, 91),
    ],
)
def test_number_of_classes_of_other_data_sets(train, num_classes, expected):
    cfg = config(num_classes)
    cfg.DATASETS.TRAIN = (train,)
    register_datasets(cfg)
    assert expected == cfg.MODEL.RETINANET.NUM_CLASSES


def test_number_of_classes_of_a_json_registered_in_code(make_json, images):
    register_coco_instances("in_code", {}, make_json(class_names=("x", "y", "z")), images)
    cfg = config()
    cfg.DATASETS.TRAIN = ("in_code",)
    register_datasets(cfg)
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 3


def test_config_without_our_keys():
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = ("coco_2017_train",)
    before = cfg.clone()
    register_datasets(cfg)
    assert cfg == before
    cfg.MODEL.RETINANET.NUM_CLASSES = None
    register_datasets(cfg)
    assert cfg == before
    cfg.DATASETS.TRAIN = ("lvis_v1_train",)
    with pytest.raises(DataError, match="is 80, but the metadata of 'lvis_v1_train' has 1203"):
        register_datasets(cfg)


def test_test_json_without_annotations_is_for_detection_only(make_json, images):
    path = make_json("test", edit=lambda content: content.pop("annotations"))
    cfg = config(TEST={"JSON": path, "IMAGES": images})
    register_datasets(cfg)
    assert cfg.DATASETS.TEST == ("test",)
    assert '"annotations"' in error_of(config(TRAIN={"JSON": path, "IMAGES": images}))


# ---- contradictions


def test_number_of_classes_contradicts_the_json(make_json, images):
    path = make_json()
    for wrong in (1, 80):
        message = error_of(config(wrong, TRAIN={"JSON": path, "IMAGES": images}))
        assert f"MODEL.RETINANET.NUM_CLASSES: is {wrong}, but {path}" in message
        assert "2 classes (cat, dog)" in message and "Set it to 2" in message


def test_class_names_contradict_the_json(make_json, images):
    path = make_json()
    for names, difference in (
        (["cat", "cow"], "only the former has dog and only the latter has cow"),
        (["dog", "cat"], "another order, class 0 is cat and dog"),
        ("cat", "only the former has dog"),
    ):
        cfg = config(TRAIN={"JSON": path, "IMAGES": images}, CLASS_NAMES=names)
        message = error_of(cfg)
        assert path in message and "DATASETS.COCO.CLASS_NAMES" in message
        assert difference in message


def test_class_names_contradict_number_of_classes():
    message = error_of(config(3, CLASS_NAMES=["cat", "cow"]))
    assert "is 3, but DATASETS.COCO.CLASS_NAMES has 2 classes (cat, cow)" in message


def test_train_and_test_contradict_each_other(make_json, images):
    train, test = make_json("train"), make_json("test", class_names=("cat", "cow"))
    cfg = config(TRAIN={"JSON": train, "IMAGES": images}, TEST={"JSON": test, "IMAGES": images})
    message = error_of(cfg)
    assert train in message and test in message and "cow" in message and "dog" in message
    cfg = config(TRAIN={"JSON": train, "IMAGES": images})
    cfg.DATASETS.TEST = ("coco_2017_val",)  # left over from a base config
    message = error_of(cfg)
    assert train in message and "coco_2017_val" in message


def test_one_name_for_two_data_sets(make_json, images, tmp_path):
    one, two = make_json("one"), make_json("two")
    cfg = config(
        TRAIN={"JSON": one, "IMAGES": images, "NAME": "same"},
        TEST={"JSON": two, "IMAGES": images, "NAME": "same"},
    )
    message = error_of(cfg)
    assert one in message and two in message and "Choose another DATASETS.COCO.TEST.NAME" in message
    register_datasets(config(TRAIN={"JSON": one, "IMAGES": images, "NAME": "same"}))
    message = error_of(config(TRAIN={"JSON": two, "IMAGES": images, "NAME": "same"}))
    assert one in message and two in message
    message = error_of(config(TRAIN={"JSON": two, "IMAGES": images, "NAME": "coco_2017_train"}))
    assert "instances_train2017.json" in message and two in message


# ---- keys and files


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"JSON": "{json}"}, "needs JSON and IMAGES together; got 0 NAME, 1 JSON, 0 IMAGES"),
        ({"IMAGES": "{images}"}, "needs JSON and IMAGES together"),
        ({"NAME": "x"}, "needs JSON and IMAGES together; got 1 NAME"),
        ({"JSON": ["{json}"] * 3, "IMAGES": ["{images}"] * 2}, "Make the lists equally long"),
        ({"JSON": "{json}", "IMAGES": "{images}", "NAME": ["a", "b"]}, "got 2 NAME, 1 JSON"),
        ({"JSON": 3, "IMAGES": "{images}"}, "DATASETS.COCO.TRAIN.JSON: takes a string"),
        ({"JSON": "{json}", "IMAGES": "nowhere"}, "'nowhere' is not a folder"),
        ({"JSON": "nowhere.json", "IMAGES": "{images}"}, "nowhere.json: cannot be read"),
    ],
)
def test_keys_that_do_not_fit(values, expected, make_json, images):
    def fill(value):
        if isinstance(value, list):
            return [fill(x) for x in value]
        if isinstance(value, str):
            return value.format(json=make_json(), images=images)
        return value

    message = error_of(config(TRAIN={key: fill(value) for key, value in values.items()}))
    assert "DATASETS.COCO.TRAIN" in message and expected in message


def test_mistakes_in_all_jsons_are_told_at_once(make_json, images):
    train = make_json("train", edit=lambda c: c["annotations"][0].update(category_id=9))
    test = make_json("test", edit=lambda c: c["annotations"][0].pop("area"))
    cfg = config(TRAIN={"JSON": train, "IMAGES": images}, TEST={"JSON": test, "IMAGES": images})
    message = error_of(cfg)
    assert f"DATASETS.COCO.TRAIN.JSON: {train}: " in message and "category_id 9" in message
    assert f"DATASETS.COCO.TEST.JSON: {test}: " in message and "area missing" in message


def test_datasets_below_detectron2s_folder(make_json, images, tmp_path, monkeypatch):
    make_json("train")
    folder = f"datasets/{tmp_path.name}"
    relative = {"JSON": f"{folder}/train.json", "IMAGES": f"{folder}/images"}
    assert "datasets" in error_of(config(TRAIN=relative))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path.parent))
    cfg = config(TRAIN=relative)
    register_datasets(cfg)
    assert MetadataCatalog.get("train").json_file == str(tmp_path / "train.json")
