"""A file's tensors under the names of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from retina_plugin.checkpoint.inflation import can_inflate, inflate, inflation_note
from retina_plugin.checkpoint.matching import match_names
from retina_plugin.checkpoint.report import counted
from retina_plugin.modeling.backbones.pretrained_network import PretrainedNetwork

ENOUGH = 0.9  # of a network's tensors: with fewer it is another network, or another layout


@dataclass(frozen=True)
class MappedWeights:
    """What :func:`map_onto` found.

    Attributes:
        tensors: by the network's names, shapes as in the file.
        unexpected: names of the file that no tensor of the network has.
        layout: how the file's names were read.
        notes: what was changed.
    """

    tensors: dict[str, Tensor]
    unexpected: list[str]
    layout: str
    notes: list[str]


def map_onto(network: nn.Module, given: Mapping[str, Tensor]) -> MappedWeights:
    """Rename a file's tensors for a network, and inflate its first convolution.

    Where no layout explains :data:`ENOUGH` of the network, ``map_pretrained(weights)`` of a
    ``PretrainedNetwork`` is asked.

    Args:
        network: a backbone.
        given: the file's tensors.

    Raises:
        ValueError: ``map_pretrained`` refuses them.
    """
    own = network.state_dict()
    match = match_names(own, given)
    tensors = {name: given[other] for name, other in match.names.items()}
    layout = match.layout
    if match.agreeing < ENOUGH * len(counted(own)) and isinstance(network, PretrainedNetwork):
        mapped = network.map_pretrained(given)
        if mapped is not None:
            tensors, layout = mapped, f"{type(network).__name__}'s own mapping"
    used = {id(tensor) for tensor in tensors.values()}
    unexpected = [name for name in counted(given) if id(given[name]) not in used]
    tensors, notes = inflate_where_needed(own, tensors)
    return MappedWeights(tensors, unexpected, layout, notes)


def inflate_where_needed(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """``given`` with the weights of RGB images made those of N channels where ``own`` has N.

    Args:
        own: a network's state dict.
        given: tensors by its names.

    Returns:
        All of them, and a note of each that was changed.
    """
    tensors, notes = dict(given), []
    for name, tensor in given.items():
        if name in own and can_inflate(tensor.shape, own[name].shape):
            channels = own[name].shape[1]
            tensors[name] = inflate(tensor, channels)
            notes.append(inflation_note(name, channels))
    return tensors, notes
