"""Every decoder gives the pixels of Detectron2's ``read_image``, whatever the file."""

import io
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from retina_plugin.data import decoders
from retina_plugin.data.decoders import find_decoder, read_with_simplejpeg
from retina_plugin.data.package_files import register_package_paths
from retina_plugin.registry import UnknownNameError

FORMATS = ("BGR", "RGB", "L", "YUV-BT.601", "RGBA")
ORIENTATION = 0x0112


def picture(mode="RGB", size=(61, 43)):
    """A gradient under noise: every pixel differs, as JPEG's rounding needs."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: size[1], : size[0]]
    ramps = np.stack([rows, columns, rows + columns], axis=2) * 2
    noisy = np.clip(ramps + rng.normal(0, 25, ramps.shape), 0, 255)
    return Image.fromarray(noisy.astype(np.uint8)).convert(mode)


def turned(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return {"exif": exif.tobytes()}


JPEGS = {
    "usual": ("RGB", {"quality": 90}),
    "coarse": ("RGB", {"quality": 20}),
    "best": ("RGB", {"quality": 100}),
    "all colours": ("RGB", {"subsampling": 0}),
    "half the columns": ("RGB", {"subsampling": 1}),
    "progressive": ("RGB", {"progressive": True}),
    "RGB inside": ("RGB", {"keep_rgb": True}),
    "restart markers": ("RGB", {"restart_marker_rows": 1}),
    "grey": ("L", {}),
    "upright": ("RGB", turned(1)),
    "grey upright": ("L", turned(1)),
}
OTHERS = {
    "CMYK.jpg": ("CMYK", {}),
    **{f"turned {turn}.jpg": ("RGB", turned(turn)) for turn in range(2, 9)},
    "turned grey.jpg": ("L", turned(6)),
    "invalid turn.jpg": ("RGB", turned(9)),
    "broken EXIF.jpg": ("RGB", {"exif": b"Exif\0\0MM\0*\xff\xff\xff\xffgarbage"}),
    "RGB.png": ("RGB", {}),
    "grey.png": ("L", {}),
    "transparent.png": ("RGBA", {}),
    "grey and alpha.png": ("LA", {}),
    "palette.png": ("P", {}),
    "one bit.png": ("1", {}),
    "sixteen bits.png": ("I;16", {}),
    "turned.png": ("RGB", turned(6)),
    "a.bmp": ("RGB", {}),
    "a.gif": ("P", {}),
    "a.tif": ("RGB", {}),
    "a.webp": ("RGB", {"lossless": True}),
}


def saved(folder, name, mode, **options):
    """The path of a file of this name and kind."""
    image = picture("L" if mode == "I;16" else mode)
    if mode == "I;16":  # not what ``convert`` makes
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 200)
    image.save(folder / name, **options)
    return str(folder / name)


@pytest.fixture
def simplejpeg():
    return pytest.importorskip("simplejpeg")


@pytest.fixture
def no_pil_pixels(monkeypatch):
    """PIL may look at the header, but not decode."""

    def refuse(*_):
        raise AssertionError("PIL decoded")

    monkeypatch.setattr(decoders, "read_image", refuse)


def same(path, image_format):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's on broken EXIF
        ours, stock = (read(path, image_format) for read in (read_with_simplejpeg, read_image))
    assert ours.dtype == stock.dtype
    assert ours.shape == stock.shape
    assert np.array_equal(ours, stock)


def test_pil_is_detectron2s():
    assert find_decoder("PIL") is read_image


def test_unknown_decoders_are_refused():
    with pytest.raises(UnknownNameError) as error:
        find_decoder("simple_jpeg")
    expected = "INPUT.DECODER: 'simple_jpeg' is unknown. Did you mean simplejpeg? Valid: PIL, "
    assert str(error.value) == expected + "simplejpeg."


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(decoders.importlib.util, "find_spec", lambda name: None)
    assert find_decoder("PIL") is read_image
    with pytest.raises(ImportError, match=r'pip install "retina-plugin\[jpeg\]"'):
        find_decoder("simplejpeg")


def test_users_can_add_one(monkeypatch):
    monkeypatch.setitem(decoders.DECODERS, "mine", read_image)
    assert find_decoder("mine") is read_image


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("image_format", FORMATS)
def test_jpeg_has_equal_pixels(tmp_path, simplejpeg, kind, image_format):
    mode, options = JPEGS[kind]
    same(saved(tmp_path, "image.jpg", mode, **options), image_format)


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_pil_is_not_needed_for_jpeg(tmp_path, simplejpeg, no_pil_pixels, kind, image_format):
    mode, options = JPEGS[kind]
    image = read_with_simplejpeg(saved(tmp_path, "image.jpg", mode, **options), image_format)
    assert image.shape == (43, 61, 3)
    assert image.flags.c_contiguous
    assert image.flags.writeable


def test_grey_jpeg_is_read_as_grey(tmp_path, simplejpeg, no_pil_pixels):
    image = read_with_simplejpeg(saved(tmp_path, "image.jpg", "L"), "L")
    assert image.shape == (43, 61, 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 3)])
def test_small_images(tmp_path, simplejpeg, size):
    picture(size=size).save(tmp_path / "image.jpg")
    same(str(tmp_path / "image.jpg"), "BGR")


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L"])
def test_all_else_is_read_as_pil_reads_it(tmp_path, simplejpeg, name, image_format):
    mode, options = OTHERS[name]
    same(saved(tmp_path, name, mode, **options), image_format)


def test_a_jpeg_with_further_pictures(tmp_path, simplejpeg, no_pil_pixels):
    """As some cameras write them: the first is meant."""
    others = [picture().rotate(90)]
    picture().save(tmp_path / "image.jpg", "MPO", save_all=True, append_images=others)
    ours = read_with_simplejpeg(str(tmp_path / "image.jpg"), "RGB")
    assert np.array_equal(ours, read_image(str(tmp_path / "image.jpg"), "RGB"))


def test_the_name_says_nothing(tmp_path, simplejpeg):
    picture().save(tmp_path / "png.jpg", "PNG")
    same(str(tmp_path / "png.jpg"), "BGR")


def damaged(how):
    buffer = io.BytesIO()
    picture(size=(200, 150)).save(buffer, "JPEG", quality=90)
    content = buffer.getvalue()
    middle = len(content) // 2
    return {
        "garbage inside": content[:middle] + bytes(range(40)) + content[middle + 40 :],
        "stray marker": content[:middle] + b"\xff\xd3" + content[middle:],
        "more at the end": content + b"more",
        "cut off": content[:middle],
        "header alone": content[:300],
        "empty": b"",
        "text": b"<html>404</html>",
    }[how]


@pytest.mark.parametrize("how", ["garbage inside", "stray marker", "more at the end"])
def test_damage_that_pil_forgives(tmp_path, simplejpeg, how):
    (tmp_path / "image.jpg").write_bytes(damaged(how))
    same(str(tmp_path / "image.jpg"), "BGR")


@pytest.mark.parametrize("how", ["cut off", "header alone", "empty", "text"])
def test_damage_that_pil_refuses(tmp_path, simplejpeg, how):
    path = tmp_path / "image.jpg"
    path.write_bytes(damaged(how))
    errors = []
    for read in (read_with_simplejpeg, read_image):
        with pytest.raises(OSError) as error:
            read(str(path), "BGR")
        errors.append((error.type, str(error.value).split(" at 0x")[0]))
    assert errors[0] == errors[1]


def test_missing_files(tmp_path, simplejpeg):
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        read_with_simplejpeg(str(tmp_path / "gone.jpg"), "BGR")


def test_images_that_are_too_large(tmp_path, simplejpeg, monkeypatch):
    """PIL's guard against files that would fill the memory stays."""
    path = saved(tmp_path, "image.jpg", "RGB")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        read_with_simplejpeg(path, "BGR")


@pytest.mark.skipif(find_spec("sklearn") is None, reason="its pictures are needed")
def test_paths_of_the_path_manager(simplejpeg):
    register_package_paths()
    same("package://sklearn/datasets/images/china.jpg", "BGR")
