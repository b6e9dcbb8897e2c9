"""Which tensor of a file belongs to which of a network, where their names differ."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from torch import Tensor

from retina_plugin.checkpoint.inflation import can_inflate
from retina_plugin.checkpoint.report import counted
from retina_plugin.checkpoint.resnet_names import resnet_to_torchvision

# How much of the names a beginning must have in common to be tried as a prefix: of the network's
# nearly all, of the file's the share that a backbone has at least in a detector.
OWN_SHARE, FILE_SHARE = 0.9, 0.2
DEEPEST_PREFIX = 4


@dataclass(frozen=True)
class Layout:
    """A naming scheme: ``rename`` makes the file's name of the network's."""

    name: str
    rename: Callable[[str], str]


def _unflatten(name: str) -> str:
    """``stages_0.blocks.1`` -> ``stages.0.blocks.1``: timm's ``features_only`` flattens so."""
    return re.sub(r"^([A-Za-z]\w*?)_(\d+)\.", r"\1.\2.", name)


LAYOUTS = (
    Layout("the network's own names", lambda name: name),
    Layout("torchvision's ResNet names", resnet_to_torchvision),
    Layout("timm's names of a whole model", _unflatten),
)


@dataclass(frozen=True)
class Match:
    """The best reading of a file's names.

    Attributes:
        names: the file's name of each of the network's that was found, its shape right or not.
        layout: in words.
        agreeing: how many have the right shape, or can be inflated to it.
    """

    names: Mapping[str, str]
    layout: str
    agreeing: int


def match_names(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Match:
    """The layout and prefixes that give the most tensors of ``own`` one of ``given``.

    Tried is every :data:`LAYOUTS` with every prefix that the names of either side have in common;
    of equally good ones the first, so own names before foreign ones and no prefix before one.

    Args:
        own: a network's state dict.
        given: a file's.
    """
    best = Match({}, "no known layout", 0)
    own_prefixes = _common_prefixes(own, OWN_SHARE)
    for layout, ours, theirs in product(LAYOUTS, own_prefixes, _common_prefixes(given, FILE_SHARE)):
        wanted = {
            name: theirs + layout.rename(name.removeprefix(ours))
            for name in own
            if name.startswith(ours)
        }
        names = {name: other for name, other in wanted.items() if other in given}
        agreeing = sum(_fits(own[name], given[names[name]]) for name in counted(names))
        if agreeing > best.agreeing:
            best = Match(names, layout.name + _prefix_text(ours, theirs), agreeing)
    return best


def _fits(own: Tensor, given: Tensor) -> bool:
    return own.shape == given.shape or can_inflate(given.shape, own.shape)


def _prefix_text(ours: str, theirs: str) -> str:
    parts = [f"'{theirs}' in the file" if theirs else "", f"'{ours}' here" if ours else ""]
    text = " and ".join(filter(None, parts))
    return f", below {text}" if text else ""


def _common_prefixes(names: Iterable[str], share: float) -> list[str]:
    """No prefix, then every dotted beginning of at least ``share`` of the names, short first."""
    names = counted(names)
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")[:-1][:DEEPEST_PREFIX]
        counts.update(".".join(parts[:depth]) + "." for depth in range(1, len(parts) + 1))
    common = [prefix for prefix, count in counts.items() if count >= share * len(names)]
    return ["", *sorted(common, key=len)]
