"""A role of sinks, for the tests of registries."""

import pytest
from detectron2.config import CfgNode, get_cfg

from retina_plugin.registry import ROLES, Role, foreign_keys


@pytest.fixture
def role():
    """A role of sinks with one plain component, one that has settings and one that has both."""
    role = Role("sink", node="MODEL.RETINANET.SINK", default="PlainSink")

    @role.register
    class PlainSink: ...

    @role.register(defaults={"DEPTH": 3, "EDGES": [1, 2]}, alias="deep")
    class DeepSink:
        def __init__(self, *, depth, edges):
            self.depth, self.edges = depth, edges

    @role.register(defaults={"DEPTH": 5})
    class StockSink:
        def __init__(self, *, depth, num_classes, pipe):
            self.depth, self.num_classes, self.pipe = depth, num_classes, pipe

        @classmethod
        def from_config(cls, cfg, pipe):
            return {"num_classes": cfg.MODEL.RETINANET.NUM_CLASSES, "pipe": pipe}

    return role


@pytest.fixture
def cfg_with():
    """Detectron2's config with these keys in the node of the sinks."""

    def make(**sink):
        cfg = get_cfg()
        if sink:
            cfg.MODEL.RETINANET.SINK = CfgNode(sink)
        return cfg

    return make


@pytest.fixture
def _own_roles():
    """Roles that the test adds are gone after it."""
    roles, declared = list(ROLES), set(foreign_keys._declared)
    yield
    ROLES[:] = roles
    foreign_keys._declared.clear()
    foreign_keys._declared.update(declared)
