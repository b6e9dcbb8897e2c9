"""Nothing of an earlier run is lost, and what a run depends on is written down."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.workers import on_workers

from retina_plugin.engine.run_folder import description, open_run, relocated

OF_A_TRAINING = {
    "metrics.json": "{}",
    "events.out.tfevents.1.host": "x",
    "model_0000009.pth": "weights",
    "model_final.pth": "weights",
    "model_best.pth": "weights",
    "last_checkpoint": "model_final.pth",
    "config.yaml": "A: 1\n",
    "environment.json": "{}",
    "curves.png": "png",
    "inference/val/coco_instances_results.json": "[]",
}
OTHERS = {"log.txt": "log", "notes.txt": "mine", "model_zoo.pth": "mine", "run2/metrics.json": "{}"}


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def open_for(folder, *, resume=False, eval_only=False, config="A: 2\n"):
    return open_run(folder, resume=resume, eval_only=eval_only, config=config)


def test_a_new_training_moves_an_earlier_one_aside(tmp_path, caplog):
    write(tmp_path, {**OF_A_TRAINING, **OTHERS})
    assert open_for(tmp_path) == tmp_path / "previous_1"
    assert "9 files" not in caplog.text and "use --resume" in caplog.text
    found = files(tmp_path)
    assert json.loads(found.pop("environment.json"))["environment"]
    assert found == {**OTHERS, **{f"previous_1/{name}": x for name, x in OF_A_TRAINING.items()}}
    write(tmp_path, OF_A_TRAINING)
    assert open_for(tmp_path) == tmp_path / "previous_2"
    assert files(tmp_path / "previous_1") == files(tmp_path / "previous_2") == OF_A_TRAINING


@pytest.mark.parametrize(
    "before", [{}, {"metrics.json": "", "config.yaml": "A: 1\n", "environment.json": "{}"}]
)
def test_a_start_that_failed_leaves_nothing_to_keep(tmp_path, before):
    write(tmp_path, before)
    assert open_for(tmp_path / "new") == tmp_path / "new"
    assert open_for(tmp_path) == tmp_path
    assert not list(tmp_path.glob("previous*"))


def test_a_resumed_training_keeps_its_files_and_their_history(tmp_path):
    write(tmp_path, OF_A_TRAINING)
    for _ in range(2):
        assert open_for(tmp_path, resume=True) == tmp_path
        write(tmp_path, {"config.yaml": "A: 2\n"})
    found = files(tmp_path)
    assert found["history/config_1.yaml"] == "A: 1\n" and "history/config_2.yaml" not in found
    assert found["history/environment_1.json"] == "{}" and "history/environment_2.json" in found
    assert found["model_final.pth"] == "weights"


def test_nothing_to_resume_is_a_new_training(tmp_path):
    write(tmp_path, {"metrics.json": "{}"})
    assert open_for(tmp_path, resume=True) == tmp_path / "previous_1"


def test_an_evaluation_moves_nothing_but_the_config(tmp_path):
    """Which it writes anew; the weights that it evaluates are in the folder."""
    write(tmp_path, OF_A_TRAINING)
    assert open_for(tmp_path, eval_only=True) == tmp_path
    before = {**OF_A_TRAINING, "history/config_1.yaml": "A: 1\n"}
    assert files(tmp_path) == {x: text for x, text in before.items() if x != "config.yaml"}


def test_weights_that_were_moved_are_found(tmp_path, monkeypatch):
    write(tmp_path, {**OF_A_TRAINING, **OTHERS})
    moved_to = open_for(tmp_path)
    final = str(moved_to / "model_final.pth")
    assert relocated(str(tmp_path / "model_final.pth"), tmp_path, moved_to) == final
    monkeypatch.chdir(tmp_path)
    assert relocated("model_final.pth", tmp_path, moved_to) == final
    for path in ("", "model_zoo.pth", "https://a.b/model_final.pth", "elsewhere/model_final.pth"):
        assert relocated(path, tmp_path, moved_to) == path
    assert relocated("model_final.pth", moved_to, moved_to) == "model_final.pth"


def test_what_the_run_depends_on(tmp_path, monkeypatch):
    def git(*words):
        person = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", tmp_path, *person, *words], check=True, capture_output=True)

    monkeypatch.chdir(tmp_path)
    assert (description()["commit"], description()["changes"]) == ("unknown", [])
    git("init")
    (tmp_path / "model.py").write_text("a\n")
    git("add", ".")
    git("commit", "-m", "first")
    commit = description()["commit"]
    assert len(commit) >= 12 and description()["changes"] == []
    (tmp_path / "model.py").write_text("b\n")
    found = description()
    assert found["commit"] == f"{commit}-dirty"
    assert found["changes"][0].startswith("model.py | 2")
    assert found["command"] == sys.argv and found["folder"] == str(tmp_path)
    assert found["workers"] == 1 and found["packages"]["torch"] == found["environment"]["torch"]
    assert json.loads(json.dumps(found)) == found


def open_on(rank, folder):
    return str(open_for(Path(folder)))


def test_of_two_workers_one_moves_and_both_know(tmp_path):
    folder = tmp_path / "output"
    write(folder, OF_A_TRAINING)
    assert on_workers(2, tmp_path, open_on, str(folder)) == [str(folder / "previous_1")] * 2
    assert not (folder / "previous_2").exists()
