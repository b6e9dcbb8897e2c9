"""The head against Detectron2's, and with different numbers of anchors on its levels."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from support.tiny_models import tiny_cfg

from retina_plugin.modeling.heads.focal_retinanet_head import FocalRetinaNetHead

C, K = 32, 4
SIZES = ((6, 8), (3, 4), (2, 2))


def make_head(num_anchors, head=FocalRetinaNetHead, **arguments):
    settings = {
        "input_shape": [ShapeSpec(channels=C)] * len(SIZES),
        "num_classes": K,
        "conv_dims": [C, C],
        "num_anchors": num_anchors,
    }
    return head(**{**settings, **arguments})


def features(num_images=2):
    return [torch.randn(num_images, C, h, w) for h, w in SIZES]


@pytest.mark.parametrize("norm", ["", "GN", "BN", "SyncBN", "FrozenBN"])
@pytest.mark.parametrize("num_anchors", [1, 9])
def test_equals_stock(num_anchors, norm):
    stock = make_head(num_anchors, RetinaNetHead, norm=norm)
    ours = make_head([num_anchors] * 3, norm=norm)
    assert ours.load_state_dict(stock.state_dict())
    maps = features()
    for mode in (True, False):
        stock.train(mode), ours.train(mode)
        for found, expected in zip(ours(maps), stock(maps), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("norm", ["", "GN"])
def test_from_a_config_it_starts_as_stock(norm):
    """The stock keys say how many convolutions and classes, which norm and which prior."""
    cfg = tiny_cfg(NORM=norm, NUM_CONVS=3, NUM_CLASSES=5, PRIOR_PROB=0.2)
    levels = [ShapeSpec(channels=C, stride=8 * 2**i) for i in range(5)]
    torch.manual_seed(1)
    stock = RetinaNetHead(cfg, levels).state_dict()
    torch.manual_seed(1)
    ours = FocalRetinaNetHead(cfg, input_shape=levels, num_anchors=[9] * 5).state_dict()
    assert ours.keys() == stock.keys()
    assert all(torch.equal(ours[name], value) for name, value in stock.items())


@pytest.mark.parametrize("counts", [3, [3, 3, 3], [1, 9, 3], [3, 1, 3]])
def test_shapes(counts):
    logits, deltas = make_head(counts)(features())
    counts = [counts] * 3 if isinstance(counts, int) else counts
    for level, (a, (h, w)) in enumerate(zip(counts, SIZES, strict=True)):
        assert logits[level].shape == (2, a * K, h, w)
        assert deltas[level].shape == (2, a * 4, h, w)


def test_levels_with_the_same_number_share_their_outputs():
    head = make_head([3, 1, 3])
    assert sorted(head.cls_score) == ["1", "3"]
    assert sorted(head.bbox_pred) == ["1", "3"]
    towers = {n.split(".")[0] for n, _ in head.named_parameters()}
    assert towers == {"cls_subnet", "bbox_subnet", "cls_score", "bbox_pred"}


def test_a_level_is_computed_as_if_it_were_alone():
    """Each level's maps are those of a stock head with that level's output layers."""
    counts = [3, 1, 3]
    head = make_head(counts)
    maps = features()
    logits, deltas = head(maps)
    for level, count in enumerate(counts):
        stock = make_head(count, RetinaNetHead)
        towers = {n: p for n, p in head.state_dict().items() if "subnet" in n}
        outputs = {
            f"{name}.{part}": getattr(getattr(head, name)[str(count)], part)
            for name in ("cls_score", "bbox_pred")
            for part in ("weight", "bias")
        }
        stock.load_state_dict({**towers, **outputs})
        expected_logits, expected_deltas = stock(maps)
        torch.testing.assert_close(logits[level], expected_logits[level])
        torch.testing.assert_close(deltas[level], expected_deltas[level])


@pytest.mark.parametrize("counts", [3, [3, 1, 2]])
def test_initial_scores_are_the_prior(counts):
    head = make_head(counts, prior_prob=0.02)
    logits, deltas = head([torch.zeros(1, C, h, w) for h, w in SIZES])
    for x in logits:
        torch.testing.assert_close(x.sigmoid(), torch.full_like(x, 0.02))
    assert all((x == 0).all() for x in deltas)


def test_new_outputs_are_initialised_like_the_first():
    head = make_head([9, 3, 1])
    for layer in (*head.cls_score.values(), *head.bbox_pred.values()):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("counts", [[3, 3], [3, 3, 3, 3]])
def test_a_count_per_level_is_needed(counts):
    with pytest.raises(ValueError, match=f"{len(counts)} entries for 3 levels"):
        make_head(counts)
