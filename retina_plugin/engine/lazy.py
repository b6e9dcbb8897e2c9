"""Train and evaluate from a LazyConfig: ``model``, ``dataloader``, ``optimizer``, ``train``."""

from __future__ import annotations

import weakref
from argparse import Namespace
from typing import Any

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import default_setup, default_writers, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn

from retina_plugin.data.package_files import register_package_paths
from retina_plugin.engine.checkpoint import RetinaCheckpointer
from retina_plugin.engine.setup import import_extension
from retina_plugin.engine.trainer import build_step, distribute


def run_lazy(args: Namespace) -> Any:
    """The job of ``train_net.py`` for a ``.py`` config; overrides are ``path.key=value``.

    The file is Python and runs as such: only for files you trust.
    """
    register_package_paths()
    for extension in args.extensions:
        import_extension(extension)
    cfg = LazyConfig.apply_overrides(LazyConfig.load(args.config_file), args.opts)
    if cfg.train.device.startswith("cuda") and not torch.cuda.is_available():
        cfg.train.device = "cpu"
    default_setup(cfg, args)
    setup_logger(cfg.train.output_dir, comm.get_rank(), name="retina_plugin")
    model = instantiate(cfg.model).to(cfg.train.device)
    if not args.eval_only:
        return train_lazy(cfg, model, resume=args.resume)
    RetinaCheckpointer(model).load(cfg.train.init_checkpoint)
    return evaluate_lazy(cfg, model)


def train_lazy(cfg: Any, model: nn.Module, *, resume: bool) -> Any:
    """Train ``model`` as the config says; returns the results of the last evaluation."""
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    parallel = distribute(model)
    trainer = build_step(
        parallel, instantiate(cfg.dataloader.train), optimizer, amp=cfg.train.amp.enabled
    )
    checkpointer = RetinaCheckpointer(
        parallel, cfg.train.output_dir, trainer=weakref.proxy(trainer)
    )
    evaluation = hooks.EvalHook(cfg.train.eval_period, lambda: evaluate_lazy(cfg, parallel))
    every_worker = [
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
    ]
    main_worker = comm.is_main_process()
    trainer.register_hooks(
        [
            *every_worker,
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer)
            if main_worker
            else None,
            evaluation,
            hooks.PeriodicWriter(
                default_writers(cfg.train.output_dir, cfg.train.max_iter),
                period=cfg.train.log_period,
            )
            if main_worker
            else None,
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    resumed = resume and checkpointer.has_checkpoint()
    trainer.train(trainer.iter + 1 if resumed else 0, cfg.train.max_iter)
    return trainer.storage.latest()


def evaluate_lazy(cfg: Any, model: nn.Module) -> Any:
    """Results of ``dataloader.evaluator`` on ``dataloader.test``; {} without an evaluator."""
    if "evaluator" not in cfg.dataloader:
        return {}
    results = inference_on_dataset(
        model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    )
    if comm.is_main_process():
        print_csv_format(results)
    return results
