"""What converting a whole detector gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from retina_plugin.checkpoint.report import first

IMAGENET_MEAN, IMAGENET_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # RGB, 0 to 255


@dataclass(frozen=True)
class Conversion:
    """A detector's tensors under other names.

    Attributes:
        state: the tensors.
        kind: what the file held, in words.
        bases: configs below ``configs/_base_`` that the settings build on.
        settings: values by dotted key, under which the weights mean what they meant.
        notes: what a user must know to get the same detections.
        dropped: the file's names that have no place, because nothing depends on them.
    """

    state: dict[str, Tensor]
    kind: str
    bases: Sequence[str] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    dropped: Sequence[str] = ()


def unknown_tensors(path: str, kind: str, names: Sequence[str]) -> ValueError:
    """The error for a file that holds more than a converter knows."""
    return ValueError(
        f"{path}: {len(names)} of its tensors are none of {kind} on a ResNet with P3 to P7: "
        f"{first(names)}. Such a model cannot be converted; as MODEL.WEIGHTS of a model with the "
        "same backbone that one loads"
    )
