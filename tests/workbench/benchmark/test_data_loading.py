"""The benchmark of data loading measures the config's own data, or says what else."""

import dataclasses
import gc
import json
from types import SimpleNamespace

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from support.checked_sets import box, make_records

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.data.mapper import RetinaDatasetMapper
from retina_plugin.registry import UnknownNameError
from retina_plugin.workbench.benchmark import data_loading
from retina_plugin.workbench.benchmark.data_loading import build_mappers, measure


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few repeats of small synthetic images, and no search for garbage, which takes longer."""
    monkeypatch.setattr(gc, "collect", lambda: 0)
    monkeypatch.setattr(data_loading, "REPEATS", 2)
    smaller = dataclasses.replace(data_loading.SYNTHETIC, images=3, height=48, width=64)
    monkeypatch.setattr(data_loading, "SYNTHETIC", smaller)


@pytest.fixture
def records(tmp_path):
    yield make_records(tmp_path, [box()], [box(), box(x=9)], [box()], name="measured", suffix="jpg")
    DatasetCatalog.remove("measured")
    MetadataCatalog.remove("measured")


def config(*train):
    cfg = add_retina_config(get_cfg())
    cfg.INPUT.MIN_SIZE_TRAIN = (32,)
    cfg.DATASETS.TRAIN = train
    cfg.freeze()
    return cfg


def check_rates(result):
    for part in ("mapper", "loader"):
        assert list(result[part]) == ["stock", "plugin"]
        for samples in result[part].values():
            assert len(samples) == 2
            assert min(samples) > 0
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize("workers", [0, 1])
def test_the_configs_own_data(records, workers):
    result = measure(config("measured"), images=4, workers=workers)
    check_rates(result)
    expected = {"data": "measured", "decoder": "PIL", "images": 4, "workers": workers}
    assert {key: result[key] for key in expected} == expected


def test_without_data_synthetic_ones(monkeypatch):
    read = set()
    stock = RetinaDatasetMapper.__call__

    def spy(self, record):
        read.add(record["file_name"])
        output = stock(self, record)
        assert output["image"].shape == (3, 32, 43)
        assert len(output["instances"]) == 10
        return output

    monkeypatch.setattr(RetinaDatasetMapper, "__call__", spy)
    result = measure(config(), images=1, workers=0)
    check_rates(result)
    start = "3 synthetic JPEG files of 64x48 pixels with 10 boxes each, since "
    assert result["data"] == start + "DATASETS.TRAIN names no data"
    assert len(read) == 3


def test_missing_images_are_told(records, tmp_path):
    (tmp_path / "1.jpg").unlink()
    result = measure(config("measured"), images=3, workers=0)
    assert result["data"].startswith("3 synthetic")
    assert result["data"].endswith(f"No such file or directory: '{tmp_path / '1.jpg'}'")


def test_missing_jsons_are_told(tmp_path):
    cfg = config().clone()
    cfg.defrost()
    cfg.DATASETS.COCO.TRAIN.JSON = str(tmp_path / "gone.json")
    cfg.DATASETS.COCO.TRAIN.IMAGES = str(tmp_path)
    result = measure(cfg, images=1, workers=0)
    assert result["data"].startswith("3 synthetic")
    assert "gone.json" in result["data"]
    assert cfg.DATASETS.TRAIN == ()


def test_an_unknown_data_set_is_no_reason_for_synthetic_ones():
    with pytest.raises(KeyError, match="mesured"):
        measure(config("mesured"), images=1, workers=0)


def test_the_rate_is_images_a_second(records, monkeypatch):
    """A mapper that takes a quarter of a second delivers 4 images/s, on a clock of its own."""
    naps = []
    clock = SimpleNamespace(perf_counter=lambda: 0.25 * len(naps))
    monkeypatch.setattr(data_loading, "time", clock)
    assert data_loading._mapper_rate(naps.append, records, 20) == 4.0


def test_the_mappers_differ_in_their_work_alone(records):
    cfg = config("measured").clone()
    cfg.defrost()
    cfg.INPUT.AUGMENTATIONS = [{"NAME": "RandomZoomCrop", "size": 16, "zoom": [0.5, 2.0]}]
    mappers = build_mappers(cfg)
    assert type(mappers["stock"]) is DatasetMapper
    assert type(mappers["plugin"]) is RetinaDatasetMapper
    images = []
    for mapper in mappers.values():
        np.random.seed(0)
        images.append(mapper(records[0])["image"].numpy())
    assert np.array_equal(*images)


@pytest.mark.parametrize("numbers", [{"images": 0, "workers": 0}, {"images": 1, "workers": -1}])
def test_senseless_numbers(numbers):
    with pytest.raises(ValueError, match="expected at least 1 image and 0 workers, got"):
        measure(config(), **numbers)


def test_the_decoder_is_told_and_checked(records):
    cfg = config("measured").clone()
    cfg.defrost()
    cfg.INPUT.DECODER = "turbo"
    with pytest.raises(UnknownNameError, match="turbo"):
        measure(cfg, images=1, workers=0)
    pytest.importorskip("simplejpeg")
    cfg.INPUT.DECODER = "simplejpeg"
    assert measure(cfg, images=1, workers=0)["decoder"] == "simplejpeg"
