"""The processes of runs, played by a script."""

import json
import sys
from pathlib import Path

import pytest

from retina_plugin.workbench.compare.pool import CONSOLE, carry_out
from retina_plugin.workbench.compare.runs import RESULT, Run


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Says what the worker does: it gets ``-m MODULE FOLDER``."""

    def does(commands):
        script = tmp_path / "worker.sh"
        script.write_text(f"#!/bin/sh\nfolder=$3\n{commands}\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return does


def a_run(tmp_path, label="a"):
    return Run(label, 1, Path("c.yaml"), (), images=8, folder=tmp_path / label)


def carried_out(*runs, jobs=1):
    said = []
    return carry_out(runs, jobs=jobs, say=said.append), said


def test_finished_runs_are_left_alone(tmp_path, worker):
    worker(f'echo $folder >> {tmp_path}/started; echo {{}} > "$folder/{RESULT}"')
    runs = [a_run(tmp_path, label) for label in "abc"]
    runs[1].folder.mkdir()
    runs[1].finish({"scores": {}})
    failed, said = carried_out(*runs, jobs=2)
    assert not failed and said[0] == "2 of 3 runs to do, 1 are finished already"
    started = (tmp_path / "started").read_text().split()
    assert sorted(started) == [str(tmp_path / "a"), str(tmp_path / "c")]
    assert json.loads((tmp_path / "a" / "run.json").read_text())["label"] == "a"


def test_a_run_that_ends_without_a_result_has_failed(tmp_path, worker):
    worker("exit 0")
    run = a_run(tmp_path)
    failed, said = carried_out(run)
    assert failed == [run] and "failed with exit code 0" in said[-1]


def test_a_failure_tells_of_this_attempt_alone(tmp_path, worker):
    run = a_run(tmp_path)
    worker("echo error: no such loss; exit 1")
    assert carried_out(run)[1][-1].endswith(f"{run.folder / CONSOLE}\n    error: no such loss")
    worker("echo MemoryError; exit 3")
    assert carried_out(run)[1][-1].endswith(f"{run.folder / CONSOLE}\n    MemoryError")
