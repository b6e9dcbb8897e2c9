"""Where a role's settings are in a config, and which keys each component has there."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from detectron2.config import CfgNode

from retina_plugin.registry.names import unknown_name

NAME = "NAME"


def find_node(cfg: CfgNode, path: str) -> CfgNode | None:
    """The config node at a dotted ``path``, or None where the config has no node there."""
    for part in path.split("."):
        cfg = cfg.get(part)
        if not isinstance(cfg, dict):  # CfgNode, or what Python code put in its place
            return None
    return cfg


@dataclass(frozen=True)
class ComponentSettings:
    """What a component registered with.

    Attributes:
        node: name of its config node below the role's.
        defaults: its keys with their default values.
        parts: which of the keys lists the names of other components of the role that it is made
            of, and whose settings therefore have an effect as well.
        choices: the valid values of those of its keys that are names.
    """

    node: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    parts: str | None = None
    choices: Mapping[str, Collection[str]] = field(default_factory=dict)


class Schema:
    """The config keys of one role: the key that selects a component, and the components' settings.

    Args:
        node: dotted path of the role's config node, which has one node for each component.
        selector: dotted path of the key that names the component; ``<node>.NAME`` if not given.
        default: name of the component that is selected where the config names none.
    """

    def __init__(
        self, node: str, *, selector: str | None = None, default: str | None = None
    ) -> None:
        self.node = node
        self.selector = selector or f"{node}.{NAME}"
        self.default = default
        self.components: dict[str, ComponentSettings] = {}

    @property
    def has_name_key(self) -> bool:
        """Whether the role's node itself has the key that selects the component."""
        return self.selector == f"{self.node}.{NAME}"

    @property
    def valid_keys(self) -> list[str]:
        """The keys of the role's node."""
        nodes = [component.node for component in self.components.values()]
        return [*nodes, *([NAME] if self.has_name_key else [])]

    def path(self, name: str) -> str:
        """Dotted path of the config node of the component called ``name``."""
        return f"{self.node}.{self.components[name].node}"

    def config_defaults(self) -> CfgNode:
        """The role's config node as ``add_retina_config`` adds it."""
        node = CfgNode(
            {
                component.node: CfgNode(copy.deepcopy(dict(component.defaults)))
                for component in self.components.values()
                if component.defaults
            }
        )
        if self.has_name_key and self.default is not None:
            node[NAME] = self.default
        return node

    def selected(self, cfg: CfgNode) -> str | None:
        """The name, or alias, of the component that ``cfg`` selects."""
        parent, _, key = self.selector.rpartition(".")
        return (find_node(cfg, parent) or {}).get(key, self.default)

    def settings(self, cfg: CfgNode, name: str) -> dict[str, Any]:
        """The settings of the component called ``name``: ``cfg``'s, else their defaults.

        Raises:
            UnknownNameError: ``cfg`` has a key there that the component does not know.
        """
        settings = copy.deepcopy(dict(self.components[name].defaults))
        path = self.path(name)
        for key, value in (find_node(cfg, path) or {}).items():
            if key not in settings:
                raise unknown_name(path, key, settings)
            settings[key] = value
        return settings

    def changed(self, cfg: CfgNode, name: str) -> dict[str, Any]:
        """The settings of ``name`` that differ from their defaults, by dotted key."""
        path, defaults = self.path(name), self.components[name].defaults
        return {
            f"{path}.{key}": value
            for key, value in (find_node(cfg, path) or {}).items()
            if key in defaults and value != defaults[key]
        }
