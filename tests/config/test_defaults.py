"""``add_retina_config``: our keys beside Detectron2's, which keep their values."""

import pytest
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from support.tiny_models import tiny_cfg, zoo_cfg

from retina_plugin import FocalRetinaNet, add_retina_config
from retina_plugin.registry import ROLES, find_node


def leaves(node, path=""):
    for key, value in node.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, CfgNode):
            yield from leaves(value, here)
        else:
            yield here, value


def test_stock_keys_keep_their_values():
    stock = dict(leaves(zoo_cfg(50)))
    extended = dict(leaves(add_retina_config(zoo_cfg(50))))
    assert {key: extended[key] for key in stock} == stock


def test_each_role_mounts_what_its_components_brought():
    cfg = add_retina_config(get_cfg())
    for role in ROLES:
        node = find_node(cfg, role.node)
        for key, value in leaves(role.config_defaults()):
            parent, _, last = key.rpartition(".")
            assert (find_node(node, parent) if parent else node)[last] == value


def test_names_of_the_default_components():
    retinanet = add_retina_config(get_cfg()).MODEL.RETINANET
    nodes = {key: node for key, node in retinanet.items() if isinstance(node, CfgNode)}
    assert {key: node.NAME for key, node in nodes.items() if "NAME" in node} == {
        "HEAD": "FocalRetinaNetHead",
        "CLS_LOSS": "FocalLoss",
        "ASSIGNER": "MaxIoUAssigner",
        "BOX_CODER": "DeltaCoder",
        "NORMALIZER": "EMANormalizer",
        "POST_PROCESSOR": "NMSPostProcessor",
    }
    assert retinanet.BBOX_REG_LOSS_TYPE == "smooth_l1"  # Detectron2's own key selects the box loss


def test_what_is_set_already_stays():
    cfg = get_cfg()
    cfg.MODEL.RETINANET.NORMALIZER = CfgNode(
        {"NAME": "FixedNormalizer", "FixedNormalizer": CfgNode({"VALUE": 7.0})}
    )
    add_retina_config(cfg)
    normalizer = cfg.MODEL.RETINANET.NORMALIZER
    assert (normalizer.NAME, normalizer.FixedNormalizer.VALUE) == ("FixedNormalizer", 7.0)
    assert normalizer.EMANormalizer.MOMENTUM == 0.9


def test_twice_is_once():
    once = add_retina_config(get_cfg())
    assert add_retina_config(once.clone()) == once


def test_returns_the_same_config():
    cfg = get_cfg()
    assert add_retina_config(cfg) is cfg


def test_configs_share_nothing():
    first, second = add_retina_config(get_cfg()), add_retina_config(get_cfg())
    first.INPUT.AUGMENTATIONS.append({"NAME": "RandomFlip"})
    first.MODEL.RETINANET.ASSIGNER.MaxIoUAssigner.ALLOW_LOW_QUALITY_MATCHES = False
    assert second.INPUT.AUGMENTATIONS == []
    assert second.MODEL.RETINANET.ASSIGNER.MaxIoUAssigner.ALLOW_LOW_QUALITY_MATCHES is True
    assert add_retina_config(get_cfg()) == second


def test_nodes_are_detectron2s():
    """Plain yacs nodes among them would not merge, clone or freeze alike."""
    cfg = add_retina_config(get_cfg())
    nodes = [cfg]
    for node in nodes:
        assert type(node) is CfgNode
        nodes += [value for value in node.values() if isinstance(value, dict)]
    cfg.freeze()
    with pytest.raises(AttributeError, match=r"MOMENTUM.*immutable"):
        cfg.MODEL.RETINANET.NORMALIZER.EMANormalizer.MOMENTUM = 0.5


def test_survives_a_file(tmp_path):
    """As Detectron2 dumps it into the output folder, and reads it again."""
    cfg = add_retina_config(get_cfg())
    cfg.MODEL.RETINANET.NORMALIZER.NAME = "BatchNormalizer"
    path = tmp_path / "config.yaml"
    path.write_text(cfg.dump())
    again = add_retina_config(get_cfg())
    again.merge_from_file(str(path))
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())
    assert again.MODEL.RETINANET.NORMALIZER.NAME == "BatchNormalizer"


def test_files_and_overrides_reach_our_keys(tmp_path):
    path = tmp_path / "leaf.yaml"
    path.write_text("MODEL: {RETINANET: {NORMALIZER: {NAME: FixedNormalizer}}}")
    cfg = add_retina_config(get_cfg())
    cfg.merge_from_file(str(path))
    cfg.merge_from_list(["MODEL.RETINANET.NORMALIZER.FixedNormalizer.VALUE", "12.5"])
    assert cfg.MODEL.RETINANET.NORMALIZER.FixedNormalizer.VALUE == 12.5


@pytest.mark.parametrize("key", ["ASIGNER.NAME", "ASSIGNER.NAEM", "NORMALIZER.EMANormalizer.MOM"])
def test_unknown_keys_of_files_are_refused(key):
    cfg = add_retina_config(get_cfg())
    with pytest.raises((KeyError, AssertionError), match=key.split(".")[-1]):
        cfg.merge_from_list([f"MODEL.RETINANET.{key}", "x"])


@pytest.mark.parametrize("extended", [True, False])
def test_a_config_builds_with_or_without(extended):
    cfg = tiny_cfg()
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    model = build_model(add_retina_config(cfg) if extended else cfg)
    assert type(model) is FocalRetinaNet
    assert model.normalizer.momentum == 0.9


def test_a_frozen_config_is_refused():
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(ValueError, match="frozen"):
        add_retina_config(cfg)
