"""The two decays of score against numbers by hand; the checks that both post-processors share."""

import math

import pytest
import torch

from retina_plugin.modeling.coders.delta_coder import DeltaCoder
from retina_plugin.modeling.post_processors import MatrixNMSPostProcessor, SoftNMSPostProcessor
from retina_plugin.modeling.post_processors.score_decay import gaussian_decay

BOTH = pytest.mark.parametrize("processor", [SoftNMSPostProcessor, MatrixNMSPostProcessor])


def test_gaussian_decay():
    factors = gaussian_decay(torch.tensor([0.0, 0.5, 1.0]), sigma=0.5)
    torch.testing.assert_close(factors, torch.tensor([1.0, math.exp(-0.5), math.exp(-2)]))


@BOTH
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "cubic"}, "METHOD must be gaussian or linear, got 'cubic'"),
        ({"sigma": 0.0}, r"SIGMA must be above 0, got 0\.0"),
        ({"min_score": 1.5}, r"MIN_SCORE must be in \[0, 1\], got 1\.5"),
        ({"max_detections": -1}, "TEST.DETECTIONS_PER_IMAGE must not be negative, got -1"),
    ],
)
def test_a_setting_out_of_its_range_is_named(processor, arguments, message):
    if not message.startswith("TEST"):
        message = rf"MODEL\.RETINANET\.POST_PROCESSOR\.{processor.__name__}\.{message}"
    with pytest.raises(ValueError, match=message):
        processor(coder=DeltaCoder(), num_classes=3, **arguments)
