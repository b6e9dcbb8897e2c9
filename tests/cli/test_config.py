"""`retina config`: what a key means, and which file of a config's chain sets it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from retina_plugin.cli import main
from retina_plugin.config.names import find_config

ATSS = find_config("_base_/recipes/atss")


@pytest.fixture
def leaf(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(
        "_BASE_: retina_plugin://modern/atss_crowns.yaml\n"
        "SOLVER:\n  BASE_LR: 0.02\n  MAX_ITER: 5\nVERSION: 2\n"
    )
    return path


def config(*words, code=0):
    result = CliRunner().invoke(main, ["config", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


def as_json(*words):
    return {x["key"]: x for x in json.loads(config(*words, "--json").stdout)}


def test_a_key_in_full():
    lines = config("MODEL.RETINANET.ASSIGNER.ATSSAssigner.TOPK").stdout.splitlines()
    assert [line.split(maxsplit=1) for line in lines[1:4]] == [
        ["type", "int"],
        ["default", "9"],
        ["meaning", "Number of candidate cells per level."],
    ]
    assert "AdamW" in config("OPTIMIZER").stdout


def test_a_pattern():
    found = as_json("SOLVER.*")
    assert len(found) > 30 and all(key.startswith("SOLVER.") for key in found)
    text = config("SOLVER.*").stdout
    assert all(f"{key} = " in text for key in found)
    assert max(map(len, text.splitlines())) <= 100


def test_every_key_without_arguments():
    assert {"MODEL.RETINANET.NUM_CLASSES", "DATASETS.COCO.TRAIN.JSON"} <= set(as_json())


def test_the_file_and_line_that_sets_a_key(leaf):
    found = as_json("BASE_LR", "MAX_ITER", "BOXES_BY", "SEED", "--config-file", leaf, "SEED=3")
    set_in = {key: (x["value"], x["set_in"]) for key, x in found.items()}
    assert set_in["SOLVER.BASE_LR"] == (0.02, f"{leaf}:3")
    assert set_in["SOLVER.MAX_ITER"] == (5, f"{leaf}:4")
    assert set_in["SEED"] == (3, "override")
    value, place = set_in["MODEL.RETINANET.LOSS.BOXES_BY"]
    path, _, line = place.rpartition(":")
    assert value == "centreness" and Path(path) == ATSS.resolve()
    assert "BOXES_BY: centreness" in ATSS.read_text().splitlines()[int(line) - 1]
    assert as_json("SEED", "--config-file", leaf)["SEED"]["set_in"] == "default"


def test_an_override_wins_over_the_file(leaf):
    found = as_json("BASE_LR", "--config-file", leaf, "SOLVER.BASE_LR=0.5")["SOLVER.BASE_LR"]
    assert (found["value"], found["set_in"]) == (0.5, "override")


def test_all_keys_that_a_config_sets(leaf):
    found = as_json("--config-file", leaf)
    assert all(x["set_in"] != "default" for x in found.values())
    assert {"SOLVER.BASE_LR", "MODEL.RETINANET.ASSIGNER.NAME"} <= set(found)
    assert "SEED" not in found


def test_a_lazy_config():
    name = "lazy/retinanet_R_50_FPN_1x"
    found = as_json("MAX_ITER", "BASE_LR", "--config-file", name, "train.max_iter=7")
    assert (found["SOLVER.MAX_ITER"]["value"], found["SOLVER.MAX_ITER"]["set_in"]) == (
        7,
        "override",
    )
    assert found["SOLVER.BASE_LR"]["set_in"].endswith("retinanet_R_50_FPN_1x.py: optimizer.lr")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["SOLVER.BASE_RL"], "Did you mean SOLVER.BASE_LR"),
        (["BASE_LR", "SOLVER.BAS_LR=1.0"], "override SOLVER.BAS_LR: unknown key"),
        (["SEED", "SEED=x"], "SEED must be of type int"),
    ],
)
def test_a_mistake_is_a_message(words, expected):
    assert expected in config(*words, code=1).output


def test_a_key_of_an_extension(tmp_path):
    path = tmp_path / "described_box_loss.py"
    path.write_text(
        "from torch import nn\n"
        "from retina_plugin.registry import BOX_LOSSES\n"
        "@BOX_LOSSES.register(defaults={'BEND': 2.0})\n"
        "class DescribedBoxLoss(nn.Module):\n"
        '    """A loss.\n\n    Args:\n        bend: where it bends.\n    """\n'
    )
    text = config("BEND", "--import", path).stdout
    assert "Where it bends." in text and "DescribedBoxLoss" in text
