"""The moving average: as Detectron2's, but it survives."""

import copy

import pytest
import torch
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from torch import nn

from retina_plugin.modeling.normalizers.ema_normalizer import EMANormalizer

COUNTS = [0, 1, 250, 3000, 17, 0]


class Ema:
    """Something with Detectron2's ``_ema_update``, which keeps its state as an attribute."""

    update = DenseDetector._ema_update


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("initial", [1.0, 100.0])
def test_equals_stock(initial, momentum):
    stock, ours = Ema(), EMANormalizer(momentum=momentum, initial=initial)
    for count in COUNTS:
        expected = stock.update("value", max(count, 1), initial, momentum)
        assert ours(torch.tensor(count)).item() == pytest.approx(expected, rel=1e-6)


def test_momentum_zero_is_the_batch():
    normalizer = EMANormalizer(momentum=0.0)
    assert [normalizer(torch.tensor(count)).item() for count in COUNTS] == [1, 1, 250, 3000, 17, 1]


def test_survives_a_checkpoint():
    run, resumed = EMANormalizer(), EMANormalizer()
    for count in COUNTS:
        run(torch.tensor(count))
    resumed.load_state_dict(run.state_dict())
    assert resumed(torch.tensor(40)) == run(torch.tensor(40))
    assert resumed.average != EMANormalizer().average


def test_a_checkpoint_without_it_starts_afresh():
    """As Detectron2's have none; nothing is reported missing, and nothing unexpected."""
    model = nn.ModuleDict({"normalizer": EMANormalizer(initial=50.0)})
    assert model.load_state_dict({}, strict=True) == ([], [])
    assert model["normalizer"].average == 50
    given = {}
    EMANormalizer().load_state_dict(given)
    assert given == {}  # the caller's dict is not ours to fill


def test_a_step_does_not_change_what_an_earlier_one_returned():
    normalizer = EMANormalizer()
    loss = torch.tensor(2.0, requires_grad=True)
    first = normalizer(torch.tensor(10))
    before = first.clone()
    divided = loss * loss / first
    normalizer(torch.tensor(1000))
    assert torch.equal(first, before)
    divided.backward()  # and autograd, which kept it, agrees
    assert loss.grad == 4 / before


def test_moves_and_copies_with_the_model():
    normalizer = EMANormalizer()
    normalizer(torch.tensor(500))
    twin = copy.deepcopy(normalizer)
    normalizer(torch.tensor(500))
    assert twin.average != normalizer.average
    assert list(normalizer.state_dict()) == ["average"]
    assert normalizer.to(torch.float64)(torch.tensor(3)).dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"momentum": 1.0}, "EMANormalizer.MOMENTUM.*1.0"),
        ({"momentum": -0.1}, "EMANormalizer.MOMENTUM.*-0.1"),
        ({"initial": 0.0}, "EMANormalizer.INITIAL.*0.0"),
    ],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        EMANormalizer(**arguments)
