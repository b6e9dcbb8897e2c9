"""The plugin's roles: who registers, with which defaults, and which config key selects one.

A *role* (assigner, classification loss, ...) is a registry of interchangeable components. A
component registers with its own default settings, so adding one never edits ``config.py``::

    @BOX_LOSSES.register(defaults={"BETA": 0.5})
    class MyBoxLoss(nn.Module):
        def __init__(self, *, beta: float) -> None: ...

The settings live in the config at ``<role's node>.<component's name>`` and reach the constructor
as lower-case keywords. A component that also needs stock keys defines ``from_config(cfg, ...)``
and returns the further keywords.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import logging
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from detectron2.config import CfgNode
from detectron2.config.defaults import _C
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY, BACKBONE_REGISTRY, META_ARCH_REGISTRY
from fvcore.common.registry import Registry
from torch import nn

NAME = "NAME"

logger = logging.getLogger(__name__)


class UnknownNameError(KeyError):
    """A config names a component or a key that does not exist; the message lists the valid ones."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print the repr, newlines escaped


def unknown_name(what: str, name: str, valid: Iterable[str]) -> UnknownNameError:
    """The error for an unknown ``name``: the nearest valid ones first, then all of them."""
    name, valid = str(name), sorted(valid)
    near = difflib.get_close_matches(name, valid, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return UnknownNameError(f"{what}: '{name}' is unknown.{hint} Valid: {', '.join(valid)}.")


def require_registered(registry: Registry, name: str, key: str) -> None:
    """Raise an error that lists what ``registry`` holds unless it holds ``name`` (from ``key``)."""
    if name not in registry:
        raise unknown_name(key, name, (known for known, _ in registry))


class Role(Registry):
    """The registry of one role, and the place of that role in the config.

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
        self.node = node
        self.default = default
        self.selector = selector or f"{node}.{NAME}"
        self._mirror = mirror
        self._defaults: dict[str, dict[str, Any]] = {}
        self._aliases: dict[str, str] = {}
        self._nodes: dict[str, str] = {}

    def register(
        self,
        obj: Any = None,
        *,
        defaults: dict[str, Any] | None = None,
        alias: str | None = None,
        node: str | None = None,
    ) -> Any:
        """Register a component.

        Args:
            obj: the component, where this is not used as a decorator with arguments.
            defaults: its settings and their default values.
            alias: a second name that configs may select it by.
            node: name of its settings' node, if not the component's own name.
        """

        def decorate(component: Callable[..., Any]) -> Callable[..., Any]:
            name = component.__name__
            self._do_register(name, component)
            self._defaults[name] = dict(defaults or {})
            self._nodes[name] = node or name
            if alias is not None:
                self._aliases[alias] = name
            if self._mirror is not None:
                self._mirror.register(component)
            return component

        return decorate if obj is None else decorate(obj)

    def get(self, name: str) -> Any:
        """The component called ``name`` (or that alias).

        Raises:
            UnknownNameError: lists the registered names.
        """
        name = self._aliases.get(name, name)
        if name not in self:
            raise unknown_name(self.selector, name, [*dict(self), *self._aliases])
        return super().get(name)

    def names(self) -> list[str]:
        """The names and aliases that a config may select a component by."""
        return [*dict(self), *self._aliases]

    def components(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Name, config node and default settings of each component."""
        for name, defaults in self._defaults.items():
            yield name, self._nodes[name], defaults

    def config_defaults(self) -> CfgNode:
        """The role's config node as ``add_retina_config`` mounts it."""
        node = CfgNode(
            {
                self._nodes[name]: CfgNode(values)
                for name, values in self._defaults.items()
                if values
            }
        )
        if self._selected_by_name and self.default is not None:
            node[NAME] = self.default
        return node

    @property
    def _selected_by_name(self) -> bool:
        return self.selector == f"{self.node}.{NAME}"

    def settings(self, cfg: CfgNode, name: str) -> dict[str, Any]:
        """Component ``name``'s settings: its defaults, overlaid by what ``cfg`` holds.

        Raises:
            UnknownNameError: ``cfg`` has a key there that the component does not know.
        """
        settings = copy.deepcopy(self._defaults[name])
        path = f"{self.node}.{self._nodes[name]}"
        for key, value in (find_node(cfg, path) or {}).items():
            if key not in settings:
                raise unknown_name(path, key, settings)
            settings[key] = value
        return settings

    def selected(self, cfg: CfgNode) -> str:
        """The name of the component that ``cfg`` selects."""
        parent, _, key = self.selector.rpartition(".")
        name = (find_node(cfg, parent) or {}).get(key, self.default)
        return self._aliases.get(name, name)

    def unused_settings(self, cfg: CfgNode) -> list[str]:
        """Keys that ``cfg`` changes of components that it does not select.

        A component made of others has an attribute ``parts``: which of its keys names them.
        """
        used = [self.selected(cfg)]
        key = getattr(dict(self).get(used[0]), "parts", None)
        if key is not None:
            used += [self._aliases.get(x, x) for x in self.settings(cfg, used[0])[key]]
        return [
            f"{self.node}.{node}.{key}"
            for name, node in self._nodes.items()
            if name not in used
            for key, value in (find_node(cfg, f"{self.node}.{node}") or {}).items()
            if value != self._defaults[name].get(key)
        ]

    def require_built(self, cfg: CfgNode, module: nn.Module, instead: str) -> None:
        """Refuse changed settings of this role where ``module`` was built without looking at them.

        Args:
            cfg: what it was built by.
            module: is or contains the component that ``cfg`` selects, or has another in its place.
            instead: who built it, and what to do.

        Raises:
            ValueError: names what ``cfg`` sets in vain.
        """
        name = self.selected(cfg)
        component = self.get(name)
        if not isinstance(component, type):
            return  # a function leaves no trace
        if any(isinstance(part, component) for part in module.modules()):
            return
        vain = [] if name == self.default else [f"{self.selector} {name}"]
        for key, value in self.settings(cfg, name).items():
            if value != self._defaults[name][key]:
                vain.append(f"{self.node}.{self._nodes[name]}.{key} {value}")
        if vain:
            raise ValueError(f"{' and '.join(vain)} would have no effect: {instead}")

    def build(self, cfg: CfgNode, **context: Any) -> Any:
        """Build the component that ``cfg`` selects; ``context`` goes to its ``from_config``."""
        self.check_node(cfg)
        return self.build_named(cfg, self.selected(cfg), **context)

    def build_named(self, cfg: CfgNode, name: str, **context: Any) -> Any:
        """Build a component by its name or alias, with its settings in ``cfg``."""
        component = self.get(name)
        name = self._aliases.get(name, name)
        arguments = {key.lower(): value for key, value in self.settings(cfg, name).items()}
        if hasattr(component, "from_config"):
            arguments.update(component.from_config(cfg, **context))
        return component(**arguments)

    def check_node(self, cfg: CfgNode) -> None:
        """Refuse unknown keys of the role's node, which Python code can set in any config.

        In a node of Detectron2's own, only nodes are checked: its keys are not the plugin's.

        Raises:
            UnknownNameError: lists the valid ones.
        """
        valid = [*self._nodes.values(), *([NAME] if self._selected_by_name else [])]
        for key, value in (find_node(cfg, self.node) or {}).items():
            checked = isinstance(value, CfgNode) or self._mirror is None
            if checked and key not in valid:
                raise unknown_name(self.node, key, valid)


def find_node(cfg: CfgNode, path: str) -> CfgNode | None:
    """The config node at a dotted ``path``, or None where the config has none."""
    for part in path.split("."):
        if part not in cfg:
            return None
        cfg = cfg[part]
    return cfg


def import_submodules(package: str, paths: Iterable[str]) -> None:
    """Import every module of a package, so that its components register themselves."""
    for module in pkgutil.iter_modules(paths):
        importlib.import_module(f"{package}.{module.name}")


def check_retinanet_keys(cfg: CfgNode) -> None:
    """Refuse a key of MODEL.RETINANET that is nearly a valid one.

    yacs refuses unknown keys in files and overrides, but not
    ``cfg.MODEL.RETINANET.NUM_CLASES = 3`` in Python, which would be ignored. Keys unlike any valid
    one pass: they may belong to somebody else's extension.

    Raises:
        UnknownNameError: names the key and the valid ones.
    """
    prefix = "MODEL.RETINANET."
    own = [r.node.removeprefix(prefix) for r in ROLES if r.node.startswith(prefix)]
    valid = [*_C.MODEL.RETINANET, *own, "LOSS"]
    for key in cfg.MODEL.RETINANET:
        if key not in valid and difflib.get_close_matches(key, valid, n=1, cutoff=0.8):
            raise unknown_name("MODEL.RETINANET", key, valid)


HEADS = Role("head", node="MODEL.RETINANET.HEAD", default="FocalRetinaNetHead")
CLS_LOSSES = Role("classification loss", node="MODEL.RETINANET.CLS_LOSS", default="FocalLoss")
BOX_LOSSES = Role(
    "box loss",
    node="MODEL.RETINANET.BOX_LOSS",
    default="SmoothL1Loss",
    selector="MODEL.RETINANET.BBOX_REG_LOSS_TYPE",
)
ASSIGNERS = Role("assigner", node="MODEL.RETINANET.ASSIGNER", default="MaxIoUAssigner")
BOX_CODERS = Role("box coder", node="MODEL.RETINANET.BOX_CODER", default="DeltaCoder")
NORMALIZERS = Role("normalizer", node="MODEL.RETINANET.NORMALIZER", default="EMANormalizer")
POST_PROCESSORS = Role(
    "post-processor", node="MODEL.RETINANET.POST_PROCESSOR", default="NMSPostProcessor"
)
ANCHOR_GENERATORS = Role(
    "anchor generator", node="MODEL.ANCHOR_GENERATOR", mirror=ANCHOR_GENERATOR_REGISTRY
)
BACKBONES = Role("backbone", node="MODEL.BACKBONE", mirror=BACKBONE_REGISTRY)
NECKS = Role("neck", node="MODEL.NECK", default="FPNNeck")
FRONT_ENDS = Role("front-end", node="MODEL.FRONT_END", default="none")
DETECTORS = Role(
    "detector",
    node="MODEL.DETECTOR",
    selector="MODEL.META_ARCHITECTURE",
    mirror=META_ARCH_REGISTRY,
)

ROLES: tuple[Role, ...] = (
    HEADS,
    CLS_LOSSES,
    BOX_LOSSES,
    ASSIGNERS,
    BOX_CODERS,
    NORMALIZERS,
    POST_PROCESSORS,
    ANCHOR_GENERATORS,
    BACKBONES,
    NECKS,
    FRONT_ENDS,
    DETECTORS,
)


def check_components(cfg: CfgNode) -> None:
    """Refuse components and keys of a config that nobody knows, and tell of keys without effect.

    Raises:
        UnknownNameError: names the key and the valid ones.
    """
    check_retinanet_keys(cfg)
    NECKS.check_node(cfg)
    for role, registry in (
        (ANCHOR_GENERATORS, ANCHOR_GENERATOR_REGISTRY),
        (BACKBONES, BACKBONE_REGISTRY),
    ):
        role.check_node(cfg)
        require_registered(registry, role.selected(cfg), role.selector)
    for role in ROLES:
        for key in role.unused_settings(cfg):
            logger.warning(f"{key} has no effect: {role.selector} is {role.selected(cfg)}")
