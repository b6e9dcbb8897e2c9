"""`retina doctor`: five planted faults on one screen, and fixes that work when pasted."""

import json
import shlex

import pytest
from click.testing import CliRunner
from support.catalogs import catalogs  # noqa: F401 - an autouse fixture
from support.faulty_data import CLASSES, SMALL, class_names, write_faulty_data

from retina_plugin.cli import main

FAULTS = {
    "class ids": "another order, class 0 is nut and bolt",
    "unreadable": "image files that cannot be read (3)",
    "outside": "boxes wholly outside their image (10)",
    "leaked": "trained on too (1): image 9 (images/val_008.jpg) is images/train_005.jpg",
    "anchors": "no anchor reaches 100% of the boxes",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def faulty(folder):
    write_faulty_data(folder / "made")
    for path in (folder / "made").iterdir():
        path.rename(folder / path.name)
    return folder


def doctor(*words, code=0):
    """What the command prints, its logs apart."""
    result = CliRunner().invoke(main, ["doctor", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def flat(text):
    """Lines joined, as they were before they were broken to the screen's width."""
    return " ".join(text.split())


def fixes(text):
    return [line.strip()[5:] for line in text.splitlines() if line.strip().startswith("fix: ")]


def test_five_faults_on_one_screen_and_every_fix_pasted(faulty):
    screen = doctor("my.yaml", code=1)
    for fault in FAULTS.values():
        assert fault in flat(screen)
    assert "2 errors, 3 warnings" in screen
    lines = screen.splitlines()
    assert len(lines) <= 45 and max(map(len, lines)) <= 100
    assert lines.index(next(x for x in lines if x.startswith("warning"))) > 0
    assert lines[0].startswith("error")

    pasted = [shlex.split(fix) for fix in fixes(screen)]
    assert len(pasted) == 5
    commands = {tuple(words) for words in pasted if words[0] == "retina"}
    overrides = [words for words in pasted if words[0] != "retina"]
    assert commands == {("retina", "doctor", "my.yaml", "--write-clean", "clean")}
    assert overrides == [[f"MODEL.ANCHOR_GENERATOR.SIZES={SMALL.replace(' ', '')}"]]

    # one fix removes its own finding and no other
    screen = doctor("my.yaml", *overrides[0], code=1)
    assert [FAULTS[x] in flat(screen) for x in FAULTS] == [True] * 4 + [False]

    (command,) = commands
    written = doctor(*command[2:], code=1)
    assert "clean/clean.yaml  my.yaml with these jsons" in written
    screen = doctor("clean/clean.yaml")
    assert [FAULTS[x] in flat(screen) for x in FAULTS] == [False] * 4 + [True]
    screen = doctor("clean/clean.yaml", *overrides[0])
    assert "0 errors, 0 warnings" in screen
    assert "train and test apart" in screen and "anchors" in screen


def test_the_cleaned_jsons(faulty):
    before = {name: json.loads((faulty / name).read_text()) for name in ("train.json", "val.json")}
    doctor("my.yaml", "--write-clean", "clean", code=1)
    for name, content in before.items():
        assert json.loads((faulty / name).read_text()) == content  # the user's own stays
    train = json.loads((faulty / "clean/train.json").read_text())
    gone = {3, 11, 19, 5}
    left = [x["file_name"] for x in train["images"]]
    assert left == [f"train_{i:03d}.jpg" for i in range(24) if i not in gone]
    assert len(train["annotations"]) == 20 * 6
    assert {x["image_id"] for x in train["annotations"]} == {x["id"] for x in train["images"]}
    # the boxes of a class are the same ones, by the name of their class
    val = json.loads((faulty / "clean/val.json").read_text())
    assert class_names(faulty / "clean/val.json") == class_names(faulty / "train.json")
    names = class_names(faulty / "val.json")
    own = {x["id"]: names[x["category_id"]] for x in before["val.json"]["annotations"]}
    names = class_names(faulty / "clean/val.json")
    assert {x["id"]: names[x["category_id"]] for x in val["annotations"]} == own


def test_nothing_is_overwritten(faulty):
    (faulty / "clean").mkdir()
    (faulty / "clean/train.json").write_text("mine")
    result = CliRunner().invoke(main, ["doctor", "my.yaml", "--write-clean", "clean"])
    assert result.exit_code == 1
    assert "clean/train.json exists, and is not overwritten" in result.output
    assert (faulty / "clean/train.json").read_text() == "mine"
    assert len(list((faulty / "clean").iterdir())) == 1


def test_json_for_a_script(faulty):
    values = json.loads(doctor("my.yaml", "--json", code=1))
    assert (values["errors"], values["warnings"]) == (2, 3)
    (outside,) = [x for x in values["findings"] if "wholly outside" in x["what"]]
    assert (outside["level"], outside["count"]) == ("warning", 10)
    assert len(outside["examples"]) == 5
    assert outside["fix"] == "retina doctor my.yaml --write-clean clean"
    assert "environment" in values["fine"]


def test_exit_codes(folder):
    config = write_faulty_data(folder / "good", faulty=False)
    keys = [
        f"DATASETS.COCO.{x}.JSON=good/{y}.json" for x, y in (("TRAIN", "train"), ("TEST", "val"))
    ]
    keys += [f"DATASETS.COCO.{x}.IMAGES=good/images" for x in ("TRAIN", "TEST")]
    assert "0 errors, 0 warnings" in doctor(config, *keys, "--strict")
    slow = "SOLVER.WARMUP_ITERS=99"
    assert "0 errors, 1 warning" in doctor(config, *keys, slow)
    assert "SOLVER.WARMUP_ITERS=3" in fixes(doctor(config, *keys, slow, "--strict", code=1))
    assert "No such option" in CliRunner().invoke(main, ["doctor", "x", "--no"]).output
    assert CliRunner().invoke(main, ["doctor"]).exit_code == 2
    missing = CliRunner().invoke(main, ["doctor", "none.yaml"])
    assert missing.exit_code == 2 and "none.yaml" in missing.output


def test_more_to_read_on_request(faulty):
    short, long = doctor("my.yaml", code=1), doctor("my.yaml", "-v", code=1)
    assert "note     environment: retina_plugin" not in short
    assert "note     environment: retina_plugin" in long
    assert "train_019.jpg" not in short and "train_019.jpg" in long


def test_a_json_that_is_no_json_does_not_hide_the_rest(faulty):
    (faulty / "train.json").write_text("{")
    screen = flat(doctor("my.yaml", "SOLVER.WARMUP_ITERS=99", code=1))
    assert "train.json: is not valid json" in screen
    assert "SOLVER.WARMUP_ITERS: is 99" in screen


def test_for_an_evaluation_only_what_matters_there(faulty):
    screen = flat(doctor("my.yaml", "--eval-only", code=1))
    assert "class 0 is nut and bolt" in screen
    assert "train_003" not in screen and "anchor" not in screen
    assert len(CLASSES) == 3
