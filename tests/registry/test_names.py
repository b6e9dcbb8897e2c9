"""Unknown names get an error that lists the valid ones, the nearest first."""

import pytest
from detectron2.modeling import BACKBONE_REGISTRY

from retina_plugin.registry import (
    UnknownNameError,
    near_misses,
    require_registered,
    unknown_name,
)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("MaxIOUAssigner", ["MaxIoUAssigner", "ATSSAssigner"]),  # the case is no difference
        ("ATSS", ["ATSSAssigner"]),  # nor similar enough, but how it begins
        ("AT", []),
        ("gioulos", ["GIoULoss"]),
        ("xyz", []),
    ],
)
def test_near_misses(name, near):
    assert near_misses(name, ["MaxIoUAssigner", "ATSSAssigner", "GIoULoss"]) == near


def test_unknown_name_without_a_near_one():
    assert str(unknown_name("KEY", "zzz", ["b", "a"])) == "KEY: 'zzz' is unknown. Valid: a, b."


def test_require_registered():
    require_registered(BACKBONE_REGISTRY, "build_resnet_backbone", "KEY")
    with pytest.raises(UnknownNameError, match=r"KEY: 'build_resnet'.*mean .*resnet_backbone"):
        require_registered(BACKBONE_REGISTRY, "build_resnet", "KEY")
