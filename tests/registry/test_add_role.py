"""An extension adds a role of its own: its keys and checks are those of ours."""

import pickle
import sys

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from support.tiny_models import tiny_focal_cfg

from retina_plugin import add_retina_config
from retina_plugin.config.config_file import ConfigKeyError, load_config
from retina_plugin.config.extensions import import_extension
from retina_plugin.engine.arguments import argument_parser
from retina_plugin.registry import ROLES, Role, UnknownNameError, add_role

EXTENSION = """
from retina_plugin.registry import Role, add_role

SAMPLERS = add_role(Role("proposal sampler", node="MODEL.RETINANET.SAMPLER", default="AllSampler"))

@SAMPLERS.register()
class AllSampler: ...

@SAMPLERS.register(defaults={"COUNT": 256, "SHARE": 0.5}, alias="random")
class RandomSampler:
    def __init__(self, *, count, share, num_classes):
        self.count, self.share, self.num_classes = count, share, num_classes

    @classmethod
    def from_config(cls, cfg):
        return {"num_classes": cfg.MODEL.RETINANET.NUM_CLASSES}
"""
NODE = "MODEL.RETINANET.SAMPLER"


@pytest.fixture
def early():
    """A config that was made, and a file that was read, before the extension was imported."""
    load_config("", ["MODEL.RETINANET.NUM_CLASSES", "3"])
    return add_retina_config(get_cfg())


@pytest.fixture
def extension(early, tmp_path, monkeypatch, _own_roles):
    """The extension's module, imported as ``--import`` does."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "sampler_extension.py"
    path.write_text(EXTENSION)
    given = argument_parser().parse_args(["--import", str(path)])
    for name in given.extensions:
        import_extension(name)
    yield sys.modules["sampler_extension"]
    del sys.modules["sampler_extension"]


def test_its_keys_are_in_every_config(extension):
    assert add_retina_config(get_cfg()).MODEL.RETINANET.SAMPLER == {
        "NAME": "AllSampler",
        "RandomSampler": {"COUNT": 256, "SHARE": 0.5},
    }


def test_its_keys_in_a_file_and_in_overrides(extension, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("MODEL: {RETINANET: {SAMPLER: {NAME: random, RandomSampler: {COUNT: 9}}}}")
    cfg = load_config(path, [f"{NODE}.RandomSampler.SHARE=0.25", "MODEL.RETINANET.NUM_CLASSES=3"])
    built = extension.SAMPLERS.build(cfg)
    assert (built.count, built.share, built.num_classes) == (9, 0.25, 3)
    assert type(pickle.loads(pickle.dumps(built))) is extension.RandomSampler


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"{NODE}.RandomSampler.COUNTS=3", "Did you mean .*RandomSampler.COUNT?"),
        (f"{NODE}.RandomSamplr.COUNT=3", "Did you mean .*RandomSampler.COUNT?.*--import its file"),
    ],
)
def test_its_misspelt_keys_are_refused(extension, override, message):
    with pytest.raises(ConfigKeyError, match=message):
        load_config("", [override])


def test_a_config_that_was_made_before_it(extension, early):
    early.MODEL.RETINANET.SAMPLER = CfgNode({"NAME": "RandomSampler"})
    assert extension.SAMPLERS.build(early).count == 256
    del early.MODEL.RETINANET["SAMPLER"]
    assert isinstance(extension.SAMPLERS.build(early), extension.AllSampler)


def test_a_detector_checks_its_keys(extension, caplog):
    cfg = tiny_focal_cfg(True)
    cfg.MODEL.RETINANET.SAMPLER.RandomSampler.COUNT = 3
    cfg.MODEL.RETINANET.SAMPLR = 3
    build_model(cfg)
    assert f"{NODE}.RandomSampler.COUNT has no effect: {NODE}.NAME is AllSampler" in caplog.text
    assert "MODEL.RETINANET.SAMPLR is a key of neither" in caplog.text
    assert "Did you mean SAMPLER" in caplog.text
    assert f"{NODE} is a key" not in caplog.text
    cfg.MODEL.RETINANET.SAMPLER.RandomSampler.COUNTS = 3
    with pytest.raises(UnknownNameError, match=r"RandomSampler: 'COUNTS' is unknown.*mean COUNT"):
        build_model(cfg)


def test_the_doctor_knows_its_keys(extension):
    from retina_plugin.data.findings import Findings
    from retina_plugin.workbench.doctor.idle_keys import check_idle_keys
    from retina_plugin.workbench.doctor.meta_model import build_meta_model

    cfg, findings = tiny_focal_cfg(True), Findings()
    cfg.MODEL.RETINANET.SAMPLER.RandomSampler.COUNT = 3
    check_idle_keys(cfg, build_meta_model(cfg), findings)
    assert [x.where for x in findings] == [f"{NODE}.RandomSampler.COUNT"]


@pytest.mark.parametrize(
    ("name", "node", "message"),
    [
        ("head", "MODEL.OWN", "there is a role called 'head' already"),
        ("own", "MODEL.NECK", "MODEL.NECK is the config node of the role 'neck'"),
        ("own", "MODEL.MASK_ON", "MODEL.MASK_ON is a key of Detectron2's with a single value"),
        ("own", "SOLVER.STEPS.OWN", "SOLVER.STEPS is a key of Detectron2's"),
    ],
)
def test_a_place_that_is_taken(name, node, message):
    before = list(ROLES)
    with pytest.raises(ValueError, match=message):
        add_role(Role(name, node=node))
    assert before == ROLES


def test_a_node_of_its_own_at_the_top(_own_roles):
    role = add_role(Role("sink", node="OWN.SINKS", default="PlainSink"))

    @role.register(defaults={"DEPTH": 1})
    class PlainSink:
        def __init__(self, *, depth):
            self.depth = depth

    assert role.build(load_config("", ["OWN.SINKS.PlainSink.DEPTH", "2"])).depth == 2
