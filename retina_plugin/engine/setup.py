"""From the command line to a config that is ready to train."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from retina_plugin.data.checks import check_datasets
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.data.findings import DataError
from retina_plugin.data.package_files import PackageFileError, register_package_paths
from retina_plugin.engine.config_file import load_config
from retina_plugin.engine.safe_yaml import ConfigFileError
from retina_plugin.registry import UnknownNameError, require_registered

logger = logging.getLogger(__name__)

USER_ERRORS = (ConfigFileError, DataError, PackageFileError, UnknownNameError)


def argument_parser() -> ArgumentParser:
    """Detectron2's arguments and the plugin's."""
    parser = default_argument_parser()
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

    Raises:
        ConfigFileError, UnknownNameError, DataError: the user's mistakes, before anything is built.
    """
    register_package_paths()
    for extension in args.extensions:
        import_extension(extension)
    cfg = load_config(args.config_file, args.opts, allow_unsafe=args.allow_unsafe_yaml)
    require_registered(META_ARCH_REGISTRY, cfg.MODEL.META_ARCHITECTURE, "MODEL.META_ARCHITECTURE")
    device_note = _fall_back_to_cpu(cfg)
    register_datasets(cfg)
    cfg.freeze()
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, comm.get_rank(), name="retina_plugin")
    if device_note:
        logger.warning(device_note)
    if comm.is_main_process():
        check_datasets(cfg, train=not args.eval_only)
    return cfg


def import_extension(name: str) -> None:
    """Import a module by its name or a file by its path, so that its components register.

    Raises:
        ConfigFileError: there is no such module or file.
    """
    path = Path(name)
    if path.suffix != ".py":
        if importlib.util.find_spec(name) is None:
            raise ConfigFileError(f"--import {name}: no such module; give a module or a .py file")
        importlib.import_module(name)
        return
    if not path.is_file():
        raise ConfigFileError(f"--import {name}: there is no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def _fall_back_to_cpu(cfg: CfgNode) -> str | None:
    """Detectron2's default device is CUDA; without one it would fail deep inside the driver."""
    if not cfg.MODEL.DEVICE.startswith("cuda") or torch.cuda.is_available():
        return None
    note = f"MODEL.DEVICE is {cfg.MODEL.DEVICE}, but there is no CUDA here: using the CPU"
    cfg.MODEL.DEVICE = "cpu"
    return note


@contextmanager
def user_errors() -> Iterator[None]:
    """End the program with the message alone where the mistake is the user's."""
    try:
        yield
    except USER_ERRORS as error:
        raise SystemExit(f"error: {error}") from None
