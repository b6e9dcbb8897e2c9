"""`retina report` from the command line."""

import json

import pytest
from click.testing import CliRunner
from support.made_run import MadeRun

from retina_plugin.cli.report import command
from retina_plugin.evaluation.analysis import analyse


@pytest.fixture
def made(tmp_path):
    return MadeRun(tmp_path)


def report(*arguments, code=0):
    done = CliRunner().invoke(command, [str(x) for x in arguments])
    assert done.exit_code == code, done.output
    return done


def numbers(run):
    return analyse(run.truth, json.loads(run.detections.read_text())).to_dict()


def test_a_page_beside_the_run_or_elsewhere(made, tmp_path):
    done = report(made.folder)
    assert done.stdout.split()[0] == str(made.folder / "report.html")
    out = tmp_path / "new" / "page.html"
    (made.folder / "metrics.json").unlink()
    done = report(made.folder, "--out", out)
    assert "note: metrics.json is not there" in done.stderr
    assert out.read_text().startswith("<!doctype html>")


def test_json_is_the_analysis_and_nothing_else(made):
    done = report(made.folder, "--json")
    assert json.loads(done.stdout) == {"val": numbers(made)}
    assert not (made.folder / "report.html").exists()


def test_text_and_two_runs(made, tmp_path):
    other = MadeRun(tmp_path, name="before", data=made.data)
    other.detect([1], score=0.8)
    assert "precision" in report(made.folder, "--text").stdout
    compared = json.loads(report(made.folder, "--against", other.folder, "--json").stdout)
    (change,) = [x for x in compared["val"]["coco"] if x["name"] == "AP"]
    expected = numbers(made)["coco"]["AP"] - numbers(other)["coco"]["AP"]
    assert change["change"] == pytest.approx(expected)
    assert "this" in report(made.folder, "--against", other.folder, "--text").stdout
    report(made.folder, "--against", other.folder, "--out", tmp_path / "both.html")
    assert "Better than before" in (tmp_path / "both.html").read_text()


def test_files_that_moved(made):
    moved = made.data.rename(made.data.with_name("moved"))
    done = report(made.folder, "--json", code=1)
    assert "val.json (the ground truth); name its files" in done.output
    found = ("--json-gt", moved / "val.json", "--images", moved / "images")
    made.json = moved / "val.json"
    assert json.loads(report(made.folder, "--json", *found).stdout) == {"val": numbers(made)}
    report(made.folder, *found)
    assert "data:image/jpeg" in (made.folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dataset", "train"], "was not evaluated on it, but on: other, val"),
        (["--json-gt", "nowhere.json"], "of one data set; name it by --dataset"),
        (["--dataset", "val", "--json-gt", "nowhere.json"], "--json-gt: there is no nowhere.json"),
        (["--dataset", "val", "--group-by", "site_"], "site_"),
        (["--against", "nowhere"], "nowhere is no folder"),
    ],
)
def test_mistakes(made, arguments, said):
    made.detect([1], score=0.9, name="other")
    assert said in report(made.folder, *arguments, code=1).output


def test_an_unknown_option_is_not_an_unusable_run(made):
    report(made.folder, "--jsn", code=2)
