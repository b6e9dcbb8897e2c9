"""`retina convert`: a file goes in, a file and a config come out that train_net.py takes."""

import pytest
import torch
from click.testing import CliRunner
from detectron2.modeling import build_model
from support.foreign_models import detector_of
from torchvision.models import resnet18
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from retina_plugin.checkpoint.checkpointer import RetinaCheckpointer
from retina_plugin.checkpoint.convert import convert_file, layout_of
from retina_plugin.cli import convert, main
from retina_plugin.config.config_file import load_config


def run(*args):
    return CliRunner().invoke(main, ["convert", *map(str, args)])


def torchvision_model(classes=5):
    top = LastLevelP6P7(256, 256)
    backbone = _resnet_fpn_extractor(resnet18(), 5, returned_layers=[2, 3, 4], extra_blocks=top)
    return RetinaNet(backbone, classes)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    path = tmp_path_factory.mktemp("given") / "torchvision.pth"
    torch.save(torchvision_model().state_dict(), path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Deeper than the checkout's configs, so that the bases are found from wherever it is."""
    made = tmp_path / "a" / "b"
    made.mkdir(parents=True)
    return made


def test_weights_and_config_load_without_further_flags(given, folder):
    result = run(given, folder / "out.pth", "--config-out", folder / "out.yaml")
    assert result.exit_code == 0, result.output
    # 100 of the backbone, 16 of the pyramid, 20 of the head
    assert "136 of 136 tensors of FocalRetinaNet" in result.output
    assert "torchvision's RetinaNet, version 1" in result.output
    assert "rounded" in result.output and "--norm-eps 0" in result.output
    assert "not needed: backbone.body.bn1.num_batches_tracked" in result.output

    cfg = load_config(folder / "out.yaml", ["MODEL.DEVICE=cpu"])
    assert f"--config-file {folder / 'out.yaml'}" in (folder / "out.yaml").read_text()
    weights = cfg.MODEL.WEIGHTS
    assert weights == str(folder / "out.pth")
    assert (cfg.INPUT.FORMAT, cfg.MODEL.RETINANET.NUM_CLASSES) == ("RGB", 5)
    assert cfg.MODEL.RESNETS.STRIDE_IN_1X1 is False
    assert cfg.MODEL.ANCHOR_GENERATOR.NAME == "RoundedAnchorGenerator"
    model = build_model(cfg)
    RetinaCheckpointer(model, all_weights=True).load(weights)
    expected = torch.load(given, weights_only=True)["backbone.fpn.extra_blocks.p6.weight"]
    assert torch.equal(model.backbone.top_block.p6.weight, expected)
    assert sorted(path.name for path in folder.iterdir()) == ["out.pth", "out.yaml"]


def test_back_to_torchvision(given, tmp_path):
    ours = detector_of(convert_file(given), tmp_path)
    torch.save({"model": ours.state_dict(), "iteration": 7}, tmp_path / "model_final.pth")
    result = run(tmp_path / "model_final.pth", tmp_path / "back.pth", "--to", "torchvision")
    assert result.exit_code == 0, result.output
    assert "STRIDE_IN_1X1" in result.output
    model = torchvision_model()
    model.load_state_dict(torch.load(tmp_path / "back.pth", weights_only=True))
    expected = torch.load(given, weights_only=True)
    name = "head.classification_head.cls_logits.weight"
    assert torch.equal(model.state_dict()[name], expected[name])


def test_layouts_are_detected():
    assert layout_of(["backbone.x", "bbox_head.atss_cls.weight"]) == "mmdetection"
    assert layout_of(["head.classification_head.conv.0.weight"]) == "torchvision"
    assert layout_of(["head.cls_score.weight"]) == "retina_plugin"
    assert layout_of(["layer1.0.conv1.weight"]) is None


# ---- what is refused, in one message


def refused(*args):
    result = run(*args)
    assert result.exit_code == 1
    assert result.output.startswith("error: ") and result.output.count("\n") == 1
    return result.output


def test_an_existing_file_is_not_overwritten(given, tmp_path):
    out = tmp_path / "out.pth"
    out.write_bytes(b"mine")
    assert "--overwrite" in refused(given, out)
    assert out.read_bytes() == b"mine"
    other = tmp_path / "other.pth"
    assert "out.pth exists" in refused(given, other, "--config-out", out)
    assert not other.exists()
    assert "it is IN" in refused(given, given, "--overwrite")
    assert run(given, out, "--overwrite").exit_code == 0
    assert out.read_bytes() != b"mine"


def test_a_file_of_no_detector(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "resnet.pth")
    output = refused(tmp_path / "resnet.pth", tmp_path / "out.pth")
    assert "resnet.pth: holds no detector" in output and "MODEL.WEIGHTS" in output
    assert not (tmp_path / "out.pth").exists()


def test_files_that_are_not_there(given, tmp_path):
    assert "no file" in refused(tmp_path / "none.pth", tmp_path / "out.pth")
    assert "no folder" in refused(given, tmp_path / "none" / "out.pth")
    (tmp_path / "bad.pth").write_bytes(b"no")
    assert "cannot be read" in refused(tmp_path / "bad.pth", tmp_path / "out.pth")


def test_objects_are_not_run(tmp_path):
    torch.save(torchvision_model(), tmp_path / "whole.pth")
    assert "only tensors are read" in refused(tmp_path / "whole.pth", tmp_path / "out.pth")


def test_directions_that_do_not_exist(given, tmp_path):
    out = tmp_path / "out.pth"
    assert "there is nothing to do" in refused(given, out, "--to", "torchvision")
    own = {"head.cls_score.weight": torch.zeros(1)}
    torch.save(own, tmp_path / "own.pth")
    assert "there is nothing to do" in refused(tmp_path / "own.pth", out)
    assert "--norm-eps" in refused(tmp_path / "own.pth", out, "--coco-classes")
    message = refused(given, out, "--to", "torchvision", "--config-out", tmp_path / "x.yaml")
    assert "--config-out" in message
    torch.save({"bbox_head.gfl_cls.weight": torch.zeros(1)}, tmp_path / "mm.pth")
    assert "retina_plugin first" in refused(tmp_path / "mm.pth", out, "--to", "torchvision")


def test_a_layout_that_is_not_the_files(given, tmp_path):
    output = refused(given, tmp_path / "out.pth", "--from", "mmdetection")
    assert "none of MMDetection's" in output


def test_what_does_not_fit_the_model_is_not_written(given, tmp_path):
    conversion = convert_file(given)
    conversion.state["head.cls_score.bias"] = torch.zeros(3)
    conversion.state["extra"] = torch.zeros(1)
    del conversion.state["head.bbox_pred.weight"]
    message = r"1 missing: head.bbox_pred.weight.*\(3,\) for \(45,\).*extra"
    with pytest.raises(ValueError, match=message):
        convert.check(conversion, given)


def test_a_package_without_its_configs(given, tmp_path, monkeypatch):
    monkeypatch.setattr("retina_plugin.config.packaged.files", lambda name: tmp_path / name)
    assert "config files of retina_plugin are missing" in refused(given, tmp_path / "out.pth")
