"""`retina predict` from files to files."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from support.own_settings import drop_foreign_settings
from support.tiny_detector import write_images, write_tiny_detector
from support.videos import write_video

from retina_plugin import Predictor
from retina_plugin.cli import main
from retina_plugin.inference.prediction.video import read_frames

THRESH = "0.3"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return write_tiny_detector(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def expected(trained, tmp_path_factory):
    """What the images of `folder` give, by their names."""
    paths = write_images(tmp_path_factory.mktemp("expected"))
    return {path.name: found for path, found in zip(paths, Predictor(*trained)(paths), strict=True)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "data")
    return tmp_path / "data"


def run(trained, *args, stdin=None):
    words = ["predict", *map(str, trained), "--score-thresh", THRESH, *map(str, args)]
    return CliRunner().invoke(main, words, input=stdin)


def assert_boxes(found, expected):
    """XYXY boxes against `Detections`, rounded as they are written."""
    np.testing.assert_allclose(np.array(found).reshape(-1, 4), expected.boxes, atol=0.011)


def test_a_folder_with_bad_files(trained, folder, expected):
    whole = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("no image")
    (folder / "notes.txt").write_text("no image")
    deep = np.linspace(0, 65535, 96 * 96).reshape(96, 96).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    result = run(trained, "data", "--out", "out", "--format", "coco,csv", "--format", "yolo")
    assert result.exit_code == 1, result.output
    assert "4 images in" in result.stdout and "2 failed:" in result.stdout
    assert "cut.png: cannot be read as an image: image file is truncated" in result.stderr
    assert "text.jpg: cannot be read as an image: cannot identify" in result.stdout
    assert "1 other file(s) passed over" in result.stdout and "notes.txt" in result.stdout
    out = folder.parent / "out"
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*.*"))
    stems = ("a", "b", "c", "deep")
    pictures, labels = [f"pictures/{x}.jpg" for x in stems], [f"labels/{x}.txt" for x in stems]
    tables = ["classes.txt", "images.json", "predictions.csv", "predictions.json"]
    assert written == sorted([*pictures, *labels, *tables])


def test_the_formats_say_the_same(trained, folder, expected):
    result = run(
        trained, "data", "--out", "out", "--format", "coco,csv,yolo", "--class-names", "x,y,z"
    )
    assert result.exit_code == 0, result.output
    out = folder.parent / "out"
    listed = json.loads((out / "images.json").read_text())
    assert [x["name"] for x in listed["categories"]] == ["x", "y", "z"]
    coco = json.loads((out / "predictions.json").read_text())
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert len(coco) == len(rows) == sum(map(len, expected.values())) > 10
    assert (out / "classes.txt").read_text().split() == ["x", "y", "z"]
    for image in listed["images"]:
        found = expected[image["file_name"]]
        assert (image["width"], image["height"]) == (found.width, found.height)
        own = [x for x in coco if x["image_id"] == image["id"]]
        xywh = np.array([x["bbox"] for x in own])
        assert_boxes(np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1), found)
        np.testing.assert_allclose([x["score"] for x in own], found.scores, atol=1e-5)
        assert [x["category_id"] - 1 for x in own] == found.classes.tolist()

        lines = [row for row in rows if row["file"] == image["file_name"]]
        assert_boxes([[float(row[x]) for x in ("x0", "y0", "x1", "y1")] for row in lines], found)
        assert [int(row["class_index"]) for row in lines] == found.classes.tolist()
        assert [row["class"] for row in lines] == ["xyz"[i] for i in found.classes]

        name = image["file_name"].removesuffix(".png")
        yolo = np.loadtxt(out / "labels" / f"{name}.txt").reshape(-1, 5)
        assert yolo[:, 0].tolist() == found.classes.tolist()
        centre, size = yolo[:, 1:3], yolo[:, 3:]
        corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
        assert_boxes(corners * np.array([found.width, found.height] * 2), found)
        with Image.open(out / "pictures" / f"{name}.jpg") as picture:
            assert max(picture.size) >= 384  # small images are enlarged


def test_json_alone_is_on_stdout_and_nothing_is_written(trained, folder, expected):
    lines = "data/b.png\n\ngone.png\n"
    result = run(trained, "-", "--json", stdin=lines)
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    (found,) = content["results"]
    assert (found["file"], found["width"], found["height"]) == ("data/b.png", 96, 128)
    assert_boxes([x["box"] for x in found["detections"]], expected["b.png"])
    assert {x["class"] for x in found["detections"]} <= {"class 0", "class 1", "class 2"}
    assert content["failed"] == {"gone.png": "gone.png: there is no such file"}
    assert "1 image in" in result.stderr
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


def test_ids_of_a_json(trained, folder, expected):
    images = [{"id": 31, "file_name": "a.png"}, {"id": 17, "file_name": "data/b.png"}]
    categories = [{"id": 2 * i + 5, "name": f"n{i}"} for i in range(3)]
    content = json.dumps({"images": images, "categories": categories})
    (folder.parent / "set.json").write_text(content)
    result = run(trained, "data", "--out", "out", "--images-json", "set.json", "--no-pictures")
    assert result.exit_code == 1
    assert "c.png: is not among the images of set.json" in result.stdout
    assert [path.name for path in (folder.parent / "out").iterdir()] == ["predictions.json"]
    coco = json.loads((folder.parent / "out/predictions.json").read_text())
    for image_id, name in ((31, "a.png"), (17, "b.png")):
        own = [x for x in coco if x["image_id"] == image_id]
        labels = expected[name].classes
        assert [x["category_id"] for x in own] == [2 * i + 5 for i in labels.tolist()]


def test_a_video(trained, folder):
    frames = write_video(folder.parent / "clip.mkv")
    result = run(trained, "clip.mkv", "data/a.png", "--out", "out", "--format", "coco,csv,yolo")
    assert result.exit_code == 0, result.output
    assert "1 image and 5 frames in" in result.stdout
    out = folder.parent / "out"
    images = json.loads((out / "images.json").read_text())["images"]
    assert [x.get("frame") for x in images] == [0, 1, 2, 3, 4, None]
    assert [x.get("time") for x in images] == [0, 0.1, 0.2, 0.3, 0.4, None]
    coco = json.loads((out / "predictions.json").read_text())
    found = Predictor(*trained)(frames[2])
    own = [x["bbox"] for x in coco if x["image_id"] == images[2]["id"]]
    np.testing.assert_allclose(np.array(own)[:, :2], found.boxes[:, :2], atol=0.011)
    rows = csv.DictReader((out / "predictions.csv").open())
    assert sum((row["file"], row["frame"]) == ("clip.mkv", "2") for row in rows) == len(found)
    assert len((out / "labels/clip/000002.txt").read_text().splitlines()) == len(found)
    drawn = list(read_frames(out / "pictures/clip.mp4"))
    assert len(drawn) == 5 and drawn[0].pixels.shape == (96, 160, 3)


def test_a_video_that_is_cut_off_keeps_its_beginning(trained, folder):
    write_video(folder.parent / "clip.mkv", frames=30)
    content = (folder.parent / "clip.mkv").read_bytes()
    (folder.parent / "clip.mkv").write_bytes(content[: len(content) // 2])
    (folder.parent / "no.mp4").write_text("no video")
    result = run(trained, "clip.mkv", "no.mp4", "data", "--json", "--batch", 8)
    content = json.loads(result.stdout)
    files = [x["file"] for x in content["results"]]
    assert result.exit_code == 1 and "no.mp4" in content["failed"]
    assert 0 < files.count("clip.mkv") < 30
    assert sum(file.startswith("data") for file in files) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["*.webp"], "*.webp: no file matches this pattern"),
        (["data", "--format", "voc"], "--format: 'voc' is none of coco, csv, yolo"),
        (["data", "--out", "."], "--out . has data/a.png in it, which is an input"),
        (
            ["data/a.png", "--out", "full"],
            "--out full is not empty: give another folder, or --overwrite",
        ),
        (
            ["data", "--set", "MODEL.RETINANET.NUM_CLASES=3"],
            "Did you mean MODEL.RETINANET.NUM_CLASSES",
        ),
        (["data", "--class-names", "x"], "names 1 classes, the detector has 3"),
        (["x.mp4", "--images-json", "set.json"], "set.json: it has no ids of frames (x.mp4)"),
        (["data", "--score-thresh", "7"], "7.0 is not in the range"),
        ([], "Missing argument 'INPUT...'"),
    ],
)
def test_nothing_is_done_where_words_are_wrong(trained, folder, words, message):
    (folder.parent / "set.json").write_text("{}")
    (folder.parent / "full").mkdir()
    (folder.parent / "full/x.txt").touch()
    result = run(trained, *words)
    assert result.exit_code == 2
    assert message in result.output
    assert not (folder.parent / "output").exists()


def test_nothing_is_done_without_weights(trained, folder):
    result = CliRunner().invoke(main, ["predict", str(trained.config), "gone.pth", "data"])
    assert result.exit_code == 2 and "there is no file gone.pth" in result.output


def test_overwrites_when_told(trained, folder):
    options = ["data/a.png", "--out", "out"]
    assert run(trained, *options).exit_code == 0
    assert run(trained, *options).exit_code == 2
    assert run(trained, *options, "--overwrite").exit_code == 0


def test_in_a_process_of_its_own(trained, folder, expected):
    """The console's way: stdout is the json and nothing else."""
    tools = str(__file__).replace("cli/test_predict.py", "support/tiny_models.py")
    config = folder.parent / "config.yaml"
    settings = drop_foreign_settings(yaml.safe_load(trained.config.read_text()))
    config.write_text(yaml.safe_dump(settings))
    words = [str(config), str(trained.weights), "data", "--json", "--score-thresh", THRESH]
    words += ["--import", tools]
    done = subprocess.run(
        [sys.executable, "-m", "retina_plugin.cli", "predict", *words],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert [len(x["detections"]) for x in results] == [len(x) for x in expected.values()]
