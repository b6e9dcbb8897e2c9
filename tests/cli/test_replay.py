"""`retina replay` from the command line, on a step of a tiny network."""

import json

import pytest
import torch
from click.testing import CliRunner
from support.failing import write_step
from support.tiny_models import tiny_focal_cfg

from retina_plugin.cli.replay import command


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return write_step(tmp_path_factory.mktemp("step"))


def changed(found, path, **entries):
    """A copy of the file with other entries."""
    torch.save({**torch.load(found.replay, weights_only=True), **entries}, path)
    return path


def invoke(*arguments):
    return CliRunner().invoke(command, list(map(str, arguments)))


def test_what_people_see(found, tmp_path):
    done = invoke(found.replay, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Reproduced. The loss became infinite or NaN at iteration=0")
    assert "image_1.png (id 101): 1 of 27,648" in done.output
    assert len(list((tmp_path / "out").glob("*.png"))) == 4


def test_another_place_is_said(found, tmp_path):
    finding = {**found.as_plain(), "layer": {"name": "head.cls_score"}}
    done = invoke(changed(found, tmp_path / "step.pth", finding=finding))
    assert done.exit_code == 0 and "in the training it was head.cls_score" in done.output


def test_not_reproduced_says_what_is_different(found, tmp_path):
    saved = torch.load(found.replay, weights_only=True)
    saved["batches"][1][1]["image"].nan_to_num_(0)
    environment = {**saved["environment"], "torch": "1.0"}
    path = tmp_path / "step.pth"
    changed(found, path, batches=saved["batches"], environment=environment)
    done = invoke(path)
    assert done.exit_code == 1
    assert "Not reproduced: iteration 0 is finite this time (" in done.output
    assert f"torch: 1.0 there, {saved['environment']['torch']} here" in done.output
    done = invoke(path, "--json")
    assert done.exit_code == 1 and json.loads(done.output)["finding"] is None


def test_mistakes(found, tmp_path):
    without = changed(found, tmp_path / "lazy.pth", config="")
    assert "LazyConfig: give that with --config-file" in invoke(without).output
    assert "error: " in invoke(tmp_path / "none.pth").output
    config = tmp_path / "other.yaml"
    config.write_text(tiny_focal_cfg(NORM="").dump())
    done = invoke(found.replay, "--config-file", config)
    assert done.exit_code == 1 and "its weights are not those of the config's model" in done.output
