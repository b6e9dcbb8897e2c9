"""The likely cause of a non-finite loss, and how to fix it."""

from __future__ import annotations

import math
from typing import NamedTuple

from retina_plugin.engine.non_finite.finding import LOSS_SCALE, Finding

HALF_MAX = 65504.0  # largest float16 value
LARGE_WEIGHT, LARGE_INPUT = 1e3, 1e6  # not reached by trained networks
LARGE_LOSS = 1e3
GROWTH = 5.0  # factor of the loss or gradient norm within the history
_GO_ON = "SOLVER.NON_FINITE.ACTION skip trains on without such steps meanwhile"


class Cause(NamedTuple):
    """The cause as a sentence, and advice as a list of lines."""

    why: str
    advice: tuple[str, ...]


def likely_cause(found: Finding, *, lr: float | None, first_step: bool) -> Cause:
    """Derive the likely cause from the finding, checking the most reliable sign first.

    Args:
        found: the finding with layer, images and history.
        lr: the learning rate of the step, or None if unknown.
        first_step: whether no optimizer step was taken before.
    """
    for sign in (_pixels, _boxes, _scale, _statistics):
        cause = sign(found)
        if cause is not None:
            return cause
    if found.parameters and first_step:
        return Cause(
            f"The weights that the training began with are not finite: {found.parameters[0]}.",
            ("look at the file that MODEL.WEIGHTS names",),
        )
    half = _half(found)
    if half is not None:
        return half
    diverged = _diverged(found, lr, first_step)
    if diverged is not None:
        return diverged
    return _unknown(found)


def _pixels(found: Finding) -> Cause | None:
    bad = [image.file for image in found.images if image.bad_pixels]
    if not bad:
        return None
    return Cause(
        f"{len(bad)} image(s) have pixel values that are no finite numbers.",
        (f"correct {bad[0]}, or what the mapper makes of it", _GO_ON),
    )


def _boxes(found: Finding) -> Cause | None:
    for image in found.images:
        for box in image.boxes:
            if box.what and (box.losses or box.what == "not finite"):
                return Cause(
                    f"A box of {image.file} is {box.what}.",
                    (
                        "correct or remove it; if the json's box is right, look at the mapper",
                        _GO_ON,
                    ),
                )
    return None


def _scale(found: Finding) -> Cause | None:
    if found.what != LOSS_SCALE:
        return None
    return Cause(
        "float16's loss scale is below 1 and still the gradient is not finite: no step is taken "
        "any more.",
        ("SOLVER.AMP.PRECISION bfloat16", "or SOLVER.AMP.ENABLED False"),
    )


def _statistics(found: Finding) -> Cause | None:
    layer = found.layer
    if layer is None or "BatchNorm" not in layer.kind or layer.from_input or _is_large(found):
        return None
    return Cause(
        f"The statistics of {layer.name} make no finite numbers (a negative or tiny variance?).",
        ("look at the file that MODEL.WEIGHTS names", "MODEL.RESNETS.NORM FrozenBN"),
    )


def _half(found: Finding) -> Cause | None:
    layer = found.layer
    if found.precision != "float16" or layer is None or layer.dtype != "float16":
        return None
    return Cause(
        f"Activations at {layer.name} pass {HALF_MAX:g}, the largest number of float16.",
        ("SOLVER.AMP.PRECISION bfloat16", "or SOLVER.AMP.ENABLED False"),
    )


def _diverged(found: Finding, lr: float | None, first_step: bool) -> Cause | None:
    """Learning rate too high: loss, weights or activations grew before the step."""
    layer = found.layer
    signs = [_is_large(found)] if layer is not None else []
    if first_step and any(signs):
        return Cause(
            f"Before anything was learnt, {layer.name} has {signs[0]}.",
            ("look at the file that MODEL.WEIGHTS names, or at the layer's initialisation",),
        )
    signs += ["the loss grew before"] if _has_grown(found, "loss") else []
    signs += ["the gradient grew before"] if _has_grown(found, "gradient_norm") else []
    signs += ["weights are no finite numbers any more"] if found.parameters else []
    if not any(signs):
        return None
    rate = "" if lr is None else f" (now {lr:.3g})"
    lower = "a tenth of it" if lr is None else f"{lr / 10:.1g}"
    return Cause(
        f"The learning rate is too high for this batch{rate}: {', '.join(filter(None, signs))}.",
        (
            f"SOLVER.BASE_LR {lower}, or a longer warm-up: SOLVER.WARMUP_ITERS 2000",
            "SOLVER.CLIP_GRADIENTS.ENABLED True SOLVER.CLIP_GRADIENTS.CLIP_TYPE norm",
        ),
    )


def _is_large(found: Finding) -> str:
    """Describe implausibly large weights or inputs of the layer; "" if there are none."""
    layer = found.layer
    if layer is None:
        return ""
    if (layer.largest_weight or 0) > LARGE_WEIGHT:
        return f"weights up to {layer.largest_weight:.2g}"
    if layer.largest_input > LARGE_INPUT and not layer.from_input:
        return f"inputs up to {layer.largest_input:.2g}"
    return ""


def _has_grown(found: Finding, name: str) -> bool:
    past = [float(record[name]) for record in found.history if name in record]
    if not past:
        return False
    last = past[-1]
    start = min(past)
    return not math.isfinite(last) or last > LARGE_LOSS or (len(past) > 1 and last > GROWTH * start)


def _unknown(found: Finding) -> Cause:
    if found.layer is not None:
        return Cause(
            f"{found.layer.name} gives numbers that are not finite for finite ones.",
            ("replay it, and look at this layer",),
        )
    if any(image.boxes and image.boxes[0].losses for image in found.images):
        return Cause(
            "The network's outputs are finite, the loss of these boxes is not.",
            ("look at these boxes and at the loss: MODEL.RETINANET.BBOX_REG_LOSS_TYPE, CLS_LOSS",),
        )
    return Cause(
        f"The network's outputs are finite, the {found.what} is not.",
        ("look at the losses: MODEL.RETINANET.BBOX_REG_LOSS_TYPE and CLS_LOSS",),
    )
