"""What ``torch.compile`` and several workers wrap around a module, and the module in it."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel


def inner_model(model: nn.Module) -> nn.Module:
    """The model that ``DistributedDataParallel`` wraps; any other model is what it is."""
    return model.module if isinstance(model, DistributedDataParallel) else model


# By the module of the wrapper's class, which need not be imported: where it has what it wraps
_WRAPPERS = {
    "torch._dynamo.eval_frame": "_orig_mod",
    "torch.nn.parallel.data_parallel": "module",
    "torch.nn.parallel.distributed": "module",
    "torch.distributed.fsdp.fully_sharded_data_parallel": "module",
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper": "_checkpoint_wrapped_module",
    "torch.optim.swa_utils": "module",
}


def unwrapped(module: nn.Module) -> nn.Module:
    """The module within ``torch.compile``'s, ``DataParallel`` and the like, however many."""
    while True:
        kinds = [kind.__module__ for kind in type(module).__mro__ if kind.__module__ in _WRAPPERS]
        inner = module._modules.get(_WRAPPERS[kinds[0]]) if kinds else None
        if inner is None:
            return module
        module = inner
