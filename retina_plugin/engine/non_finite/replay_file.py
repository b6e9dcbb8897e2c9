"""Replay file of a failed step: tensors and plain containers only, no executable code."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from retina_plugin.checkpoint.reading import read_file
from retina_plugin.modeling.contracts import IgnoredRegions

KIND = "a step of retina_plugin whose loss was not finite"
FORMAT = 1
PLAIN = (str, int, float, bool, type(None))
Batch = list[dict[str, Any]]


@dataclass
class SavedStep:
    """Everything that a training step depends on.

    Attributes:
        step: the iteration.
        finding: the finding as plain values.
        batches: the micro-batches, as passed to the model.
        weights: parameters and buffers before the step.
        random: random number generator states before the step, by device.
        config: config as yaml; "" for a LazyConfig.
        precision: float16 or bfloat16 for ``torch.autocast``, float32 without it.
        loss_scale: loss scale with float16; 1 without scaling.
        checks_gradients: ``SOLVER.NON_FINITE.CHECK_GRADIENTS``.
        class_names: class names of the data set.
        environment: versions and devices.
        left_out: batch entries that are not tensors, boxes or plain values and were dropped; a
            RetinaNet does not read them.
    """

    step: int
    finding: dict[str, Any]
    batches: list[Batch]
    weights: dict[str, Tensor]
    random: dict[str, Tensor]
    config: str
    precision: str
    loss_scale: float
    checks_gradients: bool
    class_names: list[str]
    environment: dict[str, str]
    left_out: list[str]


def write_step(saved: SavedStep, path: Path) -> None:
    """Write a step atomically: no partial file remains.

    Raises:
        OSError: if the file cannot be written.
    """
    left_out: set[str] = set(saved.left_out)
    content = {item.name: getattr(saved, item.name) for item in fields(saved)}
    content["batches"] = [[_plain_input(x, left_out) for x in batch] for batch in saved.batches]
    content["weights"] = {name: x.detach().cpu() for name, x in saved.weights.items()}
    content["left_out"] = sorted(left_out)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        torch.save({"kind": KIND, "format": FORMAT, **content}, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_step(path: str | Path) -> SavedStep:
    """Read a file written by :func:`write_step` without executing code from it.

    Raises:
        ValueError: if it is no replay file, is damaged, or has other than plain content.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file")
    content = read_file(str(path))
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ValueError(f"{path}: is no replay file, as training writes to OUTPUT_DIR/non_finite")
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{path}: is of format {content.get('format')}, this retina_plugin reads {FORMAT}: "
            "replay it with the version that wrote it"
        )
    try:
        given = {item.name: content[item.name] for item in fields(SavedStep)}
        given["batches"] = [[_input_of(x) for x in batch] for batch in given["batches"]]
        saved = SavedStep(**given)
        _require_types(saved)
        return saved
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise ValueError(f"{path}: is damaged ({type(error).__name__}: {error})") from error


def _require_types(saved: SavedStep) -> None:
    """Check the types of the fields that a replay reads."""
    tensors = [*saved.weights.values(), *saved.random.values()]
    finding = saved.finding
    if not all(isinstance(x, Tensor) for x in tensors) or "cpu" not in saved.random:
        raise ValueError("weights or random numbers are no tensors")
    if not all(isinstance(finding[name], str) for name in ("what", "why", "device")):
        raise ValueError("the finding is no finding")
    if not isinstance(saved.config, str) or not all(map(len, saved.batches)):
        raise ValueError("no config, or no images")
    for losses in (finding["losses"], *finding["history"]):
        any(float(value) for value in losses.values())


def _plain_input(given: dict[str, Any], left_out: set[str]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, Instances):
            kept = {}
            for field, x in value.get_fields().items():
                _keep(kept, field, x, left_out, of=f"{name}.")
            size = [int(side) for side in value.image_size]
            plain[name] = {"instances": kept, "image_size": size}
        else:
            _keep(plain, str(name), value, left_out)
    return plain


def _keep(kept: dict[str, Any], name: str, value: Any, left_out: set[str], *, of: str = "") -> None:
    if isinstance(value, Boxes):
        kept[name] = {"boxes": value.tensor.detach().cpu()}
    elif isinstance(value, IgnoredRegions):
        kept[name] = {"ignored_regions": value.boxes.detach().cpu(), "length": len(value)}
    elif isinstance(value, Tensor):
        kept[name] = value.detach().cpu()
    elif _is_plain(value):
        kept[name] = value
    else:
        left_out.add(f"{of}{name}")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, PLAIN) and _is_plain(x) for key, x in value.items())
    return type(value) in PLAIN


def _input_of(plain: dict[str, Any]) -> dict[str, Any]:
    given = {}
    for name, value in plain.items():
        if isinstance(value, dict) and "image_size" in value:
            height, width = value["image_size"]
            values = {field: _value(x) for field, x in value["instances"].items()}
            given[name] = Instances((int(height), int(width)), **values)
        else:
            given[name] = _value(value)
    if not isinstance(given["image"], Tensor) or given["image"].dim() != 3:
        raise ValueError("an image is no tensor of 3 dimensions")
    return given


def _value(plain: Any) -> Any:
    if isinstance(plain, dict) and plain.keys() == {"boxes"}:
        return Boxes(plain["boxes"])
    if isinstance(plain, dict) and plain.keys() == {"ignored_regions", "length"}:
        return IgnoredRegions(plain["ignored_regions"], plain["length"])
    return plain
