"""Detectron2's catalogs are global: tests that register data sets give them back as they were."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog


@pytest.fixture(autouse=True)
def catalogs():
    before = [(catalog, dict(catalog.data)) for catalog in (DatasetCatalog, MetadataCatalog)]
    yield
    for catalog, data in before:
        catalog.data.clear()
        catalog.data.update(data)
