"""Learning rate, warm-up, steps and periods against the batch, the data and each other."""

from __future__ import annotations

from logging import INFO, WARNING

from detectron2.config import CfgNode

from retina_plugin.data.findings import Findings
from retina_plugin.workbench.doctor.paste import pasted

# SOLVER.OPTIMIZER -> a rate that works for 16 images and how it goes with the batch (power), and
# the factors below and above it that still make sense. SGD: the paper's, and the linear rule of
# Goyal et al., 2017. AdamW: 1e-4 of ViTDet and DETR, rates up to 2e-3 for small new networks; by
# the square root of the batch, Malladi et al., 2022.
RATES = {"SGD": (0.01, 1.0, 0.05, 4.0), "AdamW": (2e-4, 0.5, 0.02, 20.0)}


def check_schedule(cfg: CfgNode, images: int, findings: Findings) -> None:
    """Look at ``SOLVER`` and ``TEST.EVAL_PERIOD``.

    Args:
        cfg: the config.
        images: that are trained on; 0 if unknown.
        findings: gets warnings and information.
    """
    _check_rate(cfg, findings)
    _check_steps(cfg, findings)
    _check_length(cfg, images, findings)
    _check_periods(cfg, findings)


def _check_rate(cfg: CfgNode, findings: Findings) -> None:
    solver, key = cfg.SOLVER, "SOLVER.BASE_LR"
    name, batch = solver.get("OPTIMIZER", "SGD"), solver.IMS_PER_BATCH
    if name not in RATES:
        return
    rate, power, least, most = RATES[name]
    usual = rate * (batch / 16) ** power
    rule = "linear" if power == 1 else "square-root"
    text = f"is {solver.BASE_LR:g}; for {name} with SOLVER.IMS_PER_BATCH {batch} about {usual:.3g}"
    text += f" is usual ({rule} rule, from {rate:g} at 16)"
    fix = pasted(key, float(f"{usual:.3g}"))
    times = solver.BASE_LR / usual
    if times > most:
        findings.add(WARNING, key, text, why="The loss is likely to become NaN.", fix=fix)
    elif times < least:
        findings.add(WARNING, key, text, why="It will hardly learn.", fix=fix)


def _check_steps(cfg: CfgNode, findings: Findings) -> None:
    solver = cfg.SOLVER
    last, steps, warmup = solver.MAX_ITER, list(solver.STEPS), solver.WARMUP_ITERS
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and any(step >= last for step in steps):
        what = f"is {steps}, not all before the end of training, SOLVER.MAX_ITER {last}"
        fix = pasted("SOLVER.STEPS", [last * 2 // 3, last * 8 // 9])
        why = "The learning rate does not fall there, which costs some AP."
        findings.add(WARNING, "SOLVER.STEPS", what, why=why, fix=fix)
    if warmup >= last:
        what = f"is {warmup}, but training ends at SOLVER.MAX_ITER {last}"
        fix = pasted("SOLVER.WARMUP_ITERS", max(1, last // 20))
        why = "The learning rate never gets to BASE_LR."
        findings.add(WARNING, "SOLVER.WARMUP_ITERS", what, why=why, fix=fix)


def _check_length(cfg: CfgNode, images: int, findings: Findings) -> None:
    solver, key = cfg.SOLVER, "SOLVER.MAX_ITER"
    if not images:
        return
    seen = solver.MAX_ITER * solver.IMS_PER_BATCH
    text = f"{solver.MAX_ITER} of {solver.IMS_PER_BATCH} images each are {seen / images:.3g} epochs"
    text += f" of the {images} images"
    if seen < images:
        fix = pasted(key, -(-12 * images // solver.IMS_PER_BATCH))
        why = "Not even every image is seen once; the usual 1x schedule is 12 epochs."
        findings.add(WARNING, key, text, why=why, fix=fix)
    elif seen > 1000 * images:
        fix = pasted(key, -(-100 * images // solver.IMS_PER_BATCH))
        why = "It will learn the images by heart; COCO's 3x schedule is 37 epochs."
        findings.add(WARNING, key, text, why=why, fix=fix)
    else:
        findings.add(INFO, key, text)


def _check_periods(cfg: CfgNode, findings: Findings) -> None:
    last, period = cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD
    if not cfg.DATASETS.TEST:
        advice = "Set DATASETS.COCO.TEST.JSON and IMAGES to images that are not trained on."
        why = "Nothing says how good the model is."
        findings.add(WARNING, "DATASETS.TEST", "names no data set", advice, why=why)
    elif not 0 < period < last:
        fix = pasted("TEST.EVAL_PERIOD", max(1, last // 10))
        what = f"is {period}: evaluated once, at the end"
        findings.add(INFO, "TEST.EVAL_PERIOD", what, fix=fix)
    saved = cfg.SOLVER.CHECKPOINT_PERIOD
    if last > 1000 and saved >= last:
        what = f"is {saved}, SOLVER.MAX_ITER {last}: saved once, at the end"
        fix = pasted("SOLVER.CHECKPOINT_PERIOD", max(1, last // 10))
        why = "A training that is cut off begins anew."
        findings.add(INFO, "SOLVER.CHECKPOINT_PERIOD", what, why=why, fix=fix)
