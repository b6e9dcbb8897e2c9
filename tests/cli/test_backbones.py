"""`retina backbones --tiny`: every family under both detectors, from build to evaluation."""

import json

import pytest
from click.testing import CliRunner
from detectron2.data import DatasetCatalog
from torch import nn

from retina_plugin.cli import main
from retina_plugin.registry import BACKBONES, unused_settings
from retina_plugin.workbench.benchmark import backbone_variants, backbones
from retina_plugin.workbench.benchmark.backbone_variants import (
    FULL,
    HEADS,
    TINY,
    Variant,
    variant_cfg,
)


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["backbones", "--tiny", "--repeats", "1", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_every_family_is_there():
    """A builder that is registered and in no table would go unseen."""
    ours = {name for name, _ in BACKBONES if name.startswith("build_retinanet_")}
    for variants in (FULL, TINY):
        found = {f"build_retinanet_{variant.builder}_fpn_backbone" for variant in variants}
        assert ours <= found | {"build_retinanet_emo_fpn_backbone"}  # an example's


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("variant", FULL, ids=lambda variant: variant.name)
def test_configs_of_the_full_table_are_valid(variant, head):
    cfg = variant_cfg(variant, head, classes=80, tiny=False)
    assert cfg.MODEL.BACKBONE.NAME in dict(BACKBONES)
    assert unused_settings(BACKBONES, cfg) == []


def test_every_tiny_backbone(tmp_path):
    output = run("--json", str(tmp_path / "numbers.json"))
    rows = json.loads((tmp_path / "numbers.json").read_text())["rows"]
    assert [(row["head"], row["backbone"]) for row in rows] == [
        (head, variant.name) for head in HEADS for variant in TINY
    ]
    for row in rows:
        assert "error" not in row, row
        if "skipped" in row:
            assert row["backbone"].startswith("timm") and "timm is not installed" in output
            continue
        assert row["losses"][-1] < row["losses"][0]
        assert 0 < row["backbone_parameters"] < row["parameters"]
        assert 1e7 < row["flops"] < 1e10
        assert row["step"] > row["inference"] > 0
        assert row["ap"] >= 0
        assert f"| {row['backbone']} " in output
    assert rows[0]["parameters"] > rows[1]["parameters"]  # P6 of 512 channels, of 64
    assert "retina_backbones" not in DatasetCatalog


def test_a_failure_is_a_row_and_an_exit_code(monkeypatch):
    def broken(*_):
        raise ValueError("no such thing")

    monkeypatch.setattr(backbones, "Subject", broken)
    output = run("--only", "RegNet", code=1)
    assert output.count("| ValueError: no such thing") == 2
    assert "Error: 2 row(s) failed" in output


def test_a_loss_that_does_not_fall_is_a_failure(monkeypatch):
    monkeypatch.setattr(backbones, "_losses", lambda subject: [1.0, 0.5, float("nan")])
    assert "the loss did not fall: [1.0, 0.5, nan]" in run("--only", "RegNet", code=1)


def test_a_package_that_is_missing(monkeypatch):
    variant = Variant("theirs", "timm", "Timm", {}, needs="no_such_package")
    monkeypatch.setattr(backbone_variants, "TINY", (variant,))
    assert "| theirs" in (output := run()) and "no_such_package is not installed" in output


def test_unknown_names_list_the_known_ones():
    output = run("--only", "Swim", code=1)
    assert "--only: 'Swim' is unknown. Did you mean Swin" in output


def test_what_is_saved_must_be_what_is_loaded(monkeypatch, tmp_path):
    cfg = variant_cfg(TINY[2], "paper", classes=3, tiny=True)
    cfg.MODEL.DEVICE = "cpu"
    model = backbones.build_model(cfg)
    backbones._check_checkpoint(model, cfg, tmp_path)

    def load(self, path):
        nn.init.zeros_(self.model.head.cls_score.bias)

    monkeypatch.setattr(backbones.RetinaCheckpointer, "load", load)
    with pytest.raises(ArithmeticError, match=r"not loaded as they were saved: .*cls_score.bias"):
        backbones._check_checkpoint(model, cfg, tmp_path)
