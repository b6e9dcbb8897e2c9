"""From the command line to a config that is ready to train."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import time
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import default_argument_parser, default_setup
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from retina_plugin.data.checks import check_datasets
from retina_plugin.data.class_counts import fill_class_counts
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.data.findings import DataError, Findings
from retina_plugin.data.package_files import PackageFileError, register_package_paths
from retina_plugin.detector import FocalRetinaNet
from retina_plugin.diagnosis.doctor import CONFIG, examine
from retina_plugin.engine.augmented_inference import prepare_augmentation
from retina_plugin.engine.config_file import load_config, own_keys
from retina_plugin.engine.denormals import flush_denormals
from retina_plugin.engine.non_finite.guard import NonFiniteError
from retina_plugin.engine.run_folder import open_run, relocated
from retina_plugin.engine.safe_yaml import ConfigFileError
from retina_plugin.engine.tiled_inference import prepare_tiles
from retina_plugin.evaluation.build import evaluator_type
from retina_plugin.registry import UnknownNameError, require_registered

logger = logging.getLogger(__name__)

USER_ERRORS = (ConfigFileError, DataError, NonFiniteError, PackageFileError, UnknownNameError)
SPEAK_AFTER = 10.0  # seconds that a worker leaves to the first one to say what is wrong


def argument_parser() -> ArgumentParser:
    """Detectron2's arguments and the plugin's; on one machine workers meet at a free port."""
    parser = default_argument_parser()
    parser.set_defaults(dist_url="auto")  # with Detectron2's port a user's second run fails
    parser.add_argument(
        "--allow-unsafe-yaml",
        action="store_true",
        help="run the Python tags of yaml configs, as Detectron2 does: only for files you trust",
    )
    parser.add_argument(
        "--import",
        dest="extensions",
        metavar="MODULE",
        action="append",
        default=[],
        help="import a module or a .py file of yours first, to register its components",
    )
    return parser


def setup(args: Namespace) -> CfgNode:
    """Extensions, config, logging, seed, data sets and their checks; returns the frozen config.

    With ``args.eval_only`` nothing is asked of the training data: they need not be there.

    Raises:
        ConfigFileError, UnknownNameError, DataError: the user's mistakes, before anything is built.
        ImportError: a package that a test set's evaluator or TEST.COCO_EVAL needs is missing.
        ValueError: INPUT.TILES or TEST.AUG cannot be.
    """
    register_package_paths()
    for extension in args.extensions:
        import_extension(extension)
    cfg = load_config(args.config_file, args.opts, allow_unsafe=args.allow_unsafe_yaml)
    check_architecture(cfg, args.config_file)
    setup_logger(cfg.OUTPUT_DIR, comm.get_rank(), name="retina_plugin")
    cfg.MODEL.DEVICE = available_device(cfg.MODEL.DEVICE, "MODEL.DEVICE")
    if args.eval_only:
        _register_test_sets(cfg)
    else:
        register_datasets(cfg)
    _keep_class_names(cfg)
    fill_class_counts(cfg, count=not args.eval_only)
    folder, resume = cfg.OUTPUT_DIR, args.resume
    moved_to = open_run(folder, resume=resume, eval_only=args.eval_only, config=cfg.dump())
    cfg.MODEL.WEIGHTS = relocated(cfg.MODEL.WEIGHTS, folder, moved_to)
    cfg.freeze()
    default_setup(cfg, args)
    if cfg.get("FLUSH_DENORMAL", True):
        flush_denormals()
    prepare_tiles(cfg)
    prepare_augmentation(cfg)
    if comm.is_main_process():
        _check(cfg, args)
        for name in cfg.DATASETS.TEST:
            # the first evaluation may be hours away
            evaluator_type(name, coco_eval=cfg.TEST.get("COCO_EVAL", "auto"))
    return cfg


def _check(cfg: CfgNode, args: Namespace) -> None:
    """Log what the doctor finds; with ``DOCTOR.ENABLED`` False, what is wrong with the data alone.

    Raises:
        DataError: there are errors.
    """
    train = not args.eval_only
    if not (cfg.get("DOCTOR") or {}).get("ENABLED", True):
        check_datasets(cfg, train=train)
        return
    # of a file with Python tags nobody knows the lines
    own = None if args.allow_unsafe_yaml else own_keys(args.config_file, args.opts)
    command = args.config_file or CONFIG
    diagnosis = examine(cfg, train=train, command=command, own=own, built_next=True)
    findings = Findings()
    findings.extend(diagnosis.findings)
    findings.log()
    findings.raise_errors()
    logger.info(
        f"doctor: {diagnosis.seconds:.1f} s. Fine: {', '.join(diagnosis.fine) or 'nothing'}."
    )


def check_architecture(cfg: CfgNode, config_file: str) -> None:
    """Refuse other detectors, which read their number of classes from keys of their own.

    Raises:
        ConfigFileError, UnknownNameError: ``META_ARCHITECTURE`` is no RetinaNet, or unknown.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    require_registered(META_ARCH_REGISTRY, name, "MODEL.META_ARCHITECTURE")
    if issubclass(META_ARCH_REGISTRY.get(name), FocalRetinaNet | RetinaNet):
        return
    if not config_file:
        raise ConfigFileError(
            "--config-file is missing: name a config, such as configs/retinanet_R_50_FPN_1x.yaml"
        )
    raise ConfigFileError(
        f"MODEL.META_ARCHITECTURE is {name}, but this program trains RetinaNets: set it to "
        "FocalRetinaNet, in a config made for RetinaNet"
    )


def _keep_class_names(cfg: CfgNode) -> None:
    """So that the run's ``config.yaml`` says what its classes are where the data are not."""
    known = [MetadataCatalog.get(name) for name in cfg.DATASETS.TEST if name in MetadataCatalog]
    names = known[0].get("thing_classes") if known else None
    if not cfg.DATASETS.COCO.CLASS_NAMES and len(names or ()) == cfg.MODEL.RETINANET.NUM_CLASSES:
        cfg.DATASETS.COCO.CLASS_NAMES = list(names)


def _register_test_sets(cfg: CfgNode) -> None:
    """``register_datasets`` without the training data, which ``cfg`` keeps."""
    datasets = cfg.DATASETS
    train, declared = datasets.TRAIN, datasets.COCO.TRAIN
    datasets.TRAIN, datasets.COCO.TRAIN = (), CfgNode()
    register_datasets(cfg)
    datasets.TRAIN, datasets.COCO.TRAIN = train, declared


def import_extension(name: str) -> None:
    """Import a module by its name or a file by its path, so that its components register.

    A file is imported by its stem, its folder being the last that is searched: so the processes of
    a data loader, too, find what was defined there, and it never takes another module's place.

    Raises:
        ConfigFileError: there is no such module or file, or the stem is another module's name.
    """
    path = Path(name).resolve()
    if path.suffix != ".py":
        if not _exists(name):
            raise ConfigFileError(f"--import {name}: no such module; give a module or a .py file")
        importlib.import_module(name)
        return
    if not path.is_file():
        raise ConfigFileError(f"--import {name}: there is no such file")
    if not path.stem.isidentifier():
        raise ConfigFileError(
            f"--import {name}: {path.stem} cannot be a module's name: rename the file to letters, "
            "digits and underscores"
        )
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
        importlib.invalidate_caches()
    spec = importlib.util.find_spec(path.stem)
    found = spec.origin if spec is not None else None
    if found is None or not Path(found).is_file() or not path.samefile(found):
        raise ConfigFileError(
            f"--import {name}: there is another module {path.stem} ({found}): rename the file"
        )
    importlib.import_module(path.stem)


def _exists(module: str) -> bool:
    try:
        return all(module.split(".")) and importlib.util.find_spec(module) is not None
    except ModuleNotFoundError as error:  # the package that it would be in
        if error.name and f"{module}.".startswith(f"{error.name}."):
            return False
        raise


def available_device(device: str, key: str) -> str:
    """``device``, or the CPU instead of a CUDA that is not there, with a warning.

    Detectron2's default device is CUDA; without one it would fail deep inside the driver.
    """
    if not device.startswith("cuda") or torch.cuda.is_available():
        return device
    logger.warning(f"{key} is {device}, but there is no CUDA here: using the CPU")
    return "cpu"


@contextmanager
def user_errors() -> Iterator[None]:
    """End the program with the message alone, and exit code 1, where the mistake is the user's.

    That is one of ``USER_ERRORS``, or a ``ValueError`` or ``ImportError`` that the plugin's own
    code raises: its components refuse impossible values so. Of several workers, all of which make
    the same mistake, the first one says it.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, USER_ERRORS) and not _is_refusal(error):
            raise
        if comm.get_local_rank() > 0:
            time.sleep(SPEAK_AFTER)  # the launcher ends this worker as soon as the first one ends
        raise SystemExit(f"error: {error}") from None


def _is_refusal(error: Exception) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = frame.f_globals.get("__name__", "")
    return isinstance(error, ValueError | ImportError) and module.startswith("retina_plugin.")
