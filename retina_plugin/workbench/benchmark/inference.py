"""Inference on one image: its time and where it goes, its memory, its detections."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from detectron2.structures import Instances
from torch import nn
from torchvision.ops import boxes as box_operators

from retina_plugin.inference.optimize_for_inference import optimize_for_inference
from retina_plugin.workbench.benchmark.contenders import Contender
from retina_plugin.workbench.benchmark.memory import peak_memory
from retina_plugin.workbench.benchmark.rows import GIB, PLUGIN, STOCK, Part, Row, interleave
from retina_plugin.workbench.benchmark.stopwatch import Stopwatch

OPTIMISED = f"{PLUGIN}, optimised"
TIMES = ("inference", "data", "network", "decode", "NMS")


def measure_inference(contenders: Sequence[Contender], repeats: int) -> Part:
    """Every measure of the batch's first image, for the plugin also after optimisation."""
    given = [{k: v for k, v in contenders[0].batch[0].items() if k != "instances"}]
    models = {c.name: c.model.eval() for c in contenders}
    cfg = contenders[-1].cfg
    models[OPTIMISED] = optimize_for_inference(
        models[PLUGIN],
        winograd=cfg.MODEL.get("WINOGRAD", False),
        compile=cfg.TEST.get("COMPILE", False),
    )
    device = contenders[0].device
    runs = {name: lambda m=model: detect(m, given) for name, model in models.items()}
    found = {name: run() for name, run in runs.items()}
    memory = {name: [peak_memory(run, device) / GIB] for name, run in runs.items()}
    samples = interleave(
        {name: lambda m=model: inference_times(m, given, device) for name, model in models.items()},
        repeats,
    )
    rows = [Row(t, "s", {n: [x[t] for x in samples[n]] for n in models}) for t in TIMES]
    rows.append(Row("peak memory above the model", "GiB", memory))
    rows.append(Row("detections", "", {n: [float(len(x))] for n, x in found.items()}, False))
    if STOCK in found:
        others = [name for name in models if name != STOCK]
        order = {n: [float(same_order(found[STOCK], found[n]))] for n in others}
        rows.append(Row("stock's classes in stock's order", "1 = yes", order))
        distance = {n: [box_distance(found[STOCK], found[n])] for n in others if order[n][0]}
        rows.append(Row("largest distance to stock's boxes", "px", distance))
    notes = ["network = backbone and head; decode = all after it but the NMS, rescaling included"]
    return Part("inference, one image", rows, notes)


@torch.no_grad()
def detect(model: nn.Module, given: list[dict[str, Any]]) -> Instances:
    """The detections of one image."""
    return model(given)[0]["instances"]


def inference_times(
    model: nn.Module, given: list[dict[str, Any]], device: torch.device
) -> dict[str, float]:
    """Seconds of a call and its parts; on CUDA the whole is a second call, which has no waits."""
    watch = Stopwatch(device)
    plugins = getattr(model, "post_processor", None)
    own = hasattr(plugins, "suppress")
    nms = (plugins, "suppress", "NMS") if own else (box_operators, "batched_nms", "NMS")
    with ExitStack() as stack:
        for owner, attribute, part in (
            (model, "preprocess_image", "data"),
            (model, "backbone", "network"),
            (model, "head", "network"),
            nms,
        ):
            stack.enter_context(watch.watching(owner, attribute, part))
        with watch.running("inference"):
            detect(model, given)
    times = dict(watch.seconds)
    times.setdefault("NMS", 0.0)
    times["decode"] = times["inference"] - times["data"] - times["network"] - times["NMS"]
    if device.type != "cpu":
        whole = Stopwatch(device)
        with whole.running("inference"):
            detect(model, given)
        times |= whole.seconds
    return times


def same_order(stock: Instances, other: Instances) -> bool:
    """As many detections, of the same classes one after the other."""
    return torch.equal(stock.pred_classes, other.pred_classes)


def box_distance(stock: Instances, other: Instances) -> float:
    """Largest difference of a coordinate."""
    difference = stock.pred_boxes.tensor - other.pred_boxes.tensor
    return difference.abs().max().item() if len(stock) else 0.0
