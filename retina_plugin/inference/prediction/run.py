"""Predict many files: those that cannot be read are put down, the rest goes on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from retina_plugin.inference.prediction.image_ids import CocoIds
from retina_plugin.inference.prediction.images import ImageError, ImageLike
from retina_plugin.inference.prediction.pictures import draw
from retina_plugin.inference.prediction.predictor import Predictor, Prepared
from retina_plugin.inference.prediction.read_ahead import in_chunks, read_ahead
from retina_plugin.inference.prediction.results import Frame, Output, Result
from retina_plugin.inference.prediction.sources import Source
from retina_plugin.inference.prediction.video import read_frames, require_av


class Item(NamedTuple):
    """An image or a frame on its way."""

    source: Source
    image_id: Any = None
    frame: Frame | None = None
    prepared: Prepared | None = None
    result: Result | None = None
    error: str = ""

    @property
    def image(self) -> ImageLike:
        """What the predictor reads."""
        return self.source.path if self.frame is None else self.frame.pixels


@dataclass
class Summary:
    """What was done.

    Attributes:
        images, frames: that were looked at.
        detections: by class name.
        failed: path -> what is wrong, of files that could not be read, or not to their end.
        seconds: for all of it.
    """

    images: int = 0
    frames: int = 0
    detections: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def predict_sources(
    predictor: Predictor,
    sources: Sequence[Source],
    outputs: Sequence[Output],
    *,
    ids: CocoIds | None = None,
    pictures: bool = False,
    on_image: Callable[[], None] = lambda: None,
    on_failure: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Find boxes in every file and hand them to the outputs, which are not closed.

    Reading and drawing are done in threads, while the network looks at other images.

    Args:
        predictor: what finds them; its ``batch`` are images that go through the network together.
        sources: see ``find_sources``.
        outputs: get the results in the order of the sources.
        ids: of the images; by default counted from 1.
        pictures: draw the detections, for the outputs that show them.
        on_image: called after each image or frame.
        on_failure: called with what is wrong with a file.

    Raises:
        ImportError: a package that a file needs is not installed.
    """
    ids = ids or CocoIds()
    summary, start = Summary(), time.perf_counter()
    for source in sources:
        if source.is_video:
            require_av(source.path)
    for is_video, group in groupby(sources, key=lambda source: source.is_video):
        files = list(group)
        items = _frames(files, ids) if is_video else _images(files, ids)
        for item in _finished(predictor, items, pictures=pictures):
            if item.result is None:
                summary.failed[str(item.source.path)] = item.error
                on_failure(item.error)
                continue
            for output in outputs:
                output.add(item.result)
            summary.images += item.frame is None
            summary.frames += item.frame is not None
            summary.detections.update(item.result.found.names)
            on_image()
    summary.seconds = time.perf_counter() - start
    return summary


def _images(sources: Iterable[Source], ids: CocoIds) -> Iterator[Item]:
    for source in sources:
        try:
            yield Item(source, image_id=ids.id_of(source.path))
        except KeyError:
            yield Item(source, error=f"{source.path}: is not among the images of {ids.path}")


def _frames(sources: Iterable[Source], ids: CocoIds) -> Iterator[Item]:
    for source in sources:
        try:
            for frame in read_frames(source.path):
                yield Item(source, image_id=ids.next_id(), frame=frame)
        except ImageError as error:
            yield Item(source, error=str(error))


def _finished(predictor: Predictor, items: Iterable[Item], *, pictures: bool) -> Iterator[Item]:
    """The items with their results, or what is wrong with them, in order."""

    def prepare(item: Item) -> Item:
        if item.error:
            return item
        try:
            return item._replace(prepared=predictor.prepare(item.image))
        except ImageError as error:
            return item._replace(error=str(error))

    def finish(item: Item) -> Item:
        if not pictures or item.result is None:
            return item._replace(prepared=None)
        pixels, found = item.prepared.pixels, item.result.found
        drawn = draw(pixels, predictor.input_format, found, enlarge=item.frame is None)
        return item._replace(prepared=None, result=item.result._replace(picture=drawn))

    ahead = 2 * predictor.batch
    read = read_ahead(items, prepare, ahead=ahead)
    return read_ahead(_detected(predictor, read), finish, ahead=ahead)


def _detected(predictor: Predictor, items: Iterable[Item]) -> Iterator[Item]:
    for chunk in in_chunks(items, predictor.batch):
        good = [item for item in chunk if not item.error]
        found = iter(predictor.detect([item.prepared for item in good]))
        for item in chunk:
            if item.error:
                yield item
                continue
            frame = item.frame._replace(pixels=None) if item.frame else None
            result = Result(item.source, item.image_id, next(found), frame)
            yield item._replace(frame=frame, result=result)
