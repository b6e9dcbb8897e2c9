"""Fixed filters: their responses by hand, and a backbone that is built for their channels."""

import math

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import ImageList
from support.batches import make_batch
from support.tiny_models import tiny_focal_cfg

from retina_plugin import add_retina_config, loss_from_tensors, optimize_for_inference
from retina_plugin.modeling.front_ends.filter_bank_front_end import (
    KEY,
    FilterBankFrontEnd,
    gabor_bank,
)


def with_filter_bank(**settings):
    cfg = add_retina_config(tiny_focal_cfg())
    cfg.MODEL.FRONT_END.NAME = "FilterBankFrontEnd"
    cfg.MODEL.FRONT_END.FilterBankFrontEnd.update(settings)
    return cfg


def test_the_filters_by_the_formula():
    bank = gabor_bank(3, [4.0, 6.0])
    assert bank.shape == (12, 17, 17)  # 2.5 deviations of 3 pixels: 8 each way
    for number, wavelength in enumerate((4.0, 6.0)):
        for turn in range(3):
            angle = math.pi * turn / 3
            even, odd = {}, {}
            for y in range(-8, 9):
                for x in range(-8, 9):
                    envelope = math.exp(-(x * x + y * y) / (wavelength**2 / 2))
                    phase = 2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / wavelength
                    even[y, x] = [envelope, envelope * math.cos(phase)]
                    odd[y, x] = envelope * math.sin(phase)
            share = sum(e for _, e in even.values()) / sum(g for g, _ in even.values())
            even = {at: e - share * g for at, (g, e) in even.items()}
            for one, index in ((even, 0), (odd, 1)):
                total = sum(map(abs, one.values()))
                expected = torch.tensor(
                    [[one[y, x] / total for x in range(-8, 9)] for y in range(-8, 9)]
                )
                found = bank[(number * 3 + turn) * 2 + index]
                torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_the_response_by_hand():
    front_end = FilterBankFrontEnd(in_channels=2, orientations=2, wavelengths=[3.0])
    image = torch.randn(1, 2, 12, 15)
    given = front_end(ImageList(image, [(12, 15)])).images.tensor
    assert given.shape == (1, 2 + 4, 12, 15) and front_end.out_channels == 6
    assert torch.equal(given[:, :2], image)
    bank, grey = gabor_bank(2, [3.0]), image[0].mean(dim=0)
    radius = bank.shape[-1] // 2
    for number in range(4):
        for y, x in ((0, 0), (5, 7), (11, 14), (3, 13)):
            total = 0.0
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    if 0 <= y + dy < 12 and 0 <= x + dx < 15:
                        weight = bank[number, dy + radius, dx + radius]
                        total += (weight * grey[y + dy, x + dx]).item()
            assert given[0, 2 + number, y, x].item() == pytest.approx(total, abs=1e-5)


def test_grey_gives_nothing_and_stripes_answer_at_their_angle():
    front_end = FilterBankFrontEnd(in_channels=1, wavelengths=[6.0], keep_input=False)
    middle = (..., slice(20, 44), slice(20, 44))
    even_grey = front_end(ImageList(torch.ones(1, 1, 64, 64), [(64, 64)])).images.tensor
    assert even_grey[middle].abs().max() < 1e-5
    x = torch.arange(64.0).expand(1, 1, 64, 64)
    for turn, image in ((0, x), (2, x.transpose(2, 3))):  # upright stripes, and lying ones
        stripes = (2 * math.pi * image / 6).cos()
        found = front_end(ImageList(stripes, [(64, 64)])).images.tensor[middle]
        energy = found.square().mean(dim=(0, 2, 3)).view(4, 2).sum(dim=1)
        assert energy.argmax() == turn and energy[turn] > 5 * energy[2 - turn]


def test_padding_stays_empty_and_changes_nothing():
    front_end = FilterBankFrontEnd(in_channels=3)
    small, large = torch.randn(3, 20, 30), torch.randn(3, 40, 50)
    together = front_end(ImageList.from_tensors([small, large])).images
    alone = front_end(ImageList.from_tensors([small])).images
    torch.testing.assert_close(together[0], alone[0])
    assert not together.tensor[0, :, 20:].any() and not together.tensor[0, :, :, 30:].any()


@pytest.mark.parametrize(
    ("settings", "channels"),
    [
        ({}, 3 + 16),
        ({"KEEP_INPUT": False}, 16),
        ({"ORIENTATIONS": 2, "WAVELENGTHS": (3.0,)}, 3 + 4),
        ({"WAVELENGTHS": [3, 5, 7]}, 3 + 24),
    ],
)
def test_the_backbone_is_built_for_its_channels(settings, channels):
    model = build_model(with_filter_bank(**settings))
    assert model.backbone.bottom_up.res3.weight.shape[1] == channels
    batch = make_batch()
    images = [x["image"].float().requires_grad_() for x in batch]
    losses = loss_from_tensors(model, images, [x["instances"] for x in batch])
    assert set(losses) == {"loss_cls", "loss_box_reg"}
    sum(losses.values()).backward()
    assert all(image.grad.abs().sum() > 0 for image in images)


def test_nothing_of_it_is_learned_or_saved():
    model = build_model(with_filter_bank())
    assert not list(model.front_end.parameters())
    assert not [name for name in model.state_dict() if "front_end" in name]


def test_detects_and_optimizes():
    model = build_model(with_filter_bank()).eval()
    model.post_processor.score_thresh = 0.0
    batch = make_batch()
    with torch.no_grad():
        expected, found = model(batch), optimize_for_inference(model)(batch)
    for a, b in zip(expected, found, strict=True):
        assert len(a["instances"]) > 0
        torch.testing.assert_close(
            b["instances"].pred_boxes.tensor, a["instances"].pred_boxes.tensor, atol=1e-2, rtol=1e-4
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"orientations": 0}, "ORIENTATIONS must be a whole number, 1 or more, got 0"),
        ({"orientations": 1.5}, "ORIENTATIONS must be"),
        ({"wavelengths": ()}, "WAVELENGTHS must be 2 pixels or more, one at least"),
        ({"wavelengths": (8.0, 1.0)}, "WAVELENGTHS must be"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=f"{KEY}.{message}"):
        FilterBankFrontEnd(in_channels=3, **settings)
