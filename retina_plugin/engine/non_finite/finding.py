"""Diagnosis of a step with a non-finite loss, in readable and machine-readable form."""

from __future__ import annotations

import math
import shlex
from dataclasses import asdict, dataclass, field
from typing import Any

LOSS, GRADIENT, LOSS_SCALE = "loss", "gradient", "loss scale"
MOST_IMAGES, MOST_BOXES = 3, 3  # per screen
_WIDTH = 88


@dataclass
class Layer:
    """The innermost module with finite inputs and non-finite outputs.

    Attributes:
        name: module name in the model; ``""`` for the losses.
        kind: class name of the module.
        level: the pyramid level of the input, for a module shared by all levels.
        images: indices in the batch of the images with non-finite outputs.
        bad: number of non-finite output elements.
        total: number of output elements.
        dtype: data type of the output.
        largest_input: largest absolute value of the finite inputs.
        largest_weight: largest absolute finite weight; None without parameters.
        from_input: whether the batch itself was non-finite; this is the first module to see it.
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
    """A box that causes a non-finite loss, or looks unusual.

    Attributes:
        box: XYXY in pixels of the network's input image.
        label: class index.
        class_name: class name, if known.
        what: what is unusual about the box; "" for a regular box.
        losses: names of the losses that are non-finite with only this box.
        levels: pyramid levels of its assigned anchors.
    """

    box: list[float]
    label: int
    class_name: str = ""
    what: str = ""
    losses: list[str] = field(default_factory=list)
    levels: list[str] = field(default_factory=list)


@dataclass
class Image:
    """An image of the batch with its diagnosis.

    Attributes:
        index: index in the step's batch (concatenated micro-batches).
        file, id: file name and image id from the loader.
        size: height and width of the network's input.
        bad_pixels: number of non-finite pixel values.
        pixels: total number of pixel values.
        alone: the losses, or the gradient, that are non-finite with only this image.
        boxes: the boxes that cause it, then the unusual ones.
        background: whether a loss is non-finite even without boxes.
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
    """The diagnosis of one step.

    Attributes:
        step: the iteration.
        what: ``LOSS``, ``GRADIENT`` (non-finite) or ``LOSS_SCALE`` (underflow).
        losses: losses of the step on this worker.
        precision: precision of the forward pass.
        device, worker: device and worker process of the failure.
        num_images: number of images in the step.
        layer: see :class:`Layer`.
        parameters: names of the parameters that were non-finite before the step.
        gradients: parameters with a non-finite gradient, in backward order.
        images: the images that cause the failure.
        history: the last steps with ``step``, ``loss``, ``lr`` and, if logged,
            ``gradient_norm``.
        why: the likely cause as a sentence.
        advice: suggested fixes, one per line.
        replay: path of the replay file; "" if none was written.
        notes: limitations of the search.
        search_failed: whether the search failed, so that the finding may be incomplete.
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
        """Return the names of the non-finite losses."""
        return [name for name, value in self.losses.items() if not math.isfinite(value)]

    def as_plain(self) -> dict[str, Any]:
        """Convert to dicts, lists, strings and numbers; NaN and infinity become strings."""
        return _plain(asdict(self))

    def headline(self) -> str:
        """Return a summary in one sentence."""
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.losses.items())
        what = {
            LOSS: "The loss became infinite or NaN",
            GRADIENT: "The gradient became infinite or NaN",
            LOSS_SCALE: "The gradient is infinite or NaN in step after step",
        }[self.what]
        return f"{what} at iteration={self.step} ({values})"

    def __str__(self) -> str:
        """Return a report that fits on one screen."""
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
    """Describe a box: corners, class and problem."""
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
