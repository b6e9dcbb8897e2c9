"""How much memory a training step takes, from shapes alone, against what there is."""

from __future__ import annotations

from dataclasses import dataclass
from logging import INFO, WARNING
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from retina_plugin.data.findings import Findings
from retina_plugin.workbench.doctor.paste import pasted

GB = 1e9
FLOAT = 4  # bytes
RESERVE = 0.9  # of what is free, the most to count on
# torch, Detectron2, CUDA's context or the C library: there before the first tensor
LIBRARIES = {"cpu": 0.5 * GB, "cuda": 0.8 * GB}


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a training step of one worker holds.

    Attributes:
        state: weights, gradients, the optimizer's and the average's numbers.
        an_image: what the forward pass keeps of one image, and the logits' gradients.
    """

    state: int
    an_image: int

    def of(self, images: int) -> int:
        """With so many images."""
        return self.state + images * self.an_image


def step_memory(cfg: CfgNode, model: nn.Module, image_size: tuple[int, int]) -> StepMemory:
    """Estimate from a forward pass on no device, by what autograd would keep of it.

    The maps that autograd saves are counted once each, whatever their number of uses, beside the
    logits and deltas with their gradients. Not counted: what convolutions need for an algorithm,
    and the ground truth. With ``SOLVER.AMP`` the maps are taken as half as large.

    Args:
        cfg: of the training.
        model: on the device ``meta``.
        image_size: height and width of the largest image.

    Raises:
        RuntimeError, ...: a part of the model looks at numbers.
    """
    learnt = sum(p.numel() for p in model.parameters() if p.requires_grad) * FLOAT
    maps, outputs = _forward(model, image_size)
    share = 0.5 if cfg.SOLVER.AMP.ENABLED else 1
    return StepMemory(learnt + checkpoint_bytes(cfg, model), int(maps * share + 2 * outputs))


def checkpoint_bytes(cfg: CfgNode, model: nn.Module) -> int:
    """Of the weights and of what optimizer and average remember."""
    learnt = sum(p.numel() for p in model.parameters() if p.requires_grad) * FLOAT
    fixed = [*model.parameters(), *model.buffers()]
    moments = 2 if cfg.SOLVER.get("OPTIMIZER", "SGD") == "AdamW" else 1
    averages = bool((cfg.SOLVER.get("WEIGHT_AVERAGE") or {}).get("DECAY", 0))
    return sum(x.numel() * x.element_size() for x in fixed) + learnt * (moments + averages)


def check_memory(
    cfg: CfgNode, model: nn.Module, image_size: tuple[int, int], workers: int, findings: Findings
) -> None:
    """Compare the estimate with the memory that is free on ``MODEL.DEVICE``."""
    try:
        memory = step_memory(cfg, model, image_size)
    except Exception as error:  # a part that cannot run without numbers: whatever it raises
        what = f"could not be estimated: {type(error).__name__}: {str(error).splitlines()[0]}"
        findings.add(INFO, "memory", what)
        return
    named = cfg.MODEL.DEVICE if torch.cuda.is_available() else "cpu"
    device = torch.device(named).type
    batch = max(1, cfg.SOLVER.IMS_PER_BATCH // cfg.SOLVER.get("ACCUMULATE", 1) // workers)
    needed, free = memory.of(batch) + LIBRARIES.get(device, 0), free_memory(named)
    height, width = image_size
    what = f"a step of {batch} images of up to {width}x{height} takes about {needed / GB:.1f} GB"
    if free is None or needed <= RESERVE * free:
        there = "" if free is None else f", free are {free / GB:.1f} GB"
        findings.add(INFO, "memory", what + there)
        return
    where = f"memory of {named}"
    what += f", but {free / GB:.1f} GB are free"
    why = "Training ends with an error, or the system ends it."
    fix = _that_fits(cfg, memory, batch, RESERVE * free - LIBRARIES.get(device, 0))
    findings.add(WARNING, where, what, "It is an estimate.", why=why, fix=fix)


def free_memory(device: str) -> int | None:
    """Bytes; None where that is not known."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable"))
    limit = Path("/sys/fs/cgroup/memory.max")
    used = Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def _that_fits(cfg: CfgNode, memory: StepMemory, batch: int, free: float) -> str:
    parts = next(
        (n for n in range(1, batch + 1) if not batch % n and memory.of(batch // n) <= free), 0
    )
    if not parts:
        return pasted("MODEL.BACKBONE.GRADIENT_CHECKPOINTING", True)
    return pasted("SOLVER.ACCUMULATE", cfg.SOLVER.get("ACCUMULATE", 1) * parts)


def _forward(model: nn.Module, image_size: tuple[int, int]) -> tuple[int, int]:
    """Bytes that autograd keeps of one image, and bytes of the head's maps."""
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage  # kept, or another would get its address
        return tensor

    weights = {x.untyped_storage()._cdata for x in (*model.parameters(), *model.buffers())}
    side = max(1, model.backbone.size_divisibility)
    height, width = (-(-x // side) * side for x in image_size)
    image = torch.empty(1, len(model.pixel_mean), height, width, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        features = model.backbone(image)
        maps = model.head([features[name] for name in model.head_in_features])
    outputs = [x for level in maps[:2] for x in level]
    return sum(x.nbytes() for x in kept.values()), sum(x.numel() * FLOAT for x in outputs)
