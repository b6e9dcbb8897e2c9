"""A detector on images of many sizes, those of one size together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

Inputs = Sequence[dict[str, Any]]


def detect_by_shape(
    detector: Callable[[Inputs], Sequence[Any]], inputs: Inputs, *, batch: int
) -> list[Any]:
    """The detector's answers in the order of the inputs; only images of equal size share a batch.

    So nothing is padded, and what is found in an image does not depend on what it came with.

    Args:
        detector: a list of Detectron2's inputs -> as many outputs.
        inputs: each with ``image`` ``(C, H, W)``.
        batch: images that go through it together, at most.
    """
    by_shape = defaultdict(list)
    for index, given in enumerate(inputs):
        by_shape[tuple(given["image"].shape)].append(index)
    outputs: list[Any] = [None] * len(inputs)
    for indices in by_shape.values():
        for start in range(0, len(indices), batch):
            chunk = indices[start : start + batch]
            found = detector([inputs[i] for i in chunk])
            for index, output in zip(chunk, found, strict=True):
                outputs[index] = output
    return outputs
