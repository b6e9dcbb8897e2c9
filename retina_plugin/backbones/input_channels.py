"""How many channels a network's images have."""

from __future__ import annotations

from torch import nn


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


def check_input_channels(network: nn.Module, channels: int) -> None:
    """Refuse a network that was built for another number of channels than the images have.

    Raises:
        ValueError: names both numbers.
    """
    found = first_convolution(network)
    if found is None:
        return
    path, convolution = found
    seen = convolution.in_channels
    if convolution.groups == 1 and seen != channels:
        raise ValueError(
            f"the backbone's first convolution ({path}) takes {seen} channels, but the images have "
            f"{channels} (one for each number in MODEL.PIXEL_MEAN): correct MODEL.PIXEL_MEAN and "
            "PIXEL_STD, or have the backbone's builder use input_shape.channels"
        )
