"""The images decoded last, for the tiles that come next."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from retina_plugin.data.decoders import Decoder


class LatestImages:
    """A decoder that remembers the images it decoded last.

    PNG and JPEG files are decoded from their beginning, so every tile costs the whole image: of
    10,000 x 10,000 pixels seconds. Where tiles of an image follow each other, as
    :class:`NearbyTilesSampler` has them, they cost it once.

    The images are kept by each process of a data loader, at ``height * width * channels`` bytes
    of 8 bits: 300 MB for the above.

    Args:
        decoder: reads the files.
        count: how many images to keep, 1 or more.

    Raises:
        ValueError: ``count`` is less.
    """

    def __init__(self, decoder: Decoder, *, count: int) -> None:
        if count < 1:
            raise ValueError(f"INPUT.TILES.CACHE counts decoded images, 1 or more, got {count}")
        self.decoder = decoder
        self.count = count
        self._images: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()

    def __call__(self, path: str, image_format: str) -> np.ndarray:
        """As the decoder; the same array again, which is not to be changed."""
        key = (path, image_format)
        if key not in self._images:
            while len(self._images) >= self.count:  # first, so that there never is one more
                self._images.popitem(last=False)
            self._images[key] = self.decoder(path, image_format)
        self._images.move_to_end(key)
        return self._images[key]
