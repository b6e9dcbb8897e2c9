"""Every test starts from the same random state, on one thread: the models are tiny."""

import logging
import os

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import setup_logger

from retina_plugin.registry import foreign_keys

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _undo_setup():
    """Loggers and data sets are the whole process's: what a test sets up is undone after it."""
    loggers = [logging.getLogger(name) for name in ("retina_plugin", "detectron2", "fvcore")]
    foreign_keys._warned.clear()
    before = [(x, list(x.handlers), x.level, x.propagate) for x in loggers]
    datasets = set(DatasetCatalog.list())
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate
    setup_logger.cache_clear()
    for name in set(DatasetCatalog.list()) - datasets:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)
