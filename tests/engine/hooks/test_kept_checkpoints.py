"""The last few checkpoints stay."""

from pathlib import Path

import pytest
from support.tiny_training import tiny_training_cfg, train_scripted


@pytest.fixture
def cfg(tmp_path):
    """A checkpoint after every step, two of which stay."""
    keys = ("SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.KEEP_CHECKPOINTS", 2)
    return tiny_training_cfg(tmp_path, *keys)


def checkpoints(cfg):
    return sorted(path.name for path in Path(cfg.OUTPUT_DIR).glob("*.pth"))


def test_after_a_resume_the_older_ones_go_too(cfg):
    train_scripted(cfg, [], stop_before=4)
    assert checkpoints(cfg) == ["model_0000002.pth", "model_0000003.pth"]
    train_scripted(cfg, [1.0], resume=True)
    assert checkpoints(cfg) == [
        *("model_0000004.pth", "model_0000005.pth"),
        *("model_best.pth", "model_final.pth"),
    ]


def test_fewer_than_before(cfg):
    train_scripted(cfg, [], stop_before=4)
    cfg.SOLVER.KEEP_CHECKPOINTS = 1
    train_scripted(cfg, [1.0], resume=True)
    assert checkpoints(cfg)[0] == "model_0000005.pth"


def test_all_by_default(cfg):
    cfg.SOLVER.KEEP_CHECKPOINTS = 0
    train_scripted(cfg, [1.0])
    assert len(checkpoints(cfg)) == 6 + 2


def test_a_negative_number(cfg):
    cfg.SOLVER.KEEP_CHECKPOINTS = -1
    with pytest.raises(ValueError, match=r"SOLVER.KEEP_CHECKPOINTS.*got -1"):
        train_scripted(cfg, [])
