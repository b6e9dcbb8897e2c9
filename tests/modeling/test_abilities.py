"""Abilities belong to who derives from their base classes, also within wrappers."""

import copy
import inspect
import io
import pickle

import pytest
import torch
from detectron2.config import configurable
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.tiny_models import tiny_focal_cfg
from torch import nn
from torch.optim.swa_utils import AveragedModel

from retina_plugin import optimize_for_inference
from retina_plugin.modeling import abilities
from retina_plugin.modeling.abilities import (
    ExtraLosses,
    FusedLogits,
    HeadAbilities,
    Refinement,
    Reparameterizable,
)
from retina_plugin.modeling.backbones.pretrained_network import PretrainedNetwork
from retina_plugin.modeling.contracts import BoxCoder, box_dim
from retina_plugin.modeling.data_parallel import unwrapped
from retina_plugin.modeling.heads.focal_retinanet_head import FocalRetinaNetHead
from retina_plugin.registry import HEADS

ABILITIES = (ExtraLosses, FusedLogits, Refinement, Reparameterizable, PretrainedNetwork)
NAMES = ("refine", "extra_losses", "fused_logits", "for_inference", "ground_truth", "restore")


@pytest.fixture(autouse=True)
def _warned_of_nothing():
    abilities._warned.clear()


def detector(head="FocalRetinaNetHead"):
    cfg = tiny_focal_cfg(True)
    cfg.MODEL.RETINANET.HEAD.NAME = head
    torch.manual_seed(0)
    return build_model(cfg)


def losses_of(model, batch):
    with EventStorage():
        return model.train()(batch)


def detections_of(model, batch):
    with torch.no_grad():
        return model.eval()(batch)


def compiled(model):
    model.head = torch.compile(model.head, backend="eager")


def compiled_in_place(model):
    model.head.compile(backend="eager")


def data_parallel(model):
    model.head = nn.DataParallel(model.head)


def averaged(model):
    model.head = AveragedModel(model.head)


def twice(model):
    model.head = nn.DataParallel(torch.compile(model.head, backend="eager"))


@pytest.mark.parametrize("wrap", [compiled, compiled_in_place, data_parallel, averaged, twice])
@pytest.mark.parametrize("head", ["QualityHead", "CornerHead", "FocalRetinaNetHead"])
def test_a_wrapped_head_keeps_its_abilities(head, wrap):
    """The losses and boxes of the head as it is."""
    batch, plain = make_batch(), detector(head)
    wrapped = copy.deepcopy(plain)
    wrap(wrapped)
    expected, found = losses_of(plain, batch), losses_of(wrapped, batch)
    assert expected.keys() == found.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss)
    sum(found.values()).backward()
    assert all(p.grad is not None for p in wrapped.head.parameters())
    for a, b in zip(detections_of(plain, batch), detections_of(wrapped, batch), strict=True):
        torch.testing.assert_close(b["instances"].scores, a["instances"].scores)
        boxes = a["instances"].pred_boxes.tensor
        torch.testing.assert_close(b["instances"].pred_boxes.tensor, boxes)


@pytest.mark.parametrize("wrap", [compiled, data_parallel])
def test_a_wrapped_head_keeps_them_by_the_rules_of_every_python(wrap):
    """From 3.12 on a protocol looks at what is there statically, before at what getattr gives."""
    model = detector("QualityHead")
    wrap(model)
    with pytest.raises(AttributeError):
        inspect.getattr_static(model.head, "fused_logits")
    assert isinstance(unwrapped(model.head), FusedLogits)


def test_a_head_that_is_exchanged():
    """Whatever the way: assigned, set as a submodule, in a copy, in a file."""
    batch, model = make_batch(), detector()
    assert "loss_quality" not in losses_of(model, batch)
    model.head = detector("QualityHead").head
    assert "loss_quality" in losses_of(model, batch)
    assert "loss_quality" in losses_of(pickle.loads(pickle.dumps(model)), batch)
    copied = copy.deepcopy(model)
    assert copied.head_abilities().head is copied.head
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    assert "loss_quality" in losses_of(torch.load(buffer, weights_only=False), batch)
    model._modules["head"] = detector().head
    assert "loss_quality" not in losses_of(model, batch)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("value", "wrap"),
    [
        *(("layer", None), ("layer", compiled)),
        *(("parameter", None), ("buffer", None), ("attribute", None)),
    ],
)
def test_what_only_has_the_name_is_no_ability(name, value, wrap):
    class NamesakeHead(FocalRetinaNetHead):
        @configurable
        def __init__(self, **shared):
            super().__init__(**shared)
            if value == "layer":
                setattr(self, name, nn.Conv2d(self.channels, self.channels, 1))
            elif value == "parameter":
                setattr(self, name, nn.Parameter(torch.ones(self.channels, 1, 1)))
            elif value == "buffer":
                self.register_buffer(name, torch.ones(self.channels, 1, 1))
            else:
                setattr(self, name, lambda x: 2 * x)

        def forward(self, features):
            own = getattr(self, name)
            changed = [own(x) if callable(own) else x * own for x in features]
            return super().forward(changed)

    model, batch = detector(), make_batch()
    shapes = list(model.backbone.output_shape().values())
    cfg = tiny_focal_cfg()
    counts = model.anchor_generator.num_anchors
    model.head = NamesakeHead(cfg, input_shape=shapes, num_anchors=counts)
    if wrap:
        wrap(model)
    assert losses_of(model, batch).keys() == {"loss_cls", "loss_box_reg"}
    assert len(detections_of(model, batch)) == len(batch)
    optimize_for_inference(model)


def test_a_layer_of_the_name_of_a_method_of_another_ability():
    """QualityHead does not refine: its subclasses may call a layer so."""
    head = detector("QualityHead").head
    head.refine = nn.Conv2d(1, 1, 1)
    assert HeadAbilities(head).refine(["as it was"], None) == ["as it was"]


@pytest.mark.parametrize("name", ["extra_losses", "fused_logits"])
def test_a_layer_of_the_name_of_a_method_of_its_ability(name):
    head = detector("QualityHead").head
    setattr(head, name, nn.Conv2d(1, 1, 1))
    with pytest.raises(TypeError, match=f"QualityHead has a layer or attribute '{name}', but"):
        HeadAbilities(head)


def test_heads_that_know_nothing_of_us():
    """Detectron2's own, and any module that returns maps."""
    model, batch = detector(), make_batch()
    shapes = list(model.backbone.output_shape().values())
    model.head = RetinaNetHead(
        input_shape=shapes, num_classes=7, num_anchors=model.anchor_generator.num_anchors[0],
        conv_dims=[8],
    )  # fmt: skip
    assert losses_of(model, batch).keys() == {"loss_cls", "loss_box_reg"}
    detections_of(model, batch)


@pytest.mark.parametrize("name", ["refine", "extra_losses", "fused_logits"])
def test_a_method_without_its_base_class_is_warned_of_once(name, caplog):
    def method(self, *_):
        raise AssertionError("it was called")

    kind = type("LonelyHead", (FocalRetinaNetHead,), {name: method})
    model, batch = detector(), make_batch()
    counts = model.anchor_generator.num_anchors
    shapes = list(model.backbone.output_shape().values())
    model.head = kind(tiny_focal_cfg(), input_shape=shapes, num_anchors=counts)
    losses_of(model, batch)
    detections_of(copy.deepcopy(model), batch)
    (said,) = [x for x in caplog.messages if "LonelyHead" in x]
    base = next(x.__name__ for x in ABILITIES if name in vars(x))
    assert f"LonelyHead.{name} is not used by retina_plugin" in said
    assert f"derived from retina_plugin.modeling.abilities.{base}" in said


def test_a_form_for_inference_without_the_base_class_is_warned_of(caplog):
    class Lonely(nn.Conv2d):
        def for_inference(self):
            raise AssertionError("it was called")

    optimize_for_inference(nn.Sequential(Lonely(3, 3, 1), Lonely(3, 3, 1)), channels_last=False)
    (said,) = [x for x in caplog.messages if "Lonely.for_inference is not used" in x]
    assert "abilities.Reparameterizable" in said


def test_a_coder_with_a_dim_of_its_own(caplog):
    """Without the base class it is any attribute; with it the number of predictions."""

    class Foreign:
        dim = 256

    class Ours(BoxCoder):
        dim = 12

    assert (box_dim(Foreign()), box_dim(Ours()), box_dim(BoxCoder())) == (4, 12, 4)
    abilities.warn_of_undeclared(Foreign(), BoxCoder, attributes=("dim",))
    assert "Foreign.dim is not used by retina_plugin" in caplog.text
    assert "contracts.BoxCoder" in caplog.text


def test_the_defaults_change_nothing():
    class Idle(ExtraLosses, FusedLogits, Refinement, Reparameterizable): ...

    model, batch = detector(), make_batch()
    before = copy.deepcopy(model)  # the normalizer counts
    expected = losses_of(before, batch), detections_of(before, batch)
    idle = Idle()
    idle.add_module("inner", model.head)
    idle.forward = model.head.forward
    model.head = idle
    found = losses_of(model, batch), detections_of(model, batch)
    for name, loss in expected[0].items():
        assert torch.equal(found[0][name], loss)
    for a, b in zip(expected[1], found[1], strict=True):
        assert torch.equal(a["instances"].scores, b["instances"].scores)
    assert idle.for_inference() is idle


def test_every_head_of_ours_declares_what_it_has():
    for name, head in HEADS:
        for ability in (ExtraLosses, FusedLogits, Refinement):
            (method,) = [x for x in vars(ability) if not x.startswith("_")]
            assert issubclass(head, ability) == hasattr(head, method), (name, method)


def test_a_network_that_is_no_pretrained_network_is_asked_nothing():
    """A layer called ``layer_names`` or ``map_pretrained`` is a layer."""
    from retina_plugin.checkpoint.mapping import map_onto
    from retina_plugin.modeling.backbones.pixel_format import pixel_warning
    from retina_plugin.runs.layer_decay import layers_of

    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network.layer_names = network.map_pretrained = nn.Identity()
    network.pixel_format = "BGR"
    assert layers_of(network) == [["0"], ["1"]]
    assert map_onto(network, {"other": torch.ones(3)}).tensors == {}
    pixels = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "order": "RGB"}
    assert pixel_warning(network, weights="x.pth", **pixels) is None
