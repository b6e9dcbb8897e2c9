"""The parts that are measured alone, on stock and plugin with the same weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage
from support import tiny_models
from support.tiny_models import tiny_cfg

from retina_plugin.workbench.benchmark import resident
from retina_plugin.workbench.benchmark.assignment import (
    anchors_of,
    assign,
    measure_assignment,
    same_targets,
)
from retina_plugin.workbench.benchmark.cases import Case
from retina_plugin.workbench.benchmark.classification_loss import (
    measure_classification_loss,
    stock_focal_loss,
)
from retina_plugin.workbench.benchmark.contenders import build_contenders, features_and_maps
from retina_plugin.workbench.benchmark.inference import (
    box_distance,
    detect,
    inference_times,
    measure_inference,
    same_order,
)
from retina_plugin.workbench.benchmark.resident import measure_resident

CASE = Case(images=2, boxes=5, height=96, width=64, classes=7)


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    return build_contenders(tiny_cfg(), CASE.batch(), against_stock=True)[0]


def rows_of(part):
    rows = {row.name: row for row in part.rows}
    times = [row for row in part.rows if row.unit == "s"]
    memory = next(row for name, row in rows.items() if name.startswith("peak memory"))
    for row in (*times, memory):
        assert {"stock", "plugin"} <= row.samples.keys()
        assert all(min(x) > 0 for x in row.samples.values()), row
    assert all(len(row.samples["stock"]) == 2 for row in times)
    return rows


def test_assignment(pair):
    rows = rows_of(measure_assignment(pair, 2))
    assert rows["labels and matches as stock's"].samples == {"plugin": [1.0]}


def test_other_targets_are_seen(pair):
    stock, plugin = pair
    anchors, instances = anchors_of(plugin), [x["instances"] for x in plugin.batch]
    expected, found = assign(stock, anchors, instances), assign(plugin, anchors, instances)
    assert same_targets(expected, found)
    first = found.positives.image[0], found.positives.anchor[0]
    matched = found.matched.clone()
    matched[first] = (matched[first] + 1) % CASE.boxes
    assert not same_targets(expected, replace(found, matched=matched))
    labels = found.labels.clone()
    labels[first] = -1
    assert not same_targets(expected, replace(found, labels=labels))


def test_classification_loss(pair):
    rows = rows_of(measure_classification_loss(pair, 2))
    assert rows["value, relative to stock's"].samples["plugin"][0] < 1e-5
    assert rows["gradient, relative to stock's"].samples["plugin"][0] < 1e-4


def test_stocks_classification_loss_is_stocks(pair):
    stock, plugin = pair
    instances = [x["instances"] for x in plugin.batch]
    targets = assign(plugin, anchors_of(plugin), instances)
    total = stock_focal_loss(features_and_maps(plugin)[1], targets, alpha=0.25, gamma=2.0)
    stock.model.train()
    stock.model.loss_normalizer = 1.0
    with EventStorage(), torch.no_grad():
        expected = stock.model(stock.batch)["loss_cls"] * stock.model.loss_normalizer
    torch.testing.assert_close(total, expected)


def test_inference(pair):
    rows = rows_of(measure_inference(pair, 2))
    assert rows.keys() >= {"inference", "data", "network", "decode", "NMS"}
    assert rows["detections"].samples["stock"][0] > 10
    assert set(rows["stock's classes in stock's order"].samples) >= {"plugin"}
    assert all(x == [1.0] for x in rows["stock's classes in stock's order"].samples.values())
    assert all(x[0] < 1e-3 for x in rows["largest distance to stock's boxes"].samples.values())


def test_the_parts_make_the_inference(pair):
    for contender in pair:
        contender.model.eval()
        times = inference_times(contender.model, contender.batch[:1], contender.device)
        parts = sum(times[part] for part in ("data", "network", "decode", "NMS"))
        assert parts == pytest.approx(times["inference"])
        assert times["NMS"] > 0


def test_other_detections_are_seen(pair):
    stock, plugin = (detect(c.model.eval(), c.batch[:1]) for c in pair)
    assert same_order(stock, plugin) and box_distance(stock, plugin) < 1e-3
    assert not same_order(stock, plugin[:-1])
    plugin.pred_boxes.tensor[3, 1] += 2
    assert box_distance(stock, plugin) == pytest.approx(2, abs=1e-3)
    assert box_distance(stock[:0], plugin[:0]) == 0


def test_resident_set_of_a_fresh_process(pair, tmp_path):
    folder = Path(tiny_models.__file__).parents[1]
    extension = tmp_path / "brings_the_backbone.py"
    extension.write_text(
        f"import sys\nsys.path.append({str(folder)!r})\nimport support.tiny_models\n"
    )
    plugin = replace(pair[1], extensions=[str(extension)])
    largest, added = measure_resident([plugin], 1).rows
    assert largest.median("plugin") > 0.1 + added.median("plugin") > 0.1


def test_a_process_that_fails_says_why(pair, monkeypatch):
    monkeypatch.setattr(resident.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="the process of stock failed"):
        measure_resident(pair, 1)
