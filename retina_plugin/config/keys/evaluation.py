"""Keys of evaluation and of the run: ``TEST``, ``DOCTOR``, ``REPORT``, ``LOGGERS``."""

from __future__ import annotations

from retina_plugin.config.keys.key import Key

_METRIC = (
    "Metric {use}, by its name in metrics.json such as `bbox/AP`; `auto` is the box AP of the "
    "first test set{off}."
)
_MODE = "Whether the largest or the smallest value is the best; `auto` is `min` for losses."
MODES = ("auto", "max", "min")

KEYS = {
    "TEST.OPTIMIZE": Key(
        True, "Whether a copy of the model that is optimized for inference is evaluated."
    ),
    "TEST.COMPILE": Key(False, "Whether the evaluated copy is compiled by torch.compile."),
    "TEST.COCO_EVAL": Key(
        "auto",
        "Package that computes COCO's AP; `auto` is hotcoco.",
        choices=("auto", "hotcoco", "pycocotools"),
    ),
    "TEST.GROUP_FIELDS": Key(
        [],
        "Keys of the test json's images or annotations by which the report breaks down the AP.",
    ),
    "TEST.AUG.VOTE_THRESH": Key(
        0.65,
        "IoU above which a suppressed box of another view has a part in the position of the box "
        "that is kept; 1 is off.",
    ),
    "TEST.AUG.BATCH": Key(2, "Number of views that go through the network together."),
    "TEST.AUG.PERIODIC": Key(
        False, "Whether test-time augmentation is part of every evaluation, not just of the last."
    ),
    "TEST.VALIDATION_LOSS": Key(
        True, "Whether each evaluation computes the losses of the test sets."
    ),
    "TEST.BEST.METRIC": Key(
        "auto", _METRIC.format(use="by which model_best.pth is chosen", off="; empty for no file")
    ),
    "TEST.BEST.MODE": Key("auto", _MODE, choices=MODES),
    "TEST.EARLY_STOPPING.METRIC": Key(
        "auto", _METRIC.format(use="that must improve for the training to go on", off="")
    ),
    "TEST.EARLY_STOPPING.MODE": Key("auto", _MODE, choices=MODES),
    "TEST.EARLY_STOPPING.PATIENCE": Key(
        0, "Number of evaluations without improvement after which the training stops; 0 for never."
    ),
    "TEST.EARLY_STOPPING.MIN_DELTA": Key(
        0.0, "Difference to the best value above which a value is an improvement."
    ),
    "LOGGERS": Key(
        [], "Services that log the training beside TensorBoard.", choices=("wandb", "mlflow")
    ),
    "FLUSH_DENORMAL": Key(
        True, "Whether denormal numbers, which are slow on CPUs, are taken as 0."
    ),
    "DOCTOR.ENABLED": Key(
        True,
        "Whether config, data and machine are checked before training; False checks the data only.",
    ),
    "REPORT": Key(True, "Whether OUTPUT_DIR/report.html is written at the end of a training."),
}
