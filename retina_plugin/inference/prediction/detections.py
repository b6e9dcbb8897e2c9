"""What was found in one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.structures import Instances


@dataclass(frozen=True, eq=False)
class Detections:
    """M detections in one image, the surest first.

    Attributes:
        boxes: ``(M, 4)`` float32 XYXY, in the pixels of the image as it is shown: after any EXIF
            rotation, before any resize.
        scores: ``(M,)`` float32.
        classes: ``(M,)`` int64, 0 to K - 1.
        class_names: of all K classes.
        width, height: of the image.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    class_names: tuple[str, ...]
    width: int
    height: int

    @classmethod
    def of(cls, found: Instances, class_names: tuple[str, ...], least: float) -> Detections:
        """Of Detectron2's ``Instances``, those that score ``least`` or more."""
        found = found.to("cpu")
        found = found[found.scores >= least]
        found = found[found.scores.argsort(descending=True, stable=True)]
        height, width = found.image_size
        return cls(
            boxes=found.pred_boxes.tensor.float().numpy(),
            scores=found.scores.float().numpy(),
            classes=found.pred_classes.numpy(),
            class_names=class_names,
            width=width,
            height=height,
        )

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """The class name of each."""
        return [self.class_names[index] for index in self.classes]

    def as_dicts(self) -> list[dict[str, Any]]:
        """``class``, ``class_index``, ``score`` and ``box`` (XYXY) of each, as json has them."""
        return [
            {
                "class": self.class_names[label],
                "class_index": label,
                "score": round(score, 5),
                "box": [round(x, 2) for x in box],
            }
            for label, score, box in zip(
                self.classes.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True
            )
        ]
