"""RetinaNet for Detectron2, every part replaceable. Importing the package registers everything."""

from retina_plugin.detectron2_check import require_detectron2

require_detectron2()

from retina_plugin import (  # noqa: E402
    anchors,
    assigners,
    backbones,
    coders,
    heads,
    losses,
    normalizers,
)
from retina_plugin.config import add_retina_config  # noqa: E402
from retina_plugin.contracts import Predictions  # noqa: E402
from retina_plugin.detector import FocalRetinaNet  # noqa: E402
from retina_plugin.inference import NMSPostProcessor, SoftNMSPostProcessor  # noqa: E402
from retina_plugin.network.optimize_for_inference import optimize_for_inference  # noqa: E402
from retina_plugin.version import __version__  # noqa: E402

__all__ = [
    "FocalRetinaNet",
    "NMSPostProcessor",
    "Predictions",
    "SoftNMSPostProcessor",
    "__version__",
    "add_retina_config",
    "anchors",
    "assigners",
    "backbones",
    "coders",
    "heads",
    "losses",
    "normalizers",
    "optimize_for_inference",
]
