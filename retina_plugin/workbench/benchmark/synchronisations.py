"""Count where a step makes the host wait for the device; the CPU can show it as well."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# what `torch.cuda.set_sync_debug_mode` warns of: the host needs a value or a size of the device
_WAITS = {
    *("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2"),
    *("aten::unique_dim", "aten::unique_consecutive", "aten::equal", "aten::allclose"),
    *("aten::bincount", "torchvision::nms"),
}
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
_COPIES = {"aten::_to_copy", "aten::copy_"}
_TO_HOST = (Tensor.tolist, Tensor.cpu)  # not numpy, which CUDA's tensors refuse
_FROM_LISTS = (torch.tensor, torch.as_tensor, Tensor.new_tensor)


class SynchronisationCounter:
    """A context that counts waits for the device, and copies to it, of all that runs within.

    On CUDA it looks at the devices of the tensors. On the CPU it plays a device: the tensors in
    ``host_data`` and what is computed of them alone are the host's until ``.to(device)``; a tensor
    made of a list is the host's where no device was asked for; all others are the device's.

    Args:
        device: the model's.
        host_data: the batch.

    Attributes:
        waits: ``(operator, place in the code) -> count``: the host stands still until the device
            has caught up.
        uploads: the same for blocking copies to the device.
    """

    def __init__(self, device: torch.device, host_data: Any = ()) -> None:
        self.waits: Counter[tuple[str, str]] = Counter()
        self.uploads: Counter[tuple[str, str]] = Counter()
        self.plays = device.type == "cpu"
        self.paused = False
        self._host: dict[int, torch.UntypedStorage] = {}  # alive: else addresses come again
        self._modes = (_Functions(self), _Operators(self))
        for tensor in _tensors_of(host_data):
            self.put_on_host(tensor)

    def put_on_host(self, tensor: Tensor) -> None:
        """From now on its storage counts as the host's."""
        storage = tensor.untyped_storage()
        self._host[storage._cdata] = storage

    def on_host(self, tensor: Tensor) -> bool:
        """Whether the host can read it without waiting."""
        if not self.plays:
            return tensor.device.type == "cpu"
        return tensor.untyped_storage()._cdata in self._host

    def count(self, counter: Counter[tuple[str, str]], what: str) -> None:
        """Add one of ``what``, at the line of code that asked for it."""
        if not self.paused:
            counter[what, _place()] += 1

    def __enter__(self) -> SynchronisationCounter:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, trace)


class _Operators(TorchDispatchMode):
    """Sees every operator, those of the backward pass and of C++ functions included."""

    def __init__(self, counter: SynchronisationCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        counter, kwargs = self.counter, kwargs or {}
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        from_host = bool(inputs) and all(counter.on_host(x) for x in inputs)
        result = func(*args, **kwargs)
        name = func._schema.name
        if not from_host and _waits(name, args, kwargs):
            counter.count(counter.waits, name)
        if counter.plays and from_host:
            for tensor in _tensors_of(result):
                counter.put_on_host(tensor)
        elif name in _COPIES and not kwargs.get("non_blocking", False):
            self._count_copy(name, args, result)
        return result

    def _count_copy(self, name: str, args: tuple, result: Tensor) -> None:
        """Between CUDA and the host, which both have no operator of their own."""
        source = args[0] if name == "aten::_to_copy" else args[1]
        if isinstance(source, Tensor) and source.device.type != result.device.type:
            to_host = result.device.type == "cpu"
            self.counter.count(self.counter.waits if to_host else self.counter.uploads, name)


def _waits(name: str, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether the operator must know values on the device before it can go on."""
    if name in _INDEXING:
        by_mask = any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
        return by_mask and not _fills(args[2:])
    if name == "aten::repeat_interleave":
        return kwargs.get("output_size") is None
    return name in _WAITS


def _fills(values: tuple) -> bool:
    """Whether ``index_put_`` is a ``masked_fill_``: a number of the host put at a mask.

    Source: ``canDispatchToMaskedFill`` of ATen's ``TensorAdvancedIndexing``. Some releases of
    PyTorch ask for ``masked_fill_`` right away.
    """
    return bool(values) and values[0].numel() == 1 and values[0].device.type == "cpu"


class _Functions(TorchFunctionMode):
    """Sees what the CPU answers without an operator: reads to the host and moves to the device."""

    def __init__(self, counter: SynchronisationCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        counter, kwargs = self.counter, kwargs or {}
        if func in _FROM_LISTS:
            return self._from_list(func, args, kwargs)
        if func in _TO_HOST and not counter.on_host(args[0]):
            counter.count(counter.waits, func.__name__)
            return self._uncounted(func if func is not Tensor.cpu else self._cpu, args, kwargs)
        if func is torch.nn.functional.one_hot and counter.plays:
            classes = args[1] if len(args) > 1 else kwargs.get("num_classes", -1)
            if classes >= 0:  # CUDA does not look at the values then
                return self._uncounted(func, args, kwargs)
        if func is Tensor.to and counter.plays and _names_device(args, kwargs):
            args = (self._device(args[0], kwargs.get("non_blocking", False)), *args[1:])
        return func(*args, **kwargs)

    def _uncounted(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        self.counter.paused = True
        try:
            return func(*args, **kwargs)
        finally:
            self.counter.paused = False

    def _cpu(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.counter.plays:
            return tensor.cpu(*args, **kwargs)
        tensor = tensor.clone()  # a storage of its own: the original stays where it was
        self.counter.put_on_host(tensor)
        return tensor

    def _device(self, tensor: Tensor, non_blocking: bool) -> Tensor:
        """A copy on the device that the CPU plays."""
        if not self.counter.on_host(tensor):
            return tensor
        if not non_blocking:
            self.counter.count(self.counter.uploads, "to")
        return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)

    def _from_list(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        result, counter = func(*args, **kwargs), self.counter
        if isinstance(args[0], Tensor) and func is torch.as_tensor:
            return result
        on_device = func is Tensor.new_tensor or kwargs.get("device") is not None
        if on_device if counter.plays else result.device.type != "cpu":
            counter.count(counter.uploads, func.__name__)
        elif counter.plays:
            counter.put_on_host(result)
        return result


def _names_device(args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether a call of ``Tensor.to`` speaks of a device."""
    named = isinstance(args[1], torch.device | str | Tensor) if len(args) > 1 else False
    return named or "device" in kwargs or "other" in kwargs


def _tensors_of(data: Any) -> Iterable[Tensor]:
    """The tensors in a batch: in lists, dicts, ``Instances`` and ``Boxes``."""
    if isinstance(data, Tensor):
        return [data]
    if isinstance(data, str | bytes):
        return []
    if isinstance(data, dict):
        data = data.values()
    elif hasattr(data, "get_fields"):
        data = data.get_fields().values()
    elif hasattr(data, "tensor"):
        return [data.tensor]
    elif not isinstance(data, list | tuple):
        return []
    return [tensor for inner in data for tensor in _tensors_of(inner)]


def _place() -> str:
    """``module.function:line`` of the nearest caller that is neither PyTorch nor this module."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name, function = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        inner = function.startswith("<") and function != "<module>"  # a comprehension
        if not inner and name != __name__ and name.partition(".")[0] not in ("torch", "fvcore"):
            break
        frame = frame.f_back
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_name}:{frame.f_lineno}"
