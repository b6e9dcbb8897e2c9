"""``Predictor``: images in, boxes with class names and scores out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from detectron2.config import CfgNode
from PIL import Image

from retina_plugin.inference.equal_shapes import detect_by_shape
from retina_plugin.inference.prediction.detections import Detections
from retina_plugin.inference.prediction.images import ImageError, ImageLike, read_pixels
from retina_plugin.inference.prediction.loading import load_detector
from retina_plugin.inference.prediction.pictures import draw
from retina_plugin.inference.prediction.read_ahead import in_chunks, read_ahead
from retina_plugin.runs.run import Run


class Prepared(NamedTuple):
    """An image ready for the network.

    Attributes:
        given: Detectron2's input.
        pixels: ``(H, W, C)`` in ``INPUT.FORMAT``, as it was read.
    """

    given: dict[str, Any]
    pixels: np.ndarray


class Predictor:
    """A trained detector, for images that are in no data set.

    ::

        predictor = Predictor("output/config.yaml", "output/model_final.pth", score_thresh=0.4)
        found = predictor("image.jpg")
        for box, name, score in zip(found.boxes, found.names, found.scores): ...
        predictor.draw("image.jpg", found).save("found.jpg")

    An image is treated as in an evaluation: the config's ``INPUT.FORMAT`` (bands as well), its test
    resize or ``INPUT.AUGMENTATIONS_TEST``, ``TEST.OPTIMIZE``, ``INPUT.TILES`` and, where
    ``TEST.AUG.ENABLED``, test-time augmentation. Only images of equal size, after the resize, go
    through the network together: what is found does not depend on the batch.

    Args:
        config: a yaml's path, such as the ``config.yaml`` that a training leaves in its
            ``OUTPUT_DIR``; a LazyConfig's, which runs as Python; a name that ``retina configs``
            lists; a Detectron2 config; or a run.
        weights: a file; None for the config's ``MODEL.WEIGHTS``.
        overrides: of the config, ``KEY=VALUE`` or ``KEY, VALUE``.
        device: such as ``cuda:1``; by default ``MODEL.DEVICE``. Without CUDA the CPU is used.
        score_thresh: the least score; by default ``MODEL.RETINANET.SCORE_THRESH_TEST``.
        class_names: in the order of the classes. By default those of ``DATASETS``, where its files
            are at hand, else ``class 0`` and so on.
        batch: images that go through the network together, at most.

    Raises:
        ConfigFileError, UnknownNameError: a mistake in the config.
        ValueError: the weights are missing or not of this detector, or ``class_names`` are not as
            many as its classes; or a number is not what it may be.
    """

    def __init__(
        self,
        config: str | Path | CfgNode | Run,
        weights: str | Path | None = None,
        *,
        overrides: Sequence[str] = (),
        device: str | None = None,
        score_thresh: float | None = None,
        class_names: Sequence[str] | None = None,
        batch: int = 1,
    ) -> None:
        if score_thresh is not None and not 0 <= score_thresh <= 1:
            raise ValueError(f"score_thresh must be in [0, 1], got {score_thresh}")
        if batch < 1:
            raise ValueError(f"batch counts images, 1 or more, got {batch}")
        loaded = load_detector(
            config,
            weights,
            overrides=overrides,
            device=device,
            score_thresh=score_thresh,
            class_names=class_names,
        )
        self.model = loaded.model
        self.mapper = loaded.mapper
        self.classes = loaded.classes
        self.input_format = loaded.input_format
        self.score_thresh = score_thresh or 0.0
        self.batch = batch

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of all K classes."""
        return self.classes.names

    @overload
    def __call__(self, images: ImageLike) -> Detections: ...

    @overload
    def __call__(self, images: list[ImageLike] | tuple[ImageLike, ...]) -> list[Detections]: ...

    def __call__(self, images: Any) -> Any:
        """Detections of an image; of a list of images a list.

        Args:
            images: each a path; a PIL image; or a numpy array ``(H, W, 3)`` uint8 **RGB** (not
                OpenCV's BGR), ``(H, W)`` uint8 grey, or with ``INPUT.FORMAT: bands`` ``(H, W, C)``.

        Raises:
            ImageError: an image cannot be read, or is none.
        """
        if not isinstance(images, list | tuple):
            return self([images])[0]
        found: list[Detections] = []
        for result in self.stream(images):
            if isinstance(result, ImageError):
                raise result
            found.append(result)
        return found

    def stream(self, images: Iterable[ImageLike]) -> Iterator[Detections | ImageError]:
        """Detections of one image after the other, the next ones being read meanwhile.

        In place of an image that cannot be read comes the error; the others are found all the same.
        """

        def prepare(image: ImageLike) -> Prepared | ImageError:
            try:
                return self.prepare(image)
            except ImageError as error:
                return error

        for chunk in in_chunks(read_ahead(images, prepare, ahead=2 * self.batch), self.batch):
            good = [x for x in chunk if not isinstance(x, ImageError)]
            found = iter(self.detect(good))
            for result in chunk:
                yield result if isinstance(result, ImageError) else next(found)

    def prepare(self, image: ImageLike) -> Prepared:
        """Read and resize an image.

        Raises:
            ImageError: it cannot be read, or is none.
        """
        pixels = read_pixels(image, self.mapper.decoder, self.input_format)
        height, width = pixels.shape[:2]
        tensor, _ = self.mapper.augment(pixels)
        return Prepared({"image": tensor, "height": height, "width": width}, pixels)

    def draw(self, image: ImageLike, found: Detections) -> Image.Image:
        """The image with its detections; a small one is enlarged.

        Raises:
            ImageError: it cannot be read, or is none.
        """
        pixels = read_pixels(image, self.mapper.decoder, self.input_format)
        return Image.fromarray(draw(pixels, self.input_format, found))

    @torch.inference_mode()
    def detect(self, images: Sequence[Prepared]) -> list[Detections]:
        """Detections of images that :meth:`prepare` made ready."""
        outputs = detect_by_shape(self.model, [x.given for x in images], batch=self.batch)
        return [
            Detections.of(output["instances"], self.class_names, self.score_thresh)
            for output in outputs
        ]
