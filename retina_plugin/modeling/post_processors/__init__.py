"""Head maps -> decode -> top-k -> suppression -> ``Instances``; one post-processor a file."""

from retina_plugin.modeling.post_processors.box_voting_post_processor import BoxVotingPostProcessor
from retina_plugin.modeling.post_processors.matrix_nms_post_processor import MatrixNMSPostProcessor
from retina_plugin.modeling.post_processors.nms_post_processor import NMSPostProcessor
from retina_plugin.modeling.post_processors.soft_nms_post_processor import SoftNMSPostProcessor
from retina_plugin.registry import import_submodules

import_submodules(__name__, __path__)

__all__ = [
    "BoxVotingPostProcessor",
    "MatrixNMSPostProcessor",
    "NMSPostProcessor",
    "SoftNMSPostProcessor",
]
