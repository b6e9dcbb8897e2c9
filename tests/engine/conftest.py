"""The engine sets up loggers and registers data sets for the whole process: undo it."""

import logging

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import setup_logger


@pytest.fixture(autouse=True)
def _undo_setup():
    loggers = [logging.getLogger(name) for name in ("retina_plugin", "detectron2", "fvcore")]
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
