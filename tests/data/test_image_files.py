"""Image files that Detectron2 would stumble over are found before training, and no others."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as stock
from PIL import Image
from support.catalogs import catalogs  # noqa: F401 - an autouse fixture
from support.checked_sets import box, config, error_of, make_records, told

from retina_plugin.data.findings import Findings
from retina_plugin.data.image_files import check_image_files


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


# ---- what is no error, but changes what is learnt


def test_sixteen_bits_are_read_as_white(make, tmp_path, caplog):
    make([box()])
    Image.fromarray(np.full((30, 40), 3000, np.uint16)).save(tmp_path / "0.png")
    assert (stock.read_image(str(tmp_path / "0.png"), "BGR") == 255).all()
    (text,) = told(config(), caplog)[30]
    assert "images of 16 bits or floats (1)" in text and "INPUT.FORMAT: bands" in text


@pytest.mark.parametrize(
    ("mode", "what"), [("L", "grey images (1)"), ("RGBA", "images with an alpha channel (1)")]
)
def test_other_modes_are_told(mode, what, make, tmp_path, caplog):
    make([box()])
    Image.open(tmp_path / "0.png").convert(mode).save(tmp_path / "0.png")
    found = told(config(), caplog)
    assert what in found[20][0] and not found[30]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_that_moves_pixels_is_told(orientation, make, tmp_path, caplog):
    (record,) = make([box()])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(record["file_name"]).save(record["file_name"], exif=exif)
    if orientation >= 5:
        record.update(width=30, height=40)
    found = told(config(), caplog)
    assert ["mirrors or turns by 180" in x for x in found[30]] == [True] * (
        orientation in (2, 3, 4)
    )
    assert ["rotated by EXIF" in x for x in found[20]] == [True] * (orientation >= 5)


def test_what_is_learnt_of_files_is_kept(make, tmp_path):
    records = make([box()], [box()], [box()])
    (tmp_path / "1.png").write_bytes(b"")
    (tmp_path / "2.png").unlink()
    seen = check_image_files(records, "here", Findings())
    assert seen.bytes == {str(tmp_path / "0.png"): (tmp_path / "0.png").stat().st_size}
    assert seen.lost == {str(tmp_path / "1.png"), str(tmp_path / "2.png")}


def test_files_may_be_left_alone(make, caplog):
    make([box()])[0]["file_name"] = "gone.png"
    assert told(config(CHECK_FILES=False), caplog)[40] == []
    cfg = config()
    del cfg.DATASETS["CHECK_FILES"]
    assert "gone.png" in error_of(cfg)


# ---- files of bands


def bands_config(channels=5):
    cfg = config()
    cfg.INPUT.FORMAT = "bands"
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = [1.0] * channels
    return cfg


@pytest.fixture
def arrays(make, tmp_path):
    """Records of three npy files of 5 bands."""
    records = make([box()], [box()], [box()])
    for index, record in enumerate(records):
        record["file_name"] = str(tmp_path / f"{index}.npy")
        np.save(record["file_name"], np.zeros((30, 40, 5), np.uint16))
    return records


def test_files_of_bands_that_are_right(arrays, caplog):
    assert told(bands_config(), caplog)[40] == []
    assert "image files that cannot be read (3)" in error_of(config())  # as colours they are not


def test_files_of_bands_that_are_wrong(arrays):
    missing, cut, _ = (record["file_name"] for record in arrays)
    with Path(cut).open("r+b") as file:
        file.truncate(500)
    arrays[0]["file_name"] = missing + ".gone"
    arrays[2]["height"] = 31
    message = error_of(bands_config())
    assert "image files that do not exist (1)" in message and "0.npy.gone" in message
    assert "image files that cannot be read (1)" in message and message.count("1.npy") == 1
    assert "cut off" in message
    assert "2.npy: 40x31 in the data, 40x30 in the file" in message


def test_another_number_of_bands(arrays):
    message = error_of(bands_config(3))
    assert "image files whose number of bands differs from the model's (3)" in message
    assert "0.npy: 5 in the file, 3 of the model" in message
    assert "Give MODEL.PIXEL_MEAN and MODEL.PIXEL_STD one number per band" in message


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_pictures_as_bands(suffix, make, tmp_path, caplog):
    make([box()], suffix=suffix)
    assert told(bands_config(3), caplog)[40] == []
    assert "3 in the file, 1 of the model" in error_of(bands_config(1))
    path = tmp_path / f"0.{suffix}"
    path.write_bytes(path.read_bytes()[:-40])
    assert "image files that cannot be read (1)" in error_of(bands_config(3))


def test_the_decoder_is_checked_too(make):
    make([box()])
    cfg = bands_config()
    cfg.INPUT.DECODER = "simplejpeg"
    pytest.importorskip("simplejpeg")
    with pytest.raises(ValueError, match=r"DECODER is simplejpeg, but INPUT\.FORMAT bands"):
        error_of(cfg)
