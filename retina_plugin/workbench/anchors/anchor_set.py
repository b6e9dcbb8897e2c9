"""A set of anchors as numbers: what a config's keys say, and how to write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import yaml
from detectron2.config import CfgNode
from torch import Tensor

from retina_plugin.runs.yaml_run import YamlRun
from retina_plugin.workbench.anchors.anchor_grid import cells_of

NODE = "MODEL.ANCHOR_GENERATOR"
OCTAVE, DEFAULT = "OctaveAnchorGenerator", "DefaultAnchorGenerator"
_DIGITS = 3  # of a number in a config: a thousandth of an anchor's side changes no IoU


@dataclass(frozen=True)
class AnchorSet:
    """Sizes and ratios for one of the two generators.

    Attributes:
        generator: ``OctaveAnchorGenerator``, whose sizes are base sizes, or
            ``DefaultAnchorGenerator``.
        sizes: one list a level, in pixels.
        aspect_ratios: height / width; one list for all levels, or one a level.
        scales_per_octave: of the octave generator.
    """

    generator: str
    sizes: tuple[tuple[float, ...], ...]
    aspect_ratios: tuple[tuple[float, ...], ...]
    scales_per_octave: int = 1

    @classmethod
    def of(
        cls,
        generator: str,
        sizes: Sequence[Sequence[float]],
        aspect_ratios: Sequence[Sequence[float]],
        scales_per_octave: int = 1,
    ) -> AnchorSet:
        """Rounded and sorted; ratios that are the same on all levels are said once."""
        ratios = [_rounded(level) for level in aspect_ratios]
        return cls(
            generator,
            tuple(_rounded(level) for level in sizes),
            tuple(ratios[:1] if len(set(ratios)) == 1 else ratios),
            scales_per_octave,
        )

    def values(self) -> dict[str, object]:
        """The keys below ``MODEL.ANCHOR_GENERATOR``."""
        values: dict[str, object] = {
            "NAME": self.generator,
            "SIZES": [list(level) for level in self.sizes],
            "ASPECT_RATIOS": [list(level) for level in self.aspect_ratios],
        }
        if self.generator == OCTAVE:
            values[OCTAVE] = {"SCALES_PER_OCTAVE": self.scales_per_octave}
        return values

    def overrides(self) -> list[str]:
        """``KEY=VALUE`` for a command line."""
        keys = []
        for key, value in self.values().items():
            pairs = value.items() if isinstance(value, dict) else [("", value)]
            for inner, x in pairs:
                keys.append(override(f"{NODE}.{key}{'.' if inner else ''}{inner}", x))
        return keys

    def cells(self, cfg: CfgNode, strides: Sequence[int]) -> list[Tensor]:
        """``(A_l, 4)`` a level, made by the generator itself."""
        cfg = cfg.clone()
        cfg.defrost()
        node = cfg.MODEL.ANCHOR_GENERATOR
        for key, value in self.values().items():
            node[key] = CfgNode(value) if isinstance(value, dict) else value
        return cells_of(YamlRun(cfg).build_anchor_generator(strides), self.generator)


def override(key: str, value: object) -> str:
    """``KEY=VALUE``, without spaces, which a shell would cut at."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1e6).removesuffix("...\n")
    return f"{key}={text.strip().replace(' ', '')}"


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(rounded(x) for x in sorted(values))


def rounded(value: float) -> float:
    """To three digits, whole numbers as such."""
    near = float(f"{value:.{_DIGITS}g}")
    return int(near) if near.is_integer() else near


def product_of(cells: Tensor) -> tuple[np.ndarray, np.ndarray] | None:
    """Sizes and ratios of which a cell's anchors are all pairs, or None where they are not."""
    sides = (cells[:, 2:] - cells[:, :2]).double().numpy()
    sizes = np.unique(np.sqrt(sides.prod(axis=1)).round(2))
    ratios = np.unique((sides[:, 1] / sides[:, 0]).round(3))
    return (sizes, ratios) if len(sizes) * len(ratios) == len(cells) else None
