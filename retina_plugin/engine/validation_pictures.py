"""Pictures of the test sets for TensorBoard, at every evaluation the same images."""

from __future__ import annotations

from typing import Any

from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage

from retina_plugin.drawing import training_picture

COUNT = 4


class ValidationPictures(DatasetEvaluator):
    """Ground truth beside the best detections of the first images that have objects.

    They go to the training's event storage, as ``VIS_PERIOD``'s do: TensorBoard shows how the same
    images are seen better and better. No results.

    Args:
        name: of the test set.
        input_format: channel order of the images.
        count: images of this worker.
    """

    def __init__(self, name: str, input_format: str, *, count: int = COUNT) -> None:
        self._name = name
        self._input_format = input_format
        self._count = count
        self.reset()

    def reset(self) -> None:
        """Before the first image."""
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
        """Nothing."""
        return {}


def _in_pixels_of(given: dict[str, Any], found: Instances) -> Instances:
    """Detections of the original image, in the pixels of the image that the network saw."""
    size, seen = found.image_size, tuple(given["image"].shape[-2:])
    boxes = found.pred_boxes.clone()
    boxes.scale(seen[1] / size[1], seen[0] / size[0])
    return Instances(seen, pred_boxes=boxes, scores=found.scores)
