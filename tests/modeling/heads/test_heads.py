"""What holds for every head: shapes, first scores, gradients, and a detector built of it."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.tiny_models import tiny_focal_cfg
from support.tiny_necks import CHANNELS

from retina_plugin import add_retina_config
from retina_plugin.inference.optimize_for_inference import optimize_for_inference
from retina_plugin.registry import HEADS
from retina_plugin.runs.solver import build_optimizer
from retina_plugin.workbench.benchmark.synchronisations import SynchronisationCounter

C, K = 32, 4
SIZES = ((6, 8), (3, 4), (2, 2))
NAMES = sorted(name for name, head in HEADS if head.__module__.startswith("retina_plugin."))
SMALL = ((64, 96), (72, 64))
EXTRAS = {"QualityHead": "quality", "CornerHead": "corners"}


def make_head(name, num_anchors=2, **arguments):
    settings = {
        "input_shape": [ShapeSpec(channels=C, stride=8 * 2**i) for i in range(len(SIZES))],
        "num_classes": K,
        "conv_dims": [C, C],
        "num_anchors": num_anchors,
    }
    return HEADS.get(name)(**{**settings, **arguments})


def features(num_images=2):
    return [torch.randn(num_images, C, h, w) for h, w in SIZES]


def outputs(found):
    logits, deltas, *extras = found
    return [*logits, *deltas, *(x for e in extras for maps in e.values() for x in maps)]


def cfg_with(name, extended=True, **settings):
    cfg = tiny_focal_cfg(extended)
    if extended:
        cfg.MODEL.RETINANET.HEAD.NAME = name
    else:
        cfg.MODEL.RETINANET.HEAD = type(cfg)({"NAME": name})
    for key, value in settings.items():
        cfg.merge_from_list([f"MODEL.RETINANET.HEAD.{name}.{key}", value])
    return cfg


def different_anchors(cfg):
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "OctaveAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128], [256]]
    cfg.MODEL.ANCHOR_GENERATOR.OctaveAnchorGenerator.SCALES_PER_OCTAVE = [3, 1, 1, 1, 1]
    return cfg


def test_there_are_heads():
    assert len(NAMES) >= 5


@pytest.mark.parametrize("box_dim", [4, 68])
@pytest.mark.parametrize("counts", [3, [1, 3, 2]])
@pytest.mark.parametrize("name", NAMES)
def test_shapes(name, counts, box_dim):
    logits, deltas, *extras = make_head(name, counts, box_dim=box_dim)(features())
    counts = [counts] * 3 if isinstance(counts, int) else counts
    for level, (a, (h, w)) in enumerate(zip(counts, SIZES, strict=True)):
        assert logits[level].shape == (2, a * K, h, w)
        assert deltas[level].shape == (2, a * box_dim, h, w)
    assert [list(x) for x in extras] == ([[EXTRAS[name]]] if name in EXTRAS else [])


@pytest.mark.parametrize("counts", [3, [3, 1, 2]])
@pytest.mark.parametrize("name", NAMES)
def test_initial_scores_are_the_prior(name, counts):
    logits, deltas, *_ = make_head(name, counts, prior_prob=0.02)(
        [torch.zeros(1, C, h, w) for h, w in SIZES]
    )
    for x in logits:
        torch.testing.assert_close(x.sigmoid(), torch.full_like(x, 0.02))
    assert all((x == 0).all() for x in deltas)


@pytest.mark.parametrize("norm", ["", "GN", "BN"])
@pytest.mark.parametrize("counts", [2, [2, 1, 2]])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_all_parameters(name, counts, norm):
    head = make_head(name, counts, norm=norm, level_scales=True)
    for parameter in head.parameters():  # away from zeros, where many a gradient would vanish
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
        else:
            torch.nn.init.constant_(parameter, 0.5)
    total = sum(x.square().sum() for x in outputs(head(features())))
    total.backward()
    for parameter_name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_levels_of_different_channels(name):
    """A 1x1 convolution for each that differs, which learns; the towers stay shared."""
    channels = (C, 2 * C, 3)
    shapes = [ShapeSpec(channels=c, stride=8 * 2**i) for i, c in enumerate(channels)]
    head, plain = make_head(name, input_shape=shapes), make_head(name)
    added = set(head.state_dict()) - set(plain.state_dict())
    assert added == {f"level_inputs.convs.{i}.{x}" for i in (1, 2) for x in ("weight", "bias")}
    maps = [torch.randn(2, c, *size) for c, size in zip(channels, SIZES, strict=True)]
    found = outputs(head(maps))
    assert [x.shape for x in found] == [x.shape for x in outputs(plain(features()))]
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    sum(x.square().sum() for x in outputs(head(maps))).backward()
    assert all(conv.weight.grad.abs().sum() > 0 for conv in head.level_inputs.convs.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_without_a_neck(name):
    """Its levels are the stages, of different channels."""
    cfg = cfg_with(name)
    cfg.MODEL.BACKBONE.NAME = "build_tiny_stages_backbone"
    cfg.MODEL.RETINANET.IN_FEATURES = list(CHANNELS)
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16, 20], [32, 40], [64, 80]]
    model, batch = build_model(cfg).train(), make_batch()
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(p.grad is not None for p in model.parameters())
    assert len(model.eval()(batch)) == len(batch)


@pytest.mark.parametrize("name", NAMES)
def test_levels_that_it_was_not_built_for(name):
    maps = features()
    maps[1] = torch.randn(2, C + 1, *SIZES[1])
    with pytest.raises(ValueError, match=r"levels of \[32, 32, 32\] channels, and gets \[32, 33, "):
        make_head(name)(maps)
    with pytest.raises(ValueError, match=r"and gets \[32, 32\]: give it the backbone's output_sh"):
        make_head(name)(features()[:2])


@pytest.mark.parametrize("norm", ["", "GN", "BN", "FrozenBN"])
@pytest.mark.parametrize("name", NAMES)
def test_images_do_not_see_each_other(name, norm):
    head = make_head(name, norm=norm).eval()
    maps = features(3)
    with torch.no_grad():
        together = outputs(head(maps))
        alone = outputs(head([x[1:2] for x in maps]))
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:2], b)


@pytest.mark.parametrize("norm", ["", "GN", "BN"])
@pytest.mark.parametrize("name", [x for x in NAMES if x != "SeparableHead"])
def test_common_parts_have_detectron2s_names(name, norm):
    stock = RetinaNetHead(
        input_shape=[ShapeSpec(channels=C)] * 3,
        num_classes=K,
        conv_dims=[C, C],
        num_anchors=2,
        norm=norm,
    ).state_dict()
    ours = make_head(name, 2, norm=norm).state_dict()
    shared = {"cls_score", "bbox_pred"}
    if name != "TaskAlignedHead":  # which has one tower for both
        shared |= {"cls_subnet", "bbox_subnet"}
    for key, value in stock.items():
        if key.split(".")[0] in shared:
            assert ours[key].shape == value.shape


def test_level_scales_multiply_the_deltas_of_their_level():
    head = make_head("FocalRetinaNetHead", level_scales=True)
    maps = features()
    (_, plain) = head(maps)
    with torch.no_grad():
        head.level_scales.copy_(torch.tensor([2.0, 3.0, 0.5]))
    for factor, before, after in zip((2.0, 3.0, 0.5), plain, head(maps)[1], strict=True):
        torch.testing.assert_close(after, before * factor)
    assert make_head("FocalRetinaNetHead").state_dict().keys() == head.state_dict().keys() - {
        "level_scales"
    }


@pytest.mark.parametrize(
    ("name", "extended"), [*((name, True) for name in NAMES), ("QualityHead", False)]
)
def test_trains_and_detects_by_one_line_of_config(name, extended):
    cfg = cfg_with(name, extended)
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.RETINANET.NORM = "GN"
    model, batch = build_model(cfg).train(), make_batch(sizes=SMALL)
    optimizer = build_optimizer(cfg, model)
    before = {n: p.detach().clone() for n, p in model.head.named_parameters()}
    for _ in range(2):
        losses = model(batch)
        assert all(loss.isfinite() for loss in losses.values())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    unmoved = [n for n, p in model.head.named_parameters() if torch.equal(p, before[n])]
    assert unmoved == []
    model.eval()
    with torch.no_grad():
        found = model(batch)
        fast = optimize_for_inference(model)(batch)
    for ours, theirs in zip(found, fast, strict=True):
        assert 0 < len(ours["instances"]) <= 100
        assert (ours["instances"].scores <= 1).all()
        torch.testing.assert_close(
            ours["instances"].scores, theirs["instances"].scores, rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize("name", NAMES)
def test_different_anchors_and_half_precision(name):
    model = build_model(different_anchors(cfg_with(name, LEVEL_SCALES=True))).train()
    batch = make_batch(sizes=SMALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(batch)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    model.post_processor.score_thresh = 0.0
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(len(x["instances"]) > 0 for x in model(batch))


@pytest.mark.parametrize("name", NAMES)
def test_images_without_objects(name):
    """Every parameter has a gradient all the same, as workers that share them need."""
    model = build_model(cfg_with(name)).train()
    losses = model(make_batch((0, 0), SMALL))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    for parameter_name, parameter in model.head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name


def waits_of_a_step(name):
    model, batch = build_model(cfg_with(name)).train(), make_batch(sizes=SMALL)
    with SynchronisationCounter(model.device, batch) as counter:
        sum(model(batch).values()).backward()
    return counter.waits.total(), counter.uploads.total()


@pytest.mark.parametrize("name", NAMES)
def test_no_head_waits_for_the_device(name):
    assert waits_of_a_step(name) == waits_of_a_step("FocalRetinaNetHead")


def test_the_defaults_add_nothing_to_the_papers_head():
    cfg = add_retina_config(tiny_focal_cfg(False))
    assert cfg.MODEL.RETINANET.HEAD.NAME == "FocalRetinaNetHead"
    assert cfg.MODEL.RETINANET.HEAD.FocalRetinaNetHead.LEVEL_SCALES is False
