"""Two workers on CPUs, started as train_net.py starts them, step as one with the whole batch."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.tiny_models import tiny_cfg

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.engine.launch import launch_workers
from retina_plugin.engine.step import build_step
from retina_plugin.engine.trainer import distribute
from retina_plugin.modeling.weight_average import WeightAverage

# Objects in each image of two steps. In the second one worker has nothing to find.
STEPS = [(6, 0, 3, 9), (5, 4, 0, 0)]
NORMALIZERS = {
    "batch": ("BatchNormalizer", {"AVERAGE_OVER_WORKERS": True}),
    "ema": ("EMANormalizer", {"AVERAGE_OVER_WORKERS": True, "INITIAL": 10.0}),
    "batch of each worker": ("BatchNormalizer", {"AVERAGE_OVER_WORKERS": False}),
}


def build(case: str):
    torch.manual_seed(0)
    name, settings = NORMALIZERS[case]
    cfg = add_retina_config(tiny_cfg(NORM="GN"))
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    cfg.MODEL.RETINANET.NORMALIZER.NAME = name
    for key, value in settings.items():
        cfg.MODEL.RETINANET.NORMALIZER[name][key] = value
    return build_model(cfg)


def step_gradients(case: str, images: slice) -> list[dict]:
    """The gradients of every parameter in each step, for these images of the batch."""
    model = build(case)
    parallel = distribute(model)
    assert (parallel is model) == (comm.get_world_size() == 1)
    steps = []
    for counts in STEPS:
        batch = make_batch(counts, sizes=((96, 128),))
        model.zero_grad()
        sum(parallel(batch[images]).values()).backward()
        steps.append({n: p.grad.clone() for n, p in model.named_parameters()})
    return steps


def trained(case: str, images: slice, parts: int, steps: int = len(STEPS)) -> dict[str, dict]:
    """Gradients of the last step, weights after it and their average, by TrainingStep."""
    model = build(case)
    with torch.no_grad():
        for parameter in model.parameters():  # the workers begin with the first one's
            parameter += comm.get_rank()
    parallel = distribute(model)
    batches = [make_batch(counts, sizes=((96, 128),))[images] for counts in STEPS]
    size = len(batches[0]) // parts
    loader = [batch[i : i + size] for batch in batches for i in range(0, len(batch), size)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    average = WeightAverage(model, decay=0.5)
    step = build_step(parallel, loader, optimizer, amp=False, accumulate=parts, average=average)
    with EventStorage():
        for step.iter in range(steps):
            step.run_step()
    found = {
        "gradients": {n: p.grad.clone() for n, p in model.named_parameters()},
        "weights": {n: p.detach().clone() for n, p in model.named_parameters()},
    }
    with average.applied():
        found["average"] = {n: p.detach().clone() for n, p in model.named_parameters()}
    return found


def worker(args: Namespace) -> None:
    torch.set_num_threads(1)
    half = slice(comm.get_rank(), None, 2)
    results = {case: step_gradients(case, half) for case in NORMALIZERS}
    results["parts"] = {case: trained(case, half, 2) for case in NORMALIZERS}
    results["first step"] = trained("batch of each worker", half, 2, steps=1)
    torch.save(results, args.folder / f"{comm.get_rank()}.pt")


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """Each worker's gradients after they were averaged."""
    folder: Path = tmp_path_factory.mktemp("gradients")
    args = Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto", folder=folder)
    launch_workers(worker, args)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def difference(found, expected):
    """Largest relative difference of a parameter's gradient, by its norm."""
    return max(
        ((found[name] - gradient).norm() / gradient.norm()).item()
        for name, gradient in expected.items()
    )


@pytest.mark.parametrize("case", ["batch", "ema"])
@pytest.mark.parametrize("step", range(len(STEPS)))
def test_gradients_are_those_of_the_whole_batch(of_two, case, step):
    expected = step_gradients(case, slice(None))
    for found in of_two:
        assert difference(found[case][step], expected[step]) < 1e-4


@pytest.mark.parametrize("step", range(len(STEPS)))
def test_without_averaging_they_are_others(of_two, step):
    """The reason for AVERAGE_OVER_WORKERS: an object's weight would depend on its worker."""
    case = "batch of each worker"
    expected = step_gradients(case, slice(None))
    for found in of_two:
        assert difference(found[case][step], expected[step]) > 0.05


def test_both_workers_have_the_same_gradients(of_two):
    first, second = of_two
    for case in NORMALIZERS:
        for a, b in zip(first[case], second[case], strict=True):
            assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("case", ["batch", "ema"])
def test_micro_batches_of_workers_are_the_whole_batch(of_two, case):
    """Each of two workers takes its two images one by one; the average of the weights as well."""
    expected = trained(case, slice(None), 1)
    for found in of_two:
        for what, tensors in found["parts"][case].items():
            assert difference(tensors, expected[what]) < 1e-4, what


@pytest.mark.parametrize("case", NORMALIZERS)
def test_workers_stay_together_over_micro_batches(of_two, case):
    """Also where each divides by its own positives: that happens before they exchange gradients."""
    first, second = (results["parts"][case] for results in of_two)
    for what, tensors in first.items():
        assert all(torch.equal(tensors[name], second[what][name]) for name in tensors), what


def test_micro_batches_of_workers_that_count_for_themselves(of_two):
    """The mean of what each finds in a large batch of its own."""
    case = "batch of each worker"
    first, second = (
        trained(case, slice(rank, None, 2), 1, steps=1)["gradients"] for rank in range(2)
    )
    expected = {name: (first[name] + second[name]) / 2 for name in first}
    for found in of_two:
        assert difference(found["first step"]["gradients"], expected) < 1e-4
