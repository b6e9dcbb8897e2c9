"""The model of a config on no device: which keys its construction reads, and what it says."""

from __future__ import annotations

import logging
from collections.abc import ItemsView, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from retina_plugin.data.class_counts import fill_class_counts
from retina_plugin.runs.load_run import run_of


class _Reads(set[str]):
    """Dotted keys; one set for a config and its copies."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Reads:
        return self


class _ReadNode(CfgNode):
    """A node of a config that notes which of its keys are read."""

    @classmethod
    def copy_of(cls, cfg: CfgNode, reads: _Reads, path: str = "") -> _ReadNode:
        """``cfg`` as a node whose keys are noted in ``reads``."""
        node = cls()
        node.__dict__.update(_reads=reads, _path=path)
        for key, value in cfg.items():
            below = f"{path}{key}."
            value = cls.copy_of(value, reads, below) if isinstance(value, CfgNode) else value
            dict.__setitem__(node, key, value)
        return node

    def __getitem__(self, key: str) -> Any:
        self.__dict__.get("_reads", set()).add(f"{self.__dict__.get('_path', '')}{key}")
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """A dict's own would pass ``__getitem__`` by."""
        try:
            return self[key]
        except KeyError:
            return default

    def items(self) -> ItemsView[str, Any]:
        """Whoever goes through all keys reads them all."""
        path = self.__dict__.get("_path", "")
        self.__dict__.get("_reads", set()).update(f"{path}{key}" for key in self)
        return super().items()


@dataclass
class MetaModel:
    """What building a model gave.

    Attributes:
        model: its parameters have shapes and no memory; None if it cannot be built.
        reads: the dotted keys that were read.
        warnings: what the plugin's parts logged.
        error: why there is no model.
    """

    model: nn.Module | None = None
    reads: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    error: str = ""

    def has_read(self, key: str) -> bool:
        """Whether a leaf was read, by itself or with all of its node, as by ``dict(node)``."""
        node = key.rpartition(".")[0]
        whole = node in self.reads and not any(x.startswith(f"{node}.") for x in self.reads)
        return key in self.reads or whole


def build_meta_model(cfg: CfgNode) -> MetaModel:
    """Build the model that ``cfg`` describes without memory or weights; never fails.

    Parts that look at numbers while they are built cannot be built so: then all of it is built on
    the CPU first, which takes as long as it does before a training.
    """
    found = MetaModel(reads=_Reads())
    cfg = cfg.clone()
    cfg.defrost()
    fill_class_counts(cfg, count=False)
    if run_of(cfg).model_from_settings:
        cfg = _ReadNode.copy_of(cfg, found.reads)
    cfg.MODEL.DEVICE = "meta"
    cfg.MODEL["WINOGRAD"] = False  # what it computes with needs numbers
    with _warnings(found.warnings):
        try:
            found.model = _build(cfg)
        except Exception as error:  # whatever any component refuses
            found.error = f"{type(error).__name__}: {error}"
    return found


def _build(cfg: CfgNode) -> nn.Module:
    try:
        with torch.device("meta"):
            return run_of(cfg).build_model()
    except RuntimeError:  # "Tensor.item() cannot be called on meta tensors"
        return run_of(cfg).build_model()


@contextmanager
def _warnings(texts: list[str]) -> Iterator[None]:
    """Collect what the plugin logs instead of printing it: the real construction says it again."""
    root = logging.getLogger("retina_plugin")
    handlers, propagate = root.handlers[:], root.propagate
    collector = logging.Handler(logging.WARNING)
    collector.emit = lambda record: texts.append(record.getMessage())
    root.handlers[:], root.propagate = [collector], False
    try:
        yield
    finally:
        root.handlers[:], root.propagate = handlers, propagate
