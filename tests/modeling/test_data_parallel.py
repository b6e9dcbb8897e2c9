from support.workers import on_workers
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from retina_plugin.modeling.data_parallel import inner_model


def _on_a_worker(_):
    model = nn.Linear(2, 1)
    assert inner_model(DistributedDataParallel(model)) is model


def test_of_a_wrapped_model_the_one_within(tmp_path):
    on_workers(2, tmp_path, _on_a_worker)


def test_any_other_model_is_itself():
    model = nn.Sequential(nn.Linear(2, 1))
    model.module = nn.Linear(1, 1)  # a name that anybody may use
    assert inner_model(model) is model
