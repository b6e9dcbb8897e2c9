"""Train and evaluate from a LazyConfig: ``model``, ``dataloader``, ``optimizer``, ``train``."""

from __future__ import annotations

import weakref
from argparse import Namespace
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from detectron2.engine import default_setup, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from retina_plugin.checkpoint.checkpointer import RetinaCheckpointer
from retina_plugin.config.device import available_device
from retina_plugin.config.extensions import import_extension
from retina_plugin.config.lazy_file import load_lazy
from retina_plugin.data.package_files import register_package_paths
from retina_plugin.engine.accumulation import micro_batch_size
from retina_plugin.engine.hooks.build import HookSettings, metrics_of, training_hooks
from retina_plugin.engine.hooks.early_stopping import until_stopped
from retina_plugin.engine.non_finite.guard import FOLDER, Origin, build_guard
from retina_plugin.engine.run_folder import open_run, relocated
from retina_plugin.engine.step import AUTO, build_step
from retina_plugin.engine.trainer import distribute
from retina_plugin.engine.writers.build import build_writers
from retina_plugin.inference.denormals import flush_denormals
from retina_plugin.inference.evaluated_detector import optimized_detector, tiled
from retina_plugin.modeling.weight_average import build_weight_average


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
    tiled(cfg, model)  # refuses now, not at the first evaluation
    if not args.eval_only:
        return train_lazy(cfg, model, resume=args.resume)
    checkpointer = RetinaCheckpointer(model, cfg.train.output_dir, all_weights=True)
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=args.resume)
    return evaluate_lazy(cfg, model)


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
