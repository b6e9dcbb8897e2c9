"""Settings of a component under the names that Detectron2's ``RetinaNet`` has for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class StockNames:
    """A component some of whose attributes are settings of Detectron2's ``RetinaNet``.

    The detector has those settings under Detectron2's names, and reads and sets the component's.

    Attributes:
        stock_names: Detectron2's name -> the component's attribute.
    """

    stock_names: ClassVar[Mapping[str, str]] = {}

    def stock_attribute(self, name: str) -> str | None:
        """Return the attribute that Detectron2 calls ``name``; None where it has no effect."""
        return self.stock_names.get(name)
