"""Boxes as the network sees them: those that no anchor reaches, and those that are tiny."""

from __future__ import annotations

import shlex
from logging import INFO, WARNING

import numpy as np
from detectron2.config import CfgNode

from retina_plugin.data.findings import Findings
from retina_plugin.workbench.anchors.coverage import Coverage
from retina_plugin.workbench.anchors.fitting import is_shape
from retina_plugin.workbench.anchors.scaling import best_scale
from retina_plugin.workbench.doctor.paste import pasted

MISSED = 0.15  # of the boxes; stock RetinaNet misses 5 to 10 % of COCO's
TINY_SIDE = 8.0  # pixels: a cell of the finest level
TINY = 0.1  # of the boxes
SIZES = (0, 8, 16, 32, 64, 128, 256, 512)
CLASSES = 3


def check_reach(cfg: CfgNode, coverage: Coverage, findings: Findings) -> None:
    """Count the boxes that the anchors miss, and find sizes that miss fewer.

    What a random crop leaves of a box, less than half, has no shape that anchors could fit.
    """
    coverage = coverage.where(is_shape(coverage.seen))
    if not len(coverage):
        return
    missed, share = int(coverage.missed.sum()), coverage.missed.mean()
    where = "MODEL.ANCHOR_GENERATOR"
    what = f"at IoU {coverage.threshold:g} no anchor reaches {share:.0%} of the boxes to train on"
    if share <= MISSED:
        findings.add(INFO, where, f"{what} ({missed} of {len(coverage)})")
        return
    what += f" ({missed} of {len(coverage)}): {_by_size(coverage)}; {_by_class(coverage)}"
    why = "They have few anchors or none to learn from, and are seldom found."
    if coverage.is_yardstick:
        why = f"{coverage.assigner} goes by no fixed IoU, but anchors unlike the boxes learn less."
    scaled = best_scale(cfg, coverage)
    left = scaled.coverage.missed.mean()
    if left < share / 2:
        fix = shlex.quote(scaled.override)
        advice = f"It misses {left:.0%}."
        if left > MISSED:
            advice += " retina anchors CONFIG --fit finds more."
    else:
        fix = "retina anchors CONFIG --fit --write anchors.yaml"
        advice = "Then name anchors.yaml last in _BASE_."
    findings.add(WARNING, where, what, advice, why=why, fix=fix)


def check_tiny(cfg: CfgNode, coverage: Coverage, findings: Findings) -> None:
    """Count the boxes that are below a cell of the finest level when the network sees them."""
    tiny = coverage.side < TINY_SIDE
    if not tiny.any():
        return
    what = f"{tiny.mean():.0%} of the boxes to train on are below {TINY_SIDE:g} px when the network"
    what += f" sees them ({int(tiny.sum())} of {len(coverage)})"
    if tiny.mean() <= TINY:
        findings.add(INFO, "INPUT", what)
        return
    fix = ""
    if not cfg.INPUT.get("AUGMENTATIONS") and any(cfg.INPUT.MIN_SIZE_TRAIN):
        fix = _larger(cfg)
    why = "Little is left of them: the finest level has a cell every 8 px."
    advice = "Or show parts of the images: INPUT.TILES.TRAIN_SIZE and TEST_SIZE."
    findings.add(WARNING, "INPUT", what, advice, why=why, fix=fix)


def _larger(cfg: CfgNode) -> str:
    """Twice the size of all images."""
    keys = {
        "MIN_SIZE_TRAIN": tuple(2 * x for x in cfg.INPUT.MIN_SIZE_TRAIN),
        "MAX_SIZE_TRAIN": 2 * cfg.INPUT.MAX_SIZE_TRAIN,
        "MIN_SIZE_TEST": 2 * cfg.INPUT.MIN_SIZE_TEST,
        "MAX_SIZE_TEST": 2 * cfg.INPUT.MAX_SIZE_TEST,
    }
    return " ".join(pasted(f"INPUT.{key}", value) for key, value in keys.items())


def _by_size(coverage: Coverage) -> str:
    """The size with the most missed boxes."""
    group = np.digitize(coverage.side, SIZES) - 1
    counts = np.bincount(group[coverage.missed], minlength=len(SIZES))
    worst = int(counts.argmax())
    ends = [str(x) for x in SIZES[worst : worst + 2]]
    return f"{counts[worst]} are of {' to '.join(ends) if len(ends) > 1 else f'over {ends[0]}'} px"


def _by_class(coverage: Coverage) -> str:
    """The classes with the largest shares."""
    ids, names = coverage.seen.class_id, coverage.seen.class_names
    shares = [(coverage.missed[ids == c].mean(), c) for c in np.unique(ids)]
    worst = sorted(shares, reverse=True)[:CLASSES]
    named = [(names[c] if c < len(names) else f"class {c}", share) for share, c in worst]
    return ", ".join(f"{name} {share:.0%}" for name, share in named)
