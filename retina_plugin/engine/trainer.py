"""Detectron2's trainer with the plugin's components, for CUDA and CPU workers."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer, create_ddp_model
from detectron2.engine.hooks import EvalHook
from detectron2.engine.train_loop import HookBase, TrainerBase
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, verify_results
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, has_event_storage
from torch import nn

from retina_plugin.checkpoint.checkpointer import RetinaCheckpointer
from retina_plugin.data.coco_places import record_place
from retina_plugin.data.train_loader import start_at
from retina_plugin.engine.accumulation import micro_batch_size
from retina_plugin.engine.hooks.build import training_hooks
from retina_plugin.engine.hooks.early_stopping import until_stopped
from retina_plugin.engine.non_finite.guard import FOLDER, Origin, build_guard
from retina_plugin.engine.step import AUTO, build_step
from retina_plugin.engine.validation_loss import observed_losses
from retina_plugin.engine.validation_pictures import ValidationPictures
from retina_plugin.engine.writers.build import build_writers
from retina_plugin.evaluation.results_file import write_results
from retina_plugin.inference.augmented_inference import SUFFIX, augment_inference
from retina_plugin.inference.evaluated_detector import evaluated_detector
from retina_plugin.modeling.weight_average import build_weight_average
from retina_plugin.runs.load_run import run_of
from retina_plugin.runs.run import Run

INFERENCE = "inference"  # folder in OUTPUT_DIR with the results per test set

logger = logging.getLogger(__name__)


class RetinaTrainer(DefaultTrainer):
    """``DefaultTrainer`` with the plugin's mapper, optimizers, checkpointer and evaluators.

    ``cfg`` is a Detectron2 config or the :class:`Run` of a yaml config or a LazyConfig. As in
    ``DefaultTrainer``, the class methods build the components; here they delegate to the run.

    Only ``__init__`` is replaced: Detectron2's wraps the model for one GPU per worker, which fails
    for workers on CPUs.

    ``SOLVER.IMS_PER_BATCH`` is the batch size per optimizer step; the loader yields
    ``IMS_PER_BATCH / ACCUMULATE`` images. With ``SOLVER.WEIGHT_AVERAGE``, evaluations use the
    averaged weights, also saved as ``model`` in checkpoints: see :class:`RetinaCheckpointer`.

    Raises:
        ValueError: if the batch cannot be divided evenly over workers and micro-batches, or for
            ``TEST.PRECISE_BN`` with averaged weights, for which it computes no statistics.
    """

    def __init__(self, cfg: CfgNode | Run) -> None:
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(run_of(cfg).settings, comm.get_world_size())
        run = run_of(cfg)
        _images_of_loader(run)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        parallel = distribute(model, **run.ddp_options)  # broadcasts the weights
        self.average = build_weight_average(model, cfg.SOLVER.get("WEIGHT_AVERAGE", {}))
        if self.average is not None and cfg.TEST.PRECISE_BN.ENABLED:
            raise ValueError(
                "TEST.PRECISE_BN measures the statistics of the trained weights, but with "
                "SOLVER.WEIGHT_AVERAGE.DECAY the averaged ones are evaluated: turn one of them off"
            )
        amp = cfg.SOLVER.AMP
        self._trainer = build_step(
            parallel,
            loader,
            optimizer,
            amp=amp.ENABLED,
            precision=amp.get("PRECISION", AUTO),
            accumulate=cfg.SOLVER.get("ACCUMULATE", 1),
            average=self.average,
            guard=build_guard(model, optimizer, cfg.SOLVER.get("NON_FINITE", {}), _origin(run)),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = RetinaCheckpointer(
            parallel,
            cfg.OUTPUT_DIR,
            allow_partial=cfg.MODEL.get("WEIGHTS_ALLOW_PARTIAL", False),
            average=self.average,
            trainer=weakref.proxy(self),
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def train(self) -> dict[str, Any]:
        """Train; return the last evaluation's results, empty on workers other than the first."""
        start_at(self._trainer.data_loader, self.start_iter)
        stopped = until_stopped(super().train)
        results = getattr(self, "_last_eval_results", {})
        if stopped and comm.is_main_process():
            verify_results(self.cfg, results)  # as Detectron2 does after the last step
        return results

    def build_hooks(self) -> list[HookBase]:
        """Build Detectron2's hooks and those of ``engine/hooks``; see :func:`training_hooks`.

        Averaged weights, if any, are evaluated. ``TEST.AUG`` adds a second evaluation with
        augmentation after the training or, with ``PERIODIC``, every time.
        """
        augmented = []
        if self.cfg.TEST.AUG.ENABLED:
            period = self.cfg.TEST.EVAL_PERIOD if self.cfg.TEST.AUG.get("PERIODIC", False) else 0
            augmented.append(EvalHook(period, self._evaluate_augmented))
        own = type(self).build_evaluator.__func__ is RetinaTrainer.build_evaluator.__func__
        return training_hooks(
            super().build_hooks(),
            run_of(self.cfg),
            step=self._trainer,
            checkpointer=self.checkpointer,
            evaluate=self._evaluate,
            after_evaluation=augmented,
            checks_metrics=own,
        )

    def build_writers(self) -> list[EventWriter]:
        """Build Detectron2's writers and those of the services in ``LOGGERS``."""
        loggers = self.cfg.get("LOGGERS", [])
        config = yaml.safe_load(self.cfg.dump()) if loggers else {}
        return build_writers(self.cfg.OUTPUT_DIR, self.max_iter, loggers=loggers, config=config)

    def _evaluate(self) -> dict[str, Any]:
        self._last_eval_results = self._results_of(self.test)
        return self._last_eval_results

    def _evaluate_augmented(self) -> dict[str, Any]:
        found = self._results_of(self.test_with_TTA)
        # "raw" of EVALUATE_BOTH must not collide with the plain evaluation's
        results = {x if x.endswith(SUFFIX) else x + SUFFIX: value for x, value in found.items()}
        self._last_eval_results = {**getattr(self, "_last_eval_results", {}), **results}
        return results

    def _results_of(self, test: Callable[[CfgNode, nn.Module], dict[str, Any]]) -> dict[str, Any]:
        def results() -> dict[str, Any]:
            return test(self.cfg, self.model)

        return self.average.evaluate(results) if self.average else results()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of this trainer or of Detectron2's ``lazyconfig_train_net.py``."""
        super().load_state_dict({"_trainer": state_dict, **state_dict})

    @classmethod
    def build_model(cls, cfg: CfgNode | Run) -> nn.Module:
        """Build the run's model and log it, as Detectron2 does."""
        model = run_of(cfg).build_model()
        logging.getLogger("detectron2").info(f"Model:\n{model}")
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode | Run, model: nn.Module) -> torch.optim.Optimizer:
        """Build the run's optimizer."""
        return run_of(cfg).build_optimizer(model)

    @classmethod
    def build_lr_scheduler(
        cls, cfg: CfgNode | Run, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Build the run's learning rate schedule."""
        return run_of(cfg).build_scheduler(optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode | Run) -> Any:
        """Build the run's training loader, which yields micro-batches."""
        run = run_of(cfg)
        return run.build_train_loader(_images_of_loader(run))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode | Run, dataset_name: str) -> Any:
        """Build the run's test loader, with ground truth for ``TEST.VALIDATION_LOSS``."""
        return run_of(cfg).build_test_loader(dataset_name)

    @classmethod
    def test(cls, cfg: CfgNode | Run, model: nn.Module, evaluators: Any = None) -> dict[str, Any]:
        """Run Detectron2's test, with ``TEST.OPTIMIZE`` on a :func:`optimize_for_inference` copy.

        Uses tiles if ``INPUT.TILES.TEST_SIZE`` is set, and no ``TEST.AUG``. A model that is
        in training is not modified. With ``TEST.VALIDATION_LOSS`` each test set also has losses
        in its results, see :class:`ValidationLoss`, and during a training with
        ``VIS_PERIOD`` also pictures.
        """
        cfg = run_of(cfg).settings
        model = cls.build_detector(cfg, model)
        names = cfg.DATASETS.TEST
        keeps = evaluators is None
        if evaluators is None:
            evaluators = [cls.build_evaluator(cfg, name) for name in names]
        elif isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        draws = cfg.VIS_PERIOD > 0 and has_event_storage()
        with ExitStack() as stack:
            # one per evaluator, as Detectron2 requires
            if cfg.TEST.get("VALIDATION_LOSS", True) and len(evaluators) == len(names):
                losses = stack.enter_context(observed_losses(model, names))
                pictures = [ValidationPictures(x, cfg.INPUT.FORMAT) for x in names if draws]
                evaluators = [
                    DatasetEvaluators([x for x in group if x is not None])
                    for group in zip_longest(losses, pictures, evaluators)
                ]
            results = super().test(cfg, model, evaluators)
        if keeps:
            _keep_results(cfg, results, INFERENCE)
        return results

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode | Run, model: nn.Module) -> dict[str, Any]:
        """Run :meth:`test` with the views of ``TEST.AUG``; result names get the suffix ``_TTA``.

        Predictions are written under ``OUTPUT_DIR/inference_TTA``, as Detectron2 does.
        """
        logger.info("Evaluating with test-time augmentation (TEST.AUG) ...")
        cfg = run_of(cfg).settings
        detector = augment_inference(cfg, cls.build_detector(cfg, model))
        evaluators = [
            cls.build_evaluator(cfg, name, f"{INFERENCE}{SUFFIX}") for name in cfg.DATASETS.TEST
        ]
        results = super().test(cfg, detector, evaluators)
        _keep_results(cfg, results, f"{INFERENCE}{SUFFIX}")
        return {name + SUFFIX: value for name, value in results.items()}

    @classmethod
    def build_detector(cls, cfg: CfgNode, model: nn.Module) -> nn.Module:
        """See :func:`~retina_plugin.inference.evaluated_detector.evaluated_detector`."""
        return evaluated_detector(cfg, model)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode | Run, dataset_name: str, folder: str = INFERENCE
    ) -> DatasetEvaluator:
        """Build the run's evaluator, with results in ``OUTPUT_DIR/<folder>/<data set>``."""
        run = run_of(cfg)
        output_dir = Path(run.settings.OUTPUT_DIR) / folder / dataset_name
        if comm.is_main_process():
            record_place(output_dir, dataset_name)  # for the report
        return run.build_evaluator(dataset_name, output_dir)


def evaluate(cfg: CfgNode | Run, *, resume: bool) -> dict[str, Any]:
    """Evaluate ``MODEL.WEIGHTS``, or with ``resume`` the last checkpoint in ``OUTPUT_DIR``.

    With ``TEST.AUG.ENABLED``, also evaluate with augmentation, as ``bbox_TTA``.

    Raises:
        ValueError: if no weights are given, or some of the model's weights are missing.
    """
    cfg = run_of(cfg).settings
    model = RetinaTrainer.build_model(cfg)
    checkpointer = RetinaCheckpointer(model, cfg.OUTPUT_DIR, all_weights=True)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = RetinaTrainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(RetinaTrainer.test_with_TTA(cfg, model))
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def _keep_results(cfg: CfgNode, results: dict[str, Any], folder: str) -> None:
    """Write ``OUTPUT_DIR/<folder>/<data set>/results.json``, for the report."""
    names = cfg.DATASETS.TEST
    if comm.is_main_process():
        for name in names:
            found = results if len(names) == 1 else results[name]
            if found:  # an evaluator may return no results
                write_results(Path(cfg.OUTPUT_DIR) / folder / name, found)


def _origin(run: Run) -> Origin:
    """Return the information that a replay needs besides the step."""
    cfg = run.settings
    classes = [MetadataCatalog.get(name).get("thing_classes") for name in cfg.DATASETS.TRAIN[:1]]
    names = classes[0] or () if classes else ()
    return Origin(Path(cfg.OUTPUT_DIR) / FOLDER, run.portable_config(), names)


def _images_of_loader(run: Run) -> int | None:
    if run.images_per_step is None:
        return None
    return micro_batch_size(
        run.images_per_step,
        accumulate=run.settings.SOLVER.get("ACCUMULATE", 1),
        workers=comm.get_world_size(),
    )


def distribute(model: nn.Module, **options: Any) -> nn.Module:
    """Wrap the model in DDP if there is more than one worker.

    Args:
        model: model on this worker's device.
        options: options of ``detectron2.engine.create_ddp_model``.

    Raises:
        ValueError: if the workers communicate over CUDA (NCCL), but the model is on the CPU.
    """
    options = {"broadcast_buffers": False, **options}
    if next(model.parameters()).device.type == "cpu":
        if comm.get_world_size() > 1 and dist.get_backend() == "nccl":
            raise ValueError(
                "MODEL.DEVICE is cpu, but several workers on a machine with GPUs use these: set "
                "MODEL.DEVICE cuda, or hide the GPUs with CUDA_VISIBLE_DEVICES=''"
            )
        options["device_ids"] = None
    return create_ddp_model(model, **options)
