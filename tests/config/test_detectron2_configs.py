"""`_BASE_: detectron2/configs/...` with and without Detectron2's own files; no pkg_resources."""

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from detectron2.config import LazyConfig, get_cfg
from omegaconf import OmegaConf

from retina_plugin.config import detectron2_configs
from retina_plugin.config.config_file import load_config
from retina_plugin.config.detectron2_configs import PREFIX, find_detectron2_config
from retina_plugin.config.packaged import configs_folder
from retina_plugin.config.safe_yaml import ConfigFileError

OURS = configs_folder() / "_base_" / "detectron2"
NAMES = sorted(path.relative_to(OURS).as_posix() for path in OURS.rglob("*.yaml"))
ONE = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"


def installed(name):
    path = find_detectron2_config(PREFIX + name)
    if OURS in path.parents:
        pytest.skip("this Detectron2 has no configs to compare with")
    return path


@pytest.fixture
def no_zoo(monkeypatch, tmp_path):
    """A Detectron2 that was installed without `model_zoo/configs`."""
    spec = ModuleSpec("detectron2", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(detectron2_configs, "find_spec", lambda name: spec)


@pytest.mark.parametrize("name", NAMES)
def test_our_files_have_detectron2s_values(name):
    stock, ours = get_cfg(), get_cfg()
    stock.merge_from_file(str(installed(name)))
    ours = load_config(OURS / name, ["MODEL.RETINANET.NUM_CLASSES=80"])
    different = [
        key for key, value in leaves(stock) if repr(value) != repr(at(ours, key))
    ]  # repr: equal types as well, and anchor sizes to the last bit
    assert different == []


def leaves(node, above=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def at(node, key):
    for part in key.split("."):
        node = node[part]
    return node


def test_there_is_one_of_each_retinanet():
    folder = installed(ONE).parents[1]
    stock = [folder / "Base-RetinaNet.yaml", *folder.glob("COCO-Detection/retinanet_*.yaml")]
    assert sorted(path.relative_to(folder).as_posix() for path in stock) == NAMES


@pytest.mark.parametrize("allow_unsafe", [False, True])
@pytest.mark.parametrize("without", ["nothing", "no_zoo"])
def test_a_base_of_detectron2(tmp_path, request, without, allow_unsafe):
    if without != "nothing":
        request.getfixturevalue(without)
    file = tmp_path / "mine.yaml"
    file.write_text(f"_BASE_: {PREFIX}{ONE}\nMODEL: {{META_ARCHITECTURE: FocalRetinaNet}}\n")
    assert (OURS in find_detectron2_config(PREFIX + ONE).parents) == (without != "nothing")
    cfg = load_config(file, allow_unsafe=allow_unsafe)
    assert cfg.MODEL.META_ARCHITECTURE == "FocalRetinaNet"
    assert cfg.SOLVER.MAX_ITER == 90000 and cfg.MODEL.WEIGHTS.endswith("R-50.pkl")


def test_a_clone_beside_the_file_comes_first(tmp_path):
    clone = tmp_path / PREFIX / ONE
    clone.parent.mkdir(parents=True)
    clone.write_text("SOLVER: {MAX_ITER: 7}\n")
    file = tmp_path / "mine.yaml"
    file.write_text(f"_BASE_: {PREFIX}{ONE}\n")
    assert load_config(file).SOLVER.MAX_ITER == 7
    assert load_config(file, allow_unsafe=True).SOLVER.MAX_ITER == 7


def test_what_neither_has_is_named(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"_BASE_: {PREFIX}COCO-Detection/no_such.yaml\n")
    with pytest.raises(ConfigFileError, match=r"mine.yaml:1: _BASE_ .*such.yaml' does not exist"):
        load_config(file)


def test_the_lazy_base_has_detectron2s_values():
    stock = LazyConfig.load(str(installed(ONE.replace(".yaml", ".py"))))
    ours = LazyConfig.load(str(configs_folder() / "lazy" / "_detectron2_1x.py"))
    for part in ("dataloader", "lr_multiplier", "optimizer", "train"):
        both = [
            LazyConfig.to_py(OmegaConf.create({part: cfg[part]}, flags={"allow_objects": True}))
            for cfg in (stock, ours)
        ]
        assert both[0] == both[1]
    assert ours.backbone == stock.model.backbone


def test_nothing_of_ours_needs_pkg_resources(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"_BASE_: {PREFIX}{ONE}\nMODEL: {{META_ARCHITECTURE: FocalRetinaNet}}\n")
    code = f"""
import sys
sys.modules["pkg_resources"] = None
import retina_plugin
from detectron2.modeling import build_model
cfg = retina_plugin.get_config({str(file)!r})
lazy = retina_plugin.get_config("lazy/retinanet_R_50_FPN_1x")
cfg.MODEL.DEVICE, cfg.MODEL.RETINANET.NUM_CLASSES = "cpu", 3
print(type(build_model(cfg)).__name__, lazy.train.max_iter)
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["FocalRetinaNet", "90000"], done.stderr


def test_no_file_of_ours_imports_the_model_zoo():
    root = Path(__file__).parents[2]
    folders = [root / name for name in ("retina_plugin", "configs", "tools", "tests")]
    files = [*root.glob("*.md"), *(file for folder in folders for file in folder.rglob("*.py"))]
    line = "import " + "model_zoo"
    assert [file for file in files if line in file.read_text(encoding="utf-8")] == []
    assert len(files) > 300
