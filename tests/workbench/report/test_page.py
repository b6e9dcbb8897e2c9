"""The page has every part, the analysis' numbers, nothing from outside, and survives what lacks."""

import json
import re

import pytest
from PIL import Image
from support.html_page import Page

from retina_plugin.evaluation.analysis import analyse
from retina_plugin.workbench.report import find_sets, write_report
from retina_plugin.workbench.report.page import PAGE
from retina_plugin.workbench.report.render import hundred
from retina_plugin.workbench.report.run_folder import read_run

PARTS = ("numbers", "classes", "curves", "confusion", "errors", "sizes", "calibration", "images")


def page_of(run, **options):
    output = write_report(run.folder, **options)
    assert output == run.folder / PAGE
    page = Page(output.read_text(encoding="utf-8"))
    assert len(page.ids) == len(set(page.ids))
    assert not page.handlers
    for address in page.loads:
        assert address.startswith(("#", "data:image/jpeg;base64,")), address
    assert not re.search(r"@import|url\(|<link|<iframe", page.html)
    assert "http" not in page.html
    return page


def analysis_of(run, **options):
    return analyse(run.truth, json.loads(run.detections.read_text()), **options)


def rows_of(page, name):
    (row,) = re.findall(rf'<tr>\n?<td class="name">{name}</td>.*?</tr>', page.html, re.DOTALL)
    return re.sub(r"<[^>]+>", " ", row).split()


def test_every_part_and_the_numbers_of_the_analysis(made):
    made.detect([1], score=0.9)
    page = page_of(made)
    for part in PARTS:
        assert f"set0-{part}" in page.ids
    assert {"training", "settings", "environment"} <= set(page.ids)
    analysis = analysis_of(made)
    tiles = re.findall(r'<div class="tile"><span>([^<]+)</span><b>([^<]+)</b>', page.html)
    assert len(tiles) == 12  # COCO's twelve but AP, which is the large one, and F1
    shown = dict(tiles)
    assert shown["AP50"] == hundred(analysis.coco["AP50"]) == "50.5"
    assert shown["AR, 100 det."] == hundred(analysis.coco["AR100"])
    assert f"</small>{hundred(analysis.coco['AP'])}</div>" in page.html
    for of in analysis.classes:
        best = [of.best.precision, of.best.recall, of.best.f1]
        expected = [of.AP, of.AP50, of.AP75, *best]
        assert rows_of(page, of.name) == [
            *(of.name, str(of.objects)),
            *map(hundred, expected),
            f"{of.best.threshold:.2f}",
        ]
    point = analysis.overall.at_threshold
    assert f"{point.true_positives} objects found" in page.text
    assert f"{point.false_negatives} missed" in page.text
    assert page.html.count("data:image/jpeg") == 2 * 2  # the empty image is neither good nor bad
    assert "40 " in page.text and "OUTPUT_DIR" in page.text


def test_names_that_are_code_stay_text(make):
    hostile = "<script>alert(1)</script>"
    run = make(classes=(hostile, '"><img src=x onerror=alert(2)>'))
    truth = run.truth
    truth["images"][0]["file_name"] = "</style><script>alert(3)</script>.png"
    run.json.write_text(json.dumps(truth))
    page = page_of(run)
    assert page.tags["script"] == 1 and "alert(1)" in page.text
    assert "<script>alert" not in page.html and "<img src=x" not in page.html


def test_one_class(make):
    run = make(classes=("tree",))
    page = page_of(run)
    assert "<select" not in page.html  # nothing to choose from
    assert rows_of(page, "tree")[1] == "2"


def test_no_detections(made):
    made.detections.write_text("[]")
    page = page_of(made)
    assert "Nothing was detected: all 4 objects were missed" in page.text


def test_detections_that_find_nothing(made):
    made.detect([1, 2], score=0.9, shift=300.0)
    page = page_of(made)
    assert "None of the 4 detections finds one of the 4 objects" in page.text


def test_a_data_set_without_objects(made):
    made.json.write_text(json.dumps({**made.truth, "annotations": []}))
    page = page_of(made)
    assert "no objects that count" in page.text


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("metrics.json", "metrics.json is not there: there are no training curves"),
        ("config.yaml", "config.yaml is not there: the settings are unknown"),
    ],
)
def test_what_is_missing_is_said(made, lost, said):
    (made.folder / lost).unlink()
    page = page_of(made)
    assert said in page.text


def test_metrics_cut_off(made):
    file = made.folder / "metrics.json"
    file.write_text(file.read_text() + '\n{"iteration": 5')
    page = page_of(made)
    assert "metrics.json, line 6: no json" in page.text
    assert "set0-numbers" in page.ids


def test_no_images_on_this_machine(made):
    made.images.rename(made.data / "elsewhere")
    page = page_of(made)
    assert f"No pictures: there is no folder {made.images}" in page.text
    assert "data:image" not in page.html


def test_an_image_that_cannot_be_read(made):
    (made.images / "0.png").write_bytes(b"no picture")
    page = page_of(made)
    assert f"{made.images}/0.png cannot be drawn" in page.text
    assert page.html.count("data:image/jpeg") == 2


def test_no_ground_truth_on_this_machine(made):
    made.json.unlink()
    page = page_of(made)
    assert f"there is no file {made.json}" in page.text and "--json-gt" in page.text
    assert "training" in page.ids and "set0" not in page.ids


def test_several_sets_and_one_of_which_nothing_is_known(made):
    made.detect([1], score=0.9, name="other")
    page = page_of(made)
    assert "data set 'other': the run's config does not say where it is" in page.text
    config = made.folder / "config.yaml"
    places = {"NAME": ["val", "other"], "JSON": [str(made.json)] * 2, "IMAGES": [str(made.images)]}
    node = "DATASETS.COCO.TEST"
    made.write_config(*(part for k, v in places.items() for part in (f"{node}.{k}", v)))
    assert config.is_file()
    page = page_of(made)
    assert {"set0-numbers", "set1-numbers"} <= set(page.ids)
    assert 'href="#set1">other</a>' in page.html


def test_two_runs(made, make):
    other = make(name="before", data=made.data)
    other.detect([1], score=0.8, shift=4.0)
    page = page_of(made, against=other.folder)
    change = analysis_of(made).coco["AP"] - analysis_of(other).coco["AP"]
    assert change > 0
    assert f'<span class="delta better">+{hundred(change)}</span>' in page.html
    assert "Better than before" in page.text and "Worse than before" not in page.text
    assert "The two runs have the same settings" in page.text
    other.write_config("SOLVER.BASE_LR", 0.5)
    page = page_of(made, against=other.folder)
    assert "Where the two runs differ" in page.text
    other.detections.unlink()
    page = page_of(made, against=other.folder)
    assert "before was not evaluated on 'val'" in page.text


def test_groups_of_the_config_and_of_the_call(made):
    assert "set0-groups" not in page_of(made).ids
    for page in (page_of(made, group_by=["site"]), _with_config(made)):
        assert "set0-groups" in page.ids
        assert rows_of(page, "south")[:3] == ["south", "1", "2"]


def _with_config(made):
    made.write_config("TEST.GROUP_FIELDS", ["site"])
    return page_of(made)


def test_pictures_stay_within_their_bytes(made, monkeypatch):
    monkeypatch.setattr("retina_plugin.workbench.report.page.MOST_BYTES", 1)
    page = page_of(made)
    assert page.html.count("data:image/jpeg") == 2  # the first, and no more


def test_a_run_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has no config\.yaml, metrics\.json or inference"):
        write_report(tmp_path)


def test_a_half_written_page_replaces_none(made, monkeypatch):
    page = made.folder / PAGE
    page.write_text("the old one")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_report(made.folder)
    assert page.read_text() == "the old one"
    assert not list(made.folder.glob(".*.part"))


def test_sets_by_name_and_by_place(made):
    run = read_run(made.folder)
    (one,) = find_sets(run)
    assert (one.name, one.json, one.images) == ("val", made.json, made.images)
    with pytest.raises(ValueError, match="was not evaluated on it, but on: val"):
        find_sets(run, names=("train",))


def test_paths_relative_to_where_the_run_was_started(made, monkeypatch, tmp_path):
    node = "DATASETS.COCO.TEST"
    made.write_config(f"{node}.JSON", ["data/val.json"], f"{node}.IMAGES", ["data/images"])
    (made.folder / "environment.json").write_text(json.dumps({"folder": str(tmp_path)}))
    (one,) = find_sets(read_run(made.folder))
    assert (one.json, one.images) == (made.json, made.images)


def test_the_place_that_the_results_record(made):
    made.detect([1], score=0.9, name="other")
    record = {"json": str(made.json), "images": str(made.images)}
    (made.folder / "inference" / "other" / "data_set.json").write_text(json.dumps(record))
    _, other = find_sets(read_run(made.folder))
    assert (other.json, other.images) == (made.json, made.images)


def test_images_of_bands(made):
    import numpy as np

    truth = made.truth
    for image in truth["images"]:
        name = image["file_name"].replace("png", "npy")
        values = np.asarray(Image.open(made.images / image["file_name"])).astype(np.uint16)
        np.save(made.images / name, np.concatenate([values, values[..., :2]], axis=2))
        image["file_name"] = name
    made.json.write_text(json.dumps(truth))
    made.write_config(
        *("INPUT.FORMAT", "bands", "MODEL.PIXEL_MEAN", [0.0] * 5, "MODEL.PIXEL_STD", [1.0] * 5)
    )
    assert page_of(made).html.count("data:image/jpeg") == 2 * 2
