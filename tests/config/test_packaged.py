"""The packaged configs: the folder at the root of a checkout, or that of an installed package."""

import shutil
from pathlib import Path

import pytest

from retina_plugin.config import packaged
from retina_plugin.config.packaged import configs_folder
from retina_plugin.config.safe_yaml import ConfigFileError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An empty folder that the package is said to be in."""
    package = tmp_path / "retina_plugin"
    package.mkdir()
    monkeypatch.setattr(packaged, "files", lambda name: tmp_path / name)
    return package


def test_in_a_checkout_it_is_the_one_at_the_root():
    assert configs_folder() == ROOT / "configs"


def test_an_installed_package_has_its_own(installed):
    other = installed.parent / "configs"  # a folder of that name in site-packages is not ours
    shutil.copytree(ROOT / "configs", other)
    shutil.copytree(ROOT / "configs", installed / "configs")
    assert configs_folder() == installed / "configs"


def test_a_package_without_configs_says_where_they_should_be(installed):
    (installed.parent / "configs").mkdir()
    with pytest.raises(ConfigFileError, match=f"neither {installed}/configs nor"):
        configs_folder()
