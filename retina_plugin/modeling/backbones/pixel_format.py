"""What pixels a network's usual weights were trained on, and a warning where others come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from retina_plugin.modeling.backbones.pretrained_network import PretrainedNetwork


@dataclass(frozen=True)
class PixelFormat:
    """Order, mean and standard deviation of the channels, of pixels from 0 to 255."""

    order: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


# torchvision's, timm's and most others' ImageNet weights
IMAGENET_RGB = PixelFormat("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
# Detectron2's MSRA weights, converted from Caffe: the deviation is within the first convolution
MSRA_BGR = PixelFormat("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
# Detectron2's pycls weights of RegNets and its FAIR weights of ResNeXts
FAIR_BGR = PixelFormat("BGR", (103.53, 116.28, 123.675), (57.375, 57.12, 58.395))

# by what is in the name of one of Detectron2's files of weights (its catalog.py)
_OF_FILES = {
    "ImageNetPretrained/MSRA/": MSRA_BGR,
    "ImageNetPretrained/FAIR/": FAIR_BGR,
    "ImageNetPretrained/torchvision/": IMAGENET_RGB,
}
_TOLERANCE = 0.02  # of the mean or deviation: some round, some give 0.485 x 255


def pixel_warning(
    network: nn.Module, *, weights: str, order: str, mean: Sequence[float], std: Sequence[float]
) -> str | None:
    """What to tell the user whose pixels are not those that the usual weights were trained on.

    Args:
        network: a ``PretrainedNetwork`` says so, unless the name of the file does.
        weights: path or URL; nothing is wrong without weights.
        order: of the channels, ``INPUT.FORMAT``.
        mean, std: one number a channel, of pixels from 0 to 255.
    """
    expected = next((x for part, x in _OF_FILES.items() if part in weights), None)
    if expected is None and isinstance(network, PretrainedNetwork):
        expected = network.pixel_format
    if not weights or expected is None:
        return None
    found = pixel_mismatches(expected, order=order, mean=mean, std=std)
    if not found:
        return None
    return (
        f"MODEL.WEIGHTS is {weights}: the usual weights of {type(network).__name__} were trained "
        f"on other pixels: {'; '.join(found)}. Unless yours were not, they will do badly"
    )


def pixel_mismatches(
    expected: PixelFormat, *, order: str, mean: Sequence[float], std: Sequence[float]
) -> list[str]:
    """A sentence for each way in which pixels differ from those expected; none where all is well.

    Images of another number of channels are none that the weights could expect.
    """
    if len(mean) != len(expected.mean) or len(std) != len(expected.std):
        return []
    found = []
    if order != expected.order:
        found.append(f"INPUT.FORMAT is {order}, expected {expected.order}")
    for key, came, wanted in (
        ("MODEL.PIXEL_MEAN", mean, expected.mean),
        ("MODEL.PIXEL_STD", std, expected.std),
    ):
        if any(abs(a - b) > _TOLERANCE * b for a, b in zip(came, wanted, strict=True)):
            found.append(f"{key} is {list(came)}, expected {list(wanted)}")
    return found
