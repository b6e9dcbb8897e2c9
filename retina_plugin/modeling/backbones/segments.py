"""What a network is made of, read by running it once: modules in turn, their strides, channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# Of the trial image: 3 and 5 times a power of 2, so that a map's height and width are recognised
HEIGHT, WIDTH = 192, 320
STEM = "stem"


@dataclass(frozen=True)
class Segment:
    """A module whose output is a map, and which halves it at most once or is a stem.

    Attributes:
        path: its name in the network.
        stride: of its output, in pixels of the image; a power of 2.
        channels: of its output.
        channels_last: the output is ``(N, H, W, C)`` instead of ``(N, C, H, W)``.
    """

    path: str
    stride: int
    channels: int
    channels_last: bool


def trial_image(channels: int) -> Tensor:
    """``(1, C, 192, 320)``, the same every time."""
    return torch.linspace(-2, 2, channels * HEIGHT * WIDTH).view(1, channels, HEIGHT, WIDTH)


def map_of(output: Any) -> tuple[int, int, bool] | None:
    """Stride, channels and whether channels come last of what a module made of the trial image.

    None where it is no map of a stride that is a power of 2.
    """
    if not isinstance(output, Tensor) or output.dim() != 4 or len(output) != 1:
        return None
    for channels_last in (False, True):
        height, width, channels = (
            output.shape[1:] if channels_last else (*output.shape[2:], output.shape[1])
        )
        for stride in (2**i for i in range(7)):
            if (height * stride, width * stride) == (HEIGHT, WIDTH):
                return stride, channels, channels_last
    return None


def read_segments(network: nn.Module, channels: int) -> list[Segment]:
    """The modules that a network runs, in the order of a forward pass on a trial image.

    A module is taken whole where its outputs have no more than two strides, that is where it halves
    its input once; else the modules within are. What makes no map (a classifier) is left out.

    Args:
        network: is run once, in evaluation mode.
        channels: of an image.
    """
    found: dict[str, tuple[int, int, bool]] = {}

    def note(path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        made = map_of(output)
        if made is not None:
            found[path] = made

    hooks = [
        module.register_forward_hook(partial(note, path))
        for path, module in network.named_modules()
        if path
    ]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(trial_image(channels))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return _segments_in("", network, found)


def _segments_in(
    path: str, module: nn.Module, found: dict[str, tuple[int, int, bool]]
) -> list[Segment]:
    within = {p: made for p, made in found.items() if _is_in(p, path)}
    if not within:
        return []
    is_leaf = set(within) == {path}
    if path and (is_leaf or len({stride for stride, *_ in within.values()}) <= 2):
        return [Segment(path, *found.get(path, list(within.values())[-1]))]
    children = module.named_children()
    parts = [_segments_in(f"{path}.{n}" if path else n, child, found) for n, child in children]
    order = list(within)
    parts = sorted(filter(None, parts), key=lambda part: _first_run(part[0].path, order))
    return [segment for part in parts for segment in part]


def _is_in(path: str, parent: str) -> bool:
    return not parent or path == parent or path.startswith(f"{parent}.")


def _first_run(path: str, order: Sequence[str]) -> int:
    """When the first of a module's parts had run."""
    return next(i for i, p in enumerate(order) if _is_in(p, path))


def group_by_stage(network: nn.Module, segments: Sequence[Segment]) -> dict[str, list[Segment]]:
    """``stem`` and ``res<N>``, the stage of stride 2^N, with the segments of each.

    The stem is what comes before stride 4; where that has no parameters (a network that begins by
    patches of 4 pixels), it is the first segment of stride 4 instead.
    """
    stages: dict[str, list[Segment]] = {STEM: []}
    for segment in segments:
        has_stem = any(_has_parameters(network, part) for part in stages[STEM])
        is_stem = segment.stride < 4 or (segment.stride == 4 and not has_stem and len(stages) == 1)
        name = STEM if is_stem else f"res{segment.stride.bit_length() - 1}"
        stages.setdefault(name, []).append(segment)
    return stages


def _has_parameters(network: nn.Module, segment: Segment) -> bool:
    return any(True for _ in network.get_submodule(segment.path).parameters())
