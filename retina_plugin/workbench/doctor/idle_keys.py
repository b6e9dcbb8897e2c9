"""Keys that were changed and that nothing reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from logging import INFO, WARNING
from typing import Any

from detectron2.config import CfgNode, get_cfg

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.data.findings import Findings
from retina_plugin.registry import ROLES, Role, unused_settings
from retina_plugin.runs.load_run import run_of
from retina_plugin.workbench.doctor.meta_model import MetaModel
from retina_plugin.workbench.doctor.paste import pasted

# Read elsewhere than where the model is built: by the loader, the checkpointer, the set-up
READ_ELSEWHERE = (
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "MODEL.WEIGHTS_ALLOW_PARTIAL",
    "MODEL.CHANNELS_LAST",
    "MODEL.WINOGRAD",
    "MODEL.FOLD_FROZEN_NORMS",
    "MODEL.META_ARCHITECTURE",
    "MODEL.RETINANET.NUM_CLASSES",
)
# What is set for an R-CNN, or another architecture, and where a RetinaNet has it
TWINS = {
    "MODEL.ROI_HEADS.NUM_CLASSES": "MODEL.RETINANET.NUM_CLASSES",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "MODEL.RETINANET.SCORE_THRESH_TEST",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "MODEL.RETINANET.NMS_THRESH_TEST",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "MODEL.RETINANET.BBOX_REG_LOSS_TYPE",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": "MODEL.RETINANET.BBOX_REG_WEIGHTS",
    "MODEL.RPN.IOU_THRESHOLDS": "MODEL.RETINANET.IOU_THRESHOLDS",
    "MODEL.RPN.IOU_LABELS": "MODEL.RETINANET.IOU_LABELS",
    "MODEL.RPN.NMS_THRESH": "MODEL.RETINANET.NMS_THRESH_TEST",
    "MODEL.RPN.IN_FEATURES": "MODEL.RETINANET.IN_FEATURES",
    "MODEL.RPN.PRE_NMS_TOPK_TEST": "MODEL.RETINANET.TOPK_CANDIDATES_TEST",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "TEST.DETECTIONS_PER_IMAGE",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": "MODEL.RETINANET.NUM_CLASSES",
}
WHY = "It is silently ignored."


def check_idle_keys(
    cfg: CfgNode,
    built: MetaModel,
    findings: Findings,
    *,
    own: Collection[str] | None = None,
    settings: bool = True,
) -> None:
    """Name the keys of ``MODEL`` that differ from their defaults and that no part read.

    A LazyConfig's model is not built from keys, and those that decide nothing cannot be set.

    Args:
        cfg: the config.
        built: of it.
        findings: gets a warning for each key.
        own: the keys that the user wrote; of others, which come with a ``_BASE_``, it is mere
            information. None takes all for the user's.
        settings: of components that are not chosen as well; where the model is built right
            afterwards, it says those itself.
    """

    def level(key: str) -> int:
        return WARNING if own is None or key in own else INFO

    if not run_of(cfg).model_from_settings:
        return
    if settings:
        for role in ROLES:
            for key in unused_settings(role, cfg):
                what = f"has no effect: {role.selector} is {role.selected(cfg)}"
                fix = _choosing(role, key)
                advice = "Or leave it out." if fix else "Leave it out."
                findings.add(level(key), key, what, advice, why=WHY, fix=fix)
    if built.model is None:  # nobody knows what it would have read
        return
    components = tuple(f"{role.node}.{name}." for role in ROLES for name in role.config_defaults())
    for key, value in changed(cfg):
        is_model = key.startswith("MODEL.") and not key.startswith(components)
        if not is_model or key in READ_ELSEWHERE or built.has_read(key):
            continue
        what = f"= {value} has no effect on {cfg.MODEL.META_ARCHITECTURE} as it is configured"
        twin = TWINS.get(key)
        fix = pasted(twin, value) if twin else ""
        advice = "" if twin else "Leave it out, or choose the component that reads it."
        findings.add(level(key), key, what, advice, why=WHY, fix=fix)


def changed(cfg: CfgNode) -> list[tuple[str, Any]]:
    """Dotted keys whose values differ from the defaults, with their values."""
    defaults = dict(_leaves(add_retina_config(get_cfg())))
    return [
        (key, value) for key, value in _leaves(cfg) if key in defaults and value != defaults[key]
    ]


def _leaves(node: CfgNode, path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _choosing(role: Role, key: str) -> str:
    """The override that makes the component of a setting the chosen one."""
    node = key.removeprefix(f"{role.node}.").partition(".")[0]
    return pasted(role.selector, node) if node in role else ""
