"""AP, recall and precision of groups of images, and of groups of objects."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import Group, Grouping
from retina_plugin.evaluation.analysis.coco_evaluation import Evaluation, Verdicts
from retina_plugin.evaluation.analysis.coco_numbers import AT, mean
from retina_plugin.evaluation.analysis.field_groups import FieldGroups


def group_results(
    evaluation: Evaluation, verdicts: Verdicts, groups: FieldGroups, score_thresh: float | None
) -> Grouping:
    """The numbers of each group of one field.

    The numbers of a group of images are those of COCO's evaluation of these images alone. For a
    group of annotations the other objects are ignored as COCO ignores those of another size: a
    detection that hits one of them counts neither way. A detection that hits nothing belongs to no
    group and counts against each of them, so that AP and precision of small groups are low;
    compare their recall, or the same group of two runs.

    Args:
        evaluation: of the case.
        verdicts: of its detections, at the score threshold.
        groups: of the field.
        score_thresh: None keeps no detection.
    """
    if groups.part == "images":
        results = list(_of_images(evaluation, verdicts, groups))
    else:
        results = list(_of_annotations(evaluation, groups, score_thresh))
    return Grouping(field=groups.field, of=groups.part, groups=results)


def _of_images(evaluation: Evaluation, verdicts: Verdicts, groups: FieldGroups) -> Iterator[Group]:
    columns = evaluation.columns
    images = [np.flatnonzero(groups.group == i) for i in range(len(groups.names))]
    sliced = evaluation.coco.slice_by({str(i): (x + 1).tolist() for i, x in enumerate(images)})
    detection, object_ = (groups.group[x.image] for x in (columns.detections, columns.objects))
    for i, name in enumerate(groups.names):
        numbers = sliced[str(i)]
        yield Group(
            name=name,
            images=len(images[i]),
            AP=_defined(numbers["AP"]),
            AP50=_defined(numbers["AP50"]),
            **verdicts.shares(detection == i, object_ == i),
        )


def _of_annotations(
    evaluation: Evaluation, groups: FieldGroups, score_thresh: float | None
) -> Iterator[Group]:
    columns = evaluation.columns
    for i, name in enumerate(groups.names):
        alone = Evaluation(columns, evaluation.iou_thresh, ignored=groups.group != i)
        verdicts = alone.keep(alone.verdicts(), score_thresh)
        yield Group(
            name=name,
            images=len(np.unique(columns.objects.image[verdicts.counts])),
            AP=mean(alone.precision[..., 0]),
            AP50=mean(alone.precision[AT[0.5], ..., 0]),
            **verdicts.shares(),
        )


def _defined(value: float) -> float | None:
    """None for hotcoco's -1, a number that the data do not define."""
    return None if value < 0 else value
