"""Cache the most recently decoded images for the tiles that follow."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from retina_plugin.data.decoders import Decoder


class LatestImages:
    """A decoder that caches the most recently decoded images.

    PNG and JPEG files can only be decoded as a whole, so that every tile costs the whole image
    (seconds for 10,000 x 10,000 pixels). Consecutive tiles of an image, as
    :class:`NearbyTilesSampler` orders them, cost it once.

    Each worker process of a data loader keeps its own cache of ``height * width * channels`` bytes
    per 8-bit image: 300 MB for the above.

    Args:
        decoder: the decoder of the files.
        count: number of images to keep, at least 1.

    Raises:
        ValueError: if ``count`` is less than 1.
    """

    def __init__(self, decoder: Decoder, *, count: int) -> None:
        if count < 1:
            raise ValueError(f"INPUT.TILES.CACHE must be 1 or more decoded images, got {count}")
        self.decoder = decoder
        self.count = count
        self._images: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()

    def __call__(self, path: str, image_format: str) -> np.ndarray:
        """Decode or return the cached array, which must not be modified."""
        key = (path, image_format)
        if key not in self._images:
            while len(self._images) >= self.count:  # before decoding, so that memory stays bounded
                self._images.popitem(last=False)
            self._images[key] = self.decoder(path, image_format)
        self._images.move_to_end(key)
        return self._images[key]
