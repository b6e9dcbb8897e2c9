"""Pictures of the same test images at every evaluation, for TensorBoard."""

from __future__ import annotations

from typing import Any

from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage

from retina_plugin.drawing import training_picture

COUNT = 4


class ValidationPictures(DatasetEvaluator):
    """Draw ground truth beside the best detections for the first images with objects.

    The pictures go to the event storage, like those of ``VIS_PERIOD``: TensorBoard shows the
    progress on the same images. Returns no results.

    Args:
        name: name of the test set.
        input_format: channel order of the images.
        count: number of images on this worker.
    """

    def __init__(self, name: str, input_format: str, *, count: int = COUNT) -> None:
        self._name = name
        self._input_format = input_format
        self._count = count
        self.reset()

    def reset(self) -> None:
        """Reset before the first image."""
        self._drawn = 0

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """See ``DatasetEvaluator``."""
        for given, output in zip(inputs, outputs, strict=True):
            if self._drawn == self._count or not len(given.get("instances", ())):
                continue
            found = _in_pixels_of(given, output["instances"])
            picture = training_picture(given, found, self._input_format)
            number = self._drawn
            get_event_storage().put_image(f"{self._name}/{number}", picture.numpy())
            self._drawn += 1

    def evaluate(self) -> dict[str, Any]:
        """Return no results."""
        return {}


def _in_pixels_of(given: dict[str, Any], found: Instances) -> Instances:
    """Rescale detections from the original image to the network's input image."""
    size, seen = found.image_size, tuple(given["image"].shape[-2:])
    boxes = found.pred_boxes.clone()
    boxes.scale(seen[1] / size[1], seen[0] / size[0])
    return Instances(seen, pred_boxes=boxes, scores=found.scores)
