from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from retina_plugin.workbench.benchmark import stopwatch
from retina_plugin.workbench.benchmark.stopwatch import Stopwatch

NAP = 1.0


class Clock:
    """Only naps take time: a busy machine has no part in these tests."""

    now = 0.0

    def sleep(self, seconds):
        self.now += seconds


time = Clock()


class Sleeper(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Identity()
        self.part = lambda: time.sleep(NAP)

    def forward(self, x):
        return self.inner(self.method(x))

    def method(self, x):
        time.sleep(NAP)
        return x


@pytest.fixture
def watch(monkeypatch):
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(perf_counter=lambda: time.now))
    return Stopwatch(torch.device("cpu"))


def test_methods_attributes_and_modules(watch):
    model = Sleeper()
    model.inner.register_forward_pre_hook(lambda *_: time.sleep(NAP))
    before, own = dict(vars(model)), model.part
    with (
        watch.watching(model, "method", "method"),
        watch.watching(model, "part", "part"),
        watch.watching(model, "inner", "inner"),
    ):
        assert model(1) == 1
        assert model(2) == 2
        model.part()
    model(3)
    model.part()
    assert {k: round(v / NAP) for k, v in watch.seconds.items()} == {"method": 2, "part": 1} | {
        "inner": 0  # its hook ran before ours
    }
    assert vars(model) == before and model.part is own
    assert len(model.inner._forward_pre_hooks) == 1 and not model.inner._forward_hooks


def test_functions_of_a_module(watch):
    module = ModuleType("module")
    module.nap = lambda seconds: time.sleep(seconds)
    original = module.nap
    with watch.watching(module, "nap", "sleep"):
        module.nap(NAP)
        module.nap(seconds=NAP)
    assert module.nap is original
    assert watch.seconds["sleep"] >= 2 * NAP


def test_restored_after_an_error(watch):
    model = Sleeper()
    with (
        pytest.raises(RuntimeError),
        watch.watching(model, "method", "a"),
        watch.watching(model, "inner", "b"),
    ):
        raise RuntimeError
    assert "method" not in vars(model)
    assert not model.inner._forward_pre_hooks and not model.inner._forward_hooks
