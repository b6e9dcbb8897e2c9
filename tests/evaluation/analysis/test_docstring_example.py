"""The example of the package's docstring runs and gives what it says."""

import doctest
import json

from support.coco_cases import scene

from retina_plugin.evaluation import analysis


def test_the_example_runs(tmp_path, monkeypatch):
    here, there, nowhere = ([x, 0.0, 40.0, 40.0] for x in (0.0, 100.0, 200.0))
    truth, found = scene(
        [(0, 0, here), (0, 0, there)], [(0, 0, here, 0.8), (0, 0, nowhere, 0.5)], images=2
    )
    for x in truth["images"]:
        x["site"] = "north"
    (tmp_path / "val.json").write_text(json.dumps(truth))
    (tmp_path / "coco_instances_results.json").write_text(json.dumps(found))
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(analysis)
    assert (results.failed, results.attempted) == (0, 10)
    (tmp_path / "analysis.json").unlink()
