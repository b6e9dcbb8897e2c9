"""The classification loss alone, forward and backward, on the head's maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from detectron2.layers import cat
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from fvcore.nn import sigmoid_focal_loss_jit
from torch import Tensor
from torch.nn import functional as F

from retina_plugin.modeling.contracts import DenseTargets
from retina_plugin.workbench.benchmark.assignment import anchors_of, assign
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


def measure_classification_loss(contenders: Sequence[Contender], repeats: int) -> Part:
    """Time and memory, and against stock how far value and gradient are from its own."""
    plugin = contenders[-1]
    device = plugin.device
    logits = [x.detach().requires_grad_() for x in features_and_maps(plugin)[1]]
    instances = [given["instances"].to(device) for given in plugin.batch]
    targets = assign(plugin, anchors_of(plugin), instances)
    losses: dict[str, Callable[[], Tensor]] = {
        PLUGIN: lambda: plugin.model.cls_loss(logits, replace(targets))  # nothing cached
    }
    if contenders[0].name == STOCK:
        retinanet = plugin.cfg.MODEL.RETINANET
        settings = {"alpha": retinanet.FOCAL_LOSS_ALPHA, "gamma": retinanet.FOCAL_LOSS_GAMMA}
        losses = {STOCK: lambda: stock_focal_loss(logits, targets, **settings), **losses}

    def forward_backward(loss: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        value = loss()
        return value.detach(), *torch.autograd.grad(value, logits)

    runs = {name: lambda loss=loss: forward_backward(loss) for name, loss in losses.items()}
    results = {name: run() for name, run in runs.items()}
    memory = {name: [peak_memory(run, device) / GIB] for name, run in runs.items()}
    times = interleave({n: lambda r=r: seconds(r, device) for n, r in runs.items()}, repeats)
    rows = [Row("forward and backward", "s", times), Row("peak memory above it", "GiB", memory)]
    if STOCK in results:
        distances = [_distance(a, b) for a, b in zip(*results.values(), strict=True)]
        rows.append(Row("value, relative to stock's", "1", {PLUGIN: [distances[0]]}))
        rows.append(Row("gradient, relative to stock's", "1", {PLUGIN: [max(distances[1:])]}))
    count = targets.labels.numel()
    title = f"classification loss alone: {count} anchors x {targets.num_classes} classes"
    return Part(title, rows)


def stock_focal_loss(
    logits: Sequence[Tensor], targets: DenseTargets, *, alpha: float, gamma: float
) -> Tensor:
    """The sum that ``detectron2.modeling.meta_arch.RetinaNet.losses`` makes, its transposes too."""
    classes = targets.num_classes
    flat = [permute_to_N_HWA_K(x, classes) for x in logits]
    valid = targets.labels >= 0
    one_hot = F.one_hot(targets.labels[valid], num_classes=classes + 1)[:, :-1]
    return sigmoid_focal_loss_jit(
        cat(flat, dim=1)[valid],
        one_hot.to(flat[0].dtype),
        alpha=alpha,
        gamma=gamma,
        reduction="sum",
    )


def _distance(stock: Tensor, plugin: Tensor) -> float:
    return ((plugin - stock).norm() / stock.norm()).item()
