"""Every test starts from the same random state, on one thread: the models are tiny."""

import os

import pytest
import torch

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
