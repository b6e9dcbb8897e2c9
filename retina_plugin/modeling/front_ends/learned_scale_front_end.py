"""A small network looks at each image and says how large the detector shall see it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from retina_plugin.modeling.contracts import DenseTargets, PositiveBoxes, Predictions
from retina_plugin.modeling.front_ends.scaled_input import ScaledInput
from retina_plugin.registry import FRONT_ENDS

KEY = "MODEL.FRONT_END.LearnedScaleFrontEnd"
_CHANNELS = 16


@FRONT_ENDS.register(defaults={"SIZE": 64.0, "MAX_FACTOR": 2.0, "LOOK": 128})
class LearnedScaleFrontEnd(nn.Module):
    """Resizes every image by the factor that a small network predicts for it, at first by 1.

    The factor is ``2^e`` with ``e = log2(max_factor) * tanh(net(image))``. It learns by a loss of
    its own, ``loss_scale``, as the sizes of images have no gradient::

        sum over the positives of L_box * (e - clip(e' + log2(size / s)))^2

    ``L_box`` is the positive's own box loss, ``s`` the square root of its object's area as the
    detector saw it at ``e' = e``, both without gradient: an object whose box is hard to find pulls
    the image towards the scale at which it measures ``size`` pixels.

    ``NetworkInput.side["scale"]`` holds the factors, ``(N,)``. The host waits for them once a
    batch, as it must know how large the images become.

    Source: Seo et al., DyRA, 2023, in the spirit only. There, too, a network beside the detector is
    trained by every object's box loss and size; its two losses (ParetoScale, Balance) take
    quantiles and the detector's size ranges, and its network is convolutions and a transformer.

    Args:
        in_channels: of the images.
        size: side in pixels that objects should have after the resize.
        max_factor: largest factor of the resize; its inverse is the smallest.
        look: side in pixels of the square image that the small network gets.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self, *, in_channels: int, size: float = 64.0, max_factor: float = 2.0, look: int = 128
    ) -> None:
        super().__init__()
        if not size > 0:
            raise ValueError(f"{KEY}.SIZE must be above 0 pixels, got {size}")
        if not max_factor > 1:
            raise ValueError(f"{KEY}.MAX_FACTOR must be above 1, got {max_factor}")
        if type(look) is not int or look < 8:
            raise ValueError(f"{KEY}.LOOK must be a whole number, 8 pixels or more, got {look!r}")
        self.out_channels = in_channels
        self.size = size
        self.limit = math.log2(max_factor)
        self.look = look
        self.eye = nn.Sequential(
            nn.Conv2d(in_channels, _CHANNELS, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.exponent = nn.Linear(_CHANNELS, 1)
        nn.init.zeros_(self.exponent.weight)
        nn.init.zeros_(self.exponent.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int) -> dict[str, Any]:
        """Besides its settings the number of channels."""
        return {"in_channels": in_channels}

    def forward(
        self, images: ImageList, instances: Sequence[Instances] | None = None
    ) -> _LearnedScaleInput:
        """See ``FrontEnd`` in ``modeling/contracts.py``; the ground truth is not looked at."""
        pixels = [images[i][None] for i in range(len(images))]
        seen = torch.cat([F.adaptive_avg_pool2d(x, self.look) for x in pixels])
        exponents = self.exponent(self.eye(seen).flatten(1))[:, 0]
        exponents = self.limit * exponents.float().tanh()
        factors = exponents.exp2()
        # a trace would keep the numbers of the host
        scales = factors.unbind() if torch.jit.is_tracing() else factors.tolist()
        resized = [_resized(*x) for x in zip(pixels, scales, strict=True)]
        return _LearnedScaleInput(
            ImageList.from_tensors(resized),
            {"scale": factors},
            input_sizes=images.image_sizes,
            exponents=exponents,
            size=self.size,
            limit=self.limit,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class _LearnedScaleInput(ScaledInput):
    """The resized images, and what becomes of the network that chose their sizes."""

    exponents: Tensor  # (N,)
    size: float
    limit: float

    def extra_losses(
        self,
        predictions: Predictions,
        targets: DenseTargets,
        positives: PositiveBoxes,
        box_losses: Tensor,
    ) -> dict[str, Tensor]:
        """``loss_scale``, see :class:`LearnedScaleFrontEnd`."""
        sides = Boxes(positives.gt_boxes).area().sqrt()
        now = self.exponents[targets.positives.image]
        wish = (now.detach() + (self.size / sides).log2()).clamp(-self.limit, self.limit)
        return {"loss_scale": (box_losses.detach() * (now - wish).square()).sum()}


def _resized(image: Tensor, factor: float | Tensor) -> Tensor:
    """``(1, C, H, W)`` -> ``(C, factor * H, factor * W)``, bilinear."""
    if isinstance(factor, Tensor):
        sides = [(side * factor.double()).round().clamp(min=1).long() for side in image.shape[-2:]]
        return F.interpolate(image, sides, mode="bilinear", align_corners=False)[0]
    size = [max(1, round(side * factor)) for side in image.shape[-2:]]
    if size != list(image.shape[-2:]):
        image = F.interpolate(image, size, mode="bilinear", align_corners=False)
    return image[0]
