"""The groups that a field of a json's images or annotations makes of them."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from retina_plugin.evaluation.analysis.columns import Columns

MOST_VALUES = 20  # of a field of texts; rarer ones go together
MOST_NUMBERS = 8  # different numbers that are groups of their own; more are put into ranges
WITHOUT = "(none)"
PARTS = ("images", "annotations")
Labels = list[str | None]  # of the rows


@dataclass(kw_only=True)
class FieldGroups:
    """A field of the json and the group of each of its rows.

    Attributes:
        field: its name.
        part: ``images`` or ``annotations``.
        names: of the groups.
        group: (rows,) index of the group.
    """

    field: str
    part: str
    names: list[str]
    group: np.ndarray


def field_groups(columns: Columns, name: str, ranges: int) -> FieldGroups:
    """Look a field up and sort the rows into groups by their values.

    Texts and truth values are groups as they are, the rarest together where there are more than
    ``MOST_VALUES``; numbers as well where there are at most ``MOST_NUMBERS`` different ones, and
    else as ``ranges`` of about the same number of rows. Rows without the field are a group.

    Args:
        columns: the case.
        name: of the field; ``images.name`` or ``annotations.name`` where both have it.
        ranges: of numbers, how many.

    Raises:
        ValueError: no row has the field, or both parts do; says what there is.
    """
    part, field = _find(columns, name)
    values = [x.get(field) for x in _rows(columns)[part]]
    labels, names = _labels(values, ranges)
    if None in labels:
        names = [*names, WITHOUT]
    index = {x: i for i, x in enumerate(names)}
    group = np.array([index[WITHOUT if x is None else x] for x in labels], dtype=np.int64)
    return FieldGroups(field=field, part=part, names=names, group=group)


def _rows(columns: Columns) -> dict[str, list[dict[str, Any]]]:
    return {"images": columns.images, "annotations": columns.annotations}


def _find(columns: Columns, name: str) -> tuple[str, str]:
    """Part and name of a field."""
    rows = _rows(columns)
    first, _, rest = name.partition(".")
    parts, field = ([first], rest) if first in PARTS and rest else (PARTS, name)
    having = [part for part in parts if any(field in x for x in rows[part])]
    if not having:
        there = sorted({f"{part}.{key}" for part in PARTS for x in rows[part] for key in x})
        near = difflib.get_close_matches(field, [x.partition(".")[2] for x in there], n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"group by '{name}': no image or annotation of the ground truth has this field.{hint} "
            f"There are: {', '.join(there)}."
        )
    if len(having) > 1:
        raise ValueError(
            f"group by '{name}': images and annotations both have this field; "
            f"write images.{field} or annotations.{field}."
        )
    return having[0], field


def _labels(values: Sequence[Any], ranges: int) -> tuple[Labels, list[str]]:
    """The name of each row's group, and the names in the order to show."""
    known = [x for x in values if x is not None]
    if all(type(x) in (int, float) for x in known):
        different = sorted(set(known))
        if len(different) > MOST_NUMBERS:
            return _ranges(values, ranges)
        return [None if x is None else f"{x:g}" for x in values], [f"{x:g}" for x in different]
    labels = [None if x is None else str(x) for x in values]
    counts = Counter(x for x in labels if x is not None)
    names = sorted(counts, key=lambda x: (-counts[x], x))
    if len(names) <= MOST_VALUES:
        return labels, names
    rare = set(names[MOST_VALUES - 1 :])
    others = f"(other: {len(rare)} values)"
    names = [*names[: MOST_VALUES - 1], others]
    return [others if x in rare else x for x in labels], names


def _ranges(values: Sequence[Any], number: int) -> tuple[Labels, list[str]]:
    """Ranges of numbers that hold about as many rows each; equal numbers stay together."""
    known = np.array([x for x in values if x is not None], dtype=float)
    edges = np.unique(np.quantile(known, np.linspace(0, 1, number + 1)))
    digits = next(n for n in range(3, 18) if len({f"{x:.{n}g}" for x in edges}) == len(edges))
    names = [f"{low:.{digits}g} to {high:.{digits}g}" for low, high in pairwise(edges)]
    inner = edges[1:-1]
    return [
        None if x is None else names[int(np.searchsorted(inner, x, side="right"))] for x in values
    ], names
