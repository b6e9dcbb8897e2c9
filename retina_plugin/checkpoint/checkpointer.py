"""Detectron2's checkpointer, for foreign backbone weights and files that nobody vouches for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import (
    align_and_update_state_dicts,
    convert_c2_detectron_names,
)
from torch import Tensor, nn

from retina_plugin.checkpoint.atomic_files import AtomicFiles
from retina_plugin.checkpoint.convert import layout_of
from retina_plugin.checkpoint.mapping import ENOUGH, inflate_where_needed, map_onto
from retina_plugin.checkpoint.reading import PARALLEL, read_arrays, read_file, tensors_in
from retina_plugin.checkpoint.report import WeightReport, counted, first
from retina_plugin.modeling.pretrained_part import pretrained_part_of_detector
from retina_plugin.modeling.weight_average import WeightAverage

WEIGHT_AVERAGE = "weight_average"  # its place in a checkpoint
COUNTED = ("normalizer.", "cls_loss.")  # what they know of the training data is in buffers
KEY = "MODEL.WEIGHTS (in a LazyConfig train.init_checkpoint)"
PARTIAL_KEY = "MODEL.WEIGHTS_ALLOW_PARTIAL (in a LazyConfig train.weights_allow_partial)"


class RetinaCheckpointer(DetectionCheckpointer):
    """``DetectionCheckpointer`` which runs no code from a file and knows others' backbones.

    * A file none of whose names is the model's is mapped onto the backbone: torchvision's, timm's,
      MMPretrain's and MMDetection's names, see ``checkpoint/matching.py``. Files that Detectron2
      matches by its own heuristics (``.pkl`` of its model zoo, of pycls and Caffe2) still are.
      Either way the log says what matched, and less than 90 % of the backbone's tensors is an
      error. If no parameter of the model is in the file, that always is.
    * Where a file's first convolution has three channels and the backbone's another number, it is
      inflated, see ``checkpoint/inflation.py``.
    * Files of tensors are read with ``weights_only``; ``.pkl`` files are refused if they name
      anything but numpy arrays and plain containers. ``.safetensors`` are read as well.
    * Files appear whole or not at all: killed while it saves, a training keeps the one before.
    * With an ``average``, ``model`` in every checkpoint is the averaged weights, those that were
      evaluated, and ``weight_average`` holds the trained ones, with which a training resumes.

    Args:
        model: whose weights are saved and loaded.
        save_dir: where checkpoints are.
        all_weights: a file without some of the model's parameters, or no file, is an error too.
        allow_partial: a file with less than 90 % of the backbone's tensors is not.
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
        allow_partial: bool = False,
        average: WeightAverage | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, save_dir, **kwargs)
        self.path_manager = AtomicFiles(self.path_manager)
        self.all_weights = all_weights
        self.allow_partial = allow_partial
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

    def save_weights(self, name: str, **more: Any) -> None:
        """``name.pth`` with the model that is evaluated, the average where there is one.

        It is no checkpoint to resume from, and ``last_checkpoint`` does not name it.

        Args:
            name: of the file, without its ending.
            more: entries beside ``model``.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        path = str(Path(self.save_dir) / f"{name}.pth")
        with nullcontext() if self.average is None else self.average.applied():
            content = {"model": self.model.state_dict(), **more}
            with self.path_manager.open(path, "wb") as file:
                torch.save(content, file)

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
        if filename.endswith(".pkl"):
            read_arrays(filename)
        elif filename.endswith(".pyth"):
            self._torch_load(filename)
        loaded = super()._load_file(filename)
        if not _is_state_dict(loaded["model"]):  # wrapped as others do it
            loaded["model"] = tensors_in(loaded["model"], filename)
        return loaded

    def _torch_load(self, f: str) -> dict[str, Any]:
        return read_file(f)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        given = list(checkpoint["model"])
        mapped = self._map(checkpoint)
        if not self._resuming:  # a new training on old weights counts its own data, from the start
            for name, _ in self.model.named_buffers():
                if name.startswith(COUNTED):
                    checkpoint["model"].pop(name, None)
        loaded = set(checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        parameters = [name for name, _ in self.model.named_parameters()]
        missing = [name for name in parameters if name in set(incompatible.missing_keys)]
        if len(missing) == len(parameters):
            raise ValueError(
                f"weights {self._path}: none of the file's {len(given)} tensors fits one of the "
                f"model's parameters. The file has {first(given)}; the model {first(parameters)}"
            )
        if mapped is not None:
            self._report(*mapped, loaded, incompatible)
        if missing and self.all_weights:
            raise ValueError(
                f"weights {self._path}: of the model's {len(parameters)} parameters "
                f"{len(missing)} are missing in the file, or have another shape there: "
                f"{first(missing)}. To evaluate or resume, give the weights of a whole detector "
                "and the config that it was trained with; 'retina convert' makes them of "
                "torchvision's and MMDetection's"
            )
        return incompatible

    def _map(self, checkpoint: dict[str, Any]) -> tuple[str, list[str], list[str]] | None:
        """Rename ``checkpoint["model"]`` for the model, in place.

        Returns:
            How its names were read, those that nothing has a place for, and notes; None of a
            detector's file, whose names are the model's.
        """
        given, own = checkpoint["model"], self.model.state_dict()
        prefix, network = pretrained_part_of_detector(self.model)
        if checkpoint.pop("matching_heuristics", False):
            by_caffe2 = checkpoint.get("__author__") == "Caffe2"
            aligned, notes = _align(own, given, by_caffe2=by_caffe2)
            checkpoint["model"] = {name: x for name, x in aligned.items() if name in own}
            unexpected = [name for name in counted(aligned) if name not in own]
            return "Detectron2's heuristics", unexpected, notes
        if network is None or {name.removeprefix(PARALLEL) for name in given} & own.keys():
            return None
        mapped = map_onto(network, {k.removeprefix(PARALLEL): v for k, v in given.items()})
        checkpoint["model"] = {prefix + name: x for name, x in mapped.tensors.items()}
        detector = layout_of(given)
        hint = f"the rest of {detector}'s detector needs 'retina convert'"
        return mapped.layout, mapped.unexpected, [*mapped.notes, *([hint] if detector else [])]

    def _report(
        self,
        layout: str,
        unexpected: list[str],
        notes: list[str],
        loaded: set[str],
        incompatible: Any,
    ) -> None:
        """Log what of the file reached the backbone; too little is an error."""
        prefix, network = pretrained_part_of_detector(self.model)
        own = counted(network.state_dict()) if network is not None else []
        not_found = set(incompatible.missing_keys)
        report = WeightReport(
            source=self._path,
            target=prefix[:-1],
            layout=layout,
            total=len(own),
            missing=[n for n in own if _is_missing(prefix + n, loaded, not_found)],
            wrong_shape=[x for x in incompatible.incorrect_shapes if x[0].startswith(prefix)],
            unexpected=unexpected,
            notes=notes,
        )
        self.logger.info(str(report))
        if report.share < ENOUGH and not self.allow_partial:
            raise ValueError(
                f"weights {report}. That is less than {ENOUGH:.0%}: are they of this network? To "
                f"use them anyway, set {PARTIAL_KEY} to True"
            )


def _is_state_dict(content: Any) -> bool:
    return isinstance(content, Mapping) and all(
        isinstance(value, Tensor | np.ndarray) for value in content.values()
    )


def _is_missing(name: str, loaded: set[str], not_found: set[str]) -> bool:
    """Files of frozen norms may lack their statistics, which Detectron2 then takes as 0 and 1."""
    if name in loaded or name in not_found:
        return name not in loaded
    return f"{name.rpartition('.')[0]}.weight" not in loaded


def _align(
    own: Mapping[str, Tensor], given: Mapping[str, Any], *, by_caffe2: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """Detectron2's heuristics: a file's name is the end of the model's.

    Returns:
        Tensors by the model's names, those that fit none by their own, and notes.
    """
    if by_caffe2:
        given, _ = convert_c2_detectron_names(given)
    given = {name: torch.as_tensor(value) for name, value in given.items()}
    notes = []
    for name in list(given):
        same = {n: given[name] for n in own if n == name or n.endswith(f".{name}")}
        inflated, new = inflate_where_needed(own, same)
        if new:
            given[name], notes = next(iter(inflated.values())), notes + new
    return align_and_update_state_dicts(own, given, c2_conversion=False), notes
