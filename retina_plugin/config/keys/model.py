"""Keys of the model that belong to no component."""

from __future__ import annotations

from retina_plugin.config.keys.key import Key

KEYS = {
    "MODEL.RETINANET.LOSS.CLS": Key(1.0, "Factor of the classification loss."),
    "MODEL.RETINANET.LOSS.BOX_REG": Key(1.0, "Factor of the box loss."),
    "MODEL.RETINANET.LOSS.BOXES_BY": Key(
        "none",
        "Weight of each positive anchor's box loss: `none` (1), its `quality`, its best class "
        "`score`, or the `centreness` of the anchor in its object.",
        choices=("none", "quality", "score", "centreness"),
    ),
    "MODEL.RETINANET.LOSS.COUNT": Key(
        "positives",
        "What the normalizer counts: the `positives`, or the sum of their `quality`.",
        choices=("positives", "quality"),
    ),
    "MODEL.CHANNELS_LAST": Key(
        False,
        "Whether activations and weights have the channels-last memory format, faster on most "
        "CPUs and on GPUs with tensor cores.",
    ),
    "MODEL.FOLD_FROZEN_NORMS": Key(
        False,
        "Whether a convolution and the frozen batch norm after it are computed as one convolution "
        "in training.",
    ),
    "MODEL.WEIGHTS_ALLOW_PARTIAL": Key(
        False,
        "Whether training may start from a file that has weights of less than 90 % of the "
        "backbone.",
    ),
    "MODEL.WINOGRAD": Key(
        False, "Whether 3x3 convolutions on the CPU are computed with fewer multiplications."
    ),
    "MODEL.BACKBONE.GRADIENT_CHECKPOINTING": Key(
        False,
        "Whether the backbone's activations are computed a second time in the backward pass "
        "instead of being kept: less memory, more time.",
    ),
}
