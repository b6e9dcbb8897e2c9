"""Number of positive anchors per level and per class."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from retina_plugin.modeling.contracts import DenseTargets
from retina_plugin.modeling.detector import FocalRetinaNet

MOST_CLASSES = 100  # above: log the share of classes with positives

logger = logging.getLogger(__name__)


class PositiveCounts:
    """Count the positive anchors of each training batch on the device, without synchronizing.

    Observes the input of the classification loss. A loss that is not an ``nn.Module`` cannot be
    observed; this is logged.

    Args:
        detector: detector in training.
        class_names: the K class names; if empty, classes are numbered.
    """

    def __init__(self, detector: FocalRetinaNet, class_names: Sequence[str] = ()) -> None:
        names = [str(index) for index in range(detector.num_classes)]
        self._classes = list(class_names) if len(class_names) == len(names) else names
        self._levels = list(detector.head_in_features)
        self._restart()
        if isinstance(detector.cls_loss, nn.Module):
            detector.cls_loss.register_forward_hook(self._hook())
        else:
            logger.info(
                "positives are not logged: MODEL.RETINANET.CLS_LOSS is "
                f"{type(detector.cls_loss).__name__}, which is no nn.Module"
            )

    def read(self) -> dict[str, float]:
        """Return positives per image since the last call, by name; synchronizes with the device."""
        if not self._images or self._by_class is None:
            return {}
        by_class = (self._by_class / self._images).tolist()
        found = {
            f"positives/level/{name}": count / self._images
            for name, count in zip(self._levels, self._by_level, strict=True)
        }
        if len(by_class) <= MOST_CLASSES:
            names = zip(self._classes, by_class, strict=True)
            found |= {f"positives/class/{name}": count for name, count in names}
        else:
            found["positives/share_of_classes"] = sum(x > 0 for x in by_class) / len(by_class)
        self._restart()
        return found

    def _restart(self) -> None:
        self._images = 0
        self._by_level = [0] * len(self._levels)
        self._by_class: Tensor | None = None

    def _hook(self) -> Any:
        # A function, not an object: copies of the model (made for evaluation) would copy an object
        def count(module: nn.Module, given: tuple[Any, ...], _: Any) -> None:
            if module.training:
                self._add(given[1])

        return count

    @torch.no_grad()
    def _add(self, targets: DenseTargets) -> None:
        classes = targets.classes
        if self._by_class is None:
            self._by_class = torch.zeros(targets.num_classes, device=classes.device)
        # bincount would synchronize to find the largest class
        self._by_class.index_add_(0, classes, torch.ones_like(classes, dtype=torch.float32))
        self._images += len(targets.instances)
        counts = targets.positives.level_counts
        self._by_level = [a + b for a, b in zip(self._by_level, counts, strict=True)]
