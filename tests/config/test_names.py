"""Configs by name: this package's, and those that other packages offer by an entry point."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from omegaconf import DictConfig

import retina_plugin
from retina_plugin.config import names
from retina_plugin.config.config_file import find_keys, load_config, own_keys
from retina_plugin.config.names import (
    config_folders,
    find_config,
    find_url,
    list_configs,
    named_configs,
)
from retina_plugin.config.safe_yaml import ConfigFileError

OWN = config_folders()["retina_plugin"]


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """A package whose folder holds configs, offered by the entry points of a call."""
    folder = tmp_path / "someones_configs"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('never imported')")
    (folder / "mine.yaml").write_text(
        "# Mine.\n_BASE_: retina_plugin://modern/atss_crowns.yaml\nSEED: 7\nVERSION: 2\n"
    )
    (folder / "deep" / "crowns.yaml").write_text("# A second one.\nSEED: 8\nVERSION: 2\n")
    monkeypatch.syspath_prepend(tmp_path)

    def offer(**points: str) -> None:
        group = [EntryPoint(name, value, names.GROUP) for name, value in points.items()]
        monkeypatch.setattr(names, "entry_points", lambda group_=None, **_: group)
        names.offered_folders.cache_clear()

    yield offer
    names.offered_folders.cache_clear()


@pytest.mark.parametrize("config", named_configs("*") + named_configs("_base_/*"))
def test_every_listed_name_finds_its_file(config):
    assert find_config(config.name) == config.path
    assert find_config(f"{config.stem}{config.path.suffix}") == config.path
    assert find_url(f"retina_plugin://{config.name}") == config.path


def test_every_file_is_listed_once():
    files = [p for p in OWN.rglob("*") if p.suffix in {".yaml", ".py"} and "_base_" not in p.parts]
    files = [p for p in files if not p.name.startswith("_")]  # parts of LazyConfigs
    assert sorted(find_config(name) for name in list_configs()) == sorted(files)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("atss*", "modern/atss_R_50_FPN_1x"),
        ("modern/atss_R_50*_1x", "modern/atss_R_50_FPN_1x"),
        ("_FPN_1x", "modern/atss_R_50_FPN_1x"),
        ("*.py", "lazy/retinanet_R_50_FPN_1x.py"),
        ("_base_/recipes/*", "_base_/recipes/atss"),
    ],
)
def test_patterns(pattern, found):
    assert found in list_configs(pattern)
    assert "quick" not in list_configs(pattern)


def test_parts_of_configs_are_listed_when_asked_for():
    assert not any("_base_" in name for name in list_configs("*atss*"))


@pytest.mark.parametrize(
    "name",
    [
        "modern/atss_R_50_FPN_1x",
        "modern/atss_R_50_FPN_1x.yaml",
        "atss_R_50_FPN_1x",
        "atss_R_50_FPN_1x.yaml",
        "retina_plugin://modern/atss_R_50_FPN_1x.yaml",
    ],
)
def test_a_name_with_or_without_folder_and_suffix(name):
    assert find_config(name) == OWN / "modern" / "atss_R_50_FPN_1x.yaml"
    assert load_config(name) == load_config(OWN / "modern" / "atss_R_50_FPN_1x.yaml")


def test_the_whole_name_comes_before_the_last_part():
    assert find_config("retinanet_R_50_FPN_1x") == OWN / "retinanet_R_50_FPN_1x.yaml"
    assert find_config("retinanet_R_50_FPN_1x.py") == OWN / "lazy" / "retinanet_R_50_FPN_1x.py"


def test_an_existing_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("quick.yaml").write_text("SEED: 3\nVERSION: 2\n")
    Path("crowns").write_text("SEED: 4\nVERSION: 2\n")
    assert find_config("quick.yaml") == Path("quick.yaml")
    assert find_config("quick") == OWN / "quick.yaml"
    assert (load_config("quick.yaml").SEED, load_config("crowns").SEED) == (3, 4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("atss_R_50_FPN_1", "Did you mean modern/atss_R_50_FPN_1x"),
        ("modern/ats_crowns", "Did you mean modern/atss_crowns"),
        ("configs/crowns.yaml", "Did you mean crowns?"),
        ("nothing_like_it.yaml", "does not exist"),
        ("atss", "`retina configs` lists all names"),  # a recipe, which is no config to train
        ("retina_plugin://_base_/recipes/ats.yaml", "Did you mean _base_/recipes/atss"),
        ("retina_plugin://../setup.py", "does not exist"),
        ("other://a.yaml", "is a URL"),
        (str(OWN), "is a folder"),
    ],
)
def test_an_unknown_name_says_what_is_meant(name, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigFileError) as error:
        find_config(name)
    assert name in str(error.value) and expected in str(error.value)


def test_get_config_in_both_languages():
    cfg = retina_plugin.get_config("atss_R_50_FPN_1x", ["SEED=3"])
    assert type(cfg) is CfgNode and not cfg.is_frozen()
    assert cfg == load_config(OWN / "modern" / "atss_R_50_FPN_1x.yaml", ["SEED=3"])
    lazy = retina_plugin.get_config("lazy/retinanet_R_50_FPN_1x", ["train.max_iter=5"])
    assert isinstance(lazy, DictConfig) and lazy.train.max_iter == 5


def test_bases_by_url(tmp_path):
    recipe = "retina_plugin://_base_/recipes/atss.yaml"
    path = tmp_path / "my.yaml"
    path.write_text(f"_BASE_: [retina_plugin://crowns, {recipe}]\nSEED: 1\nVERSION: 2\n")
    by_path = tmp_path / "by_path.yaml"
    bases = [OWN / "crowns.yaml", OWN / "_base_/recipes/atss.yaml"]
    by_path.write_text(f"_BASE_: [{bases[0]}, {bases[1]}]\nSEED: 1\nVERSION: 2\n")
    assert load_config(path) == load_config(path, allow_unsafe=True) == load_config(by_path)
    name = "MODEL.RETINANET.ASSIGNER.NAME"
    assert find_keys(path)[name].startswith(f"{bases[1].resolve()}:")
    assert set(own_keys(path)) == {"_BASE_", "SEED", "VERSION"}


def test_a_base_that_is_not_there(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("VERSION: 2\n_BASE_: retina_plugin://crown.yaml\n")
    with pytest.raises(ConfigFileError, match=r"my\.yaml:2: _BASE_ .*Did you mean crowns"):
        load_config(path)
    path.write_text("VERSION: 2\n_BASE_: crowns.yaml\n")
    with pytest.raises(ConfigFileError, match="written retina_plugin://<name>"):
        load_config(path)


def test_configs_of_another_package(offered, tmp_path):
    offered(theirs="someones_configs")
    assert list_configs("theirs/*") == ["theirs/deep/crowns", "theirs/mine"]
    assert find_config("theirs/mine") == find_config("mine") == find_url("theirs://mine.yaml")
    cfg = load_config("mine")
    assert cfg.SEED == 7 and cfg.MODEL.RETINANET.ASSIGNER.NAME == "ATSSAssigner"
    path = tmp_path / "my.yaml"
    path.write_text("_BASE_: theirs://mine.yaml\nVERSION: 2\n")
    assert load_config(path) == load_config(path, allow_unsafe=True) == cfg


def test_an_ambiguous_name_lists_the_candidates(offered):
    offered(theirs="someones_configs", others="someones_configs")
    with pytest.raises(ConfigFileError, match=r"theirs/mine\.yaml, others/mine\.yaml"):
        find_config("mine")
    assert find_config("crowns") == OWN / "crowns.yaml"  # of three, the one of this whole name


def test_an_entry_point_that_is_broken_is_a_warning(offered, caplog):
    offered(theirs="someones_configs", gone="no_such_package", worse="someones_configs.a.b")
    assert "theirs/mine" in list_configs() and "crowns" in list_configs()
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2
    assert "'gone = no_such_package'" in warnings[0] and "no package" in warnings[0]
    assert "'worse = someones_configs.a.b'" in warnings[1]


def test_an_entry_point_cannot_take_this_packages_name(offered, caplog):
    offered(retina_plugin="someones_configs")
    assert find_url("retina_plugin://crowns") == OWN / "crowns.yaml"
    assert "have this name" in caplog.text
