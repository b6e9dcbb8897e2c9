"""What the numbers say, in a few sentences, and what to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode

from retina_plugin.workbench.anchors.coverage import Coverage
from retina_plugin.workbench.anchors.fitting import FittedAnchors, Gain, is_shape
from retina_plugin.workbench.anchors.scaling import best_scale
from retina_plugin.workbench.anchors.summary import row

WORTH_IOU = 0.02  # of the mean
WORTH_RECALL = 0.01
FEW = 0.05  # of the boxes missed are no reason to change anything
TINY = 0.02  # of the boxes under a cell are worth a word


@dataclass(frozen=True)
class Verdict:
    """Sentences, one a line, and the overrides that mend what they say; empty for none."""

    lines: Sequence[str]
    fix: Sequence[str]

    def __str__(self) -> str:
        return "\n".join([*self.lines, *(f"    {x}" for x in self.fix)])


def verdict(cfg: CfgNode, cover: Coverage, fit: FittedAnchors | None = None) -> Verdict:
    """Judge a coverage; with fitted anchors, whether they are worth it."""
    lines = [_state(cover), *_parts(cover), *_tiny(cover)]
    if fit is not None:
        lines += _fitted(fit)
        return Verdict(lines, fit.anchors.overrides() if _is_worth_it(fit.whole) else ())
    cover = cover.where(is_shape(cover.seen))
    scaled = best_scale(cfg, cover)
    gain = Gain(row(cover, "before"), row(scaled.coverage, "after"))
    # else larger anchors only meet boxes more closely, as they lie denser: no fault to mend
    if _recall_gain(gain) > WORTH_RECALL:
        lines += [
            f"Anchors of {scaled.factor:.2g} times the size fit better:",
            f"  {gain_text(gain, 'other sizes alone')}",
            "--fit may find even better ones. The config line:",
        ]
        return Verdict(lines, [scaled.override])
    if gain.before.missed / gain.before.boxes > FEW:
        lines.append("Other sizes alone gain nothing; --fit searches sizes and ratios.")
    else:
        lines.append("The anchors fit: nothing to change.")
    return Verdict(lines, ())


def _state(cover: Coverage) -> str:
    missed, count = int(cover.missed.sum()), len(cover)
    text = f"{1 - missed / count:.1%} of {count} boxes have an anchor at IoU {cover.threshold:g}"
    text += f" (mean best IoU {cover.iou.mean():.2f}), {missed} have none."
    if cover.is_yardstick:
        return f"{text} {cover.assigner} goes by no fixed IoU: this is only a yardstick."
    return text


def _parts(cover: Coverage) -> list[str]:
    """How many of the missed are what crops left of boxes: no anchor can mend those."""
    shapes = is_shape(cover.seen)
    remainders = int((cover.missed & ~shapes).sum())
    if not remainders:
        return []
    return [
        f"{remainders} of them are remainders, less than half a box after a random crop; of the "
        f"others {1 - cover.missed[shapes].mean():.1%} are reached."
    ]


def _tiny(cover: Coverage) -> list[str]:
    stride = min(cover.grid.strides)
    tiny = int((cover.side < stride).sum())
    if tiny / len(cover) <= TINY:
        return []
    return [
        f"{tiny} boxes are smaller than a cell of the finest level, {stride} px, in the network's "
        "input: larger images help, whatever the anchors (INPUT.MIN_SIZE_TRAIN and MIN_SIZE_TEST, "
        "or INPUT.TILES)."
    ]


def _is_worth_it(gain: Gain) -> bool:
    recall, iou = _recall_gain(gain), gain.after.mean_iou - gain.before.mean_iou
    return recall > WORTH_RECALL or (iou > WORTH_IOU and recall > -WORTH_RECALL)


def _recall_gain(gain: Gain) -> float:
    return (gain.before.missed - gain.after.missed) / max(gain.before.boxes, 1)


def _fitted(fit: FittedAnchors) -> list[str]:
    before, after = (" ".join(map(str, np.unique(x))) for x in fit.per_cell)
    lines = [f"Fitted anchors, {after} a cell (the config's: {before}):"]
    lines.append("  " + gain_text(fit.whole, "all images, but remainders of boxes"))
    if fit.held_out is not None:
        lines.append("  " + gain_text(fit.held_out, "half of the images, fitted to the other half"))
    if _is_worth_it(fit.whole):
        lines.append("They are worth a try (retina compare): IoU is not AP. The config lines:")
    else:
        lines.append("The config's anchors are as good: nothing to change.")
    return lines


def gain_text(gain: Gain, where: str) -> str:
    """Before and after, in a line."""
    a, b = gain.before, gain.after
    return (
        f"mean best IoU {a.mean_iou:.3f} -> {b.mean_iou:.3f}, IoU >= 0.5 {a.recall_50:.1%} -> "
        f"{b.recall_50:.1%} of {a.boxes} boxes, {a.missed} -> {b.missed} missed, "
        f"IoU >= 0.4 {a.recall_40:.1%} -> {b.recall_40:.1%} ({where})"
    )
