"""The schedule against the batch, the data and itself; what a fix says ends the finding."""

import logging

import pytest

from retina_plugin.config.config_file import load_config
from retina_plugin.data.findings import Findings
from retina_plugin.workbench.doctor.schedule import check_schedule

GOOD = {
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.MAX_ITER": 900,
    "SOLVER.STEPS": (600, 800),
    "SOLVER.WARMUP_ITERS": 100,
    "TEST.EVAL_PERIOD": 90,
    "DATASETS.TEST": ("a",),
}


def found(*overrides, images=1000, level=logging.WARNING, **keys):
    values = {**GOOD, **{key.replace("__", "."): value for key, value in keys.items()}}
    cfg = load_config("", [*(f"{k}={v}" for k, v in values.items()), *overrides])
    findings = Findings()
    check_schedule(cfg, images, findings)
    return [x for x in findings if x.level >= level]


def test_a_good_one():
    assert found() == []
    (length,) = found(level=logging.INFO)
    assert "14.4 epochs of the 1000 images" in length.what


@pytest.mark.parametrize(
    ("keys", "where", "fix"),
    [
        ({"SOLVER__BASE_LR": 0.01, "SOLVER__IMS_PER_BATCH": 2}, "SOLVER.BASE_LR", "0.00125"),
        ({"SOLVER__BASE_LR": 1e-5}, "SOLVER.BASE_LR", "0.01"),
        ({"SOLVER__OPTIMIZER": "AdamW", "SOLVER__BASE_LR": 0.01}, "SOLVER.BASE_LR", "0.0002"),
        ({"SOLVER__STEPS": (600, 9000)}, "SOLVER.STEPS", "[600,800]"),
        ({"SOLVER__WARMUP_ITERS": 1000}, "SOLVER.WARMUP_ITERS", "45"),
        ({"SOLVER__MAX_ITER": 200_000, "SOLVER__STEPS": ()}, "SOLVER.MAX_ITER", "6250"),
    ],
)
def test_what_is_odd_and_its_fix(keys, where, fix):
    (finding,) = found(**keys)
    assert finding.where == where and finding.why
    assert finding.fix.strip("'") == f"{where}={fix}"
    assert found(finding.fix.strip("'"), **keys) == []


def test_less_than_an_epoch():
    (finding,) = found(images=20_000)
    assert finding.fix == "SOLVER.MAX_ITER=15000"
    assert found("SOLVER.MAX_ITER=15000", images=20_000) == []


def test_rates_in_use_are_not_odd():
    adamw = {"SOLVER__OPTIMIZER": "AdamW"}
    assert found(SOLVER__BASE_LR=0.00125, SOLVER__IMS_PER_BATCH=2) == []
    assert found(SOLVER__BASE_LR=0.002, SOLVER__IMS_PER_BATCH=8, **adamw) == []
    assert found(SOLVER__BASE_LR=0.0001, **adamw) == []
    # a schedule without steps has none that could be too late
    cosine = "SOLVER.LR_SCHEDULER_NAME=WarmupCosineLR"
    assert found(cosine, SOLVER__STEPS=(9000,)) == []


def test_never_evaluated():
    (finding,) = found(DATASETS__TEST=())
    assert finding.where == "DATASETS.TEST" and "JSON" in finding.advice
    notes = found(level=logging.INFO, TEST__EVAL_PERIOD=0)
    assert "TEST.EVAL_PERIOD=90" in [x.fix for x in notes]
