"""Images of any number of bands: whatever wrote them, the reader gives the values of the file."""

import builtins
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from retina_plugin.data.band_files import BandReader, WrongBandsError

tifffile = pytest.importorskip("tifffile")

SIZE = (11, 17)  # height, width


def values(bands, dtype=np.uint16):
    """``(H, W, C)`` in which hardly a value occurs twice."""
    rng = np.random.default_rng(bands)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 300, (*SIZE, bands)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, (*SIZE, bands), dtype, endpoint=True)


def read(path, channels):
    return BandReader(channels=channels)(str(path), "bands")


def same(path, expected):
    image = read(path, expected.shape[2])
    assert image.dtype == np.float32 and image.flags.c_contiguous and image.flags.writeable
    assert np.array_equal(image, expected.astype(np.float32))
    assert BandReader(channels=expected.shape[2]).size_of(str(path)) == SIZE[::-1]


def png16(path, image, colour_type):
    """A PNG of 16 bits a channel, which PIL cannot write in colour."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)

    def chunk(name, content):
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 16, colour_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


# ---- npy


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "float32", "int16", "float64"])
def test_npy_of_any_numbers(tmp_path, dtype):
    image = values(5, np.dtype(dtype).newbyteorder("=")).astype(dtype)
    np.save(tmp_path / "a.npy", image)
    same(tmp_path / "a.npy", image)


@pytest.mark.parametrize(
    ("shape", "channels", "axes"),
    [
        ((11, 17), 1, None),
        ((11, 17, 5), 5, (0, 1, 2)),
        ((5, 11, 17), 5, (1, 2, 0)),
        ((11, 17, 11), 11, (0, 1, 2)),  # both ends fit: the last
        ((64, 64, 200), 200, (0, 1, 2)),  # more bands than pixels a side
        ((1, 11, 17), 1, (1, 2, 0)),
        ((3, 11, 5), 3, (1, 2, 0)),
    ],
)
def test_the_bands_axis_of_npy_is_the_one_of_their_number(tmp_path, shape, channels, axes):
    array = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    np.save(tmp_path / "a.npy", array)
    expected = array[..., None] if axes is None else array.transpose(axes)
    assert np.array_equal(read(tmp_path / "a.npy", channels), expected)
    height, width, _ = expected.shape
    assert BandReader(channels=channels).size_of(str(tmp_path / "a.npy")) == (width, height)


def test_npy_in_columns_and_with_bytes_behind(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(values(4)))
    same(tmp_path / "a.npy", values(4))
    with (tmp_path / "a.npy").open("ab") as file:
        file.write(b"more")
    same(tmp_path / "a.npy", values(4))


class Hostile:
    ran = False

    def __reduce__(self):
        return setattr, (Hostile, "ran", True)


def test_npy_runs_nothing(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[Hostile()]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy: .*numbers were expected.*object"):
        read(tmp_path / "a.npy", 1)
    assert not Hostile.ran


def header_alone(shape, dtype="<f4"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header_alone((10**6, 10**6, 5)), "cut off: 0 of the 20000000000000 bytes"),
        (header_alone((11, 17)) + b"abc", "cut off: 3 of the 748 bytes"),
        (header_alone((0, 17)), "got an array of \\(0, 17\\)"),
        (header_alone((7,)), "got an array of \\(7,\\)"),
        (header_alone((1, 2, 3, 4)) + bytes(96), "got an array of \\(1, 2, 3, 4\\)"),
        (header_alone((1, 2), "<c8") + bytes(16), "array of complex64"),
        (header_alone((1, 2), "<U1") + bytes(8), "numbers were expected"),
        (header_alone("__import__('os')"), "cannot be read"),
        (b"\x93NUMPY\x09\x00" + bytes(99), "cannot be read|version"),
        (b"\x93NUMPY\x01", "cannot be read"),
        (b"", "cannot be read"),
        (b"<html>404</html>", "cannot be read"),
        (b"PK\x03\x04" + bytes(40), "archive: save each image with numpy.save"),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    path = tmp_path / "broken.npy"
    path.write_bytes(content)
    for function in (BandReader(channels=1), BandReader(channels=1).size_of):
        with pytest.raises(ValueError, match=rf"broken\.npy: .*({message})"):
            function(str(path))


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.npy"):
        read(tmp_path / "gone.npy", 1)


def test_values_that_are_not_finite(tmp_path):
    image = values(2, np.float32)
    image[3, 4, 1] = np.nan
    np.save(tmp_path / "a.npy", image)
    with pytest.raises(ValueError, match=r"a\.npy: has values that are not finite"):
        read(tmp_path / "a.npy", 2)


# ---- PNG and the rest of PIL


def test_grey_png_of_16_bits(tmp_path):
    Image.fromarray(values(1)[..., 0]).save(tmp_path / "a.png")
    same(tmp_path / "a.png", values(1))


@pytest.mark.parametrize(("bands", "colour_type"), [(1, 0), (2, 4), (3, 2), (4, 6)])
def test_png_of_16_bits_keeps_them(tmp_path, bands, colour_type):
    png16(tmp_path / "a.png", values(bands), colour_type)
    same(tmp_path / "a.png", values(bands))


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "bmp"])
def test_colours_of_8_bits_in_their_order(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(values(3, np.uint8)).save(tmp_path / f"a.{suffix}", **options)
    same(tmp_path / f"a.{suffix}", values(3, np.uint8))


@pytest.mark.parametrize("mode", ["P", "1"])
def test_numbers_of_colours_are_no_values(tmp_path, mode):
    Image.fromarray(values(3, np.uint8)).convert(mode).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=rf"a\.png: .*PIL's mode {mode}.*save it as grey, RGB"):
        read(tmp_path / "a.png", 1)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_turned_files(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values(1, np.uint8)[..., 0]).save(tmp_path / f"a.{suffix}", exif=exif)
    for function in (BandReader(channels=1), BandReader(channels=1).size_of):
        with pytest.raises(ValueError, match=r"Orientation is 6: save it upright"):
            function(str(tmp_path / f"a.{suffix}"))


# ---- TIFF

TIFFS = {
    "interleaved": (5, np.uint16, {"photometric": "minisblack", "planarconfig": "contig"}),
    "planar": (5, np.uint16, {"photometric": "minisblack", "planarconfig": "separate"}),
    "interleaved bytes": (5, np.uint8, {"photometric": "rgb", "planarconfig": "contig"}),
    "a page a band": (5, np.uint16, {"photometric": "minisblack"}),
    "floats, a page a band": (5, np.float32, {"photometric": "minisblack"}),
    "one band": (1, np.uint16, {"photometric": "minisblack"}),
    "0 is white": (1, np.uint8, {"photometric": "miniswhite"}),
    "signed": (1, np.int8, {"photometric": "minisblack"}),
    "colours of 16 bits": (3, np.uint16, {"photometric": "rgb", "planarconfig": "contig"}),
    "colours": (3, np.uint8, {"photometric": "rgb", "planarconfig": "contig"}),
    "big-endian": (5, np.uint16, {"byteorder": ">", "planarconfig": "contig"}),
    "big-endian, one band": (1, np.uint16, {"byteorder": ">", "photometric": "minisblack"}),
    "big": (4, np.uint16, {"bigtiff": True, "planarconfig": "contig"}),
    "deflated": (5, np.uint16, {"planarconfig": "contig", "compression": "zlib"}),
    "tiles": (5, np.uint16, {"planarconfig": "contig", "tile": (16, 16)}),
}


def write_tiff(path, image, *, planarconfig=None, **options):
    options.setdefault("photometric", "minisblack")
    by_page = planarconfig != "contig"
    array = image.transpose(2, 0, 1) if by_page else image
    array = array[0] if image.shape[2] == 1 else array
    tifffile.imwrite(path, array, planarconfig=planarconfig, metadata=None, **options)


@pytest.mark.parametrize("kind", TIFFS)
def test_tiff(tmp_path, kind):
    bands, dtype, options = TIFFS[kind]
    write_tiff(tmp_path / "a.tif", values(bands, dtype), **options)
    same(tmp_path / "a.tif", values(bands, dtype))


def test_tiff_of_pil_needs_no_tifffile(tmp_path, monkeypatch):
    pages = [Image.fromarray(x) for x in values(4).transpose(2, 0, 1)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    without_tifffile(monkeypatch)
    same(tmp_path / "a.tif", values(4))


def test_overviews_are_left_out(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        options = {"photometric": "minisblack", "metadata": None}
        file.write(values(5), planarconfig="contig", **options)
        file.write(values(5)[::2, ::2], planarconfig="contig", subfiletype=1, **options)
    same(tmp_path / "a.tif", values(5))


def test_pages_of_several_sizes(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for step in (1, 2):
            file.write(values(1)[::step, ::step, 0], photometric="minisblack", metadata=None)
    with pytest.raises(ValueError, match=r"a\.tif: .*pages of one size.*\[\(6, 9\), \(11, 17\)\]"):
        read(tmp_path / "a.tif", 2)


@pytest.mark.filterwarnings("ignore::UserWarning")  # PIL's, of what is broken
@pytest.mark.parametrize("kind", ["interleaved", "planar", "one band", "a page a band", "deflated"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_tiff_cut_off(tmp_path, kind, share):
    bands, dtype, options = TIFFS[kind]
    path = tmp_path / "a.tif"
    write_tiff(path, values(bands, dtype), **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"a\.tif: .*(cannot be read|bands, but)"):
        read(path, bands)


def test_tiff_of_more_pixels_than_memory(tmp_path, monkeypatch):
    write_tiff(tmp_path / "a.tif", values(5), planarconfig="contig")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(ValueError, match=r"a\.tif: .*187 pixels"):
        read(tmp_path / "a.tif", 5)


def without_tifffile(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **options):
        if name == "tifffile":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    write_tiff(tmp_path / "a.tif", values(5), planarconfig="contig")
    without_tifffile(monkeypatch)
    with pytest.raises(ImportError, match=r'pip install "retina-plugin\[bands\]"'):
        read(tmp_path / "a.tif", 5)


# ---- another number of bands


def test_another_number_of_bands_says_what_to_do(tmp_path):
    np.save(tmp_path / "a.npy", values(5))
    png16(tmp_path / "a.png", values(3), 2)
    write_tiff(tmp_path / "a.tif", values(4), planarconfig="contig")
    for name, bands in (("a.npy", 5), ("a.png", 3), ("a.tif", 4)):
        for function in (BandReader(channels=2), BandReader(channels=2).size_of):
            with pytest.raises(WrongBandsError) as error:
                function(str(tmp_path / name))
            assert f"{name}: {bands} bands, but MODEL.PIXEL_MEAN has 2 numbers: give" in str(
                error.value
            )


def test_the_name_says_nothing(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, values(5))
    (tmp_path / "a.tif").write_bytes(buffer.getvalue())
    same(tmp_path / "a.tif", values(5))
