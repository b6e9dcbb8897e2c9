"""Set up a training: from the command line to a complete config."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from retina_plugin.config.device import available_device
from retina_plugin.config.extensions import import_extension
from retina_plugin.data.checks import check_datasets
from retina_plugin.data.class_counts import fill_class_counts
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.data.package_files import register_package_paths
from retina_plugin.engine.run_folder import open_run, relocated
from retina_plugin.evaluation.build import check_evaluation
from retina_plugin.inference.augmented_inference import prepare_augmentation
from retina_plugin.inference.denormals import flush_denormals
from retina_plugin.inference.tiled_inference import prepare_tiles
from retina_plugin.runs.load_run import load_run

logger = logging.getLogger(__name__)


Check = Callable[[CfgNode, Namespace], None]


def check_data(cfg: CfgNode, args: Namespace) -> None:
    """Log problems of the data; raise all errors as one ``DataError``."""
    check_datasets(cfg, train=not args.eval_only)


def setup(args: Namespace, check: Check = check_data) -> CfgNode:
    """Set up extensions, config, logging, seed and data sets; return the frozen config.

    With ``args.eval_only`` the training data are not read and may be missing.

    Args:
        args: result of :func:`engine.arguments.parse_arguments`.
        check: function that raises ``DataError`` to prevent the training; called on the first
            worker only. The programs pass ``workbench.job.consult_doctor``.

    Raises:
        ConfigFileError, UnknownNameError, DataError: for user errors, before anything is built.
        ImportError: if a package required by an evaluator or TEST.COCO_EVAL is missing.
        ValueError: if INPUT.TILES or TEST.AUG is invalid.
    """
    register_package_paths()
    for extension in args.extensions:
        import_extension(extension)
    run = load_run(args.config_file, args.opts, allow_unsafe=args.allow_unsafe_yaml)
    run.check()
    cfg = run.settings
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
    if comm.is_main_process():
        run.save(Path(folder))
    if cfg.get("FLUSH_DENORMAL", True):
        flush_denormals()
    prepare_tiles(cfg)
    prepare_augmentation(cfg)
    if comm.is_main_process():
        check(cfg, args)
        for name in cfg.DATASETS.TEST if run.evaluates_by_type else ():
            check_evaluation(name, coco_eval=cfg.TEST.get("COCO_EVAL", "auto"))
    return cfg


def _keep_class_names(cfg: CfgNode) -> None:
    """Store the class names in ``config.yaml``, for use without the data."""
    known = [MetadataCatalog.get(name) for name in cfg.DATASETS.TEST if name in MetadataCatalog]
    names = known[0].get("thing_classes") if known else None
    if not cfg.DATASETS.COCO.CLASS_NAMES and len(names or ()) == cfg.MODEL.RETINANET.NUM_CLASSES:
        cfg.DATASETS.COCO.CLASS_NAMES = list(names)


def _register_test_sets(cfg: CfgNode) -> None:
    """Call ``register_datasets`` without the training sets; ``cfg`` is left unchanged."""
    datasets = cfg.DATASETS
    train, declared = datasets.TRAIN, datasets.COCO.TRAIN
    datasets.TRAIN, datasets.COCO.TRAIN = (), CfgNode()
    register_datasets(cfg)
    datasets.TRAIN, datasets.COCO.TRAIN = train, declared
