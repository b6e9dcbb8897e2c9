"""Confusion of classes, with background."""

from __future__ import annotations

import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import BACKGROUND, ConfusionMatrix
from retina_plugin.evaluation.analysis.columns import Columns
from retina_plugin.evaluation.analysis.overlaps import overlaps_by_image
from retina_plugin.evaluation.analysis.verdicts import Verdicts


def confusion_matrix(
    columns: Columns, verdicts: Verdicts, names: list[str], iou_thresh: float
) -> ConfusionMatrix:
    """Who is taken for whom by the detections kept.

    First the hits of the right class, by COCO's rule: so the diagonal and the sums of rows and
    columns give the recall and precision of the tables. Then, the surest first, each detection left
    takes the free object of another class that it overlaps most, at ``iou_thresh`` or more. Objects
    left are missed. Detections left are of background, also those on an object that is taken: what
    they did wrong is told by the kinds of errors. What falls on a crowd counts nowhere.

    Args:
        columns: the case.
        verdicts: of its detections.
        names: of the classes.
        iou_thresh: of the verdicts.
    """
    kinds = len(names)
    counts = np.zeros((kinds + 1, kinds + 1), dtype=np.int64)
    label, truth = columns.detections.label, columns.objects.label
    hits = np.flatnonzero(verdicts.hit & verdicts.kept)
    np.add.at(counts, (truth[verdicts.object[hits]], label[hits]), 1)
    wrong, missed = verdicts.miss & verdicts.kept, verdicts.counts & ~verdicts.found
    for rows, objects, overlap in overlaps_by_image(columns, wrong, missed):
        overlap = np.where(label[rows][:, None] != truth[objects], overlap, -1.0)
        for i in np.flatnonzero(overlap.max(axis=1) >= iou_thresh):
            best = overlap[i].argmax()
            if overlap[i, best] >= iou_thresh:
                counts[truth[objects[best]], label[rows[i]]] += 1
                wrong[rows[i]] = missed[objects[best]] = False
                overlap[:, best] = -1.0
    np.add.at(counts, (kinds, label[wrong]), 1)
    np.add.at(counts, (truth[missed], kinds), 1)
    return ConfusionMatrix(names=[*names, BACKGROUND], counts=counts.tolist())
