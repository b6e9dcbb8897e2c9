"""Images of both training and evaluation are found by content, and few files are read for it."""

import shutil
from unittest import mock

import numpy as np
import pytest
from detectron2.utils.file_io import PathManager
from PIL import Image

from retina_plugin.data.checks import CheckedSet
from retina_plugin.data.findings import Findings
from retina_plugin.data.image_files import check_image_files
from retina_plugin.workbench.doctor import leaks
from retina_plugin.workbench.doctor.leaks import check_leaks


@pytest.fixture
def make(tmp_path):
    """A function: name, splits, numbers of the images (their content) -> a set."""

    def make(name, split, seeds, *, suffix="png", size=(20, 10)):
        folder = tmp_path / name
        folder.mkdir()
        records = []
        for index, seed in enumerate(seeds):
            path = folder / f"{index}.{suffix}"
            pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8)
            Image.fromarray(pixels).save(path)
            width, height = size
            record = {"file_name": str(path), "image_id": index, "width": width, "height": height}
            records.append(record)
        return CheckedSet(name, [split], records, check_image_files(records, name, Findings()))

    return make


def leaked(*sets):
    findings = Findings()
    records = check_leaks(sets, findings)
    return [x["file_name"].rpartition("/")[2] for x in records], [str(x) for x in findings]


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_copies_under_other_names(make, suffix):
    train = make("train", "TRAIN", [0, 1, 2, 3], suffix=suffix)
    test = make("test", "TEST", [9, 2, 8, 0], suffix=suffix)
    names, (text,) = leaked(train, test)
    assert sorted(names) == [f"0.{suffix}", f"2.{suffix}"]
    assert "trained on too (2)" in text and "Fix: retina doctor CONFIG --write-clean" in text


def test_nothing_shared(make):
    assert leaked(make("train", "TRAIN", [0, 1]), make("test", "TEST", [2, 3])) == ([], [])
    assert leaked(make("alone", "TRAIN", [0, 1])) == ([], [])


def test_a_copy_that_was_saved_anew(make, tmp_path):
    train, test = make("train", "TRAIN", [0, 1]), make("test", "TEST", [2, 3])
    path = tmp_path / "test" / "1.png"
    Image.open(tmp_path / "train" / "0.png").save(path, format="BMP")
    assert path.stat().st_size != (tmp_path / "train" / "0.png").stat().st_size
    test.files = check_image_files(test.records, "test", Findings())
    assert leaked(train, test)[0] == ["0.png"]
    with mock.patch.object(leaks, "MAX_DECODED", 10):
        names, (text,) = leaked(train, test)
    assert names == [] and "not their pixels" in text


def test_the_same_path_in_both(make):
    train = make("train", "TRAIN", [0, 1])
    test = CheckedSet("test", ["TEST"], [dict(train.records[1])], train.files)
    assert leaked(train, test)[0] == ["1.png"]


def test_one_set_for_both(make):
    both = make("both", "TRAIN", [0])
    both.splits = ["TRAIN", "TEST"]
    names, (text,) = leaked(both)
    assert names == [] and "is in DATASETS.TEST too" in text


def test_listed_twice(make):
    train = make("train", "TRAIN", [0, 1])
    train.records.append({**train.records[0], "image_id": 7})
    _, (text,) = leaked(train)
    assert "listed twice (1)" in text and "images 0 and 7" in text


def test_only_files_of_equal_size_are_read(make, tmp_path):
    """A hundred thousand files are not hashed: only those that could be the same."""
    train, test = make("train", "TRAIN", range(30)), make("test", "TEST", range(30, 36))
    for sets in (train, test):
        for index, record in enumerate(sets.records):
            offset = 0 if sets is train else 1000
            sets.files.bytes[record["file_name"]] = 5000 + index + offset
    shutil.copy(tmp_path / "train/4.png", tmp_path / "test/2.png")
    for name, checked in (("train/4.png", train), ("test/2.png", test)):
        checked.files.bytes[str(tmp_path / name)] = 77
    train.files.bytes[str(tmp_path / "train/5.png")] = 77  # of equal size and other content
    read = []
    opened = PathManager.open

    def spy(path, *args, **kwargs):
        read.append(path.rpartition("/")[2])
        return opened(path, *args, **kwargs)

    with mock.patch.object(PathManager, "open", spy), mock.patch.object(leaks, "MAX_DECODED", 0):
        names, _ = leaked(train, test)
    assert names == ["4.png"]
    assert sorted(read) == ["2.png", "2.png", "4.png", "4.png", "5.png"]
