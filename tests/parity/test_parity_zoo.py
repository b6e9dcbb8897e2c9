"""The model zoo's own configs, changed in one line."""

import pytest
from support.batches import make_batch
from support.model_pairs import assert_same_detections, assert_same_step, build_pair
from support.tiny_models import zoo_cfg

from retina_plugin import add_retina_config


@pytest.mark.parametrize("extended", [False, True], ids=["stock keys", "add_retina_config"])
@pytest.mark.parametrize("depth", [50, 101])
def test_zoo_config(depth, extended):
    """80 classes, frozen BatchNorm; with and without the plugin's keys in the config."""
    batch = make_batch((7, 2), sizes=((96, 128), (128, 96)), num_classes=80)
    cfg = zoo_cfg(depth)
    pair = build_pair(cfg, batch, add_retina_config(cfg.clone()) if extended else None)
    assert ("ASSIGNER" in cfg.MODEL.RETINANET) is False
    step = assert_same_step(pair, batch)
    assert step.positives_per_image > 5
    assert len(step.gradients) > 50
    assert_same_detections(pair, batch)
