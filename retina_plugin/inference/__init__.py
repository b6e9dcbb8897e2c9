"""Head maps -> decode -> top-k -> suppression -> ``Instances``; one post-processor a file."""

from retina_plugin.inference.nms_post_processor import NMSPostProcessor
from retina_plugin.inference.soft_nms_post_processor import SoftNMSPostProcessor
from retina_plugin.registry import import_submodules

import_submodules(__name__, __path__)

__all__ = ["NMSPostProcessor", "SoftNMSPostProcessor"]
