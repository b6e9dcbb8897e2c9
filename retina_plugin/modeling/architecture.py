"""Which detectors the plugin's programs work on."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import RetinaNet

from retina_plugin.config.safe_yaml import ConfigFileError
from retina_plugin.modeling.detector import FocalRetinaNet
from retina_plugin.registry import require_registered


def check_architecture(cfg: CfgNode, config_file: str) -> None:
    """Refuse other detectors, which read their number of classes from keys of their own.

    Raises:
        ConfigFileError, UnknownNameError: ``META_ARCHITECTURE`` is no RetinaNet, or unknown.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    require_registered(META_ARCH_REGISTRY, name, "MODEL.META_ARCHITECTURE")
    if issubclass(META_ARCH_REGISTRY.get(name), FocalRetinaNet | RetinaNet):
        return
    if not config_file:
        raise ConfigFileError(
            "--config-file is missing: name a config, such as retinanet_R_50_FPN_1x"
        )
    raise ConfigFileError(
        f"MODEL.META_ARCHITECTURE is {name}, but this program trains RetinaNets: set it to "
        "FocalRetinaNet, in a config made for RetinaNet"
    )
