"""Image files that Detectron2 would stumble over are found before training, and no others."""

from functools import partial

import pytest
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as stock
from PIL import Image
from support.catalogs import catalogs  # noqa: F401 - an autouse fixture
from support.checked_sets import box, config, error_of, make_records, told


@pytest.fixture
def make(tmp_path):
    return partial(make_records, tmp_path)


def test_missing_files(make):
    for record in make([box()], [box()]):
        record["file_name"] += ".gone"
    message = error_of(config())
    assert "image files that do not exist (2)" in message and "0.png.gone" in message


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp", "gif"])
def test_cut_off_files(suffix, make, tmp_path):
    make([box()], [box()], suffix=suffix)
    path = tmp_path / f"1.{suffix}"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises((OSError, SyntaxError)):
        stock.read_image(str(path))
    message = error_of(config())
    assert "image files that cannot be read (1)" in message and path.name in message


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_files_that_are_no_images(content, make, tmp_path):
    make([box()])
    (tmp_path / "0.png").write_bytes(content)
    assert "image files that cannot be read (1)" in error_of(config())


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp", "gif"])
def test_bytes_after_the_end_are_harmless(suffix, make, tmp_path, caplog):
    make([box()], suffix=suffix)
    path = tmp_path / f"0.{suffix}"
    path.write_bytes(path.read_bytes() + b"appended by a camera" * 3)
    stock.read_image(str(path))
    assert told(config(), caplog)[40] == []


def test_other_size(make, tmp_path):
    records = make([box()], [box()])
    records[1]["height"] = 31
    message = error_of(config())
    assert "40x31 in the data, 40x30 in the file" in message and "1.png" in message
    with pytest.raises(stock.SizeMismatchError):
        DatasetMapper(config(), True)(records[1])


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_after_exif_rotation_as_detectron2_reads_it(suffix, orientation, make, caplog):
    (record,) = make([box()], suffix=suffix)
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(record["file_name"]) as image:
        image.load()
    image.save(record["file_name"], exif=exif)
    height, width = stock.read_image(record["file_name"]).shape[:2]
    record.update(width=width, height=height)
    assert told(config(), caplog)[40] == []
    record.update(width=height, height=width)
    message = error_of(config())
    assert f"{height}x{width} in the data, {width}x{height} in the file" in message
    assert ("EXIF orientation" in message.split("Correct")[0]) == (orientation >= 5)


def test_files_may_be_left_alone(make, caplog):
    make([box()])[0]["file_name"] = "gone.png"
    assert told(config(CHECK_FILES=False), caplog)[40] == []
    cfg = config()
    del cfg.DATASETS["CHECK_FILES"]
    assert "gone.png" in error_of(cfg)
