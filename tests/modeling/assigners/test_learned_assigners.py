"""ATSS, task-aligned and SimOTA assignment against the papers' loops, and in their corners."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from support import naive_assigners as naive
from support.batches import make_batch
from support.tiny_models import tiny_focal_cfg

from retina_plugin.modeling.assigners.atss_assigner import ATSSAssigner, nearest
from retina_plugin.modeling.assigners.sim_ota_assigner import SimOTAAssigner
from retina_plugin.modeling.assigners.task_aligned_assigner import TaskAlignedAssigner
from retina_plugin.modeling.coders.delta_coder import DeltaCoder
from retina_plugin.modeling.contracts import Predictions
from retina_plugin.workbench.benchmark.memory import peak_memory
from retina_plugin.workbench.benchmark.synchronisations import SynchronisationCounter

K = 4
CPU = torch.device("cpu")
STRIDES = (8, 16, 32)
ASSIGNERS = [ATSSAssigner, TaskAlignedAssigner, SimOTAAssigner]


def scene(counts=(5, 3), height=96, width=128, shapes=((1.0, 1.0),), seed=0):
    """Anchors of three levels, ground truth of some images, random predictions."""
    torch.manual_seed(seed)
    levels, logits, deltas = [], [], []
    for stride in STRIDES:
        rows, columns = height // stride, width // stride
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        middle = (torch.stack([x, y], dim=-1).reshape(-1, 1, 2) + 0.5) * stride
        half = torch.tensor(shapes) * stride * 2
        levels.append(Boxes(torch.cat([middle - half, middle + half], dim=2).view(-1, 4)))
        n, a = len(counts), len(shapes)
        logits.append(torch.randn(n, a * K, rows, columns))
        deltas.append(torch.randn(n, a * 4, rows, columns) * 0.2)
    instances = []
    for count in counts:
        corner = torch.rand(count, 2) * torch.tensor([width - 40.0, height - 40.0])
        boxes = torch.cat([corner, corner + 12 + torch.rand(count, 2) * 28], dim=1)
        classes = torch.randint(K, (count,))
        instances.append(Instances((height, width), gt_boxes=Boxes(boxes), gt_classes=classes))
    return levels, instances, Predictions(logits, deltas, levels, coder=DeltaCoder())


SQUARE, NINE = ((1.0, 1.0),), tuple((1.0 + i / 9, 1.4 - i / 9) for i in range(9))


def found_in(targets, image):
    """Anchor -> box, of the objects of one image."""
    is_object = (targets.labels[image] >= 0) & (targets.labels[image] < K)
    at = is_object.nonzero().flatten().tolist()
    return {index: targets.matched[image, index].item() for index in at}


def plain(levels):
    return [level.tensor.tolist() for level in levels]


@pytest.mark.parametrize("shapes", [SQUARE, NINE], ids=["1", "9"])
@pytest.mark.parametrize("topk", [1, 4, 9])
@pytest.mark.parametrize("seed", range(3))
def test_atss_is_the_papers(topk, shapes, seed):
    levels, instances, predictions = scene(shapes=shapes, seed=seed)
    for given in (predictions, None):  # without, A is seen from the anchors
        targets = ATSSAssigner(topk=topk)(levels, instances, K, given)
        for image, x in enumerate(instances):
            boxes = x.gt_boxes.tensor.tolist()
            expected = naive.atss(plain(levels), boxes, len(shapes), topk)
            assert found_in(targets, image) == expected
            assert len(expected) > 0
            for anchor, box in expected.items():
                assert targets.labels[image, anchor] == x.gt_classes[box]
    assert targets.scores is None


def test_nearest_cells_are_the_first_of_equal_ones():
    cells = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0], [9.0, 9.0]])
    assert nearest(torch.tensor([[2.0, 2.0]]), cells, 3).tolist() == [[0, 1, 2]]
    assert nearest(torch.tensor([[9.0, 9.0]]), cells, 9).tolist() == [[4, 3, 1, 2, 0]]


@pytest.mark.parametrize(("alpha", "beta", "topk"), [(1.0, 6.0, 13), (0.5, 2.0, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_task_aligned_is_the_papers(alpha, beta, topk, seed):
    levels, instances, predictions = scene(shapes=NINE[:2], seed=seed)
    targets = TaskAlignedAssigner(topk=topk, alpha=alpha, beta=beta)(
        levels, instances, K, predictions
    )
    anchors = Boxes.cat(levels).tensor.tolist()
    for image, x in enumerate(instances):
        logits = predictions.class_logits(image, torch.arange(K))
        expected = naive.task_aligned(
            anchors,
            predictions.boxes(image).tolist(),
            logits.sigmoid().T.tolist(),
            x.gt_boxes.tensor.tolist(),
            x.gt_classes.tolist(),
            topk,
            alpha,
            beta,
        )
        assert found_in(targets, image) == {a: box for a, (box, _) in expected.items()}
        for anchor, (_, soft) in expected.items():
            assert targets.scores[image, anchor].item() == pytest.approx(soft, rel=1e-4, abs=1e-6)
        rest = set(range(len(anchors))) - set(expected)
        assert not targets.scores[image, list(rest)].any()
    assert torch.equal(
        targets.positive_scores, targets.scores[targets.positives.image, targets.positives.anchor]
    )


@pytest.mark.parametrize("seed", range(3))
def test_sim_ota_is_the_papers(seed):
    levels, instances, predictions = scene(shapes=NINE[:2], seed=seed)
    targets = SimOTAAssigner()(levels, instances, K, predictions)
    anchors = Boxes.cat(levels).tensor.tolist()
    strides = [s for s, level in zip(STRIDES, levels, strict=True) for _ in range(len(level))]
    for image, x in enumerate(instances):
        logits = predictions.class_logits(image, torch.arange(K))
        expected = naive.sim_ota(
            anchors,
            strides,
            predictions.boxes(image).tolist(),
            logits.sigmoid().T.tolist(),
            x.gt_boxes.tensor.tolist(),
            x.gt_classes.tolist(),
            topk=10,
            radius=2.5,
            iou_weight=3.0,
        )
        assert found_in(targets, image) == expected
        assert len(expected) >= len(x)


@pytest.mark.parametrize("assigner", ASSIGNERS)
def test_images_without_boxes(assigner):
    for counts in ((0, 3), (0, 0)):
        levels, instances, predictions = scene(counts)
        targets = assigner()(levels, instances, K, predictions)
        assert (targets.labels[0] == K).all()
        assert bool(found_in(targets, 1)) == bool(counts[1])


@pytest.mark.parametrize("assigner", ASSIGNERS)
def test_no_anchors_at_all(assigner):
    _, instances, _ = scene()
    empty = [Boxes(torch.zeros(0, 4))]
    maps = torch.zeros(2, K, 0, 0), torch.zeros(2, 4, 0, 0)
    predictions = Predictions([maps[0]], [maps[1]], empty, coder=DeltaCoder())
    targets = assigner()(empty, instances, K, predictions)
    assert targets.labels.shape == (2, 0) and len(targets.positives) == 0


@pytest.mark.parametrize("assigner", ASSIGNERS)
def test_chunks_change_nothing(assigner, monkeypatch):
    from retina_plugin.modeling.assigners import per_image

    levels, instances, predictions = scene((30, 2))
    whole = assigner()(levels, instances, K, predictions)
    monkeypatch.setattr(per_image, "_PAIRS", 500)
    parts = assigner()(levels, instances, K, predictions)
    assert torch.equal(whole.labels, parts.labels)
    assert torch.equal(whole.matched, parts.matched)
    assert (whole.scores is None) or torch.equal(whole.scores, parts.scores)


@pytest.mark.parametrize("assigner", ASSIGNERS)
def test_twins_go_to_the_first(assigner):
    levels, (x, _), predictions = scene((1, 0))
    twins = Instances.cat([x, x])
    targets = assigner()(levels, [twins, Instances.cat([x])], K, predictions)
    assert set(found_in(targets, 0).values()) == {0}


@pytest.mark.parametrize("assigner", ASSIGNERS)
def test_never_waits_for_the_device(assigner):
    levels, instances, predictions = scene()
    with SynchronisationCounter(CPU) as counter:
        assigner()(levels, instances, K, predictions)
    assert not counter.waits, counter.waits


@pytest.mark.parametrize("assigner", ASSIGNERS)
def test_memory_is_bounded(assigner):
    """3,000 boxes: a matrix with all 34,272 anchors would take 390 MiB."""
    levels, instances, predictions = scene((3000,), 800, 1088, SQUARE * 2)
    assert sum(map(len, levels)) == 2 * (100 * 136 + 50 * 68 + 25 * 34)

    def assign():
        return assigner()(levels, instances, K, predictions)

    assert peak_memory(assign, CPU) < 150 * 2**20


@pytest.mark.parametrize(
    ("assigner", "loss"),
    [
        ("ATSSAssigner", {}),
        ("TaskAlignedAssigner", {"BOXES_BY": "quality", "COUNT": "quality"}),
        ("SimOTAAssigner", {"BOXES_BY": "score"}),
    ],
)
def test_trains_from_the_config(assigner, loss):
    torch.manual_seed(0)
    cfg = tiny_focal_cfg(BBOX_REG_LOSS_TYPE="giou")
    cfg.MODEL.RETINANET.ASSIGNER.NAME = assigner
    cfg.MODEL.RETINANET.CLS_LOSS.NAME = "QualityFocalLoss"
    cfg.MODEL.RETINANET.LOSS.merge_from_list([x for pair in loss.items() for x in pair])
    cfg.MODEL.RETINANET.NORMALIZER.NAME = "BatchNormalizer"
    model, batch = build_model(cfg), make_batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    totals = []
    for _ in range(4):
        losses = model(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        totals.append(losses["loss_box_reg"].item())
    assert totals[-1] < totals[0]  # the scores' targets change with the boxes


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: ATSSAssigner(topk=0), "ATSSAssigner.TOPK"),
        (lambda: TaskAlignedAssigner(topk=1.5), "TaskAlignedAssigner.TOPK"),
        (lambda: TaskAlignedAssigner(beta=-1), "TaskAlignedAssigner.BETA"),
        (lambda: SimOTAAssigner(centre_radius=0), "SimOTAAssigner.CENTRE_RADIUS"),
        (lambda: SimOTAAssigner(topk=2.5), "SimOTAAssigner.TOPK"),
        (lambda: ATSSAssigner(ignore_iof=0), "ATSSAssigner.IGNORE_IOF"),
    ],
)
def test_names_the_key_of_a_wrong_setting(build, key):
    with pytest.raises(ValueError, match=rf"ASSIGNER\.{key}"):
        build()
