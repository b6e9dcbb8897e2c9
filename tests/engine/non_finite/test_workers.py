"""Two workers on CPUs decide alike, whoever has the batch that is not finite."""

import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from support.failing import float_batch, tiny_detector, with_bad_pixel
from support.workers import on_workers

from retina_plugin.engine.non_finite.guard import NonFiniteError, Origin, build_guard
from retina_plugin.engine.step import TrainingStep
from retina_plugin.engine.trainer import distribute


def train_both(rank, folder):
    return {action: train(folder / action, action) for action in ("stop", "skip")}


def train(folder, action):
    """Three steps; in the second the last worker has a bad pixel. The normalizer waits for all."""
    model = tiny_detector()
    model.normalizer.average_over_workers = True
    batches = [float_batch() for _ in range(3)]
    if comm.get_rank() == 1:
        batches[1] = with_bad_pixel(batches[1])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    guard = build_guard(
        model, optimizer, {"ACTION": action, "CHECK_GRADIENTS": True}, Origin(folder)
    )
    step = TrainingStep(model=distribute(model), loader=batches, optimizer=optimizer, guard=guard)
    message = ""
    with EventStorage():
        try:
            for step.iter in range(3):
                step.run_step()
        except NonFiniteError as error:
            message = str(error)
    return {
        "message": message,
        "steps": step.iter,
        "skipped": guard.skipped,
        "weights": {name: x.detach().clone() for name, x in model.state_dict().items()},
    }


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    return folder, on_workers(2, folder, train_both, folder)


@pytest.mark.parametrize("action", ["stop", "skip"])
def test_workers_agree(of_two, action):
    folder, results = of_two
    first, second = (result[action] for result in results)
    for name, x in first["weights"].items():
        assert torch.equal(x, second["weights"][name]) and bool(x.isfinite().all()), name
    assert [x.name for x in (folder / action).iterdir()] == ["step_1_worker_1.pth"]
    if action == "skip":
        assert first["skipped"] == second["skipped"] == 1 and first["steps"] == 2
        assert first["message"] == second["message"] == ""
    else:
        assert first["steps"] == second["steps"] == 1
        assert first["message"] == second["message"]
        assert "image_1.png" in first["message"] and "worker 1" in first["message"]
        assert "step_1_worker_1.pth" in first["message"]
