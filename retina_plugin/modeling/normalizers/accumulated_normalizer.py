"""One normalizer for all micro-batches of a step."""

from __future__ import annotations

from torch import Tensor

from retina_plugin.modeling.contracts import Normalizer


class AccumulatedNormalizer:
    """Divides the micro-batches of a step so that they make the large batch's loss and gradient.

    The large batch's loss is ``(S_1 + ... + S_n) / normalizer(P_1 + ... + P_n)``, but only the last
    micro-batch knows the divisor. So micro-batch i is divided by ``d_i``::

        d_i = max(P_1 + ... + P_i, 1)  for i < n,    d_n = normalizer(P_1 + ... + P_n)

    and what was accumulated before it is multiplied by ``d_(i-1) / d_i``, :attr:`rescale`. All d
    are of one magnitude, which half precision needs. The normalizer is asked once a step: a moving
    average is updated once. Nothing waits for the device. Use one object a step.

    Args:
        normalizer: of the step.
        parts: n.

    Attributes:
        rescale: ``d_(i-1) / d_i`` of the last call, a scalar tensor; None after the first.
    """

    def __init__(self, normalizer: Normalizer, parts: int) -> None:
        self.rescale: Tensor | None = None
        self._normalizer = normalizer
        self._parts_left = parts
        self._count: Tensor | None = None
        self._divisor: Tensor | None = None

    def __call__(self, num_positives: Tensor) -> Tensor:
        """See :class:`retina_plugin.modeling.contracts.Normalizer`; once a micro-batch."""
        assert self._parts_left > 0, "asked more often than there are micro-batches"
        self._parts_left -= 1
        self._count = num_positives if self._count is None else self._count + num_positives
        before = self._divisor
        if self._parts_left:
            self._divisor = self._count.float().clamp(min=1)
        else:
            self._divisor = self._normalizer(self._count)
        self.rescale = None if before is None else before / self._divisor
        return self._divisor
