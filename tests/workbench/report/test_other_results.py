"""Data that are not COCO's: the numbers of their evaluators are on the page."""

import json
import math
import shutil
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_pascal_voc
from support.block_data import COLOURS, write_blocks
from support.html_page import Page
from support.made_run import MadeRun
from support.tiny_models import tiny_focal_cfg

from retina_plugin.cli.report import command
from retina_plugin.engine.trainer import RetinaTrainer
from retina_plugin.evaluation.results_file import RESULTS, read_results, write_results
from retina_plugin.workbench.report import write_report
from retina_plugin.workbench.report.run_folder import read_run

LVIS = {"bbox": {"AP": 21.25, "APr": math.nan, "APc": 20.0, "APf": 24.5}}


@pytest.fixture
def run(tmp_path):
    """A run that was evaluated on LVIS alone."""
    made = MadeRun(tmp_path)
    shutil.rmtree(made.folder / "inference")
    made.write_config("DATASETS.TEST", ("lvis_val",))
    made.write_metrics()
    write_results(made.folder / "inference/lvis_val", LVIS)
    return made


def report(*arguments, code=0):
    done = CliRunner().invoke(command, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    return done.output


def test_numbers_are_kept_and_read(tmp_path):
    write_results(tmp_path / "new/set", {**LVIS, "other": {"texts": "no number"}, "odd": 3})
    again = read_results(tmp_path / "new/set")
    assert math.isnan(again["bbox"].pop("APr"))
    assert again == {"bbox": {"AP": 21.25, "APc": 20.0, "APf": 24.5}, "other": {}}


@pytest.mark.parametrize("text", ["", "[]", '{"bbox": 3}', '{"bbox": {"AP": "x"}}'])
def test_what_cannot_be_read_is_no_result(tmp_path, text):
    (tmp_path / RESULTS).write_text(text)
    assert read_results(tmp_path) == {}


def test_lvis_is_on_the_page(run):
    page = Page(write_report(run.folder).read_text()).text
    assert "lvis_val" in page and "The numbers of its evaluator" in page
    for words in ("bbox/AP 21.25", "bbox/APr –", "bbox/APc 20.00", "bbox/APf 24.50"):
        assert words in page, words
    assert "is not there: the run was not evaluated" not in page


def test_beside_coco_and_another_run(run, tmp_path):
    other = MadeRun(tmp_path, name="other", data=run.data)
    write_results(other.folder / "inference/lvis_val", {"bbox": {"AP": 11.0}})
    write_results(other.folder / "inference_TTA/lvis_val", {"bbox": {"AP": 12.5}})
    page = Page(write_report(other.folder, against=run.folder).read_text()).text
    assert "bbox/AP 11.00 21.25" in page and "bbox_TTA/AP 12.50 –" in page
    assert read_run(other.folder).results.keys() == {"lvis_val"}  # COCO's has more than numbers


def test_of_metrics_json_where_there_is_no_file(run):
    shutil.rmtree(run.folder / "inference")
    assert read_run(run.folder).results == {"lvis_val": {"bbox": {"AP": 30.0, "AP50": 60.0}}}
    run.write_config("DATASETS.TEST", ("lvis_val", "voc"))
    row = {"iteration": 40, "lvis_val/bbox/AP": 1.0, "voc/bbox/AP": 2.0}
    (run.folder / "metrics.json").write_text(json.dumps(row))
    results = read_run(run.folder).results
    assert results == {"lvis_val": {"bbox": {"AP": 1.0}}, "voc": {"bbox": {"AP": 2.0}}}


def test_from_the_command_line(run):
    assert "report.html" in report(run.folder)
    assert "| bbox/APc | 20.00" in " ".join(report(run.folder, "--text").split())
    found = json.loads(report(run.folder, "--json"))
    assert found == {"lvis_val": {"results": {"bbox": {**LVIS["bbox"], "APr": None}}}}
    assert json.loads(report(run.folder, "--json", "--dataset", "lvis_val")) == found
    output = report(run.folder, "--dataset", "val", code=1)
    assert "was not evaluated on it, but on: lvis_val" in output


def write_voc(folder, split):
    """A data set of Pascal VOC's layout, of what ``write_blocks`` made."""
    truth = json.loads((folder / f"{split}.json").read_text())
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / "voc" / part).mkdir(parents=True)
    for image in truth["images"]:
        stem = image["file_name"].partition(".")[0]
        root = ElementTree.Element("annotation")
        size = ElementTree.SubElement(root, "size")
        for name in ("width", "height"):
            ElementTree.SubElement(size, name).text = str(image[name])
        for x in truth["annotations"]:
            if x["image_id"] != image["id"]:
                continue
            left, top, width, height = x["bbox"]
            corners = {"xmin": left, "ymin": top, "xmax": left + width, "ymax": top + height}
            thing = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(thing, "name").text = list(COLOURS)[x["category_id"] - 1]
            for name in ("difficult", "truncated"):
                ElementTree.SubElement(thing, name).text = "0"
            ElementTree.SubElement(thing, "pose").text = "Unspecified"
            box = ElementTree.SubElement(thing, "bndbox")
            for name, value in corners.items():
                ElementTree.SubElement(box, name).text = str(int(value))
        ElementTree.ElementTree(root).write(folder / "voc/Annotations" / f"{stem}.xml")
        image_file = folder / "voc/JPEGImages" / f"{stem}.jpg"
        shutil.copy(folder / split / image["file_name"], image_file)
    stems = [x["file_name"].partition(".")[0] for x in truth["images"]]
    (folder / "voc/ImageSets/Main/val.txt").write_text("\n".join(stems) + "\n")
    return folder / "voc"


def test_pascal_voc_from_evaluation_to_page(tmp_path):
    write_blocks(tmp_path, "test", 2)
    folder = write_voc(tmp_path, "test")
    register_pascal_voc("tiny_voc", str(folder), "val", 2012, class_names=list(COLOURS))
    MetadataCatalog.get("tiny_voc").evaluator_type = "pascal_voc"
    cfg = tiny_focal_cfg(NUM_CLASSES=3)
    cfg.DATASETS.TEST, cfg.OUTPUT_DIR = ("tiny_voc",), str(tmp_path / "out")
    cfg.DATALOADER.NUM_WORKERS, cfg.INPUT.MIN_SIZE_TEST = 0, 96
    results = RetinaTrainer.test(cfg, RetinaTrainer.build_model(cfg))
    (tmp_path / "out/config.yaml").write_text(cfg.dump())
    page = Page(write_report(tmp_path / "out").read_text()).text
    assert "tiny_voc" in page and f"bbox/AP50 {results['bbox']['AP50']:.2f}" in page
    assert "validation/total_loss" in page
