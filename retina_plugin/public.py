"""The public names of the package. Importing this module registers every component."""

import warnings

from retina_plugin.detectron2_check import require_detectron2

require_detectron2()
with warnings.catch_warnings():
    # of what the libraries' own imports use: nothing that a user of ours could mend
    warnings.simplefilter("ignore")
    import detectron2.modeling  # noqa: F401

from retina_plugin.config.defaults import add_retina_config  # noqa: E402
from retina_plugin.config.get_config import get_config  # noqa: E402
from retina_plugin.config.names import list_configs  # noqa: E402
from retina_plugin.inference.augmented_detector import AugmentedDetector  # noqa: E402
from retina_plugin.inference.optimize_for_inference import optimize_for_inference  # noqa: E402
from retina_plugin.inference.prediction.predictor import Predictor  # noqa: E402
from retina_plugin.inference.tiled_detector import TiledDetector  # noqa: E402
from retina_plugin.modeling import (  # noqa: E402
    anchors,
    assigners,
    backbones,
    coders,
    front_ends,
    heads,
    losses,
    necks,
    normalizers,
)
from retina_plugin.modeling.contracts import NetworkInput, Predictions  # noqa: E402
from retina_plugin.modeling.detector import FocalRetinaNet  # noqa: E402
from retina_plugin.modeling.functional import (  # noqa: E402
    detect_from_tensors,
    loss_from_predictions,
    loss_from_tensors,
    predict_from_tensors,
)
from retina_plugin.modeling.post_processors import NMSPostProcessor, SoftNMSPostProcessor  # noqa: E402

__all__ = [
    "AugmentedDetector",
    "FocalRetinaNet",
    "NMSPostProcessor",
    "NetworkInput",
    "Predictions",
    "Predictor",
    "SoftNMSPostProcessor",
    "TiledDetector",
    "add_retina_config",
    "anchors",
    "assigners",
    "backbones",
    "coders",
    "detect_from_tensors",
    "front_ends",
    "get_config",
    "heads",
    "list_configs",
    "loss_from_predictions",
    "loss_from_tensors",
    "losses",
    "necks",
    "normalizers",
    "optimize_for_inference",
    "predict_from_tensors",
]
