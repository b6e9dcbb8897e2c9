import pytest
from support.made_run import MadeRun


@pytest.fixture
def made(tmp_path):
    return MadeRun(tmp_path)


@pytest.fixture
def make(tmp_path):
    return lambda **options: MadeRun(tmp_path, **options)
