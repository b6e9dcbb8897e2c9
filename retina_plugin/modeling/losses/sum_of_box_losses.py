"""Several box losses at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from torch import Tensor, nn

from retina_plugin.modeling.contracts import BoxLoss, PositiveBoxes
from retina_plugin.registry import BOX_LOSSES

NODE = "MODEL.RETINANET.BOX_LOSS.SumOfBoxLosses"


@BOX_LOSSES.register(defaults={"TERMS": (), "WEIGHTS": ()}, parts="TERMS")
class SumOfBoxLosses(nn.Module):
    """``sum_i w_i L_i``.

    From a config the ``TERMS`` are names of box losses, each with its own settings.

    Args:
        terms: box losses that are summed; in a config their names.
        weights: weight of each term.

    Raises:
        ValueError: there is no term, or not as many weights as terms.
    """

    def __init__(self, *, terms: Sequence[BoxLoss] = (), weights: Sequence[float] = ()) -> None:
        super().__init__()
        if not terms or len(terms) != len(weights):
            raise ValueError(
                f"{NODE} needs at least one of TERMS, and one of WEIGHTS each, got {len(terms)} "
                f"and {len(weights)}: for example TERMS: [giou, DistributionFocalLoss], "
                "WEIGHTS: [2.0, 0.25]"
            )
        self.terms = nn.ModuleList(terms)
        self.weights = tuple(weights)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build the terms.

        Raises:
            UnknownNameError: a term is no box loss; lists the valid ones.
        """
        names = BOX_LOSSES.settings(cfg, cls.__name__)["TERMS"]
        return {"terms": [BOX_LOSSES.build_named(cfg, name) for name in names]}

    def forward(self, positives: PositiveBoxes) -> Tensor:
        """Returns ``(P,)``."""
        return sum(
            weight * term(positives) for weight, term in zip(self.weights, self.terms, strict=True)
        )
