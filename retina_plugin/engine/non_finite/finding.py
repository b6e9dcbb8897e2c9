"""What was found out about a step whose loss was not finite, for people and for scripts."""

from __future__ import annotations

import math
import shlex
from dataclasses import asdict, dataclass, field
from typing import Any

LOSS, GRADIENT, LOSS_SCALE = "loss", "gradient", "loss scale"
MOST_IMAGES, MOST_BOXES = 3, 3  # on one screen
_WIDTH = 88


@dataclass
class Layer:
    """The innermost module that got finite numbers and gave others.

    Attributes:
        name: in the model; of the step's losses alone ``""``.
        kind: its class.
        level: the pyramid level that it saw, of a module that all levels share.
        images: in the batch, those whose part of the output is not finite.
        bad: numbers of its output that are not finite.
        total: numbers of its output.
        dtype: of its output.
        largest_input: absolute, of the finite numbers.
        largest_weight: absolute, of the finite ones; None without parameters.
        from_input: it is merely the first that saw what was not finite in the batch.
    """

    name: str
    kind: str
    level: str | None = None
    images: list[int] = field(default_factory=list)
    bad: int = 0
    total: int = 0
    dtype: str = ""
    largest_input: float = 0.0
    largest_weight: float | None = None
    from_input: bool = False


@dataclass
class Box:
    """A box to blame, or an odd one.

    Attributes:
        box: XYXY in pixels of the image that the network saw.
        label: its class.
        class_name: of it, where it is known.
        what: what is odd about it; "" of a box that looks well.
        losses: those that are not finite with this box alone.
        levels: the levels that its anchors are on.
    """

    box: list[float]
    label: int
    class_name: str = ""
    what: str = ""
    losses: list[str] = field(default_factory=list)
    levels: list[str] = field(default_factory=list)


@dataclass
class Image:
    """An image of the batch.

    Attributes:
        index: in the step's batch, micro-batches one after the other.
        file, id: as the loader named it.
        size: height and width, as the network saw it.
        bad_pixels: numbers that are not finite.
        pixels: numbers in all.
        alone: the losses, or the gradient, that are not finite with this image alone.
        boxes: those to blame, then the odd ones.
        background: a loss is not finite even without any box.
    """

    index: int
    file: str
    id: str
    size: tuple[int, int]
    bad_pixels: int
    pixels: int
    alone: list[str] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    background: bool = False


@dataclass
class Finding:
    """All about one step.

    Attributes:
        step: the iteration.
        what: ``LOSS``, ``GRADIENT`` or ``LOSS_SCALE``: what is not finite, or has underflown.
        losses: of the step, on this worker.
        precision: of the forward pass.
        device, worker: where it happened.
        num_images: in the step.
        layer: see :class:`Layer`.
        parameters: those that were not finite before the step.
        gradients: those that are not finite, in the order in which the backward pass reached them.
        images: those to blame.
        history: of the last steps: ``step``, ``loss``, ``lr`` and, where it is logged,
            ``gradient_norm``.
        why: the likely cause, a sentence.
        advice: what to do, a line each.
        replay: the file that was written; "" for none.
        notes: what could not be found out.
        search_failed: half-way; what is here may lack something.
    """

    step: int
    what: str
    losses: dict[str, float]
    precision: str
    device: str
    worker: int = 0
    num_images: int = 0
    layer: Layer | None = None
    parameters: list[str] = field(default_factory=list)
    gradients: list[str] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    why: str = ""
    advice: list[str] = field(default_factory=list)
    replay: str = ""
    notes: list[str] = field(default_factory=list)
    search_failed: bool = False

    @property
    def bad_losses(self) -> list[str]:
        """Names of the losses that are not finite."""
        return [name for name, value in self.losses.items() if not math.isfinite(value)]

    def as_plain(self) -> dict[str, Any]:
        """Dicts, lists, strings and numbers; what is no number in json is a string."""
        return _plain(asdict(self))

    def headline(self) -> str:
        """One sentence."""
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.losses.items())
        what = {
            LOSS: "The loss became infinite or NaN",
            GRADIENT: "The gradient became infinite or NaN",
            LOSS_SCALE: "The gradient is infinite or NaN in step after step",
        }[self.what]
        return f"{what} at iteration={self.step} ({values})"

    def __str__(self) -> str:
        """One screen."""
        return "\n".join([f"{self.headline()}.", *_rows(self)])


def _rows(found: Finding) -> list[str]:
    rows: list[tuple[str, str]] = []
    rows += [("Weights", _listed(found.parameters, "not finite before the step"))]
    rows += [("Layer", _layer_text(found.layer))]
    rows += [("Gradient", _listed(found.gradients, "not finite, the first in the backward pass"))]
    rows += _image_rows(found)
    rows += [("Before", text) for text in _history_rows(found.history)]
    rows += [("Run", f"{found.precision} on {found.device}, worker {found.worker}")]
    rows += [("Note", note) for note in found.notes]
    rows += [("Likely", found.why), *(("Do", line) for line in found.advice)]
    if found.replay:
        rows += [("Replay", f"retina replay {shlex.quote(found.replay)}")]
    lines, last = [], ""
    for title, text in rows:
        if text:
            lines.append(f"  {'' if title == last else title:9}{text}")
            last = title
    return lines


def _listed(names: list[str], what: str) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}: {what}"


def _layer_text(layer: Layer | None) -> str:
    if layer is None:
        return ""
    level = f" at level {layer.level}" if layer.level else ""
    if layer.from_input:
        return (
            f"{layer.name} ({layer.kind}){level} is the first that saw it; its input is the batch"
        )
    weight = "" if layer.largest_weight is None else f", weights to {layer.largest_weight:.2g}"
    return (
        f"{layer.name} ({layer.kind}){level}: {layer.bad:,} of {layer.total:,} outputs not finite; "
        f"inputs to {layer.largest_input:.2g}{weight}"
    )


def _image_rows(found: Finding) -> list[tuple[str, str]]:
    rows = []
    if len(found.images) == found.num_images > 1 and not any(x.boxes for x in found.images):
        files = ", ".join(image.file for image in found.images[:MOST_IMAGES])
        more = ", ..." if found.num_images > MOST_IMAGES else ""
        if not any(image.bad_pixels for image in found.images):
            return [("Images", f"all {found.num_images}, so no one of them: {files}{more}")]
    for image in found.images[:MOST_IMAGES]:
        what = f"{image.bad_pixels:,} of {image.pixels:,} pixel values not finite"
        if not image.bad_pixels:
            what = (
                f"alone gives {', '.join(image.alone)} not finite" if image.alone else "odd boxes"
            )
        rows.append(("Image", f"{image.file} (id {image.id}): {what}"))
        rows += [("Box", box_text(box)) for box in image.boxes[:MOST_BOXES]]
        if len(image.boxes) > MOST_BOXES:
            rows.append(("Box", f"and {len(image.boxes) - MOST_BOXES} more"))
        if image.background:
            rows.append(("Box", "none: it is so with the background alone"))
    if len(found.images) > MOST_IMAGES:
        rows.append(("Image", f"and {len(found.images) - MOST_IMAGES} more"))
    return rows


def box_text(box: Box) -> str:
    """Corners, class, and what is wrong."""
    corners = ", ".join(f"{x:.4g}" for x in box.box)
    named = f" '{box.class_name}'" if box.class_name else ""
    parts = [f"[{corners}] of class {box.label}{named}"]
    parts += [box.what] if box.what else []
    parts += [f"{', '.join(box.losses)} not finite"] if box.losses else []
    parts += [f"level {', '.join(box.levels)}"] if box.levels else []
    return "; ".join(parts)


def _history_rows(history: list[dict[str, float]]) -> list[str]:
    names = {"loss": "loss", "gradient_norm": "gradient norm", "lr": "lr"}
    rows = []
    for name, title in names.items():
        values = [f"{float(past[name]):.3g}" for past in history if name in past]
        if values:
            rows.append(f"{title}: {', '.join(values)}")
    return ["; ".join(rows)] if len("; ".join(rows)) < _WIDTH else rows


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
