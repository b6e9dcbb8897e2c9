"""Assignment alone: anchors x ground truth -> labels and matches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, Instances

from retina_plugin.workbench.benchmark.contenders import Contender, features_and_maps
from retina_plugin.workbench.benchmark.memory import peak_memory
from retina_plugin.workbench.benchmark.rows import (
    GIB,
    PLUGIN,
    STOCK,
    Part,
    Row,
    interleave,
    seconds,
)


def measure_assignment(contenders: Sequence[Contender], repeats: int) -> Part:
    """Time and memory, and against stock whether labels and matches are the same to the bit."""
    device, batch = contenders[0].device, contenders[0].batch
    anchors = anchors_of(contenders[-1])
    instances = [given["instances"].to(device) for given in batch]
    runs = {c.name: lambda c=c: assign(c, anchors, instances) for c in contenders}
    results = {name: run() for name, run in runs.items()}
    memory = {name: [peak_memory(run, device) / GIB] for name, run in runs.items()}
    times = interleave({n: lambda r=r: seconds(r, device) for n, r in runs.items()}, repeats)
    rows = [Row("assignment", "s", times), Row("peak memory above its inputs", "GiB", memory)]
    if STOCK in results:
        equal = same_targets(results[STOCK], results[PLUGIN])
        rows.append(Row("labels and matches as stock's", "1 = yes", {PLUGIN: [float(equal)]}))
    count = sum(len(x) for x in anchors)
    return Part(
        f"assignment alone: {len(batch)} x {len(instances[0])} boxes, {count} anchors", rows
    )


def anchors_of(contender: Contender) -> list[Boxes]:
    """One ``Boxes`` a level."""
    return contender.model.anchor_generator(features_and_maps(contender)[0])


def assign(contender: Contender, anchors: list[Boxes], instances: list[Instances]) -> Any:
    """The plugin's ``DenseTargets``, or stock's labels and matched boxes."""
    with torch.no_grad():
        if contender.name == STOCK:
            return contender.model.label_anchors(anchors, instances)
        return contender.model.assigner(anchors, instances, contender.model.num_classes)


def same_targets(stock: Any, plugin: Any) -> bool:
    """Equal labels of all anchors, and equal matched boxes of the positives."""
    labels, boxes = torch.stack(stock[0]), torch.stack(stock[1])
    if not torch.equal(labels, plugin.labels):
        return False
    chosen = plugin.positives
    return torch.equal(boxes[chosen.image, chosen.anchor], plugin.field("gt_boxes"))
