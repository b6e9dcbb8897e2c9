"""What Detectron2 leaves out of a json reaches the records, in training alone."""

import json

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from support.block_data import write_blocks
from support.catalogs import catalogs  # noqa: F401 - an autouse fixture

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.data.coco_records import ExtraKeys, load_coco_records
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.data.findings import DataError


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    return write_blocks(tmp_path_factory.mktemp("blocks"), "train", 4, size=96)


@pytest.fixture
def make(blocks, tmp_path):
    """A function that writes the json with fields added by ``edit``."""

    def make(edit=None):
        content = json.loads(blocks.json.read_text())
        for index, image in enumerate(content["images"]):
            image.update(site="arm" if index else "leg", age=index)
        for index, annotation in enumerate(content["annotations"]):
            annotation.update(weight=index + 0.5, meta=[index, 1])
        if edit:
            edit(content)
        path = tmp_path / "extra.json"
        path.write_text(json.dumps(content))
        return path

    return make


def load(path, blocks, images=(), annotations=()):
    return load_coco_records(path, blocks.images, "blocks", ExtraKeys(images, annotations))


def test_extra_keys_and_nothing_else(make, blocks):
    records = load(make(), blocks, ("site", "age"), ("weight", "meta"))
    stock = load_coco_json(str(make()), str(blocks.images), "blocks")
    assert [record.pop("site") for record in records] == ["leg", "arm", "arm", "arm"]
    assert [record.pop("age") for record in records] == [0, 1, 2, 3]
    annotations = [x for record in records for x in record["annotations"]]
    assert [x.pop("weight") for x in annotations] == [i + 0.5 for i in range(len(annotations))]
    assert [x.pop("meta") for x in annotations] == [[i, 1] for i in range(len(annotations))]
    assert records == stock
    assert load(make(), blocks) == stock


def test_neutral_values_may_be_missing_but_not_all(make, blocks):
    def only_first(content):
        for annotation in content["annotations"][1:]:
            del annotation["weight"]

    records = load(make(only_first), blocks, (), ("weight",))
    assert sum("weight" in x for record in records for x in record["annotations"]) == 1
    with pytest.raises(DataError, match=r"no annotation has 'gamma_shift'.*Check its spelling"):
        load(make(), blocks, (), ("gamma_shift",))


def test_crowds_need_no_numbers(make, blocks):
    def edit(content):
        crowd = content["annotations"][0]
        crowd["iscrowd"] = 1
        del crowd["meta"]

    records = load(make(edit), blocks, (), ("meta",))
    assert "meta" not in records[0]["annotations"][0]


def test_mistakes_are_listed_with_examples(make, blocks):
    def edit(content):
        del content["images"][1]["site"]
        content["annotations"][0]["weight"] = "heavy"
        del content["annotations"][1]["meta"]

    path = make(edit)
    with pytest.raises(DataError) as error:
        load(path, blocks, ("site",), ("weight", "meta"))
    message = str(error.value)
    assert "3 problem(s)" in message and str(path) in message
    assert "images without 'site'" in message and "(1.png)" in message
    assert "'weight' is not a finite number" in message and "'heavy'" in message
    assert "'meta' is not a finite number" in message and "missing" in message


def test_taken_key(make, blocks):
    with pytest.raises(DataError, match="EXTRA_IMAGE_KEYS: 'annotations' is a key of Detectron2's"):
        load(make(), blocks, ("annotations",))


# ---- from the config


def config(blocks, path, *, group="", annotations=(), images=()):
    cfg = add_retina_config(get_cfg())
    cfg.MODEL.RETINANET.NUM_CLASSES = None
    split = {"NAME": "extra", "JSON": str(path), "IMAGES": str(blocks.images)}
    cfg.DATASETS.COCO.TRAIN = CfgNode(split)
    cfg.DATASETS.COCO.TEST = CfgNode({**split, "NAME": "extra_test"})
    cfg.DATASETS.COCO.EXTRA_ANNOTATION_KEYS = list(annotations)
    cfg.DATASETS.COCO.EXTRA_IMAGE_KEYS = list(images)
    cfg.DATALOADER.GROUP_FIELD = group
    return cfg


def test_keys_of_the_config(make, blocks):
    register_datasets(
        config(blocks, make(), group="site", annotations=["weight"], images=["age", "site"])
    )
    record = DatasetCatalog.get("extra")[1]
    assert (record["site"], record["age"]) == ("arm", 1)
    assert "weight" in record["annotations"][0] and "meta" not in record["annotations"][0]
    meta = MetadataCatalog.get("extra")
    assert meta.evaluator_type == "coco" and meta.thing_classes == ["red", "green", "blue"]
    plain = DatasetCatalog.get("extra_test")[1]
    assert "site" not in plain and "weight" not in plain["annotations"][0]


def test_changed_keys_register_anew(make, blocks):
    path = make()
    for annotations in ([], ["weight"], ["meta", "weight"], []):
        for _ in range(2):
            register_datasets(config(blocks, path, annotations=annotations))
        found = set(DatasetCatalog.get("extra")[0]["annotations"][0])
        assert found & {"weight", "meta"} == set(annotations)
