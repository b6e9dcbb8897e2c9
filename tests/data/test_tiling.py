from itertools import pairwise

import numpy as np
import pytest

from retina_plugin.data.tiling import Window, clip_boxes, covering_spans, spans, tile_windows

CASES = [
    (length, size, overlap)
    for length in (1, 7, 99, 400, 401, 599, 601, 1035, 1249, 2299)
    for size, overlap in ((400, 0), (400, 100), (512, 128), (64, 63), (1, 0))
]


@pytest.mark.parametrize(("length", "size", "overlap"), CASES)
def test_spans_cover_evenly(length, size, overlap):
    parts = spans(length, size, overlap)
    assert parts[0][0] == 0
    assert parts[-1][1] == length
    lengths = [b - a for a, b in parts]
    assert min(lengths) > 0
    assert max(lengths) - min(lengths) <= 1
    assert all(a[1] - b[0] == overlap for a, b in pairwise(parts))


@pytest.mark.parametrize(("length", "size", "overlap"), CASES)
def test_spans_are_near_the_size_asked_for(length, size, overlap):
    parts = spans(length, size, overlap)
    longest = max(b - a for a, b in parts)
    assert longest <= max(1.5 * (size - overlap) + overlap + 1, 1)
    if len(parts) > 1:
        assert longest >= 0.66 * size


def test_span_counts():
    assert [b - a for a, b in spans(1249, 400)] == [416, 417, 416]
    assert [b - a for a, b in spans(1035, 400)] == [345, 345, 345]
    assert spans(400, 400) == [(0, 400)]
    assert spans(450, 400) == [(0, 450)]


@pytest.mark.parametrize(
    ("length", "size", "overlap"), [(10, 5, 5), (10, 5, -1), (10, 0, 0), (0, 5, 0)]
)
@pytest.mark.parametrize("split", [spans, covering_spans])
def test_spans_refuse(split, length, size, overlap):
    with pytest.raises(ValueError, match="expected"):
        split(length, size, overlap)


@pytest.mark.parametrize("stride", [1, 32, 128])
@pytest.mark.parametrize(("length", "size", "overlap"), CASES)
def test_covering_spans(length, size, overlap, stride):
    parts = covering_spans(length, size, overlap, stride)
    assert parts[0][0] == 0
    assert parts[-1][1] == length
    assert all(b - a == size for a, b in parts[:-1])
    assert min(length, size) - stride < parts[-1][1] - parts[-1][0] <= size
    assert all(a[1] - b[0] >= overlap and a[0] < b[0] for a, b in pairwise(parts))
    while stride > size - overlap:
        stride //= 2
    assert all(a % stride == 0 for a, _ in parts)
    steps = [b[0] - a[0] for a, b in pairwise(parts)]
    assert max(steps, default=0) - min(steps, default=0) <= stride
    # one fewer could not share as much
    usable = (size - overlap) // stride * stride
    assert len(parts) == 1 or (len(parts) - 2) * usable + size < length


def test_covering_spans_by_hand():
    assert covering_spans(1000, 400, 100) == [(0, 400), (300, 700), (600, 1000)]
    assert covering_spans(1000, 400, 100, 32) == [(0, 400), (192, 592), (384, 784), (608, 1000)]
    assert covering_spans(400, 400, 100, 32) == [(0, 400)]


@pytest.mark.parametrize("overlap", [0, 30])
def test_tiles_cover_every_pixel_of_the_region_and_no_other(overlap):
    region = Window(13, 7, 300, 211)
    seen = np.zeros((240, 320), dtype=int)
    for x0, y0, x1, y1 in tile_windows(region, 100, overlap):
        seen[y0:y1, x0:x1] += 1
    assert (seen[7:211, 13:300] >= 1).all()
    assert seen[7:211, 13:300].max() == (1 if overlap == 0 else 4)
    seen[7:211, 13:300] = 0
    assert seen.sum() == 0


def random_boxes(rng, count, width, height):
    low = rng.integers(0, [width - 2, height - 2], (count, 2))
    high = np.minimum(low + rng.integers(1, 90, (count, 2)), [width, height])
    return np.concatenate([low, high], axis=1).astype(float)


def test_clipped_boxes_mark_the_same_pixels_as_the_cropped_image():
    boxes = random_boxes(np.random.default_rng(0), 40, 200, 150)
    for window in tile_windows(Window(0, 0, 200, 150), 64):
        tile = clip_boxes(boxes, window, min_side=0)
        clipped = dict(zip(tile.index.tolist(), tile.boxes.astype(int), strict=True))
        for row, (x0, y0, x1, y1) in enumerate(boxes.astype(int)):
            image = np.zeros((150, 200), dtype=bool)
            image[y0:y1, x0:x1] = True
            crop = image[window.y0 : window.y1, window.x0 : window.x1]
            drawn = np.zeros_like(crop)
            if row in clipped:
                a0, b0, a1, b1 = clipped[row]
                drawn[b0:b1, a0:a1] = True
            np.testing.assert_array_equal(drawn, crop)


def test_each_box_is_an_object_at_most_once_and_never_lost():
    boxes = random_boxes(np.random.default_rng(1), 300, 640, 480)
    objects, found = np.zeros(300, dtype=int), np.zeros(300, dtype=int)
    for window in tile_windows(Window(0, 0, 640, 480), 160):
        tile = clip_boxes(boxes, window, min_side=0)
        objects[tile.index[~tile.crowd]] += 1
        found[tile.index] += 1
    assert objects.max() == 1
    assert found.min() >= 1
    assert (objects[found == 1] == 1).all()


@pytest.mark.parametrize(
    ("x0", "crowd"), [(90, False), (91, False), (95, True), (96, True)], ids=str
)
def test_visible_share_decides_what_is_crowd(x0, crowd):
    tile = clip_boxes(np.array([[x0, 10, x0 + 10, 20]]), Window(0, 0, 100, 100))
    assert tile.crowd.tolist() == [crowd]
    assert tile.boxes.tolist() == [[x0, 10, min(x0 + 10, 100), 20]]


def test_exact_half_is_an_object_of_neither_side():
    box = np.array([[95.0, 0, 105, 10]])
    sides = [clip_boxes(box, w) for w in (Window(0, 0, 100, 50), Window(100, 0, 200, 50))]
    assert [s.crowd.tolist() for s in sides] == [[True], [True]]


def test_slivers_are_dropped_and_counted_but_small_whole_boxes_stay():
    boxes = np.array([[99, 0, 120, 20], [98, 0, 120, 20], [10, 10, 11, 11], [200, 0, 210, 10]])
    tile = clip_boxes(boxes, Window(0, 0, 100, 100), min_side=2)
    assert tile.index.tolist() == [1, 2]
    assert tile.crowd.tolist() == [True, False]
    assert tile.slivers == 1


def test_no_boxes():
    tile = clip_boxes(np.zeros((0, 4)), Window(0, 0, 10, 10))
    assert tile.boxes.shape == (0, 4)
    assert tile.slivers == 0


def test_refuses_bad_boxes_and_shares():
    with pytest.raises(ValueError, match=r"got \[5\.0, 5\.0, 5\.0, 9\.0\]"):
        clip_boxes(np.array([[0, 0, 4, 4], [5, 5, 5, 9]]), Window(0, 0, 10, 10))
    with pytest.raises(ValueError, match="min_visible"):
        clip_boxes(np.zeros((0, 4)), Window(0, 0, 10, 10), min_visible=1.0)
