"""This machine: versions, devices, disk, cores and shared memory."""

from __future__ import annotations

import os
import shutil
from logging import INFO, WARNING
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch import nn

from retina_plugin.data.findings import Findings
from retina_plugin.engine.environment import environment, has_compiled_detectron2
from retina_plugin.workbench.doctor.memory import GB, checkpoint_bytes
from retina_plugin.workbench.doctor.paste import pasted

DRIVER = Path("/proc/driver/nvidia/version")
SHARED = Path("/dev/shm")
PREFETCHED = 2  # batches that each process of the loader holds ready


def check_machine(cfg: CfgNode, findings: Findings) -> None:
    """Versions as information, and a GPU that is there and not used."""
    found = environment()
    findings.add(INFO, "environment", ", ".join(f"{k} {v}" for k, v in found.items()))
    if not has_compiled_detectron2():
        what = "Detectron2 was built without its compiled operators (_C)"
        findings.add(INFO, "environment", what, "A RetinaNet needs none of them.")
    available = torch.cuda.is_available()
    if DRIVER.is_file() and not available:
        built = torch.version.cuda
        what = f"there is an NVIDIA driver, but torch {torch.__version__} finds no GPU"
        what += f" (it is built for CUDA {built})" if built else " (it is built without CUDA)"
        advice = "Install the build of torch that fits the driver: nvidia-smi shows its CUDA."
        findings.add(WARNING, "environment", what, advice, why="The CPU is used instead.")
    elif cfg.MODEL.DEVICE.startswith("cuda") and not available:
        what = f"is {cfg.MODEL.DEVICE}, there is no CUDA here: the CPU is used"
        findings.add(INFO, "MODEL.DEVICE", what, fix=pasted("MODEL.DEVICE", "cpu"))
    elif available and cfg.MODEL.DEVICE == "cpu":
        name = torch.cuda.get_device_name(0)
        why = "A GPU trains many times faster."
        fix = pasted("MODEL.DEVICE", "cuda")
        findings.add(WARNING, "MODEL.DEVICE", f"is cpu, and there is a {name}", why=why, fix=fix)


def check_loader(cfg: CfgNode, image_size: tuple[int, int], findings: Findings) -> None:
    """Processes of the loader against cores and shared memory."""
    workers, key = cfg.DATALOADER.NUM_WORKERS, "DATALOADER.NUM_WORKERS"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if workers > max(cores, 1):
        what = f"is {workers}, but there are {cores} cores"
        why = "The processes take turns, and on the CPU they slow the step."
        findings.add(WARNING, key, what, why=why, fix=pasted(key, cores))
    if not (workers and SHARED.is_dir()):
        return
    height, width = image_size
    batch = cfg.SOLVER.IMS_PER_BATCH // cfg.SOLVER.get("ACCUMULATE", 1)
    image = height * width * len(cfg.MODEL.PIXEL_MEAN)
    needed, free = workers * PREFETCHED * batch * image, shutil.disk_usage(SHARED).free
    if needed > free:
        what = f"is {workers}: they share {needed / GB:.2f} GB of images through {SHARED}, which"
        what += f" has {free / GB:.2f} GB free"
        why = "They end with 'bus error'."
        advice = "In Docker --shm-size=8g gives more."
        findings.add(WARNING, key, what, advice, why=why, fix=pasted(key, 0))


def check_disk(cfg: CfgNode, model: nn.Module, findings: Findings) -> None:
    """Space for the checkpoints below ``OUTPUT_DIR``, all of which Detectron2 keeps."""
    folder = Path(cfg.OUTPUT_DIR).expanduser().absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return
    period, last = max(1, cfg.SOLVER.CHECKPOINT_PERIOD), cfg.SOLVER.MAX_ITER
    files = last // period + 1
    each, free = checkpoint_bytes(cfg, model), shutil.disk_usage(folder).free
    needed = files * each
    if needed > free:
        what = f"{files} checkpoints take {needed / GB:.1f} GB, {folder} has {free / GB:.1f}"
        why = "Training ends with an error when the disk is full."
        fits = max(1, int(free / each))
        fix = pasted("SOLVER.CHECKPOINT_PERIOD", last // fits + 1)
        findings.add(WARNING, "OUTPUT_DIR", f"{what} GB free", why=why, fix=fix)
