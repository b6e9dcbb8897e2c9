"""What a part may do besides its task: base classes, from which a part that does it derives.

A part has an ability if its class derives from the ability's base class, and only then: a layer, a
buffer or a function that merely has the name of one of their methods is left alone. Whoever
overrides none of the methods has the defaults, which change nothing.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from types import FunctionType

from detectron2.structures import Instances
from torch import Tensor, nn

from retina_plugin.modeling.contracts import DenseTargets, PositiveBoxes, Predictions
from retina_plugin.modeling.data_parallel import unwrapped

logger = logging.getLogger(__name__)


class ExtraLosses(nn.Module):
    """A head with outputs of its own, ``Predictions.extras``, that are trained by own losses."""

    def extra_losses(
        self, predictions: Predictions, targets: DenseTargets, positives: PositiveBoxes
    ) -> dict[str, Tensor]:
        """Sums by name, which the detector divides by the normalizer; by default none."""
        return {}


class FusedLogits(nn.Module):
    """A head one of whose own outputs changes the scores at inference."""

    def fused_logits(self, predictions: Predictions) -> Sequence[Tensor]:
        """What replaces the logits, in the same shapes: their sigmoid is the score."""
        return predictions.logits


class Refinement(nn.Module):
    """A head one of whose own outputs changes the detections."""

    def refine(self, detections: Sequence[Instances], predictions: Predictions) -> list[Instances]:
        """The detections of each image, in pixels of the network's input; by default as given."""
        return list(detections)


class Reparameterizable(nn.Module):
    """A module of any backbone, neck or head that is computed in another form at inference."""

    def for_inference(self) -> nn.Module:
        """What replaces it, equal to it in evaluation mode; by default itself.

        ``optimize_for_inference`` calls it on a copy in evaluation mode, which may as well be
        changed and returned; of modules within each other on the outermost, which answers for
        those in it.
        """
        return self


class HeadAbilities:
    """The abilities of a head, also of one within ``torch.compile`` or ``DataParallel``.

    Args:
        head: any module; one that derives from none of the base classes has the defaults.

    Raises:
        TypeError: a layer of the head, or another of its attributes, has the name of a method of
            an ability that it derives from, and would be hidden by it or hide it.
    """

    def __init__(self, head: nn.Module) -> None:
        self.head = head
        self._inner = inner = unwrapped(head)
        for ability in (ExtraLosses, FusedLogits, Refinement):
            if isinstance(inner, ability):
                _require_method(inner, ability)
            else:
                warn_of_undeclared(inner, ability)

    def extra_losses(
        self, predictions: Predictions, targets: DenseTargets, positives: PositiveBoxes
    ) -> dict[str, Tensor]:
        """See :class:`ExtraLosses`."""
        if isinstance(self._inner, ExtraLosses):
            return self._inner.extra_losses(predictions, targets, positives)
        return {}

    def fused_logits(self, predictions: Predictions) -> Sequence[Tensor]:
        """See :class:`FusedLogits`."""
        if isinstance(self._inner, FusedLogits):
            return self._inner.fused_logits(predictions)
        return predictions.logits

    def refine(self, detections: list[Instances], predictions: Predictions) -> list[Instances]:
        """See :class:`Refinement`."""
        if isinstance(self._inner, Refinement):
            return self._inner.refine(detections, predictions)
        return detections


def warn_of_undeclared(part: object, ability: type, attributes: Sequence[str] = ()) -> None:
    """Warn, once for each class, of a method that has an ability's name and is not called.

    Only functions of the part's class count: what else has that name is surely no ability.

    Args:
        part: does not derive from ``ability``.
        ability: the base class.
        attributes: look for these of any kind, also of the part itself, and not for its methods.
    """
    kind = type(part)
    for name in attributes or _methods_of(ability):
        found = inspect.getattr_static(part if attributes else kind, name, None)
        known = found is not None if attributes else isinstance(found, FunctionType)
        if known and (kind, name) not in _warned:
            _warned.add((kind, name))
            logger.warning(
                f"{kind.__name__}.{name} is not used by retina_plugin: it would be if "
                f"{kind.__name__} derived from {ability.__module__}.{ability.__name__}. Nothing is "
                "wrong if the name is a coincidence."
            )


_warned: set[tuple[type, str]] = set()


def _methods_of(ability: type) -> list[str]:
    return [name for name in vars(ability) if not name.startswith("_")]


def _require_method(part: nn.Module, ability: type) -> None:
    own = {*vars(part), *part._modules, *part._parameters, *part._buffers}
    for name in _methods_of(ability):
        if name in own and not callable(vars(part).get(name)):
            raise TypeError(
                f"{type(part).__name__} has a layer or attribute '{name}', but derives from "
                f"{ability.__name__}, whose method has that name: give the layer another name"
            )
