"""Files of weights read as tensors and plain containers, whoever wrote them; no code runs."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.utils.file_io import PathManager
from torch import Tensor

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
# What frameworks call a state dict within a file; of several the first: mmengine's ``state_dict``
# is the averaged one already, ``ema_state_dict`` then holds the other.
WRAPPERS = ("model", "state_dict", "state_dict_ema", "model_ema", "ema_state_dict", "model_state")
PARALLEL = "module."  # what DataParallel puts before every name


def read_file(path: str) -> dict[str, Any]:
    """The content of ``.pkl`` (arrays), ``.safetensors`` or any file of ``torch.save``.

    Raises:
        ValueError: it cannot be read, or holds more than tensors, arrays and plain containers.
        ImportError: safetensors is not installed.
    """
    if path.endswith(".pkl"):
        return read_arrays(path)
    with readable(path):
        if path.endswith(".safetensors"):
            return _read_safetensors(path)
        with PathManager.open(path, "rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)


def read_arrays(path: str) -> dict[str, Any]:
    """The content of a pickle of numpy arrays and plain containers.

    Raises:
        ValueError: it cannot be read, or names anything else.
    """
    with readable(path), PathManager.open(path, "rb") as file:
        return _ArraysOnly(file, encoding="latin1").load()


def tensors_in(content: Any, path: str) -> dict[str, Tensor]:
    """The state dict within a file's content, however it is wrapped, without ``module.``.

    Raises:
        ValueError: there is no tensor with a name.
    """
    while wrapper := wrapper_of(content):
        content = content[wrapper]
    named = content.items() if isinstance(content, Mapping) else ()
    tensors = {
        name.removeprefix(PARALLEL): torch.as_tensor(value)
        for name, value in named
        if isinstance(name, str) and isinstance(value, Tensor | np.ndarray)
    }
    if not tensors:
        raise ValueError(f"{path}: there are no named tensors in it, so it holds no weights")
    return tensors


def wrapper_of(content: Any) -> str | None:
    """The key below which the content of a file has its state dict; None where it is one."""
    if not isinstance(content, Mapping):
        return None
    return next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)


def _read_safetensors(path: str) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(
            f"{path}: reading it needs safetensors: pip install safetensors"
        ) from error
    try:
        return load_file(path)
    except Exception as error:  # its SafetensorError is no RuntimeError
        raise RuntimeError(str(error)) from error


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Say in one sentence what is wrong with a file of weights."""
    try:
        yield
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower():
            raise ValueError(f"{path}: cannot be read as weights: {_reason(error)}") from error
        raise ValueError(
            f"{path}: holds more than tensors, which could run code when loaded, so only "
            "tensors are read. If you trust it, load it yourself and save its state_dict. What "
            f"it asks for: {_asked_for(error)}"
        ) from error
    except (EOFError, RuntimeError) as error:
        raise ValueError(f"{path}: cannot be read as weights: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The line that names the error, of torch's long advice or of a single line."""
    lines = str(error).splitlines() or [type(error).__name__]
    return next((line.strip() for line in lines if "error:" in line), lines[0])


def _asked_for(error: pickle.UnpicklingError) -> str:
    """The line that names the forbidden global, of torch's long message or of ours."""
    return next(line.strip() for line in str(error).splitlines() if "global" in line.lower())


class _ArraysOnly(pickle.Unpickler):
    """Reads a pickle of numpy arrays and refuses all else before it can run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"the global {module}.{name}, which is no array")
        return super().find_class(module, name)
