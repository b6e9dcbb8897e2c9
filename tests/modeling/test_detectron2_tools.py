"""The tools of Detectron2 and PyTorch that take a model take ours as they take Detectron2's."""

import copy
import pickle

import pytest
import torch
from detectron2.export import TracingAdapter, scripting_with_instances
from detectron2.modeling import build_model, detector_postprocess
from detectron2.structures import Boxes, Instances
from detectron2.utils.analysis import (
    FlopCountAnalysis,
    activation_count_operators,
    flop_count_operators,
)
from fvcore.nn import flop_count_table
from support.batches import make_batch, make_image
from support.model_pairs import build_pair
from support.tiny_models import tiny_cfg, tiny_focal_cfg

from retina_plugin.workbench.benchmark.calibration import calibrate

NODE = "MODEL.RETINANET"
PARTS = {
    "default": [],
    "one class": [f"{NODE}.NUM_CLASSES", 1],
    "class-agnostic": [f"{NODE}.POST_PROCESSOR.NMSPostProcessor.CLASS_AGNOSTIC", True],
    "soft NMS": [f"{NODE}.POST_PROCESSOR.NAME", "SoftNMSPostProcessor"],
    "matrix NMS": [f"{NODE}.POST_PROCESSOR.NAME", "MatrixNMSPostProcessor"],
    "box voting": [f"{NODE}.POST_PROCESSOR.NAME", "BoxVotingPostProcessor"],
    "quality head": [f"{NODE}.HEAD.NAME", "QualityHead"],
    "corner head": [f"{NODE}.HEAD.NAME", "CornerHead"],
    "learned scale": ["MODEL.FRONT_END.NAME", "LearnedScaleFrontEnd"],
}


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    batch = make_batch()
    return build_pair(tiny_cfg(), batch, tiny_focal_cfg()).train(False)


def detector(overrides=()):
    """In evaluation mode; it finds something on images of noise."""
    cfg = tiny_focal_cfg()
    cfg.merge_from_list(list(overrides))
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    if "HEAD.NAME" in str(overrides):  # calibrate() takes heads of two outputs
        model.head.cls_score.bias.data.fill_(-3)
        model.head.cls_score.weight.data.mul_(20)
    else:
        calibrate(model, make_batch())
    return model


def detect(model, *images):
    return [x["instances"] for x in model([{"image": image} for image in images])]


def trace(model, *images):
    """A function of images that replays the trace of these."""
    adapter = TracingAdapter(model, images, detect).eval()
    with torch.no_grad():
        traced = torch.jit.trace(adapter, images, check_trace=False)
    return lambda *others: adapter.outputs_schema(traced(*others))


@torch.no_grad()
def assert_same(found, expected, at_least=1):
    for ours, right in zip(found, expected, strict=True):
        assert len(right) >= at_least
        assert tuple(ours.image_size) == right.image_size
        assert torch.equal(ours.pred_boxes.tensor, right.pred_boxes.tensor)
        assert torch.equal(ours.scores, right.scores)
        assert torch.equal(ours.pred_classes, right.pred_classes)


# --- FLOP counters


def test_flops_equal_detectron2s(pair):
    inputs = [{"image": make_image(96, 160)}]
    stock, ours = (FlopCountAnalysis(model, inputs) for model in (pair.stock, pair.ours))
    assert ours.by_operator() == stock.by_operator()
    assert ours.total() == stock.total() > 0
    assert "head" in flop_count_table(ours)
    assert flop_count_operators(pair.ours, inputs) == flop_count_operators(pair.stock, inputs)
    activations = (activation_count_operators(x, inputs) for x in (pair.ours, pair.stock))
    assert next(activations) == next(activations)


# --- traces


@pytest.mark.parametrize("parts", PARTS)
def test_a_trace_finds_the_same_at_another_size(parts):
    model = detector(PARTS[parts])
    few, many = make_image(24, 40), make_image(160, 224)
    for first, other in ((few, many), (many, few)):
        with torch.no_grad():
            expected = detect(model, other)
        assert_same(trace(model, first)(other), expected)


def test_a_trace_of_two_images():
    model = detector()
    others = make_image(64, 224), make_image(160, 96)
    with torch.no_grad():
        expected = detect(model, *others)
    assert_same(trace(model, make_image(96, 160), make_image(128, 96))(*others), expected)


@pytest.mark.parametrize("parts", ["default", "soft NMS", "matrix NMS", "box voting"])
def test_a_trace_of_an_image_with_no_detections(parts):
    model = detector(PARTS[parts])
    blank, other = torch.full((3, 64, 64), 110, dtype=torch.uint8), make_image(96, 160)
    post_processor = model.post_processor
    with torch.no_grad():
        logits = _maps(model, blank)[0]
        best = max(x.max() for x in logits).sigmoid().item()  # of the blank image none is above
        post_processor.score_thresh = max(best + 1e-3, post_processor.score_thresh)
        assert len(detect(model, blank)[0]) == 0
        expected = detect(model, other)
    assert_same(trace(model, blank)(other), expected)
    assert len(trace(model, other)(blank)[0]) == 0


def _maps(model, image):
    predictions = model.predict(model.preprocess_image([{"image": image}]))
    return predictions.logits, predictions.deltas, predictions.anchors


def test_a_trace_suppresses_many_candidates_as_the_model_does():
    """Above 1,000 candidates torchvision takes another way on CPUs, whose IoUs round otherwise."""
    model = detector()
    model.post_processor.score_thresh = 0.0
    image = make_image(160, 224)
    with torch.no_grad():
        boxes, _, _ = model.post_processor._candidates(*_maps(model, image))
        assert len(boxes[0]) > 1000
        expected = detect(model, image)
    assert_same(trace(model, make_image(24, 40))(image), expected)


@pytest.mark.parametrize("parts", ["default", "soft NMS", "matrix NMS", "box voting"])
def test_the_torchscript_based_onnx_exporter(parts, tmp_path):
    model = detector([*PARTS[parts], "TEST.DETECTIONS_PER_IMAGE", 10])
    image, other, path = make_image(64, 96), make_image(96, 160), tmp_path / "model.onnx"
    adapter = TracingAdapter(model, (image,), detect).eval()
    options = {"opset_version": 16, "dynamo": False, "input_names": ["image"]}
    try:
        torch.onnx.export(
            adapter, (image,), str(path), dynamic_axes={"image": {1: "h", 2: "w"}}, **options
        )
    except torch.onnx.errors.OnnxExporterError as error:
        # the last step, after the whole graph was converted
        assert str(error) == "Module onnx is not installed!"
        return
    runtime = pytest.importorskip("onnxruntime")
    boxes = runtime.InferenceSession(str(path)).run(None, {"image": other.numpy()})[0]
    with torch.no_grad():
        expected = detect(model, other)[0].pred_boxes.tensor
    torch.testing.assert_close(torch.from_numpy(boxes), expected, atol=1e-3, rtol=0)


# --- TorchScript


FIELDS = {"pred_boxes": Boxes, "scores": torch.Tensor, "pred_classes": torch.Tensor}


def test_scripting_with_instances():
    model = detector(["MODEL.WINOGRAD", False])
    scripted = scripting_with_instances(model, FIELDS)
    images = make_image(96, 160), make_image(64, 96)
    with torch.no_grad():
        expected = detect(model, *images)
        found = scripted([{"image": x} for x in images])
    # as detectron2.utils.testing does, which imports model_zoo
    found = [Instances(x.image_size, **{name: getattr(x, name) for name in FIELDS}) for x in found]
    assert_same([detector_postprocess(x, *x.image_size) for x in found], expected)


@pytest.mark.parametrize(
    "parts, message",
    [
        ("soft NMS", "post_processor is SoftNMSPostProcessor"),
        ("class-agnostic", "class-agnostic"),
        ("quality head", "head is QualityHead"),
        ("learned scale", "LearnedScaleFrontEnd"),
    ],
)
def test_scripting_says_what_it_does_not_take(parts, message):
    with pytest.raises(NotImplementedError, match=f"{message}.*TracingAdapter"):
        scripting_with_instances(detector(PARTS[parts]), FIELDS)


# --- compilation, copies, number types


def test_the_whole_detector_compiles():
    """With the steps of the default backend that refused in-place views, at two sizes."""
    model = detector([f"{NODE}.NUM_CONVS", 1])
    compiled = torch.compile(model, backend="aot_eager")
    for image in (make_image(64, 96), make_image(96, 64)):
        with torch.no_grad():
            expected, found = detect(model, image)[0], detect(compiled, image)[0]
        assert len(found) == len(expected) > 0
        torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)
        assert torch.equal(found.pred_classes, expected.pred_classes)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("parts", PARTS)
def test_copies_find_the_same(parts, again):
    model = detector(PARTS[parts])
    image = make_image(64, 96)
    with torch.no_grad():
        assert_same(detect(again(model), image), detect(model, image))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("parts", ["default", "soft NMS", "matrix NMS", "box voting"])
def test_models_of_other_number_types_detect(parts, dtype):
    model = detector(PARTS[parts])
    image = make_image(64, 96)
    with torch.inference_mode():
        expected = detect(model, image)[0]
        found = detect(model.to(dtype), image)[0]
    assert len(found) > 0
    assert found.pred_boxes.tensor.dtype == torch.float32
    if dtype == torch.float64:  # near ties may change places
        torch.testing.assert_close(found.scores[0].float(), expected.scores[0], atol=1e-4, rtol=0)


def test_channels_last_and_inference_mode(pair):
    image = make_image(96, 160)
    model = copy.deepcopy(pair.ours).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = detect(model, image)
        best = found[0].scores[0], detect(pair.ours, image)[0].scores[0]
    torch.testing.assert_close(*best, atol=1e-4, rtol=0)
    assert_same(trace(model, make_image(64, 64))(image), found)
