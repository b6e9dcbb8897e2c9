"""The scale of each image is learned, and nobody outside of the network sees that it changed."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.tiny_models import tiny_focal_cfg

from retina_plugin import add_retina_config, loss_from_tensors, predict_from_tensors
from retina_plugin.modeling.front_ends.learned_scale_front_end import KEY, LearnedScaleFrontEnd


def with_learned_scale(**settings):
    cfg = add_retina_config(tiny_focal_cfg())
    cfg.MODEL.FRONT_END.NAME = "LearnedScaleFrontEnd"
    cfg.MODEL.FRONT_END.LearnedScaleFrontEnd.update(settings)
    return cfg


def set_to(front_end, exponents):
    """Let a module predict these, one an image, whatever it sees."""
    front_end.exponent.register_forward_hook(
        lambda *_: torch.tensor(exponents).div(front_end.limit).atanh()[:, None]
    )


def trained(model, batch, steps=40):
    optimizer = torch.optim.Adam(model.front_end.parameters(), 0.02)
    losses, pixels = [], []
    model.backbone.register_forward_hook(lambda _, x, __: pixels.append(x[0].shape[-2:]))
    with EventStorage():
        for _ in range(steps):
            found = model.train()(batch)
            optimizer.zero_grad()
            found["loss_scale"].backward()
            optimizer.step()
            losses.append(found["loss_scale"].item())
    return losses, pixels


def test_at_first_it_changes_nothing():
    model = build_model(with_learned_scale())
    plain = build_model(tiny_focal_cfg())
    plain.load_state_dict(model.state_dict(), strict=False)
    batch = make_batch()
    with EventStorage():
        losses, expected = model.train()(batch), plain.train()(batch)
    assert set(losses) == {*expected, "loss_scale"}
    assert all(torch.equal(losses[name], expected[name]) for name in expected)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.front_end.parameters())
    assert model.front_end.exponent.bias.grad.abs() > 0


@pytest.mark.parametrize(("size", "grows"), [(200.0, True), (4.0, False)])
def test_it_learns_the_size_that_objects_shall_have(size, grows):
    model = build_model(with_learned_scale(SIZE=size, MAX_FACTOR=2.0))
    batch = make_batch()
    losses, pixels = trained(model, batch)
    assert losses[-1] < 0.5 * losses[0]
    first, last = pixels[0][0] * pixels[0][1], pixels[-1][0] * pixels[-1][1]
    assert (last > 1.3 * first) if grows else (last < first / 1.3)
    factors = predict_from_tensors(model, [x["image"] for x in batch]).input.side["scale"]
    assert factors.shape == (2,) and (factors >= 0.5).all() and (factors <= 2).all()
    assert (factors > 1).all() if grows else (factors < 1).all()


def test_the_loss_by_hand():
    """Two objects, one enlarged image; every positive's box loss is 3."""
    model = build_model(with_learned_scale(SIZE=32.0, MAX_FACTOR=4.0))
    set_to(model.front_end, [0.5])
    model.box_loss.forward = lambda positives: positives.gt_boxes[:, 0] * 0 + 3.0
    boxes = torch.tensor([[8.0, 8, 24, 24], [40.0, 40, 104, 104]])  # 16 and 64 pixels
    truth = [Instances((128, 128), gt_boxes=Boxes(boxes), gt_classes=torch.tensor([0, 1]))]
    images = torch.rand(1, 3, 128, 128)
    predictions = predict_from_tensors(model, images)
    assert predictions.input.images.image_sizes == [(181, 181)]  # 128 * sqrt(2)
    targets = model.assign(predictions, truth)
    matched = targets.matched[targets.positives.image, targets.positives.anchor]
    counts = torch.stack([(matched == i).sum() for i in (0, 1)])
    pulls = (32.0 / (torch.tensor([16.0, 64.0]) * 181 / 128)).log2().square()
    losses = loss_from_tensors(model, images, truth, normalizer=lambda _: torch.tensor(1.0))
    torch.testing.assert_close(losses["loss_scale"], 3.0 * (counts * pulls).sum())


def test_the_wish_ends_at_the_largest_factor():
    model = build_model(with_learned_scale(SIZE=1e6, MAX_FACTOR=2.0))
    model.box_loss.forward = lambda positives: positives.gt_boxes[:, 0] * 0 + 1.0
    batch = make_batch()
    truth = [x["instances"] for x in batch]
    images = [x["image"].float() for x in batch]
    losses = loss_from_tensors(model, images, truth, normalizer=lambda _: torch.tensor(1.0))
    predictions = predict_from_tensors(model, images)
    positives = model.assign(predictions, truth).num_positives
    torch.testing.assert_close(losses["loss_scale"], positives.float())  # (0 - 1)^2 each


def test_detections_are_in_the_pixels_of_the_inputs():
    model = build_model(with_learned_scale()).eval()
    model.post_processor.score_thresh = 0.0
    batch = make_batch()
    set_to(model.front_end, [0.8, -0.7])
    with torch.no_grad():
        predictions = model.predict(model.preprocess_image(batch))
        found = model(batch)
    sizes = predictions.input.images.image_sizes
    assert sizes == [(round(96 * 2**0.8), round(160 * 2**0.8)), (79, 59)]
    there = model.post_processor(predictions.logits, predictions.deltas, predictions.anchors, sizes)
    for given, x, seen in zip(batch, found, there, strict=True):
        x, (height, width) = x["instances"], given["image"].shape[1:]
        assert x.image_size == (height, width) and len(x) > 0
        scale = torch.tensor([width / seen.image_size[1], height / seen.image_size[0]]).repeat(2)
        limit = torch.tensor([width, height]).repeat(2)
        expected = (seen.pred_boxes.tensor * scale).clamp(min=0).minimum(limit)
        expected = expected[Boxes(expected).nonempty()]
        torch.testing.assert_close(x.pred_boxes.tensor, expected)


def test_an_image_that_is_enlarged_is_interpolated_alone():
    """Not with the padding of the batch."""
    front_end = LearnedScaleFrontEnd(in_channels=2)
    set_to(front_end, [0.5, 0.0])
    images = ImageList.from_tensors([torch.full((2, 20, 30), 3.0), torch.full((2, 40, 50), 5.0)])
    given = front_end(images)
    assert given.images.image_sizes == [(28, 42), (40, 50)]
    torch.testing.assert_close(given.images[0], torch.full((2, 28, 42), 3.0))
    assert (given.images[1] == 5).all()
    assert not given.images.tensor[0, :, 28:].any()


def test_images_without_objects():
    model = build_model(with_learned_scale())
    with EventStorage():
        losses = model.train()(make_batch((0, 0)))
    sum(losses.values()).backward()
    assert losses["loss_scale"] == 0
    assert not model.front_end.exponent.bias.grad.any()  # but it is there, for parallel training


@pytest.mark.parametrize(
    ("key", "value"), [("SIZE", 0.0), ("MAX_FACTOR", 1.0), ("LOOK", 4), ("LOOK", 64.0)]
)
def test_impossible_settings(key, value):
    with pytest.raises(ValueError, match=f"{KEY}.{key} must be"):
        LearnedScaleFrontEnd(in_channels=3, **{key.lower(): value})
