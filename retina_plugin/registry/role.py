"""``Role``: the registry of interchangeable components, one of which a config selects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from detectron2.config import CfgNode
from fvcore.common.registry import Registry

from retina_plugin.registry.building import instantiate
from retina_plugin.registry.foreign_keys import warn_of_foreign_keys
from retina_plugin.registry.names import unknown_name
from retina_plugin.registry.schema import ComponentSettings, Schema


class Role(Registry):
    """The components of one role by name: a Detectron2 registry whose entries have settings.

    Example:
        >>> from detectron2.config import CfgNode
        >>> shapes = Role("shape", node="MODEL.SHAPE", default="Square")
        >>> @shapes.register(defaults={"SIDE": 2.0})
        ... class Square:
        ...     def __init__(self, *, side):
        ...         self.side = side
        >>> shape = {"NAME": "Square", "Square": {"SIDE": 3.0}}
        >>> shapes.build(CfgNode({"MODEL": {"SHAPE": shape}})).side
        3.0

    Args:
        name: what the role is called in errors.
        node: dotted path of the role's config node; holds ``NAME`` and one node a component.
        default: the component that is built when the config names none.
        selector: dotted path of the key that names the component, if not ``<node>.NAME``.
        mirror: a registry of Detectron2 that every component is registered into as well.
    """

    def __init__(
        self,
        name: str,
        *,
        node: str,
        default: str | None = None,
        selector: str | None = None,
        mirror: Registry | None = None,
    ) -> None:
        super().__init__(name)
        self.name = name
        self.schema = Schema(node, selector=selector, default=default)
        self.mirror = mirror
        self._aliases: dict[str, str] = {}

    @property
    def node(self) -> str:
        """Dotted path of the role's config node."""
        return self.schema.node

    @property
    def selector(self) -> str:
        """Dotted path of the key that names the component."""
        return self.schema.selector

    @property
    def default(self) -> str | None:
        """Name of the component that is built when the config names none."""
        return self.schema.default

    def register(
        self,
        obj: Any = None,
        *,
        defaults: dict[str, Any] | None = None,
        alias: str | None = None,
        node: str | None = None,
        parts: str | None = None,
        choices: Mapping[str, Collection[str]] | None = None,
    ) -> Any:
        """Register a component.

        Args:
            obj: the component, where this is not used as a decorator with arguments.
            defaults: its settings and their default values.
            alias: a second name that configs may select it by.
            node: name of its settings' node, if not the component's own name.
            parts: the key of its settings that lists the components which it is made of.
            choices: the valid values of those of its settings that are names, for `retina config`.
        """

        def decorate(component: Callable[..., Any]) -> Callable[..., Any]:
            name = component.__name__
            self._do_register(name, component)
            settings = ComponentSettings(node or name, dict(defaults or {}), parts, choices or {})
            self.schema.components[name] = settings
            if alias is not None:
                self._aliases[alias] = name
            if self.mirror is not None:
                self.mirror.register(component)
            return component

        return decorate if obj is None else decorate(obj)

    def resolve(self, name: str | None) -> str | None:
        """The name that an alias stands for; any other name as it is."""
        return self._aliases.get(name, name)

    def get(self, name: str) -> Any:
        """The component called ``name`` (or that alias).

        Raises:
            UnknownNameError: lists the registered names.
        """
        name = self.resolve(name)
        if name not in self:
            raise unknown_name(self.selector, name, self.names())
        return super().get(name)

    def names(self) -> list[str]:
        """The names and aliases that a config may select a component by."""
        return [*dict(self), *self._aliases]

    def config_defaults(self) -> CfgNode:
        """The role's config node as ``add_retina_config`` adds it."""
        return self.schema.config_defaults()

    def selected(self, cfg: CfgNode) -> str | None:
        """The name of the component that ``cfg`` selects."""
        return self.resolve(self.schema.selected(cfg))

    def settings(self, cfg: CfgNode, name: str) -> dict[str, Any]:
        """Component ``name``'s settings: its defaults, overlaid by what ``cfg`` holds.

        Raises:
            UnknownNameError: ``cfg`` has a key there that the component does not know.
        """
        return self.schema.settings(cfg, name)

    def build(self, cfg: CfgNode, **context: Any) -> Any:
        """Build the component that ``cfg`` selects; ``context`` goes to its ``from_config``."""
        warn_of_foreign_keys(self.schema, cfg)
        return self.build_named(cfg, self.selected(cfg), **context)

    def build_named(self, cfg: CfgNode, name: str, **context: Any) -> Any:
        """Build a component by its name or alias, with its settings in ``cfg``."""
        component = self.get(name)
        settings = self.settings(cfg, self.resolve(name))
        return instantiate(component, settings, cfg, **context)
