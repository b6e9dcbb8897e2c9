import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch.nn import functional as F

from retina_plugin.workbench.benchmark.synchronisations import SynchronisationCounter

CPU = torch.device("cpu")
X = torch.arange(6.0)
LABELS = torch.tensor([0, 2, 1])


def assign(x, mask, value):
    x.clone()[mask] = value


class Reads(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sum()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.expand(6) * gradient.item()


def counted(run, host_data=()):
    with SynchronisationCounter(CPU, host_data) as counter:
        run()
    return counter


@pytest.mark.parametrize(
    ("run", "waits"),
    [
        (lambda: X[0].item(), 1),
        (lambda: X.tolist(), 1),
        (lambda: X[0].tolist(), 1),
        (lambda: X.nonzero(), 1),
        (lambda: X.nonzero(as_tuple=True), 1),
        (lambda: X[X > 2], 1),
        (lambda: assign(X, X > 2, X[X > 2]), 2),
        (lambda: assign(X, X > 2, 1), 0),  # a number: masked_fill_
        (lambda: X[0] if (X > 2).any() else X[1], 1),
        (lambda: int(X[1]), 1),
        (lambda: float(X.sum()), 1),
        (lambda: f"{X[1]:.1f}", 1),
        (lambda: X[: LABELS[1]], 1),
        (lambda: X.masked_select(X > 2), 1),
        (lambda: torch.where(X > 2), 1),
        (lambda: torch.where(X > 2, X, 0), 0),
        (lambda: X.unique(), 1),
        (lambda: torch.equal(X, X), 1),
        (lambda: X[1].cpu().item(), 1),  # what has come is there
        (lambda: LABELS.repeat_interleave(LABELS), 1),
        (lambda: LABELS.repeat_interleave(LABELS, output_size=3), 0),
        (lambda: F.one_hot(LABELS, 4), 0),  # only the CPU looks at the values
        (lambda: F.one_hot(LABELS), 2),
        (lambda: X.numpy(), 0),  # CUDA's tensors refuse: this code is the CPU's alone
        (lambda: X.topk(3).values.cumsum(0), 0),
        (lambda: X[LABELS], 0),
        (lambda: Reads.apply(X.clone().requires_grad_()).backward(), 1),
        (lambda: X.clone().requires_grad_()[X > 2].sum().backward(), 2),  # and the way back
    ],
)
def test_waits(run, waits):
    counter = counted(run)
    assert counter.waits.total() == waits, counter.waits
    assert counter.uploads.total() == 0


def test_what_the_loader_gave_is_the_hosts_until_it_is_moved():
    classes, boxes = torch.tensor([1, 2]), torch.rand(2, 4)
    instances = Instances((9, 9), gt_boxes=Boxes(boxes), gt_classes=classes)
    batch = [{"image": torch.rand(3, 4, 4), "instances": instances, "file_name": "a"}]

    def run():
        assert (classes >= 0).all()
        assert (boxes[:, 2:].clone().amax() < 9).item()
        moved = instances.to("cpu")
        assert (moved.gt_classes >= 0).all()  # the only wait
        batch[0]["image"].to(X.device)
        assert batch[0]["image"].to(X.device, non_blocking=True).dim() == 3  # waits for nothing
        batch[0]["image"].to(torch.float64)

    counter = counted(run, batch)
    assert counter.waits.total() == 1
    assert dict(counter.uploads) == {("to", place): n for (_, place), n in counter.uploads.items()}
    assert counter.uploads.total() == 3


def test_host_and_device_together_are_the_devices():
    host = torch.ones(6)
    assert counted(lambda: (host + X).tolist(), [host]).waits.total() == 1
    assert counted(lambda: host.tolist(), [host]).waits.total() == 0


@pytest.mark.parametrize(
    ("run", "uploads", "waits"),
    [
        (lambda: torch.tensor([1, 2]).tolist(), 0, 0),
        (lambda: torch.tensor([1, 2], device="cpu").tolist(), 1, 1),
        (lambda: X.new_tensor([1, 2]).tolist(), 1, 1),
        (lambda: torch.as_tensor(X, device="cpu").tolist(), 0, 1),
        (lambda: X.to("cpu"), 0, 0),
    ],
)
def test_uploads(run, uploads, waits):
    counter = counted(run)
    assert (counter.uploads.total(), counter.waits.total()) == (uploads, waits)


def test_the_place_is_the_line_that_asked():
    counter = counted(lambda: [X[i].item() for i in range(2)])
    ((what, place),) = counter.waits
    assert what == "aten::_local_scalar_dense" and counter.waits[what, place] == 2
    assert place.startswith(f"{__name__}.<lambda>:") or place.startswith(f"{__name__}.counted:")


def test_results_are_the_same_within():
    def run():
        x = X.clone().requires_grad_()
        (x[x > 1] ** 2).sum().backward()
        return x.grad

    with SynchronisationCounter(CPU):
        found = run()
    assert torch.equal(found, run())


def test_nothing_is_counted_afterwards():
    counter = counted(lambda: X.tolist())
    X.tolist()
    assert counter.waits.total() == 1
