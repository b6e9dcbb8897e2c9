"""Fixed filters before the network: what the first cells of seeing do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from retina_plugin.modeling.contracts import NetworkInput
from retina_plugin.registry import FRONT_ENDS

KEY = "MODEL.FRONT_END.FilterBankFrontEnd"
_REACH = 2.5  # deviations of the envelope; it is 0.04 there


@FRONT_ENDS.register(defaults={"ORIENTATIONS": 4, "WAVELENGTHS": (4.0, 8.0), "KEEP_INPUT": True})
class FilterBankFrontEnd(nn.Module):
    """Responses of Gabor filters to the image's brightness, beside its channels or instead of them.

    Brightness is the mean of the normalised channels. The channels that come out: those of the
    input, if they are kept, then for each wavelength, for each orientation, the response of the
    even and of the odd filter of :func:`gabor_bank`. Beyond the image's edge everything is 0, as in
    Detectron2's padding.

    Source: Daugman, Uncertainty relation for resolution in space, spatial frequency, and
    orientation, 1985; before a network that learns as in Dapello et al., Simulating a primary
    visual cortex at the front of CNNs, 2020 (VOneNet, whose 512 filters of random parameters are
    followed by non-linear cells, noise and a stride of 4; here a few, linear and at full size).

    Args:
        in_channels: of the images.
        orientations: number of orientations, evenly from 0 to below 180 degrees.
        wavelengths: wavelengths of the filters, in pixels.
        keep_input: whether the input's channels are kept, before the filters' responses.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        orientations: int = 4,
        wavelengths: Sequence[float] = (4.0, 8.0),
        keep_input: bool = True,
    ) -> None:
        super().__init__()
        if type(orientations) is not int or orientations < 1:
            raise ValueError(
                f"{KEY}.ORIENTATIONS must be a whole number, 1 or more, got {orientations!r}"
            )
        if not wavelengths or min(wavelengths) < 2:
            raise ValueError(
                f"{KEY}.WAVELENGTHS must be 2 pixels or more, one at least, got {wavelengths}: "
                "shorter waves cannot be told from longer ones"
            )
        self.keep_input = keep_input
        filters = gabor_bank(orientations, wavelengths)
        self.out_channels = len(filters) + (in_channels if keep_input else 0)
        self.register_buffer("filters", filters[:, None], persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int) -> dict[str, Any]:
        """Besides its settings the number of channels."""
        return {"in_channels": in_channels}

    def forward(
        self, images: ImageList, instances: Sequence[Instances] | None = None
    ) -> NetworkInput:
        """See :class:`~retina_plugin.modeling.contracts.FrontEnd`; sizes and boxes stay."""
        brightness = images.tensor.mean(dim=1, keepdim=True)
        maps = F.conv2d(brightness, self.filters, padding=self.filters.shape[-1] // 2)
        if self.keep_input:
            maps = torch.cat([images.tensor, maps], dim=1)
        for index, (height, width) in enumerate(images.image_sizes):
            maps[index, :, height:] = 0
            maps[index, :, :, width:] = 0
        return NetworkInput(ImageList(maps, images.image_sizes))


def gabor_bank(orientations: int, wavelengths: Sequence[float]) -> Tensor:
    """Even and odd Gabor filters: ``(2 * orientations * len(wavelengths), S, S)``.

    ``exp(-(x^2 + y^2) / (2 (w/2)^2)) * cos|sin(2 pi (x cos a + y sin a) / w)`` for each wavelength
    w, for each angle a; from the even one a multiple of its envelope is taken, so that none answers
    to an even grey, and each is divided by the sum of its absolute values. As in all of torch's
    convolutions the response is a correlation. S is odd and fits the longest wave.
    """
    radius = math.ceil(_REACH * max(wavelengths) / 2)
    y, x = torch.meshgrid(*[torch.arange(-radius, radius + 1.0)] * 2, indexing="ij")
    filters = []
    for wavelength in wavelengths:
        envelope = torch.exp(-(x**2 + y**2) / (2 * (wavelength / 2) ** 2))
        for number in range(orientations):
            angle = math.pi * number / orientations
            phase = 2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / wavelength
            even = envelope * phase.cos()
            even = even - envelope * (even.sum() / envelope.sum())
            filters += [even, envelope * phase.sin()]
    return torch.stack([one / one.abs().sum() for one in filters])
