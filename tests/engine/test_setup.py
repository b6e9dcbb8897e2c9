"""From arguments to a config that is ready to train, and what each mistake says."""

import pickle
import re
import shutil
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.utils import comm
from PIL import Image
from support.block_data import COLOURS, as_overrides, write_blocks
from support.tiny_models import tiny_cfg

from retina_plugin.config.config_file import load_config
from retina_plugin.config.device import available_device
from retina_plugin.config.extensions import import_extension
from retina_plugin.config.safe_yaml import ConfigFileError, UnsafeYamlError
from retina_plugin.data.findings import DataError
from retina_plugin.engine import user_errors as module
from retina_plugin.engine.arguments import argument_parser
from retina_plugin.engine.setup import setup
from retina_plugin.engine.user_errors import user_errors
from retina_plugin.registry import BOX_LOSSES, UnknownNameError
from retina_plugin.workbench.job import consult_doctor


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "MODEL: {META_ARCHITECTURE: FocalRetinaNet, DEVICE: cpu}\n"
        f"OUTPUT_DIR: {tmp_path / 'output'}\n"
        "VERSION: 2\n"
    )
    return path


@pytest.fixture
def data(tmp_path):
    return [write_blocks(tmp_path / "data", split, 2) for split in ("train", "test")]


def arguments(config_file, *words):
    return argument_parser().parse_args(["--config-file", str(config_file), *words])


def test_config_is_ready_and_logged(config_file, data, capsys):
    cfg = setup(arguments(config_file, *as_overrides(*data)))
    assert cfg.is_frozen()
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 3
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("train",), ("test",))
    assert MetadataCatalog.get("train").thing_classes == ["red", "green", "blue"]
    output = Path(cfg.OUTPUT_DIR)
    assert "META_ARCHITECTURE: FocalRetinaNet" in (output / "config.yaml").read_text()
    log = (output / "log.txt").read_text()
    assert "registered 'train'" in log  # ours, and from before Detectron2's set-up
    assert "Running with full config" in log
    assert "registered 'train'" in capsys.readouterr().out


def test_workers_meet_at_a_free_port():
    """Detectron2's default is one port per user: a second run at a time fails."""
    assert argument_parser().parse_args([]).dist_url == "auto"
    assert argument_parser().parse_args(["--dist-url", "tcp://x:1"]).dist_url == "tcp://x:1"


def test_seed_is_set(config_file, data):
    draws = []
    for seed in (7, 7, 8):
        setup(arguments(config_file, *as_overrides(*data), "SEED", str(seed)))
        draws.append(torch.rand(1).item())
    assert draws[0] == draws[1] != draws[2]


def test_no_cuda_falls_back_to_the_cpu(config_file, data, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = setup(arguments(config_file, *as_overrides(*data), "MODEL.DEVICE", "cuda"))
    assert cfg.MODEL.DEVICE == "cpu"
    log = (Path(cfg.OUTPUT_DIR) / "log.txt").read_text()
    assert "MODEL.DEVICE is cuda, but there is no CUDA here: using the CPU" in log


def test_cuda_is_kept_where_there_is_one(config_file, data, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert available_device("cuda:1", "MODEL.DEVICE") == "cuda:1"


def test_augmented_testing_that_cannot_be_is_refused_before_training(config_file, data):
    words = [*as_overrides(*data), "TEST.AUG.MIN_SIZES", "[]"]
    setup(arguments(config_file, *words))
    with pytest.raises(ValueError, match=r"TEST.AUG.MIN_SIZES .* such as \[640, 800\]; got \[\]"):
        setup(arguments(config_file, *words, "TEST.AUG.ENABLED", "True"))


def test_the_runs_config_names_the_classes(config_file, data):
    """Where the detector is used the data need not be."""
    cfg = setup(arguments(config_file, *as_overrides(*data)))
    saved = load_config(Path(cfg.OUTPUT_DIR) / "config.yaml")
    assert list(COLOURS) == saved.DATASETS.COCO.CLASS_NAMES
    again = arguments(Path(cfg.OUTPUT_DIR) / "config.yaml")
    assert len(COLOURS) == setup(again).MODEL.RETINANET.NUM_CLASSES


# ---- mistakes


def test_misspelt_architecture_lists_the_valid_ones(config_file, data):
    words = [*as_overrides(*data), "MODEL.META_ARCHITECTURE", "FocalRetinanet"]
    message = "MODEL.META_ARCHITECTURE: 'FocalRetinanet'.*Did you mean FocalRetinaNet.*RetinaNet"
    with pytest.raises(UnknownNameError, match=message):
        setup(arguments(config_file, *words))


def test_a_forgotten_config_file_is_named(data):
    with pytest.raises(ConfigFileError, match="--config-file is missing"):
        setup(argument_parser().parse_args(as_overrides(*data)))


@pytest.mark.parametrize("name", ["RetinaNet", "GeneralizedRCNN"])
def test_other_detectors_than_retinanets_are_refused(config_file, data, name):
    words = [*as_overrides(*data), "MODEL.META_ARCHITECTURE", name]
    if name == "RetinaNet":
        assert setup(arguments(config_file, *words)).MODEL.RETINANET.NUM_CLASSES == 3
        return
    with pytest.raises(ConfigFileError, match=r"GeneralizedRCNN.*set it to FocalRetinaNet"):
        setup(arguments(config_file, *words))


def test_misspelt_key(config_file):
    with pytest.raises(UnknownNameError, match=r"SOLVER.MAX_ITR.*SOLVER.MAX_ITER"):
        setup(arguments(config_file, "SOLVER.MAX_ITR", "3"))


def test_a_missing_image_is_found_before_training(config_file, data):
    (data[0].images / "1.png").unlink()
    with pytest.raises(DataError, match=r"train/1.png"):
        setup(arguments(config_file, *as_overrides(*data)))


def test_a_test_set_that_nothing_can_evaluate(config_file, data):
    """Found before training, not at the end of it."""
    words = as_overrides(*data)
    setup(arguments(config_file, *words))
    for kind, error, message in (
        ("lvis", ImportError, r"of_lvis.*pip install"),
        ("panoptic", UnknownNameError, r"of_panoptic.*'panoptic'.*coco, lvis, pascal_voc"),
    ):
        DatasetCatalog.register(f"of_{kind}", lambda: DatasetCatalog.get("test"))
        MetadataCatalog.get(f"of_{kind}").evaluator_type = kind
        sets = ("DATASETS.TEST", f"('test', 'of_{kind}')")
        with (
            mock.patch.dict(sys.modules, {"lvis": None}),
            pytest.raises(error, match=message),
        ):
            setup(arguments(config_file, *words, *sets))


def test_only_the_first_worker_checks(config_file, data, monkeypatch):
    (data[0].images / "1.png").unlink()
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert setup(arguments(config_file, *as_overrides(*data))).is_frozen()


def test_python_in_a_yaml_runs_only_on_request(config_file, data):
    with config_file.open("a") as file:
        file.write("INPUT: {MIN_SIZE_TRAIN: !!python/object/apply:eval ['(3 + 4,)']}\n")
    words = as_overrides(*data)
    with pytest.raises(UnsafeYamlError, match="--allow-unsafe-yaml"):
        setup(arguments(config_file, *words))
    assert setup(arguments(config_file, "--allow-unsafe-yaml", *words)).INPUT.MIN_SIZE_TRAIN == (7,)


# ---- the doctor, handed in by the entry point


def test_the_doctor_warns_before_training(config_file, data):
    words = as_overrides(*data)
    keys = ["SOLVER.WARMUP_ITERS=99", "SOLVER.MAX_ITER=9", "MODEL.ROI_HEADS.NUM_CLASSES=3"]
    keys.append("MODEL.BACKBONE.NAME=build_retinanet_mobilenet_v2_fpn_backbone")
    keys.append("MODEL.FPN.IN_FEATURES=['res3','res4','res5']")
    cfg = setup(arguments(config_file, *words, *keys), consult_doctor)
    log = (Path(cfg.OUTPUT_DIR) / "log.txt").read_text()
    assert "SOLVER.WARMUP_ITERS: is 99, but" in log
    assert "Fix: MODEL.RETINANET.NUM_CLASSES=3" in log
    assert log.count("image files checked") == 2  # a pass a set, not two
    assert re.search(r"doctor: \d+\.\d s\. Fine: ", log)


def test_a_leak_is_a_warning_with_the_command(config_file, data):
    train, test = data
    for path in test.images.iterdir():
        Image.fromarray(np.random.default_rng(1).integers(0, 9, (96, 96, 3), np.uint8)).save(path)
    shutil.copy(train.images / "0.png", test.images / "1.png")
    cfg = setup(arguments(config_file, *as_overrides(*data)), consult_doctor)
    log = (Path(cfg.OUTPUT_DIR) / "log.txt").read_text()
    assert "trained on too (1)" in log
    assert f"Fix: retina doctor {config_file} --write-clean clean" in log


def test_the_doctor_can_stay_at_home(config_file, data):
    words = [*as_overrides(*data), "DOCTOR.ENABLED", "False", "SOLVER.WARMUP_ITERS", "99999"]
    cfg = setup(arguments(config_file, *words, "SOLVER.MAX_ITER", "9"), consult_doctor)
    log = (Path(cfg.OUTPUT_DIR) / "log.txt").read_text()
    assert "WARMUP_ITERS: is" not in log and "doctor:" not in log
    (data[0].images / "1.png").unlink()
    with pytest.raises(DataError, match=r"train/1.png"):  # what cannot be trained on, still
        setup(arguments(config_file, *words), consult_doctor)


# ---- evaluation asks nothing of the training data


def test_evaluation_needs_no_training_data(config_file, data):
    train, test = data
    words = as_overrides(train, test)
    shutil.rmtree(train.images)
    train.json.unlink()
    with pytest.raises(DataError, match=r"train.json"):
        setup(arguments(config_file, *words))
    cfg = setup(arguments(config_file, "--eval-only", *words))
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 3
    assert cfg.DATASETS.TEST == ("test",)
    assert str(train.json) == cfg.DATASETS.COCO.TRAIN.JSON  # still there for who reads the config


def test_evaluation_on_own_data_with_a_config_of_others(config_file, data):
    """The 80 classes of the config's COCO do not speak against the 3 of what is evaluated."""
    words = [*as_overrides(None, data[1]), "DATASETS.TRAIN", "('coco_2017_train',)"]
    assert setup(arguments(config_file, "--eval-only", *words)).MODEL.RETINANET.NUM_CLASSES == 3


def test_evaluation_checks_the_test_data(config_file, data):
    (data[1].images / "0.png").unlink()
    with pytest.raises(DataError, match=r"test/0.png"):
        setup(arguments(config_file, "--eval-only", *as_overrides(*data)))


# ---- --import

EXTENSION = """
from torch import nn
from retina_plugin.workbench.job import consult_doctor
from retina_plugin.registry import BOX_LOSSES

@BOX_LOSSES.register(defaults={"BETA": 0.5})
class NAME(nn.Module):
    def __init__(self, *, beta):
        super().__init__()
        self.beta = beta
"""


@pytest.fixture
def extension(tmp_path, monkeypatch):
    """Write a file that registers a loss called after it; forget its import afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules, losses = set(sys.modules), set(BOX_LOSSES._obj_map)

    def write(stem, folder=tmp_path):
        path = folder / f"{stem}.py"
        path.write_text(EXTENSION.replace("NAME", "".join(filter(str.isalpha, stem)).title()))
        return path

    yield write
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    for registered in (BOX_LOSSES._obj_map, BOX_LOSSES.schema.components):
        for name in set(registered) - losses:
            registered.pop(name, None)


def test_a_file_registers_its_component(config_file, data, extension):
    """Its settings are keys of the config, and it can be sent to another process."""
    words = ["--import", str(extension("wobbly_loss"))]
    overrides = [
        *as_overrides(*data),
        *("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "Wobblyloss"),
        *("MODEL.RETINANET.BOX_LOSS.Wobblyloss.BETA", "0.25"),
    ]
    cfg = setup(arguments(config_file, *words, *overrides))
    loss = BOX_LOSSES.build(cfg)
    assert (type(loss).__name__, loss.beta) == ("Wobblyloss", 0.25)
    assert type(pickle.loads(pickle.dumps(loss))) is type(loss)


def test_importing_twice_registers_once(extension):
    path = extension("once_loss")
    import_extension(str(path))
    import_extension(str(path))
    assert "Onceloss" in BOX_LOSSES


def test_a_module_is_imported_by_its_name(extension, tmp_path, monkeypatch):
    extension("named_loss")
    monkeypatch.syspath_prepend(tmp_path)
    import_extension("named_loss")
    assert "Namedloss" in BOX_LOSSES


@pytest.mark.parametrize(
    "name", ["no_such_module", "no_such.module", "torch.no_such", ".relative", "no/such.py", ""]
)
def test_no_such_extension(name):
    with pytest.raises(ConfigFileError, match=f"--import {name}: .*no such (module|file)"):
        import_extension(name)


@pytest.mark.parametrize("stem", ["random", "torch", "retina_plugin"])
def test_a_file_never_takes_another_modules_place(extension, stem):
    before = sys.modules.get(stem)
    with pytest.raises(ConfigFileError, match=f"another module {stem}.*rename"):
        import_extension(str(extension(stem)))
    assert sys.modules.get(stem) is before


def test_two_files_of_one_name(extension, tmp_path):
    (tmp_path / "other").mkdir()
    import_extension(str(extension("twin_loss")))
    with pytest.raises(ConfigFileError, match=r"another module twin_loss.*rename"):
        import_extension(str(extension("twin_loss", tmp_path / "other")))


def test_a_file_that_is_no_identifier(extension):
    with pytest.raises(ConfigFileError, match=r"my-loss.*rename"):
        import_extension(str(extension("my-loss")))


def test_errors_within_an_extension_keep_their_traceback(tmp_path, extension):
    path = extension("broken_loss")
    path.write_text("1 / 0")
    with pytest.raises(ZeroDivisionError), user_errors():
        import_extension(str(path))


# ---- the user's mistakes and ours


@pytest.mark.parametrize(
    "error",
    [ConfigFileError("the key"), UnknownNameError("the key"), DataError("1 problem:\nthe key")],
)
def test_the_users_mistake_ends_with_the_message_alone(error):
    with pytest.raises(SystemExit, match=f"^error: {error}$") as end, user_errors():
        raise error
    assert end.value.__suppress_context__


def test_what_a_component_refuses_is_the_users_mistake(config_file):
    cfg = tiny_cfg(FOCAL_LOSS_GAMMA=-1.0)
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    with pytest.raises(SystemExit, match="FOCAL_LOSS_GAMMA"), user_errors():
        build_model(cfg)


@pytest.mark.parametrize("error", [ValueError("ours"), ZeroDivisionError(), KeyError("x")])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)) as raised, user_errors():
        raise error
    assert raised.value is error


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_workers_the_first_says_it(rank, monkeypatch):
    waited = []
    monkeypatch.setattr(comm, "get_local_rank", lambda: rank)
    monkeypatch.setattr(module.time, "sleep", waited.append)
    with pytest.raises(SystemExit, match="error: the key"), user_errors():
        raise ConfigFileError("the key")
    assert waited == [module.SPEAK_AFTER] * rank
