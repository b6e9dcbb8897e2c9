"""Images that the network sees in another size, and their boxes there and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detectron2.structures import Boxes, Instances

from retina_plugin.modeling.contracts import NetworkInput, ignored_boxes, with_ignored

Size = tuple[int, int]  # height, width


@dataclass(frozen=True, eq=False, kw_only=True)
class ScaledInput(NetworkInput):
    """A :class:`NetworkInput` whose images were resized, each by itself.

    Boxes are multiplied by the quotients of the sizes, and divided by them on the way back.

    Attributes:
        input_sizes: height and width of each image before; ``images.image_sizes`` are those after.
    """

    input_sizes: Sequence[Size]

    def ground_truth(self, instances: Sequence[Instances]) -> list[Instances]:
        """See :class:`NetworkInput`; every field but the boxes stays as it is."""
        scaled = []
        triples = zip(instances, self.input_sizes, self.images.image_sizes, strict=True)
        for given, before, after in triples:
            fields = {**given.get_fields(), "gt_boxes": _scaled(given.gt_boxes, before, after)}
            scaled.append(Instances(after, **fields))
            ignored = ignored_boxes(given)
            if ignored is not None:
                with_ignored(scaled[-1], _scaled(Boxes(ignored), before, after).tensor)
        return scaled

    def restore(self, detections: Sequence[Instances]) -> list[Instances]:
        """See :class:`NetworkInput`."""
        restored = []
        triples = zip(detections, self.input_sizes, self.images.image_sizes, strict=True)
        for found, before, after in triples:
            fields = {**found.get_fields(), "pred_boxes": _scaled(found.pred_boxes, after, before)}
            restored.append(Instances(before, **fields))
        return restored


def _scaled(boxes: Boxes, size: Size, new_size: Size) -> Boxes:
    """Boxes of an image of ``size``, after it was resized; numbers of the host, so no wait."""
    result = boxes.clone()
    result.scale(new_size[1] / size[1], new_size[0] / size[0])
    return result
