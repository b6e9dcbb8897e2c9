import pytest
import torch
from detectron2.structures import Boxes, Instances

from retina_plugin.drawing import below, beside, draw_boxes, to_picture, training_picture

LIME = torch.tensor([0, 255, 0], dtype=torch.uint8)


def black(height, width):
    return torch.zeros(3, height, width, dtype=torch.uint8)


def test_a_box_is_drawn_on_its_edges_and_nowhere_else():
    drawn = draw_boxes(black(40, 60), torch.tensor([[10.0, 5.0, 30.0, 25.0]]), "lime")
    assert drawn.shape == (3, 40, 60)
    assert (drawn[:, 5, 20] == LIME).all() and (drawn[:, 15, 10] == LIME).all()
    assert (drawn[:, 15, 20] == 0).all() and (drawn[:, 35, 50] == 0).all()


def test_the_image_given_stays_as_it_is():
    image = black(20, 20)
    draw_boxes(image, torch.tensor([[2.0, 2.0, 9.0, 9.0]]), "lime")
    assert (image == 0).all()


def test_scale_enlarges_image_and_boxes():
    drawn = draw_boxes(black(20, 20), torch.tensor([[5.0, 5.0, 15.0, 15.0]]), "lime", scale=2.0)
    assert drawn.shape == (3, 40, 40)
    assert (drawn[:, 10, 20] == LIME).all()


def test_boxes_without_area_are_left_out_with_their_colors_and_labels():
    boxes = torch.tensor([[3.0, 3.0, 3.0, 9.0], [5.0, 5.0, 15.0, 15.0]])
    drawn = draw_boxes(black(20, 20), boxes, ["red", "lime"], ["a", "b"])
    assert (drawn[:, 5, 14] == LIME).all()
    assert not (drawn[0] == 255).logical_and(drawn[1] == 0).any()


def test_no_boxes():
    assert (draw_boxes(black(8, 8), torch.zeros(0, 4), "lime") == 0).all()


def test_beside_and_below_pad_with_white():
    wide = beside([black(10, 20), black(6, 5)])
    assert wide.shape == (3, 10, 20 + 6 + 5)
    assert (wide[:, 8, -1] == 255).all() and (wide[:, 3, -1] == 0).all()
    high = below([black(10, 20), black(6, 5)])
    assert high.shape == (3, 10 + 6 + 6, 20)
    assert (high[:, -1, 10] == 255).all() and (high[:, -1, 2] == 0).all()


def test_labels_are_written_in_the_boxes_colors():
    boxes = torch.tensor([[5.0, 5.0, 60.0, 60.0]])
    plain, labelled = (draw_boxes(black(64, 64), boxes, "lime", x) for x in (None, ["cat"]))
    changed = (plain != labelled).any(dim=0)
    assert changed[6:30, 6:60].any() and not changed[32:].any()
    assert {tuple(c.tolist()) for c in labelled[:, changed].T} >= {(0, 255, 0)}


@pytest.mark.parametrize(
    ("input_format", "order"), [("RGB", [0, 1, 2]), ("BGR", [2, 1, 0]), ("L", [0, 0, 0])]
)
def test_pictures_of_detectron2s_formats_are_the_pixels(input_format, order):
    image = torch.randint(256, (1 if input_format == "L" else 3, 9, 12), dtype=torch.uint8)
    assert torch.equal(to_picture(image, input_format), image[order])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 12])
@pytest.mark.parametrize("input_format", ["bands", "BGR", "L"])
def test_pictures_of_any_number_of_channels(channels, input_format):
    """Whatever the config says of the channels, no training ends at its picture."""
    image = torch.rand(channels, 20, 30) * 60000
    picture = to_picture(image, input_format)
    assert picture.shape == (3, 20, 30) and picture.dtype == torch.uint8
    given = {"image": image, "instances": Instances((20, 30), gt_boxes=Boxes(torch.zeros(0, 4)))}
    boxes = Boxes(torch.tensor([[2.0, 2, 9, 9]]))
    found = Instances((20, 30), pred_boxes=boxes, scores=torch.tensor([0.5]))
    assert training_picture(given, found, input_format).shape == (3, 20, 66)


def test_guesses_are_left_out_once_a_detector_knows():
    given = {"image": torch.zeros(3, 40, 40), "instances": Instances((40, 40))}
    given["instances"].gt_boxes = Boxes(torch.zeros(0, 4))
    boxes = Boxes(torch.tensor([[2.0, 2, 9, 9], [20, 20, 30, 30]]))

    def drawn(*scores):
        count = len(scores)
        found = Instances((40, 40), pred_boxes=boxes[:count], scores=torch.tensor(scores))
        right = training_picture(given, found, "RGB")[:, :, 46:]
        return [bool((right[:, y, y] > 0).any()) for y in (2, 20)]

    assert drawn(0.06, 0.05) == [True, True]
    assert drawn(0.9, 0.1) == [True, False]
    assert drawn() == [False, False]


def test_bands_are_stretched_each_for_itself():
    ramp = torch.arange(1000.0).view(1, 25, 40)
    image = torch.cat([ramp, ramp * 40 + 7, torch.full_like(ramp, 3.0), ramp])
    picture = to_picture(image, "bands")
    assert (picture[0].int() - picture[1].int()).abs().max() <= 1 and not picture[2].any()
    assert picture[0, 0, 0] == 0 and picture[0, -1, -1] == 255
    assert 126 <= picture[0, 12, 20] <= 128
    assert torch.equal(to_picture(image[:2], "bands")[2], picture[0])  # of two the first, grey
