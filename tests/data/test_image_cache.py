"""A few decoded images are kept, the latest."""

import pickle

import numpy as np
import pytest

from retina_plugin.data.image_cache import LatestImages


class Decoder:
    """Counts what it decodes."""

    def __init__(self):
        self.decoded = []

    def __call__(self, path, image_format):
        self.decoded.append(path + image_format)
        return np.full((2, 2, 3), ord(path), np.uint8)


def test_decodes_what_is_not_among_the_latest():
    decoder = Decoder()
    images = LatestImages(decoder, count=2)
    for path in "aabab":
        assert (images(path, "L") == ord(path)).all()
    assert decoder.decoded == ["aL", "bL"]
    images("c", "L")  # instead of a, which was asked for before b
    images("b", "L")
    assert decoder.decoded == ["aL", "bL", "cL"]
    images("a", "L")
    images("a", "RGB")
    assert decoder.decoded == ["aL", "bL", "cL", "aL", "aRGB"]


def test_never_holds_more_not_even_while_it_decodes():
    images = LatestImages(lambda path, _: len(images._images), count=1)
    assert [images(path, "L") for path in "abc"] == [0, 0, 0]


def test_goes_to_worker_processes():
    images = pickle.loads(pickle.dumps(LatestImages(Decoder(), count=3)))
    assert images("a", "L").shape == (2, 2, 3)


def test_at_least_one():
    with pytest.raises(ValueError, match=r"INPUT.TILES.CACHE must be .* got 0"):
        LatestImages(Decoder(), count=0)
