"""Mosaic, mixup and copy-paste: boxes stay on their pixels, and carry all that belongs to them."""

import copy

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, RotatedBoxes
from support.mixed_data import mapped, same_records

from retina_plugin.data.copy_paste import copy_paste
from retina_plugin.data.mixup import mixup
from retina_plugin.data.mosaic import mosaic
from retina_plugin.data.placement import Placement
from retina_plugin.data.tiling import Window

# apart from each other, so that every painted rectangle is a box's alone
BOXES = [[4, 6, 20, 18], [30, 10, 50, 40], [60, 30, 75, 55]]


@pytest.fixture(autouse=True)
def _numpy_seed():
    np.random.seed(0)


def four(**options):
    sizes = [(60, 80), (60, 80), (90, 70), (50, 50)]
    boxes = [BOXES, [[0, 0, 80, 60]], [[10, 10, 60, 80]], []]
    return [
        mapped(box, size=size, image_id=index, **options)
        for index, (box, size) in enumerate(zip(boxes, sizes, strict=True))
    ]


def painted(image, value):
    """XYXY around the pixels of that grey, None if there are none."""
    ys, xs = np.nonzero(image[0].numpy() == value)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else None


def consistent(record):
    """All fields have one entry an object, boxes lie in the image and are not empty."""
    instances, (height, width) = record["instances"], record["image"].shape[1:]
    assert instances.image_size == (height, width)
    assert {len(value) for value in instances.get_fields().values()} == {len(instances)}
    boxes = instances.gt_boxes.tensor
    assert (boxes >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
    assert instances.gt_boxes.nonempty().all()
    # what test data say of an object by its place in its own image
    for name, label, weight in zip(
        instances.gt_name, instances.gt_classes.tolist(), instances.gt_weight.tolist(), strict=True
    ):
        image_id, index = map(int, name.split("."))
        assert (label, weight) == (index, index / 2 + image_id)


# ---- mosaic


def test_mosaic_keeps_boxes_on_their_pixels():
    names = set()
    for _ in range(30):
        # each image's objects in greys of their own
        records = [mapped(BOXES[:2], image_id=index) for index in range(4)]
        for index, record in enumerate(records):
            record["image"][record["image"] > 0] += 2 * index
        result = mosaic(records, scale=(1, 1))
        consistent(result)
        for name, box in zip(
            result["instances"].gt_name, result["instances"].gt_boxes.tensor, strict=True
        ):
            names.add(name)
            image_id, index = map(int, name.split("."))
            assert painted(result["image"], 200 + index + 2 * image_id) == box.tolist()
    assert len(names) == 8


def test_scaled_mosaic_keeps_boxes_on_their_pixels():
    """A resized edge is a ramp: within a pixel."""
    seen = 0
    for _ in range(30):
        records = [mapped([[10, 10, 60, 50]]), *(mapped([]) for _ in range(3))]
        result = mosaic(records, scale=(0.4, 1.3))
        for box in result["instances"].gt_boxes.tensor:
            seen += 1
            ys, xs = np.nonzero(result["image"][0].numpy() > 164)
            found = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            np.testing.assert_allclose(found, box, atol=1)
    assert seen > 20


def test_images_are_resized_as_pil_does():
    image = torch.randint(256, (3, 60, 80), dtype=torch.uint8)
    whole = Window(0, 0, 80, 60)
    for resized in ((30, 40), (20, 55)):
        placement = Placement((60, 80), resized, 0, 0, whole, (60, 80))
        expected = T.ResizeTransform(60, 80, *resized).apply_image(image.permute(1, 2, 0).numpy())
        difference = placement.pixels(image).permute(1, 2, 0).int() - torch.tensor(expected).int()
        assert difference.abs().max() <= 1


@pytest.mark.parametrize(("side", "size"), [(0, (60, 80)), (100, (100, 100))])
def test_size_of_a_mosaic(side, size):
    records = four()
    result = mosaic(records, side=side)
    assert result["image"].shape == (3, *size)
    assert (result["height"], result["width"]) == size
    assert result["image_id"] == 0 and result["image"].dtype == torch.uint8
    consistent(result)


def test_mosaic_is_grey_where_no_image_is():
    result = mosaic([mapped([]) for _ in range(4)], scale=(0.1, 0.1))
    values, counts = result["image"][0].unique(return_counts=True)
    assert values.tolist() == [0, 128]
    assert counts[0] == 4 * 6 * 8  # all four show whole


def test_least_visible_share():
    """Of the second image's one object, which fills it, a quarter shows its quarter at most."""
    records = [mapped([]), mapped([[0, 0, 80, 60]]), mapped([]), mapped([])]
    counts = {}
    for least in (0.0, 0.3, 1.0):
        np.random.seed(1)
        results = [mosaic(records, scale=(1, 1), min_visible=least)["instances"] for _ in range(50)]
        counts[least] = sum(map(len, results))
        for instances in results:
            assert (instances.gt_boxes.area() >= least * 80 * 60).all()
    assert counts[0.0] == 50 and 0 < counts[0.3] < 50 and counts[1.0] == 0


def test_whole_objects_stay_however_small():
    """39 * float32(5 / 39) is more than 5: rounding is no cut."""
    record = mapped([[38, 38, 39, 39]], size=(39, 39))
    for _ in range(20):
        result = mosaic([record] * 4, scale=(5 / 39, 5 / 39), min_visible=1.0)
        assert len(result["instances"]) == 4


def test_inputs_are_not_changed():
    for function, count in ((mosaic, 4), (mixup, 2), (copy_paste, 2)):
        records = four()[:count]
        before = copy.deepcopy(records)
        function(records)
        assert all(map(same_records, records, before))
        assert [x["height"] for x in records] == [x["height"] for x in before]


@pytest.mark.parametrize(("function", "count"), [(mosaic, 4), (mixup, 2), (copy_paste, 2)])
def test_same_seed_same_image(function, count):
    results = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        results.append(function([*four()[2:], *four()[:2]][::-1][:count]))
    assert same_records(*results[:2]) and not same_records(*results[1:])


@pytest.mark.parametrize(("function", "count"), [(mosaic, 4), (mixup, 2), (copy_paste, 2)])
@pytest.mark.parametrize("masks", ["", "bitmask"])
def test_images_without_objects(function, count, masks):
    """They may lack the masks, as Detectron2's do, in whatever place they come."""
    empty, full = mapped([], image_id=9, masks=masks), mapped(BOXES, masks=masks)
    result = function([empty] * count)
    assert len(result["instances"]) == 0
    for records in ([full] + [empty] * (count - 1), [empty] * (count - 1) + [full]):
        for _ in range(10):
            consistent(function(records))


def test_float_images():
    records = four()
    for record in records:
        record["image"] = record["image"].float() / 255
    for result in (mosaic(records), mixup(records[:2]), copy_paste(records[:2])):
        assert result["image"].dtype == torch.float32


def test_bands_are_mixed_around_their_own_mean():
    """128 is black in an image of 16 bits."""
    records = four()
    for record in records:
        height, width = record["image"].shape[1:]
        record["image"] = torch.rand(5, height, width) * 100 + torch.arange(5).view(5, 1, 1) * 1000
    background = records[0]["image"].mean(dim=(1, 2))
    result = mosaic(records, scale=(0.1, 0.1))
    values, counts = result["image"][3].unique(return_counts=True)
    assert values[counts.argmax()] == background[3]
    for result in (mosaic(records), mixup(records[:2]), copy_paste(records[:2])):
        assert len(result["image"]) == 5 and consistent(result) is None
        spans = result["image"].amax(dim=(1, 2)) - result["image"].amin(dim=(1, 2))
        assert (spans <= 100).all()


@pytest.mark.parametrize("function", [mosaic, mixup])
def test_bit_masks_and_keypoints_move_with_boxes(function):
    records = [mapped(BOXES, image_id=index, masks="bitmask") for index in range(4)]
    for _ in range(10):
        result = function(records if function is mosaic else records[:2])
        instances = result["instances"]
        around = instances.gt_masks.get_bounding_boxes().tensor
        torch.testing.assert_close(around, instances.gt_boxes.tensor, atol=1, rtol=0)
        for (x, y, visible), box in zip(
            instances.gt_keypoints.tensor[:, 0], instances.gt_boxes.tensor, strict=True
        ):
            if visible:
                assert box[0] <= x <= box[2] and box[1] <= y <= box[3]
            else:
                assert x == y == 0


def test_polygons_move_with_boxes():
    records = [mapped(BOXES, masks="polygon") for _ in range(4)]
    result = mosaic(records, side=400, scale=(1.1, 1.2))["instances"]  # nothing is cut
    assert len(result) == 12
    torch.testing.assert_close(result.gt_masks.get_bounding_boxes().tensor, result.gt_boxes.tensor)


def test_regions_to_ignore_are_moved_and_kept():
    plain, record = mapped([]), mapped(BOXES[:1])
    record["ignored_boxes"] = Boxes(torch.tensor([[0.0, 0, 80, 60]]))
    for _ in range(10):
        result = mosaic([plain, record, plain, record], scale=(1, 1), min_visible=1.0)
        assert len(result["ignored_boxes"]) == 2  # though cut
        first, second = result["ignored_boxes"].tensor
        assert first[0] == second[0] and first[2] == second[2] == 80  # the quarters on the right
        assert first[1] == 0 and first[3] == second[1] and second[3] == 60
    nowhere = mapped([], size=(600, 800))
    nowhere["ignored_boxes"] = Boxes(torch.tensor([[0.0, 0, 1, 1]]))
    np.random.seed(0)
    assert len(mixup([plain, nowhere])["ignored_boxes"]) == 0
    assert copy_paste([record, plain])["ignored_boxes"] is record["ignored_boxes"]


@pytest.mark.parametrize("key", ["sem_seg", "proposals"])
def test_what_cannot_be_moved_is_refused(key):
    records = four()
    records[1][key] = torch.zeros(1)
    with pytest.raises(ValueError, match=rf"INPUT.MIX .* 1\.png has {key}"):
        mosaic(records)


def test_odd_records_are_refused():
    records = four()
    del records[2]["instances"]
    with pytest.raises(ValueError, match=r"2\.png has no 'instances'"):
        mosaic(records)
    records = four()[:2]
    records[1]["instances"].gt_boxes = RotatedBoxes(torch.zeros(1, 5))
    with pytest.raises(ValueError, match="type Boxes, got RotatedBoxes"):
        mixup(records)
    records = four()[:2]
    records[1]["instances"].remove("gt_weight")
    with pytest.raises(ValueError, match="lack gt_weight"):
        mixup(records)


# ---- mixup


def test_mixup_blends_pixels_and_keeps_all_objects():
    first, second = mapped(BOXES[:1]), mapped(BOXES[1:2], image_id=1)
    shares = []
    for _ in range(50):
        result = mixup([first, second], alpha=2.0)
        consistent(result)
        assert result["instances"].gt_name == ["0.0", "1.0"]
        values = result["image"][0].unique().tolist()
        assert values[0] == 0 and len(values) == 3 and abs(sum(values) - 200) <= 1
        shares.append(float(result["image"][0, 10, 10]) / 200)
    assert abs(np.mean(shares) - 0.5) < 0.1
    assert np.std(shares) == pytest.approx((1 / 20) ** 0.5, rel=0.3)  # of Beta(2, 2)


def test_mixup_of_other_sizes_takes_the_first():
    first = mapped(BOXES)
    for size, box in (((30, 40), [5, 5, 25, 20]), ((200, 300), [100, 80, 200, 120])):
        placed = 0
        for _ in range(30):
            result = mixup([first, mapped([box], size=size, image_id=1)])
            consistent(result)
            assert result["image"].shape == first["image"].shape
            boxes = result["instances"].gt_boxes.tensor
            assert boxes[:3].tolist() == BOXES
            placed += len(boxes) - 3
            if size == (30, 40):
                assert (boxes[3, 2:] - boxes[3, :2]).tolist() == [20, 15]
        assert placed > 10


def test_mixup_leaves_the_first_as_it_was_around_the_second():
    result = mixup([mapped([[0, 0, 80, 60]]), mapped([], size=(30, 40))])
    counts = dict(
        zip(*(x.tolist() for x in result["image"][0].unique(return_counts=True)), strict=True)
    )
    assert counts[200] == 60 * 80 - 30 * 40 and len(counts) == 2


# ---- copy-paste


def test_pasted_boxes_lie_on_their_pixels():
    first = mapped([[0, 0, 5, 5]])
    second = mapped([[10, 5, 40, 25], [50, 30, 70, 50]], image_id=1)
    second["image"][second["image"] > 0] += 10
    places = set()
    for _ in range(40):
        result = copy_paste([first, second], share=1.0, min_visible=1.0)
        consistent(result)
        for name, box in zip(
            result["instances"].gt_name, result["instances"].gt_boxes.tensor.tolist(), strict=True
        ):
            image_id, index = map(int, name.split("."))
            assert painted(result["image"], 200 + index + 10 * image_id) == box
            if name == "1.0":
                places.add(tuple(box))
                assert (box[2] - box[0], box[3] - box[1]) == (30, 20)
    assert len(places) > 10
    assert result["height"] == 60 and result["image_id"] == 0


def test_covered_objects_go():
    """A paste as large as the image covers all; one that is too large is not pasted."""
    first = mapped(BOXES)
    result = copy_paste([first, mapped([[0, 0, 80, 60]], image_id=1)], share=1.0)
    assert result["instances"].gt_name == ["1.0"] and (result["image"] == 200).all()
    result = copy_paste([first, mapped([[0, 0, 81, 60]], size=(60, 90), image_id=1)], share=1.0)
    assert same_records(result, first)


def test_half_covered_objects_stay_or_go_by_the_share():
    first = mapped([[0, 0, 80, 60]])  # wholly visible but for what is pasted
    second = mapped([[0, 0, 40, 60]], image_id=1)
    for least, names in ((0.5, ["0.0", "1.0"]), (0.51, ["1.0"])):
        for _ in range(10):
            result = copy_paste([first, second], share=1.0, min_visible=least)
            assert result["instances"].gt_name == names


def test_pasted_objects_cover_each_other():
    second = mapped([[0, 0, 80, 60], [0, 0, 80, 60]], image_id=1)
    result = copy_paste([mapped([]), second], share=1.0)
    assert result["instances"].gt_name == ["1.1"]


def test_share_of_pasted_objects():
    second = mapped([[x, 0, x + 1, 1] for x in range(20)], image_id=1)
    empty = mapped([], size=(400, 400))
    counts = [len(copy_paste([empty, second], share=0.3)["instances"]) for _ in range(50)]
    assert np.mean(counts) == pytest.approx(6, rel=0.15)
    assert len(copy_paste([empty, second], share=0.0)["instances"]) == 0


def test_pastes_by_bit_masks():
    """Only the mask's pixels; what is covered leaves the masks below."""
    first, second = (mapped([[0, 0, 80, 60]], image_id=x, masks="bitmask") for x in range(2))
    first["image"].fill_(50)
    triangle = torch.ones(60, 80).tril().bool()
    second["instances"].gt_masks = BitMasks(triangle[None])
    result = copy_paste([first, second], share=1.0)
    assert torch.equal(result["image"][0] == 200, triangle)
    below, above = result["instances"].gt_masks.tensor
    assert torch.equal(above, triangle) and torch.equal(below, ~triangle)
    assert torch.equal(first["instances"].gt_masks.tensor[0], torch.ones(60, 80).bool())
    consistent(result)


def test_pastes_by_polygons():
    first, second = mapped([]), mapped([[10, 10, 30, 30]], masks="polygon", image_id=1)
    second["instances"].gt_masks.polygons[0] = [np.array([10.0, 10, 30, 10, 10, 30])]
    result = copy_paste([first, second], share=1.0)
    painted_pixels = int((result["image"][0] == 200).sum())
    assert painted_pixels == pytest.approx(200, abs=25)  # half of the box
    around = result["instances"].gt_masks.get_bounding_boxes()
    assert torch.equal(around.tensor, result["instances"].gt_boxes.tensor)
