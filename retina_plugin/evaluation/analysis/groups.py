"""AP, recall and precision of groups of images, and of groups of objects."""

from __future__ import annotations

import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import Group, Grouping
from retina_plugin.evaluation.analysis.coco_numbers import (
    IOU_THRESHOLDS,
    Precision,
    mean,
    precision_over_recall,
)
from retina_plugin.evaluation.analysis.columns import Columns
from retina_plugin.evaluation.analysis.field_groups import FieldGroups
from retina_plugin.evaluation.analysis.matching import Matches, View, match
from retina_plugin.evaluation.analysis.shares import found_and_right
from retina_plugin.evaluation.analysis.verdicts import judge

VIEWS_AT_ONCE = 4  # as many as areas: more would take more memory than all else


def group_results(
    columns: Columns,
    matches: Matches,
    groups: FieldGroups,
    *,
    iou_thresh: float,
    score_thresh: float | None,
) -> Grouping:
    """The numbers of each group of one field.

    A group of images is what COCO's evaluation of these images alone gives. Of a group of
    annotations the other objects are ignored as COCO ignores those of another size: a detection
    that hits one of them counts neither way. What hits nothing belongs to no group and counts
    against each, so that AP and precision of small groups are low; compare their recall, or the
    same group of two runs.

    Args:
        columns: the case.
        matches: of the case, all objects in the first view.
        groups: of the field.
        iou_thresh: one of the matches' thresholds.
        score_thresh: of recall and precision.
    """
    thresholds = {"iou_thresh": iou_thresh, "score_thresh": score_thresh}
    of = _of_images if groups.part == "images" else _of_annotations
    return Grouping(
        field=groups.field, of=groups.part, groups=of(columns, matches, groups, thresholds)
    )


def _of_images(
    columns: Columns, matches: Matches, groups: FieldGroups, thresholds: dict[str, float | None]
) -> list[Group]:
    verdicts = judge(columns, matches, **thresholds)
    hit, miss = verdicts.hit & verdicts.kept, verdicts.miss & verdicts.kept
    detection, object_ = (groups.group[x.image] for x in (columns.detections, columns.objects))
    results = []
    for i, name in enumerate(groups.names):
        mine, there = detection == i, object_ == i
        results.append(
            _group(
                name,
                images=int((groups.group == i).sum()),
                objects=int((verdicts.counts & there).sum()),
                hit=int((hit & mine).sum()),
                miss=int((miss & mine).sum()),
                precision=precision_over_recall(columns, matches, detections=mine, objects=there),
            )
        )
    return results


def _of_annotations(
    columns: Columns, matches: Matches, groups: FieldGroups, thresholds: dict[str, float | None]
) -> list[Group]:
    every = matches.counts[0]
    views = [View(counts=every & (groups.group == i)) for i in range(len(groups.names))]
    results = []
    for start in range(0, len(views), VIEWS_AT_ONCE):
        own = match(columns, views[start : start + VIEWS_AT_ONCE], matches.thresholds)
        for view, counts in enumerate(own.counts):
            verdicts = judge(columns, own, **thresholds, view=view)
            results.append(
                _group(
                    groups.names[start + view],
                    images=len(np.unique(columns.objects.image[counts])),
                    objects=int(counts.sum()),
                    hit=int((verdicts.hit & verdicts.kept).sum()),
                    miss=int((verdicts.miss & verdicts.kept).sum()),
                    precision=precision_over_recall(columns, own, view=view),
                )
            )
    return results


def _group(name: str, images: int, precision: Precision, **counts: int) -> Group:
    return Group(
        name=name,
        images=images,
        AP=mean(precision.precision[: len(IOU_THRESHOLDS)]),
        AP50=mean(precision.precision[0]),
        **found_and_right(**counts),
    )
