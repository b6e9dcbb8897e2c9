"""How many channels a network's images have."""

from __future__ import annotations

import torch
from torch import nn

SIZE = (128, 128)  # of the trial image


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """The convolution that is registered first, which in any usual network sees the image."""
    return next(
        ((path, m) for path, m in network.named_modules() if isinstance(m, nn.Conv2d)), None
    )


def set_input_channels(network: nn.Module, channels: int) -> None:
    """Let the first convolution see ``channels`` instead of its own number, in place."""
    path, old = first_convolution(network)
    if old.in_channels == channels:
        return
    parent, _, name = path.rpartition(".")
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,
        stride=old.stride,
        padding=old.padding,
        dilation=old.dilation,
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
    )
    setattr(network.get_submodule(parent), name, new)


@torch.no_grad()
def check_input_channels(network: nn.Module, channels: int) -> None:
    """Refuse a network that was built for another number of channels than the images have.

    It is run on a small image, but only where its first convolution takes another number.

    Raises:
        ValueError: names both numbers.
    """
    found = first_convolution(network)
    if found is None or found[1].in_channels == channels:
        return
    path, convolution = found
    was_training = network.training
    try:
        network.eval()(torch.zeros(1, channels, *SIZE, device=convolution.weight.device))
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the backbone's first convolution ({path}) takes {convolution.in_channels} channels, "
            f"but the images have {channels}, one for each number in MODEL.PIXEL_MEAN: correct "
            "MODEL.PIXEL_MEAN and PIXEL_STD, or have the backbone's builder use "
            "input_shape.channels"
        ) from error
    finally:
        network.train(was_training)
