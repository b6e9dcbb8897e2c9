"""What the necks other than Detectron2's own have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling import Backbone
from fvcore.nn import weight_init
from torch import Tensor
from torch.nn import functional as F

from retina_plugin.modeling.necks.fpn_neck import FPNNeck
from retina_plugin.modeling.necks.stages import level_of, stages_of, top_block_of


class PyramidNeck(Backbone):
    """Stages C3 to C5, each through a 1x1 convolution -> :meth:`fuse` -> levels P3 to P7.

    Lateral convolutions and the two levels on top are named as in Detectron2's ``FPN``
    (``fpn_lateral3``, ``top_block.p6``), so that an FPN's weights load into them.

    Args:
        bottom_up: a backbone; its last stage of ``in_features`` is C5.
        in_features: names of its outputs, high resolution first.
        out_channels: C, of every level.
        norm: of the convolutions; empty for none, see ``detectron2.layers.get_norm``.
        top: map that P6 is computed from: ``C5`` (RetinaNet's paper) or ``P5``.

    Raises:
        UnknownNameError: ``top`` or a stage; lists the valid ones.
        ValueError: the stages' strides, see :func:`~retina_plugin.modeling.necks.stages.stages_of`.
    """

    def __init__(
        self,
        *,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: str = "",
        top: str = "C5",
    ) -> None:
        super().__init__()
        stages = stages_of(bottom_up, in_features)
        self.bottom_up = bottom_up
        self.in_features = tuple(in_features)
        self.stage_levels = [level_of(stage) for stage in stages]
        for level, stage in zip(self.stage_levels, stages, strict=True):
            self.add_module(f"fpn_lateral{level}", conv(stage.channels, out_channels, 1, norm=norm))
        self.top = top
        self.top_block = top_block_of(
            stages[-1],
            in_features[-1],
            out_channels=out_channels,
            top=top,
            key=f"MODEL.NECK.{type(self).__name__}.TOP",
        )
        last = self.stage_levels[-1]
        levels = [*self.stage_levels, *range(last + 1, last + 1 + self.top_block.num_levels)]
        self._out_features = [f"p{level}" for level in levels]
        self._out_feature_strides = {f"p{level}": 2**level for level in levels}
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)

    @classmethod
    def from_config(cls, cfg: CfgNode, bottom_up: Backbone) -> dict[str, Any]:
        """The stock keys of ``MODEL.FPN``, of which one is Detectron2's FPN's alone.

        Raises:
            ValueError: ``MODEL.FPN.FUSE_TYPE`` is set.
        """
        arguments = FPNNeck.from_config(cfg, bottom_up)
        fuse_type = arguments.pop("fuse_type")
        if fuse_type != "sum":
            raise ValueError(
                f"MODEL.FPN.FUSE_TYPE is '{fuse_type}', which {cls.__name__} does not have: leave "
                "it at 'sum', or set MODEL.NECK.NAME to FPNNeck"
            )
        return arguments

    @property
    def size_divisibility(self) -> int:
        """Of the coarsest stage, or what the backbone asks for."""
        return max(2 ** self.stage_levels[-1], self.bottom_up.size_divisibility)

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The backbone's."""
        return self.bottom_up.padding_constraints

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``(N, C_in, H, W)`` -> the levels by name, P3 first: ``(N, C, H / stride, W / stride)``.

        Sizes are rounded up.
        """
        stages = self.bottom_up(x)
        laterals = [
            getattr(self, f"fpn_lateral{level}")(stages[name])
            for level, name in zip(self.stage_levels, self.in_features, strict=True)
        ]
        levels = self.fuse(laterals, stages[self.in_features[-1]])
        return dict(zip(self._out_features, levels, strict=True))

    @abstractmethod
    def fuse(self, laterals: list[Tensor], c5: Tensor) -> list[Tensor]:
        """The stages in C channels and C5 as it is, high resolution first -> all levels."""

    def with_top(self, levels: list[Tensor], c5: Tensor) -> list[Tensor]:
        """The levels, and P6 and P7 of C5 or of the last of them."""
        return [*levels, *self.top_block(c5 if self.top == "C5" else levels[-1])]


def conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    norm: str = "",
) -> Conv2d:
    """A convolution of Detectron2's FPN, and the norm after it."""
    made = Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        bias=not norm,
        norm=get_norm(norm, out_channels),
    )
    weight_init.c2_xavier_fill(made)
    return made


def up_to(coarse: Tensor, fine: Tensor) -> Tensor:
    """The coarser map in the size of the finer one, each cell repeated."""
    return F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
