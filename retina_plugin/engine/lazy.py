"""Train and evaluate from a LazyConfig: ``model``, ``dataloader``, ``optimizer``, ``train``."""

from __future__ import annotations

import weakref
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig, instantiate
from detectron2.engine import default_setup, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from retina_plugin.data.package_files import register_package_paths
from retina_plugin.engine.accumulation import micro_batch_size
from retina_plugin.engine.checkpoint import RetinaCheckpointer
from retina_plugin.engine.denormals import flush_denormals
from retina_plugin.engine.hooks.build import HookSettings, metrics_of, training_hooks
from retina_plugin.engine.hooks.early_stopping import until_stopped
from retina_plugin.engine.non_finite.guard import FOLDER, Origin, build_guard
from retina_plugin.engine.run_folder import open_run, relocated
from retina_plugin.engine.safe_yaml import ConfigFileError
from retina_plugin.engine.setup import available_device, import_extension
from retina_plugin.engine.step import AUTO, build_step
from retina_plugin.engine.trainer import distribute
from retina_plugin.engine.weight_average import build_weight_average
from retina_plugin.engine.writers.build import build_writers
from retina_plugin.inference.augmented_detector import AugmentedDetector
from retina_plugin.inference.tiled_detector import TiledDetector
from retina_plugin.network.optimize_for_inference import optimize_for_inference
from retina_plugin.registry import unknown_name

REQUIRED = ("model", "dataloader", "optimizer", "lr_multiplier", "train")


def run_lazy(args: Namespace) -> dict[str, Any]:
    """The job of ``train_net.py`` for a ``.py`` config; overrides are ``path.key=value``.

    The file is Python and runs as such: only for files you trust.

    Raises:
        ConfigFileError: no such file, or it lacks one of ``REQUIRED``; an override without ``=``.
        UnknownNameError: an override of a key that does not exist; lists the valid ones.
    """
    register_package_paths()
    for extension in args.extensions:
        import_extension(extension)
    cfg = load_lazy(args.config_file, args.opts)
    setup_logger(cfg.train.output_dir, comm.get_rank(), name="retina_plugin")
    cfg.train.device = available_device(cfg.train.device, "train.device")
    train, folder = cfg.train, cfg.train.output_dir
    moved_to = open_run(folder, resume=args.resume, eval_only=args.eval_only, config=None)
    train.init_checkpoint = relocated(train.init_checkpoint, folder, moved_to)
    default_setup(cfg, args)
    if cfg.train.get("flush_denormal", True):
        flush_denormals()
    model = instantiate(cfg.model).to(cfg.train.device)
    _by_tiles(cfg, model)  # refuses now, not at the first evaluation
    if not args.eval_only:
        return train_lazy(cfg, model, resume=args.resume)
    checkpointer = RetinaCheckpointer(model, cfg.train.output_dir, all_weights=True)
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=args.resume)
    return evaluate_lazy(cfg, model)


def load_lazy(config_file: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The config of a ``.py`` file, which runs it, with overrides.

    Raises:
        ConfigFileError, UnknownNameError: see :func:`run_lazy`.
    """
    if not Path(config_file).is_file():
        raise ConfigFileError(f"{config_file}: there is no such config file.")
    cfg = LazyConfig.load(config_file)
    missing = [name for name in REQUIRED if name not in cfg]
    if missing:
        raise ConfigFileError(
            f"{config_file}: a LazyConfig for train_net.py defines {', '.join(REQUIRED)}; this one "
            f"lacks {', '.join(missing)}"
        )
    for override in overrides:
        _check_override(cfg, override)
    return LazyConfig.apply_overrides(cfg, list(overrides))


def _check_override(cfg: DictConfig, override: str) -> None:
    """Refuse a key that nothing reads; a ``_target_`` takes arguments that are not written yet."""
    path, equals, _ = override.partition("=")
    if not equals:
        raise ConfigFileError(
            f"override {override}: with a LazyConfig write path.key=value, such as "
            "train.max_iter=100"
        )
    node: Any = cfg
    for key in path.lstrip("+").split("."):
        if not isinstance(node, DictConfig) or (key not in node and "_target_" in node):
            return
        if key not in node:
            raise unknown_name(f"override {path}", key, map(str, node))
        node = node[key]


def train_lazy(cfg: DictConfig, model: nn.Module, *, resume: bool) -> dict[str, Any]:
    """Train ``model`` as the config says; returns the results of the last evaluation.

    ``train.weight_average``, ``train.accumulate`` and ``train.non_finite`` are what they are under
    ``SOLVER``; with ``accumulate`` ``dataloader.train.total_batch_size`` is the batch of an
    optimizer's step. ``train.best`` and ``train.early_stopping`` are what they are under ``TEST``,
    in lower case, ``train.loggers`` is ``LOGGERS``.
    """
    settings = _hook_settings(cfg)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    parallel = distribute(model, **cfg.train.ddp)
    average = build_weight_average(model, cfg.train.get("weight_average", {}))
    amp, accumulate = cfg.train.amp, cfg.train.get("accumulate", 1)
    if accumulate != 1:
        cfg.dataloader.train.total_batch_size = micro_batch_size(
            cfg.dataloader.train.total_batch_size,
            accumulate=accumulate,
            workers=comm.get_world_size(),
        )
    trainer = build_step(
        parallel,
        instantiate(cfg.dataloader.train),
        optimizer,
        amp=amp.enabled,
        precision=amp.get("precision", AUTO),
        accumulate=accumulate,
        average=average,
        guard=build_guard(
            model,
            optimizer,
            cfg.train.get("non_finite", {}),
            Origin(Path(cfg.train.output_dir) / FOLDER),
        ),
    )
    checkpointer = RetinaCheckpointer(
        parallel,
        cfg.train.output_dir,
        allow_partial=cfg.train.get("weights_allow_partial", False),
        average=average,
        trainer=weakref.proxy(trainer),
    )
    results: dict[str, Any] = {}

    def evaluate() -> dict[str, Any]:
        def of_model() -> dict[str, Any]:
            return evaluate_lazy(cfg, parallel)

        results.update(of_model() if average is None else average.evaluate(of_model))
        return results

    stock = [hooks.IterationTimer(), hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier))]
    if comm.is_main_process():
        writers = build_writers(
            cfg.train.output_dir,
            cfg.train.max_iter,
            loggers=cfg.train.get("loggers", ()),
            config={"train": OmegaConf.to_container(cfg.train)},
        )
        stock.append(hooks.PeriodicWriter(writers))
    trainer.register_hooks(
        training_hooks(stock, settings, step=trainer, checkpointer=checkpointer, evaluate=evaluate)
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    resumed = resume and checkpointer.has_checkpoint()
    start = trainer.iter + 1 if resumed else 0
    until_stopped(lambda: trainer.train(start, cfg.train.max_iter))
    return results


def _hook_settings(cfg: DictConfig) -> HookSettings:
    """What ``train`` says of the hooks."""
    train, test_sets = cfg.train, ["test"] if "evaluator" in cfg.dataloader else []
    options = {
        key: {name.upper(): value for name, value in train.get(key, {}).items()}
        for key in ("best", "early_stopping")
    }
    best, stopping = metrics_of(
        options["best"], options["early_stopping"], test_sets, train.eval_period
    )
    return HookSettings(
        folder=Path(train.output_dir),
        eval_period=train.eval_period,
        checkpoint_period=train.checkpointer.period,
        keep_checkpoints=train.checkpointer.get("max_to_keep") or 0,
        log_period=train.log_period,
        images_per_step=cfg.dataloader.train.get("total_batch_size"),
        best=best,
        stopping=stopping,
        patience=options["early_stopping"].get("PATIENCE", 0),
        min_delta=options["early_stopping"].get("MIN_DELTA", 0.0),
    )


def evaluate_lazy(cfg: DictConfig, model: nn.Module) -> dict[str, Any]:
    """Results of ``dataloader.evaluator`` on ``dataloader.test``; {} without an evaluator.

    Of what :func:`optimized_detector` gives.
    """
    if "evaluator" not in cfg.dataloader:
        return {}
    results = inference_on_dataset(
        optimized_detector(cfg, model),
        instantiate(cfg.dataloader.test),
        instantiate(cfg.dataloader.evaluator),
    )
    if comm.is_main_process():
        print_csv_format(results)
    return results


def optimized_detector(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """What is evaluated of a model.

    Unless ``train.optimize_inference`` is off, a copy that ``optimize_for_inference`` made; by
    tiles where ``train.test_tiles``, the arguments of ``TiledDetector``, has a ``size``; on the
    views of ``train.test_augmentation``, the arguments of ``AugmentedDetector``, if it has
    ``min_sizes``.
    """
    if cfg.train.get("optimize_inference", True):
        model = optimize_for_inference(model)
    model = _by_tiles(cfg, model)
    views = cfg.train.get("test_augmentation", {})
    return AugmentedDetector(model, **views) if views.get("min_sizes") else model


def _by_tiles(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """The model, by tiles where ``train.test_tiles.size`` is a tile's side."""
    tiles = cfg.train.get("test_tiles", {})
    return TiledDetector(model, **tiles) if tiles.get("size", 0) else model
