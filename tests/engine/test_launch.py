"""How many workers start, where they meet, and what is said when that cannot be."""

from argparse import Namespace

import pytest
import torch
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from retina_plugin.engine import launch as engine_launch
from retina_plugin.engine.launch import launch_workers


def arguments(**given):
    defaults = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    return Namespace(**{**defaults, **given})


@pytest.fixture
def launched(monkeypatch):
    """What Detectron2's launch is asked for."""
    calls = []
    monkeypatch.setattr(
        engine_launch, "launch", lambda main, *args, **options: calls.append((args, options))
    )
    return calls


def gpus(monkeypatch, number):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)


def test_one_worker_runs_here():
    seen = []
    launch_workers(lambda args: seen.append((args.word, comm.get_world_size())), arguments(word=3))
    assert seen == [(3, 1)]


def test_workers_on_cpus_may_be_many(launched, monkeypatch):
    gpus(monkeypatch, 0)
    args = arguments(num_gpus=5)
    launch_workers(print, args)
    (number,), options = launched[0]
    assert number == 5
    assert options["dist_url"] == "auto"
    assert options["args"] == (args,)


def test_more_workers_than_gpus(launched, monkeypatch):
    gpus(monkeypatch, 2)
    with pytest.raises(SystemExit, match=r"--num-gpus 3, but this machine has 2.*CUDA_VISIBLE"):
        launch_workers(print, arguments(num_gpus=3))
    launch_workers(print, arguments(num_gpus=2))
    assert len(launched) == 1


def test_several_machines_need_a_place_to_meet(launched):
    with pytest.raises(SystemExit, match=r"--num-machines 2 needs --dist-url tcp://HOST:PORT"):
        launch_workers(print, arguments(num_machines=2))
    launch_workers(print, arguments(num_machines=2, machine_rank=1, dist_url="tcp://there:1"))
    _, options = launched[0]
    assert (options["num_machines"], options["machine_rank"]) == (2, 1)
    assert options["dist_url"] == "tcp://there:1"


def failing(error):
    def launch(*args, **options):
        raise error

    return launch


def test_a_worker_that_has_said_why_needs_no_traceback(monkeypatch):
    error = ProcessExitedException("process 0 terminated", 0, 1, exit_code=1)
    monkeypatch.setattr(engine_launch, "launch", failing(error))
    with pytest.raises(SystemExit) as end:
        launch_workers(print, arguments(num_gpus=2))
    assert end.value.code == 1


@pytest.mark.parametrize(
    "error",
    [
        ProcessExitedException("killed", 0, 1, exit_code=-9, signal_name="SIGKILL"),
        ProcessRaisedException("Traceback: ...", 0, 1),
    ],
)
def test_a_worker_that_died_otherwise_is_reported(monkeypatch, error):
    monkeypatch.setattr(engine_launch, "launch", failing(error))
    with pytest.raises(type(error)):
        launch_workers(print, arguments(num_gpus=2))


# ---- torchrun


@pytest.fixture
def torchrun(monkeypatch):
    """torchrun's environment; what is done to torch.distributed is recorded, not done."""
    done = []
    words = {"RANK": 3, "LOCAL_RANK": 1, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2}
    for name, value in {**words, "MASTER_ADDR": "there", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    for owner, name in (
        (engine_launch.dist, "init_process_group"),
        (engine_launch.dist, "destroy_process_group"),
        (comm, "create_local_process_group"),
        (torch.cuda, "set_device"),
    ):
        monkeypatch.setattr(owner, name, lambda *args, name=name: done.append((name, *args)))
    return done


def test_torchruns_workers_are_taken_as_they_are(torchrun, launched, monkeypatch):
    gpus(monkeypatch, 0)
    launch_workers(lambda args: torchrun.append("main"), arguments(num_gpus=8))
    assert launched == []
    assert torchrun == [
        ("init_process_group", "gloo"),
        ("create_local_process_group", 2),
        "main",
        ("destroy_process_group",),
    ]


def test_torchruns_workers_take_a_gpu_each(torchrun, monkeypatch):
    gpus(monkeypatch, 2)
    launch_workers(lambda args: torchrun.append("main"), arguments())
    assert torchrun[:2] == [("set_device", 1), ("init_process_group", "nccl")]


def test_more_torchrun_workers_than_gpus(torchrun, monkeypatch):
    gpus(monkeypatch, 1)
    with pytest.raises(SystemExit, match=r"--nproc-per-node 2, but this machine has 1"):
        launch_workers(print, arguments())


@pytest.mark.parametrize("missing", ["LOCAL_WORLD_SIZE", "MASTER_ADDR"])
def test_a_few_of_the_names_are_not_torchrun(torchrun, launched, monkeypatch, missing):
    """Other schedulers set RANK and WORLD_SIZE too."""
    gpus(monkeypatch, 0)
    monkeypatch.delenv(missing)
    launch_workers(print, arguments())
    assert len(launched) == 1
    assert torchrun == []
