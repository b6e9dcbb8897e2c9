"""Detectron2's checkpointer, for foreign backbone weights and files that nobody vouches for."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from torch import nn

from retina_plugin.engine.layer_decay import BOTTOM_UP
from retina_plugin.engine.weight_average import WeightAverage

WEIGHT_AVERAGE = "weight_average"  # its place in a checkpoint
COUNTED = ("normalizer.", "cls_loss.")  # what they know of the training data is in buffers
KEY = "MODEL.WEIGHTS (in a LazyConfig train.init_checkpoint)"
# All that a pickle of numpy arrays names, by numpy 1 and 2 and every protocol. Not numpy as a
# whole: it ships functions that run a string.
ARRAY_PARTS = {
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
}


class RetinaCheckpointer(DetectionCheckpointer):
    """``DetectionCheckpointer`` which runs no code from a file and maps a backbone's own layout.

    * A file none of whose names is the model's goes to the backbone's ``map_pretrained``, if it has
      one. If no parameter of the model is in the file, that is an error.
    * Files of tensors are read with ``weights_only``; ``.pkl`` files are refused if they name
      anything but numpy arrays and plain containers.
    * With an ``average``, ``model`` in every checkpoint is the averaged weights, those that were
      evaluated, and ``weight_average`` holds the trained ones, with which a training resumes.

    Args:
        model: whose weights are saved and loaded.
        save_dir: where checkpoints are.
        all_weights: a file without some of the model's parameters, or no file, is an error too.
        average: of the model's weights.
        kwargs: of ``DetectionCheckpointer``.

    Raises:
        ValueError: on ``load``, as said above, or the file is missing or cannot be read.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        all_weights: bool = False,
        average: WeightAverage | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, save_dir, **kwargs)
        self.all_weights = all_weights
        self.average = average
        self._path = ""
        self._resuming = True

    def save(self, name: str, **kwargs: Any) -> None:
        """As Detectron2's; with an average see the class."""
        if self.average is None:
            super().save(name, **kwargs)
            return
        with self.average.applied():
            super().save(name, **{WEIGHT_AVERAGE: self.average.state_dict()}, **kwargs)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """As Detectron2's; ``path`` is a file, a URL or empty."""
        self._path, file = path, path.partition("?")[0]
        if not path and self.all_weights:
            raise ValueError(f"{KEY} is empty: give the weights of a trained detector")
        if path and "://" not in path and not Path(file).is_file():
            raise ValueError(f"{KEY}: there is no file {file}")
        try:
            rest = super().load(path, checkpointables)
        except URLError as error:
            raise ValueError(
                f"{KEY}: {path} cannot be downloaded ({error.reason}). Download it elsewhere and "
                "give the file's path, or train without pretrained weights: ''"
            ) from error
        finally:
            self._parsed_url_during_load = None  # else an error here would block the next load
        saved = rest.pop(WEIGHT_AVERAGE, None)
        goes_on = checkpointables is None and self.checkpointables and saved is not None
        if goes_on and self.average is not None:
            self.average.load_state_dict(saved)
        elif goes_on:  # the average is no longer asked for: the optimizer knows the trained weights
            self.model.load_state_dict(saved["trained"], strict=False)
        elif self.average is not None:
            self.average.restart()
        return rest

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """As Detectron2's; a checkpoint to resume from must have all weights."""
        before = self.all_weights
        self._resuming = resume and self.has_checkpoint()
        self.all_weights = before or self._resuming
        try:
            return super().resume_or_load(path, resume=resume)
        finally:
            self.all_weights = before

    def _load_file(self, filename: str) -> dict[str, Any]:
        # What Detectron2 itself reads with the plain unpickler is read restricted first
        with _readable(filename):
            if filename.endswith(".pkl"):
                with PathManager.open(filename, "rb") as file:
                    _ArraysOnly(file, encoding="latin1").load()
            elif filename.endswith(".pyth"):
                self._torch_load(filename)
        return super()._load_file(filename)

    def _torch_load(self, f: str) -> dict[str, Any]:
        with _readable(f), PathManager.open(f, "rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        given = list(checkpoint["model"])
        if not checkpoint.get("matching_heuristics", False):
            checkpoint["model"] = self._to_own_names(checkpoint["model"])
        if not self._resuming:  # a new training on old weights counts its own data, from the start
            for name, _ in self.model.named_buffers():
                if name.startswith(COUNTED):
                    checkpoint["model"].pop(name, None)
        incompatible = super()._load_model(checkpoint)
        parameters = [name for name, _ in self.model.named_parameters()]
        missing = [name for name in parameters if name in set(incompatible.missing_keys)]
        if len(missing) == len(parameters):
            raise ValueError(
                f"weights {self._path}: none of the file's {len(given)} tensors fits one of the "
                f"model's parameters. The file has {_first(given)}; the model "
                f"{_first(parameters)}. For weights of the backbone alone in torchvision's names "
                "add '?matching_heuristics=True' to the path"
            )
        if missing and self.all_weights:
            raise ValueError(
                f"weights {self._path}: of the model's {len(parameters)} parameters "
                f"{len(missing)} are missing in the file, or have another shape there: "
                f"{_first(missing)}. To evaluate or resume, give the weights of a whole detector "
                "and the config that it was trained with"
            )
        return incompatible

    def _to_own_names(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        names = {name.removeprefix("module.") for name in given}  # those of a wrapped model
        bottom_up = getattr(getattr(self.model, "backbone", None), "bottom_up", None)
        if names & self.model.state_dict().keys() or not hasattr(bottom_up, "map_pretrained"):
            return given
        mapped = bottom_up.map_pretrained(given)
        self.logger.info(f"Mapped {len(mapped)} pretrained tensors onto {BOTTOM_UP[:-1]}")
        return {BOTTOM_UP + name: tensor for name, tensor in mapped.items()}


def _first(names: list[str]) -> str:
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])


@contextmanager
def _readable(filename: str) -> Iterator[None]:
    """Say in one sentence what is wrong with a file of weights."""
    try:
        yield
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower():
            raise ValueError(f"{filename}: cannot be read as weights: {error}") from error
        raise ValueError(
            f"{filename}: holds more than tensors, which could run code when loaded, so only "
            "tensors are read. If you trust it, load it yourself and save its state_dict. What "
            f"it asks for: {_asked_for(error)}"
        ) from error
    except (EOFError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{filename}: cannot be read as weights: {reason}") from error


def _asked_for(error: pickle.UnpicklingError) -> str:
    """The line that names the forbidden global, of torch's long message or of ours."""
    return next(line.strip() for line in str(error).splitlines() if "global" in line.lower())


class _ArraysOnly(pickle.Unpickler):
    """Reads a pickle of numpy arrays and refuses all else before it can run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"the global {module}.{name}, which is no array")
        return super().find_class(module, name)
