"""The plugin's roles, and ``add_role`` for those of extensions."""

from __future__ import annotations

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY, BACKBONE_REGISTRY, META_ARCH_REGISTRY

from retina_plugin.registry.foreign_keys import declare_key
from retina_plugin.registry.role import Role

# Every role, in the order in which their keys are added to a config. Read it when it is needed and
# keep no copy: extensions add to it.
ROLES: list[Role] = []


def add_role(role: Role) -> Role:
    """Make ``role`` one of :data:`ROLES`.

    From then on ``add_retina_config`` adds the keys of its components, config files and overrides
    may set them, and a detector that is built from a config checks them. The role's components are
    built by ``role.build(cfg)``, from configs made earlier too, then with their defaults.

    Returns:
        ``role``.

    Raises:
        ValueError: there is a role of that name or at that config node, or Detectron2 has a single
            value in its place.
    """
    for other in ROLES:
        if role.name == other.name:
            raise ValueError(f"there is a role called '{role.name}' already: choose another name")
        if role.node == other.node:
            raise ValueError(
                f"{role.node} is the config node of the role '{other.name}': choose another node "
                f"for '{role.name}'"
            )
    stock = get_cfg()
    parts = role.node.split(".")
    for end, part in enumerate(parts, 1):
        stock = stock.get(part, CfgNode())
        if not isinstance(stock, CfgNode):
            raise ValueError(
                f"{'.'.join(parts[:end])} is a key of Detectron2's with a single value: choose "
                f"another config node for the role '{role.name}'"
            )
    declare_key(role.node)
    ROLES.append(role)
    return role


HEADS = add_role(Role("head", node="MODEL.RETINANET.HEAD", default="FocalRetinaNetHead"))
CLS_LOSSES = add_role(
    Role("classification loss", node="MODEL.RETINANET.CLS_LOSS", default="FocalLoss")
)
BOX_LOSSES = add_role(
    Role(
        "box loss",
        node="MODEL.RETINANET.BOX_LOSS",
        default="SmoothL1Loss",
        selector="MODEL.RETINANET.BBOX_REG_LOSS_TYPE",
    )
)
ASSIGNERS = add_role(Role("assigner", node="MODEL.RETINANET.ASSIGNER", default="MaxIoUAssigner"))
BOX_CODERS = add_role(Role("box coder", node="MODEL.RETINANET.BOX_CODER", default="DeltaCoder"))
NORMALIZERS = add_role(
    Role("normalizer", node="MODEL.RETINANET.NORMALIZER", default="EMANormalizer")
)
POST_PROCESSORS = add_role(
    Role("post-processor", node="MODEL.RETINANET.POST_PROCESSOR", default="NMSPostProcessor")
)
ANCHOR_GENERATORS = add_role(
    Role("anchor generator", node="MODEL.ANCHOR_GENERATOR", mirror=ANCHOR_GENERATOR_REGISTRY)
)
BACKBONES = add_role(Role("backbone", node="MODEL.BACKBONE", mirror=BACKBONE_REGISTRY))
NECKS = add_role(Role("neck", node="MODEL.NECK", default="FPNNeck"))
FRONT_ENDS = add_role(Role("front-end", node="MODEL.FRONT_END", default="none"))
DETECTORS = add_role(
    Role(
        "detector",
        node="MODEL.DETECTOR",
        selector="MODEL.META_ARCHITECTURE",
        mirror=META_ARCH_REGISTRY,
    )
)
