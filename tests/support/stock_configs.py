"""Detectron2's own configs, without ``detectron2.model_zoo``, which imports ``pkg_resources``."""

from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from retina_plugin.config.detectron2_configs import PREFIX, find_detectron2_config


def stock_config_file(name: str) -> Path:
    """The file ``name``, such as ``COCO-Detection/retinanet_R_50_FPN_1x.yaml``."""
    path = find_detectron2_config(PREFIX + name)
    assert path is not None, name
    return path


def stock_config(name: str) -> CfgNode:
    """What ``model_zoo.get_config(name)`` gives."""
    cfg = get_cfg()
    cfg.merge_from_file(str(stock_config_file(name)))
    return cfg
