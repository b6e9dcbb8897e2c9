"""The slot before the backbone: it is asked once a batch, and its inverse is applied."""

import copy

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling import build_model
from detectron2.structures import Boxes, ImageList
from detectron2.utils.events import EventStorage
from support import frame_front_end  # noqa: F401 - registers it
from support.batches import make_batch
from support.frame_front_end import FrameFrontEnd
from support.tiny_models import tiny_focal_cfg
from torch import nn

from retina_plugin import (
    NetworkInput,
    add_retina_config,
    detect_from_tensors,
    loss_from_tensors,
    optimize_for_inference,
    predict_from_tensors,
)
from retina_plugin.checkpoint.checkpointer import RetinaCheckpointer
from retina_plugin.modeling.abilities import ExtraLosses
from retina_plugin.registry import FRONT_ENDS, UnknownNameError

BATCH_SIZE = (128, 160)  # of the padded batch


def with_front_end(name="none", **settings):
    cfg = add_retina_config(tiny_focal_cfg())
    cfg.MODEL.FRONT_END.NAME = name
    for key, value in settings.items():
        cfg.MODEL.FRONT_END[name][key] = value
    return cfg


def built(front_end=None, state=None):
    """The tiny detector with a front-end; its other weights those of ``state``."""
    model = build_model(with_front_end())
    model.front_end = front_end
    if state is not None:
        model.load_state_dict(state, strict=False)
    model.post_processor.score_thresh = 0.0
    return model


class Unchanged(nn.Module):
    out_channels = 3

    def forward(self, images, instances=None):
        return NetworkInput(images)


def tensors(batch):
    return [x["image"].float() for x in batch], [x["instances"] for x in batch]


def gradients(model, batch):
    with EventStorage():
        losses = model.train()(batch)
    sum(losses.values()).backward()
    return losses, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_the_default_is_none():
    cfg = with_front_end()
    assert cfg.MODEL.FRONT_END.NAME == "none"
    model = build_model(cfg)
    assert model.front_end is None
    bare = build_model(tiny_focal_cfg(extended=False))
    assert bare.state_dict().keys() == model.state_dict().keys()


def test_one_that_changes_nothing_equals_none_to_the_bit():
    torch.manual_seed(0)
    plain = built()
    other = built(Unchanged(), plain.state_dict())
    batch = make_batch()
    (losses, slopes), (same, same_slopes) = gradients(plain, batch), gradients(other, batch)
    assert losses.keys() == same.keys() and slopes.keys() == same_slopes.keys()
    assert all(torch.equal(losses[name], same[name]) for name in losses)
    assert all(torch.equal(slopes[name], same_slopes[name]) for name in slopes)
    with torch.no_grad():
        for a, b in zip(plain.eval()(batch), other.eval()(batch), strict=True):
            assert torch.equal(a["instances"].pred_boxes.tensor, b["instances"].pred_boxes.tensor)
            assert torch.equal(a["instances"].scores, b["instances"].scores)


def test_without_one_the_batch_is_not_touched():
    model = built()
    images = model.preprocess_image(make_batch())
    assert model.predict(images).input.images is images


def test_what_moves_boxes_moves_them_back():
    """A frame of a whole stride: the network sees the same picture, further right and down."""
    torch.manual_seed(0)
    model = built(FrameFrontEnd(width=32, out_channels=3))
    batch = make_batch((6,), ((64, 96),))
    batch[0]["ignored_boxes"] = Boxes(torch.tensor([[5.0, 6, 20, 30]]))
    images = model.preprocess_image(batch)
    predictions = model.predict(images)
    assert predictions.input.images.image_sizes == [(128, 160)]
    targets = model.assign(predictions, [x["instances"] for x in batch])
    boxes = batch[0]["instances"].gt_boxes.tensor
    assert torch.equal(targets.instances[0].gt_boxes.tensor, boxes + 32)
    found = model.detect(predictions)[0]
    there = model.post_processor(
        predictions.logits, predictions.deltas, predictions.anchors, [(128, 160)]
    )[0]
    assert len(found) > 0 and found.image_size == (64, 96)
    assert torch.equal(found.pred_boxes.tensor, there.pred_boxes.tensor - 32)
    assert torch.equal(found.scores, there.scores)


def test_ground_truth_goes_in_while_training_alone():
    front_end = FrameFrontEnd(out_channels=3)
    model = built(front_end)
    batch = make_batch((6, 3))
    with EventStorage():
        model.train()(batch)
    with torch.no_grad():
        model.eval()(batch)
        predict_from_tensors(model, tensors(batch)[0])
        loss_from_tensors(model, *tensors(batch))
    assert front_end.boxes_seen == [9, None, None, 9]


def test_images_are_padded_to_the_backbones_multiples():
    model = built(FrameFrontEnd(width=5, out_channels=3))
    model.backbone._size_divisibility = 32
    seen = []
    model.backbone.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    images = model.preprocess_image(make_batch())
    predictions = model.predict(images)
    assert images.tensor.shape[-2:] == BATCH_SIZE
    assert seen[0].shape[-2:] == (160, 192)  # of 138 and 170
    assert not seen[0][:, :, 138:].any() and not seen[0][:, :, :, 170:].any()
    assert predictions.input.images.image_sizes == [(106, 170), (138, 106)]


def test_it_learns_by_a_loss_of_its_own():
    model = built(FrameFrontEnd(out_channels=3))
    losses, slopes = gradients(model, make_batch())
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_frame"}
    assert slopes["front_end.grey"].abs() > 0


def test_its_losses_are_divided_like_the_others():
    model = built(FrameFrontEnd(out_channels=3))
    batch = make_batch()
    one = loss_from_tensors(model, *tensors(batch), normalizer=lambda _: torch.tensor(1.0))
    four = loss_from_tensors(model, *tensors(batch), normalizer=lambda _: torch.tensor(4.0))
    for name in one:
        torch.testing.assert_close(one[name], 4 * four[name])


def test_losses_of_one_name_are_refused():
    class Taken(NetworkInput):
        def extra_losses(self, *_):
            return {"loss_cls": torch.zeros(())}

    class Namesake(Unchanged):
        def forward(self, images, instances=None):
            return Taken(images)

    with pytest.raises(ValueError, match="Namesake calls a loss of its own 'loss_cls', but"):
        loss_from_tensors(built(Namesake()), *tensors(make_batch()))


def test_a_heads_loss_of_the_detectors_name_is_refused_too():
    class LearningHead(ExtraLosses):
        def extra_losses(self, predictions, targets, positives):
            return {"loss_box_reg": torch.zeros(())}

    model, head = built(), LearningHead()
    head.forward, model.head = model.head.forward, head
    with pytest.raises(ValueError, match="LearningHead calls a loss of its own 'loss_box_reg'"):
        loss_from_tensors(model, *tensors(make_batch()))


def test_losses_of_tensors_go_through_it():
    model = built(FrameFrontEnd(out_channels=3))
    batch = make_batch()
    with EventStorage():
        expected = copy.deepcopy(model).train()(batch)
    losses = loss_from_tensors(model, *tensors(batch))
    assert losses.keys() == expected.keys()
    for name in losses:
        torch.testing.assert_close(losses[name], expected[name])
    with torch.no_grad():
        wanted = model.eval()(batch)
    for found, x in zip(detect_from_tensors(model, tensors(batch)[0]), wanted, strict=True):
        assert len(found) > 0
        torch.testing.assert_close(found.pred_boxes.tensor, x["instances"].pred_boxes.tensor)


def test_gradients_reach_the_pixels_through_it():
    model = built(FrameFrontEnd(out_channels=3)).double().eval()
    images = (torch.rand(1, 3, 64, 64, dtype=torch.float64) * 255).requires_grad_()
    boxes = torch.tensor([[8.0, 8, 40, 44]], dtype=torch.float64)
    target = [{"boxes": boxes, "labels": torch.tensor([2])}]

    def loss(x):
        losses = loss_from_tensors(model, x, target)
        return losses["loss_cls"] + losses["loss_box_reg"]  # the third takes these as constants

    (gradient,) = torch.autograd.grad(loss(images), images)
    direction = torch.randn_like(images)
    with torch.no_grad():
        moved = loss(images + 1e-5 * direction) - loss(images - 1e-5 * direction)
    assert gradient.abs().sum() > 0
    slope = (gradient * direction).sum()
    torch.testing.assert_close(slope, moved / 2e-5, rtol=1e-3, atol=1e-8)


def test_side_tensors_are_with_the_predictions():
    model = built(FrameFrontEnd(out_channels=3))
    predictions = predict_from_tensors(model, tensors(make_batch())[0])
    assert predictions.input.side["grey"] is model.front_end.grey


def test_checkpoints_hold_it(tmp_path):
    model = build_model(with_front_end("FrameFrontEnd", WIDTH=7))
    assert model.front_end.width == 7
    model.front_end.grey.data.fill_(0.5)
    RetinaCheckpointer(model, str(tmp_path)).save("model")
    other = build_model(with_front_end("FrameFrontEnd"))
    RetinaCheckpointer(other, all_weights=True).load(str(tmp_path / "model.pth"))
    assert other.front_end.grey == 0.5


def test_optimized_models_keep_it():
    model = built(FrameFrontEnd(out_channels=3)).eval()
    batch = make_batch()
    with torch.no_grad():
        expected, found = model(batch), optimize_for_inference(model)(batch)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(
            b["instances"].pred_boxes.tensor, a["instances"].pred_boxes.tensor, atol=1e-2, rtol=1e-4
        )


def test_pictures_show_the_batch():
    model = built(FrameFrontEnd(out_channels=3)).train()
    model.vis_period = 1
    with EventStorage() as storage:
        model(make_batch())
        ((_, picture, _),) = storage._vis_data
    assert picture.shape == (3, 96, 2 * 160 + 6)


class Wrong(Unchanged):
    def __init__(self, result):
        super().__init__()
        self.result = result

    def forward(self, images, instances=None):
        return self.result(images)


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (lambda images: images, TypeError, "Wrong must return a NetworkInput, got ImageList"),
        (
            lambda images: NetworkInput(ImageList(images.tensor[:, :1], images.image_sizes)),
            ValueError,
            "has out_channels 3, but returned 2 images of 1 channels",
        ),
        (
            lambda images: NetworkInput(ImageList(images.tensor[:1], images.image_sizes[:1])),
            ValueError,
            "was given 2 images .* returned 1 images",
        ),
    ],
)
def test_what_it_must_not_return(result, error, message):
    model = built(Wrong(result))
    with pytest.raises(error, match=message):
        model.predict(model.preprocess_image(make_batch()))


def test_unknown_names_list_the_known_ones():
    with pytest.raises(UnknownNameError) as error:
        build_model(with_front_end("LearnedScale"))
    assert "MODEL.FRONT_END.NAME: 'LearnedScale' is unknown. Did you mean" in str(error.value)
    assert "none" in str(error.value)
    cfg = with_front_end("FrameFrontEnd")
    cfg.MODEL.FRONT_END.FrameFrontEnd.WIDHT = 3
    with pytest.raises(UnknownNameError, match=r"WIDHT.*WIDTH"):
        build_model(cfg)


def test_settings_of_another_have_no_effect_and_that_is_said(caplog):
    cfg = with_front_end()
    cfg.MODEL.FRONT_END.FrameFrontEnd.WIDTH = 3
    build_model(cfg)
    assert (
        "FRONT_END.FrameFrontEnd.WIDTH has no effect: MODEL.FRONT_END.NAME is none" in caplog.text
    )


def test_lazily():
    assert instantiate(L(FrameFrontEnd)(out_channels=3)).out_channels == 3
    assert set(dict(FRONT_ENDS)) >= {"none", "LearnedScaleFrontEnd", "FilterBankFrontEnd"}
