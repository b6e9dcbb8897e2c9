"""The plugin's roles: who registers, with which defaults, and which config key selects one.

A *role* (assigner, classification loss, ...) is a registry of interchangeable components. A
component registers with its own default settings, so adding one never edits ``config/``::

    @BOX_LOSSES.register(defaults={"BETA": 0.5})
    class MyBoxLoss(nn.Module):
        def __init__(self, *, beta: float) -> None: ...

The settings are in the config at ``<role's node>.<component's name>`` and reach the constructor as
lower-case keywords. A component that also needs Detectron2's own keys defines
``from_config(cfg, ...)``, which returns the further keywords.

==================== ==============================================================
``names``            errors for unknown names, and what may have been meant
``schema``           the config keys of a role and its components
``building``         a component and its settings -> an object
``role``             ``Role``: components by name, aliases, Detectron2's registries
``roles``            ``HEADS``, ``ASSIGNERS``, ...; ``add_role`` for an extension's own
``foreign_keys``     keys that may be misspelt or somebody else's: a warning
``checks``           all checks of a config
``discovery``        importing the modules of a package
==================== ==============================================================
"""

from retina_plugin.registry.checks import (
    check_components,
    check_retinanet_keys,
    require_built,
    unused_settings,
)
from retina_plugin.registry.discovery import import_submodules
from retina_plugin.registry.foreign_keys import declare_key, warn_of_unread_keys
from retina_plugin.registry.names import (
    UnknownNameError,
    near_misses,
    require_registered,
    unknown_name,
)
from retina_plugin.registry.role import Role
from retina_plugin.registry.roles import (
    ANCHOR_GENERATORS,
    ASSIGNERS,
    BACKBONES,
    BOX_CODERS,
    BOX_LOSSES,
    CLS_LOSSES,
    DETECTORS,
    FRONT_ENDS,
    HEADS,
    NECKS,
    NORMALIZERS,
    POST_PROCESSORS,
    ROLES,
    add_role,
)
from retina_plugin.registry.schema import NAME, ComponentSettings, Schema, find_node

__all__ = [
    "ANCHOR_GENERATORS",
    "ASSIGNERS",
    "BACKBONES",
    "BOX_CODERS",
    "BOX_LOSSES",
    "CLS_LOSSES",
    "DETECTORS",
    "FRONT_ENDS",
    "HEADS",
    "NAME",
    "NECKS",
    "NORMALIZERS",
    "POST_PROCESSORS",
    "ROLES",
    "ComponentSettings",
    "Role",
    "Schema",
    "UnknownNameError",
    "add_role",
    "check_components",
    "check_retinanet_keys",
    "declare_key",
    "find_node",
    "import_submodules",
    "near_misses",
    "require_built",
    "require_registered",
    "unknown_name",
    "unused_settings",
    "warn_of_unread_keys",
]
