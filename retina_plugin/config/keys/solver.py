"""Keys of the optimization: ``SOLVER``."""

from __future__ import annotations

from retina_plugin.config.keys.key import Key

KEYS = {
    "SOLVER.OPTIMIZER": Key("SGD", "Optimizer.", choices=("SGD", "AdamW")),
    "SOLVER.BACKBONE_LR_FACTOR": Key(
        1.0, "Factor of the learning rate of the pretrained part of the network."
    ),
    "SOLVER.LAYER_DECAY": Key(
        1.0,
        "Factor by which the learning rate falls from each layer of the pretrained part to the "
        "layer before it; 1 is off.",
    ),
    "SOLVER.ACCUMULATE": Key(
        1, "Number of forward and backward passes whose gradients make one optimizer step."
    ),
    "SOLVER.WEIGHT_AVERAGE.DECAY": Key(
        0.0,
        "Decay of the exponential moving average of the weights, which is evaluated and saved; 0 "
        "is off.",
    ),
    "SOLVER.WEIGHT_AVERAGE.WARMUP": Key(
        10.0, "Steps w of the average's warm-up: in step t the decay is at most (1 + t) / (w + t)."
    ),
    "SOLVER.WEIGHT_AVERAGE.EVALUATE_BOTH": Key(
        False, "Whether the weights that are trained are evaluated as well as their average."
    ),
    "SOLVER.NON_FINITE.ACTION": Key(
        "stop",
        "What to do when a loss is infinite or NaN: `stop` the training, or `skip` the step.",
        choices=("stop", "skip"),
    ),
    "SOLVER.NON_FINITE.MAX_SKIPS": Key(
        10, "Number of skipped steps after which the training stops all the same."
    ),
    "SOLVER.NON_FINITE.WRITE": Key(
        3, "Largest number of replay files that are written for `retina replay`; 0 for none."
    ),
    "SOLVER.NON_FINITE.CHECK_GRADIENTS": Key(
        False, "Whether a gradient that is not finite counts as well as a loss."
    ),
    "SOLVER.AMP.PRECISION": Key(
        "auto",
        "Type of mixed precision; `auto` is float16 on CUDA, as in Detectron2, and bfloat16 on "
        "the CPU.",
        choices=("auto", "float16", "bfloat16"),
    ),
    "SOLVER.KEEP_CHECKPOINTS": Key(
        0, "Number of periodic checkpoints that are kept, the latest ones; 0 for all."
    ),
    "SOLVER.LOG_GRAD_NORM": Key(True, "Whether the norm of the gradients is logged."),
}
