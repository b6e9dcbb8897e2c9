"""The levels that a pyramid lacks on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor, nn

from retina_plugin.modeling.backbones.stage_names import listed


class TopLevels(Backbone):
    """A backbone that is a pyramid already, and further levels above its last.

    Each is a 3x3 convolution of stride 2 on the one below, after a ReLU where that was made here:
    as Detectron2's ``LastLevelP6P7`` of P5 goes on.

    Args:
        bottom_up: outputs ``p<N>`` of stride 2^N.
        levels: those asked for, high resolution first; what ``bottom_up`` has besides is left out.

    Raises:
        ValueError: a level is missing that is not above all others; lists what there is.
    """

    def __init__(self, *, bottom_up: Backbone, levels: Sequence[str]) -> None:
        super().__init__()
        shapes = dict(bottom_up.output_shape())
        own = [name for name in levels if name in shapes]
        top = own[-1] if own else ""
        expected = [f"p{_number(top) + i}" for i in range(1, len(levels) - len(own) + 1)]
        if not own or list(levels) != [*own, *expected]:
            raise ValueError(
                f"MODEL.RETINANET.IN_FEATURES asks for {', '.join(levels)}, but the registered "
                f"backbone gives {listed(shapes)}: only levels above its last can be added"
            )
        self.bottom_up = bottom_up
        channels = shapes[top].channels
        for name in expected:
            stride = 2 ** _number(name)
            self.add_module(name, nn.Conv2d(channels, channels, 3, stride=2, padding=1))
            c2_xavier_fill(self.get_submodule(name))
            shapes[name] = ShapeSpec(channels=channels, stride=stride)
        self._shapes = {name: shapes[name] for name in levels}
        self._top, self._added = top, expected

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``(N, C, H, W)`` -> the levels."""
        outputs = dict(self.bottom_up(x))
        below = outputs[self._top]
        for i, name in enumerate(self._added):
            below = self.get_submodule(name)(below.relu() if i else below)
            outputs[name] = below
        return {name: outputs[name] for name in self._shapes}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Of the levels asked for."""
        return self._shapes

    @property
    def size_divisibility(self) -> int:
        """The pyramid's."""
        return self.bottom_up.size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The pyramid's."""
        return self.bottom_up.padding_constraints


def is_pyramid(shapes: Mapping[str, ShapeSpec], lowest: str) -> bool:
    """Whether outputs are levels ``p<N>`` of stride 2^N and one width, from ``lowest`` on."""
    levels = {name: shape for name, shape in shapes.items() if _number(name)}
    return (
        lowest in levels
        and all(shape.stride == 2 ** _number(name) for name, shape in levels.items())
        and len({shape.channels for shape in levels.values()}) == 1
    )


def _number(level: str) -> int:
    """N of ``p<N>``; 0 of any other name."""
    return int(level[1:]) if level[:1] == "p" and level[1:].isdecimal() else 0
