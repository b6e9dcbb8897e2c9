"""The average of the weights: its formula, its swap, its place in checkpoints."""

import copy

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from support.tiny_models import tiny_cfg
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from retina_plugin.checkpoint.checkpointer import RetinaCheckpointer
from retina_plugin.config.defaults import add_retina_config
from retina_plugin.modeling.weight_average import WeightAverage, build_weight_average
from retina_plugin.registry import UnknownNameError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def learn(model, average=None, steps=1):
    """Steps that change weights and statistics, the average after each."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4) * 3).square().sum().backward()
        optimizer.step()
        if average is not None:
            average.update()


def values(model):
    return {name: x.clone() for name, x in model.state_dict().items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert torch.equal(found[name], x), name


def test_equals_pytorchs():
    """Without a warm-up, buffers included; PyTorch's first update copies."""
    model = network()
    average = WeightAverage(model, decay=0.9, warmup=1)
    reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    reference.update_parameters(model)
    for _ in range(5):
        learn(model, average)
        reference.update_parameters(model)
    with average.applied():
        for name, expected in reference.module.state_dict().items():
            if expected.is_floating_point():
                torch.testing.assert_close(model.state_dict()[name], expected)
            else:
                assert model.state_dict()[name] == 5  # the model's own counter


@pytest.mark.parametrize("warmup", [1.0, 10.0])
def test_warm_up_by_its_formula(warmup):
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, decay=0.8, warmup=warmup)
    expected = 0.0
    for t in range(60):
        nn.init.constant_(model.weight, float(t))
        average.update()
        decay = min(0.8, (1 + t) / (warmup + t))
        expected = decay * expected + (1 - decay) * t
        with average.applied():
            assert model.weight.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_constant_weights_stay_to_the_bit():
    """Frozen layers and frozen norms."""
    model = network()
    before = values(model)
    average = WeightAverage(model, decay=0.9998)
    for _ in range(50):
        average.update()
    with average.applied():
        assert_equal(values(model), before)


def test_applied_is_undone_to_the_bit_also_by_an_error():
    model = network()
    average = WeightAverage(model, decay=0.9)
    learn(model, average, 3)
    trained, parameters = values(model), list(model.parameters())
    with pytest.raises(KeyboardInterrupt), average.applied():
        assert not torch.equal(model[0].weight, trained["0.weight"])
        raise KeyboardInterrupt
    assert_equal(values(model), trained)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    with average.applied(), pytest.raises(AssertionError), average.applied():
        pass


def test_an_evaluation_between_changes_nothing():
    model, average = (m := network()), WeightAverage(m, decay=0.9)
    twin = copy.deepcopy(model)
    other = WeightAverage(twin, decay=0.9)
    for net, its in ((model, average), (twin, other)):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        torch.manual_seed(3)
        for _ in range(4):
            optimizer.zero_grad()
            net(torch.randn(8, 4)).square().sum().backward()
            optimizer.step()
            its.update()
            if net is model:
                its.evaluate(lambda: {})
    assert_equal(values(model), values(twin))
    with average.applied(), other.applied():
        assert_equal(values(model), values(twin))


def test_a_weight_with_two_names_is_averaged_once():
    model = nn.ModuleDict({"one": nn.Linear(2, 2)})
    model["other"] = model["one"]
    nn.init.zeros_(model["one"].weight)
    average = WeightAverage(model, decay=0.5, warmup=1)
    nn.init.ones_(model["one"].weight)
    average.update()
    with average.applied():
        assert torch.equal(model["other"].weight, torch.full((2, 2), 0.5))
    assert torch.equal(model["other"].weight, torch.ones(2, 2))


def test_a_buffer_that_its_module_replaces():
    model = network()
    average = WeightAverage(model, decay=0.5, warmup=1)
    model[1].running_mean = torch.full((4,), 2.0)
    average.update()
    with average.applied():
        assert torch.equal(model[1].running_mean, torch.full((4,), 1.0))
    assert torch.equal(model[1].running_mean, torch.full((4,), 2.0))


@pytest.mark.parametrize("both", [False, True])
def test_evaluates_the_average_and_on_request_the_trained_weights(both):
    model = network()
    average = WeightAverage(model, decay=0.9, evaluates_both=both)
    learn(model, average, 3)
    found = average.evaluate(lambda: {"bbox": {"AP": model[0].weight[0, 0].item()}})
    with average.applied():
        assert found["bbox"] == {"AP": model[0].weight[0, 0].item()}
    assert found.get("raw") == ({"bbox": {"AP": model[0].weight[0, 0].item()}} if both else None)
    assert average.evaluate(dict) == {}  # of a worker other than the first


# ---- checkpoints


class Trainer:
    """What a checkpointer resumes beside the model."""

    def state_dict(self):
        return {"iteration": 7}

    def load_state_dict(self, state):
        pass


@pytest.fixture
def saved(tmp_path):
    """A model, its average, and where a checkpoint of both is."""
    model = build_model(tiny_cfg(NORM="GN"))
    average = WeightAverage(model, decay=0.9)
    for _ in range(3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        average.update()
    RetinaCheckpointer(model, str(tmp_path), average=average, trainer=Trainer()).save("model")
    return model, average, tmp_path


def other_model():
    return build_model(tiny_cfg(NORM="GN"))


def test_a_checkpoint_is_of_the_averaged_weights(saved):
    """For anyone: our evaluation, Detectron2's checkpointer, an export."""
    model, average, folder = saved
    ours, stock = other_model(), other_model()
    RetinaCheckpointer(ours, str(folder), all_weights=True).resume_or_load("", resume=True)
    DetectionCheckpointer(stock).load(str(folder / "model.pth"))
    with average.applied():
        assert_equal(values(ours), values(model))
        assert_equal(values(stock), values(model))


def test_resuming_restores_both(saved):
    model, average, folder = saved
    resumed = other_model()
    its = WeightAverage(resumed, decay=0.9)
    checkpointer = RetinaCheckpointer(resumed, str(folder), average=its, trainer=Trainer())
    checkpointer.resume_or_load("", resume=True)
    assert_equal(values(resumed), values(model))
    for net, of_net in ((model, average), (resumed, its)):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter *= 2
        of_net.update()
    assert its.updates == average.updates == 4
    with average.applied(), its.applied():
        assert_equal(values(resumed), values(model))


def test_resuming_without_an_average_goes_on_with_the_trained_weights(saved):
    """Those that the optimizer's momenta belong to."""
    model, _, folder = saved
    resumed = other_model()
    RetinaCheckpointer(resumed, str(folder), trainer=Trainer()).resume_or_load("", resume=True)
    assert_equal(values(resumed), values(model))


@pytest.mark.parametrize("resume", [True, False])
def test_an_average_begins_at_what_was_loaded(saved, tmp_path, resume):
    """A new training on these weights, or a resumed one that had no average before."""
    model, average, folder = saved
    if resume:
        RetinaCheckpointer(model, str(folder), trainer=Trainer()).save("plain")
    tuned = other_model()
    its = WeightAverage(tuned, decay=0.9)
    checkpointer = RetinaCheckpointer(tuned, str(folder), average=its, trainer=Trainer())
    checkpointer.resume_or_load(str(folder / "model.pth"), resume=resume)
    assert its.updates == 0
    before = values(tuned)
    if resume:
        assert_equal(before, values(model))
    else:
        with average.applied():
            assert_equal(before, values(model))
    with its.applied():
        assert_equal(values(tuned), before)


# ---- settings


def test_settings():
    model = network()
    assert build_weight_average(model, {}) is None
    assert build_weight_average(model, {"DECAY": 0.0, "WARMUP": 3}) is None
    built = build_weight_average(model, {"DECAY": 0.5, "WARMUP": 3, "EVALUATE_BOTH": True})
    assert (built.decay, built.warmup, built.evaluates_both) == (0.5, 3, True)
    assert build_weight_average(model, {"DECAY": 0.5}).warmup == 10


def test_the_configs_default_is_no_average():
    settings = add_retina_config(get_cfg()).SOLVER.WEIGHT_AVERAGE
    assert settings == {"DECAY": 0.0, "WARMUP": 10.0, "EVALUATE_BOTH": False}
    assert build_weight_average(network(), settings) is None


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"DECAY": 1.0}, ValueError, r"SOLVER.WEIGHT_AVERAGE.DECAY.*\[0, 1\).*got 1.0"),
        ({"DECAY": -0.1}, ValueError, r"SOLVER.WEIGHT_AVERAGE.DECAY.*-0.1"),
        ({"DECAY": 0.9, "WARMUP": 0.5}, ValueError, r"SOLVER.WEIGHT_AVERAGE.WARMUP.*0.5"),
        ({"DECYA": 0.9}, UnknownNameError, r"SOLVER.WEIGHT_AVERAGE: 'DECYA'.*DECAY"),
    ],
)
def test_wrong_settings(settings, error, message):
    with pytest.raises(error, match=message):
        build_weight_average(network(), settings)
