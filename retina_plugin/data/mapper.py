"""Detectron2's dataset mapper with the augmentations that the config lists."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper

from retina_plugin.data.augmentations import build_augmentations


class RetinaDatasetMapper(DatasetMapper):
    """``DatasetMapper`` with ``INPUT.AUGMENTATIONS``, and ``INPUT.AUGMENTATIONS_TEST``."""

    @configurable
    def __init__(self, is_train: bool, **kwargs: Any) -> None:
        super().__init__(is_train, **kwargs)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """As ``DatasetMapper``'s, with the augmentations replaced."""
        arguments = super().from_config(cfg, is_train)
        arguments["augmentations"] = build_augmentations(cfg, is_train)
        return arguments
