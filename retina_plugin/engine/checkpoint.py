"""Detectron2's checkpointer, for foreign backbone weights and files that nobody vouches for."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager

from retina_plugin.engine.solver import BOTTOM_UP

_HARMLESS_MODULES = ("numpy", "_codecs", "collections")


class RetinaCheckpointer(DetectionCheckpointer):
    """``DetectionCheckpointer`` which runs no code from a file and maps a backbone's own layout.

    * A file none of whose names is the model's goes to the backbone's ``map_pretrained``, if it has
      one; if then still nothing matches, that is an error.
    * ``.pth`` files are read with ``weights_only``, ``.pkl`` files are refused if they name
      anything but numpy arrays and plain containers.

    Raises:
        ValueError: on ``load``, as said above.
    """

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pkl"):
            with PathManager.open(filename, "rb") as file:
                _ArraysOnly(file, encoding="latin1").load()
        return super()._load_file(filename)

    def _torch_load(self, f: str) -> dict[str, Any]:
        with PathManager.open(f, "rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        if not checkpoint.get("matching_heuristics", False):
            checkpoint["model"] = self._to_own_names(checkpoint["model"])
        return super()._load_model(checkpoint)

    def _to_own_names(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        own = self.model.state_dict().keys()
        if given.keys() & own:
            return given
        bottom_up = getattr(getattr(self.model, "backbone", None), "bottom_up", None)
        if not hasattr(bottom_up, "map_pretrained"):
            raise ValueError(
                f"MODEL.WEIGHTS: none of the file's {len(given)} tensors is one of the model's. "
                f"The file has {', '.join(list(given)[:3])}, ...; the model {', '.join(own)[:100]}"
                ", ... For weights of the backbone alone in torchvision's names add "
                "'?matching_heuristics=True' to the path"
            )
        mapped = bottom_up.map_pretrained(given)
        self.logger.info(f"Mapped {len(mapped)} pretrained tensors onto {BOTTOM_UP[:-1]}")
        return {BOTTOM_UP + name: tensor for name, tensor in mapped.items()}


class _ArraysOnly(pickle.Unpickler):
    """Reads a pickle of numpy arrays and refuses all else before it can run."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] not in _HARMLESS_MODULES or "." in name:
            raise ValueError(
                f"the weights name {module}.{name}: a file of weights needs only arrays, and this "
                "one could run code when loaded. Convert it to tensors yourself if you trust it"
            )
        return super().find_class(module, name)
