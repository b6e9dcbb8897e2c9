"""Test-time augmentation: what must be equal is, and boxes come back to where they are."""

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling import DatasetMapperTTA, build_model
from detectron2.structures import Boxes, Instances
from support.batches import make_batch, make_image
from support.block_finder import BlockFinder
from support.model_pairs import build_pair
from support.tiny_models import tiny_cfg, tiny_focal_cfg
from torchvision.ops import batched_nms

from retina_plugin import TiledDetector, optimize_for_inference
from retina_plugin.inference.augmented_detector import AugmentedDetector
from retina_plugin.modeling.post_processors.box_voting_post_processor import vote
from retina_plugin.workbench.benchmark.calibration import calibrate


@pytest.fixture(scope="module")
def image():
    torch.manual_seed(3)
    return make_image(96, 160)


@pytest.fixture(scope="module")
def model(image):
    made = build_model(tiny_focal_cfg(SCORE_THRESH_TEST=0.3)).eval()
    calibrate(made, [{"image": image}])
    return made


def found_by(detector, *inputs):
    with torch.no_grad():
        return [output["instances"] for output in detector(list(inputs))]


def assert_same(found, expected, *, atol=1e-3):
    """Equal up to rounding, in the order of the scores, equal scores in any."""
    assert found.image_size == expected.image_size
    assert len(found) == len(expected) > 3
    sides = []
    for x in (found, expected):
        rows = torch.cat(
            [x.scores[:, None], x.pred_classes[:, None].float(), x.pred_boxes.tensor], dim=1
        )
        order = np.lexsort([*rows[:, 2:].numpy().round(1).T, rows[:, 1].numpy(), -rows[:, 0]])
        sides.append(rows[order])
    torch.testing.assert_close(*sides, atol=atol, rtol=0)


# ---- what must change nothing


@pytest.mark.parametrize("processor", ["NMSPostProcessor", "SoftNMSPostProcessor"])
@pytest.mark.parametrize("vote_thresh", [0.2, 1.0])
@pytest.mark.parametrize("sizes", [[96], [96, 96]])
def test_views_that_are_the_image_give_what_the_detector_gives(processor, vote_thresh, sizes):
    """Voting below the NMS threshold too: neighbours have no say in each other."""
    cfg = tiny_focal_cfg(SCORE_THRESH_TEST=0.3)
    cfg.MODEL.RETINANET.POST_PROCESSOR.NAME = processor
    detector = build_model(cfg).eval()
    inputs = [{"image": make_image(96, 160), "height": 192, "width": 250}]
    inputs += [{"image": make_image(96, 100)}]
    calibrate(detector, inputs)
    augmented = AugmentedDetector(detector, min_sizes=sizes, flip=False, vote_thresh=vote_thresh)
    for found, given in zip(found_by(augmented, *inputs), inputs, strict=True):
        assert_same(found, *found_by(detector, given))


def test_detectron2s_own_retinanet_too(image):
    batch = [{"image": image, "height": 50, "width": 80}]
    stock = build_pair(tiny_cfg(SCORE_THRESH_TEST=0.3), batch).stock.eval()
    augmented = AugmentedDetector(stock, min_sizes=[96], flip=False)
    assert_same(*found_by(augmented, *batch), *found_by(stock, *batch))


def test_a_mirrored_image_gives_mirrored_boxes(model, image):
    augmented = AugmentedDetector(model, min_sizes=[64, 96])
    there, back = found_by(augmented, {"image": image}, {"image": image.flip(2)})
    x0, y0, x1, y1 = back.pred_boxes.tensor.unbind(1)
    back.pred_boxes = Boxes(torch.stack([160 - x1, y0, 160 - x0, y1], dim=1))
    assert_same(back, there)
    plain = found_by(model, {"image": image})[0]
    assert len(plain) != len(there) or not torch.equal(plain.scores, there.scores)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_batch_changes_nothing(model, image, batch):
    inputs = {"image": image}, {"image": make_image(96, 100)}, {"image": image.flip(1)}
    expected = [
        found_by(AugmentedDetector(model, min_sizes=[64, 96], batch=1), given)[0]
        for given in inputs
    ]
    augmented = AugmentedDetector(model, min_sizes=[64, 96], batch=batch)
    for a, b in zip(found_by(augmented, *inputs), expected, strict=True):
        assert_same(a, b)


# ---- merging


def test_merges_as_detectron2_does_for_rcnn(model, image):
    """NMS over the views' detections, in the image's pixels; without votes."""
    given = {"image": image, "height": 96, "width": 160}
    parts = []
    for index, view in enumerate(DatasetMapperTTA([64, 96, 120], 4000, True)(given)):
        (found,) = found_by(model, {"image": view["image"]})
        height, width = view["image"].shape[1:]
        x0, y0, x1, y1 = found.pred_boxes.tensor.unbind(1)
        if index % 2:  # the mirror image
            x0, x1 = width - x1, width - x0
        boxes = torch.stack([x0, y0, x1, y1], dim=1) * torch.tensor([160 / width, 96 / height] * 2)
        parts.append((boxes, found.scores, found.pred_classes))
    boxes, scores, classes = (torch.cat(x) for x in zip(*parts, strict=True))
    keep = batched_nms(boxes, scores, classes, 0.5)[:100]
    expected = Instances(
        (96, 160),
        pred_boxes=Boxes(boxes[keep]),
        scores=scores[keep],
        pred_classes=classes[keep],
    )
    augmented = AugmentedDetector(model, min_sizes=[64, 96, 120], vote_thresh=1.0)
    assert_same(*found_by(augmented, given), expected)


class TwoFinds(torch.nn.Module):
    """One box in each view, two pixels to the right in the mirrored one (its first pixel is 0)."""

    nms_thresh, max_detections = 0.5, 10

    def forward(self, inputs):
        return [{"instances": self.find(x["image"])} for x in inputs]

    def find(self, image):
        mirrored = int(image[0, 0, 0]) == 0
        box = [60.0, 10, 80, 30] if not mirrored else [100 - 82.0, 10, 100 - 62, 30]
        score = 0.9 if not mirrored else 0.6
        return Instances(
            tuple(image.shape[1:]),
            pred_boxes=Boxes(torch.tensor([box])),
            scores=torch.tensor([score]),
            pred_classes=torch.tensor([1]),
        )


@pytest.mark.parametrize(("vote_thresh", "left"), [(0.5, 60.8), (0.9, 60.0), (1.0, 60.0)])
def test_the_dropped_boxes_vote_and_the_score_stays(vote_thresh, left):
    image = torch.zeros(3, 50, 100, dtype=torch.uint8)
    image[:, 0, 0] = 255
    augmented = AugmentedDetector(TwoFinds().eval(), min_sizes=[50], vote_thresh=vote_thresh)
    (found,) = found_by(augmented, {"image": image})
    assert found.scores.tolist() == pytest.approx([0.9])
    assert found.pred_boxes.tensor[0, 0].item() == pytest.approx(
        left
    )  # (0.9 * 60 + 0.6 * 62) / 1.5


def test_each_box_votes_for_the_kept_one_that_it_overlaps_most():
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [1, 0, 11, 10], [3, 0, 13, 10]])
    scores, groups, keep = torch.full((4,), 0.5), torch.zeros(4).long(), torch.tensor([0, 1])
    moved = [vote(boxes, scores, groups, keep, vote_thresh=0.2, once=x)[:, 0] for x in (0, 1)]
    assert moved[0].tolist() == [2, 2]  # all of them, for both
    assert moved[1].tolist() == [0.5, 3.5]
    other_class = torch.tensor([0, 0, 1, 0])
    found = vote(boxes, scores, other_class, keep, vote_thresh=0.2, once=True)
    assert found[:, 0].tolist() == [0, 3.5]


def test_keeps_the_best_as_many_as_the_detector_would(model, image):
    plenty = found_by(AugmentedDetector(model, min_sizes=[64, 96]), {"image": image})[0]
    few = AugmentedDetector(model, min_sizes=[64, 96], max_detections=4)
    (found,) = found_by(few, {"image": image})
    assert torch.equal(found.scores, plenty.scores[:4])


def test_nothing_found(image):
    model = build_model(tiny_focal_cfg(SCORE_THRESH_TEST=1.0)).eval()
    (found,) = found_by(AugmentedDetector(model, min_sizes=[64]), {"image": image})
    assert len(found) == 0 and found.image_size == (96, 160)


# ---- with other parts


@pytest.mark.parametrize("flip", [False, True])
def test_around_tiles_every_block_is_found_once(flip):
    image = torch.zeros(1, 300, 400, dtype=torch.uint8)
    for value in range(1, 13):
        row, column = divmod(value - 1, 4)
        image[:, row * 90 + 20 : row * 90 + 60, column * 95 + 15 : column * 95 + 45] = value
    tiled = TiledDetector(BlockFinder().eval(), size=200, overlap=60)
    augmented = AugmentedDetector(tiled, min_sizes=[300], flip=flip)
    expected, found = (
        found_by(BlockFinder(), {"image": image})[0],
        found_by(augmented, {"image": image})[0],
    )
    assert_same(found, expected)


def test_around_tiles_of_a_network(model, image):
    tiled = TiledDetector(model, size=96, overlap=32)
    augmented = AugmentedDetector(tiled, min_sizes=[96], flip=False)
    assert (augmented.nms_thresh, augmented.max_detections) == (0.5, 100)
    assert_same(*found_by(augmented, {"image": image}), *found_by(tiled, {"image": image}))


def test_bands():
    cfg = tiny_focal_cfg(SCORE_THRESH_TEST=0.3)
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [100.0] * 5, [50.0] * 5
    model = build_model(cfg).eval()
    given = {"image": torch.rand(5, 96, 160) * 255}
    calibrate(model, [given])
    augmented = AugmentedDetector(model, min_sizes=[96], flip=False)
    assert_same(*found_by(augmented, given), *found_by(model, given))


def test_built_by_a_lazy_config_and_of_an_optimized_copy(model, image):
    augmented = instantiate(L(AugmentedDetector)(detector=L(BlockFinder)(), min_sizes=[96]))
    assert augmented.training and not augmented.eval().detector.training
    fast = AugmentedDetector(optimize_for_inference(model), min_sizes=[96])
    plain = AugmentedDetector(model, min_sizes=[96])
    assert_same(*found_by(fast, {"image": image}), *found_by(plain, {"image": image}), atol=1e-2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_sizes": []}, r"TEST.AUG.MIN_SIZES .* got \[\]"),
        ({"min_sizes": [0]}, r"TEST.AUG.MIN_SIZES .* got \[0\]"),
        ({"max_size": 0}, r"TEST.AUG.MAX_SIZE .* got 0"),
        ({"vote_thresh": 1.5}, r"TEST.AUG.VOTE_THRESH .* 1 for no votes; got 1.5"),
        ({"batch": 0}, r"TEST.AUG.BATCH .* got 0"),
    ],
)
def test_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        AugmentedDetector(BlockFinder(), **{"min_sizes": [96], **settings})


def test_is_not_for_training():
    with pytest.raises(ValueError, match=r"in training: call eval\(\) first"):
        AugmentedDetector(BlockFinder(), min_sizes=[96])(make_batch())
