"""The estimate of a step's memory, against what a step takes; the machine's limits."""

import logging
import shutil
from types import SimpleNamespace

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from support.tiny_models import mobilenet_cfg, resnet18_cfg, tiny_focal_cfg

from retina_plugin import add_retina_config
from retina_plugin.data.findings import Findings
from retina_plugin.runs.solver import build_optimizer
from retina_plugin.workbench.benchmark.memory import peak_memory
from retina_plugin.workbench.doctor import machine, memory
from retina_plugin.workbench.doctor.machine import check_disk, check_loader, check_machine
from retina_plugin.workbench.doctor.memory import StepMemory, check_memory, step_memory
from retina_plugin.workbench.doctor.meta_model import build_meta_model

SIZE = (96, 128)


def resnet18():
    cfg = add_retina_config(resnet18_cfg())
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    return cfg


def measured(cfg, images):
    """Peak of two steps: the second has the optimizer's state beside everything else."""

    def run():
        model = build_model(cfg).train()
        optimizer = build_optimizer(cfg, model)
        for _ in range(2):
            with EventStorage():
                sum(model([example() for _ in range(images)]).values()).backward()
            optimizer.step()
            optimizer.zero_grad()

    return peak_memory(run, torch.device("cpu"))


def example():
    boxes = Boxes(torch.tensor([[10.0, 10, 60, 80], [30, 40, 90, 90]]))
    instances = Instances(SIZE, gt_boxes=boxes, gt_classes=torch.tensor([1, 2]))
    return {"image": torch.zeros(3, *SIZE), "instances": instances}


@pytest.mark.parametrize(
    ("make", "optimizer"), [(mobilenet_cfg, "AdamW"), (resnet18, "SGD"), (tiny_focal_cfg, "SGD")]
)
def test_estimate_is_right_within_a_factor(make, optimizer):
    cfg = make()
    cfg.SOLVER.OPTIMIZER = optimizer
    cfg.MODEL.WINOGRAD = False
    estimate = step_memory(cfg, build_meta_model(cfg).model, SIZE)
    assert 0.7 < estimate.of(3) / measured(cfg, 3) < 1.4


def check(cfg, free, monkeypatch, image_size=(512, 512)):
    monkeypatch.setattr(memory, "free_memory", lambda device: free)
    findings = Findings()
    check_memory(cfg, build_meta_model(cfg).model, image_size, 1, findings)
    (finding,) = findings
    return finding


def test_too_little_memory(monkeypatch):
    cfg = tiny_focal_cfg()
    cfg.SOLVER.IMS_PER_BATCH = 16
    assert check(cfg, 64e9, monkeypatch).level == logging.INFO
    need = step_memory(cfg, build_meta_model(cfg).model, (512, 512))
    free = (memory.LIBRARIES["cpu"] + need.of(5)) / memory.RESERVE
    finding = check(cfg, free, monkeypatch)
    assert finding.level == logging.WARNING and "a step of 16 images" in finding.what
    assert finding.fix == "SOLVER.ACCUMULATE=4"
    cfg.SOLVER.ACCUMULATE = 4
    assert check(cfg, free, monkeypatch).level == logging.INFO
    assert check(cfg, None, monkeypatch).level == logging.INFO
    assert "GRADIENT_CHECKPOINTING" in check(cfg, 0.1e9, monkeypatch).fix


def test_a_model_that_needs_numbers(monkeypatch):
    cfg = tiny_focal_cfg()
    model = build_meta_model(cfg).model
    model.backbone.forward = lambda image: float(image.sum())
    findings = Findings()
    check_memory(cfg, model, (64, 64), 1, findings)
    assert "could not be estimated" in str(*findings)


def test_free_memory_of_this_machine():
    free = memory.free_memory("cpu")
    assert free is None or 1e7 < free < 1e14
    assert StepMemory(10, 3).of(4) == 22


# ---- the machine


def usage(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


def test_disk(monkeypatch, tmp_path):
    cfg = tiny_focal_cfg()
    cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER = str(tmp_path / "not" / "yet"), 1000
    cfg.SOLVER.CHECKPOINT_PERIOD = 100
    model = build_meta_model(cfg).model
    each = memory.checkpoint_bytes(cfg, model)
    usage(monkeypatch, 5 * each)
    findings = Findings()
    check_disk(cfg, model, findings)
    (finding,) = findings
    assert "11 checkpoints" in finding.what and finding.fix == "SOLVER.CHECKPOINT_PERIOD=201"
    cfg.SOLVER.CHECKPOINT_PERIOD = 201
    findings = Findings()
    check_disk(cfg, model, findings)
    assert list(findings) == []


def test_a_checkpoint_is_as_large_as_said(tmp_path):
    cfg = tiny_focal_cfg()
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    sum(p.sum() for p in model.parameters() if p.requires_grad).backward()
    optimizer.step()
    path = tmp_path / "x.pth"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    assert path.stat().st_size == pytest.approx(memory.checkpoint_bytes(cfg, model), rel=0.1)


def test_loader(monkeypatch):
    cfg = tiny_focal_cfg()
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1, 2})
    cfg.DATALOADER.NUM_WORKERS = 4
    usage(monkeypatch, 1e12)
    findings = Findings()
    check_loader(cfg, (800, 1333), findings)
    (finding,) = findings
    assert "there are 3 cores" in finding.what and finding.fix == "DATALOADER.NUM_WORKERS=3"
    cfg.DATALOADER.NUM_WORKERS = 3
    findings = Findings()
    usage(monkeypatch, 64e6)  # Docker's default
    check_loader(cfg, (800, 1333), findings)
    (finding,) = findings
    assert "/dev/shm" in finding.what and finding.fix == "DATALOADER.NUM_WORKERS=0"


def test_a_gpu_that_is_not_used(monkeypatch, tmp_path):
    cfg = tiny_focal_cfg()
    monkeypatch.setattr(machine, "DRIVER", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    findings = Findings()
    check_machine(cfg, findings)
    assert not [x for x in findings if x.level > logging.INFO]
    (tmp_path / "version").write_text("NVRM")
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    check_machine(cfg, findings)
    assert ["torch" in x.what for x in findings if x.level > logging.INFO] == [True]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Card")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    findings = Findings()
    check_machine(cfg, findings)
    assert [x.fix for x in findings if x.level > logging.INFO] == ["MODEL.DEVICE=cuda"]
